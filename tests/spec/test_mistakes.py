"""Every mistake in a spec is one line with its position, and all of a file come at once.

`mistakes.txt` is the table: a name, a spec, and after `---->` the exact lines that report it.
"""

from pathlib import Path

import pytest

from spar_bench.conflicts import read_spec
from spar_bench.errors import SpecError
from tests.spec.conftest import Problems, Read

pytestmark = pytest.mark.usefixtures("folder")

TABLE = Path(__file__).with_name("mistakes.txt")


def mistakes() -> list[tuple[str, str, list[str]]]:
    """Return name, spec and lines of each entry of the table."""
    found = []
    for entry in TABLE.read_text(encoding="utf-8").split("\n\n"):
        name, _, rest = entry.partition("\n")
        text, _, lines = rest.partition("---->\n")
        found.append((name.removeprefix("# "), text, lines.splitlines()))
    return found


@pytest.mark.parametrize(
    ("text", "lines"), [pytest.param(text, lines, id=name) for name, text, lines in mistakes()]
)
def test_a_mistake_is_told_in_these_lines(problems: Problems, text: str, lines: list[str]) -> None:
    assert problems(text, PRESENT="x", UNDECODABLE="a\udcff") == lines


def test_the_table_is_read_whole() -> None:
    names = [name for name, _, _ in mistakes()]

    assert len(names) == len(set(names)) > 50
    assert all(lines for _, _, lines in mistakes())


ROTARY = """\
{plugin: patchwork, patch_px: 8, image_px: 64, width: 64, depth: 5, heads: 2, mlp_ratio: 4.0,
 channels: 64, read_out: patch_tokens, position_embedding: rope}
"""


def test_positions_that_have_no_weights_cannot_be_what_trains(problems: Problems) -> None:
    Path("rotary.yaml").write_text(ROTARY, encoding="utf-8")
    text = "backbone: {name: rotary.yaml}\nstudent: {trainable: position_embedding}\n"

    assert problems(text) == [
        "spec.yaml:2:22: student.trainable: must be a part that has weights, but got "
        "'position_embedding': this backbone's positions are rotary and have none; use "
        "patch_embedding, last_2_blocks or all"
    ]


NEEDY = '"""Needs features."""\n\nVERSION = 1\nNEEDS_FEATURES = True\n\n\nclass Refiner: ...\n'


def test_a_refiner_that_needs_features_cannot_refine_averaged_logits(problems: Problems) -> None:
    Path("needy.py").write_text(NEEDY, encoding="utf-8")
    text = "evaluate: {refiner: needy.py, average: %s, methods: [pretrained, %s]}\n"

    assert problems(text % ("logits", "teacher")) == [
        "spec.yaml:1:40: evaluate.average: must be features where the teacher is refined by needy, "
        "which needs them, but got logits; set it, or leave the teacher out of evaluate.methods"
    ]


SQUARE = '"""Of patches."""\n\nVERSION = 1\nCOSINES_AT_PATCH_PX = 16\n\n\nclass Refiner: ...\n'


def test_a_probe_cannot_be_refined_by_what_resamples_cosines(problems: Problems) -> None:
    Path("square.py").write_text(SQUARE, encoding="utf-8")
    text = "backbone: patchwork\nevaluate: {classifier: linear, refiner: square.py}\n"

    assert problems(text) == [
        "spec.yaml:2:41: evaluate.refiner: must leave a linear probe's scores on the backbone's "
        "grid, of patches of 8 px, but square resamples them as cosines to patches of 16; use "
        "another refiner, or evaluate.classifier: text"
    ]


@pytest.mark.parametrize(
    ("patch_px", "classifier", "refiner"),
    [(8, "text", "square.py"), (8, "linear", "none"), (16, "linear", "square.py")],
)
def test_scores_may_be_refined_on_their_own_grid_and_cosines_on_another(
    read: Read, patch_px: int, classifier: str, refiner: str
) -> None:
    Path("square.py").write_text(SQUARE, encoding="utf-8")
    sizes = ROTARY.replace("patch_px: 8", f"patch_px: {patch_px}")
    Path("own.yaml").write_text(sizes, encoding="utf-8")

    evaluate = f"{{classifier: {classifier}, refiner: {refiner}}}"
    read(f"backbone: {{name: own.yaml}}\nevaluate: {evaluate}\n")


