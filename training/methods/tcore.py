"""T-CoRe: complete masked patches of a frame from past and from future ones (Liu et al., CVPR 2025)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.models.encoder import MidwayEncoder
from midway_hub.models.rope import grid_places
from midway_hub.training.data.needs import (
    ColourRecipe,
    Crops,
    Frames,
    Needs,
    Palette,
    Probability,
    Share,
    ShareRange,
    Views,
    ViewSize,
)
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.initial import initialise_encoder
from midway_hub.training.losses import at_least_float32, cross_entropy, entropy, exactly
from midway_hub.training.methods.base import Architecture, hub_network
from midway_hub.training.methods.block_masks import draw_block_masks
from midway_hub.training.methods.centre import Centre
from midway_hub.training.methods.dino import LastLayerMethod, LastLayerSettings
from midway_hub.training.methods.head import DinoHead, HeadSettings
from midway_hub.training.methods.registry import register

KOLEO_EPSILON = 1e-8


class TcoreViews(Views):
    """Crops of the current frame, and whole squares of a past and a future one."""

    global_size: ViewSize = 224
    """Side in pixels of the two global views of the current frame, and of the past and future frames' views."""

    local_size: ViewSize = 96
    """Side in pixels of a local view."""

    local_count: int = Field(8, ge=1, le=64)
    """Local views of the current frame."""

    global_area: ShareRange = (0.32, 1.0)
    """Area of a global view as a share of the frame."""

    local_area: ShareRange = (0.05, 0.32)
    """Area of a local view as a share of the frame."""

    flip_probability: Probability = 0.5
    """Share of the local views that are mirrored; others never are, as patches are sought in other frames."""

    around: tuple[Share, Share] = (0.15, 0.25)
    """How far past and future are from the current frame, as shares of the video's length."""

    global_1: ColourRecipe = ColourRecipe(blur=1.0, solarise=0.0)
    """Recipe of the first global view, and of the past and future views that go with it."""

    global_2: ColourRecipe = ColourRecipe(blur=0.1, solarise=0.2)
    """Recipe of the second one."""

    local: ColourRecipe = ColourRecipe(blur=0.5, solarise=0.0)
    """Recipe of local views."""

    def needs(self) -> Needs:
        """Return the groups `globals`, `locals` and `others`."""
        palette, wide, narrow = Palette(), (self.global_size,) * 2, (self.local_size,) * 2
        both = (self.global_1, self.global_2)
        return Needs(
            Frames("sandwich", 3, around=self.around),
            {
                "globals": Crops(wide, 2, frames=(1,), area=self.global_area, colour=both, palette=palette),
                "locals": Crops(
                    narrow,
                    self.local_count,
                    frames=(1,),
                    area=self.local_area,
                    flip=self.flip_probability,
                    colour=(self.local,),
                    palette=palette,
                ),
                "others": Crops(wide, 2, frames=(0, 2), area=(1.0, 1.0), same_box=True, colour=both, palette=palette),
            },
        )


