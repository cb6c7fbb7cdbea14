"""Points of a spec: how they are expanded, merged and named, and what its text may hold."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_jsonable_python

from spar_bench.conflicts import read_spec
from spar_bench.spec.keys import FIELDS, PARTS
from spar_bench.spec.read import experiment_name
from spar_bench.spec.schema import Settings
from tests.small import printed
from tests.spec.conftest import Problems, Read

pytestmark = pytest.mark.usefixtures("folder")


def groups(read: Read, text: str) -> list[str]:
    return [point.group for point in read(text).points]


def test_a_spec_without_a_sweep_is_one_point_called_base(read: Read) -> None:
    loaded = read("teacher: {window_px: 64, stride_px: 12}\n")

    assert [point.group for point in loaded.points] == ["base"]
    assert loaded.points[0].settings.teacher.stride_px == 12
    assert loaded.points[0].swept == {}


def test_a_grid_is_every_combination_with_the_last_key_fastest(read: Read) -> None:
    text = "sweep: [{grid: {student.loss: [mse, l1], student.epochs: [1, 2]}}]"

    assert groups(read, text) == [
        "loss=mse,epochs=1",
        "loss=mse,epochs=2",
        "loss=l1,epochs=1",
        "loss=l1,epochs=2",
    ]


SETTINGS = """
student: {loss: smooth_l1}
sweep:
  - grid: {student.loss.beta: [1, 0.5]}
  - grid: {student.loss: [mse, smooth_l1, {name: smooth_l1, beta: 2}]}
"""


def test_settings_of_a_plug_in_are_swept_with_their_defaults_filled_in(read: Read) -> None:
    points = read(SETTINGS).points

    assert [(p.group, p.swept["student.loss"], p.swept["student.loss.beta"]) for p in points] == [
        ("beta=1", "smooth_l1", 1.0),  # and so not again in the second block
        ("beta=0.5", "smooth_l1", 0.5),
        ("loss=mse", "mse", None),
        ("beta=2,loss=smooth_l1", "smooth_l1", 2.0),
    ]
    assert [p.settings.student.loss.settings for p in points] == [
        {"beta": 1.0}, {"beta": 0.5}, {}, {"beta": 2.0}
    ]  # fmt: skip


def test_settings_that_nothing_writes_out_are_no_swept_keys(read: Read) -> None:
    points = read("sweep: [{grid: {student.loss: [mse, smooth_l1]}}]").points

    assert [(p.group, list(p.swept)) for p in points] == [
        ("loss=mse", ["student.loss"]),
        ("loss=smooth_l1", ["student.loss"]),
    ]


def test_a_zip_takes_values_side_by_side(read: Read) -> None:
    points = read(
        "sweep: [{zip: {teacher.window_px: [64, 32], teacher.stride_px: [16, 8]}}]"
    ).points

    assert [(p.settings.teacher.window_px, p.settings.teacher.stride_px) for p in points] == [
        (64, 16),
        (32, 8),
    ]


def test_grid_zip_and_cases_of_a_block_are_multiplied(read: Read) -> None:
    text = """
sweep:
  - grid: {student.loss: [mse, l1]}
    zip: {teacher.window_px: [64, 32], teacher.stride_px: [16, 8]}
    cases: [{student.epochs: 1}, {student.epochs: 2}, {student.epochs: 3}]
"""
    assert len(set(groups(read, text))) == 2 * 2 * 3


def test_a_case_is_named_by_its_own_keys(read: Read) -> None:
    text = "sweep: [{cases: [{student.loss: l1, student.epochs: 3}, {student.epochs: 4}]}]"

    assert groups(read, text) == ["loss=l1,epochs=3", "epochs=4"]


def test_set_holds_for_its_block_and_is_no_axis(read: Read) -> None:
    loaded = read("""
teacher: {window_px: 64, stride_px: 12}
sweep:
  - grid: {teacher.stride_px: [64, 28]}
    set: {evaluate.methods: [teacher]}
  - grid: {student.trainable: [last_2_blocks, all]}
