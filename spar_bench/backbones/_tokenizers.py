"""The tokenizer that a text tower needs from the Hugging Face Hub, and its files; without torch.

open_clip's own tokenizer, which CLIP's text towers have, needs no files.
"""

from dataclasses import dataclass
from pathlib import Path

from spar_bench.backbones._config import model_config
from spar_bench.backbones._weights import Weights, hub_snapshot
from spar_bench.errors import NotReady

_CONFIG = "tokenizer_config.json"
_VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*")
"""Any one of them is enough; without one, transformers silently makes a tokenizer of no words."""
_FURTHER = ("added_tokens.json", "merges.txt", "special_tokens_map.json")


@dataclass(frozen=True)
class HubTokenizer:
    """A tokenizer of the Hub: its repository, and the folder that open_clip reads it from, if any.

    That is the folder of weights with a config; for other weights, the Hugging Face cache's.
    """

    repository: str
    folder: Path | None

    @property
    def files(self) -> list[Path]:
        """Those of its files that are there."""
        patterns = (_CONFIG, *_VOCABULARIES, *_FURTHER)
        found = {path for pattern in patterns for path in _existing(self.folder, pattern)}
        return sorted(found)

    @property
    def lacking(self) -> list[str]:
        """The names of files that it cannot be made without, but that are not there."""
        wanted = {_CONFIG: [_CONFIG], _VOCABULARIES[0]: _VOCABULARIES}
        return [
            name
            for name, patterns in wanted.items()
            if not any(_existing(self.folder, pattern) for pattern in patterns)
        ]


def tokenizer_of(weights: Weights, architecture: str) -> HubTokenizer | None:
    """Return the tokenizer that weights need, or None where open_clip's own serves.

    Raises:
        NotReady: the config beside the weights cannot be read.
    """
    text = model_config(weights, architecture).get("text_cfg")
    repository = text.get("hf_tokenizer_name") if isinstance(text, dict) else None
    if not isinstance(repository, str) or not repository:
        return None
    folder = weights.folder if weights.has_config else hub_snapshot(repository)
    return HubTokenizer(repository, folder)


def require_tokenizer(weights: Weights, architecture: str) -> None:
    """Refuse weights whose text tower needs a tokenizer that is not there.

    Raises:
        NotReady: files of it are missing.
    """
    found = tokenizer_of(weights, architecture)
    if found is None or not found.lacking:
        return
    lacking, repository = " or ".join(found.lacking), found.repository
    if weights.has_config:
        raise NotReady(
            f"{weights.folder}: must hold its tokenizer's files beside the weights, but has no "
            f"{lacking}; put those of {repository} there"
        )
    raise NotReady(
        f"model {architecture}: its tokenizer must be in the Hugging Face cache, but {repository} "
        f"has no {lacking} there; `hf download {repository} --include '*token*'` puts it there"
    )


def _existing(folder: Path | None, pattern: str) -> list[Path]:
    return [] if folder is None else [path for path in folder.glob(pattern) if path.is_file()]
