"""What a probe is: a measurement of a network, taken while it trains."""

from __future__ import annotations

from typing import Protocol

from midway_hub import MidwayNetwork


class Probe(Protocol):
    """A measurement. It keeps its own data, draws the same numbers every time, and leaves the network as it was."""

    def __call__(self, network: MidwayNetwork) -> dict[str, float]:
        """Measure a network in eval mode.

        Args:
            network: As exported; on any device. Without dynamics, what needs them is left out of the result.

        Returns:
            Flat numbers, named `probe/what/number`.
        """
        ...
