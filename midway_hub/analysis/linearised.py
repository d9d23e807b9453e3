"""The forward predictor's derivative at one point, made ready for very many directions.

`torch.func.jvp` runs the predictor anew for every direction. Here all that depends on the point alone is worked out
once. What a block does to a token by itself (gate, query, MLP with LayerNorm and residual) is composed into one D×D
matrix per token; only what passes between tokens, through their keys and values, is left to be done per direction.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.analysis._token_maps import GateMap, MlpMap, NormedLinear, NormMap, Scratch
from midway_hub.models.blocks import SelfAttentionBlock
from midway_hub.models.dynamics import DynamicsLevel

CACHED = 2**20
"""Values that a CPU's cache holds, about; elsewhere, sixty-four times as many are worked on at once."""


class LinearisedPredictor:
    """Tangents of a level's predicted tokens when one source token moves, motion held fixed.

    Args:
        level: The networks of the level.
        motion: (1, M, D), motion latents brought to the encoder's width.
        source: (1, 1+N, D), the source's backward features.
    """

    def __init__(self, level: DynamicsLevel, motion: Tensor, source: Tensor) -> None:
        self.num_motion = motion.shape[1]
        self.blocks: list[_Block] = []
        scratch = Scratch(source)
        entering = [torch.cat([motion, source], dim=1)[0]]
        for index, block in enumerate(level.predictor):
            gate = None
            if 0 < index <= len(level.gates):
                gate = GateMap(level.gates[index - 1], entering[-2], entering[-1], ungated=self.num_motion)
            self.blocks.append(_Block(block, entering[-1], gate, scratch, index=index))
            entering.append(self.blocks[-1].output)

    @staticmethod
    def matrix_bytes(level: DynamicsLevel, motion: Tensor, source: Tensor) -> int:
        """Return the memory that the matrices take."""
        count = 2 * len(level.predictor) - 1 + max(0, len(level.gates) - 1)
        return count * (motion.shape[1] + source.shape[1]) * source.shape[2] ** 2 * source.element_size()

    def push(self, tokens: Tensor, directions: Tensor) -> Tensor:
        """Move each of some source tokens in each of some directions, one at a time.

        What it returns lies in memory that the next call writes to.

        Args:
            tokens: (T,) int64; 0 is CLS.
            directions: (K, D).

        Returns:
            (T·K, 1+N, D), the tangents of all predicted tokens, token by token.
        """
        place = tokens + self.num_motion
        before, moved = None, self.blocks[0].push_one(place, directions)
        for index, block in enumerate(self.blocks[1:], start=1):
            before, moved = moved, block.push(moved, before)
            if index == 1:
                block.add_gate_of_one(moved, place, directions)
        return moved[:, self.num_motion :]


