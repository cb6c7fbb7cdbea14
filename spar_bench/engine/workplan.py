"""The plan that workers read: closed, versioned JSON, from which any of its stages can be made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError

from spar_bench.errors import NotReady
from spar_bench.failures import Failure
from spar_bench.files import replace_text
from spar_bench.stage import digest
from spar_bench.stages.base import Stage, stage_from_json
from spar_bench.validation import Part

FORMAT = 1


class Retries(Part):
    """Which failures are final: `retry` repeats diverged students; searches keep pruned ones."""

    retry: bool = False
    keep_pruned: bool = False

    def given_up(self, past: Failure | None) -> Failure | None:
        """Return a stage's last failure if it is not tried again, else None."""
        if past is None or not past.final:
            return None
        tries_again = not self.keep_pruned if past.outcome == "pruned" else self.retry
        return None if tries_again else past


@dataclass(frozen=True)
class WorkPlan:
    """Stages by fingerprint, and which failures are final."""

    stages: Mapping[str, Stage]
    retries: Retries

    def save(self, folder: Path) -> Path:
        """Write the plan under its digest; return the file."""
        document = _Document(
            format=FORMAT,
            retries=self.retries,
            stages=[stage.to_json() for stage in self.stages.values()],
        )
        text = document.model_dump_json()
        path = folder / f"{digest(text)[:16]}.json"
        replace_text(path, text)
        return path


class _Document(Part):
    format: Literal[1]
    retries: Retries
    stages: list[dict[str, JsonValue]]


def read_work_plan(path: Path) -> WorkPlan:
    """Read a plan that `WorkPlan.save` wrote.

    Raises:
        NotReady: it cannot be read, or another version of spar-bench wrote it.
    """
    try:
        document = _Document.model_validate(json.loads(path.read_text(encoding="utf-8")))
        stages = [stage_from_json(one) for one in document.stages]
    except (OSError, ValueError, KeyError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NotReady(
            f"{path}: must be a plan of format {FORMAT}, as a sweep writes it for its workers, but "
            f"cannot be read: {reason}; run the sweep again"
        ) from error
    return WorkPlan({stage.fingerprint: stage for stage in stages}, document.retries)
