"""Flow, occlusion and classes of the synthetic world, against independent formulas."""

import math
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from midway_hub.training.data.synthetic import (
    CLASSES,
    CLEAR,
    SHIFT_ONLY,
    STILL,
    MotionSettings,
    TextureSettings,
    WorldSettings,
    render_clip,
    render_pairs,
)
from midway_hub.training.data.synthetic.classes import PLANES, SHAPES
from midway_hub.training.data.synthetic.silhouettes import DIRECTIONS, VARIANTS, silhouettes
from midway_hub.training.data.synthetic.worlds import Worlds

CPU = torch.device("cpu")
TEXTURES = TextureSettings(tiles=6, tile_size=64)
SMOOTH = TextureSettings(tiles=4, tile_size=256, weights={"fractal": 1}, sharpness=(0.1, 0.2))
WORLD = WorldSettings(size=(64, 80), textures=TEXTURES, effects=CLEAR)
SEEDS = range(16)


def still_but(**ranges) -> MotionSettings:
    return MotionSettings(
        **{**STILL.model_dump(), "still_camera": 0, "still_object": 0, "displacement": (1, 1), **ranges}
    )


def one_plane(**ranges) -> WorldSettings:
    """A background that faces the camera, and nothing before it."""
    motion = still_but(**ranges)
    return WORLD.model_copy(
        update={"objects": (0, 0), "ground_probability": 0.0, "wall_probability": 0.0, "tilt": 0.0, "motion": motion}
    )


def warp(pictures: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Sample pictures (B, C, H, W) where flow (B, 2, H, W) leads from every pixel."""
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([(x + flow[:, 0]) * 2 / (width - 1) - 1, (y + flow[:, 1]) * 2 / (height - 1) - 1], dim=-1)
    return F.grid_sample(pictures.float(), place, align_corners=True, padding_mode="border")


def centred_pixels(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:height, :width].astype(float)
    return x - (width - 1) / 2, y - (height - 1) / 2


@cache
def outline_angles() -> np.ndarray:
    """Angles of the directions that outlines are tabulated in: evenly along the square |x| + |y| = 1 from (1, 0)."""
    corners = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 0]], dtype=float)
    turns = np.arange(DIRECTIONS) * 4 / DIRECTIONS
    x, y = (np.interp(turns, range(5), corners[:, axis]) for axis in (0, 1))
    return np.arctan2(y, x) % (2 * np.pi)


def covers(worlds: Worlds, world: int, layer: int, u: float, v: float) -> bool:
    """Whether a layer's outline has (u, v) inside: by the angle, in float64."""
    if layer < worlds.looks.planes:
        return True
    row, tables = int(worlds.looks.outline[world, layer]), silhouettes(CPU)
    radii = tables.edge.view(-1, DIRECTIONS)[row].double().numpy()
    edge = np.interp(math.atan2(v, u), outline_angles(), radii, period=2 * np.pi)
    return max(float(tables.hole[row]), 0) * edge < math.hypot(u, v) < edge


def nearest_layer(worlds: Worlds, homographies: np.ndarray, world: int, x: float, y: float) -> int:
    """The visible layer at a place of the frame, layer by layer."""
    best, best_inverse_depth = 0, 0.0
    for layer in range(1, homographies.shape[1]):
        u, v, inverse_depth = np.linalg.solve(homographies[world, layer], [x, y, 1.0])
        seen = inverse_depth > max(float(worlds.looks.nearest[world, layer]), 1e-6)
        if not seen or not worlds.looks.present[world, layer] or inverse_depth <= best_inverse_depth:
            continue
        if covers(worlds, world, layer, u / inverse_depth, v / inverse_depth):
            best, best_inverse_depth = layer, inverse_depth
    return best


def test_warping_the_second_frame_by_the_flow_gives_the_first():
    pairs = render_pairs(WORLD.model_copy(update={"textures": SMOOTH}), SEEDS)
    seen = ~pairs.occluded
    warped = (warp(pairs.second, pairs.flow) - pairs.first.float()).abs().mean(dim=1)[seen]
    unmoved = (pairs.second.float() - pairs.first.float()).abs().mean(dim=1)[seen]
    assert warped.quantile(0.9) < 1.5  # grey levels of 255; what is left are the edges of objects
    assert warped.mean() < 0.2 * unmoved.mean()


def test_a_plane_moved_by_whole_patches_is_the_same_picture_shifted():
    pairs = render_pairs(SHIFT_ONLY.model_copy(update={"textures": TEXTURES}), SEEDS)
    shifts = pairs.flow[:, :, 0, 0]
    torch.testing.assert_close(pairs.flow, shifts[..., None, None].expand_as(pairs.flow), rtol=0, atol=1e-4)
    assert ((shifts / 16).round() * 16 - shifts).abs().max() < 1e-4
    assert len({tuple(shift) for shift in shifts.round().tolist()}) > 4
    for first, second, (dx, dy) in zip(pairs.first, pairs.second, shifts.round().int().tolist(), strict=True):
        height, width = first.shape[1:]
        here = first[:, max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)]
        there = second[:, max(0, dy) : height - max(0, -dy), max(0, dx) : width - max(0, -dx)]
        assert (here.int() - there.int()).abs().max() <= 1