class TcoreSettings(LastLayerSettings):
    """Numbers of T-CoRe. The defaults are those of the shipped configuration."""

    lr_rule: ClassVar = "sqrt"
    reference_batch: ClassVar = 1024
    clips: ClassVar = "owner"

    name: str = "tcore"

    base_lr: float = Field(2e-3, gt=0)
    """Peak learning rate for a batch of 1024 clips; it grows with the batch's square root."""

    teacher_momentum: float = Field(0.992, ge=0, le=1)
    """Share of itself that the teacher keeps in a step, at the start; a cosine leads to 1 at the end of the run."""

    clip: float | None = Field(3.0, gt=0)
    """Largest norm of the gradient of encoder, head and matching module, each on its own; null does not clip."""

    layer_decay: float = Field(0.9, gt=0, le=1)
    """What the learning rate of a block is of that of the block after it."""

    patch_embed_scale: float = Field(0.2, gt=0, le=1)
    """What the learning rate of the patch embedding is multiplied by beside that."""

    matching_scale: float = Field(0.1, gt=0, le=1)
    """What the learning rate of the matching module is of the others'."""

    masked_share: float = Field(0.5, ge=0, le=1)
    """Share of the global views that the student sees masked."""

    mask_ratios: tuple[Share, Share] = (0.1, 0.5)
    """Least and most share of the patches that are hidden in a masked view."""

    student_temperature: float = Field(0.1, gt=0)
    """Temperature of the student's distributions over prototypes."""

    teacher_temperature: float = Field(0.07, gt=0)
    """Temperature of the teacher's distributions after its warm-up."""

    teacher_temperature_start: float = Field(0.04, gt=0)
    """Temperature of the teacher's distributions at the start."""

    temperature_epochs: int = Field(30, ge=0)
    """Epochs in which the teacher's temperature rises."""

    centre_momentum: float = Field(0.9, ge=0, le=1)
    """Share of themselves that the centres keep in a step."""

    dino_weight: float = Field(1.0, ge=0)
    """Weight of the loss between views."""

    koleo_weight: float = Field(0.1, ge=0)
    """Weight of what spreads the global views' features."""

    past_weight: float = Field(0.8, ge=0)
    """Weight of the completion from the past frame."""

    future_weight: float = Field(0.8, ge=0)
    """Weight of the completion from the future frame."""

    agreement_weight: float = Field(20.0, ge=0)
    """Weight of the squared difference of the two completions."""

    matching_heads: int = Field(16, ge=1)
    """Attention heads of the matching module."""

    head: HeadSettings = HeadSettings()
    """Sizes of the head, which CLS tokens and patches share."""