""")

    assert [(point.group, point.settings.evaluate.methods) for point in loaded.points] == [
        ("stride_px=64", ["teacher"]),
        ("stride_px=28", ["teacher"]),
        ("trainable=last_2_blocks", ["pretrained", "teacher", "student"]),
        ("trainable=all", ["pretrained", "teacher", "student"]),
    ]
    assert loaded.points[3].swept == {"teacher.stride_px": 12, "student.trainable": "all"}


def test_exclude_leaves_out_points_where_all_its_keys_match(read: Read) -> None:
    text = """
sweep:
  - grid: {teacher.window_px: [64, 32], teacher.stride_px: [64, 32]}
    exclude: [{teacher.window_px: 32, teacher.stride_px: 64.0}]
"""
    assert groups(read, text) == [
        "window_px=64,stride_px=64",
        "window_px=64,stride_px=32",
        "window_px=32,stride_px=32",
    ]


def test_exclude_compares_with_what_the_base_and_the_defaults_say(read: Read) -> None:
    text = """
student: {epochs: 3}
sweep:
  - grid: {student.loss: [mse, l1]}
    exclude: [{student.loss: l1, student.epochs: 3, student.optimiser: adamw, backbone: patchwork}]
"""
    assert groups(read, text) == ["loss=mse"]


def test_points_with_equal_settings_are_merged_under_the_first_name(read: Read) -> None:
    text = """
sweep:
  - grid: {student.loss: [mse, l1]}
  - grid: {student.trainable: [last_2_blocks, all]}
"""
    assert groups(read, text) == ["loss=mse", "loss=l1", "trainable=all"]


def test_equal_names_of_different_settings_get_a_hash(read: Read) -> None:
    found = groups(
        read,
        """
sweep:
  - grid: {student.loss: [mse, l1]}
  - grid: {student.loss: [mse, cosine]}
    set: {student.epochs: 3}
""",
    )

    assert [name.partition("~")[0] for name in found] == [
        "loss=mse", "loss=l1", "loss=mse", "loss=cosine",
    ]  # fmt: skip
    assert [len(name.partition("~")[2]) for name in found] == [4, 0, 4, 0]
    assert found[0] != found[2]


def test_a_last_part_that_two_swept_keys_share_is_written_in_full(read: Read) -> None:
    text = """
sweep:
  - grid: {evaluate.short_side_px: [[128], [256, 384]], images.short_side_px: [[64, 96]]}
  - grid: {images.short_side_px: [[64, 64]]}
"""
    assert groups(read, text) == [
        "evaluate.short_side_px=128,images.short_side_px=64-96",
        "evaluate.short_side_px=256-384,images.short_side_px=64-96",
        "images.short_side_px=64-64",
    ]


def test_a_shorthand_and_the_key_it_stands_for_are_swept_alike(read: Read) -> None:
    short = read("sweep: [{grid: {backbone: [patchwork, openclip]}}]")
    full = read("sweep: [{grid: {backbone.name: [patchwork, openclip]}}]")

    assert [point.group for point in short.points] == ["backbone=patchwork", "backbone=openclip"]
    assert short.points == full.points
    assert short.points[1].swept == {"backbone.name": "openclip"}


def test_a_swept_key_beside_a_shorthand_keeps_its_name(read: Read) -> None:
    points = read("backbone: openclip\nsweep: [{grid: {backbone.path: [clip, other/clip]}}]").points

    assert [point.settings.backbone.name for point in points] == ["openclip", "openclip"]
    assert [point.settings.backbone.path for point in points] == ["clip", "other/clip"]
    assert [point.group.partition("~")[0] for point in points] == ["path=clip", "path=clip"]
    assert points[0].group != points[1].group


def test_group_names_are_safe_as_file_names(read: Read) -> None:
    text = """
sweep:
  - grid:
      evaluate.templates: [["a photo of a {}."], ["a/b {}", "c:\\\\d {}"], openclip_80]
      student.learning_rate: [1e-4, 0.000123456789]
