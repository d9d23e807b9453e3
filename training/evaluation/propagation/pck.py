"""JHMDB's number: the share of keypoints that are found near enough to the truth (PCK; spec C)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
BOX_SHARE = 0.6
FAR = 1e9
"""Distance in a frame whose box has no extent: nothing is near."""


@dataclass(frozen=True)
class PoseScores:
    """JHMDB's numbers, in percent.

    Attributes:
        pck: By threshold, the mean over joints of the share that is found within it.
        keypoints: How many keypoints counted.
    """

    pck: dict[str, float]
    keypoints: int


def normalised_distances(found: np.ndarray, truth: np.ndarray) -> list[list[float]]:
    """Return how far off the joints of a video are, in parts of 0.6 times the diagonal of the true joints' box.

    The first frame does not count, nor does a joint where it was not found; the box of a frame is that of the joints
    that were found in it.

    Args:
        found: (T, J, 2) x and y in pixels; NaN for joints that were not found.
        truth: (T, J, 2).

    Returns:
        For each of the J joints, one number per frame in which it counts; `FAR` where the box has no extent.

    Raises:
        ValueError: The shapes differ.
    """
    found, truth = np.asarray(found, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if found.shape != truth.shape or found.ndim != 3 or found.shape[2] != 2:
        raise ValueError(f"joints must be (frames, joints, 2) in both, got {found.shape} and {truth.shape}")
    seen = np.isfinite(found).all(axis=2)
    distances: list[list[float]] = [[] for _ in range(truth.shape[1])]
    for frame in range(1, len(truth)):
        if not seen[frame].any():
            continue
        box = np.ptp(truth[frame, seen[frame]], axis=0)
        unit = BOX_SHARE * np.hypot(*box)
        away = np.linalg.norm(found[frame] - truth[frame], axis=1)
        for joint in np.flatnonzero(seen[frame]):
            distances[joint].append(float(away[joint] / unit) if unit else FAR)
    return distances


def pose_scores(distances: Sequence[Sequence[float]], *, thresholds: Sequence[float] = THRESHOLDS) -> PoseScores:
    """Return PCK of a data set.

    Args:
        distances: For each joint, those of all videos together.
        thresholds: Within which distance a joint counts as found.

    Raises:
        ValueError: No joint counts in any frame.
    """
    counted = [np.asarray(of_joint) for of_joint in distances if len(of_joint)]
    if not counted:
        raise ValueError("no joint was found in any frame but the first, so there is nothing to score")
    return PoseScores(
        pck={f"{limit:g}": 100 * float(np.mean([(each <= limit).mean() for each in counted])) for limit in thresholds},
        keypoints=sum(map(len, counted)),
    )
