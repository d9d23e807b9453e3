"""Derivatives, at given tokens, of what acts on each token by itself: LayerNorm, an MLP behind it, a gating unit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from midway_hub.analysis._forward_mode import forward_mode
from midway_hub.models.blocks import GatingUnit


class Scratch:
    """Memory by name that is used again and again: getting fresh memory costs more than some of the work done in it."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._kept: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Return a tensor of that shape, holding whatever was left there."""
        if name not in self._kept or self._kept[name].shape != shape:
            self._kept[name] = self._like.new_empty(shape)
        return self._kept[name]


class NormMap:
    """LayerNorm's derivative at tokens (L, D): take out the mean and the part along the token, then scale."""

    def __init__(self, norm: nn.LayerNorm, tokens: Tensor) -> None:
        spread, mean = torch.var_mean(tokens, dim=-1, keepdim=True, correction=0)
        self.inverse = (spread + norm.eps).rsqrt()
        self.normalised = (tokens - mean) * self.inverse
        self.scale = self.inverse * norm.weight

    def push_at(self, place: Tensor, moved: Tensor) -> Tensor:
        """Return the tangents after the norm of tangents (T, K, D), or (K, D) for all, of the tokens `place` (T,)."""
        normalised = self.normalised[place, None]
        along = (moved * normalised).mean(dim=-1, keepdim=True)
        centred = moved - moved.mean(dim=-1, keepdim=True)
        return centred.addcmul(normalised, along, value=-1).mul_(self.scale[place, None])

    def compose(self, matrix: Tensor, at: slice) -> Tensor:
        """Turn matrices (n, out, D) of the tokens `at` that take tangents after the norm into such for before it.

        Works in place: this is a large part of the preparation.
        """
        matrix *= self.scale[at, None]
        normalised = self.normalised[at, None]
        parts = torch.cat([matrix.mean(dim=2, keepdim=True), matrix @ normalised.mT / matrix.shape[2]], dim=2)
        return matrix.baddbmm_(parts, torch.cat([torch.ones_like(normalised), normalised], dim=1), alpha=-1)


class NormedLinear:
    """A linear layer behind a LayerNorm, made ready for the tangents of all tokens: the norm costs one pass.

    Args:
        norm: The norm's derivative.
        weight: (out, D), of the layer.
        gain: (D,), the norm's own weight.
    """

    def __init__(self, norm: NormMap, weight: Tensor, gain: Tensor) -> None:
        scaled = weight * gain
        self._normalised = norm.normalised
        self._weight = scaled - scaled.mean(dim=1, keepdim=True)  # takes the mean out of what comes in
        self._along = norm.normalised @ self._weight.T

    def push(self, moved: Tensor) -> Tensor:
        """Map tangents (c, L, D) before the norm to (c, L, out), short of the norm's `inverse`."""
        along = (moved * self._normalised).mean(dim=-1, keepdim=True)
        return F.linear(moved, self._weight).addcmul_(self._along, along, value=-1)


class MlpMap:
    """`mlp(norm(x))` at tokens (L, D), its `output` there, and its derivative."""

    def __init__(self, norm: nn.LayerNorm, mlp: Mlp, tokens: Tensor) -> None:
        self.norm, self.first, self.second = NormMap(norm, tokens), mlp.fc1.weight, mlp.fc2.weight
        hidden = mlp.fc1(norm(tokens))
        with forward_mode():
            activated, self.slope = torch.func.jvp(mlp.act, (hidden,), (torch.ones_like(hidden),))
        self.output = mlp.fc2(activated)

    def push_at(self, place: Tensor, moved: Tensor) -> Tensor:
        """Map tangents (T, K, D), or (K, D) for all, of the tokens `place` (T,) to tangents (T, K, D)."""
        hidden = F.linear(self.norm.push_at(place, moved), self.first)
        return F.linear(hidden * self.slope[place, None], self.second)

    def matrices(self, at: slice, scratch: Scratch) -> Tensor:
        """Return (n, D, D), output by input, of the tokens `at`."""
        slope = self.slope[at, None]
        sloped = torch.mul(self.second, slope, out=scratch("sloped", len(slope), *self.second.shape))
        return self.norm.compose(sloped @ self.first, at)


class GateMap:
    """gate · x at tokens x (L, D), and how it follows, through the gate, the tokens that the gating unit reads.

    Args:
        unit: The gating unit.
        read: (L, D), the tokens that it reads.
        gated: (L, D), the tokens that it gates.
        ungated: How many of the first tokens have gate 1: the motion tokens.
    """

    def __init__(self, unit: GatingUnit, read: Tensor, gated: Tensor, *, ungated: int) -> None:
        self.mlp = MlpMap(unit.norm, unit.mlp, read)
        self.gate = torch.sigmoid(self.mlp.output + unit.OPEN)
        self.gate[:ungated] = 1
        self.slope = gated * self.gate * (1 - self.gate)

    def push_at(self, place: Tensor, moved: Tensor) -> Tensor:
        """Map tangents (K, D) of what is read, at each of the tokens `place` (T,), to tangents (T, K, D)."""
        return self.mlp.push_at(place, moved) * self.slope[place, None]

    def matrices(self, at: slice, scratch: Scratch) -> Tensor:
        """Return (n, D, D), output by input, of the tokens `at`."""
        return self.mlp.matrices(at, scratch).mul_(self.slope[at, :, None])