@pytest.mark.parametrize(("average", "method"), [("features", "teacher"), ("logits", "student")])
def test_a_refiner_that_needs_features_may_refine_them(
    read: Read, average: str, method: str
) -> None:
    Path("needy.py").write_text(NEEDY, encoding="utf-8")

    read(f"evaluate: {{refiner: needy.py, average: {average}, methods: [{method}]}}\n")


FILES = {
    "latin.yaml": (
        b"seeds: [0]\nquestion: \xe9\n",
        "latin.yaml:2:11: must be UTF-8 text, but got byte 0xe9; save the file as UTF-8",
    ),
    "utf16.yaml": (
        "seeds: [0]".encode("utf-16"),
        "utf16.yaml:1:1: must be UTF-8 text, but got byte 0xff; save the file as UTF-8",
    ),
    "after_accents.yaml": (
        "question: é\xff".encode("latin-1").replace(b"\xe9", "é".encode()),
        "after_accents.yaml:1:12: must be UTF-8 text, but got byte 0xff; save the file as UTF-8",
    ),
    "control.yaml": (
        b"seeds: [0]\na: \x00\n",
        "control.yaml:2:4: must be YAML, but got the control character '\\x00'; delete it",
    ),
    "large.yaml": (
        b"#" * (300 << 10),
        "large.yaml: must be at most 256 KiB, but got more; a spec is a page of text",
    ),
    "deep.yaml": (
        b"question: " + b"[" * 1200,
        "deep.yaml:1:1: must be YAML with few levels, but got too many; flatten it",
    ),
    "aliases.yaml": (
        b"a0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n"
        + b"".join(
            b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)
        ),
        "aliases.yaml:1:1: must be a page of text, but its aliases make it endless; "
        "write the values out",
    ),
    "empty.yaml": (
        b"",
        "empty.yaml:1:1: must be a mapping of keys to values, but got nothing; "
        "`spar-bench init` writes one",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_says_why(name: str) -> None:
    content, line = FILES[name]
    Path(name).write_bytes(content)

    with pytest.raises(SpecError) as caught:
        read_spec(Path(name), environ={})

    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("clip", "clip: must be a YAML file, but got a directory; name a file in it"),
        ("none.yaml", "none.yaml: must be a YAML file, but got no such file; check the path"),
        (
            "clip/open_clip_config.json/x.yaml",
            "clip/open_clip_config.json/x.yaml: must be readable, but got 'not a directory'; "
            "check the path and its permissions",
        ),
    ],
)
def test_a_path_that_is_no_file_says_so(path: str, line: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_spec(Path(path), environ={})

    assert str(caught.value) == line


def test_a_byte_order_mark_is_no_mistake(folder: Path) -> None:
    Path("bom.yaml").write_bytes(b"\xef\xbb\xbfseeds: [3]\n")

    assert read_spec(Path("bom.yaml"), environ={}).spec.seeds == [3]


def test_a_backbone_whose_weights_are_missing_is_no_mistake(folder: Path) -> None:
    text = "backbone: {name: openclip, path: not/there}\nteacher: {window_px: 60, stride_px: 12}"
    Path("spec.yaml").write_text(text, encoding="utf-8")

    assert len(read_spec(Path("spec.yaml"), environ={}).points) == 1


def test_a_mistake_in_an_excluded_point_is_none(folder: Path) -> None:
    text = """
sweep:
  - grid: {teacher.window_px: [32, 64], teacher.stride_px: [16, 48]}
    exclude: [{teacher.window_px: 32, teacher.stride_px: 48}]
"""
    Path("spec.yaml").write_text(text, encoding="utf-8")

    assert len(read_spec(Path("spec.yaml"), environ={}).points) == 3
