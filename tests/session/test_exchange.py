"""Students to and from other software: the paper's files imported, exports read by others."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import spar_bench as sb
from spar_bench.components.backbone import display_name, exported_from, has_random_weights
from spar_bench.conflicts import read_spec
from spar_bench.errors import NotReady, SparBenchError, UnknownName
from spar_bench.resolve import Resolver
from spar_bench.session.exchange import export_student, import_student
from spar_bench.session.readiness import missing, remarks
from spar_bench.spec.schema import BackboneSpec
from spar_bench.stage import Finished
from spar_bench.store import Store
from tests.run.conftest import clip, photographs
from tests.run.tiny import plan_of, scheduler, settings, write_clip
from tests.small import TINY, one_line, spar_bench, write_spec

__all__ = ["clip", "photographs"]

State = dict[str, Tensor]
Bring = Callable[[Path], Finished]


@pytest.fixture
def bring(tmp_path: Path, clip: Path) -> Bring:
    """Import a checkpoint as a student of the small model."""
    return lambda path: import_student(path, spec(clip), store=tmp_path / "store")


def taught(clip: Path) -> State:
    """Return the model's weights with those of its last block moved."""
    state = load_file(clip / "open_clip_model.safetensors")
    generator = torch.Generator().manual_seed(1)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        if name.startswith("visual.transformer.resblocks.2")
        else value
        for name, value in state.items()
    }


def checkpoint(clip: Path, folder: Path) -> Path:
    """Write a Lightning checkpoint as the paper's authors release them."""
    path = folder / "spar.ckpt"
    state = {f"segmentor.net.model.{name}": value for name, value in taught(clip).items()}
    torch.save({"state_dict": state, "epoch": 9, "optimizer_states": [{}]}, path)
    return path


def spec(clip: Path) -> BackboneSpec:
    return BackboneSpec(path=str(clip))


def as_folder(folder: Path, state: State) -> Path:
    """Write the small model with other weights, as open_clip reads it."""
    write_clip(folder)
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


@pytest.mark.parametrize("form", ["lightning", "prefixed", "plain", "safetensors"])
def test_checkpoint_of_any_form_is_the_student_it_holds(
    tmp_path: Path, clip: Path, bring: Bring, form: str
) -> None:
    state, path = taught(clip), tmp_path / "plain.pth"
    if form == "lightning":
        path = checkpoint(clip, tmp_path)
    elif form == "safetensors":
        path = tmp_path / "plain.safetensors"
        save_file(state, path)
    else:
        prefix = "model." if form == "prefixed" else ""
        torch.save({prefix + name: value for name, value in state.items()}, path)

    student = bring(path)

    changed = {n for n in state if n.startswith("visual.transformer.resblocks.2")}
    kept = load_file(student.path("trained.safetensors"))
    assert {f"visual.{name}" for name in kept} == changed
    assert student.summary["trained_tensors"] == len(changed)
    images = torch.randn(1, 3, 40, 56)
    expected = sb.load_backbone(as_folder(tmp_path / "whole", state))
    with torch.no_grad():
        found = sb.load_backbone(student.folder).features(images)
        assert torch.equal(found, expected.features(images))


def test_imported_student_is_evaluated_as_its_weights_are(
    tmp_path: Path, clip: Path, photographs: Path
) -> None:
    folder = as_folder(tmp_path / "whole", taught(clip))
    student = settings(clip, photographs, student__checkpoint=str(checkpoint(clip, tmp_path)))
    single = settings(folder, photographs, evaluate__methods=["pretrained"])
    plan = plan_of(student, single, seeds=(0, 1))
    store = Store(tmp_path / "store")
    made, _ = scheduler(plan, store)

    made.make(plan.stages)

    imported, whole = plan.trials
    assert (imported.seed, imported.name) == (None, "g0")
    assert {stage.kind for stage in plan.stages.values()} == {
        "imported",
        "text",
        "evaluate",
        "cost",
    }
    by_method = {row.method: row.evaluate for row in imported.rows}
    summary = {
        key: found.summary["miou"]
        for key in (by_method["student"], by_method["pretrained"], whole.rows[0].evaluate)
        if (found := store.find(plan.stages[key])) is not None
    }
    assert summary[by_method["student"]] == summary[whole.rows[0].evaluate]
    assert summary[by_method["student"]] != summary[by_method["pretrained"]]


def twice(state: State, **others: Tensor) -> State:
    """Return a checkpoint of two models, the second with other tensors."""
    return {
        f"{side}.{name}": value
        for side, held in (("student", state), ("teacher", {**state, **others}))
        for name, value in held.items()
    }


