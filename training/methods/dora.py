"""DoRA: discover objects in a clip, track them, and learn to know them masked (Venkataramanan et al., ICLR 2024)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.models.encoder import MidwayEncoder
from midway_hub.training.compat import Oddities
from midway_hub.training.data.needs import (
    ColourRecipe,
    Crops,
    Frames,
    Needs,
    Palette,
    Probability,
    ShareRange,
    Views,
    ViewSize,
)
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.initial import initialise_encoder
from midway_hub.training.losses import at_least_float32, cross_entropy, entropy, exactly, teacher_probabilities
from midway_hub.training.methods.base import Architecture, hub_network
from midway_hub.training.methods.centre import Centre
from midway_hub.training.methods.dino import LastLayerMethod, LastLayerSettings
from midway_hub.training.methods.head import DinoHead, HeadSettings
from midway_hub.training.methods.registry import register
from midway_hub.training.methods.sinkhorn import sinkhorn


class DoraCompat(Oddities):
    """What DoRA's released code does otherwise than its paper."""

    sums_leak_between_objects: bool = False
    """The sum over frames is divided by their number but not set back between objects: earlier objects count again,
    with a share of 1/T, in those after them."""

    first_local_is_skipped: bool = False
    """The test for the same view compares numbers of views: local view 0 is taken for the global one and left out."""


class DoraViews(Views):
    """A global and some local views of every frame of a clip, all cut from one box that the frames share."""

    frames: int = Field(8, ge=2, le=8)
    """Frames T of a clip."""

    global_size: ViewSize = 224
    """Side of the global view in pixels; there is one of every frame, at the same place."""

    local_size: ViewSize = 112
    """Side of a local view in pixels."""

    local_count: int = Field(6, ge=1, le=64)
    """Local views of every frame, each at a place of its own."""

    clip_area: ShareRange = (0.2, 1.0)
    """Area of the box that views are cut from, as a share of the frame."""

    global_area: ShareRange = (0.4, 1.0)
    """Area of a global view as a share of that box."""

    local_area: ShareRange = (0.05, 0.4)
    """Area of a local view as a share of that box."""

    global_blur: Probability = 0.1
    """Share of the global views that are blurred."""

    local_blur: Probability = 0.5
    """Share of the local views that are blurred."""

    flip_probability: Probability = 0.5
    """Share of the clips whose global views are mirrored."""

    def needs(self) -> Needs:
        """Return the groups `globals` and `locals`, and `clip`, which they are cut from."""
        palette = Palette((0.4, 0.4, 0.2, 0.1), 0.8, 0.2)
        wide, narrow = (self.global_size,) * 2, (self.local_size,) * 2
        clip = Crops(wide, area=self.clip_area, same_box=True, pixels=False)
        globals_ = Crops(
            wide,
            area=self.global_area,
            within="clip",
            same_box=True,
            flip=self.flip_probability,
            colour=(ColourRecipe(blur=self.global_blur, solarise=0.0),),
            palette=palette,
        )
        locals_ = Crops(
            narrow,
            self.local_count,
            area=self.local_area,
            within="clip",
            colour=(ColourRecipe(blur=self.local_blur, solarise=0.0),),
            palette=palette,
        )
        return Needs(Frames("window", self.frames), {"clip": clip, "globals": globals_, "locals": locals_})


class DoraSettings(LastLayerSettings):
    """Numbers of DoRA. The defaults are the paper's."""

    name: str = "dora"

    min_lr: float = Field(1e-5, ge=0)
    """Learning rate at the end of the run."""

    objects: int = Field(3, ge=1)
    """Heads of the last block whose attention gives an object each; drawn anew for every clip."""

    sinkhorn_iterations: int = Field(30, ge=1)
    """Rounds that balance the assignment of patches to objects."""

    sinkhorn_epsilon: float = Field(0.05, gt=0)
    """Entropy of that assignment."""

    student_temperature: float = Field(0.1, gt=0)
    """Temperature of the student's distributions over prototypes."""

    teacher_temperature: float = Field(0.04, gt=0)
    """Temperature of the teacher's distributions, constant over the run."""

    centre_momentum: float = Field(0.9, ge=0, le=1)
    """Share of itself that the centre keeps in a step."""

    head: HeadSettings = HeadSettings()
    """Sizes of the head."""


