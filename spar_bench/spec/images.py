"""The distillation images of a spec: where they come from, and how they are drawn."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from spar_bench.spec.plugins import plugin_name
from spar_bench.validation import Part, mistake
from spar_bench.values import FolderPath, Images, Positive, Probability, Ratio, Side, named


class DatasetPart(Part):
    """Which data set, by plug-in and folder."""

    name: Annotated[str, plugin_name("datasets")] = Field(
        "folder", description="A data set plug-in; `spar-bench datasets` lists them."
    )
    path: FolderPath = Field(None, description="The plug-in's folder; `patchwork` needs none.")

    @model_validator(mode="after")
    def _a_folder_is_named(self) -> Self:
        if self.name == "folder" and self.path is None:
            raise mistake("must be given for a folder, but got none; name it", "path", "name")
        return self


class SourceSpec(DatasetPart):
    """Where distillation images are drawn from; labels are never read."""

    count: Positive | None = Field(
        None,
        description="Only so many of its images, evenly spaced; of drawn scenes, any number; "
        "default: all, or 1,000 drawn scenes.",
        exclude_if=lambda count: count is None,
    )


class ImagesSpec(Part):
    """The distillation images: each drawn once from the seed."""

    source: Annotated[SourceSpec, named(str | SourceSpec)] = Field(
        SourceSpec(name="patchwork"), description="Where images come from: a name, or name, path."
    )
    count: Images = Field(
        200, description="Images drawn, each read once an epoch; a small source is used repeatedly."
    )
    short_side_px: tuple[Side, Side] = Field(
        (128, 320), description="Range that the short side after resizing is drawn from, uniformly."
    )
    long_side_ratio: Ratio | None = Field(
        None,
        description="The long side is at most this many times the drawn short side, which shrinks "
        "if needed; default: no cap.",
    )
    smallest_side_px: Side | None = Field(
        None,
        description="Neither cap nor crop makes a side shorter; default: the backbone's native "
        "image side.",
    )
    crop: Probability = Field(0.5, description="Share of the images that are cropped.")
    flip: Probability = Field(0.5, description="Share of the images that are mirrored.")
    fresh: bool = Field(
        False,
        description="Draw other images for each epoch, and have the teacher read each as it comes: "
        "targets are not kept. A source with fewer images repeats them, sized and cropped anew.",
        exclude_if=lambda fresh: not fresh,
    )

    @model_validator(mode="after")
    def _range_is_in_order(self) -> "ImagesSpec":
        low, high = self.short_side_px
        if low > high:
            text = f"must be [lowest, highest], but got [{low}, {high}]; write [{high}, {low}]"
            raise mistake(text, "short_side_px")
        if self.smallest_side_px is not None and self.smallest_side_px > low:
            text = (
                f"must not exceed the shortest short_side_px ({low}), but got "
                f"{self.smallest_side_px}; lower it, or raise short_side_px"
            )
            raise mistake(text, "smallest_side_px", "short_side_px")
        return self
