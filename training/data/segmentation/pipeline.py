"""What happens to labelled pictures before training and before testing: mmsegmentation's standard pipeline."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from midway_hub.heads import IGNORE
from midway_hub.processing import IMAGENET, Normalisation
from midway_hub.training.data.segmentation.crop import choose_crop
from midway_hub.training.data.segmentation.photometric import distort
from midway_hub.training.data.segmentation.resize import rescaled_size, resize_bilinear, resize_nearest
from midway_hub.training.data.segmentation.sample import LabelledImage
from midway_hub.training.settings import Settings

Colour = tuple[int, ...]


def padding_for(normalisation: Normalisation) -> Colour:
    """Return what pictures are padded with: nearest to 0 after normalisation, where mmsegmentation pads with 0."""
    return tuple(min(max(round(255 * mean), 0), 255) for mean in normalisation.mean)


PADDING = padding_for(IMAGENET)
"""What pictures are padded with where frames are normalised by ImageNet's numbers: within 0.01 of 0."""


class SegmentationPipeline(Settings):
    """Sizes and probabilities of the pipeline (spec downstream B3)."""

    scale: tuple[int, int] = (2048, 1024)
    """Largest long and short side of a resized picture: (2048, 512) for ADE20K, (2048, 1024) for driving."""

    ratio_range: tuple[float, float] = (0.5, 2.0)
    """For training, `scale` is multiplied by a number drawn from this range."""

    crop: tuple[int, int] = (512, 512)
    """Height and width of a training crop."""

    cat_max_ratio: float = Field(default=0.75, gt=0, le=1)
    """Share of a crop's labelled pixels above which one class is too much, and another crop is tried; 1 tries none."""

    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of mirroring left and right."""

    photometric: bool = True
    """Whether brightness, contrast, saturation and hue are distorted."""

    @model_validator(mode="after")
    def _valid(self) -> SegmentationPipeline:
        low, high = self.ratio_range
        if not 0 < low <= high:
            raise ValueError(f"ratio_range is (least, most) above 0, got {self.ratio_range}")
        if min(*self.scale, *self.crop) < 1:
            raise ValueError(f"scale and crop are sizes of at least 1, got {self.scale} and {self.crop}")
        return self


def augment_segmentation(
    sample: LabelledImage,
    settings: SegmentationPipeline,
    generator: np.random.Generator,
    *,
    padding: Colour = PADDING,
) -> LabelledImage:
    """Make a training crop: resize at random, crop, mirror, distort colours, pad.

    mmsegmentation's pipeline, with resizing and colours in OpenCV's 8-bit arithmetic. Only the crop is resized, so that
    large scales cost no more than small ones.

    Args:
        sample: A labelled picture of any size.
        settings: Sizes and probabilities.
        generator: Where the random numbers come from.
        padding: Red, green and blue where the picture ends, 0 to 255; see `padding_for`.

    Returns:
        The crop, of exactly `settings.crop`; where the picture ends, `padding` and 255 stand to its right and below.
    """
    ratio = generator.uniform(*settings.ratio_range)
    scale = int(settings.scale[0] * ratio), int(settings.scale[1] * ratio)
    height, width = sample.labels.shape
    size = rescaled_size(height, width, scale)
    labels = resize_nearest(sample.labels, size)
    rows, columns = choose_crop(labels, settings.crop, settings.cat_max_ratio, generator)
    image, labels = resize_bilinear(sample.image, size, rows=rows, columns=columns), labels[rows, columns]
    if generator.random() < settings.flip:
        image, labels = image[:, ::-1], labels[:, ::-1]
    if settings.photometric:
        image = distort(image, generator)
    return LabelledImage(*_padded(image, labels, settings.crop, padding), sample.name)


def resize_for_test(image: np.ndarray, settings: SegmentationPipeline) -> np.ndarray:
    """Resize a picture to `settings.scale`, its proportions kept: BDD100K's 1280x720 becomes 1820x1024.

    Labels stay as they are: logits are resized to the picture's own size before they are compared.

    Args:
        image: (H, W, 3) uint8 RGB.
        settings: Of which `scale` counts.

    Returns:
        (h, w, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    return resize_bilinear(image, rescaled_size(height, width, settings.scale))


def _padded(
    image: np.ndarray, labels: np.ndarray, crop: tuple[int, int], padding: Colour
) -> tuple[np.ndarray, np.ndarray]:
    height, width = labels.shape
    picture = np.empty((*crop, 3), dtype=np.uint8)
    picture[:] = padding
    picture[:height, :width] = image
    classes = np.full(crop, IGNORE, dtype=np.uint8)
    classes[:height, :width] = labels
    return picture, classes
