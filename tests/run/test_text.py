"""Class names to queries and to labels, against a softmax over queries written out."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import spar_bench as sb
from spar_bench.backbones.openclip import Backbone as OpenClip
from spar_bench.engine.events import Event
from spar_bench.errors import Interrupted
from spar_bench.plan.trials import Plan
from spar_bench.run.context import Context
from spar_bench.run.memory import MIB, peak_mib
from spar_bench.run.text import TextClassifier, classifier_of, embed, read_queries
from spar_bench.store import Store
from tests.run import tiny
from tests.run.tiny import CPU, finished, of_kind, plan_of, protocol, scheduler, settings
from tests.test_testing import ToyBackbone

CLASSES = [["sky"], ["road", "street", "asphalt"], ["tree", "bush"]]


class Told(ToyBackbone):
    """A toy that remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[str] = []

    def encode_text(self, prompts: list[str]) -> Tensor:
        self.prompts += prompts
        return super().encode_text(prompts)


def build(threshold: float = 0.0, scale: float = 40.0) -> TextClassifier:
    queries = embed(ToyBackbone(), CLASSES, ["a {}.", "{}"])
    return classifier_of(
        queries,
        CLASSES,
        protocol(logit_scale=scale, background_threshold=threshold),
    )


def test_query_is_the_normalised_mean_of_its_prompts() -> None:
    found, toy = build(), ToyBackbone()

    names = [name for names in CLASSES for name in names]
    expected = torch.stack(
        [F.normalize(toy.encode_text([f"a {n}.", n]).mean(0), dim=0) for n in names]
    )
    assert torch.allclose(found.queries, expected, atol=1e-6)
    assert found.class_of.tolist() == [0, 1, 1, 1, 2, 2]
    assert found.n_classes == 3


def test_default_templates_are_open_clips_eighty() -> None:
    told = Told()

    embed(told, [["cat"]], "openclip_80")

    assert told.prompts == [form("cat") for form in open_clip.OPENAI_IMAGENET_TEMPLATES]
    assert len(told.prompts) == 80


@pytest.fixture
def plan(clip: Path, photographs: Path) -> Plan:
    """Return a plan with all three methods, two prompts to each class name."""
    data = {"name": "folder", "path": str(photographs), "templates": ["a {}.", "{}"]}
    return plan_of(settings(clip, photographs, evaluate__datasets=[data]))


def test_names_are_embedded_once_for_all_methods(plan: Plan, clip: Path, store: Store) -> None:
    [text] = of_kind(plan, "text")
    making, notes = scheduler(plan, store)

    making.make([text.fingerprint])

    backbone = sb.load_backbone(str(clip))
    expected = [
        F.normalize(F.normalize(backbone.encode_text([f"a {n}.", n]), dim=1).mean(0), dim=0)
        for n in tiny.CLASSES
    ]
    made = finished(store, text)
    assert torch.allclose(read_queries(made), torch.stack(expected), atol=1e-6)
    assert made.summary == {"n_queries": 3, "n_prompts": 6}
    assert notes.shares == pytest.approx([0, 1 / 3, 2 / 3])
    assert {stage.inputs["text"] for stage in of_kind(plan, "evaluate")} == {text.fingerprint}


def test_embedding_stops_between_names(plan: Plan, store: Store) -> None:
    [text], context = of_kind(plan, "text"), Context(store, CPU)
    making, notes = scheduler(plan, store, context=context)

    def notify(event: Event) -> None:
        notes(event)
        if event.share > 0:
            context.stop.set()

    making.notify = notify
    with pytest.raises(Interrupted):
        making.make([text.fingerprint])

    assert notes.shares == pytest.approx([0, 1 / 3])
    assert store.find(text) is None


