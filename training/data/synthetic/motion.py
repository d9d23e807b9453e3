"""Where flat layers in space are seen by a moving camera: one homography per layer and moment."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

CIRCLE = 24
SLACK = 1.02  # a circle lies within the polygon through CIRCLE points that are this much farther out


@dataclass(frozen=True)
class Motion:
    """Camera and layers of B worlds with K layers, float64. Lengths in units of space, angles in radians.

    All rates are per frame, times `strength`. Camera at time 0: at the origin, x right, y down, z ahead.

    Attributes:
        focal: (B,) focal length in frame sides.
        sway: (B,) how quickly the motion turns back, in radians per frame; short clips hardly notice.
        strength: (B,) factor of all rates.
        camera_shift: (B, 3) translation.
        camera_turn: (B, 3) pitch, yaw, roll.
        camera_zoom: (B,) logarithm of the growth of the focal length.
        origin: (B, K, 3) centre of the layers.
        axes: (B, K, 3, 2) directions of the layers' own coordinates u and v, orthogonal; their lengths are one unit.
        shift: (B, K, 3) the layers' own translation.
        spin: (B, K) their rotation.
        growth: (B, K) logarithm of their growth.
    """

    focal: np.ndarray
    sway: np.ndarray
    strength: np.ndarray
    camera_shift: np.ndarray
    camera_turn: np.ndarray
    camera_zoom: np.ndarray
    origin: np.ndarray
    axes: np.ndarray
    shift: np.ndarray
    spin: np.ndarray
    growth: np.ndarray

    def passed(self, times: np.ndarray) -> np.ndarray:
        """How far motion has come at times (B, T) in frames: 0 at 0, 1 at 1, and turning back before long."""
        sway = self.sway[:, None]
        return np.sin(sway * times) / np.sin(sway)

    def trimmed(self, keep: np.ndarray) -> Motion:
        """Return the motion of some of the layers alone."""
        layered = {name: getattr(self, name)[:, keep] for name in ("origin", "axes", "shift", "spin", "growth")}
        return replace(self, **layered)

    def at(self, times: np.ndarray) -> np.ndarray:
        """Return the homographies at moments.

        Args:
            times: (B, T) in frames.

        Returns:
            (B, T, K, 3, 3) from a layer's (u, v, 1) to depth · (x, y, 1), places in frame sides from the centre.
        """
        passed = self.strength[:, None] * self.passed(times)
        camera = passed[..., None]
        layer = camera[:, :, None]
        size = np.exp(self.growth[:, None] * layer[..., 0])[..., None]
        angle = self.spin[:, None] * layer[..., 0]
        cosine, sine = np.cos(angle)[..., None] * size, np.sin(angle)[..., None] * size
        u, v = self.axes[:, None, ..., 0], self.axes[:, None, ..., 1]
        u_length, v_length = _length(u), _length(v)
        u_unit, v_unit = u / u_length, v / v_length
        place = self.origin[:, None] + self.shift[:, None] * layer - (self.camera_shift[:, None] * camera)[:, :, None]
        columns = np.stack(
            [u_length * (cosine * u_unit + sine * v_unit), v_length * (cosine * v_unit - sine * u_unit), place], axis=-1
        )
        seen = rotation(self.camera_turn[:, None] * camera)[:, :, None] @ columns
        focal = self.focal[:, None] * np.exp(self.camera_zoom[:, None] * passed)
        seen[..., :2, :] *= focal[:, :, None, None, None]
        return seen


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(axis=-1, keepdims=True))


def rotation(angles: np.ndarray) -> np.ndarray:
    """Return rotations (..., 3, 3) by pitch, then yaw, then roll, given as (..., 3)."""
    matrix = np.broadcast_to(np.eye(3), (*angles.shape[:-1], 3, 3))
    for axis in range(3):
        cosine, sine = np.cos(angles[..., axis]), np.sin(angles[..., axis])
        turn = np.zeros((*angles.shape[:-1], 3, 3))
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn[..., axis, axis] = 1
        turn[..., first, first], turn[..., second, second] = cosine, cosine
        turn[..., first, second], turn[..., second, first] = -sine, sine
        matrix = turn @ matrix
    return matrix


def within(motion: Motion, limit: np.ndarray, present: np.ndarray, planes: int, frame: tuple[float, float]) -> Motion:
    """Slow worlds down until no visible point moves farther than a limit from time 0 to time 1.

    Args:
        motion: Worlds whose first layers are unbounded planes and the others objects of radius 1 in u and v.
        limit: (B,) largest displacement in frame sides.
        present: (B, K) which layers there are.
        planes: How many layers are planes.
        frame: Height and width of the frame in frame sides.
    """
    start, end = np.zeros((len(limit), 1)), np.ones((len(limit), 1))
    now = motion.at(start)[:, 0]
    points = _witnesses(now, planes, frame)
    points[~present] = np.nan
    before = _project(now, points)
    for _ in range(12):
        moved = _project(motion.at(end)[:, 0], points) - before
        farthest = np.nan_to_num(np.hypot(moved[..., 0], moved[..., 1]), nan=0.0, posinf=1e3).max(axis=(1, 2))
        too_far = farthest > limit * (1 + 1e-9)
        if not too_far.any():
            return motion
        slower = np.where(too_far, 0.995 * limit / np.maximum(farthest, 1e-12), 1.0)
        motion = replace(motion, strength=motion.strength * slower)
    return motion


def _witnesses(homographies: np.ndarray, planes: int, frame: tuple[float, float]) -> np.ndarray:
    """Points (B, K, P, 2) of layers that move farthest: the frame's border and middle on planes, the rim on objects."""
    worlds, layers = homographies.shape[:2]
    turn = np.arange(CIRCLE) * 2 * np.pi / CIRCLE
    rim = SLACK * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    grid = np.stack(np.meshgrid(np.linspace(-0.5, 0.5, 7) * frame[1], np.linspace(-0.5, 0.5, 7) * frame[0]), axis=-1)
    grid = grid.reshape(-1, 2)
    points = np.full((worlds, layers, max(len(grid), len(rim)), 2), np.nan)
    points[:, planes:, : len(rim)] = rim
    points[:, :planes, : len(grid)] = _project(np.linalg.inv(homographies[:, :planes]), grid)
    return points


def _project(homographies: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., P, 2) by homographies (..., 3, 3); NaN where they fall behind."""
    mapped = points @ homographies[..., :2].swapaxes(-1, -2) + homographies[..., None, :, 2]
    depth = np.where(mapped[..., 2:] > 1e-9, mapped[..., 2:], np.nan)
    return mapped[..., :2] / depth
