"""Numbers that texts state about the shipped example, against its results."""

import csv
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
STRIDES = (64, 32, 28, 18, 16, 12, 8)

with (ROOT / "reports/stride/results.csv").open(encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))


def percent(method: str, **cells: str) -> str:
    """Return the mIoU of the rows of a method as a text states it: in %, to one place."""
    found = {
        f"{100 * float(row['miou']):.1f}"
        for row in ROWS
        if row["method"] == method and all(row[key] == value for key, value in cells.items())
    }
    [stated] = found
    return stated


PRETRAINED = percent("pretrained")
TEACHERS = [percent("teacher", stride_px=str(stride)) for stride in STRIDES]
LAST_2, ALL, SPAR, SPAR_ALL = (
    percent("student", trainable=part)
    for part in (
        *("last_2_blocks", "all"),
        *("imported: patchwork-spar", "imported: patchwork-spar-all"),
    )
)


def text(path: str) -> str:
    """Return a text without its comment marks and line ends."""
    return re.sub(r"\s*\n#? ?", " ", (ROOT / path).read_text(encoding="utf-8"))


def test_readme_states_the_students_their_teacher_and_the_single_pass() -> None:
    [shipped] = re.findall(
        r"stride 12, and has ([\d.]+) % mIoU, where both have ([\d.]+) and the undistilled "
        r"single pass ([\d.]+); that of the last two blocks has ([\d.]+)\.",
        text("README.md"),
    )
    [trained] = re.findall(
        r"the students reach ([\d.]+) \(last two blocks\) and ([\d.]+) % mIoU \(all weights\)\.",
        text("README.md"),
    )

    both = {TEACHERS[STRIDES.index(stride)] for stride in (18, 12)}
    assert shipped == (SPAR_ALL, *both, PRETRAINED, SPAR)
    assert trained == (LAST_2, ALL)


def test_share_that_one_pass_costs_of_teachers_as_good() -> None:
    gflops = {
        (row["method"], row["stride_px"], row["trainable"]): float(row["gflops"]) for row in ROWS
    }

    shares = [gflops["student", "18", "all"] / gflops["teacher", s, ""] for s in ("18", "12")]
    stated = "22 % of the GFLOPs of stride 18, 11 % of those of stride 12"
    assert [round(100 * share) for share in shares] == [22, 11]
    assert stated in text("README.md")
    assert stated.replace(",", " and") in text("experiments/stride.yaml")


def test_header_of_the_stride_experiment_states_what_came_of_it() -> None:
    stated = re.search(
        r"In mIoU %: ([\d.]+) pretrained; ([\d., ]+) at strides ([\d, ]+); students ([\d.]+) and "
        r"([\d.]+), of the package ([\d.]+) and ([\d.]+)\.",
        text("experiments/stride.yaml"),
    )

    assert stated is not None
    pretrained, teachers, strides, *students = stated.groups()
    assert (pretrained, students) == (PRETRAINED, [LAST_2, ALL, SPAR, SPAR_ALL])
    assert strides == ", ".join(map(str, STRIDES))
    assert teachers == ", ".join(TEACHERS)


def test_page_on_patchwork_states_the_same_numbers() -> None:
    page = (ROOT / "docs/patchwork.md").read_text(encoding="utf-8")

    table = f"| all 48 validation scenes | {' | '.join([PRETRAINED, *TEACHERS])} |"
    assert table in page
    assert f"Muon 2e-3 (**`stride.yaml`**) | 320 | 3 | 2 | {LAST_2} |" in page
    assert f"| all, the same, Muon 2e-3 (**`stride.yaml`**) | 320 | 3 | 2 | {ALL} |" in page
    assert f"| `patchwork-spar-all` | all | {SPAR_ALL} |" in page
    assert f"| `patchwork-spar` | last two blocks | {SPAR} |" in page


def test_recipe_of_the_students_states_what_they_give() -> None:
    page = (ROOT / "recipes/patchwork_students/README.md").read_text(encoding="utf-8")

    for trained, miou in (("all", SPAR_ALL), ("last_2_blocks", SPAR)):
        report = json.loads((ROOT / f"recipes/patchwork_students/{trained}.json").read_text())
        assert f"{100 * report['miou']:.1f}" == miou
        assert f"| {report['images']:,} | {report['passes']:,} | {report['steps']:,} |" in page
        assert re.search(rf"\| \**{miou}\**\s*\|", page)
