"""What can be chosen about the page when it is started."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from midway_hub.app.uploads import Limits
from midway_hub.registry import DEFAULT_MODEL


@dataclass(frozen=True)
class PageOptions:
    """What the page offers.

    Attributes:
        model: The network that users start with, as for `MidwayNetwork.from_pretrained`.
        device: Where networks run.
        offline: Never ask the network for weights.
        any_model: Whether users may name repositories, folders and files of the server. Only for users who may read
            all of the server's files anyway.
        limits: How much is taken of uploads.
    """

    model: str = DEFAULT_MODEL
    device: Any = "cpu"
    offline: bool = False
    any_model: bool = False
    limits: Limits = field(default_factory=Limits)
