"""One strip per pair and reader: frames, true and estimated motion of the patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor

from midway_hub.drawing import INK, PAPER, strip
from midway_hub.flow_io import flow_picture, flow_wheel
from midway_hub.processing.geometry import Geometry
from midway_hub.training.data.flow.sample import FlowSample
from midway_hub.training.evaluation.dynamics.readings import Reading
from midway_hub.training.evaluation.dynamics.scores import patch_sums
from midway_hub.training.evaluation.dynamics.truth import PatchTruth

SMALLEST_WHEEL = 48


@dataclass(frozen=True)
class PatchPicture:
    """A pair and what is needed to draw its patches over it.

    Attributes:
        sample: The pair.
        truth: Its patches' true flow.
        geometry: Where its frames lie in the model input.
        patch_size: Side of a patch in pixels of the model input.
    """

    sample: FlowSample
    truth: PatchTruth
    geometry: Geometry
    patch_size: int

    def draw(self, flow: Tensor, *, largest: float, valid: Tensor | None = None) -> Image.Image:
        """Colour patches by their flow (2, h, w) in pixels of the model input; the picture has the frame's size."""
        scaled = (flow.double() * self.truth.scale[:, None, None]).movedim(0, -1).numpy()
        patches = flow_picture(scaled, valid=None if valid is None else valid.numpy(), largest=largest)
        size = self.geometry.model_size[1], self.geometry.model_size[0]
        height, width = self.geometry.placements[0].resized
        covered = patches.resize(size, Image.Resampling.NEAREST).crop((0, 0, width, height))
        drawn = covered.resize(self.sample.first.shape[1::-1], Image.Resampling.NEAREST)
        edge = [0, 0, drawn.width - 1, drawn.height - 1]
        ImageDraw.Draw(drawn).rectangle(edge, outline=INK)  # what stands still is white, as the paper is
        return drawn


def coarse_strip(pair: PatchPicture, readings: Mapping[str, Reading], *, width: int = 300) -> Image.Image:
    """Draw a pair, its patches' true flow, and what was read, all in the same colours.

    Args:
        pair: The pair.
        readings: Estimated flow, by what the caption calls it.
        width: Of a panel in pixels.
    """
    speed = (pair.truth.flow * pair.truth.scale[:, None, None]).square().sum(dim=0).sqrt()
    largest = max(float(speed.max()), pair.patch_size * float(pair.truth.scale.max()))
    panels = [
        (pair.sample.name, Image.fromarray(pair.sample.first)),
        ("second frame", Image.fromarray(pair.sample.second)),
        ("truth (grey: does not count)", pair.draw(pair.truth.flow, largest=largest, valid=pair.truth.counts)),
    ]
    for way, reading in readings.items():
        count, error = patch_sums(reading, pair.truth, patch_size=pair.patch_size)[0][:2]
        caption = f"{way}: EPE {error / count:.1f} px" if count else way
        panels.append((caption.removeprefix("-: "), pair.draw(reading.flow, largest=largest)))
    panels.append(("direction and length", _wheel(largest, pair.sample.first.shape, width)))
    return strip(panels, width=width)


def _wheel(largest: float, shape: tuple[int, ...], width: int) -> Image.Image:
    """Draw the legend into the middle of a panel of a frame's proportions."""
    panel = Image.new("RGB", (width, max(1, round(width * shape[0] / shape[1]))), PAPER)
    wheel = flow_wheel(largest, size=max(SMALLEST_WHEEL, min(panel.size)))
    panel.paste(wheel, ((panel.width - wheel.width) // 2, (panel.height - wheel.height) // 2))
    return panel
