"""Drawing where a world's layers are and how they and the camera move."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from midway_hub.training.data.synthetic.classes import PLANES, SHAPES
from midway_hub.training.data.synthetic.draws import Draws
from midway_hub.training.data.synthetic.motion import Motion, rotation, within
from midway_hub.training.data.synthetic.settings import WorldSettings

VERTICAL = 0.3  # cameras rise and sink less than they go sideways, and stay above the ground
WATCHED = 0.35  # distance from the horizon, in frame sides, at which ground and wall are as sharp as was drawn
LOOK_DOWN, LEAN = np.radians(10), np.radians(6)


@dataclass(frozen=True)
class Placement:
    """The layers of B worlds: background, ground, wall, then N objects; K = N + 3.

    Attributes:
        present: (B, K) whether the layer is there.
        shape: (B, N) index into `SHAPES`.
        scale: (B, K) pixels of the first frame that one unit of a layer's u and v takes, about.
        motion: Where everything is when.
    """

    present: np.ndarray
    shape: np.ndarray
    scale: np.ndarray
    motion: Motion


def draw_placement(settings: WorldSettings, draws: Draws, later: Draws) -> Placement:
    """Draw layers and motion within the ranges of the settings."""
    side, most = min(settings.size), settings.objects[1]
    focal = draws.between(0.9, 1.6)
    number = draws.whole(*settings.objects)
    ground, wall = draws.happens(settings.ground_probability, 1), draws.happens(settings.wall_probability, 1)
    present = np.concatenate([np.ones_like(ground), ground, wall, np.arange(most) < number[:, None]], axis=1)
    shape = draws.which([settings.shapes.get(name, 0.0) for name in SHAPES], most)

    height, aside = draws.between(0.6, 1.6), draws.between(1.0, 2.5)
    depth = np.concatenate(
        [np.full((len(focal), 1), 2 * settings.depth[1]), draws.log_between(*settings.depth, most)], axis=1
    )
    radius = draws.log_between(*settings.object_radius, most)
    plane_origin, plane_axes = _draw_planes(draws, height, aside)
    origin, axes = _draw_facing(settings, draws, focal, depth, radius)
    standing = ground & draws.happens(0.8, most)
    floor = height[:, None] - 0.8 * radius * depth[:, 1:] / focal[:, None]
    origin[:, 1:, 1] = np.where(standing, np.minimum(origin[:, 1:, 1], floor), origin[:, 1:, 1])

    scale = np.concatenate(
        [(focal / depth[:, 0])[:, None], WATCHED / height[:, None], WATCHED / aside[:, None], radius], axis=1
    )
    drawn = _draw_motion(settings, draws, focal, depth)
    motion = Motion(
        focal=focal,
        origin=np.concatenate([origin[:, :1], plane_origin, origin[:, 1:]], axis=1),
        axes=np.concatenate([axes[:, :1], plane_axes, axes[:, 1:]], axis=1),
        **drawn,
    )
    motion = _join_limbs(motion, later.happens(settings.articulation, most), later)
    limit = draws.between(*settings.motion.displacement)
    frame = settings.size[0] / side, settings.size[1] / side
    return Placement(present, shape, scale * side, within(motion, limit, present, len(PLANES), frame))


def _join_limbs(motion: Motion, limb: np.ndarray, draws: Draws) -> Motion:
    """Turn objects into limbs of the one before: bars at its distance, carried along, that turn around a joint.

    Args:
        motion: Of all layers.
        limb: (B, N) bool, of the objects; the first is never one.
        draws: Where joints are drawn from.
    """
    joint, slim = draws.signed(0.7, limb.shape[1], 2), draws.between(0.12, 0.35, limb.shape[1])
    limb[:, :1] = False
    origin, axes, shift = motion.origin.copy(), motion.axes.copy(), motion.shift.copy()
    spin, growth = motion.spin.copy(), motion.growth.copy()
    for index in range(1, limb.shape[1]):
        own, carrier = index + len(PLANES), index + len(PLANES) - 1
        limb[:, index] &= ~limb[:, index - 1]  # of a limb there is no limb
        rows = np.flatnonzero(limb[:, index])
        at_joint = (axes[rows, carrier] @ joint[rows, index][..., None])[..., 0]
        origin[rows, own] = 0.995 * (origin[rows, carrier] + at_joint)
        axes[rows, own, :, 1] *= slim[rows, index, None]
        shift[rows, own] = 0.995 * shift[rows, carrier]
        spin[rows, carrier] = growth[rows, carrier] = growth[rows, own] = 0
    return replace(motion, origin=origin, axes=axes, shift=shift, spin=spin, growth=growth)


def _draw_planes(draws: Draws, height: np.ndarray, aside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origins (B, 2, 3) and axes (B, 2, 3, 2) of ground and wall, upright to each other, before a tilted camera."""
    zero = np.zeros_like(height)
    tilt = rotation(np.stack([draws.signed(LOOK_DOWN), zero, draws.signed(LEAN)], axis=-1))
    turned = rotation(np.stack([zero, draws.signed(np.radians(20)), zero], axis=-1))
    side = np.where(draws.happens(0.5), 1.0, -1.0)
    origin = np.stack([np.stack([zero, height, zero], -1), np.stack([side * aside, zero, zero], -1)], axis=1)
    ground = np.array([[1.0, 0], [0, 0], [0, 1]])
    wall = turned @ np.array([[0.0, 0], [0, 1], [1, 0]])
    axes = np.stack([np.broadcast_to(ground, wall.shape), wall], axis=1)
    return (tilt[:, None] @ origin[..., None])[..., 0], tilt[:, None] @ axes