def test_shifting_hides_exactly_what_leaves_the_frame():
    pairs = render_pairs(SHIFT_ONLY.model_copy(update={"textures": TEXTURES}), SEEDS)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    target_x, target_y = x + pairs.flow[:, 0].round(), y + pairs.flow[:, 1].round()
    outside = (target_x < 0) | (target_x > 63) | (target_y < 0) | (target_y > 63)
    assert torch.equal(pairs.occluded, outside)


def test_flow_there_and_back_leads_home_where_nothing_is_hidden():
    pairs = render_pairs(WORLD, SEEDS)
    home = (warp(pairs.backward_flow, pairs.flow) + pairs.flow).norm(dim=1)[~pairs.occluded]
    assert home.median() < 0.01
    assert (home > 0.5).float().mean() < 0.02  # between two layers, interpolation mixes their flows


def test_occlusion_and_classes_agree_with_a_search_over_layers_in_float64():
    worlds, pairs = Worlds(WORLD, SEEDS, CPU), render_pairs(WORLD, SEEDS)
    first, second = (worlds.moment(time).to_pixel for time in (0, 1))
    draw = np.random.default_rng(0)
    agreed = {"class": [], "hidden": []}
    for _ in range(600):
        world, y, x = (int(draw.integers(limit)) for limit in (len(SEEDS), 64, 80))
        layer = nearest_layer(worlds, first, world, x, y)
        target = second[world, layer] @ np.linalg.solve(first[world, layer], [x, y, 1.0])
        tx, ty = target[:2] / target[2]
        outside = target[2] <= 0 or not (-0.5 <= tx <= 79.5 and -0.5 <= ty <= 63.5)
        hidden = outside or nearest_layer(worlds, second, world, tx, ty) != layer
        agreed["class"].append(int(pairs.labels[world, y, x]) == int(worlds.looks.label[world, layer]))
        agreed["hidden"].append(bool(pairs.occluded[world, y, x]) == hidden)
    assert np.mean(agreed["class"]) > 0.995  # a pixel on an edge may fall on either side in float32
    assert np.mean(agreed["hidden"]) > 0.995
    assert 0.02 < pairs.occluded.float().mean() < 0.4


def test_a_turning_camera_moves_all_depths_alike():
    settings = WORLD.model_copy(
        update={"motion": still_but(camera_turn=10.0, camera_roll=20.0), "ground_probability": 1.0, "objects": (4, 4)}
    )
    pairs = render_pairs(settings, SEEDS)
    assert len(pairs.labels.unique()) > 4
    bend = pairs.flow.diff(n=2, dim=-1).abs().amax(dim=(1, 2, 3))  # an edge in the flow would show
    assert pairs.flow.norm(dim=1).mean() > 3
    assert bend.max() < 0.1


def test_driving_straight_ahead_expands_from_the_middle_by_the_ratio_of_distances():
    settings = one_plane(camera_forward=1.0)
    pairs, worlds = render_pairs(settings, SEEDS), Worlds(settings, SEEDS, CPU)
    x, y = centred_pixels(64, 80)
    depth, ahead = worlds.motion.origin[:, 0, 2], worlds.motion.strength * worlds.motion.camera_shift[:, 2]
    growth = depth / (depth - ahead) - 1
    expected = growth[:, None, None, None] * np.stack([x, y])
    np.testing.assert_allclose(pairs.flow, expected, atol=1e-3)
    assert growth.max() > 0.02
    assert growth.min() < -0.02


