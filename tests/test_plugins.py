"""Plug-ins of another package: listed without being imported, accepted by a spec, loaded."""

import hashlib
from pathlib import Path

import pytest

from tests.small import printed

LOSS = '''
"""A third party's loss."""

import torch

VERSION = 7


def loss(student, teacher):
    return (student - teacher.detach()).abs().amax()
'''

DATASET = '''
"""A third party's data set."""

import numpy as np

VERSION = 2


class Dataset:
    classes = [["grey"]]
    image_hw = (4, 6)

    def __init__(self, split, settings):
        self.count = settings.count or 3

    def __len__(self):
        return self.count

    def identity(self):
        return {"count": self.count}

    def image(self, index):
        return np.full((4, 6, 3), index, np.uint8)

    def sample(self, index):
        return str(index), self.image(index), np.zeros((4, 6), np.uint8)
'''

BACKBONE = '''
"""A third party's backbone."""

VERSION = 4


class Backbone:
    def __init__(self, spec):
        self.spec = spec
'''

SIZES = """
patch_px: 8
image_px: 64
width: 32
depth: 2
heads: 1
mlp_ratio: 4.0
channels: 16
read_out: maskclip
"""

ENTRY_POINTS = """
[spar_bench.losses]
largest = outsiders.losses.largest

[spar_bench.datasets]
grey = outsiders.grey

[spar_bench.backbones]
tiny = outsiders.tiny
"""

SPEC = """
backbone: tiny
images: {source: grey}
teacher: {window_px: 64, stride_px: 16}
student: {loss: largest}
evaluate: {datasets: [grey]}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, with one that has plug-ins."""
    site = tmp_path / "site"
    install(site, "outsiders", ENTRY_POINTS)
    package = site / "outsiders"
    (package / "losses").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported too early')\n")
    (package / "losses" / "__init__.py").touch()
    (package / "losses" / "largest.py").write_text(LOSS)
    (package / "grey.py").write_text(DATASET)
    (package / "tiny.py").write_text(BACKBONE)
    (package / "tiny.yaml").write_text(SIZES)
    return site


def install(site: Path, name: str, entry_points: str) -> None:
    """Do what pip does for a package's entry points."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def python(site: Path, code: str) -> str:
    """Run code where the packages of `site` are installed; return what it prints."""
    return printed(code, path=site, cwd=site.parent, may_warn=True)


REFUSED = """
from spar_bench import registry
from spar_bench.errors import SparBenchError
try:
    {call}
except SparBenchError as error:
    print(error)
