"""A backbone of another package with a read-out of its own, which nothing in this one lists."""

from pathlib import Path

import pytest

from tests.small import printed
from tests.test_plugins import install

BACKBONE = '''
"""A ViT of one linear block, read by the sum of its tokens and their mean."""

import torch
from torch import nn

from spar_bench.backbones import base
from spar_bench.components.backbone import known_sizes

VERSION = 1
SHAPES = {"patches.weight": "width 3 patch_px patch_px"}


class Backbone(base.Backbone):
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self, spec):
        self.sizes = known_sizes(spec)
        width, p = self.sizes.width, self.sizes.patch_px
        self.visual = self.model = nn.ModuleDict(
            {
                "patches": nn.Conv2d(3, width, p, p, bias=False),
                "block": nn.Linear(width, width, bias=False),
                "head": nn.Linear(width, self.sizes.channels, bias=False),
            }
        )

    def embed(self, images):
        return self.visual["patches"](images).flatten(2).transpose(1, 2)

    def blocks(self, grid_hw):
        return [self.visual["block"]]

    def read(self, tokens, grid_hw):
        return base.on_grid(self.visual["head"](tokens + tokens.mean(1, keepdim=True)), grid_hw)

    def encode_text(self, prompts):
        return torch.eye(self.sizes.channels)[: len(prompts)]

    def parts(self):
        raise NotImplementedError
'''

DATA_FILE = """
patch_px: 4
image_px: 16
width: 6
depth: 1
heads: 1
mlp_ratio: 1.0
channels: 5
prefix_tokens: 0
read_out: with_mean
"""

READ_OUT = '''
"""A block of one product, and a projection of tokens with their mean."""

from spar_bench.components import flops

VERSION = 1


class ReadOut(flops.ReadOut):
    """Of a test."""

    def flops(self, sizes, n_patches):
        block = flops.BlockFlops(2 * n_patches * sizes.width**2, 0, 0)
        return flops.TowerFlops([block], [], 2 * n_patches * sizes.width * sizes.channels)

    def n_params(self, sizes):
        return sizes.width * sizes.channels
'''

ENTRY_POINTS = """
[spar_bench.backbones]
linear = outsiders.linear

[spar_bench.read_outs]
with_mean = outsiders.with_mean
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, with one that brings the backbone."""
    site = tmp_path / "site"
    install(site, "outsiders", ENTRY_POINTS)
    package = site / "outsiders"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "linear.py").write_text(BACKBONE)
    (package / "linear.yaml").write_text(DATA_FILE)
    (package / "with_mean.py").write_text(READ_OUT)
    return site


def python(site: Path, code: str) -> list[str]:
    """Run code where the packages of `site` are installed; return the lines it prints."""
    return printed(code, path=site, cwd=site.parent).splitlines()


def test_its_cost_is_known_without_torch(site: Path) -> None:
    out = python(
        site,
        "import sys\n"
        "from spar_bench.components.backbone import known_sizes\n"
        "from spar_bench.components.flops import encoder_flops, trained_params\n"
        "from spar_bench.spec.schema import BackboneSpec\n"
        "sizes = known_sizes(BackboneSpec(name='linear'))\n"
        "print(encoder_flops(sizes, (8, 12)), trained_params(sizes, 'all'))\n"
        "print('torch' in sys.modules)",
    )

    # 6 patches: embedding 3 * 4 * 4 -> 6, block 6 -> 6, projection 6 -> 5; 1 product is 2 FLOPs.
    assert out == [
        f"{2 * 6 * (48 * 6 + 6 * 6 + 6 * 5)} {48 * 6 + 16 * 6 + 4 * 36 + 2 * 36 + 6 * 5}",
        "False",
    ]


def test_its_features_are_made_of_its_parts_and_its_cost_is_what_torch_counts(site: Path) -> None:
    out = python(
        site,
        "import torch\n"
        "from torch.utils.flop_counter import FlopCounterMode\n"
        "from spar_bench import registry\n"
        "from spar_bench.components.flops import encoder_flops\n"
        "from spar_bench.spec.schema import BackboneSpec\n"
        "backbone = registry.load('backbones', 'linear')(BackboneSpec(name='linear'))\n"
        "with torch.no_grad(), FlopCounterMode(display=False) as counter:\n"
        "    found = backbone.features(torch.randn(2, 3, 9, 12))\n"
        "print(tuple(found.shape))\n"
        "print(counter.get_total_flops() == 2 * encoder_flops(backbone.sizes, (9, 12)))",
    )

    assert out == ["(2, 5, 2, 3)", "True"]


def test_specs_data_files_and_editors_know_its_name(site: Path) -> None:
    (site.parent / "spec.yaml").write_text(
        "backbone: {name: linear, read_out: with_mean}\n"
        "teacher: {stride_px: 8}\nstudent: {trainable: all}\n"
    )

    out = python(
        site,
        "from pathlib import Path\n"
        "from spar_bench.conflicts import read_spec\n"
        "from spar_bench.datasets._facts import Facts, read\n"
        "from spar_bench.spec.json_schema import json_schema\n"
        "print(read_spec(Path('spec.yaml')).points[0].settings.backbone.read_out)\n"
        "stated = {'by_read_out': {'with_mean': {'area_threshold': 0.25}}}\n"
        "print(read(Facts, stated, 'mine.yaml').thresholds('with_mean').area_threshold)\n"
        "listed = json_schema()['$defs']['BackboneSpec']['properties']['read_out']['examples']\n"
        "print('with_mean' in listed, 'maskclip' in listed)",
    )

    assert out == ["with_mean", "0.25", "True True"]


def test_read_out_that_nothing_brings_is_one_line(site: Path) -> None:
    data_file = site / "outsiders" / "linear.yaml"
    data_file.write_text(DATA_FILE.replace("with_mean", "with_meen"))

    out = python(
        site,
        "from spar_bench.components.backbone import known_sizes\n"
        "from spar_bench.errors import SparBenchError\n"
        "from spar_bench.spec.schema import BackboneSpec\n"
        "try:\n    known_sizes(BackboneSpec(name='linear'))\n"
        "except SparBenchError as error:\n    print(error)",
    )

    assert out == [
        f"{data_file}: read_out: must be a known name, but got 'with_meen'; did you mean "
        "'with_mean'?"
    ]


def test_cost_made_with_an_older_version_of_it_is_not_served(site: Path) -> None:
    code = (
        "from spar_bench.plan.making import make_plan\n"
        "from spar_bench.resolve import Resolver\n"
        "from spar_bench.spec import Point\n"
        "from spar_bench.spec.schema import Settings\n"
        "one = Settings.model_validate({'backbone': 'linear', 'evaluate': {\n"
        "    'datasets': ['patchwork'], 'methods': ['pretrained']}})\n"
        "points = [Point(group='g', settings=one, swept={})]\n"
        "plan = make_plan(points, [0], None, resolver=Resolver(provisional=True))\n"
        "[cost] = [stage for stage in plan.stages.values() if stage.kind == 'cost']\n"
        "print(cost.fingerprint, cost.settings.read_out.versions)\n"
    )
    [before] = python(site, code)
    source = site / "outsiders" / "with_mean.py"
    source.write_text(READ_OUT.replace("VERSION = 1", "VERSION = 2"))
    [after] = python(site, code)

    assert before.endswith(" {'with_mean': 1}")
    assert after.endswith(" {'with_mean': 2}")
    assert before.split()[0] != after.split()[0]
