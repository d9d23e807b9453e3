"""CroCo v2: complete a masked frame from another one (Weinzaepfel et al., NeurIPS 2022 and ICCV 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.models.encoder import MidwayEncoder
from midway_hub.models.rope import grid_places
from midway_hub.training.data.needs import ColourRecipe, Crops, Frames, Needs, Palette, ShareRange, Views, ViewSize
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.losses import at_least_float32
from midway_hub.training.methods.base import Architecture, HubMethod, hub_network
from midway_hub.training.methods.optimisation import PlannedLonger
from midway_hub.training.methods.registry import register
from midway_hub.training.settings import Settings

EPSILON = 1e-6


class CrocoViews(Views):
    """The crops of CroCo: one of either frame, drawn apart, with colours of its own."""

    size: ViewSize = 224
    """Side of a crop in pixels."""

    area: ShareRange = (0.3, 1.0)
    """Area of a crop as a share of the frame. The paper cuts 224 pixels out of pairs of about 256, which were made to
    overlap; of pairs of a video nothing is published."""

    same_box: bool = False
    """Whether the frames share the box. They then differ by motion alone, and copying is easy where that is small."""

    jitter: float = Field(0.4, ge=0, le=1)
    """How far brightness, contrast and saturation may change; the hue stays."""

    def needs(self) -> Needs:
        """Return the group `crops`."""
        palette = Palette((self.jitter, self.jitter, self.jitter, 0.0), 1.0, 0.0)
        plain = ColourRecipe(blur=0.0, solarise=0.0)
        size = (self.size, self.size)
        crops = Crops(size, area=self.area, same_box=self.same_box, colour=(plain,), palette=palette)
        return Needs(Frames("pair", 2), {"crops": crops})


class DecoderSettings(Settings):
    """Sizes of CroCo's decoder. The defaults are Midway's comparison's, as its parameters and cost give them away."""

    dim: int = Field(192, ge=4)
    """Width; CroCo's own: 512 (small), 768 (base)."""

    depth: int = Field(12, ge=1)
    """Blocks; CroCo's own: 8, 12."""

    heads: int = Field(6, ge=1)
    """Attention heads; CroCo's own: 16, 12. The width over them is a multiple of 4, as heads turn by place."""


class CrocoSettings(PlannedLonger):
    """Numbers of CroCo v2. The defaults are the paper's: 125 epochs of a schedule of 250, 12 of them warm-up."""

    name: str = "croco"

    base_lr: float = Field(1.5e-4, gt=0)
    """Peak learning rate for a batch of 256 pairs."""

    min_lr: float = Field(0.0, ge=0)
    """Learning rate where the cosine would end."""

    warmup_epochs: int | float = Field(12, ge=0)
    """Epochs in which the learning rate rises from 0 to its peak; at most the whole run."""

    planned: float = Field(2.0, ge=1)
    """Length that the cosine is planned for, in lengths of the run."""

    weight_decay: float = Field(0.05, ge=0)
    """Weight decay on parameters of two or more dimensions."""

    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the gradient's mean and square."""

    mask_ratio: float = Field(0.9, gt=0, lt=1)
    """Share of the first frame's patches that are hidden, exactly as many in every frame."""

    decoder: DecoderSettings = DecoderSettings()
    """Sizes of the decoder."""


