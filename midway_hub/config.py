"""Every architecture number of a Midway Network, documented and validated."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

from midway_hub import registry
from midway_hub.heads import FlowHeadConfig, SegmentationHeadConfig

TARGET_NETWORKS = ("ema", "shared")
SWITCHES = ("dynamics", "backward", "refinement", "gating")
COUNTS = (
    *("image_size", "patch_size", "num_channels", "embed_dim", "depth", "num_heads", "num_motion_tokens"),
    *("motion_dim", "midway_depth", "midway_heads", "backward_heads", "predictor_depth", "predictor_heads"),
)


class MidwayConfig(BackboneConfigMixin, PreTrainedConfig):
    """Architecture of a Midway Network. The defaults are the ViT-S of the paper.

    Args:
        image_size: Side in pixels of the square frames whose patch grid the position embeddings are stored for.
        patch_size: Side of a patch in pixels.
        num_channels: Colour channels of a frame.
        embed_dim: Width D of the encoder, of the backward layers and of the forward predictors.
        depth: Number of encoder blocks.
        num_heads: Attention heads of an encoder block.
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
        flow_head: What a flow head is made of (`FlowHeadConfig` or keywords for one); None: there is none.
        segmentation_head: What a segmentation head is made of (`SegmentationHeadConfig` or keywords); None: none.
        initializer_range: Standard deviation of the truncated normal that weights are drawn from.
        **kwargs: What every transformers configuration takes, and `out_features` / `out_indices` for use as a
            backbone (stage names are `stem`, `stage1`, ..., one per encoder block).

    Raises:
        ValueError: A number is out of range or does not divide another; the message names both.
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
        flow_head: FlowHeadConfig | Mapping[str, Any] | None = None,
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
        self.mlp_ratio = mlp_ratio
        self.drop_path_rate = drop_path_rate
        self.dynamics = dynamics
        self.levels = list(levels)
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
        self.flow_head = None if flow_head is None else FlowHeadConfig.of(flow_head).to_dict()
        self.segmentation_head = (
            None if segmentation_head is None else SegmentationHeadConfig.of(segmentation_head).to_dict()
        )
        self.initializer_range = initializer_range
        self._check_numbers()
        kwargs.pop("stage_names", None)  # derived; saved for readers of config.json only
        self.stage_names = ["stem", *(f"stage{i}" for i in range(1, depth + 1))]
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

    def _check_numbers(self) -> None:
        for name in COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        for name in SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for heads, width in (
            ("num_heads", "embed_dim"),
            ("backward_heads", "embed_dim"),
            ("predictor_heads", "embed_dim"),
            ("midway_heads", "motion_dim"),
        ):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(f"{width} {getattr(self, width)} is not a multiple of {heads} {getattr(self, heads)}")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be at least 0 and below 1, got {self.drop_path_rate!r}")
        if self.target_network not in TARGET_NETWORKS:
            raise ValueError(f"target_network must be one of {TARGET_NETWORKS}, got {self.target_network!r}")
        if self.dynamics and not self._levels_are_valid():
            raise ValueError(
                f"levels must be different encoder blocks between 0 and {self.depth - 1}, coarse (late) to fine "
                f"(early), got {self.levels}"
            )

        if self.flow_head is not None and not self.dynamics:
            raise ValueError("a flow head reads the dynamics' predictions, and dynamics is false")

    def _levels_are_valid(self) -> bool:
        in_range = all(isinstance(level, int) and 0 <= level < self.depth for level in self.levels)
        return bool(self.levels) and in_range and self.levels == sorted(set(self.levels), reverse=True)


__all__ = ["TARGET_NETWORKS", "MidwayConfig"]
