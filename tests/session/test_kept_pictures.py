"""The images that an evaluation keeps for pictures: those that a spec names."""

from pathlib import Path

import numpy as np

from spar_bench.resolve import open_dataset
from spar_bench.session.sweep import Options, sweep
from spar_bench.spec.schema import DatasetSpec
from spar_bench.stages.evaluate import read_features, read_names, read_preview
from spar_bench.store import Store
from tests.small import UNTIMED, spar_bench, write_spec

SPEC = UNTIMED.replace("{name: patchwork, count: 2}", "{name: patchwork, count: 4, pictures: %s}")
ALONE = "sweep: [{set: {evaluate.methods: [pretrained]}}]\n"


def test_images_are_kept_that_a_spec_names(here: Path) -> None:
    [row] = sweep(write_spec(SPEC % "[3, 1]" + ALONE), Options(store=here / "store")).rows

    finished = Store(here / "store").opened("evaluate", row.stages["evaluate"])
    assert finished is not None
    preview = read_preview(finished)
    assert preview.names == [read_names(finished)[place] for place in (1, 3)]
    scenes = open_dataset(DatasetSpec(name="patchwork", count=4), "val")
    for kept, place in enumerate((1, 3)):
        assert np.array_equal(preview.images[kept], scenes.sample(place).image)
        assert np.array_equal(preview.truths[kept], scenes.sample(place).mask)
    assert read_features(finished).ndim == 3


def test_pictures_change_no_number_but_are_other_evaluations(here: Path) -> None:
    plain, named = (
        sweep(write_spec(text + ALONE)).rows[0]
        for text in (SPEC.replace(", pictures: %s", ""), SPEC % "[3]")
    )

    assert plain.miou == named.miou
    assert plain.stages["evaluate"] != named.stages["evaluate"]


def test_places_beyond_the_images_are_one_line(here: Path) -> None:
    said = spar_bench("plan", write_spec(SPEC % "[0, 4]" + ALONE), exits=2).stderr

    assert said == (
        "data set patchwork: pictures: must be places of its 4 images, counted from 0, but got 4; "
        "lower it\n"
    )
