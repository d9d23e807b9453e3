"""What a flow data set gives: two frames and the flow between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class FlowSample:
    """A pair of frames with ground truth.

    Attributes:
        first: (H, W, 3) uint8 RGB, the source.
        second: (H, W, 3) uint8 RGB, the target.
        flow: (H, W, 2) float32 in pixels, source to target, x to the right, y down; 0 where it is not valid.
        valid: (H, W) bool, where the flow is known.
        name: What the tables call the pair, such as `ambush_5/frame_0003`.
        sequence: What it is grouped by in tables, such as `ambush_5`.
        occluded: (H, W) bool, source pixels that the target does not show; None where the data set does not say.
        flow_scale: Cells of the flow per pixel of the frames along each axis: 2 for Spring, whose flow is on a grid
            twice as fine (values in pixels of the frames), else 1. Then flow and valid are (2H, 2W).
        sparse: Whether the flow is known at scattered pixels only (KITTI, HD1K), which resizing has to respect.
    """

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    valid: np.ndarray
    name: str
    sequence: str = ""
    occluded: np.ndarray | None = None
    flow_scale: int = 1
    sparse: bool = False


class FlowDataset(Protocol):
    """Pairs with ground truth, by number; opening one does not read another.

    Attributes:
        name: Such as `sintel/subtrain/clean`.
        sparse: Whether the flow is known at some pixels only (KITTI, HD1K), which resizing has to respect.
    """

    @property
    def name(self) -> str: ...

    @property
    def sparse(self) -> bool: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> FlowSample:
        """Read a pair.

        Raises:
            SampleError: A file is missing or broken, or its contents do not fit; the message names it.
        """
        ...

    def missing(self) -> list[str]:
        """Return the files that the data set should have and that are not there, without opening any."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """Return what identifies the data, JSON-able: name, number of pairs, a hash of the list of files."""
        ...
