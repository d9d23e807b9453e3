"""What the authors call the tensors of a checkpoint, what we call them, and which shapes they have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from midway_hub.config import MidwayConfig

LEVELS = (2, 5, 8)  # encoder block that the authors' prediction level 0, 1, 2 stands for
TENSOR_ENTRIES = ("student", "teacher", "motion_loss")
TRAINING_STATE = {
    "args": "training recipe; the head counts were read from it",
    "dino_loss": "centre of the DINO loss, used in pretraining only",
    "epoch": "training state",
    "fp16_scaler": "training state",
    "optimizer": "training state",
}
_DINO_HEAD = re.compile(r"dino_head\.(mlp\.[024]\.(weight|bias)|last_layer\.weight_[gv])")
_DINO_HEAD_REASON = "DINO projection head, used in pretraining only"
_SHARED_BY_LEVELS = {
    "pos_embed": "position_embedding",
    "motion_tokens": "motion_tokens",
    "student_embed": "source_embed",
    "teacher_embed": "target_embed",
    "motion_proj": "motion_proj",
}
_PER_LEVEL = {
    "student_feature_blocks": "backward",
    "teacher_feature_blocks": "backward_ema",
    "motion_blocks": "midway",
    "forward_predictor": "predictor",
    "gating_mlps": "gates",
}
_LEVEL_KEY = re.compile(rf"({'|'.join(_PER_LEVEL)})_([0-9])\.(.+)")

Shape = tuple[int, ...]


def our_name(entry: str, key: str, *, shared: bool) -> str | None:
    """Translate the authors' name of a tensor.

    Args:
        entry: The entry of the checkpoint that holds it: `student`, `teacher` or `motion_loss`.
        key: Its name there, without `module.`.
        shared: Whether the checkpoint holds the teacher alone; the one encoder of a network is called `student`.

    Returns:
        Our name for it, or None if it has none. Whether a model has a tensor of that name is `expected_shapes`' matter.
    """
    if entry != "motion_loss":
        network = "student" if shared else entry
        return f"{network}.{key.removeprefix('backbone.')}" if key.startswith("backbone.") else None
    first, dot, rest = key.partition(".")
    if first in _SHARED_BY_LEVELS:
        return f"dynamics.{_SHARED_BY_LEVELS[first]}{dot}{rest}"
    match = _LEVEL_KEY.fullmatch(key)
    if match is None or int(match[2]) >= len(LEVELS):
        return None
    room, rest = _PER_LEVEL[match[1]], match[3]
    if room == "gates":
        rest = rest.replace(".norm_layer.", ".norm.")
    return f"dynamics.levels.{LEVELS[int(match[2])]}.{room}.{rest}"


def their_name(name: str, *, shared: bool) -> str:
    """Translate our name of a tensor to the authors', without `module.`; the inverse of `our_name`.

    Args:
        name: Our name.
        shared: Whether the checkpoint holds the teacher alone.

    Returns:
        The entry of the checkpoint, a dot, and the authors' name.
    """
    network, _, rest = name.partition(".")
    if network != "dynamics":
        return f"{'teacher' if shared else network}.backbone.{rest}"
    for theirs, ours in _SHARED_BY_LEVELS.items():
        if rest == ours or rest.startswith(f"{ours}."):
            return f"motion_loss.{theirs}{rest.removeprefix(ours)}"
    _, block, room, rest = rest.split(".", 3)
    first = next(theirs for theirs, ours in _PER_LEVEL.items() if ours == room)
    if room == "gates":
        rest = rest.replace(".norm.", ".norm_layer.")
    return f"motion_loss.{first}_{LEVELS.index(int(block))}.{rest}"


def reason_to_drop(entry: str, key: str) -> str | None:
    """Say why a tensor is left out of a converted checkpoint on purpose.

    Args:
        entry: The entry of the checkpoint that holds it: `student`, `teacher` or `motion_loss`.
        key: Its name there, without `module.`.

    Returns:
        The reason, or None if it is not one of those that are left out.
    """
    return _DINO_HEAD_REASON if entry != "motion_loss" and _DINO_HEAD.fullmatch(key) else None


def expected_shapes(config: MidwayConfig) -> dict[str, Shape]:
    """List every tensor of a Midway Network.

    Args:
        config: The architecture.

    Returns:
        Shape by our name. With `target_network="shared"` the one encoder is called `student`.
    """
    networks = ("student", "teacher") if config.target_network == "ema" else ("student",)
    shapes = {f"{network}.{name}": shape for network in networks for name, shape in _encoder(config)}
    if config.dynamics:
        shapes |= {f"dynamics.{name}": shape for name, shape in _dynamics(config)}
    return shapes


def is_trained(name: str) -> bool:
    """Whether a tensor of the dynamics gets gradients; the others follow trained ones as moving averages."""
    return not name.startswith("dynamics.target_embed.") and ".backward_ema." not in name


def _encoder(config: MidwayConfig) -> Iterator[tuple[str, Shape]]:
    width, patch = config.embed_dim, config.patch_size
    yield "cls_token", (1, 1, width)
    yield "pos_embed", (1, 1 + config.grid_size**2, width)
    yield "patch_embed.proj.weight", (width, config.num_channels, patch, patch)
    yield "patch_embed.proj.bias", (width,)
    for index in range(config.depth):
        yield from _self_block(f"blocks.{index}", width, _hidden(config, width), qkv_bias=True)
    yield from _norm("norm", width)


def _dynamics(config: MidwayConfig) -> Iterator[tuple[str, Shape]]:
    width, motion = config.embed_dim, config.motion_dim
    yield "position_embedding", (1, 2 * (1 + config.grid_size**2), motion)
    yield "motion_tokens", (1, config.num_motion_tokens, motion)
    yield from _linear("source_embed", width, motion)
    yield from _linear("target_embed", width, motion)
    yield from _linear("motion_proj", motion, width)
    for block in config.levels:
        level = f"levels.{block}"
        for index in range(config.midway_depth):
            yield from _self_block(f"{level}.midway.{index}", motion, _hidden(config, motion), qkv_bias=False)
        for index in range(config.predictor_depth):
            yield from _self_block(f"{level}.predictor.{index}", width, _hidden(config, width), qkv_bias=False)
        for room in ("backward", "backward_ema"):
            yield from _cross_block(f"{level}.{room}.0", width, _hidden(config, width))
        for index in range(config.predictor_depth - 1):
            yield from _norm(f"{level}.gates.{index}.norm", width)
            yield from _mlp(f"{level}.gates.{index}.mlp", width, width)


def _hidden(config: MidwayConfig, width: int) -> int:
    return int(width * config.mlp_ratio)


def _self_block(name: str, width: int, hidden: int, *, qkv_bias: bool) -> Iterator[tuple[str, Shape]]:
    yield from _norm(f"{name}.norm1", width)
    yield from _linear(f"{name}.attn.qkv", width, 3 * width, bias=qkv_bias)
    yield from _linear(f"{name}.attn.proj", width, width)
    yield from _norm(f"{name}.norm2", width)
    yield from _mlp(f"{name}.mlp", width, hidden)


def _cross_block(name: str, width: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    for norm in ("norm1", "norm2", "norm_y", "norm3"):
        yield from _norm(f"{name}.{norm}", width)
    yield from _linear(f"{name}.attn.qkv", width, 3 * width, bias=False)
    yield from _linear(f"{name}.attn.proj", width, width)
    for projection in ("projq", "projk", "projv"):
        yield from _linear(f"{name}.cross_attn.{projection}", width, width, bias=False)
    yield from _linear(f"{name}.cross_attn.proj", width, width)
    yield from _mlp(f"{name}.mlp", width, hidden)


def _mlp(name: str, width: int, hidden: int) -> Iterator[tuple[str, Shape]]:
    yield from _linear(f"{name}.fc1", width, hidden)
    yield from _linear(f"{name}.fc2", hidden, width)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)