def test_zoom_scales_the_frame():
    settings = one_plane(camera_zoom=0.3)
    pairs, worlds = render_pairs(settings, SEEDS), Worlds(settings, SEEDS, CPU)
    growth = np.exp(worlds.motion.strength * worlds.motion.camera_zoom) - 1
    expected = growth[:, None, None, None] * np.stack(centred_pixels(64, 80))
    np.testing.assert_allclose(pairs.flow, expected, atol=1e-3)


def test_nearer_objects_move_faster_when_the_camera_goes_sideways():
    settings = WORLD.model_copy(
        update={"motion": still_but(camera_shift=0.5), "tilt": 0.0, "ground_probability": 0.0, "wall_probability": 0.0}
    )
    worlds = Worlds(settings, SEEDS, CPU)
    moment, moved = worlds.moment(0), render_pairs(settings, SEEDS).flow.norm(dim=1)
    shift = worlds.motion.strength * np.hypot(*worlds.motion.camera_shift[:, :2].T)
    depth = np.take_along_axis(worlds.motion.origin[..., 2], moment.visible.flatten(1).numpy(), axis=1)
    expected = 64 * (worlds.motion.focal * shift)[:, None] / depth
    np.testing.assert_allclose(moved.flatten(1), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("limit", [0.05, 0.25])
def test_nothing_moves_farther_than_the_limit(limit):
    motion = MotionSettings(displacement=(limit, limit))
    pairs = render_pairs(WORLD.model_copy(update={"motion": motion}), range(24))
    farthest = pairs.flow.norm(dim=1).amax(dim=(1, 2))
    assert farthest.max() <= limit * 64 * 1.001
    assert farthest.max() > 0.8 * limit * 64


def test_in_a_still_world_nothing_moves_and_nothing_is_hidden():
    pairs = render_pairs(WORLD.model_copy(update={"motion": STILL}), range(8))
    assert pairs.flow.abs().max() < 1e-4
    assert not pairs.occluded.any()
    assert torch.equal(pairs.first, pairs.second)


def test_a_clip_begins_with_the_pair_and_goes_on_consistently():
    clip, pairs = render_clip(WORLD, 5, 6), render_pairs(WORLD, [5])
    assert torch.equal(clip.frames[:2], torch.cat([pairs.first, pairs.second]))
    torch.testing.assert_close(clip.flow[:1], pairs.flow, rtol=0, atol=1e-3)
    torch.testing.assert_close(clip.backward_flow[:1], pairs.backward_flow, rtol=0, atol=1e-3)
    assert torch.equal(clip.occluded[:1], pairs.occluded)
    assert torch.equal(clip.labels[:2], torch.cat([pairs.labels, pairs.second_labels]))
    assert clip.frames.shape == (6, 3, 64, 80)
    seen = ~clip.occluded
    warped = (warp(clip.frames[1:], clip.flow) - clip.frames[:-1].float()).abs().mean(dim=1)[seen].mean()
    unmoved = clip.frames.float().diff(dim=0).abs().mean(dim=1)[seen].mean()
    assert warped < 0.4 * unmoved


def test_a_clip_needs_two_frames():
    with pytest.raises(ValueError, match="at least 2 frames, got 1"):
        render_clip(WORLD, 0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_shapes_asked_for_appear(shape):
    settings = WORLD.model_copy(update={"shapes": {shape: 1.0}, "objects": (3, 3)})
    found = render_pairs(settings, range(6)).labels.unique().tolist()
    assert set(found) <= {*range(len(PLANES)), CLASSES.index(shape)}
    assert CLASSES.index(shape) in found


def test_outlines_have_the_area_of_their_shape():
    tables = silhouettes(CPU)
    radii = tables.edge.double().view(len(SHAPES), VARIANTS, DIRECTIONS).numpy()
    angles = np.diff(outline_angles(), append=2 * np.pi)
    area = 0.5 * (radii**2 * angles).sum(axis=-1)
    least = radii.min(axis=-1)
    np.testing.assert_allclose(area[SHAPES.index("ellipse")], np.pi * least[SHAPES.index("ellipse")], rtol=2e-3)
    boxes = least[SHAPES.index("box")] * 2 * radii[SHAPES.index("box")][:, 0] * 2
    assert (area[SHAPES.index("box")] > 0.9 * boxes).all()
    assert (area[SHAPES.index("box")] < 1.001 * boxes).all()
    holes = tables.hole.view(len(SHAPES), VARIANTS)
    assert (holes[SHAPES.index("ring")] > 0.4).all()
    assert (holes[: SHAPES.index("ring")] < 0).all()