"""
    for name in groups(read, text):
        assert not set(name) & set('/\\:*?"<>| {}')
        assert len(name) < 150


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("stride.yaml", "stride"),
        ("my specs/a b.yaml", "a_b"),
        ("experiments/stride.yaml", "stride"),
        ("experiments/paper/stride_figure.yaml", "paper/stride_figure"),
        ("experiments/old/experiments/x.v2.yml", "x.v2"),
        ("experiments/../x.yaml", "x"),
        ("experiments/.hidden.yaml", "hidden"),
        ("experiments/größe.yaml", "größe"),
        ("experiments/步幅/窗.yaml", "步幅/窗"),
        ("experiments/finer strides, (2).yaml", "finer_strides_2_"),
        ("experiments/--store.yaml", "store"),
        ("experiments/...yaml", "_"),
        ("experiments/v.1", "v.1"),
        ("experiments/v.2/stride.yml", "v.2/stride"),
    ],
)
def test_an_experiment_is_named_by_its_path_under_experiments(path: str, name: str) -> None:
    assert experiment_name(Path(path)) == name


def test_variables_are_filled_in_from_the_environment(read: Read) -> None:
    loaded = read(
        """
question: "${WHO}: ${WHAT:-why}${NOTHING:-}"
backbone:
  path: ${DATA:-clip}/x
images: {count: "${COUNT}"}
""",
        WHO="me",
        COUNT="7",
        DATA="",
    )

    assert loaded.spec.question == "me: why"
    assert loaded.spec.backbone.path == "clip/x"
    assert loaded.spec.images.count == 7


def test_yaml_is_read_as_version_1_2(read: Read) -> None:
    loaded = read(
        "question: no\nstudent: {learning_rate: 1e-4, epochs: 010}\nmeasure: {latency: off}"
    )

    assert loaded.spec.question == "no"
    assert loaded.spec.student.learning_rate == 1e-4
    assert loaded.spec.student.epochs == 10
    assert loaded.spec.measure.latency is False


def test_an_alias_repeats_a_value(read: Read) -> None:
    loaded = read("images: {short_side_px: &range [64, 96]}\nevaluate: {short_side_px: *range}")

    assert loaded.spec.evaluate.short_side_px == [64, 96]


def test_the_hash_is_of_the_content_and_not_of_comments_order_or_defaults(read: Read) -> None:
    plain = read("seeds: [0]\nteacher: {stride_px: 12}")
    other = read("# why\nteacher: {upsample: auto, stride_px: 12.0}")
    different = read("teacher: {stride_px: 8}")

    assert plain.spec_hash == other.spec_hash
    assert plain.spec_hash != different.spec_hash
    assert len(plain.spec_hash) == 64


def test_reading_a_spec_imports_nothing_heavy(folder: Path) -> None:
    script = """
import sys
from pathlib import Path
from spar_bench.errors import SpecError
from spar_bench.conflicts import read_spec
Path("x.yaml").write_text("teacher: {strid_px: 12}")
try:
    read_spec(Path("x.yaml"))
except SpecError as error:
    print(error)
heavy = {"torch", "numpy", "PIL", "open_clip", "timm", "mlflow", "optuna", "pandas", "matplotlib"}
print(sorted(heavy & set(sys.modules)))
"""
    assert printed(script, cwd=folder).splitlines() == [
        "x.yaml:1:11: teacher.strid_px: must be a known key, but got 'strid_px'; "
        "did you mean 'stride_px'?",
        "[]",
    ]


def test_a_whole_part_may_be_swept(read: Read) -> None:
    points = read("""
teacher: {window_px: 64, stride_px: 12}
sweep:
  - grid:
      teacher: [{window_px: 64, stride_px: 32}, {window_px: 32, stride_px: 16}]
      evaluate.datasets: [[patchwork], [{name: folder, path: data/street}]]
