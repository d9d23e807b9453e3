"""Every architecture number of a Midway Network, documented and validated."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

from midway_hub import registry
from midway_hub._messages import shown
from midway_hub.heads import CorrelationHeadConfig, FlowHeadConfig, PairDecoderConfig, SegmentationHeadConfig

TARGET_NETWORKS = ("ema", "shared")
POSITIONS = ("learned", "rope")
SWITCHES = ("dynamics", "backward", "refinement", "gating")
LARGEST = {
    **dict.fromkeys(("image_size", "embed_dim", "num_motion_tokens", "motion_dim"), 16_384),
    **dict.fromkeys(("patch_size", "num_channels", "depth", "num_heads", "midway_depth", "midway_heads"), 1024),
    **dict.fromkeys(("backward_heads", "predictor_depth", "predictor_heads"), 1024),
}
"""The largest that each count may be: beyond any network, and short of what takes minutes or all memory to build."""

LARGEST_RATIO = 64
MOST_REGISTERS = 1024
MOST_LABELS = 65_536
PRECISIONS = ("float32", "float16", "bfloat16", "float64")


class MidwayConfig(BackboneConfigMixin, PreTrainedConfig):
    """Architecture of a Midway Network. The defaults are the ViT-S of the paper.

    Args:
        image_size: Side in pixels of the square frames whose patch grid the position embeddings are stored for.
        patch_size: Side of a patch in pixels.
        num_channels: Colour channels of a frame.
        embed_dim: Width D of the encoder, of the backward layers and of the forward predictors.
        depth: Number of encoder blocks.
        num_heads: Attention heads of an encoder block.
        positions: `"learned"` embeddings of the places on the grid, or `"rope"`: heads turn by place (CroCo v2), and
            any grid is as good as any other.
        num_registers: Register tokens that patches can use as memory (T-CoRe, after Darcet et al. 2024); features do
            not show them.
        layer_scale: What the residuals of encoder blocks are scaled by at the start, learned; None: they are not.
        mlp_ratio: Hidden width of every MLP over its block's width.
        drop_path_rate: Stochastic depth of the student, growing linearly from 0 to this over the blocks. It acts in
            training mode only.
        dynamics: Whether the network has dynamics. Without, it is an encoder alone.
        levels: Encoder blocks (0-based) whose features are predicted, coarse to fine. The last encoder block feeds
            the first level.
        num_motion_tokens: Number M of motion latents.
        motion_dim: Width Dm of the motion latents and of the midway path.
        midway_depth: Self-attention blocks in the midway path of one level.
        midway_heads: Attention heads of a midway block.
        backward_heads: Attention heads of a backward layer.
        predictor_depth: Self-attention blocks in the forward predictor of one level; all but the first are gated.
        predictor_heads: Attention heads of a predictor block.
        backward: Whether backward layers refine both frames' tokens from coarse to fine. Without, the encoder's
            tokens of a level are used as they are (paper Table 3, row 7).
        refinement: Whether a level refines the motion of the level above. Without, every level infers its motion
            anew: its midway path starts from the initial motion tokens and reads both frames' tokens of the last
            encoder block, nothing of the level above. (The paper's Table 3, row 9, does not define this in words.)
        gating: Whether gating units scale the residuals of the forward predictor (paper Table 3).
        target_network: `"ema"` keeps two encoders (student for source frames, teacher for target frames and plain
            features); `"shared"` keeps one, as finetuned checkpoints do.
        pair_decoder: What a decoder of one frame given another is made of (`PairDecoderConfig` or keywords), as CroCo
            pretrains it; None: there is none.
        flow_head: What a flow head is made of: `FlowHeadConfig`, `CorrelationHeadConfig`, or keywords for one, of which
            `kind` tells which. None: there is none.
        segmentation_head: What a segmentation head is made of (`SegmentationHeadConfig` or keywords); None: none.
        initializer_range: Standard deviation of the truncated normal that weights are drawn from.
        **kwargs: What every transformers configuration takes, and `out_features` / `out_indices` for use as a
            backbone (stage names are `stem`, `stage1`, ..., one per encoder block).

    Raises:
        ValueError: A number is out of range or does not divide another; the message names both. Or a number is given
            by transformers' name for it, too, and differently.
    """

    model_type = "midway"
    attribute_map = {"hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads"}  # noqa: RUF012

    def __init__(
        self,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        num_channels: int = 3,
        embed_dim: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        positions: str = "learned",
        num_registers: int = 0,
        layer_scale: float | None = None,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.0,
        dynamics: bool = True,
        levels: Sequence[int] = (8, 5, 2),
        num_motion_tokens: int = 10,
        motion_dim: int = 192,
        midway_depth: int = 4,
        midway_heads: int = 3,
        backward_heads: int = 6,
        predictor_depth: int = 4,
        predictor_heads: int = 6,
        backward: bool = True,
        refinement: bool = True,
        gating: bool = True,
        target_network: str = "ema",
        pair_decoder: PairDecoderConfig | Mapping[str, Any] | None = None,
        flow_head: FlowHeadConfig | CorrelationHeadConfig | Mapping[str, Any] | None = None,
        segmentation_head: SegmentationHeadConfig | Mapping[str, Any] | None = None,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.image_size = image_size
        self.patch_size = patch_size
        self.num_channels = num_channels
        self.embed_dim = embed_dim
        self.depth = depth
        self.num_heads = num_heads
        self.positions = positions
        self.num_registers = num_registers
        self.layer_scale = layer_scale
        self.mlp_ratio = mlp_ratio
        self.drop_path_rate = drop_path_rate
        self.dynamics = dynamics
        self.levels = list(levels) if isinstance(levels, list | tuple) else levels
        self.num_motion_tokens = num_motion_tokens
        self.motion_dim = motion_dim
        self.midway_depth = midway_depth
        self.midway_heads = midway_heads
        self.backward_heads = backward_heads
        self.predictor_depth = predictor_depth
        self.predictor_heads = predictor_heads
        self.backward = backward
        self.refinement = refinement
        self.gating = gating
        self.target_network = target_network
        # Plain data, so that transformers can save and compare it.
        self.pair_decoder = None if pair_decoder is None else PairDecoderConfig.of(pair_decoder).to_dict()
        self.flow_head = None if flow_head is None else FlowHeadConfig.of(flow_head).to_dict()
        self.segmentation_head = (
            None if segmentation_head is None else SegmentationHeadConfig.of(segmentation_head).to_dict()
        )
        self.initializer_range = initializer_range
        for alias in self.attribute_map.keys() & kwargs.keys():
            self._set_by_alias(alias, kwargs.pop(alias))
        self.check_numbers()
        _check_labels_and_precision(kwargs)
        kwargs.pop("stage_names", None)  # derived; saved for readers of config.json only
        self.stage_names = ["stem", *(f"stage{i}" for i in range(1, self.depth + 1))]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None), out_indices=kwargs.pop("out_indices", None)
        )
        super().__init__(**kwargs)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a configuration as transformers does; of a registry name, what the registry says of it."""
        if not registry.is_name(pretrained_model_name_or_path):
            return super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        entry = registry.get_entry(str(pretrained_model_name_or_path))
        if entry.bundled:
            from midway_hub.hub.named import bundled_folder

            return super().get_config_dict(bundled_folder(entry), **kwargs)
        return {"model_type": cls.model_type, **entry.architecture}, kwargs

    @property
    def grid_size(self) -> int:
        """Patches along one side of the grid that the position embeddings are stored for."""
        return self.image_size // self.patch_size

    def check_numbers(self) -> None:
        """Refuse numbers that no network has, as making a configuration does; one that was changed since may hold some.

        Raises:
            ValueError: A number is out of range or does not divide another; the message names both.
        """
        for name, largest in LARGEST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {shown(value)}")
            if value > largest:
                raise ValueError(f"{name} must be at most {largest}, got {shown(value)}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {shown(getattr(self, name))}")
        for heads, width in (
            ("num_heads", "embed_dim"),
            ("backward_heads", "embed_dim"),
            ("predictor_heads", "embed_dim"),
            ("midway_heads", "motion_dim"),
        ):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(f"{width} {getattr(self, width)} is not a multiple of {heads} {getattr(self, heads)}")
        if not (_is_number(self.drop_path_rate) and 0 <= self.drop_path_rate < 1):
            raise ValueError(f"drop_path_rate must be at least 0 and below 1, got {shown(self.drop_path_rate)}")
        if not (_is_number(self.initializer_range) and 0 <= self.initializer_range <= 1):
            raise ValueError(f"initializer_range must be between 0 and 1, got {shown(self.initializer_range)}")
        if not (_is_number(self.mlp_ratio) and 0 < self.mlp_ratio <= LARGEST_RATIO):
            raise ValueError(f"mlp_ratio must be above 0 and at most {LARGEST_RATIO}, got {shown(self.mlp_ratio)}")
        for width in ("embed_dim", "motion_dim"):
            if getattr(self, width) * self.mlp_ratio < 1:
                raise ValueError(f"mlp_ratio {self.mlp_ratio} leaves an MLP of {width} {getattr(self, width)} no width")
        if self.positions not in POSITIONS:
            raise ValueError(f"positions must be one of {POSITIONS}, got {shown(self.positions)}")
        if self.positions == "rope" and (self.embed_dim // self.num_heads) % 4:
            raise ValueError(
                f"positions 'rope' turn heads of a multiple of 4 numbers; embed_dim {self.embed_dim} over num_heads "
                f"{self.num_heads} gives {self.embed_dim // self.num_heads}"
            )
        registers = self.num_registers
        if not isinstance(registers, int) or isinstance(registers, bool) or not 0 <= registers <= MOST_REGISTERS:
            raise ValueError(f"num_registers must be a whole number from 0 to {MOST_REGISTERS}, got {shown(registers)}")
        if self.layer_scale is not None and not (_is_number(self.layer_scale) and 0 < self.layer_scale <= 1):
            raise ValueError(f"layer_scale must be above 0 and at most 1, or None, got {shown(self.layer_scale)}")
        if self.target_network not in TARGET_NETWORKS:
            raise ValueError(f"target_network must be one of {TARGET_NETWORKS}, got {shown(self.target_network)}")
        if self.dynamics and not self._levels_are_valid():
            raise ValueError(
                f"levels must be different encoder blocks between 0 and {self.depth - 1}, coarse (late) to fine "
                f"(early), got {shown(self.levels)}"
            )
        head = self.flow_head or {"dynamics": False}
        if head.get("reads") == "decoder":
            if self.pair_decoder is None:
                raise ValueError("flow_head.reads is 'decoder', and there is no pair_decoder; give both, or neither")
        elif not self.dynamics and head.get("dynamics", True):
            raise ValueError(
                "a flow head reads the dynamics' predictions, and dynamics is false; a head of kind 'correlation' does "
                "without them by flow_head.dynamics=false"
            )

    def _levels_are_valid(self) -> bool:
        levels = self.levels
        if not isinstance(levels, list) or not all(type(level) is int for level in levels):
            return False
        in_range = all(0 <= level < self.depth for level in levels)
        return bool(levels) and in_range and levels == sorted(set(levels), reverse=True)

    def _set_by_alias(self, alias: str, value: Any) -> None:
        """Set a number by the name that transformers has for it."""
        name = self.attribute_map[alias]
        if getattr(self, name) not in (value, _DEFAULTS[name]):
            raise ValueError(
                f"{name} is {shown(getattr(self, name))}, and {alias}, another name for it, {shown(value)}: give one"
            )
        setattr(self, name, value)


def _check_labels_and_precision(values: Mapping[str, Any]) -> None:
    """Refuse what transformers would take minutes over, or fail on in words of its own."""
    labels = values.get("num_labels")
    if labels is not None and (type(labels) is not int or not 0 <= labels <= MOST_LABELS):
        raise ValueError(f"num_labels must be a whole number up to {MOST_LABELS}, got {shown(labels)}")
    for name in ("id2label", "label2id"):
        if not isinstance(values.get(name), Mapping | None):
            raise ValueError(f"{name} must map numbers and names of classes, got {shown(values[name])}")
    for name in ("dtype", "torch_dtype"):
        if values.get(name) is not None:
            checked_precision(values[name], name=name)


def checked_precision(value: Any, *, name: str = "dtype") -> str:
    """Return the name of a precision that weights can have.

    Args:
        value: A name such as `"float16"`, or a `torch.dtype`.
        name: How the error calls it.

    Raises:
        ValueError: It is no such precision.
    """
    text = str(value).removeprefix("torch.")
    if text not in PRECISIONS:
        raise ValueError(f"{name} must be one of {', '.join(PRECISIONS)}, got {shown(value)}")
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(MidwayConfig.__init__).parameters.items()}

__all__ = ["LARGEST", "PRECISIONS", "TARGET_NETWORKS", "MidwayConfig", "checked_precision"]