PROJ, DEEPER = "visual.proj", "visual.transformer.resblocks.3.ln_1.weight"
SEVERAL = "but has several, under 'model', 'ema'; save"
NO_TENSORS = "must hold a state dict, but has no tensors; name"
REFUSED: list[tuple[Callable[[State], Any], str]] = [
    (lambda s: {**s, PROJ: torch.zeros(3, 3)}, r"but proj has shape \(3, 3\), not \(16, 12\)"),
    (lambda s: {n: v for n, v in s.items() if n != PROJ}, "it lacks 'proj', under any prefix"),
    (lambda s: {**s, PROJ: s[PROJ] * torch.nan}, "must be finite, but proj is not; get the file a"),
    (lambda s: {**s, DEEPER: torch.zeros(16)}, r"it also holds 'visual\.transformer\.resblocks\.3"),
    (
        lambda s: {**s, "ln_final.weight": s["ln_final.weight"] + 0.01},
        "its text tower is a different one: 'ln_final.weight' differs; name",
    ),
    (lambda s: twice(s, **{PROJ: 0 * s[PROJ]}), r"it holds two of them, under 'student\.visual\.'"),
    (lambda s: {"model": s, "epoch": 3, "ema": s}, SEVERAL),
    (lambda s: {"state_dict": {"model": s, "ema": s}}, SEVERAL),
    (lambda s: {"state_dict": None}, NO_TENSORS),
    (lambda s: {"state_dict": [1]}, NO_TENSORS),
    (lambda s: [1], NO_TENSORS),
    (lambda s: {"a": {}}, NO_TENSORS),
]


@pytest.mark.parametrize(("content", "told"), REFUSED)
def test_checkpoint_of_something_else_is_refused(
    tmp_path: Path, clip: Path, bring: Bring, content: Callable[[State], Any], told: str
) -> None:
    torch.save(content(taught(clip)), tmp_path / "other.pt")

    with pytest.raises(SparBenchError, match=told):
        bring(tmp_path / "other.pt")


def test_checkpoint_that_would_run_code_is_refused(tmp_path: Path, bring: Bring) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"state_dict": Trap()}, tmp_path / "trap.ckpt")

    with pytest.raises(SparBenchError, match="cannot be read without running what") as caught:
        bring(tmp_path / "trap.ckpt")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("gone.pt", None, "checkpoint: must be a file of weights or .*, but .*gone.pt cannot be"),
        ("empty.pt", b"", "complete file of weights, but is empty, cut off or of another kind"),
        ("text.pt", b"weights: 1", "complete file of weights, but is empty, cut off or of another"),
        ("text.safetensors", b"weights", "complete file of weights, but is empty, cut off or of"),
        ("old.pt", b"\x80\x02cos\nsystem\n.", "must be a complete file of tensors alone, but"),
    ],
)
def test_file_that_is_no_checkpoint_is_refused(
    tmp_path: Path, bring: Bring, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(SparBenchError, match=told):
        bring(tmp_path / name)


def test_what_was_random_when_it_was_exported_is_marked(tmp_path: Path, clip: Path) -> None:
    random = BackboneSpec(path=str(clip), weights="random")
    state = {k: v for k, v in taught(clip).items() if k.startswith("visual.")}
    torch.save(state, tmp_path / "visual.pth")
    student = import_student(tmp_path / "visual.pth", random, store=tmp_path / "store")

    export_student(str(student.folder), "open_clip", tmp_path / "exported")

    exported = BackboneSpec(path=str(tmp_path / "exported"))
    alone = BackboneSpec(path=str(tmp_path / "exported" / "open_clip_model.safetensors"))
    names = [display_name(each) for each in (exported, alone, spec(clip))]
    assert names == ["exported", "open_clip_model", "clip"]
    are_random = [has_random_weights(each) for each in (exported, alone, spec(clip))]
    assert are_random == [True, True, False]


def test_export_that_is_read_in_another_way_than_its_student_is_remarked(
    here: Path, clip: Path
) -> None:
    by_size = BackboneSpec(path=str(clip), position_embedding="size")
    state = {k: v for k, v in taught(clip).items() if k.startswith("visual.")}
    torch.save(state, here / "visual.pth")
    student = import_student(here / "visual.pth", by_size, store=here / "store")
    export_student(str(student.folder), "open_clip", here / "exported")

    text = TINY.replace("stride_px: [64, 32]", "stride_px: [32, 16]")
    text = text.replace("window_px: 64", "window_px: 32")
    same = "backbone: {path: exported, position_embedding: size}"
    as_it_was, otherwise = (
        remarks(
            (p.settings for p in read_spec(write_spec(text.replace(OWN, backbone))).points),
            Resolver(),
        )
        for backbone in (same, "backbone: {path: exported}")
    )

    assert as_it_was == []
    [line] = otherwise
    assert line.startswith("backbone.position_embedding: default is not what the student exported")
    assert line.endswith("set it to size")


OWN = "backbone: patchwork"


def test_export_that_no_longer_says_whether_it_was_random_is_not_ready(
    here: Path, clip: Path
) -> None:
    exported = shutil.copytree(clip, here / "exported")
    (exported / "spar_bench.json").write_text('{"backbone": {"wei')
    text = TINY.replace("backbone: patchwork", f"backbone: {{path: {exported}}}")

    loaded = read_spec(write_spec(text))

    [problem] = missing(loaded, Resolver())
    assert problem.startswith(f"{exported}/spar_bench.json: must say what the weights beside it")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{}", "lacks backbone"),
        ("[]", "has values of another kind than expected"),
        (
            '{"backbone": {"weights": 3}}',
            "has a wrong weights (must be one of find, random)",
        ),
        (b"\xff", "is not text"),
    ],
)
def test_origin_of_an_export_that_cannot_be_read_is_told_in_plain_words(
    tmp_path: Path, content: str | bytes, told: str
) -> None:
    path = tmp_path / "spar_bench.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(NotReady) as caught:
        exported_from(tmp_path)

    assert str(caught.value).startswith(
        f"{path}: must say what the weights beside it were exported from, but {told}"
    )
    assert str(caught.value).endswith("; export them again")


