"""DynaMo: an inverse and a forward model of one token per frame (Cui et al., NeurIPS 2024), in two forms.

`dynamo` is what Midway is compared with: a ViT with the two-frame DINO objective and latent dynamics between global
tokens. Its exact layout is not published; sizes are derived from the reported 13.0 M parameters and 68.9 GMAC.
`dynamo_window` is the original on windows of frames, without DINO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.optim import Optimizer

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.training.data.needs import Crops, Frames, Needs, Views, ViewSize
from midway_hub.training.data.views.settings import ViewSettings
from midway_hub.training.engine.protocol import StepOutput
from midway_hub.training.losses import at_least_float32, dino_loss, exactly
from midway_hub.training.methods.base import Architecture, HubMethod, hub_network
from midway_hub.training.methods.causal import CausalTransformer
from midway_hub.training.methods.dino import Dino, DinoNetwork, DinoSettings
from midway_hub.training.methods.optimisation import AdamWSettings, TeacherSettings
from midway_hub.training.methods.registry import register
from midway_hub.training.settings import Settings

Token = Literal["cls", "pooled"]


class TransformerSettings(Settings):
    """Sizes of a causal transformer."""

    depth: int = Field(6, ge=1)
    """Blocks."""

    dim: int = Field(384, ge=1)
    """Width."""

    heads: int = Field(6, ge=1)
    """Attention heads."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> TransformerSettings:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        return self


class DynamoSettings(DinoSettings):
    """Numbers of the modified DynaMo."""

    name: str = "dynamo"

    dynamics_weight: float = Field(1.0, gt=0)
    """Weight of the prediction loss."""

    covariance_weight: float = Field(0.0, ge=0)
    """Weight of the covariance term; the original has 0.04 and no DINO objective that keeps features apart."""

    token: Token = "cls"
    """What stands for a frame: its CLS token, or the mean of its patches."""

    num_latents: int = Field(10, ge=1)
    """Motion latents, as many as Midway has."""

    latent_dim: int = Field(192, ge=1)
    """Width of a latent."""

    inverse: TransformerSettings = TransformerSettings(depth=4, dim=192, heads=3)
    """The inverse model."""

    forward_model: TransformerSettings = TransformerSettings(depth=6, dim=384, heads=6)
    """The forward model."""


class TokenDynamics(nn.Module):
    """Latents of the motion from one frame's token to another's, and the other token predicted from them.

    Args:
        width: Width of a token.
        settings: Sizes.
    """

    def __init__(self, width: int, settings: DynamoSettings) -> None:
        super().__init__()
        count, latent = settings.num_latents, settings.latent_dim
        self.queries = nn.Parameter(0.02 * torch.randn(1, count, width))
        self.inverse = _transformer(width, latent, settings.inverse, length=2 + count)
        self.latent_embed = nn.Linear(latent, width)
        self.forward_model = _transformer(width, width, settings.forward_model, length=1 + count)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Map tokens (B, D) of source and target to the predicted target (B, D)."""
        frames = torch.stack([source, target], dim=1)
        sequence = torch.cat([frames, self.queries.expand(len(source), -1, -1)], dim=1)
        latents = self.inverse(sequence)[:, 2:]
        return self.forward_model(torch.cat([self.latent_embed(latents), source[:, None]], dim=1))[:, -1]


class DynamoNetwork(DinoNetwork):
    """What DINO trains, and the dynamics between global tokens of the dense crops."""

    settings: DynamoSettings

    def __init__(self, config: MidwayConfig, settings: DynamoSettings) -> None:
        super().__init__(config, settings)
        self.dynamics = TokenDynamics(config.embed_dim, settings)

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Compare the views of a micro-batch, and predict either frame's token from the other's.

        Args:
            batch: `globals` and `locals` as for DINO, and `dense` (B, 2, 3, H, W), the same crop of both frames.

        Returns:
            The losses `dino`, `dynamics` and, if it has a weight, `covariance`. As diagnostics those of DINO and
            `copy_error`, the loss of predicting that nothing changes.
        """
        output, settings = super().forward(batch), self.settings
        frames, last = batch["dense"].flatten(0, 1), (self.model.config.depth - 1,)
        seen = frame_token(self.model.student.tokens(frames, last)[0], settings.token).unflatten(0, (-1, 2))
        with torch.no_grad():
            wanted = frame_token(self.model.teacher.tokens(frames, last)[0], settings.token).unflatten(0, (-1, 2))
        source, target, aim = (both.flatten(0, 1) for both in (seen, seen.flip(1), wanted.flip(1)))
        loss = token_loss(self.dynamics(source, target), aim)
        output.losses["dynamics"] = settings.dynamics_weight * loss
        if settings.covariance_weight:
            output.losses["covariance"] = settings.covariance_weight * covariance_loss(source)
        output.diagnostics["copy_error"] = token_loss(wanted.flatten(0, 1), aim)
        return output