def test_names_that_were_embedded_are_not_embedded_again(
    plan: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    [text], asked = of_kind(plan, "text"), list[str]()
    plain = OpenClip.encode_text

    def watched(self: OpenClip, prompts: list[str]) -> Tensor:
        asked.append(prompts[1])
        if len(asked) == 3:
            raise KeyboardInterrupt  # as a kill would end it
        return plain(self, prompts)

    monkeypatch.setattr(OpenClip, "encode_text", watched)
    monkeypatch.setattr("spar_bench.run.text.SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        scheduler(plan, store)[0].make([text.fingerprint])
    scheduler(plan, store)[0].make([text.fingerprint])

    assert asked == [*tiny.CLASSES, tiny.CLASSES[2]]
    other = Store(store.root.parent / "other")
    scheduler(plan, other)[0].make([text.fingerprint])
    assert torch.equal(read_queries(finished(store, text)), read_queries(finished(other, text)))


def test_embedding_is_planned_as_it_is_counted(plan: Plan, store: Store) -> None:
    [text] = of_kind(plan, "text")

    scheduler(plan, store)[0].make([text.fingerprint])

    width, n_blocks, n_tokens, channels = 8, 1, 16, tiny.MODEL["embed_dim"]
    a_token = n_blocks * (24 * width**2 + 4 * n_tokens * width)
    planned = text.estimate(plan.stages)
    assert planned.gflops == pytest.approx(6 * n_tokens * a_token / 1e9)
    assert finished(store, text).manifest["made"]["gflops"] == pytest.approx(planned.gflops)
    assert planned.n_bytes == 3 * channels * 4


def test_features_of_pixels_are_normalised_by_rows_and_never_copied_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classifier = build()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, classifier.queries.shape[1], 900, 70, generator=generator)
    expected = torch.einsum("bchw,qc->bqhw", F.normalize(features, dim=1), classifier.queries)
    whole_mib = features.numel() * 4 / MIB
    scores_mib = expected.numel() * 4 / MIB

    monkeypatch.setattr("spar_bench.run.text.CHUNK", features.numel() // 40)
    found = classifier.scores(features)
    peak = peak_mib(lambda: classifier.scores(features), CPU, 0)

    assert torch.allclose(found, expected, rtol=0, atol=1e-6)
    assert peak < 2 * scores_mib + 0.3 * whole_mib


def test_cosines_do_not_depend_on_the_length_of_features() -> None:
    found, features = build(), torch.randn(1, 6, 3, 5)

    cosines = found.scores(features)

    expected = F.cosine_similarity(features[:, None], found.queries[None, :, :, None, None], dim=2)
    assert torch.allclose(cosines, expected, atol=1e-6)
    assert torch.allclose(found.scores(7 * features), cosines, atol=1e-6)
    assert found.scores(features.half()).dtype == torch.float32


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9])
def test_class_is_as_probable_as_the_best_of_its_queries(threshold: float, scale: float) -> None:
    found, cosines = build(threshold, scale), torch.rand(6, 7, 11) * 0.2

    labels = found.labels(cosines)

    probability = (scale * cosines).softmax(dim=0)
    by_class = torch.stack([probability[0], probability[1:4].amax(0), probability[4:].amax(0)])
    best, expected = by_class.max(dim=0)
    expected[best < threshold] = 0
    assert torch.equal(labels, expected)
    assert len(set(labels.flatten().tolist())) > 1 or threshold > 0


def test_synonyms_are_not_summed() -> None:
    found = build(scale=10.0)
    cosines = torch.tensor([0.3, 0.28, 0.28, 0.28, 0.0, 0.0])[:, None, None]

    assert found.labels(cosines).item() == 0  # three streets together would outweigh the sky


CLASS_OF = [0, 0, 1, 1, 1, 2, 3]  # the background has two names here


def ruled(background: float = 0.0, area: float = 0.0, scale: float = 40.0) -> TextClassifier:
    return TextClassifier(
        queries=torch.eye(7),
        class_of=torch.tensor(CLASS_OF),
        n_classes=4,
        logit_scale=scale,
        background_threshold=background,
        area_threshold=area,
    )


def labels_by_loops(
    cosines: NDArray[np.float32], background: float, area: float, scale: float
) -> NDArray[np.int64]:
    """Label pixel by pixel, probability by probability, in double precision."""
    n_queries, height, width = cosines.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    probable = {}
    for y, x in places:
        weights = [math.exp(scale * float(cosines[q, y, x])) for q in range(n_queries)]
        share = [weight / math.fsum(weights) for weight in weights]
        probable[y, x] = [max(share[q] for q in range(7) if CLASS_OF[q] == k) for k in range(4)]
    best = {place: each.index(max(each)) for place, each in probable.items()}
    n_foreground = sum(k > 0 for k in best.values())
    for k in (1, 2, 3):
        n_pixels = sum(found == k for found in best.values())
        if area and n_foreground and Fraction(n_pixels, n_foreground) <= Fraction(str(area)):
            for each in probable.values():
                each[k] = 0.0
    labels = np.zeros((height, width), np.int64)
    for place, each in probable.items():
        k = each.index(max(each))
        labels[place] = 0 if each[k] < background else k
    return labels


