"""What a configuration asks for, against the shapes of the weights: wrong numbers are found before memory is taken."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from midway_hub._messages import shown
from midway_hub.config import MidwayConfig
from midway_hub.heads import CorrelationHeadConfig, FlowHeadConfig, SegmentationHeadConfig

Shape = tuple[int, ...]


def contradictions(
    config: MidwayConfig, shapes: Mapping[str, Shape], *, encoder_alone: bool = False, strict: bool = True
) -> list[str]:
    """Compare every number that decides how much memory a network takes with the weights that are to fill it.

    Args:
        config: What is asked for.
        shapes: Shape of every tensor that there is, by its name.
        encoder_alone: Whether the encoder that plain features come from is all that is built.
        strict: Whether every part has to be there; otherwise only sides of tensors that are there are compared.

    Returns:
        A sentence for each contradiction: the number's name, what the configuration says, and what the weights hold.
    """
    encoder = "teacher" if encoder_alone and config.target_network == "ema" else "student"
    sides, blocks = list(_encoder_sides(config, encoder)), {"depth": (config.depth, rf"{encoder}\.blocks\.")}
    if config.dynamics and not encoder_alone:
        sides += _dynamics_sides(config)
        blocks["midway_depth"] = (config.midway_depth, r"dynamics\.levels\.\d+\.midway\.")
        blocks["predictor_depth"] = (config.predictor_depth, r"dynamics\.levels\.\d+\.predictor\.")
    if not encoder_alone:
        sides += [*_flow_sides(config), *_segmentation_sides(config)]
    found = [_side(*side, shapes, strict=strict) for side in sides]
    if strict:
        found += [_blocks(name, said, prefix, shapes) for name, (said, prefix) in blocks.items()]
        found += [] if encoder_alone or not config.dynamics else [_levels(config, shapes)]
    return list(filter(None, found))


def count_blocks(names: Iterable[str], prefix: str) -> int:
    """Count blocks by the names of their tensors: one more than the highest number after `prefix`, 0 if there is none.

    Args:
        names: Names of tensors.
        prefix: Regular expression of what stands before the number.
    """
    return max(_numbers(names, prefix), default=-1) + 1


def _numbers(names: Iterable[str], prefix: str) -> set[int]:
    return {int(match[1]) for match in map(re.compile(prefix + r"(\d{1,9})\.").match, names) if match}


# Each side: a number's name, its value, the tensor that tells it, the axis, and how long that axis has to be.
_Side = tuple[str, Any, str, int, int]


def _encoder_sides(config: MidwayConfig, encoder: str) -> Iterator[_Side]:
    yield "embed_dim", config.embed_dim, f"{encoder}.cls_token", 2, config.embed_dim
    yield "num_channels", config.num_channels, f"{encoder}.patch_embed.proj.weight", 1, config.num_channels
    yield "patch_size", config.patch_size, f"{encoder}.patch_embed.proj.weight", 2, config.patch_size
    if config.positions == "learned":
        yield "image_size", config.image_size, f"{encoder}.pos_embed", 1, 1 + config.grid_size**2
    hidden = int(config.embed_dim * config.mlp_ratio)
    yield "mlp_ratio", config.mlp_ratio, f"{encoder}.blocks.0.mlp.fc1.weight", 0, hidden


def _dynamics_sides(config: MidwayConfig) -> Iterator[_Side]:
    yield "num_motion_tokens", config.num_motion_tokens, "dynamics.motion_tokens", 1, config.num_motion_tokens
    yield "motion_dim", config.motion_dim, "dynamics.motion_tokens", 2, config.motion_dim


def _flow_sides(config: MidwayConfig) -> Iterator[_Side]:
    if config.flow_head is not None:
        head = FlowHeadConfig.of(config.flow_head)
        if head.kind == "correlation":
            yield from _correlation_sides(head, config)
            return
        for index, dim in enumerate(head.layer_dims):
            yield f"flow_head.layer_dims[{index}]", dim, f"flow_head.dpt.reassemble.{index}.0.weight", 0, dim
        yield "flow_head.feature_dim", head.feature_dim, "flow_head.dpt.output.reduce.weight", 1, head.feature_dim
        yield "flow_head.last_dim", head.last_dim, "flow_head.dpt.output.project.weight", 1, head.last_dim


def _correlation_sides(head: CorrelationHeadConfig, config: MidwayConfig) -> Iterator[_Side]:
    for index, (dim, part) in enumerate(zip(head.pyramid_dims, ("at_half", "at_quarter", "at_eighth"), strict=True)):
        yield f"flow_head.pyramid_dims[{index}]", dim, f"flow_head.pyramid.{part}.0.weight", 0, dim
    state = head.hidden_dim + head.context_dim
    windows = head.levels * (2 * head.radius + 1) ** 2
    yield "flow_head.match_dim", head.match_dim, "flow_head.match.weight", 0, head.match_dim
    yield "flow_head.hidden_dim", head.hidden_dim, "flow_head.update.candidate.weight", 0, head.hidden_dim
    yield "flow_head.context_dim", head.context_dim, "flow_head.context.weight", 0, state
    yield "flow_head.motion_dim", head.motion_dim, "flow_head.update.motion.weight", 0, head.motion_dim - 2
    yield "flow_head.levels and radius", f"{head.levels}, {head.radius}", _WINDOWS, 1, windows
    yield "flow_head.refine_dim", head.refine_dim, "flow_head.refine.join.weight", 0, head.refine_dim
    compared = 64 + (2 * head.refine_radius + 1) ** 2 + 3
    yield "flow_head.refine_radius", head.refine_radius, "flow_head.refine.join.weight", 1, compared
    if head.dynamics:
        yield "flow_head.dynamics", "true", "flow_head.context_motion.weight", 1, 2 * config.embed_dim


_WINDOWS = "flow_head.update.correlation1.weight"


def _segmentation_sides(config: MidwayConfig) -> Iterator[_Side]:
    if config.segmentation_head is not None:
        head = SegmentationHeadConfig.of(config.segmentation_head)
        classifier = "segmentation_head.decoder.classifier.weight"
        yield "segmentation_head.classes", f"{len(head.classes)} classes", classifier, 0, len(head.classes)
        if head.name == "linear":
            read = len(head.layers) * config.embed_dim
            yield "segmentation_head.layers", f"{len(head.layers)} layers", classifier, 1, read
        else:
            yield "segmentation_head.channels", head.channels, classifier, 1, head.channels
            scales, bottleneck = len(head.pool_scales), "segmentation_head.decoder.bottleneck.conv.weight"
            read = config.embed_dim + scales * head.channels
            yield "segmentation_head.pool_scales", f"{scales} scales", bottleneck, 1, read


def _side(
    name: str, said: Any, tensor: str, axis: int, wanted: int, shapes: Mapping[str, Shape], *, strict: bool
) -> str | None:
    shape = shapes.get(tensor)
    if shape is None:
        return f"{name} is {said}, and the file has no {tensor}" if strict else None
    if len(shape) > axis and shape[axis] == wanted:
        return None
    return f"{name} is {said}, which makes {tensor} {wanted} long on axis {axis}; in the file it is {shape}"


def _blocks(name: str, said: int, prefix: str, shapes: Mapping[str, Shape]) -> str | None:
    held = count_blocks(shapes, prefix)
    if held == said:
        return None
    return f"{name} is {said}; the file has {held} blocks {re.sub(r'.d[+]', '*', prefix).replace(chr(92), '')}*"


def _levels(config: MidwayConfig, shapes: Mapping[str, Shape]) -> str | None:
    held = sorted(_numbers(shapes, r"dynamics\.levels\."), reverse=True)
    return None if held == config.levels else f"levels are {shown(config.levels)}; the file has levels {shown(held)}"


__all__ = ["contradictions", "count_blocks"]
