"""The experiment spec as frozen, closed models: every key a file may hold, its unit and its default."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Method = Literal["pretrained", "teacher", "student"]
Average = Literal["logits", "features"]
Precision = Literal["float32", "bfloat16", "float16"]
METHODS: tuple[Method, ...] = ("pretrained", "teacher", "student")

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
ImageHW = tuple[Positive, Positive]


class Part(BaseModel):
    """Base of every part of a spec: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _named(value: Any) -> Any:
    """Read `patchwork` as `{name: patchwork}`."""
    return {"name": value} if isinstance(value, str) else value


class BackboneSpec(Part):
    """The frozen ViT that both teacher and student start from."""

    name: str = Field("openclip", description="A backbone plug-in; `spar-bench backbones` lists them.")
    path: str | None = Field(
        None, description="A folder with open_clip_config.json and weights, as open_clip reads it."
    )
    position_embedding: Literal["scale_factor", "size"] = Field(
        "scale_factor",
        description="How position embeddings are resampled: by (grid + 0.1) / native, as the paper, or by size.",
    )


class SourceSpec(Part):
    """Where distillation images are drawn from; labels are never read."""

    name: str = Field("folder", description="A data set plug-in; `spar-bench datasets` lists them.")
    path: str | None = Field(None, description="The plug-in's folder; `patchwork` needs none.")


class ImagesSpec(Part):
    """The distillation images: each drawn once from the seed."""

    source: Annotated[SourceSpec, BeforeValidator(_named)] = SourceSpec(name="patchwork")
    count: Positive = Field(200, description="Images drawn; a smaller source is gone through again.")
    short_side_px: tuple[Positive, Positive] = Field(
        (128, 320), description="Range that the short side after resizing is drawn from, uniformly."
    )
    crop: Probability = Field(0.5, description="Share of the images that are cropped.")
    flip: Probability = Field(0.5, description="Share of the images that are mirrored.")

    @model_validator(mode="after")
    def _range_is_in_order(self) -> "ImagesSpec":
        low, high = self.short_side_px
        if low > high:
            raise ValueError(f"short_side_px must be [lowest, highest], but got [{low}, {high}]")
        return self


class TeacherSpec(Part):
    """Sliding-window inference with the frozen backbone."""

    window_px: Positive | None = Field(
        None, description="Side of the square window; default: the backbone's native image side."
    )
    stride_px: Positive = Field(24, description="Step between window origins.")
    upsample: Literal["auto"] | Positive = Field(
        "auto",
        description="Factor r by which a window's features are upsampled before stitching; auto: the paper's "
        "rule, the smallest divisor of the patch for which stride_px is a multiple of patch_px / r.",
    )

    @model_validator(mode="after")
    def _windows_leave_no_gap(self) -> "TeacherSpec":
        if self.window_px is not None and self.stride_px > self.window_px:
            raise ValueError(
                f"stride_px must not exceed window_px ({self.window_px}), but got {self.stride_px}: "
                f"pixels between windows would have no teacher feature; use {self.window_px} or less"
            )
        return self


class StudentSpec(Part):
    """How the student learns the teacher's features in one pass."""

    loss: str = Field("mse", description="A loss plug-in; `spar-bench losses` lists them.")
    trainable: str = Field(
        "last_2_blocks",
        description="What is trained: all, position_embedding, patch_embedding, last_N_blocks, "
        "attention_of_last_N_blocks or mlp_of_last_N_blocks.",
        pattern=r"^(all|position_embedding|patch_embedding|((attention|mlp)_of_)?last_[1-9][0-9]*_blocks)$",
    )
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(2.0e-5, gt=0)
    weight_decay: float = Field(1.0e-4, ge=0)
    epochs: Positive = 10
    schedule: Literal["constant", "one_cycle", "cosine"] = "constant"
    accumulate: Positive = Field(2, description="Images whose gradients are averaged in one step.")
    precision: Precision = Field("float32", description="Of the forward pass; weights stay float32.")