"""


def test_plug_ins_are_listed_and_versioned_without_being_imported(site: Path) -> None:
    out = python(
        site,
        "import sys; from spar_bench import registry as r\n"
        "print('mse' in r.names('losses'), 'largest' in r.names('losses'))\n"
        "print(*(r.version(*w) for w in "
        "[('losses', 'largest'), ('datasets', 'grey'), ('backbones', 'tiny')]))\n"
        "print(r.source('losses', 'largest').name, 'outsiders' in sys.modules)",
    )

    assert out.split("\n") == ["True True", "7 2 4", "largest.py False"]


def test_identity_has_the_files_of_its_package_that_a_plug_in_imports(site: Path) -> None:
    package = site / "outsiders"
    (package / "losses" / "largest.py").write_text(
        LOSS.replace("import torch\n", "import torch\nfrom ..ops import peak\nfrom . import near\n")
    )
    (package / "ops.py").write_text("from outsiders import deep\n\npeak = 1\n")
    for name in ("deep.py", "losses/near.py", "losses/unused.py"):
        (package / name).touch()

    out = python(
        site,
        "import sys; from spar_bench import registry as r\n"
        "found = r.identity('losses', 'largest')\n"
        "print(found.versions, *sorted(found.sources))\n"
        "print(found.sources['outsiders.deep'], 'outsiders' in sys.modules)",
    )

    assert out.split("\n") == [
        "{'largest': 7} outsiders.deep "
        "outsiders.losses.largest outsiders.losses.near outsiders.ops",
        f"{hashlib.sha256(b'').hexdigest()} False",
    ]


def test_module_that_changes_after_it_was_imported_is_refused(site: Path) -> None:
    (site / "outsiders" / "__init__.py").write_text("")
    path = site / "outsiders" / "losses" / "largest.py"

    out = python(
        site,
        "from pathlib import Path; from spar_bench import registry\n"
        f"registry.load('losses', 'largest'); Path({str(path)!r}).write_text('VERSION = 7')\n"
        + REFUSED.format(call="registry.load('losses', 'largest')"),
    )

    assert out == (
        f"{path}: a loss must stay as it is while a process uses it, but has changed since it was "
        "imported; start anew"
    )


def test_spec_accepts_them_and_knows_a_backbones_sizes_before_torch(site: Path) -> None:
    (site.parent / "spec.yaml").write_text(SPEC)

    out = python(
        site,
        "import sys; from pathlib import Path; from spar_bench.conflicts import read_spec\n"
        "from spar_bench.components.backbone import sizes\n"
        "read = read_spec(Path('spec.yaml')).points[0].settings\n"
        "print(read.student.loss.name, read.images.source.name, sizes(read.backbone).width)\n"
        "print(sorted({'torch', 'outsiders'} & set(sys.modules)))",
    )

    assert out.split("\n") == ["largest grey 32", "[]"]


def test_spec_with_a_misspelt_one_is_refused_with_its_name(site: Path) -> None:
    (site.parent / "spec.yaml").write_text(SPEC.replace("largest", "larges"))

    out = python(
        site,
        "from pathlib import Path; from spar_bench.conflicts import read_spec\n"
        + REFUSED.format(call="read_spec(Path('spec.yaml'))"),
    )

    assert "student.loss" in out
    assert "largest" in out
    assert len(out.split("\n")) == 1


def test_they_load_and_work(site: Path) -> None:
    (site / "outsiders" / "__init__.py").write_text("")

    out = python(
        site,
        "import torch; from spar_bench import registry as r\n"
        "from spar_bench.datasets.base import DatasetSettings\n"
        "print(r.load('losses', 'largest')(torch.ones(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)))\n"
        "data = r.load('datasets', 'grey')('val', DatasetSettings(count=2))\n"
        "print(len(data), data.sample(1)[1].max())\n"
        "print(r.load('backbones', 'tiny')('spec').spec)",
    )

    assert out.split("\n") == ["tensor(1.)", "2 1", "spec"]


@pytest.mark.parametrize(
    ("name", "other"), [("mse", "spar_bench.losses.mse"), ("largest", "outsiders.losses.largest")]
)
def test_name_that_is_taken_is_one_clear_error(site: Path, name: str, other: str) -> None:
    install(site, "rivals", f"[spar_bench.losses]\n{name} = rivals.loss\n")

    out = python(site, REFUSED.format(call="registry.names('losses')"))

    assert out == (
        f"entry point spar_bench.losses: {name!r} is taken by {other}, "
        "but rivals.loss claims it too; rename one, or uninstall its package"
    )


def test_plug_in_without_a_version_is_one_clear_error(site: Path) -> None:
    path = site / "outsiders" / "losses" / "largest.py"
    path.write_text(LOSS.replace("VERSION = 7", ""))

    out = python(site, REFUSED.format(call="registry.version('losses', 'largest')"))

    assert out == (
        f"{path}: a plug-in must state VERSION = <integer>, but has none; add VERSION = 1"
    )


COMMAND = """
from spar_bench.cli import main
print("exit code", main({line!r}.split(), standalone_mode=False) or 0)
"""


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (LOSS.replace("VERSION = 7", ""), "a plug-in must state VERSION"),
        ("def loss(:\n", "a plug-in must be a Python file, but cannot be read: invalid syntax"),
    ],
)
def test_plug_in_that_cannot_be_used_is_told_in_its_row_beside_the_others(
    site: Path, text: str, wrong: str
) -> None:
    path = site / "outsiders" / "losses" / "largest.py"
    path.write_text(text)

    out = python(site, COMMAND.format(line="losses"))

    assert f"largest {path}: {wrong}" in " ".join(out.split())
    assert out.endswith("exit code 0")
    assert out.index("cosine  ") < out.index("largest  ") < out.index("mse  ")


@pytest.mark.parametrize(
    ("package", "loss", "wrong"),
    [
        ("", LOSS.replace("import torch", "import nothing_of_it"), "ModuleNotFoundError: No mod"),
        ("", LOSS.replace("def loss", "from json import loss\ndef lose"), "ImportError: cannot"),
        ("1 / 0", LOSS, "largest.py: a loss must be importable, but got ZeroDivisionError: div"),
    ],
)
def test_check_tells_of_plug_ins_that_a_sweep_could_not_use(
    site: Path, package: str, loss: str, wrong: str
) -> None:
    (site / "outsiders" / "__init__.py").write_text(package)
    (site / "outsiders" / "losses" / "largest.py").write_text(loss)
    (site.parent / "spec.yaml").write_text("backbone: patchwork\nstudent: {loss: largest}\n")

    out = python(site, COMMAND.format(line="check --ready spec.yaml"))

    lines = out.split("\n")
    assert "spec.yaml: is valid, 1 trial, 1 missing:" in lines[0]
    assert (wrong in lines[1], lines[2:]) == (True, ["exit code 2"])


def test_plug_in_whose_module_is_gone_is_one_clear_error(site: Path) -> None:
    (site / "outsiders" / "grey.py").unlink()

    out = python(site, REFUSED.format(call="registry.load('datasets', 'grey')"))

    assert out == (
        "data set 'grey': must be installed, but there is no module outsiders.grey; "
        "reinstall its package"
    )
