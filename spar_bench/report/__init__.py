"""Turn the results of a sweep into tables, figures and a page.

Everything heavy (pandas, matplotlib, seaborn) is imported when a function is called.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spar_bench.evaluations import Evaluations
from spar_bench.results import Preview, Results
from spar_bench.track import Runs

if TYPE_CHECKING:
    from spar_bench.report.sections import Findings

__all__ = ["draw_panel", "draw_pca", "write", "write_suite"]


def write(
    results: Results,
    evaluations: Evaluations,
    folder: Path,
    *,
    mix_protocols: bool = False,
    columns: Sequence[str] = (),
    runs: Runs = MappingProxyType({}),
) -> "tuple[list[Path], Findings]":
    """Write tables, figures, provenance and a page into `folder`; return paths, and what they show.

    `evaluations` has the counts and previews of the rows' evaluations, or some of them.
    `columns` are keys of those that tables of accuracy and cost have, in their order; none: all.
    `runs` are those that show the rows in MLflow, to link to.
    Figures of an earlier report that no longer apply are removed, unless they were altered since.

    Raises:
        MixedProtocols: rows of a data set have different protocols, no column says which, and
            `mix_protocols` is off.
        UnknownName: there is no such column.
    """
    from spar_bench.report.writing import write_report

    return write_report(
        results, evaluations, folder, mix_protocols=mix_protocols, columns=columns, runs=runs
    )


def write_suite(
    name: str, findings: "list[Findings]", folder: Path, *, lacking: Sequence[str]
) -> list[Path]:
    """Write the page of a suite into `folder`, given what its experiments' reports show.

    Their folders lie where `folder` and their names say: in it, or beside it. `lacking` are the
    experiments without a report.
    """
    from spar_bench.report import writing

    return writing.write_suite(name, findings, folder, lacking=lacking)


def draw_panel(previews: Mapping[str, Preview], classes: list[str], path: Path) -> None:
    """Draw image, truth and the prediction of each key of `previews`, one row per image.

    Raises:
        ValueError: `previews` is empty, or its previews show different images.
    """
    from spar_bench.report.pictures import panel_figure
    from spar_bench.report.style import save_as

    save_as(lambda: panel_figure(previews, classes), path, names=classes)


def draw_pca(
    image: NDArray[np.uint8],
    features: Mapping[str, NDArray[np.floating[Any]]],
    path: Path,
    *,
    fitted_to: str | None = None,
) -> None:
    """Draw an image `(H, W, 3)` and its features `(C, h, w)`, one column per key, in one PCA basis.

    The basis is that of the features of `fitted_to`, or of all together.

    Raises:
        ValueError: `features` is empty, or its maps differ in channels.
    """
    from spar_bench.report.pictures import pca_figure
    from spar_bench.report.style import save_as

    save_as(lambda: pca_figure(image, features, fitted_to=fitted_to), path)