@pytest.mark.parametrize("scale", [40.0, 65.0])
@pytest.mark.parametrize("area", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("background", [0.0, 0.1, 0.5])
def test_rules_label_as_plain_loops_do(background: float, area: float, scale: float) -> None:
    for seed in range(3):
        generator = np.random.default_rng(seed)
        cosines = generator.uniform(0, 0.06, (7, 9, 13)).astype(np.float32)
        cosines[5] -= 0.008  # so that a class is rare, but there

        labels = ruled(background, area, scale).labels(torch.from_numpy(cosines))

        expected = labels_by_loops(cosines, background, area, scale)
        assert np.array_equal(labels.numpy(), expected)
        rules_bite = not np.array_equal(expected, labels_by_loops(cosines, 0, 0, scale))
        assert rules_bite == (area > 0 or background > 0.1)


def scene(*rows: str) -> Tensor:
    """Return cosines of pixels named by class: 0.5 with its first query, 0.1 else, 0.2 with 0."""
    classes = torch.tensor([[int(letter) for letter in row] for row in rows])
    cosines = torch.full((7, *classes.shape), 0.1)
    cosines[1] = 0.2
    return cosines.scatter(0, torch.tensor([0, 2, 5, 6])[classes][None], 0.5)


def test_class_that_holds_exactly_the_share_is_zeroed_and_one_more_pixel_saves_it() -> None:
    exact = scene("1111111112", "0000000000")  # 1 of 10 foreground pixels; 1 of 20 in all
    above = scene("1111111122", "0000000000")

    [labels, kept] = [ruled(area=0.1).labels(cosines) for cosines in (exact, above)]

    assert labels.tolist() == [[1] * 9 + [0], [0] * 10]
    assert kept.tolist() == [[1] * 8 + [2] * 2, [0] * 10]


def test_share_of_pixels_is_not_rounded() -> None:
    # In binary 3 times 0.1 exceeds 0.3, and so does 0.1 times 3 fall on either side for others.
    for n_foreground in range(10, 400, 10):
        row = "2" * (n_foreground // 10) + "1" * (n_foreground - n_foreground // 10)

        assert 2 not in ruled(area=0.1).labels(scene(row))
        assert 2 in ruled(area=0.1).labels(scene(row + "2"))


def test_without_foreground_the_area_rule_takes_nothing_away() -> None:
    cosines = scene("000", "000")

    assert ruled(area=0.1).labels(cosines).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_where_every_foreground_class_is_zeroed_all_is_background() -> None:
    cosines = scene("112", "233")

    assert ruled(area=0.5).labels(cosines).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_zeroed_class_keeps_its_part_of_the_softmax() -> None:
    cosines = scene("3311111112")
    cosines[6, 0, 9] = 0.3  # next best to a class of 1 in 10: e^(40 * (0.3 - 0.5)), 3.4e-4 probable

    low, high = (ruled(below, area=0.1).labels(cosines)[0, 9] for below in (3e-4, 4e-4))

    assert [int(low), int(high)] == [3, 0]


def test_pixel_at_the_background_threshold_keeps_its_class() -> None:
    cosines = torch.full((7, 1, 1), -torch.inf)
    cosines[5:] = 0.25  # two queries alike: 0.5 to the last bit

    assert ruled(background=0.5).labels(cosines).item() == 2  # the first of equals
    assert ruled(background=0.5000001).labels(cosines).item() == 0


def test_equal_classes_go_to_the_first() -> None:
    cosines = torch.full((7, 3, 4), 0.25)

    for classifier_ in (ruled(), ruled(background=0.1), ruled(background=0.1, area=0.1)):
        assert not classifier_.labels(cosines).any()