""").points

    assert [point.group for point in points] == [
        "window_px=64,stride_px=32,datasets=patchwork",
        "window_px=64,stride_px=32,datasets=street",
        "window_px=32,stride_px=16,datasets=patchwork",
        "window_px=32,stride_px=16,datasets=street",
    ]


def test_environment_is_read_when_a_spec_is_and_stands_in_no_signature(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "asked.yaml").write_text('question: "${SPAR_BENCH_ASKED}"\n', encoding="utf-8")
    monkeypatch.setenv("SPAR_BENCH_ASKED", "why")

    assert read_spec("asked.yaml").spec.question == "why"
    assert inspect.signature(read_spec).parameters["environ"].default is None


def test_values_of_a_swept_key_that_holds_objects_are_json(read: Read) -> None:
    points = read("""
sweep:
  - grid: {evaluate.datasets: [[patchwork], [{name: patchwork, count: 4, label: few}]]}
    set: {evaluate.methods: [pretrained]}
""").points

    [plain, few] = [json.loads(json.dumps(point.swept, allow_nan=False)) for point in points]
    assert [dataset["label"] for dataset in few["evaluate.datasets"]] == ["few"]
    assert [dataset["name"] for dataset in plain["evaluate.datasets"]] == ["patchwork"]
    assert [point.group for point in points] == ["datasets=patchwork", "datasets=few"]


def test_every_key_that_may_be_swept_has_json_for_its_values(read: Read) -> None:
    keys = sorted(key for key in FIELDS if key not in PARTS)
    cases = [f"    - {{{key}: {json.dumps(_default(key))}}}\n" for key in keys]

    base = "backbone: patchwork\nimages: {source: patchwork}\nsweep:\n  - cases:\n"
    [point] = read(base + "".join(cases)).points

    assert sorted(json.loads(json.dumps(point.swept))) == keys


def _default(key: str) -> Any:
    value: Any = Settings()
    for name in key.split("."):
        value = getattr(value, name)
    return to_jsonable_python(value)


def test_ten_thousand_points_are_read_and_named(read: Read) -> None:
    numbers = ", ".join(map(str, range(1, 101)))
    excluded = ", ".join(f"{{images.count: {n}, student.epochs: {n}}}" for n in range(1, 101))
    points = read(f"""
sweep:
  - grid: {{images.count: [{numbers}], student.epochs: [{numbers}]}}
    exclude: [{excluded}]
""").points

    assert len(points) == len({point.group for point in points}) == 9_900
    assert points[-1].group == "count=100,epochs=99"


def test_a_part_that_points_share_is_one_object(read: Read) -> None:
    points = read("sweep: [{grid: {student.epochs: [1, 2], images.count: [3, 4]}}]").points

    assert points[0].settings.student is points[1].settings.student
    assert points[0].settings.images is points[2].settings.images


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            f"seeds: {list(range(11))}\n"
            f"sweep: [{{grid: {{images.count: {list(range(1, 10_000))}}}}}]\n",
            "spec.yaml:2:1: must make at most 100,000 trials, but got 109,989; ask for fewer "
            "points, seeds, data sets or sizes",
        ),
        (
            f"seeds: [0]\nmeasure: {{image_hw: {[[n, n] for n in range(1, 201)]}}}\n"
            f"sweep: [{{grid: {{images.count: {list(range(1, 201))}}}}}]\n",
            "spec.yaml:3:1: must make at most 100,000 rows, but got 120,600; ask for fewer "
            "points, seeds, data sets or sizes",
        ),
        (
            'question: "${LONG}${LONG}"\n',
            "spec.yaml:1:1: must have at most 1,048,576 characters with its variables and aliases "
            "filled in, but got more; shorten them",
        ),
    ],
    ids=["trials", "rows", "characters"],
)
def test_what_no_plan_can_hold_is_refused_in_one_line(
    problems: Problems, text: str, line: str
) -> None:
    assert problems(text, LONG="x" * 600_000) == [line]


def test_of_thousands_of_mistakes_the_first_hundred_are_told(problems: Problems) -> None:
    lines = problems(f"seeds: [{', '.join(['x'] * 5000)}]")

    assert len(lines) == 100
    assert lines[0].startswith("spec.yaml:1:9: seeds[0]: must be a whole number, but got 'x'")
