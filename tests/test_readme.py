"""The README's own code, run as it stands; a tiny sweep takes the place of the smoke test's."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import spar_bench as sb
from tests.small import TINY, write_spec

README = Path(sb.__file__).parent.parent / "README.md"


@pytest.mark.usefixtures("here")
@pytest.mark.slow
def test_library_section_runs_as_it_stands() -> None:
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    write_spec(TINY, "smoke")
    names: dict[str, Any] = {}

    exec(code, names)

    assert [row.status for row in names["outcome"].rows] == ["finished"] * 4
    before, after = (names[name].visual.state_dict() for name in ("backbone", "student"))
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.usefixtures("in_swept")
def test_paths_and_names_may_be_plain_text(tmp_path: Path) -> None:
    spec = "experiments/tiny.yaml"

    planned = sb.plan_sweep(spec, store=".spar_bench", only="stride_px=64")
    written = sb.write_report("tiny", folder=str(tmp_path))

    assert [trial.name for trial in planned.plan.trials] == ["stride_px=64"]
    assert list(written) == ["tiny"]
    assert sb.read_spec(spec).experiment == "tiny"


def test_options_below_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="Options: n_seeds: must be at least 1, but got 0"):
        sb.Options(n_seeds=0)