class LastBlock(NamedTuple):
    """What the last block of an encoder sees.

    Attributes:
        tokens: (B, 1+N, D) what comes out, through the final norm.
        cls_attention: (B, heads, N) what the CLS token gives each patch.
        queries: (B, N, D) of the patches, heads side by side.
        keys: (B, N, D) likewise.
    """

    tokens: Tensor
    cls_attention: Tensor
    queries: Tensor
    keys: Tensor


class DoraNetwork(nn.Module):
    """Student and teacher with their heads, and the centre.

    Args:
        config: Architecture of the encoders.
        settings: The method's numbers.
        compat: Oddities of the released code.
    """

    def __init__(self, config: MidwayConfig, settings: DoraSettings, compat: DoraCompat) -> None:
        super().__init__()
        if settings.objects > config.num_heads:
            raise ValueError(
                f"method.objects is {settings.objects}, and the encoder has {config.num_heads} heads to take them from"
            )
        self.settings, self.compat = settings, compat
        self.model = MidwayNetwork(config)
        initialise_encoder(self.model, settings.initial)
        self.student_head = DinoHead(config.embed_dim, settings.head)
        self.teacher_head = copy.deepcopy(self.student_head).requires_grad_(False)
        self.centre = Centre(settings.head.prototypes, settings.centre_momentum)

    def follows(self) -> dict[nn.Module, nn.Module]:
        """Map every moving average to the module that it follows."""
        return {**self.model.target_side(), self.teacher_head: self.student_head}

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Find objects with the teacher, and have the student know them masked and from local views.

        Args:
            batch: `globals` (B, T, 3, H, W), one of every frame; `locals` (B, T·L, 3, h, w), L of every frame.

        Returns:
            The loss `objects`; as diagnostics the share of patches that masks keep, and the teacher's entropy.
        """
        frames, settings = batch["globals"], self.settings
        count, length = frames.shape[:2]
        locals_ = batch["locals"].unflatten(1, (length, -1))
        with torch.no_grad():
            seen = last_block(self.model.teacher, frames.flatten(0, 1))
            answers = at_least_float32(self.teacher_head(seen.tokens[:, 0])).unflatten(0, (count, length))
            teacher = teacher_probabilities(answers, self.centre.value, temperature=settings.teacher_temperature)
            if self.training:
                self.centre.gather(answers)
            with exactly(frames):
                masks = self.track(seen, count)  # (K, B, T, N)
            masked = self._masked(frames, masks)
        student = self._answers(masked.flatten(0, 2)).unflatten(0, masked.shape[:3])
        near = self._answers(locals_.flatten(0, 2)).unflatten(0, locals_.shape[:3])
        loss = self._loss(student, near, teacher)
        diagnostics = {"kept_patches": masks.float().mean(), "teacher_entropy": entropy(teacher)}
        return StepOutput({"objects": loss}, diagnostics)

    @torch.no_grad()
    def track(self, seen: LastBlock, count: int) -> Tensor:
        """Discover objects in the first frame of every clip and follow them (DoRA, section 4).

        Args:
            seen: What the teacher's last block sees of B·T frames.
            count: Clips B.

        Returns:
            (K, B, T, N) bool, whether a patch is kept.
        """
        tokens, attention, queries, keys = (
            at_least_float32(part).unflatten(0, (count, -1)) for part in (seen.tokens, *seen[1:])
        )
        heads, settings = attention.shape[2], self.settings
        chosen = torch.rand(count, heads, device=tokens.device).argsort(dim=1)[:, : settings.objects]
        looks = attention[:, 0].gather(1, chosen[..., None].expand(-1, -1, attention.shape[-1]))  # (B, K, N)
        prototypes = looks @ queries[:, 0]
        patches = F.normalize(tokens[:, 0, 1:], dim=-1)
        assigned = sinkhorn(
            patches @ prototypes.mT, iterations=settings.sinkhorn_iterations, epsilon=settings.sinkhorn_epsilon
        )
        refined = assigned.mT @ patches  # (B, K, D)
        similar = torch.einsum("bkd,btnd->kbtn", refined, keys) / keys.shape[-1] ** 0.5
        maps = F.normalize(similar.softmax(dim=-1), dim=-1)
        return maps > maps.mean(dim=(1, 3), keepdim=True)

    def _masked(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Frames (B, T, 3, H, W) with nothing but each object, (K, B, T, 3, H, W)."""
        size = self.model.config.patch_size
        grid = (frames.shape[-2] // size, frames.shape[-1] // size)
        pixels = masks.unflatten(-1, grid).repeat_interleave(size, dim=-2).repeat_interleave(size, dim=-1)
        return frames * pixels[:, :, :, None].to(frames.dtype)

    def _answers(self, images: Tensor) -> Tensor:
        (tokens,) = self.model.student.tokens(images, (self.model.config.depth - 1,))
        return self.student_head(tokens[:, 0])

    def _loss(self, masked: Tensor, near: Tensor, teacher: Tensor) -> Tensor:
        """Join the losses of all objects and frames: answers (K, B, T, P), (B, T, L, P) and (B, T, P)."""
        settings, compat = self.settings, self.compat
        near = near[:, :, 1:] if compat.first_local_is_skipped and near.shape[2] > 1 else near
        of_masked = cross_entropy(masked, teacher, settings.student_temperature).mean(dim=1)  # (K, T)
        of_locals = cross_entropy(near, teacher[:, :, None], settings.student_temperature).mean(dim=(0, 2))  # (T,)
        terms = (of_masked + of_locals) / 2
        if not compat.sums_leak_between_objects:
            return terms.mean()
        total, leaking = terms.new_zeros(()), terms.new_zeros(())
        for of_object in terms:
            leaking = (leaking + of_object.sum()) / len(of_object)
            total = total + leaking
        return total / len(terms)

    def after_update(self) -> None:
        """Move the centre."""
        self.centre.move()

    def after_rejection(self) -> None:
        """Forget the teacher's answers."""
        self.centre.forget()


def last_block(encoder: MidwayEncoder, images: Tensor) -> LastBlock:
    """Encode images (B, 3, H, W) and return what the last block sees."""
    block = encoder.blocks[-1]
    entered: list[Tensor] = []
    handle = block.attn.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    try:
        (tokens,) = encoder.tokens(images, (len(encoder.blocks) - 1,))
    finally:
        handle.remove()
    queries, keys, _ = block.attn.qkv(entered[0]).unflatten(-1, (3, block.attn.num_heads, -1)).unbind(2)
    weights = torch.einsum("bhd,bnhd->bhn", queries[:, 0] * block.attn.scale, keys).softmax(dim=-1)
    first = entered[0].shape[1] - tokens.shape[1] + 1  # behind CLS and registers
    return LastBlock(tokens, weights[..., first:], queries[:, first:].flatten(2), keys[:, first:].flatten(2))


@register
class Dora(LastLayerMethod):
    """Objects that attention heads find in a clip are tracked, and known when all else is hidden."""

    name = "dora"
    settings = DoraSettings
    views = DoraViews
    oddities = DoraCompat
    unit = "clips"
    formulas: ClassVar = {"objects": cross_entropy}
    numbers: DoraSettings
    compat: DoraCompat

    def make_network(self, model: Architecture) -> DoraNetwork:
        config = hub_network(model, self.name, target_network="ema", drop_path=self.numbers.drop_path)
        return DoraNetwork(config, self.numbers, self.compat)
