"""What a probe is: a measurement of a network, taken while it trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from midway_hub.outputs import Features


class Readable(Protocol):
    """What features can be read of: a network of the hub, or any encoder that has its `encode`.

    `config` has `patch_size`, the side in pixels of a cell of `encode(images).last`, and `dynamics`.
    """

    config: Any

    @property
    def device(self) -> torch.device:
        """Where it lies."""
        ...

    def encode(self, images: Tensor, *, layers: Sequence[int] | None = None) -> Features:
        """Map images (B, 3, H, W), normalised, to features with `last` (B, D, h, w) and `cls` (B, D)."""
        ...

    def eval(self) -> Any:
        """Put it into eval mode."""
        ...

    def modules(self) -> Any:
        """Yield its modules."""
        ...


class Probe(Protocol):
    """A measurement. It keeps its own data, draws the same numbers every time, and leaves the network as it was."""

    def __call__(self, network: Any) -> dict[str, float]:
        """Measure a network in eval mode.

        Args:
            network: A `Readable`, on any device. Without dynamics, what needs them is left out of the result.

        Returns:
            Flat numbers, named `probe/what/number`.
        """
        ...
