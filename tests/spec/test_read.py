"""Points of a spec: how they are expanded, resolved, merged and named."""

from pathlib import Path

import pytest

from spar_bench.spec import LoadedSpec, read_spec, resolve_point


@pytest.fixture
def read(tmp_path: Path):  # type: ignore[no-untyped-def]
    def read(text: str, **environ: str) -> LoadedSpec:
        path = tmp_path / "spec.yaml"
        path.write_text(text, encoding="utf-8")
        return read_spec(path, environ=environ)

    return read


def test_a_spec_without_a_sweep_is_one_point_called_base(read) -> None:  # type: ignore[no-untyped-def]
    loaded = read("teacher: {window_px: 64, stride_px: 12}\n")

    assert [point.group for point in loaded.points] == ["base"]
    assert loaded.points[0].settings.teacher.stride_px == 12
    assert loaded.points[0].swept == {}