class DynamoWindowViews(Views):
    """Whole frames of a window, at one size."""

    frames: int = Field(5, ge=2, le=8)
    """Frames of a window: 2 on Kitchen, 5 on LIBERO, Block-push and Push-T."""

    size: ViewSize = 224
    """Side of the largest centred square of a frame, in pixels of the view."""

    def needs(self) -> Needs:
        """Return the group `frames`, without augmentation."""
        whole = Crops((self.size, self.size), area=(1.0, 1.0), aspect=(1.0, 1.0), same_box=True)
        return Needs(Frames("window", self.frames), {"frames": whole})


class DynamoWindowSettings(AdamWSettings, TeacherSettings):
    """Numbers of the original DynaMo."""

    lr_rule: ClassVar = "absolute"
    clips: ClassVar = "owner"

    name: str = "dynamo_window"

    base_lr: float = Field(1e-4, gt=0)
    """Peak learning rate; that of the forward model stays there."""

    min_lr: float = Field(0.0, ge=0)
    """Learning rate of encoder and inverse model at the end of the run."""

    warmup_epochs: int | float = Field(5, ge=0)
    """Epochs in which the learning rate rises from 0 to its peak; at most the whole run."""

    weight_decay: float = Field(0.0, ge=0)
    """Weight decay; 1e-6 on Push-T."""

    clip: float | None = Field(0.1, gt=0)
    """Largest norm of the gradient of encoder, inverse and forward model, each on its own; null does not clip."""

    teacher_momentum: float = Field(0.99, ge=0, le=1)
    """Share of itself that a target of `ema` keeps in a step, at the start; a cosine leads to 1."""

    target: Literal["stop_gradient", "ema"] = "stop_gradient"
    """What is predicted: the encoder's own embedding without gradient, as in SimSiam, or that of its moving average."""

    token: Token = "cls"
    """What stands for a frame: its CLS token, or the mean of its patches (the original pools a ResNet-18)."""

    covariance_weight: float = Field(0.04, ge=0)
    """Weight of the covariance term."""

    latent_dim: int = Field(64, ge=1)
    """Width of the latent of a transition: 64 (Kitchen), 32 (LIBERO), 16 (Block-push), 8 (Push-T)."""

    inverse: TransformerSettings = TransformerSettings(depth=6, dim=120, heads=6)
    """The inverse model."""

    forward_model: TransformerSettings = TransformerSettings(depth=6, dim=120, heads=6)
    """The forward model."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of the forward model; 0.3 on Block-push."""


