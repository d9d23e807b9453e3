"""The encoder as a transformers backbone, for heads such as UperNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from midway_hub.config import MidwayConfig
from midway_hub.models._checks import check_frames, check_weights
from midway_hub.models.encoder import MidwayEncoder
from midway_hub.models.pretrained import MidwayPreTrainedModel


class MidwayBackbone(BackboneMixin, MidwayPreTrainedModel):
    """Feature maps of chosen encoder blocks: `config.out_features` ("stage1" is the first block) or `out_indices`.

    It holds one encoder, the teacher (the student where the target network is shared), under the name it has in a
    `MidwayNetwork` checkpoint, so that it loads from one.
    """

    has_attentions = False
    encoder_alone = True
    _keys_to_ignore_on_load_unexpected = [r"^(student|teacher|dynamics|flow_head|segmentation_head)\."]  # noqa: RUF012

    @classmethod
    def _from_config(cls, config: MidwayConfig, **kwargs: Any) -> MidwayBackbone:
        """Make a backbone in the precision of what it becomes a part of, not in the one that its weights are stored in.

        A head is made in torch's default precision, which transformers sets to that of the whole.
        """
        if "torch_dtype" not in kwargs:
            kwargs.setdefault("dtype", torch.get_default_dtype())
        return super()._from_config(config, **kwargs)

    def __init__(self, config: MidwayConfig) -> None:
        super().__init__(config)
        if "stem" in self.out_features:
            raise ValueError("the stem has no feature map of its own; out_features start at 'stage1', out_indices at 1")
        self.num_features = [config.embed_dim] * (config.depth + 1)
        encoder = MidwayEncoder(config, drop_path_rate=config.drop_path_rate)
        setattr(self, "student" if config.target_network == "shared" else "teacher", encoder)
        self.post_init()

    @property
    def encoder(self) -> MidwayEncoder:
        """The encoder that the feature maps come from."""
        return self.student if self.config.target_network == "shared" else self.teacher

    def forward(self, pixel_values: Tensor, output_hidden_states: bool | None = None, **_: object) -> BackboneOutput:
        """Compute feature maps.

        Args:
            pixel_values: (B, 3, H, W), normalised; H and W multiples of the patch size.
            output_hidden_states: Return the tokens of every block too, each (B, 1+N, D).
            **_: Accepted for the heads that pass `return_dict` and the like.

        Returns:
            `feature_maps`: one (B, D, h, w) per out feature, through the final norm.
        """
        config = self.config
        check_weights(self.encoder.cls_token)
        check_frames(
            pixel_values,
            name="pixel_values",
            axes=(4,),
            channels=config.num_channels,
            multiple=config.patch_size,
            device=self.device,
        )
        grid = tuple(side // config.patch_size for side in pixel_values.shape[-2:])
        wanted = [index % (config.depth + 1) - 1 for index in self.out_indices]  # stage 1 is block 0
        blocks = list(range(config.depth)) if output_hidden_states else wanted
        tokens = dict(zip(blocks, self.encoder.tokens(pixel_values.to(self.dtype), blocks), strict=True))
        return BackboneOutput(
            feature_maps=tuple(tokens[block][:, 1:].transpose(1, 2).unflatten(2, grid) for block in wanted),
            hidden_states=tuple(tokens.values()) if output_hidden_states else None,
        )