class CrocoNetwork(nn.Module):
    """An encoder of rotary positions, and the decoder.

    The encoder keeps the hub's CLS token, which the paper's has not: patches attend to it, and nothing reads it.

    Args:
        config: Architecture of the encoder.
        settings: Masking and sizes of the decoder.
    """

    def __init__(self, config: MidwayConfig, settings: CrocoSettings) -> None:
        super().__init__()
        self.settings, self.patch_size = settings, config.patch_size
        self.model = MidwayNetwork(config)
        for module in self.model.student.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Complete the first frame of every pair.

        Args:
            batch: `crops` (B, 2, 3, H, W), one of either frame. Normalised.

        Returns:
            The loss `completion`, see `completion_loss`. As a diagnostic what the loss would be with nothing but each
            patch's mean, `completion_trivial`.
        """
        first, second = batch["crops"].unbind(1)
        grid = (first.shape[-2] // self.patch_size, first.shape[-1] // self.patch_size)
        keep = draw_kept(len(first), grid[0] * grid[1], self.settings.mask_ratio, first.device)
        seen = kept_tokens(self.model.student, first, keep)
        (other,) = self.model.student.tokens(second, (self.model.config.depth - 1,))
        decoded = self.model.pair_decoder(seen[:, 1:], other[:, 1:], keep, grid)[-1]
        wanted = patches_of(first, self.patch_size)
        hidden = torch.ones(wanted.shape[:2], dtype=torch.bool, device=first.device).scatter(1, keep, False)
        loss = completion_loss(self.model.pair_decoder.pixels(self.model.pair_decoder.norm(decoded)), wanted, hidden)
        trivial = completion_loss(torch.zeros_like(wanted), wanted, hidden)
        return StepOutput({"completion": loss}, {"completion_trivial": trivial.detach()})


def draw_kept(count: int, patches: int, mask_ratio: float, device: torch.device) -> Tensor:
    """Draw which patches of every frame are seen, (B, K) in order: all but int(ratio · N), each as likely."""
    kept = patches - int(mask_ratio * patches)
    return torch.rand(count, patches, device=device).argsort(dim=1)[:, :kept].sort(dim=1).values


def kept_tokens(encoder: MidwayEncoder, images: Tensor, keep: Tensor) -> Tensor:
    """Encode some patches of images alone, each at its own place.

    Args:
        encoder: With rotary positions.
        images: (B, 3, H, W).
        keep: (B, K) which patches.

    Returns:
        (B, 1+K, D) tokens of the last block, CLS first, through the final norm.
    """
    patches = encoder.patch_embed(images)
    places = grid_places((patches.shape[1], patches.shape[2]), patches.device)
    chosen = patches.flatten(1, 2).gather(1, keep[..., None].expand(-1, -1, patches.shape[-1]))
    x = encoder._pos_embed(chosen[:, None])  # a grid of one row: rotary positions add nothing here
    return encoder.through(x, (len(encoder.blocks) - 1,), places[keep][:, None])[0]


def patches_of(images: Tensor, size: int) -> Tensor:
    """Return the pixels of patches, (B, N, size·size·3), row by row, colours last."""
    rows = images.unfold(2, size, size).unfold(3, size, size)  # (B, 3, h, w, size, size)
    return rows.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


def completion_loss(predicted: Tensor, pixels: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of hidden patches, each normalised by its own mean and deviation (He et al. 2022; CroCo v2).

    Args:
        predicted: (B, N, P).
        pixels: (B, N, P).
        hidden: (B, N) bool, the patches that count.

    Returns:
        A scalar in float32 or better, 1 where nothing is known but the patches' means.
    """
    pixels = at_least_float32(pixels)
    mean, variance = pixels.mean(dim=-1, keepdim=True), pixels.var(dim=-1, keepdim=True)
    target = (pixels - mean) / (variance + EPSILON).sqrt()
    error = (at_least_float32(predicted) - target).square().mean(dim=-1)
    return (error * hidden).sum() / hidden.sum()


@register
class Croco(HubMethod):
    """Cross-view completion: nine tenths of a frame from the rest and from another frame."""

    name = "croco"
    settings = CrocoSettings
    views = CrocoViews
    formulas: ClassVar = {"completion": completion_loss}
    numbers: CrocoSettings
    network: CrocoNetwork

    def make_network(self, model: Architecture) -> CrocoNetwork:
        keywords = model.to_dict() if isinstance(model, MidwayConfig) else {"positions": "rope", **model}
        if keywords.get("positions") != "rope":
            raise ValueError(f"method croco needs model.positions=rope, got {keywords.get('positions')!r}")
        keywords["pair_decoder"] = self.numbers.decoder.model_dump()
        return CrocoNetwork(hub_network(keywords, self.name, target_network="shared"), self.numbers)
