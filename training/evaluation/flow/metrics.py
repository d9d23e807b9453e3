"""Optical flow metrics: end-point error and its relatives, pooled over pixels and averaged over images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from midway_hub._tensors import need_finite
from midway_hub.training.data.flow.sample import FlowSample

BAD_PIXELS = (0.5, 1.0, 3.0, 5.0)
QUANTITIES = ("epe", "l1", *(f"bad_{limit:g}" for limit in BAD_PIXELS), "fl_all")
REGIONS = ("all", "speed_0_10", "speed_10_40", "speed_40", "occluded", "visible")


@dataclass(frozen=True)
class PixelErrors:
    """Errors of the pixels whose true flow is known, one entry each.

    Attributes:
        epe: (n,) float64, distance in pixels between estimated and true displacement.
        l1: (n,) float64, sum of the distances along x and y.
        speed: (n,) float64, length of the true displacement.
        valid: (H, W) bool, which pixels of the frame these are.
    """

    epe: np.ndarray
    l1: np.ndarray
    speed: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class FlowResult:
    """Numbers of one estimator on one data set; NaN where no pixel counts.

    Names are `epe`, `l1`, `bad_0.5`, `bad_1`, `bad_3`, `bad_5`, `fl_all` over all valid pixels, and `REGION/epe` and so
    on over some of them: `speed_0_10`, `speed_10_40`, `speed_40` (true displacement in pixels), `occluded` and
    `visible` (where the data set says). EPE and L1 are in pixels, all others in percent.

    Attributes:
        pooled: Every pixel of the data set counts alike.
        per_image: Every image counts alike: the mean of the images' means.
        sequences: Pooled numbers per sequence.
        pixels: Pixels that counted, per region.
        pairs: Frame pairs that were measured, per sequence.
    """

    pooled: dict[str, float]
    per_image: dict[str, float]
    sequences: dict[str, dict[str, float]]
    pixels: dict[str, int]
    pairs: dict[str, int]


class FlowMeter:
    """Collects the errors of flow estimates; meters of several processes merge into one.

    Sums are kept in float64 per sequence, so that what comes out does not depend on how pairs were grouped.
    """

    def __init__(self) -> None:
        self._pixels: dict[str, np.ndarray] = {}
        self._images: dict[str, np.ndarray] = {}
        self._pairs: dict[str, int] = {}

    def update(self, estimate: np.ndarray, sample: FlowSample) -> None:
        """Add an estimate.

        Args:
            estimate: (2, H, W) in pixels, x to the right, then y down, at the size of the sample's frames.
            sample: The truth.

        Raises:
            ValueError: The estimate has another shape, or holds NaN or infinity; the message names the pair.
        """
        errors = pixel_errors(estimate, sample)
        sums = _sums(errors, sample.occluded)
        with np.errstate(invalid="ignore"):
            means = np.where(sums[:, :1] > 0, sums / sums[:, :1], 0.0)  # the first column is 1 where anything counted
        self._add(sample.sequence, sums, means, 1)

    def state(self) -> dict[str, Any]:
        """Return what was collected as plain JSON-able data, for `merge`."""
        return {
            name: {"pixels": self._pixels[name].tolist(), "images": self._images[name].tolist(), "pairs": pairs}
            for name, pairs in self._pairs.items()
        }

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add what another meter collected, as its `state()` says."""
        for name, part in state.items():
            self._add(name, np.array(part["pixels"]), np.array(part["images"]), part["pairs"])

    def result(self) -> FlowResult:
        """Return the numbers of everything that was added."""
        nothing = np.zeros((len(REGIONS), 1 + len(QUANTITIES)))
        pixels, images = sum(self._pixels.values(), nothing), sum(self._images.values(), nothing)
        return FlowResult(
            pooled=_named_means(pixels),
            per_image=_named_means(images),
            sequences={name: _named_means(sums) for name, sums in sorted(self._pixels.items())},
            pixels={region: int(count) for region, count in zip(REGIONS, pixels[:, 0], strict=True)},
            pairs=dict(sorted(self._pairs.items())),
        )

    def _add(self, sequence: str, pixels: np.ndarray, images: np.ndarray, pairs: int) -> None:
        self._pixels[sequence] = self._pixels.get(sequence, 0.0) + pixels
        self._images[sequence] = self._images.get(sequence, 0.0) + images
        self._pairs[sequence] = self._pairs.get(sequence, 0) + pairs


def pixel_errors(estimate: np.ndarray, sample: FlowSample) -> PixelErrors:
    """Compare an estimate with the truth, pixel by pixel.

    Where the truth is on a finer grid than the frames (Spring), a pixel's error is the smallest over its true
    displacements that are valid, and everything else of the pixel is taken from that one.

    Args:
        estimate: (2, H, W) in pixels.
        sample: The truth.

    Raises:
        ValueError: As `FlowMeter.update`.
    """
    _check(estimate, sample)
    scale, (height, width) = sample.flow_scale, sample.first.shape[:2]
    cells = (height, scale, width, scale)
    flow = sample.flow.reshape(*cells, 2).transpose(0, 2, 1, 3, 4).reshape(height, width, scale * scale, 2)
    known = sample.valid.reshape(cells).transpose(0, 2, 1, 3).reshape(height, width, scale * scale)
    known = known & np.isfinite(flow).all(axis=-1)
    valid = known.any(axis=-1)
    truth, known = flow[valid].astype(np.float64), known[valid]
    off = np.asarray(estimate, dtype=np.float64).transpose(1, 2, 0)[valid][:, None] - truth
    distance = np.where(known, np.hypot(off[..., 0], off[..., 1]), np.inf)
    nearest = np.arange(len(distance)), distance.argmin(axis=1)
    return PixelErrors(
        epe=distance[nearest],
        l1=np.abs(off[nearest]).sum(axis=-1),
        speed=np.hypot(truth[..., 0], truth[..., 1])[nearest],
        valid=valid,
    )


def _check(estimate: np.ndarray, sample: FlowSample) -> None:
    height, width = sample.first.shape[:2]
    if np.shape(estimate) != (2, height, width):
        raise ValueError(
            f"{sample.name}: an estimate of shape {np.shape(estimate)} for frames of {height} x {width} pixels; "
            f"wanted (2, {height}, {width})"
        )
    need_finite(np.asarray(estimate), f"{sample.name}: the estimate")


def _sums(errors: PixelErrors, occluded: np.ndarray | None) -> np.ndarray:
    """Count and summed quantities (R, 1 + Q) of the pixels of every region."""
    epe, speed = errors.epe, errors.speed
    bad = [100.0 * (epe > limit) for limit in BAD_PIXELS]
    outlier = 100.0 * ((epe > 3) & (epe > 0.05 * speed))
    columns = np.stack([np.ones_like(epe), epe, errors.l1, *bad, outlier], axis=1)
    nowhere = np.zeros(len(epe), dtype=bool)
    hidden = nowhere if occluded is None else occluded[errors.valid]
    seen = nowhere if occluded is None else ~hidden
    slow, fast = speed < 10, speed >= 40
    regions = (~nowhere, slow, ~slow & ~fast, fast, hidden, seen)
    return np.stack([columns[region].sum(axis=0) for region in regions])


def _named_means(sums: np.ndarray) -> dict[str, float]:
    with np.errstate(invalid="ignore"):
        means = sums[:, 1:] / np.where(sums[:, :1] > 0, sums[:, :1], np.nan)
    return {
        (quantity if region == "all" else f"{region}/{quantity}"): float(means[row, column])
        for row, region in enumerate(REGIONS)
        for column, quantity in enumerate(QUANTITIES)
    }
