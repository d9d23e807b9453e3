"""What pixels are normalised by: a mean and a standard deviation per RGB channel."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from midway_hub.registry import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Normalisation:
    """What is subtracted from pixels in [0, 1] and what they are divided by; the default is ImageNet's.

    Attributes:
        mean: Mean, per RGB channel.
        std: Standard deviation, per RGB channel.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalise frames (..., 3, H, W) in [0, 1], on the device and in the precision that they have."""
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean).div_(std)

    def to_dict(self) -> dict[str, list[float]]:
        """Return the numbers under the names that processors give them, JSON-able."""
        return {"image_mean": list(self.mean), "image_std": list(self.std)}


IMAGENET = Normalisation()
