"""Which architecture a checkpoint of the authors holds: widths from its tensors, head counts from its recipe."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from midway_hub.config import MidwayConfig
from midway_hub.convert.authors_layout import LEVELS, Shape, their_name
from midway_hub.convert.records import ConversionError, Global, printable, unwrap
from midway_hub.sizes import count_blocks

logger = logging.getLogger("midway_hub")

# Of the released recipes: number, and the recipe's name for it.
_DYNAMICS_HEADS = {
    "midway_heads": (3, "num_motion_heads"),
    "backward_heads": (6, "num_feature_heads"),
    "predictor_heads": (6, "num_pred_heads"),
}
_HEADS_BY_ARCH = {"vit_small": 6, "vit_base": 12}
_HEADS_BY_WIDTH = {384: 6, 768: 12}


def read_architecture(shapes: Mapping[str, Shape], args: Any, *, shared: bool) -> tuple[MidwayConfig, dict[str, str]]:
    """Read the architecture from the shapes of the tensors and from the training recipe.

    Only as many shapes are read as say each number once; that all others agree is for the caller to check.

    Args:
        shapes: Shape of every tensor by our name.
        args: The recipe as `load_data` returns it, or None.
        shared: Whether the checkpoint holds one encoder alone, without dynamics.

    Returns:
        The configuration, and for each head count in it a sentence that says where it comes from.

    Raises:
        ConversionError: A tensor that says a number is missing or has an impossible shape, or no number of heads can
            be told.
    """

    def shape_of(name: str, dimensions: int) -> Shape:
        return _checked(shapes.get(name), their_name(name, shared=shared), dimensions)

    width = shape_of("student.cls_token", 3)[2]
    tokens = shape_of("student.pos_embed", 3)[1]
    _, channels, patch, _ = shape_of("student.patch_embed.proj.weight", 4)
    hidden = shape_of("student.blocks.0.mlp.fc1.weight", 2)[0]
    grid = math.isqrt(tokens - 1)
    if grid < 1 or grid**2 != tokens - 1:
        raise ConversionError(f"the position embedding has {tokens} positions; wanted the square of a number, plus 1")
    numbers: dict[str, Any] = {
        "embed_dim": width,
        "depth": _count(shapes, r"student\.blocks\."),
        "patch_size": patch,
        "image_size": grid * patch,
        "num_channels": channels,
        "mlp_ratio": hidden / width,
        "levels": sorted(LEVELS, reverse=True),
        "dynamics": not shared,
        "target_network": "shared" if shared else "ema",
    }
    if not shared:
        _, numbers["num_motion_tokens"], numbers["motion_dim"] = shape_of("dynamics.motion_tokens", 3)
        numbers["midway_depth"] = _count(shapes, r"dynamics\.levels\.\d+\.midway\.")
        numbers["predictor_depth"] = _count(shapes, r"dynamics\.levels\.\d+\.predictor\.")
    heads, provenance = _heads(args, width, dynamics=not shared)
    try:
        return MidwayConfig(**{**numbers, **heads}), provenance
    except ValueError as error:
        raise ConversionError(f"the tensors and the recipe describe no Midway Network: {error}") from error


def _checked(shape: Shape | None, name: str, dimensions: int) -> Shape:
    if shape is None:
        raise ConversionError(f"{name} is missing; the architecture is read from its shape")
    if len(shape) != dimensions or 0 in shape:
        raise ConversionError(f"{name} has shape {shape}; wanted {dimensions} dimensions, none of them 0")
    return shape


def _count(shapes: Mapping[str, Shape], prefix: str) -> int:
    """Number of blocks: one more than the highest number after `prefix`."""
    count = max(1, count_blocks(shapes, prefix))
    if count > len(shapes):
        raise ConversionError(f"block numbers go up to {count - 1}, more than the {len(shapes)} tensors can stand for")
    return count


def _heads(args: Any, width: int, *, dynamics: bool) -> tuple[dict[str, int], dict[str, str]]:
    recipe = _mapping(args)
    heads, provenance = {}, {}
    heads["num_heads"], provenance["num_heads"] = _encoder_heads(unwrap(recipe.get("arch")), width)
    if dynamics:
        configs = _mapping(recipe.get("midway_model_configs"))
        for name, (default, key) in _DYNAMICS_HEADS.items():
            heads[name], provenance[name] = _recipe_heads(unwrap(configs.get(key)), key, default)
    return heads, provenance


def _mapping(value: Any) -> Mapping[Any, Any]:
    content = unwrap(value)
    return content if isinstance(content, dict) else {}


def _recipe_heads(value: Any, key: str, default: int) -> tuple[int, str]:
    where = f"args.midway_model_configs.{key}"
    if type(value) is int and 1 <= value <= 1024:
        return value, where
    interpolated = isinstance(value, str) and value.startswith("${")
    if value is not None and not interpolated:
        raise ConversionError(f"{where} is {_describe(value)}; wanted a whole number of heads from 1 to 1024")
    seen = f"is {_describe(value)}" if interpolated else "is not in the file"
    logger.info("%s %s: taking %d heads, as in the released recipes", where, seen, default)
    return default, f"default of the released recipes; {where} {seen}"


def _encoder_heads(arch: Any, width: int) -> tuple[int, str]:
    by_arch = _HEADS_BY_ARCH.get(arch) if isinstance(arch, str) else None
    by_width = _HEADS_BY_WIDTH.get(width)
    if by_arch and by_width and by_arch != by_width:
        raise ConversionError(
            f"args.arch is {arch!r} ({by_arch} heads), but the encoder has the width {width} of another"
        )
    if by_arch:
        return by_arch, f"args.arch = {arch!r}"
    seen = "is not in the file" if arch is None else f"is {_describe(arch)}"
    if by_width is None:
        raise ConversionError(
            f"the number of encoder heads cannot be told: args.arch {seen} and the width is {width}; wanted args.arch "
            f"to be one of {', '.join(_HEADS_BY_ARCH)}, or a width of {' or '.join(map(str, _HEADS_BY_WIDTH))}"
        )
    return by_width, f"by the encoder's width {width}; args.arch {seen}"


def _describe(value: Any) -> str:
    if isinstance(value, str | int | float | Global):
        return repr(printable(value))
    return f"a {type(value).__name__}"
