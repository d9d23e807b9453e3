"""`FlowField`: flow and where it is known, whichever file it came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np


class FlowFileError(ValueError):
    """A flow file is broken or of another kind, or cannot hold the flow; the message names the file."""


@dataclass(frozen=True)
class FlowField:
    """Optical flow of a frame.

    Attributes:
        flow: (H, W, 2) float32 in pixels, x to the right, then y downwards; 0 where it is not valid.
        valid: (H, W) bool, where the flow is known.
    """

    flow: np.ndarray
    valid: np.ndarray

    @classmethod
    def of(cls, flow: np.ndarray, valid: np.ndarray | None = None) -> Self:
        """Make a field of numbers, of which those that are not finite are not known.

        Args:
            flow: (H, W, 2), any type of number.
            valid: (H, W), what is not 0 is known; default: all that is finite.

        Raises:
            ValueError: Other shapes, or no numbers.
        """
        flow = np.asarray(flow)
        if flow.ndim != 3 or flow.shape[2] != 2 or 0 in flow.shape:
            advice = "; move its channels to the end" if flow.ndim == 3 and flow.shape[0] == 2 else ""
            raise ValueError(f"flow must have shape (height, width, 2), got {flow.shape}{advice}")
        if flow.dtype.kind not in "fiu":
            raise ValueError(f"flow must be real numbers, got {flow.dtype}")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and so unknown
            flow = flow.astype(np.float32)
        known = np.isfinite(flow).all(axis=2)
        if valid is not None:
            valid = np.asarray(valid)
            if valid.shape != known.shape:
                raise ValueError(f"valid has shape {valid.shape}, wanted that of the flow, {known.shape}")
            known &= valid != 0
        return cls(np.where(known[..., None], flow, np.float32(0)), known)

    def with_unknown(self, value: float) -> np.ndarray:
        """Return the flow, (H, W, 2) float32, with `value` where it is not known."""
        return np.where(self.valid[..., None], self.flow, np.float32(value))
