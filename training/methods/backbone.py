"""Encoders for methods that need no ViT: the hub's, or a convolutional one of timm, behind the same maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from midway_hub import MidwayConfig, MidwayNetwork
from midway_hub.models.convolutional import ConvConfig, ConvNetwork
from midway_hub.training.methods.base import Architecture, Method, exported_network, hub_network

TIMM = "timm"


class VitBackbone(nn.Module):
    """The hub's ViT as maps of one stride.

    Args:
        config: Its architecture.
        count: Maps: of the last block, and of blocks before it that are evenly spaced.

    Attributes:
        dims: Channels of the maps.
        strides: Their strides in pixels.
    """

    def __init__(self, config: MidwayConfig, count: int = 1) -> None:
        super().__init__()
        self.model = MidwayNetwork(config)
        self.blocks = tuple(round((number + 1) * config.depth / count) - 1 for number in range(count))
        self.dims, self.strides = (config.embed_dim,) * count, (config.patch_size,) * count

    def maps(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to maps (B, D, h, w), early to late."""
        size = self.strides[0]
        grid = (images.shape[-2] // size, images.shape[-1] // size)
        return [tokens[:, 1:].mT.unflatten(2, grid) for tokens in self.model.student.tokens(images, self.blocks)]


class ConvBackbone(nn.Module):
    """A convolutional encoder as its last maps.

    Args:
        config: Its architecture.
        count: Maps, from the last one.
    """

    def __init__(self, config: ConvConfig, count: int = 1) -> None:
        super().__init__()
        self.model = ConvNetwork(config)
        self.count = count
        self.dims, self.strides = self.model.dims[-count:], self.model.strides[-count:]

    def maps(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to maps (B, D, h, w), fine to coarse."""
        return self.model.maps(images)[-self.count :]


Backbone = VitBackbone | ConvBackbone


def make_backbone(model: Architecture, method: str, *, count: int = 1) -> Backbone:
    """Make the encoder of an architecture: of timm where it says `timm`, else the hub's ViT.

    Args:
        model: Architecture, or keywords for it.
        method: Name of the method, for errors.
        count: Maps that the method reads.

    Raises:
        ValueError: The architecture does not suit.
    """
    if isinstance(model, Mapping) and TIMM in model:
        return ConvBackbone(ConvConfig(**model), count)
    return VitBackbone(hub_network(model, method, target_network="shared"), count)


class BackboneMethod(Method):
    """A method whose network holds an encoder that is no more than maps, `network.backbone`: it is handed over."""

    @classmethod
    def check_architecture(cls, model: Mapping[str, Any]) -> None:
        """Raise a ValueError where keywords make no architecture that the method can train."""
        if TIMM in model:
            others = sorted(set(model) - {TIMM, "output_stride"})
            if others:
                raise ValueError(f"with model.timm there is only output_stride beside it, got {', '.join(others)} too")
            ConvConfig(**model)
        else:
            super().check_architecture(model)

    @property
    def readable(self) -> nn.Module:
        return self.network.backbone.model

    def export(self) -> PreTrainedModel:
        """Return the trained encoder, in eval mode, on the CPU in fp32."""
        trained: Any = self.network.backbone.model
        if isinstance(trained, MidwayNetwork):
            return exported_network(trained)
        exported = ConvNetwork(ConvConfig.from_dict(trained.config.to_dict()))
        exported.load_state_dict(trained.state_dict())
        return exported.eval()
