"""Features of a frame as colours that are fixed once, and what its CLS token looks at as heat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from midway_hub.analysis.attention import cls_attention
from midway_hub.analysis.pca import PcaBasis
from midway_hub.analysis_pictures.overlays import overlay_heat
from midway_hub.analysis_pictures.sheets import captioned_sheet, stacked
from midway_hub.drawing import scale_bar, strip
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing.geometry import Geometry

PANEL_WIDTH, PANELS_IN_A_ROW = 360, 3
BRIGHTEST = 0.995  # share of patches that stay below the top of the attention's scale


@dataclass(frozen=True)
class FrameFeatures:
    """What the network says of one frame.

    Attributes:
        grid: (D, h, w) features.
        attention: (heads, h, w) of the CLS token; None where it was not asked for.
        geometry: Where the frame lies in the network's input.
    """

    grid: Tensor
    attention: Tensor | None
    geometry: Geometry


class FeatureLook:
    """Reads frames' features, and draws them in colours that are fixed once.

    Args:
        net: Any network.
        layer: Encoder block whose features are coloured, from 0; negatives count from the last.
        attention: Whether the last block's CLS attention is drawn as well.
        size: Short side in pixels that the network sees frames at; default: as they are.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self, net: MidwayNetwork, *, layer: int = -1, attention: bool = False, size: int | None = None
    ) -> None:
        if not -net.config.depth <= layer < net.config.depth:
            raise ValueError(f"layer {layer} does not exist: the encoder has blocks 0 to {net.config.depth - 1}")
        self._net, self._attention, self.layer = net, attention, layer % net.config.depth
        self._processor = net.image_processor.with_short_side(size, multiple=net.config.patch_size)
        self._basis: PcaBasis | None = None
        self._top = 1.0

    @torch.no_grad()
    def read(self, frame: Any) -> FrameFeatures:
        """Run the network on a frame, which is as for `MidwayImageProcessor`."""
        inputs = self._processor([frame])
        pixels = inputs["pixel_values"].to(self._net.device)
        grid = self._net.encode(pixels, layers=[self.layer]).layers[0][0]
        attention = cls_attention(self._net, pixels)[0].float().cpu() if self._attention else None
        return FrameFeatures(grid.float().cpu(), attention, inputs.geometry)

    def settle(self, frames: Sequence[FrameFeatures]) -> dict[str, Any]:
        """Fix the colours, and the heat's scale, by some frames; returns what to report of them."""
        self._basis = PcaBasis.fit(frame.grid for frame in frames)
        facts: dict[str, Any] = {
            "layer": self.layer,
            "explained": [round(float(share), 4) for share in self._basis.explained],
        }
        shares = [frame.attention.flatten() for frame in frames if frame.attention is not None]
        if shares:
            self._top = float(np.quantile(torch.cat(shares).numpy(), BRIGHTEST))
            facts["attention_scale"] = float(f"{self._top:.3g}")
        return facts

    def panels(self, image: Image.Image, found: FrameFeatures, caption: str) -> Image.Image:
        """Draw a frame, its features' colours and its attention, head by head, side by side."""
        if self._basis is None:
            raise RuntimeError("the colours are not fixed yet; call settle() first")
        colours = self._own_size(self._basis.colours(found.grid).movedim(-1, 0), found.geometry)
        pixels = (colours.transpose(1, 2, 0) * 255).round().astype(np.uint8)
        shown = [(caption, image), (f"features of block {self.layer}", Image.fromarray(pixels))]
        if found.attention is not None:
            heads = self._own_size(found.attention, found.geometry)
            shown.append(("attention, mean of heads", overlay_heat(image, heads.mean(axis=0), top=self._top)))
            shown += [(f"head {n}", overlay_heat(image, head, top=self._top)) for n, head in enumerate(heads, start=1)]
        rows = [shown[start : start + PANELS_IN_A_ROW] for start in range(0, len(shown), PANELS_IN_A_ROW)]
        return stacked([strip(row, width=PANEL_WIDTH) for row in rows])

    def explained(self, picture: Image.Image) -> Image.Image:
        """Write below a picture what its colours mean."""
        text = ["Colours: the first three principal components as red, green, blue; one basis for all frames."]
        if not self._attention:
            return captioned_sheet(picture, text)
        text.append("Heat: share of the CLS token's attention that a patch gets in the last block.")
        return captioned_sheet(picture, text, legend=scale_bar(f"{self._top:.2g} and more"))

    def _own_size(self, maps: Tensor, geometry: Geometry) -> np.ndarray:
        """Bring maps (C, h, w) to the frame's size, (C, H, W), patches staying visible."""
        return self._processor.undo(maps[None], geometry, mode="nearest", fill=0)[0].numpy()
