"""Arguments and options shared by several commands."""

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from spar_bench.cli.completion import experiments_here, specs, trials_to_come
from spar_bench.errors import UnknownName
from spar_bench.files import YAML_ENDINGS, is_address


class HomePath(click.Path):
    """A path as typed, with `~` read as the home folder, which a quoted one still has."""

    def __init__(self, *, path_type: type[Any] = Path, **checks: bool) -> None:
        super().__init__(path_type=path_type, **checks)

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:
        """Return the path once it passes its checks."""
        return super().convert(os.path.expanduser(value), param, ctx)


class StorePlace(HomePath):
    """The folder of a store, or the address of a bucket, which gets a folder here."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """Return the folder."""
        if not is_address(value):
            return Path(super().convert(value, param, ctx))
        from spar_bench.opening import store_folder

        return store_folder(value)


class SpecFile(HomePath):
    """A spec, or a folder of specs: its path, or its name, which is that path below `experiments/`.

    An experiment's name has no ending.
    """

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Path:
        """Return the path of the spec, or of the folder.

        Raises:
            UnknownName: neither a spec nor a folder in `experiments/` has that name.
        """
        path: Path = super().convert(value, param, ctx)
        if path.suffix in YAML_ENDINGS or path.exists():
            return path
        if (suite := Path("experiments", path)).is_dir():
            return suite
        known = experiments_here()
        if str(value) not in known:
            raise UnknownName.among("experiment", str(value), known)
        return known[str(value)]

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete experiments and files."""
        return specs(incomplete)


def listed(value: str | None) -> tuple[str, ...]:
    """Split names at commas."""
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


def numbers(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Split positive whole numbers at commas."""
    parts = listed(value)
    if any(not part.isdecimal() or int(part) < 1 for part in parts):
        raise click.BadParameter(
            f"must be whole numbers from 1, separated by commas, but got {value!r}; write 1,8,64"
        )
    return tuple(map(int, parts))


spec_argument = click.argument("spec", type=SpecFile())
specs_argument = click.argument("specs", nargs=-1, type=SpecFile(), metavar="[SPEC]...")
store_option = click.option(
    "--store",
    type=StorePlace(),
    default=Path(".spar_bench"),
    show_default=True,
    help="Folder of finished work, or a bucket as s3://BUCKET/FOLDER.",
)
tracking_option = click.option(
    "--tracking-uri",
    metavar="URI",
    help="MLflow store  [default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db here]",
)
seeds_option = click.option(
    "--seeds",
    "n_seeds",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Seeds 0 to N - 1 instead of the spec's.",
)

only_option = click.option(
    "--only",
    multiple=True,
    metavar="TRIAL",
    help="This trial or group alone; repeatable.",
    shell_complete=trials_to_come,
)
