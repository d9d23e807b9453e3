"""CMP: complete flow from a picture and from flow at a few places (Zhan et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from midway_hub.training.compat import Oddities
from midway_hub.training.data.needs import Crops, Frames, Needs, Positive, ShareRange, Views, ViewSize
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.losses import at_least_float32
from midway_hub.training.methods.backbone import Backbone, BackboneMethod, make_backbone
from midway_hub.training.methods.base import Architecture
from midway_hub.training.methods.guides import draw_guides
from midway_hub.training.methods.optimisation import SgdSettings
from midway_hub.training.methods.registry import register

LEVELS = 3
INITIAL_GAIN = 0.02
MOTION = 16


class CmpViews(Views):
    """One crop of a frame, and the flow that leads out of it."""

    size: tuple[ViewSize, ViewSize] = (384, 384)
    """Height and width of the crop in pixels."""

    area: ShareRange = (0.48, 0.48)
    """Area of the crop as a share of the frame: 384 pixels of frames of 416 rows and 16:9."""

    aspect: tuple[Positive, Positive] = (1.0, 1.0)
    """Width over height of the crop."""

    def needs(self) -> Needs:
        """Return the group `image`, without augmentation, and flow to the other frame."""
        image = Crops(self.size, frames=(0,), area=self.area, aspect=self.aspect, same_box=True)
        return Needs(Frames("pair", 2), {"image": image}, flow=((0, 1),), flow_on="image")


class CmpCompat(Oddities):
    """What CMP's released code does otherwise."""

    initial_gain: bool = False
    """After building, all convolutions are drawn anew, normal with Xavier's deviation times 0.02, and BatchNorm's
    weights around 1: other rules have no effect."""

    occluded_pixels_count: bool = False
    """Guides and targets are taken wherever flow is known, hidden or not; the paper's flow is dense and unchecked."""


class CmpSettings(SgdSettings):
    """Numbers of CMP. The defaults are those of its ResNet-50 on VOC-sized crops."""

    lr_rule: ClassVar = "absolute"

    name: str = "cmp"

    base_lr: float = Field(0.1, gt=0)
    """Learning rate at the start, whatever the batch."""

    min_lr: float = Field(0.0, ge=0)
    """Learning rate at the end of the run, where there are no milestones."""

    warmup_epochs: int | float = Field(0, ge=0)
    """Epochs in which the learning rate rises from 0; the paper has none."""

    milestones: tuple[float, ...] = (4 / 7, 6 / 7)
    """Shares of the run after which the learning rate is a tenth of what it was."""

    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay on parameters of two or more dimensions."""

    largest_flow: float = Field(50.0, gt=0)
    """Pixels that bins reach to, both ways; larger flow is taken for so much. It goes with the gap and the size."""

    bins: int = Field(99, ge=2)
    """Bins of each axis."""

    background_ratio: float = Field(3.629e-5, gt=0, le=1)
    """Share of the pixels that the regular grid of guides has."""

    guide_distance: int = Field(67, ge=3)
    """Side in pixels of the window in which a guide between motion edges is the only one."""

    most_guides: int | None = Field(None, ge=1)
    """Guides of a picture at most; null: all."""

    features: int = Field(256, ge=1)
    """Channels that the picture is encoded to."""

    decoder: Literal["plain", "skip"] = "plain"
    """The decoder of the paper, or that of the demo, which also reads finer maps."""

    decoder_width: int = Field(128, ge=1)
    """Channels of a branch of the decoder."""


class SparseEncoder(nn.Module):
    """Flow at guides and where they are, encoded at a stride of 8 (the paper's ShallowNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, MOTION, 5, stride=2, padding=2),
            nn.BatchNorm2d(MOTION),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(MOTION, MOTION, 3, padding=1),
            nn.BatchNorm2d(MOTION),
            nn.ReLU(inplace=True),
        )

    def forward(self, sparse: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (B, 4, H, W), flow and mask twice, to (B, 16, h, w) of a size."""
        return F.adaptive_avg_pool2d(self.layers(sparse), size)


class PlainDecoder(nn.Module):
    """Branches at several scales, joined.

    Args:
        inputs: Channels that come in.
        width: Channels of a branch.
        outputs: Channels that go out.
        scales: What the branches pool by.
        depth: Convolutions of a branch.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, *, scales: tuple[int, ...] = (1, 2, 4), depth: int = 2
    ) -> None:
        super().__init__()
        self.scales = scales
        self.branches = nn.ModuleList(
            [nn.Sequential(*(_layer(inputs if not k else width, width) for k in range(depth))) for _ in scales]
        )
        self.head = nn.Conv2d(width * len(scales), outputs, 1)

    def joined(self, x: Tensor) -> Tensor:
        """Return the branches side by side, (B, width · branches, h, w)."""
        found = []
        for scale, branch in zip(self.scales, self.branches, strict=True):
            scale = min(scale, *x.shape[-2:])
            pooled = F.max_pool2d(x, scale, scale) if scale > 1 else x
            found.append(_resized(branch(pooled), x.shape[-2:]))
        return torch.cat(found, dim=1)

    def forward(self, x: Tensor, maps: list[Tensor]) -> Tensor:
        """Map (B, inputs, h, w) to (B, outputs, h, w); the encoder's finer maps are not read."""
        return self.head(self.joined(x))