class _Block:
    """A predictor block at tokens (L, D): h = gate · x + attention(norm1(x)), then h + mlp(norm2(h)).

    Its derivative is own·dx + mixed·reach(dx) + gated·dx', all matrices per token, where dx' entered the block before
    (the gate reads that) and reach(dx) is what comes to a token through the keys and values of all. Of the first two
    blocks, what follows a single moving token by itself is not composed, as few directions need it.
    """

    def __init__(
        self, block: SelfAttentionBlock, tokens: Tensor, gate: GateMap | None, scratch: Scratch, *, index: int
    ) -> None:
        attention = block.attn
        self.scratch, self.out = scratch, f"moved {index % 3}"  # the next two blocks read what this one writes
        self.gate, self.norm = gate, NormMap(block.norm1, tokens)
        self.heads, self.qkv = attention.num_heads, attention.qkv.weight
        query, self.key, self.value = self._split(attention.qkv(block.norm1(tokens)), 3)
        self.query = query * attention.scale
        self.weights = (self.query @ self.key.mT).softmax(dim=-1)  # (heads, L, L)
        self.to_keys_values = NormedLinear(self.norm, self.qkv[tokens.shape[1] :], block.norm1.weight)
        self.arriving = self.weights * self.norm.inverse[:, 0]  # what the line above leaves out is left to these
        self.attended = self.weights @ self.value
        joined = attention.proj(self.attended.transpose(0, 1).flatten(1))
        after = (tokens if gate is None else gate.gate * tokens) + joined
        self.mlp = MlpMap(block.norm2, block.mlp, after)
        self.output = after + self.mlp.output
        cached = CACHED if tokens.device.type == "cpu" else 64 * CACHED
        self.tokens_at_once = max(1, cached // block.mlp.fc1.weight.numel())
        self.columns_at_once = max(1, cached // (2 * tokens.numel()))
        self.maps_at_once = max(1, cached // (4 * self.weights.numel()))
        self.query_slope = self._query_slope(attention.scale)
        self._compose(attention.proj.weight, own=index > 0, gated=gate is not None and index > 1)

    def _compose(self, join: Tensor, *, own: bool, gated: bool) -> None:
        """Work out the matrices, stored input by output."""
        length, dim = self.output.shape
        self.mixed = self.output.new_empty(length, dim, dim)
        self.own = torch.empty_like(self.mixed) if own else None
        self.gated = torch.empty_like(self.mixed) if gated else None
        to_query = self.qkv[:dim]
        join_heads = join.unflatten(1, (self.heads, -1)).transpose(0, 1)  # (heads, D, D / heads)
        for start in range(0, length, self.tokens_at_once):
            at = slice(start, start + self.tokens_at_once)
            after = self.mlp.matrices(at, self.scratch)
            after.diagonal(dim1=1, dim2=2).add_(1)
            torch.bmm(join.T.expand_as(after), after.mT, out=self.mixed[at])
            if self.own is not None:
                through_query = (join_heads @ self.query_slope[at]).transpose(1, 2).flatten(2) @ to_query
                matrix = self.norm.compose(through_query, at)
                matrix.diagonal(dim1=1, dim2=2).add_(1 if self.gate is None else self.gate.gate[at])
                torch.bmm(matrix.mT, after.mT, out=self.own[at])
            if self.gated is not None and self.gate is not None:
                torch.bmm(self.gate.matrices(at, self.scratch).mT, after.mT, out=self.gated[at])

    def _query_slope(self, scale: float) -> Tensor:
        """How what a token attends to follows its own query: covariances of value and key, (L, heads, d, d)."""
        key = self.key * scale
        outer = (self.value[..., :, None] * key[..., None, :]).flatten(2)
        second = (self.weights @ outer).unflatten(2, (self.value.shape[-1], -1))
        second.addcmul_(self.attended[..., :, None], (self.weights @ key)[..., None, :], value=-1)
        return second.transpose(0, 1)

    def push(self, moved: Tensor, before: Tensor | None) -> Tensor:
        """Map tangents (C, L, D); `before` are those that entered the block before."""
        columns, length, dim = moved.shape
        reached = self.scratch("reached", length, columns, dim).transpose(0, 1)
        for some, into in zip(moved.split(self.columns_at_once), reached.split(self.columns_at_once), strict=True):
            self._reach(some, into)
        pushed = torch.bmm(moved.transpose(0, 1), self.own, out=self.scratch(self.out, length, columns, dim))
        pushed.baddbmm_(reached.transpose(0, 1), self.mixed)
        if before is not None and self.gated is not None:
            pushed.baddbmm_(before.transpose(0, 1), self.gated)
        return pushed.transpose(0, 1)

    def push_one(self, place: Tensor, directions: Tensor) -> Tensor:
        """Map tangents that are `directions` (K, D) at one of the tokens `place` (T,), ungated, and zero elsewhere."""
        reached = self._reach_from_one(place, directions).transpose(0, 1)
        pushed = torch.bmm(reached, self.mixed, out=self.scratch(self.out, *reached.shape)).transpose(0, 1)
        _add_at(pushed, place, directions + self.mlp.push_at(place, directions))
        return pushed

    def add_gate_of_one(self, pushed: Tensor, place: Tensor, directions: Tensor) -> None:
        """Add what the gate makes of tangents that, before the block before, were `directions` at one token."""
        if self.gate is not None:
            moved = self.gate.push_at(place, directions)
            _add_at(pushed, place, moved + self.mlp.push_at(place, moved))

    def _split(self, joined: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(..., L, parts·D) to `parts` times (..., heads, L, D / heads)."""
        return joined.unflatten(-1, (parts, self.heads, -1)).movedim(-3, 0).transpose(-3, -2).unbind(0)

    def _reach(self, moved: Tensor, into: Tensor) -> None:
        """Write what comes to tokens when keys and values of all follow `moved` (c, L, D)."""
        keys, values = self._split(self.to_keys_values.push(moved), 2)
        by_head = into.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        parts = (each.split(self.maps_at_once) for each in (keys, values, by_head))
        for key, value, part in zip(*parts, strict=True):
            slope = self.query @ key.mT  # (c, heads, L, L)
            slope *= self.arriving
            mixed = slope @ self.value
            mixed.addcmul_(slope.sum(dim=-1, keepdim=True), self.attended, value=-1)
            part.copy_(mixed.add_(self.arriving @ value))

    def _reach_from_one(self, place: Tensor, directions: Tensor) -> Tensor:
        """What comes to tokens, (T·K, L, D), when query, key and value of one of the tokens `place` (T,) move."""
        qkv = F.linear(self.norm.push_at(place, directions), self.qkv)
        queries, keys, values = self._split(qkv, 3)  # each (T, heads, K, D / heads)
        length, dim = self.output.shape
        reached = self.scratch("reached", length, len(place) * len(directions), dim).transpose(0, 1)
        for one, key, value, into in zip(place, keys, values, reached.split(len(directions)), strict=True):
            weight = self.weights[:, :, one, None]  # (heads, L, 1)
            off = (self.value[:, one, None] - self.attended) * weight
            slope = key @ self.query.mT  # (heads, K, L)
            mixed = value[:, :, None] * weight[:, None]
            mixed.addcmul_(slope[..., None], off[:, None])
            into.unflatten(-1, (self.heads, -1)).copy_(mixed.permute(1, 2, 0, 3))
        own = (queries @ self.query_slope[place].mT).transpose(1, 2).flatten(2)
        _add_at(reached, place, own)
        return reached


def _add_at(pushed: Tensor, place: Tensor, moved: Tensor) -> None:
    """Add `moved` (T, K, D) to tangents (T·K, L, D) at the token that each belongs to."""
    columns = torch.arange(len(pushed), device=pushed.device)
    pushed[columns, place.repeat_interleave(moved.shape[1])] += moved.flatten(0, 1)
