"""The experiment spec as frozen, closed models: every key, its unit and its default."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from spar_bench import registry
from spar_bench.published import tables
from spar_bench.spec.blocks import BlockSpec
from spar_bench.spec.claims import ClaimSpec
from spar_bench.spec.images import DatasetPart, ImagesSpec
from spar_bench.spec.plugins import (
    PluginSpec,
    named_once,
    plugin,
    plugin_name,
    registered_name,
)
from spar_bench.suggest import suggest
from spar_bench.validation import Part, mistake, show
from spar_bench.values import (
    FILLED,
    METHODS,
    Average,
    Classes,
    Epochs,
    FolderPath,
    ImageHW,
    Images,
    LinearOptimiser,
    Method,
    OddSides,
    Optimiser,
    Place,
    PositionRule,
    Positive,
    PositiveNumber,
    Precision,
    Probability,
    Resolution,
    Schedule,
    Seconds,
    Seed,
    Side,
    Templates,
    Text,
    Trainable,
    Upsample,
    Weight,
    named,
)


def _published(table: str) -> str:
    """Refuse a table of which no number is known."""
    if table not in tables():
        text = f"must be a table of the paper, but got {show(table)}; {suggest(table, tables())}"
        raise mistake(text)
    return table


class BackboneSpec(Part):
    """The frozen ViT that both teacher and student start from."""

    name: Annotated[str, plugin_name("backbones")] = Field(
        "openclip", description="A backbone plug-in; `spar-bench backbones` lists them."
    )
    path: FolderPath = Field(
        None,
        description="Weights: a folder with open_clip_config.json as open_clip reads it, or a "
        ".safetensors or .pt file; default: the weights folder, then the Hugging Face cache.",
    )
    weights: Literal["find", "random"] = Field(
        "find", description="random: do not look for weights; every table says so."
    )
    read_out: Annotated[Text, registered_name("read_outs")] | None = Field(
        None, description="How dense features are read; default: the backbone's own way."
    )
    preprocessing: Literal["model", "legacy"] = Field(
        "model", description="legacy: mean and deviation of 0.5, as the paper's older MaskCLIP."
    )
    position_embedding: PositionRule | None = Field(
        None,
        description="How position embeddings are resampled: by (grid + 0.1) / native, as in the "
        "paper for CLIP, or by size, as for SigLIP; default: the backbone's own way.",
    )
    odd_sides: OddSides | None = Field(
        None,
        description="For a side that is not a multiple of the patch: drop the rest, pad with "
        "zeros, or stretch to one more patch; default: the backbone's own way.",
    )
    token_budget: Positive | None = Field(
        None,
        description="NaFlex: patches above which an image is scaled down; default: the backbone's.",
    )


class TeacherSpec(Part):
    """Sliding-window inference with the frozen backbone."""

    window_px: Side | None = Field(
        None, description="Side of the square window; default: the backbone's native image side."
    )
    stride_px: Side = Field(24, description="Step between window origins.")
    upsample: Upsample = Field(
        "auto",
        description="Factor r by which a window's features are upsampled before stitching; auto: "
        "the paper's rule, the smallest divisor of the patch for which stride_px is a multiple of "
        "patch_px / r.",
    )

    precision: Precision = Field(
        "float32",
        description="Of the forward pass that makes a student's targets; evaluate.precision is "
        "that of the teacher's own mIoU.",
    )
    normalise: bool = Field(
        False,
        description="Targets of length one: the stitched features of each patch, L2-normalised.",
    )
    keep: bool = Field(
        True,
        description="Keep the features of the distillation images in the store; off: compute them "
        "again in every epoch, which changes no number. They are never kept with images.fresh.",
    )

    @model_validator(mode="after")
    def _windows_leave_no_gap(self) -> "TeacherSpec":
        if self.window_px is not None and self.stride_px > self.window_px:
            text = (
                f"must not exceed window_px ({self.window_px}), but got {self.stride_px}: pixels "
                "between windows would have no teacher feature; lower it, or raise window_px"
            )
            raise mistake(text, "stride_px", "window_px")
        return self


class StudentSpec(Part):
    """How the student learns the teacher's features in one pass."""

    loss: Annotated[PluginSpec, plugin("losses", "mse")] = Field(
        PluginSpec(name="mse"),
        description="A loss plug-in, or name and settings; `spar-bench losses` lists them.",
    )
    trainable: Trainable = Field(
        "last_2_blocks",
        description="What is trained: all, position_embedding, patch_embedding, last_N_blocks, "
        "attention_of_last_N_blocks or mlp_of_last_N_blocks.",
    )
    optimiser: Optimiser = Field(
        "adamw",
        description="muon: Muon for the matrices of the blocks, AdamW for everything else.",
    )
    learning_rate: PositiveNumber = Field(2.0e-5, description="The peak of the schedule.")
    weight_decay: Weight = 1.0e-4
    epochs: Epochs = Field(10, description="Passes over the distillation images.")
    schedule: Schedule = "constant"
    accumulate: Images = Field(2, description="Images whose gradients make one step.")
    precision: Precision = Field("float32", description="Of the forward pass; weights are float32.")
    checkpoint: FolderPath = Field(
        None,
        description="A file of weights trained elsewhere, or a student in the package "
        "(patchwork-spar, patchwork-spar-all), instead of training here.",
    )

    def steps_an_epoch(self, n_images: int) -> int:
        """Return the steps in which each of an epoch's images is read once."""
        return -(-n_images // self.accumulate)

    @model_validator(mode="after")
    def _muon_has_matrices(self) -> Self:
        if self.optimiser == "muon" and self.trainable.endswith("_embedding"):
            text = f"must be adamw or sgd where no block trains ({self.trainable}), but got muon"
            raise mistake(f"{text}; use adamw", "optimiser", "trainable")
        return self


class DatasetSpec(DatasetPart):
    """A labelled validation set, and the names of its classes."""

    label: Text | None = Field(None, description="Name in tables; default: folder's or plug-in's.")
    count: Positive | None = Field(None, description="Only so many, evenly spaced; default: all.")
    pictures: Annotated[list[Place], *FILLED] | None = Field(
        None,
        description="Places of the images that reports show, counted from 0; default: the first 4.",
        # Left out, so that the names of points stay those of specs without it.
        exclude_if=lambda places: places is None,
    )
    classes: Classes | None = Field(
        None, description="Class names, each a list of synonyms; default: the data set's own."
    )
    templates: Templates | None = Field(
        None, description="Prompts with {} for the class; default: evaluate.templates."
    )
    logit_scale: PositiveNumber | None = Field(
        None, description="Default: evaluate.logit_scale, else the data set's own, else 40."
    )
    background_threshold: Probability | None = Field(
        None,
        description="A pixel whose best probability is lower becomes class 0; default: the data "
        "set's own, mostly 0.",
    )
    area_threshold: Probability | None = Field(
        None,
        description="A class other than 0 with no more than this share of the foreground's pixels "
        "is dropped; default: the data set's own, mostly 0, which drops none.",
    )

    @property
    def display_name(self) -> str:
        """Its name in tables: its label, else that of its data file or folder, else its plug-in."""
        if self.label:
            return self.label
        stated = registry.data_file("datasets", self.name)
        if stated is None and self.path:
            return Path(os.path.abspath(self.path)).name
        return registry.display_name(self.name) if stated is None else stated.stem


class ClassifierSpec(Part):
    """What labels a pixel from its features: class names, or a linear probe and how it learns."""

    name: Literal["text", "linear"] = Field(
        "text", description="text: embedded class names; linear: learnt from the training images."
    )
    count: Images | None = Field(
        None, description="Training images used, evenly spaced, where there are more; default: all."
    )
    flip: Probability = Field(0.5, description="Share of the training images that are mirrored.")
    optimiser: LinearOptimiser = "adamw"
    learning_rate: PositiveNumber = Field(1.0e-3, description="The peak of the schedule.")
    weight_decay: Weight = 1.0e-4
    epochs: Epochs = Field(10, description="Passes over the training images.")
    schedule: Schedule = "cosine"
    batch: Images = Field(16, description="Images whose pixels make one step.")
    seed: Seed = Field(0, description="Of the order of images, and of which are mirrored.")

    @model_validator(mode="after")
    def _text_learns_nothing(self) -> Self:
        for key, field in ClassifierSpec.model_fields.items():
            value = getattr(self, key)
            if not self.is_linear and key != "name" and value != field.default:
                text = f"must be left out with text, which learns nothing, but got {show(value)}"
                raise mistake(f"{text}; drop it, or use linear", key, "name")
        return self

    @property
    def is_linear(self) -> bool:
        """Whether it is a linear probe."""
        return self.name == "linear"


class EvaluateSpec(Part):
    """Segmentation of labelled images: open-vocabulary, or by a linear probe."""

    datasets: list[Annotated[DatasetSpec, named(str | DatasetSpec)]] = Field(
        [DatasetSpec(name="patchwork")], min_length=1, description="Each a name, or name, path, ..."
    )
    short_side_px: Annotated[list[Resolution], *FILLED] = Field(
        ["own"],
        description="Resolutions: images, not truth, are resized to each; own: the data set's "
        "rule.",
    )
    methods: Annotated[list[Method], *FILLED] = Field(
        list(METHODS), description="What is evaluated: see the README's glossary."
    )
    average: Average = Field("logits", description="What is averaged where windows overlap.")
    classifier: Annotated[ClassifierSpec, named(str | ClassifierSpec)] = Field(
        ClassifierSpec(),
        description="text, or linear: a name, or name, epochs, ...",
        # Left out, so that the names of points and protocols stay those of specs without it.
        exclude_if=lambda classifier: not classifier.is_linear,
    )
    refiner: Annotated[PluginSpec, plugin("refiners", "none")] = Field(
        PluginSpec(name="none"),
        description="A refiner plug-in, or name and settings; `spar-bench refiners` lists them.",
    )
    probes: Annotated[
        list[Annotated[PluginSpec, plugin("stages", "")]], AfterValidator(named_once)
    ] = Field(
        [],
        description="What else is measured beside each evaluation: kinds of stage of plug-in "
        "packages, each a name, or name and settings.",
    )
    templates: Templates = Field(
        "openclip_80", description="Prompts with {} for the class, averaged after normalising."
    )
    logit_scale: PositiveNumber | None = Field(
        None,
        description="Factor on cosines before the softmax; default: the data set's own, else 40.",
    )
    precision: Precision = Field("float32", description="Of the backbone's forward pass.")
    resize: Literal["bilinear", "bicubic", "model"] = Field(
        "bilinear",
        description="How images are resampled; bilinear: as in the paper; model: as in the "
        "backbone's config.",
    )
    unreadable: Literal["error", "skip"] = Field(
        "error",
        description="For an image or mask that cannot be read: error stops; skip leaves it out, "
        "counts and names it.",
    )


class MeasureSpec(Part):
    """What cost is measured on, in addition to the data sets' own image size."""

    image_hw: list[ImageHW] = Field([], description="Further sizes, height first; in costs.csv.")
    over_sizes: bool = Field(
        False,
        description="Also the cost over the sizes of all images, in sizes.csv: FLOPs of each, and "
        "latency by a curve, for which each method is timed at up to five sizes.",
    )
    latency: bool = Field(True, description="Time each reading; off if only mIoU is needed.")
    seconds: Seconds = Field(2.0, description="Time given to each, in turns.")


class Settings(Part):
    """Everything that decides one trial except its seed: a spec with its sweep resolved."""

    backbone: Annotated[BackboneSpec, named(str | BackboneSpec)] = Field(
        BackboneSpec(name="patchwork"), description="A name, or name, path, ..."
    )
    images: ImagesSpec = ImagesSpec()
    teacher: TeacherSpec = TeacherSpec()
    student: StudentSpec = StudentSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    measure: MeasureSpec = MeasureSpec()

    @property
    def distils(self) -> bool:
        """Whether a student is trained: one is evaluated, and no checkpoint replaces it."""
        return "student" in self.evaluate.methods and self.student.checkpoint is None

    @property
    def keeps_targets(self) -> bool:
        """Whether the teacher's features are kept in the store, or computed as a student trains."""
        return self.teacher.keep and not self.images.fresh

    @property
    def n_lists(self) -> int:
        """How many lists of images a student reads: one in every epoch, or the same in all."""
        return self.student.epochs if self.images.fresh else 1


class Spec(Settings):
    """An experiment: settings, the seeds of each trial, and what is swept."""

    question: str = Field("", description="The claim that the experiment tests, in a sentence.")
    reproduces: Annotated[str, AfterValidator(_published)] | None = Field(
        None, description="The table or figure of the paper that reports show beside the results."
    )
    claims: list[ClaimSpec] = Field(
        [], description="What is said of the results, each checked in reports."
    )
    seeds: Annotated[list[Seed], *FILLED] = Field(
        [0], description="Each group is one trial per seed."
    )
    sweep: list[BlockSpec] = Field([], description="Blocks of points; none: a single trial.")