@pytest.mark.parametrize("outer", [None, "state_dict"])
def test_state_dict_under_any_one_key_is_found(
    tmp_path: Path, clip: Path, bring: Bring, outer: str | None
) -> None:
    state = taught(clip)
    held = {"model": state, "epoch": 3, "optimizer": {"param_groups": []}}
    torch.save({outer: held} if outer else held, tmp_path / "one.pt")

    kept = load_file(bring(tmp_path / "one.pt").path("trained.safetensors"))

    assert kept
    assert all(torch.equal(kept[name], state[f"visual.{name}"]) for name in kept)


def test_spec_with_a_missing_checkpoint_is_not_ready(
    tmp_path: Path, clip: Path, photographs: Path
) -> None:
    gone = settings(clip, photographs, student__checkpoint=str(tmp_path / "gone.pt"))

    with pytest.raises(NotReady, match="must be a file of weights"):
        plan_of(gone)


def test_export_is_read_by_each_library_as_the_student_is(
    tmp_path: Path, clip: Path, bring: Bring
) -> None:
    student = bring(checkpoint(clip, tmp_path))
    images = torch.randn(2, 3, 32, 32)
    expected = open_clip.create_model(f"local-dir:{as_folder(tmp_path / 'whole', taught(clip))}")

    export_student(str(student.folder), "open_clip", tmp_path / "as_open_clip")
    export_student(str(student.folder), "timm", tmp_path / "as_timm")

    with torch.no_grad():
        pooled = expected.eval().encode_image(images)
        by_open_clip = open_clip.create_model(f"local-dir:{tmp_path / 'as_open_clip'}").eval()
        by_timm = timm.create_model(f"local-dir:{tmp_path / 'as_timm'}", pretrained=True).eval()
        assert torch.allclose(by_open_clip.encode_image(images), pooled, rtol=1e-5, atol=1e-6)
        assert torch.allclose(by_timm(images), pooled, rtol=1e-5, atol=1e-5)
    assert not list(tmp_path.glob(".export-*"))