class PatchMatching(nn.Module):
    """Masked patches look for themselves in another frame: cross-attention, self-attention, a linear layer.

    Args:
        dim: Width.
        heads: Attention heads.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.cross = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.own = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear = nn.Linear(dim, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(self, patches: Tensor, other: Tensor) -> Tensor:
        """Map the patches (B, N, dim) of a frame, given another's (B, N', dim), to completed ones (B, N, dim)."""
        x = self.norm1(4 * self.cross(patches, other, other, need_weights=False)[0] + patches)
        x = self.norm2(self.own(x, x, x, need_weights=False)[0] + x)
        return self.norm3(self.linear(x) + x)


class Completed(NamedTuple):
    """What the masked patches of a batch are taken for.

    Attributes:
        past: (M, K) outputs of the head for the M masked patches, completed from the past frame.
        future: (M, K) from the future one.
        target: (M, K) the teacher's probabilities.
        weight: (M,) of each in the mean over views.
    """

    past: Tensor
    future: Tensor
    target: Tensor
    weight: Tensor


class TcoreNetwork(nn.Module):
    """Student and teacher, the matching module, a head for CLS tokens and patches, two centres.

    Args:
        config: Architecture of the encoders.
        settings: The method's numbers.
    """

    temperature: Tensor

    def __init__(self, config: MidwayConfig, settings: TcoreSettings) -> None:
        super().__init__()
        self.settings = settings
        self.model = MidwayNetwork(config)
        initialise_encoder(self.model, settings.initial)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.matching = PatchMatching(config.embed_dim, settings.matching_heads)
        self.student_head = DinoHead(config.embed_dim, settings.head)
        self.teacher_head = copy.deepcopy(self.student_head).requires_grad_(False)
        self.cls_centre = Centre(settings.head.prototypes, settings.centre_momentum)
        self.patch_centre = Centre(settings.head.prototypes, settings.centre_momentum)
        self.register_buffer("temperature", torch.tensor(settings.teacher_temperature_start), persistent=False)

    def follows(self) -> dict[nn.Module, nn.Module]:
        """Map every moving average to the module that it follows."""
        return {**self.model.target_side(), self.teacher_head: self.student_head}

    @staticmethod
    def owner(name: str) -> str:
        """Return whose gradients are clipped together: `student`, `head` or `matching`."""
        return {"student_head": "head", "matching": "matching"}.get(name.split(".")[0], "student")

    def lr_scale(self, name: str) -> float:
        """Return what the learning rate of a parameter is multiplied by: deeper blocks learn faster."""
        settings, depth, parts = self.settings, self.model.config.depth, name.split(".")
        if parts[0] == "matching":
            return settings.matching_scale
        if parts[0] == "student_head":
            return 1.0
        if parts[:3] == ["model", "student", "blocks"]:
            return settings.layer_decay ** (depth - int(parts[3]))
        if parts[:3] == ["model", "student", "norm"]:
            return 1.0
        scale = settings.layer_decay ** (depth + 1)
        return scale * settings.patch_embed_scale if "patch_embed" in parts else scale

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Compare the views of the current frame, and complete its masked patches from past and future.

        Args:
            batch: `globals` (B, 2, 3, H, W) and `locals` (B, L, 3, h, w) of the current frame; `others`
                (B, 4, 3, H, W), two views of the past frame, then of the future one. Normalised.

        Returns:
            The losses `dino`, `koleo`, `past`, `future` and `agreement`; as diagnostics the share of hidden patches and
            the teacher's entropy.
        """
        settings, globals_ = self.settings, batch["globals"].transpose(0, 1).flatten(0, 1)  # view 1 of all, then view 2
        count, last = len(batch["globals"]), (self.model.config.depth - 1,)
        size = self.model.config.patch_size
        grid = (globals_.shape[-2] // size, globals_.shape[-1] // size)
        masks = draw_block_masks(
            2 * count, grid, share=settings.masked_share, ratios=settings.mask_ratios, generator=None
        ).to(globals_.device)
        seen = masked_tokens(self.model.student, globals_, masks, self.mask_token)
        with torch.no_grad():
            known = self.model.teacher.tokens(globals_, last)[0]
            cls_teacher = self._probabilities(known[:, 0], self.cls_centre)
            others = self.model.student.tokens(batch["others"].flatten(0, 1), last)[0][:, 1:]
            others = others.unflatten(0, (count, 2, 2)).permute(1, 2, 0, 3, 4).flatten(1, 2)  # (past|future, 2B, N, D)
        (near,) = self.model.student.tokens(batch["locals"].flatten(0, 1), last)
        cls_globals = self.student_head(seen[:, 0])
        cls_locals = self.student_head(near[:, 0]).unflatten(0, (count, -1))
        losses = {
            "dino": settings.dino_weight
            * view_loss(cls_globals, cls_locals, cls_teacher, settings.student_temperature),
            "koleo": settings.koleo_weight * sum(koleo_loss(view) for view in seen[:, 0].chunk(2)),
        }
        completed = self._complete(seen[:, 1:], others, known[:, 1:], masks)
        losses |= self._completion_losses(completed)
        return StepOutput(losses, {"hidden_patches": masks.float().mean(), "teacher_entropy": entropy(cls_teacher)})

    def _complete(self, patches: Tensor, others: Tensor, known: Tensor, masks: Tensor) -> Completed:
        past, future = (self.student_head(self.matching(patches, other)[masks]) for other in others)
        with torch.no_grad():
            target = self._probabilities(known[masks], self.patch_centre)
        weight = (1 / masks.sum(dim=1).clamp(min=1))[:, None].expand_as(masks)[masks] / len(masks)
        return Completed(past, future, target, weight)

    def _completion_losses(self, found: Completed) -> dict[str, Tensor]:
        settings, temperature = self.settings, self.settings.student_temperature
        past, future = (
            (cross_entropy(side, found.target, temperature) * found.weight).sum() for side in (found.past, found.future)
        )
        return {
            "past": settings.past_weight * past,
            "future": settings.future_weight * future,
            "agreement": settings.agreement_weight * agreement_loss(found.past, found.future),
        }

    @torch.no_grad()
    def _probabilities(self, tokens: Tensor, centre: Centre) -> Tensor:
        answers = at_least_float32(self.teacher_head(tokens))
        if self.training and len(answers):
            centre.gather(answers)
        return ((answers - centre.value) / self.temperature).softmax(dim=-1)

    def after_update(self) -> None:
        """Move the centres."""
        self.cls_centre.move()
        self.patch_centre.move()

    def after_rejection(self) -> None:
        """Forget the teacher's answers."""
        self.cls_centre.forget()
        self.patch_centre.forget()


def masked_tokens(encoder: MidwayEncoder, images: Tensor, masks: Tensor, mask_token: Tensor) -> Tensor:
    """Encode images (B, 3, H, W) whose masked patches (B, N) are replaced by a token; (B, 1+N, D), CLS first."""
    patches = encoder.patch_embed(images)
    hidden = masks.unflatten(1, patches.shape[1:3])[..., None]
    patches = torch.where(hidden, mask_token[0, 0].to(patches.dtype), patches)
    places = grid_places((patches.shape[1], patches.shape[2]), patches.device) if encoder.rope else None
    return encoder.through(encoder._pos_embed(patches), (len(encoder.blocks) - 1,), places)[0]


def view_loss(globals_: Tensor, locals_: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy between views as DINOv2 weighs it: the mean over all local and crossed global pairs.

    Args:
        globals_: (2B, K) the student's outputs, view 1 of all samples, then view 2.
        locals_: (B, L, K) likewise of local views.
        teacher: (2B, K) the teacher's probabilities.
        temperature: Student temperature.

    Returns:
        The mean over B of (Σ over 2L local pairs + 2·Σ over the 2 crossed global pairs / 2) / (2L + 2).
    """
    one, two = teacher.chunk(2)
    pairs = 2 * locals_.shape[1] + 2
    local = sum(cross_entropy(locals_, view[:, None], temperature).mean(dim=0).sum() for view in (one, two))
    crossed = cross_entropy(globals_, torch.cat([two, one]), temperature).mean()
    return (local + 2 * crossed) / pairs


def agreement_loss(past: Tensor, future: Tensor) -> Tensor:
    """Mean squared difference of two completions (M, K), before any temperature; both have gradients."""
    apart = (at_least_float32(past) - at_least_float32(future)).square()
    return apart.sum() / max(1, apart.numel())


def koleo_loss(features: Tensor) -> Tensor:
    """Mean of −log of the distance to the nearest other one, of unit vectors (Sablayrolles et al. 2019).

    Args:
        features: (B, D), at least two for anything but 0.
    """
    units = F.normalize(at_least_float32(features), dim=-1)
    if len(units) < 2:
        return units.sum() * 0.0
    with exactly(units):
        similar = units.detach() @ units.detach().mT
    similar.fill_diagonal_(-torch.inf)
    nearest = units[similar.argmax(dim=1)]
    return -(F.pairwise_distance(units, nearest, eps=KOLEO_EPSILON) + KOLEO_EPSILON).log().mean()


@register
class Tcore(LastLayerMethod):
    """Masked patches are completed twice, from the past and from the future, and the two have to agree."""

    name = "tcore"
    settings = TcoreSettings
    views = TcoreViews
    unit = "clips"
    formulas: ClassVar = {
        "dino": view_loss,
        "koleo": koleo_loss,
        "past": cross_entropy,
        "future": cross_entropy,
        "agreement": agreement_loss,
    }
    numbers: TcoreSettings
    network: TcoreNetwork

    def make_network(self, model: Architecture) -> TcoreNetwork:
        keywords = model.to_dict() if isinstance(model, MidwayConfig) else dict(model)
        keywords = {"num_registers": 4, "layer_scale": 1e-5, **keywords}
        config = hub_network(keywords, self.name, target_network="ema", drop_path=self.numbers.drop_path)
        if config.embed_dim % self.numbers.matching_heads:
            raise ValueError(
                f"model.embed_dim {config.embed_dim} is not a multiple of method.matching_heads "
                f"{self.numbers.matching_heads}"
            )
        return TcoreNetwork(config, self.numbers)

    def schedule(self, optimizer: Optimizer, step: int) -> dict[str, float]:
        values = super().schedule(optimizer, step)
        self.network.temperature.fill_(values["teacher_temperature"])
        return values

    def values(self, step: int) -> dict[str, float]:
        numbers = self.numbers
        steps = numbers.temperature_epochs * self.timeline.steps_per_epoch
        share = min(1.0, step / steps) if steps else 1.0
        start, end = numbers.teacher_temperature_start, numbers.teacher_temperature
        return {**super().values(step), "teacher_temperature": start + share * (end - start)}