class SkipDecoder(PlainDecoder):
    """The demo's decoder: four branches of three convolutions, and two finer maps of the encoder.

    Args:
        inputs: Channels that come in.
        width: Channels of a branch.
        outputs: Channels that go out.
        dims: Channels of the encoder's maps, fine to coarse; the two before the last are read.
    """

    def __init__(self, inputs: int, width: int, outputs: int, dims: tuple[int, ...]) -> None:
        super().__init__(inputs, width, outputs, scales=(1, 2, 4, 8), depth=3)
        finer = dims[:-1][::-1]  # coarse to fine
        self.join = _layer(4 * width, 2 * width)
        self.laterals = nn.ModuleList([_layer(dim, width // 2**k) for k, dim in enumerate(finer)])
        widths = [2 * width, *(width // 2**k for k in range(len(finer)))]
        self.merge = nn.ModuleList([_layer(widths[k] + width // 2**k, widths[k + 1]) for k in range(len(finer))])
        self.head = nn.Conv2d(widths[-1], outputs, 1)

    def forward(self, x: Tensor, maps: list[Tensor]) -> Tensor:
        """Map (B, inputs, h, w) and the encoder's maps, fine to coarse, to (B, outputs, h', w')."""
        x = self.join(self.joined(x))
        for lateral, merge, finer in zip(self.laterals, self.merge, maps[:-1][::-1], strict=True):
            x = merge(torch.cat([_resized(x, finer.shape[-2:]), lateral(finer)], dim=1))
        return self.head(x)


class CmpNetwork(nn.Module):
    """Encoder of the picture, encoder of the guides, decoder to bins.

    Args:
        backbone: The encoder.
        settings: The method's numbers.
        compat: Oddities of the released code.
    """

    def __init__(self, backbone: Backbone, settings: CmpSettings, compat: CmpCompat) -> None:
        super().__init__()
        self.settings, self.compat = settings, compat
        self.backbone = backbone
        self.embed = nn.Conv2d(backbone.dims[-1], settings.features, 1)
        self.sparse = SparseEncoder()
        sizes = settings.features + MOTION, settings.decoder_width, 2 * settings.bins
        self.decoder = SkipDecoder(*sizes, backbone.dims) if settings.decoder == "skip" else PlainDecoder(*sizes)
        if compat.initial_gain:
            self.apply(_draw_small)

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Complete the flow of every picture.

        Args:
            batch: `image` (B, 1, 3, H, W), `flow/0/1` (B, 2, H, W) in pixels and `valid/0/1` (B, H, W).

        Returns:
            The loss `bins`; as diagnostics the guides of a picture, and the end-point error in pixels.
        """
        image, flow, valid = batch["image"][:, 0], batch["flow/0/1"], batch["valid/0/1"]
        if self.compat.occluded_pixels_count:
            valid = torch.isfinite(flow).all(dim=1)
        guides = self._guides(flow, valid)
        logits = self.logits(image, flow, guides)
        loss = bin_loss(logits, flow, valid, largest=self.settings.largest_flow)
        with torch.no_grad():
            error = (expected_flow(logits, self.settings.largest_flow) - flow).norm(dim=1)
            error = (error * valid).sum() / valid.sum().clamp(min=1)
        return StepOutput({"bins": loss}, {"guides": guides.float().sum(dim=(1, 2)).mean(), "epe": error})

    def logits(self, image: Tensor, flow: Tensor, guides: Tensor) -> Tensor:
        """Return (B, 2, bins, H, W) for pictures (B, 3, H, W), flow (B, 2, H, W) and guides (B, H, W)."""
        maps = self.backbone.maps(image)
        features = self.embed(maps[-1])
        mask = guides[:, None].to(flow.dtype)
        sparse = torch.cat([torch.where(mask > 0, flow, 0.0), mask, mask], dim=1)
        told = self.sparse(sparse, (features.shape[-2], features.shape[-1]))
        found = self.decoder(torch.cat([features, told.to(features.dtype)], dim=1), maps)
        return _resized(at_least_float32(found), image.shape[-2:]).unflatten(1, (2, self.settings.bins))

    @torch.no_grad()
    def _guides(self, flow: Tensor, valid: Tensor) -> Tensor:
        """Draw guides (B, H, W), seeded by torch's generator."""
        settings, seeds = self.settings, torch.randint(2**31, (len(flow),)).tolist()
        masks = [
            draw_guides(
                one,
                known,
                np.random.default_rng(seed),
                background_ratio=settings.background_ratio,
                distance=settings.guide_distance,
                most=settings.most_guides,
            )
            for one, known, seed in zip(flow.float().cpu().numpy(), valid.cpu().numpy(), seeds, strict=True)
        ]
        return torch.from_numpy(np.stack(masks)).to(flow.device)


def bin_of(flow: Tensor, *, largest: float, bins: int) -> Tensor:
    """Return the bins, int64 from 0, that flow in pixels falls into: equal ones from -largest to largest."""
    return ((flow.clamp(-largest, largest) + largest) / (2 * largest / bins)).floor().long().clamp(max=bins - 1)


def bin_loss(logits: Tensor, flow: Tensor, valid: Tensor, *, largest: float) -> Tensor:
    """Cross-entropy of the bins of both axes, summed over these, mean over valid pixels (section 3.3).

    Args:
        logits: (B, 2, bins, H, W).
        flow: (B, 2, H, W) in pixels.
        valid: (B, H, W) bool.
        largest: Pixels that bins reach to.
    """
    target = bin_of(flow, largest=largest, bins=logits.shape[2])
    found = F.cross_entropy(logits.flatten(0, 1), target.flatten(0, 1), reduction="none").unflatten(0, flow.shape[:2])
    return (found.sum(dim=1) * valid).sum() / valid.sum().clamp(min=1)


def expected_flow(logits: Tensor, largest: float) -> Tensor:
    """Return the flow (B, 2, H, W) that is expected by logits (B, 2, bins, H, W): the mean of the bins' middles."""
    bins = logits.shape[2]
    middles = (torch.arange(bins, device=logits.device) + 0.5) * (2 * largest / bins) - largest
    return torch.einsum("bcnhw,n->bchw", logits.softmax(dim=2), middles)


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _resized(maps: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)


@torch.no_grad()
def _draw_small(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_normal_(module.weight, gain=INITIAL_GAIN)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, INITIAL_GAIN)
        nn.init.zeros_(module.bias)


@register
class Cmp(BackboneMethod):
    """Flow everywhere, from a picture and flow at a few places."""

    name = "cmp"
    settings = CmpSettings
    views = CmpViews
    oddities = CmpCompat
    formulas: ClassVar = {"bins": bin_loss}
    numbers: CmpSettings
    compat: CmpCompat

    def make_network(self, model: Architecture) -> CmpNetwork:
        count = LEVELS if self.numbers.decoder == "skip" else 1
        return CmpNetwork(make_backbone(model, self.name, count=count), self.numbers, self.compat)