class DynamoWindowNetwork(nn.Module):
    """An encoder, an inverse and a forward model over a window of frames.

    Args:
        config: Architecture of the encoder.
        settings: The method's numbers.
        frames: Frames of a window.
    """

    def __init__(self, config: MidwayConfig, settings: DynamoWindowSettings, frames: int) -> None:
        super().__init__()
        self.settings = settings
        self.model = MidwayNetwork(config)
        width, latent = config.embed_dim, settings.latent_dim
        self.inverse = _transformer(width, latent, settings.inverse, length=frames)
        self.forward_model = _transformer(
            width + latent, width, settings.forward_model, length=frames - 1, dropout=settings.dropout
        )

    def follows(self) -> dict[nn.Module, nn.Module]:
        """Map every moving average to the module that it follows; none with `target=stop_gradient`."""
        return {**self.model.target_side()} if self.settings.target == "ema" else {}

    @staticmethod
    def owner(name: str) -> str:
        """Return whose gradients are clipped together: `student`, `inverse` or `forward_model`."""
        first = name.split(".")[0]
        return first if first in ("inverse", "forward_model") else "student"

    def forward(self, batch: Mapping[str, Tensor]) -> StepOutput:
        """Predict every frame's token from those before it and the latent of the transition.

        Args:
            batch: `frames` (B, T, 3, H, W), whole frames.

        Returns:
            The losses `dynamics` and `covariance`; as a diagnostic `copy_error`, that of predicting no change.
        """
        frames, settings = batch["frames"], self.settings
        flat, last = frames.flatten(0, 1), (self.model.config.depth - 1,)
        seen = frame_token(self.model.student.tokens(flat, last)[0], settings.token).unflatten(0, frames.shape[:2])
        with torch.no_grad():
            wanted = seen.detach()
            if settings.target == "ema":
                tokens = self.model.teacher.tokens(flat, last)[0]
                wanted = frame_token(tokens, settings.token).unflatten(0, frames.shape[:2])
        latents = self.inverse(seen)[:, 1:]
        predicted = self.forward_model(torch.cat([seen[:, :-1], latents], dim=-1))
        losses = {
            "dynamics": token_loss(predicted, wanted[:, 1:]),
            "covariance": settings.covariance_weight * covariance_loss(seen.flatten(0, 1)),
        }
        return StepOutput(losses, {"copy_error": token_loss(wanted[:, :-1], wanted[:, 1:])})


def frame_token(tokens: Tensor, which: Token) -> Tensor:
    """Return what stands for a frame, (B, D), of its tokens (B, 1+N, D)."""
    return tokens[:, 0] if which == "cls" else tokens[:, 1:].mean(dim=1)


def token_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 − cos over tokens (..., D) (DynaMo, equation 2); between 0 and 2."""
    cosine = F.cosine_similarity(at_least_float32(predicted), at_least_float32(target), dim=-1)
    return (1 - cosine).mean()


def covariance_loss(embeddings: Tensor) -> Tensor:
    """Mean squared covariance of two different numbers of embeddings (n, D) (DynaMo, eq. 3; Bardes et al. 2022)."""
    values = at_least_float32(embeddings)
    centred = values - values.mean(dim=0)
    with exactly(values):
        covariance = centred.mT @ centred / max(1, len(values) - 1)
    off = covariance - torch.diag(covariance.diagonal())
    width = values.shape[1]
    return off.square().sum() / max(1, width * (width - 1))


def _transformer(
    inputs: int, outputs: int, sizes: TransformerSettings, *, length: int, dropout: float = 0.0
) -> CausalTransformer:
    return CausalTransformer(
        inputs, outputs, dim=sizes.dim, depth=sizes.depth, heads=sizes.heads, length=length, dropout=dropout
    )


@register
class Dynamo(Dino):
    """Two-frame DINO with latent dynamics of one token per frame: DynaMo as Midway is compared with it."""

    name = "dynamo"
    settings = DynamoSettings
    views = ViewSettings
    formulas: ClassVar = {"dino": dino_loss, "dynamics": token_loss, "covariance": covariance_loss}
    numbers: DynamoSettings

    def make_network(self, model: Architecture) -> DynamoNetwork:
        return DynamoNetwork(self._config(model), self.numbers)


@register
class DynamoWindow(HubMethod):
    """DynaMo itself: inverse and forward model over windows of whole frames."""

    name = "dynamo_window"
    settings = DynamoWindowSettings
    views = DynamoWindowViews
    unit = "clips"
    formulas: ClassVar = {"dynamics": token_loss, "covariance": covariance_loss}
    numbers: DynamoWindowSettings
    chosen_views: DynamoWindowViews

    def make_network(self, model: Architecture) -> DynamoWindowNetwork:
        target = "ema" if self.numbers.target == "ema" else "shared"
        config = hub_network(model, self.name, target_network=target)
        return DynamoWindowNetwork(config, self.numbers, self.chosen_views.frames)

    def schedule(self, optimizer: Optimizer, step: int) -> dict[str, float]:
        values = super().schedule(optimizer, step)
        for group in optimizer.param_groups:
            if group["name"].startswith("forward_model"):
                group["lr"] = self.peak_learning_rate
        return values