def test_export_that_another_library_reads_as_not_a_number_is_refused(
    tmp_path: Path, clip: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = bring(checkpoint(clip, tmp_path))
    create = open_clip.create_model

    def broken(*names: Any, **options: Any) -> Any:
        model: Any = create(*names, **options)
        model.visual.proj.data.fill_(torch.nan)
        return model

    monkeypatch.setattr(open_clip, "create_model", broken)

    with pytest.raises(SparBenchError, match="must agree with ours to 1e-05, but differs by nan"):
        export_student(str(student.folder), "open_clip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


ALONE = """
import sys, torch
from safetensors.torch import load_file, save_file
if {library!r} == "timm":
    import timm
    model = timm.create_model("local-dir:{folder}", pretrained=True).eval()
    pooled = model(load_file("images.safetensors")["images"])
else:
    import open_clip
    model, _ = open_clip.create_model_from_pretrained("local-dir:{folder}")
    pooled = model.eval().encode_image(load_file("images.safetensors")["images"])
assert not any(name.startswith("spar_bench") for name in sys.modules)
save_file({{"pooled": pooled.detach().contiguous()}}, "pooled.safetensors")
"""


@pytest.mark.slow
@pytest.mark.parametrize("library", ["open_clip", "timm"])
def test_export_of_the_embedded_backbone_needs_no_spar_bench(tmp_path: Path, library: Any) -> None:
    moved = sb.load_backbone("patchwork")
    with torch.no_grad():
        moved.visual.get_parameter("proj").add_(0.1)
    torch.save({f"visual.{n}": v for n, v in moved.visual.state_dict().items()}, tmp_path / "a.pt")
    images = torch.randn(1, 3, 64, 64)
    save_file({"images": images}, tmp_path / "images.safetensors")
    student = import_student(
        tmp_path / "a.pt", BackboneSpec(name="patchwork"), store=tmp_path / "store"
    )
    export_student(str(student.folder), library, tmp_path / "exported")

    code = ALONE.format(library=library, folder=tmp_path / "exported")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)

    found = load_file(tmp_path / "pooled.safetensors")["pooled"]
    with torch.no_grad():
        expected = moved.visual(images)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5


def test_student_of_a_sweep_is_exported_by_its_trials_name(swept: Path, tmp_path: Path) -> None:
    store = swept / ".spar_bench"

    difference = export_student(
        "tiny/learning_rate=0.001,seed=0", "timm", tmp_path / "out", store=store
    )

    assert difference < 1e-5
    with pytest.raises(UnknownName, match="must be a trial that trained one student, but has 0"):
        export_student("stride_px=64", "timm", tmp_path / "none", store=store)


def test_commands_say_what_was_done_and_the_way_on(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(clip, tmp_path)

    said = spar_bench("import", "spar.ckpt", "--backbone", "openclip", "--path", str(clip)).stdout
    folder = next(line for line in said.splitlines() if line.startswith("imported as ")).split()[-1]
    wrote = spar_bench("export", folder, "--format", "open_clip", "--to", "out").stdout
    again = spar_bench("export", folder, "--format", "timm", "--to", "out", exits=2).stderr

    assert "12 of 44 tensors" in said
    assert 'open_clip.create_model_from_pretrained("local-dir:out")' in wrote
    assert again == "out: must be a new folder, but already exists; name another\n"
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "open_clip_config.json", "open_clip_model.safetensors", "spar_bench.json",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("checkpoint", "options", "said"),
    [
        ("gone.pt", [], "gone.pt: must be a file of weights, but is not there; correct it"),
        (".", [], ".: must be a file of weights, but is a folder; name a file"),
        (
            "empty.pt",
            ["--path", "gone"],
            "--path: must be a folder or file of weights, but gone does not exist; correct it",
        ),
        (
            "empty.pt",
            ["--read-out", "pooled"],
            "--read-out: must be one that siglip2-b16-256 has, but got 'pooled'; use ",
        ),
    ],
)
def test_import_looks_for_the_checkpoint_first_and_names_what_was_typed(
    here: Path, checkpoint: str, options: list[str], said: str
) -> None:
    Path("empty.pt").touch()

    result = spar_bench("import", checkpoint, "--backbone", "siglip2-b16-256", *options, exits=2)

    assert one_line(result).startswith(said)


def test_import_without_the_backbones_weights_asks_for_its_own_option(here: Path) -> None:
    Path("empty.pt").touch()

    result = spar_bench("import", "empty.pt", "--backbone", "siglip2-b16-256", exits=2)

    assert one_line(result).endswith("name them as --path")


def test_import_with_an_empty_option_is_one_line(here: Path) -> None:
    Path("empty.pt").touch()

    result = spar_bench("import", "empty.pt", "--backbone", "patchwork", "--path", "", exits=2)

    assert one_line(result).startswith("--path: must ")


def test_import_of_a_file_that_may_not_be_read_names_its_own_argument(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path) -> None:
        if path.name == "empty.pt":
            raise PermissionError(13, "Permission denied", str(path))

    Path("empty.pt").touch()
    monkeypatch.setattr("spar_bench.components.students.require_whole", closed)

    result = spar_bench("import", "empty.pt", "--backbone", "patchwork", exits=2)

    told = one_line(result)
    assert told.startswith("CHECKPOINT: must be a file of weights or one of the package's (")
    assert told.endswith("), but empty.pt cannot be read (Permission denied); correct it")


def test_two_models_that_agree_are_one(tmp_path: Path, clip: Path, bring: Bring) -> None:
    torch.save(twice(taught(clip)), tmp_path / "same.pt")

    assert bring(tmp_path / "same.pt").summary["trained_tensors"] == 12


def test_text_tower_in_half_precision_is_the_same(tmp_path: Path, clip: Path, bring: Bring) -> None:
    half = {f"model.{name}": value.half() for name, value in taught(clip).items()}
    torch.save(half, tmp_path / "half.pth")

    assert bring(tmp_path / "half.pth").summary["all_tensors"] == 44