def _draw_facing(
    settings: WorldSettings, draws: Draws, focal: np.ndarray, depth: np.ndarray, radius: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Origins (B, 1 + N, 3) and axes (B, 1 + N, 3, 2) of background and objects, which face the camera more or less."""
    worlds, layers = depth.shape
    half = 0.5 * np.array(settings.size[::-1]) / min(settings.size)
    middle = np.zeros((worlds, layers, 2))
    middle[:, 1:] = draws.signed(0.9, layers - 1, 2) * half
    origin = np.concatenate([middle * (depth / focal[:, None])[..., None], depth[..., None]], axis=-1)
    lean = draws.disc(np.radians(settings.tilt), layers)
    roll = draws.between(-np.pi, np.pi, layers, 1)
    unit = np.concatenate([np.ones((worlds, 1)), radius * depth[:, 1:] / focal[:, None]], axis=1)
    zero = np.zeros_like(roll)
    upright = rotation(np.concatenate([zero, zero, roll], axis=-1))[..., :2]
    leaning = rotation(np.concatenate([lean, zero], axis=-1))
    return origin, leaning @ upright * unit[..., None, None]


def _draw_motion(settings: WorldSettings, draws: Draws, focal: np.ndarray, depth: np.ndarray) -> dict[str, np.ndarray]:
    """Rates of camera and layers, by the names that `Motion` gives them."""
    ranges, most = settings.motion, depth.shape[1] - 1
    moving = 1.0 - draws.happens(ranges.still_camera, 1)
    sideways = draws.disc(ranges.camera_shift) * np.array([1, VERTICAL])
    forward = draws.signed(ranges.camera_forward, 1)
    turn, roll = draws.disc(np.radians(ranges.camera_turn)), draws.signed(np.radians(ranges.camera_roll), 1)
    zoom = draws.signed(np.log1p(ranges.camera_zoom), 1)
    own = 1.0 - draws.happens(ranges.still_object, most)
    pixels = np.concatenate([draws.disc(ranges.background_shift, 1), draws.disc(ranges.object_shift, most)], axis=1)
    if ranges.snap:
        patch = ranges.snap / min(settings.size)
        pixels = np.round(pixels / patch) * patch
    pixels[:, 1:] *= own[..., None]
    shift = np.zeros((len(focal), most + 3, 3))
    shift[:, [0, *range(3, most + 3)], :2] = pixels * (depth / focal[:, None])[..., None]
    planes = np.zeros((len(focal), 3))
    return {
        "sway": draws.between(0.3, 0.6),
        "strength": np.ones(len(focal)),
        "camera_shift": np.concatenate([sideways, forward], axis=1) * moving,
        "camera_turn": np.concatenate([turn, roll], axis=1) * moving,
        "camera_zoom": (zoom * moving)[:, 0],
        "shift": shift,
        "spin": np.concatenate([planes, draws.signed(np.radians(ranges.object_turn), most) * own], axis=1),
        "growth": np.concatenate([planes, draws.signed(np.log1p(ranges.object_scale), most) * own], axis=1),
    }