class DatasetSpec(Part):
    """A labelled validation set, and what its classes are called."""

    name: str = Field("folder", description="A data set plug-in; `spar-bench datasets` lists them.")
    path: str | None = Field(None, description="The plug-in's folder; `patchwork` needs none.")
    label: str | None = Field(None, description="Name in tables; default: the folder's or plug-in's.")
    count: Positive | None = Field(None, description="Use the first images only; default: all.")
    classes: list[list[str]] | None = Field(
        None, description="Class names, each a list of synonyms; default: the data set's own."
    )
    templates: list[str] | None = Field(
        None, description="Prompts with {} for the class; default: evaluate.templates."
    )
    logit_scale: float | None = Field(None, gt=0, description="Default: evaluate.logit_scale.")
    background_threshold: Probability = Field(
        0.0, description="A pixel whose best probability is lower becomes class 0."
    )


class EvaluateSpec(Part):
    """Open-vocabulary segmentation of labelled images."""

    datasets: list[Annotated[DatasetSpec, BeforeValidator(_named)]] = Field(
        [DatasetSpec(name="patchwork")], min_length=1
    )
    short_side_px: list[Positive] = Field(
        [256], min_length=1, description="Resolutions: images are resized to each, truth is not."
    )
    methods: list[Method] = Field(["pretrained", "teacher", "student"], min_length=1)
    average: Average = Field("logits", description="What overlapping windows are averaged as.")
    refiner: str = Field("none", description="A refiner plug-in.")
    templates: list[str] | Literal["openclip_80"] = Field(
        "openclip_80", description="Prompts with {} for the class, averaged after normalising."
    )
    logit_scale: float = Field(40.0, gt=0, description="Factor on cosines before the softmax.")
    precision: Precision = "float32"


class MeasureSpec(Part):
    """What cost is measured on, beside the data sets' own image size."""

    image_hw: list[ImageHW] = Field([], description="Further image sizes, height first; in costs.csv.")
    latency: bool = Field(True, description="Time every arm; off for a sweep that asks only for mIoU.")
    seconds: float = Field(2.0, gt=0, description="Time given to each arm, rounds interleaved.")


class RangeSpec(Part):
    """A number that a search draws."""

    low: float
    high: float
    log: bool = False
    integer: bool = False
    step: float | None = Field(None, gt=0)


class ChoicesSpec(Part):
    """A value that a search picks."""

    choices: list[Any] = Field(min_length=1)


class SearchSpec(Part):
    """An Optuna search in place of a grid: each trial is asked for when the last ones are told."""

    space: dict[str, RangeSpec | ChoicesSpec] = Field(min_length=1)
    objectives: dict[Literal["miou", "gflops", "latency_p50_ms", "train_gflops"], Literal["maximize", "minimize"]] = Field(
        {"miou": "maximize"}, min_length=1
    )
    trials: Positive = 20
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = 0
    enqueue: list[dict[str, Any]] = Field([], description="Points tried first, such as the paper's.")
    prune: bool = Field(False, description="Stop trials whose training loss lags; one objective only.")


class BlockSpec(Part):
    """One block of a sweep: grid x zip x cases, each with `set`, less `exclude`; or a search."""

    grid: dict[str, list[Any]] = Field({}, description="Dotted key to values; every combination.")
    zip: dict[str, list[Any]] = Field({}, description="Dotted key to values; taken side by side.")
    cases: list[dict[str, Any]] = Field([], description="Points written out.")
    set: dict[str, Any] = Field({}, description="Dotted key to the value it has in this block.")
    exclude: list[dict[str, Any]] = Field([], description="Points left out: all keys must match.")
    search: SearchSpec | None = None


class Settings(Part):
    """All that decides one trial, seed aside: a spec with its sweep resolved."""

    backbone: Annotated[BackboneSpec, BeforeValidator(_named)] = BackboneSpec(name="patchwork")
    images: ImagesSpec = ImagesSpec()
    teacher: TeacherSpec = TeacherSpec()
    student: StudentSpec = StudentSpec()
    evaluate: EvaluateSpec = EvaluateSpec()
    measure: MeasureSpec = MeasureSpec()


class Spec(Settings):
    """An experiment: settings, the seeds of each trial, and what is swept."""

    question: str = Field("", description="The claim that the experiment tests, in a sentence.")
    seeds: list[int] = Field([0], min_length=1)
    sweep: list[BlockSpec] = Field([], description="Blocks of points; none: a single trial.")
