"""Augmentation of flow samples: frames, flow and what is known of it stay together."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchvision.transforms.v2 import functional as transforms

from midway_hub.training.data.flow import FlowAugment, FlowSample, WorldFlow, augment_flow
from midway_hub.training.data.flow.augment import FlowGeometry, change_geometry, draw_geometry
from midway_hub.training.data.flow.jitter import Jitter, change_colours, draw_jitter
from midway_hub.training.data.randomness import generator
from midway_hub.training.data.synthetic import CLEAR, MotionSettings, TextureSettings, WorldSettings

NO_COLOUR = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}
STILL = FlowAugment(spatial_probability=0, horizontal_flip=0, vertical_flip=0, **NO_COLOUR)


def shifted(dx=3, dy=-2, size=(24, 32)):
    """A random texture whose window moves by whole pixels: a pair whose flow is exactly (dx, dy)."""
    texture = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    (height, width), top, left = size, 16, 16
    return FlowSample(
        first=texture[top : top + height, left : left + width],
        second=texture[top - dy : top - dy + height, left - dx : left - dx + width],
        flow=np.full((*size, 2), (dx, dy), dtype=np.float32),
        valid=np.ones(size, dtype=bool),
        name="shifted",
        occluded=np.zeros(size, dtype=bool),
    )


def resize_flow(flow, valid, size, *, sparse=False):
    """Resize flow alone, whole and unflipped."""
    frame = np.zeros((*valid.shape, 3), dtype=np.uint8)
    sample = FlowSample(frame, frame, flow, valid, name="flow", sparse=sparse)
    got = change_geometry(sample, FlowGeometry(size, (False, False), (0, 0)), size)
    return got.flow, got.valid


def grid(size):
    """x and y of the pixels' centres, in pixels from the upper left corner."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return np.stack([x, y], axis=-1)


def linear_flow(size, matrix, shift):
    return (grid(size) @ np.transpose(matrix) + shift).astype(np.float32)


def warp(frame, flow):
    """Look a frame up, bilinearly and in float64, at the ends of the flow; also where they are in the frame."""
    height, width = flow.shape[:2]
    x, y = np.moveaxis(grid((height, width)) - 0.5 + flow, -1, 0)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    left, top = np.clip(np.floor(x), 0, width - 2).astype(int), np.clip(np.floor(y), 0, height - 2).astype(int)
    right, low = np.clip(x - left, 0, 1)[..., None], np.clip(y - top, 0, 1)[..., None]
    frame = frame.astype(np.float64)
    above = frame[top, left] * (1 - right) + frame[top, left + 1] * right
    below = frame[top + 1, left] * (1 - right) + frame[top + 1, left + 1] * right
    return above * (1 - low) + below * low, inside


def inconsistency(sample):
    """Median difference in grey levels between the first frame and the second one warped to it."""
    seen, inside = warp(sample.second, sample.flow)
    known = inside & sample.valid
    assert known.mean() > 0.3
    return np.median(np.abs(seen - sample.first)[known])


@pytest.mark.parametrize("size", [(24, 32), (48, 64), (18, 24), (31, 50)])
def test_flow_values_scale_with_width_and_height(size):
    flow, valid = resize_flow(shifted().flow, shifted().valid, size)
    assert valid.all()
    assert flow.dtype == np.float32
    np.testing.assert_allclose(flow, np.broadcast_to((3 * size[1] / 32, -2 * size[0] / 24), (*size, 2)), rtol=1e-6)


@pytest.mark.parametrize("size", [(60, 55), (33, 29)])
def test_resized_linear_flow_is_the_linear_flow_of_the_scaled_motion(size):
    matrix, shift, old = np.array([[0.05, -0.1], [0.08, 0.02]]), np.array([1.5, -0.5]), (40, 36)
    scale = np.diag([size[1] / old[1], size[0] / old[0]])
    wanted = linear_flow(size, scale @ matrix @ np.linalg.inv(scale), scale @ shift)
    got, _ = resize_flow(linear_flow(old, matrix, shift), np.ones(old, dtype=bool), size)
    np.testing.assert_allclose(got[2:-2, 2:-2], wanted[2:-2, 2:-2], atol=1e-4)


def test_dense_resizing_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    flow = np.random.default_rng(0).normal(size=(20, 30, 2)).astype(np.float32)
    got, _ = resize_flow(flow, np.ones((20, 30), dtype=bool), (33, 41))
    wanted = cv2.resize(flow, (41, 33), interpolation=cv2.INTER_LINEAR) * [41 / 30, 33 / 20]
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_unknown_flow_does_not_bleed_into_known_flow():
    flow, valid = np.full((20, 20, 2), 7, dtype=np.float32), np.ones((20, 20), dtype=bool)
    valid[5:9, 6:12] = False
    flow[~valid] = 0
    resized, known = resize_flow(flow, valid, (33, 30))
    assert 0.8 < known.mean() < 1
    np.testing.assert_allclose(resized[known], np.broadcast_to((7 * 1.5, 7 * 1.65), (known.sum(), 2)), rtol=1e-5)
    assert not resized[~known].any()


@pytest.mark.parametrize("size", [(26, 40), (21, 31)])
def test_sparse_flow_moves_to_the_nearest_pixel(size):
    rng = np.random.default_rng(0)
    valid = rng.random((20, 30)) < 0.1
    flow = np.where(valid[..., None], rng.normal(size=(20, 30, 2)), 0).astype(np.float32)
    moved, known = resize_flow(flow, valid, size, sparse=True)
    assert known.sum() == valid.sum()
    assert not moved[~known].any()
    ratio = size[1] / 30, size[0] / 20
    for y, x in np.argwhere(known):
        from_x, from_y = (x + 0.5) / ratio[0] - 0.5, (y + 0.5) / ratio[1] - 0.5
        sources = np.argwhere(valid)
        nearest = sources[np.argmin(np.abs(sources - (from_y, from_x)).max(axis=1))]
        np.testing.assert_allclose(moved[y, x], flow[tuple(nearest)] * ratio, rtol=1e-6)


def test_sparse_flow_survives_shrinking_where_dense_resizing_would_lose_it():
    valid = np.zeros((40, 40), dtype=bool)
    valid[::4, ::4] = True
    flow = np.repeat(2 * valid[..., None].astype(np.float32), 2, axis=2)
    _, dense = resize_flow(flow, valid, (32, 32))
    moved, sparse = resize_flow(flow, valid, (32, 32), sparse=True)
    assert dense.sum() == 0
    assert sparse.sum() == valid.sum()
    np.testing.assert_allclose(moved[sparse], 1.6, rtol=1e-6)


@pytest.mark.parametrize(
    ("flip", "signs"), [((False, True), (-1, 1)), ((True, False), (1, -1)), ((True, True), (-1, -1))]
)
def test_flips_change_the_signs_that_the_mirrored_frames_have(flip, signs):
    sample = shifted()
    mirrored = change_geometry(sample, FlowGeometry((24, 32), flip, (0, 0)), (24, 32))
    np.testing.assert_array_equal(mirrored.flow[0, 0], np.array([3, -2]) * signs)
    assert inconsistency(mirrored) == 0  # the texture moves by whole pixels, so the warp is exact
    assert inconsistency(replace(mirrored, flow=sample.flow)) > 30


@pytest.mark.parametrize("flip", [(False, True), (True, False)])
def test_flipped_linear_flow_is_the_linear_flow_of_the_mirrored_motion(flip):
    matrix, shift, size = np.array([[0.05, -0.1], [0.08, 0.02]]), np.array([1.5, -0.5]), (20, 30)
    sample = replace(shifted(size=size), flow=linear_flow(size, matrix, shift))
    mirror = np.diag([-1 if flip[1] else 1, -1 if flip[0] else 1])
    corner = np.array([size[1] if flip[1] else 0, size[0] if flip[0] else 0])
    wanted = linear_flow(size, mirror @ matrix @ mirror, mirror @ (matrix @ corner + shift))
    got = change_geometry(sample, FlowGeometry(size, flip, (0, 0)), size)
    np.testing.assert_allclose(got.flow, wanted, atol=1e-5)


@pytest.mark.parametrize("size", [(33, 41), (17, 60)])
def test_resized_frames_are_torchvisions(size):
    sample = shifted()
    got = change_geometry(sample, FlowGeometry(size, (False, False), (0, 0)), size)
    theirs = transforms.resize(torch.from_numpy(sample.first.copy()).permute(2, 0, 1), size, antialias=False)
    np.testing.assert_allclose(got.first.astype(int), theirs.permute(1, 2, 0), atol=1)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("flip", [(False, False), (False, True), (True, False), (True, True)])
def test_a_crop_is_a_window_of_the_whole_resized_and_flipped(flip, sparse):
    valid = np.random.default_rng(1).random((24, 32)) < (0.1 if sparse else 0.9)
    sample = replace(shifted(), valid=valid, flow=shifted().flow * valid[..., None], sparse=sparse)
    whole = change_geometry(sample, FlowGeometry((37, 45), (False, False), (0, 0)), (37, 45))
    turns = tuple(slice(None, None, -1 if turned else 1) for turned in flip)
    got = change_geometry(sample, FlowGeometry((37, 45), flip, (5, 11)), (20, 30))
    for name in ("first", "second", "valid"):
        np.testing.assert_allclose(getattr(got, name), getattr(whole, name)[turns][5:25, 11:41], atol=1)
    signs = [-1 if flip[1] else 1, -1 if flip[0] else 1]
    np.testing.assert_allclose(got.flow, whole.flow[turns][5:25, 11:41] * signs, atol=1e-5)


def test_a_crop_is_a_window_of_everything():
    valid = np.random.default_rng(1).random((24, 32)) < 0.5
    sample = replace(shifted(), valid=valid, flow=shifted().flow * valid[..., None])
    got = change_geometry(sample, FlowGeometry((24, 32), (False, False), (4, 7)), (10, 12))
    for name in ("first", "second", "flow", "valid"):
        np.testing.assert_array_equal(getattr(got, name), getattr(sample, name)[4:14, 7:19])


@pytest.mark.parametrize("seed", range(6))
def test_flow_of_an_augmented_world_leads_to_what_was_seen_and_no_other_flow_does(seed):
    settings = WorldSettings(
        size=(96, 128),
        objects=(1, 2),
        textures=TextureSettings(tiles=8, tile_size=128, sharpness=(0.2, 0.3)),
        motion=MotionSettings(still_camera=0, displacement=(0.05, 0.1)),
        effects=CLEAR,
    )
    world = WorldFlow(settings, [seed])[0]
    augment = FlowAugment(spatial_probability=1, horizontal_flip=0.5, vertical_flip=0.5, **NO_COLOUR)
    sample = augment_flow(world, augment, (80, 96), generator(seed, "test"))
    wrong = [
        inconsistency(replace(sample, flow=sample.flow * np.float32(factors)))
        for factors in ((-1, 1), (1, -1), (0.8, 0.8), (1.25, 1.25), (0, 0))
    ]
    assert inconsistency(sample) < 1.6 * inconsistency(world)
    assert inconsistency(sample) < 0.8 * min(wrong)


def test_the_same_generator_state_gives_the_same_sample():
    first, second, other = (
        augment_flow(shifted(), FlowAugment(), (16, 20), generator(seed, "test")) for seed in (5, 5, 6)
    )
    for name in ("first", "second", "flow", "valid"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.first, other.first)


@pytest.mark.parametrize(
    "changes", [{"spatial_probability": 0}, {"asymmetric_probability": 1}, {"stretch": 0, "hue": 0}]
)
def test_settings_do_not_change_how_much_is_drawn(changes):
    generators = generator(0, "test"), generator(0, "test")
    for settings, numbers in zip((FlowAugment(), FlowAugment(**changes)), generators, strict=True):
        augment_flow(shifted(), settings, (16, 20), numbers)
    assert generators[0].random() == generators[1].random()


@pytest.mark.parametrize("size", [(24, 32), (10, 60), (7, 5)])
@pytest.mark.parametrize("probability", [0, 1])
def test_small_frames_are_enlarged_until_the_crop_fits(size, probability):
    crop = (40, 48)
    sample = shifted(1, 1, size)
    for seed in range(5):
        got = augment_flow(sample, FlowAugment(spatial_probability=probability), crop, generator(seed, "test"))
        assert got.first.shape == got.second.shape == (*crop, 3)
        assert got.flow.shape == (*crop, 2)
        assert got.valid.shape == crop
        assert got.valid.all()


def test_without_resizing_large_frames_keep_their_size():
    geometry = draw_geometry(STILL, (24, 32), (16, 20), generator(0, "test"))
    assert geometry.size == (24, 32)


def test_resized_frames_are_larger_than_the_crop_by_the_margin():
    settings = FlowAugment(spatial_probability=1, scale=(-2, -2), stretch=0)
    geometry = draw_geometry(settings, (100, 200), (60, 80), generator(0, "test"))
    assert geometry.size == (68, 136)  # both by max((60 + 8) / 100, (80 + 8) / 200)


def test_factors_fill_the_ranges_of_the_paper():
    settings = FlowAugment(spatial_probability=1, stretch_probability=1)
    sizes = np.array([draw_geometry(settings, (1000, 1000), (10, 10), generator(i, "test")).size for i in range(800)])
    powers = np.log2(sizes / 1000)
    assert -0.401 < powers.min() < -0.3
    assert 0.6 < powers.max() < 0.701
    assert 0.25 < np.abs(powers[:, 0] - powers[:, 1]).max() < 0.402


@pytest.mark.parametrize(("last", "furthest"), [(True, 8), (False, 7)])
def test_the_last_position_of_the_crop_is_drawn_unless_asked_not_to(last, furthest):
    settings = STILL.model_copy(update={"last_crop_position": last})
    corners = [draw_geometry(settings, (24, 32), (16, 24), generator(i, "test")).corner for i in range(300)]
    assert {row for row, _ in corners} == {column for _, column in corners} == set(range(furthest + 1))


def test_a_crop_of_the_whole_frame_needs_no_room():
    for last in (True, False):
        settings = STILL.model_copy(update={"last_crop_position": last})
        got = augment_flow(shifted(), settings, (24, 32), generator(0, "test"))
        np.testing.assert_array_equal(got.first, shifted().first)


def test_flips_happen_as_often_as_they_should():
    flips = np.array([draw_geometry(FlowAugment(), (24, 32), (16, 20), generator(i, "test")).flip for i in range(1000)])
    np.testing.assert_allclose(flips.mean(axis=0), (0.1, 0.5), atol=0.05)


def test_springs_finer_flow_comes_on_the_grid_of_the_frames():
    sample = shifted()
    fine = np.random.default_rng(0).normal(size=(48, 64, 2)).astype(np.float32)
    valid = fine[..., 0] > 0
    fine[~valid] = 0
    sample = replace(sample, flow=fine, valid=valid, flow_scale=2)
    got = augment_flow(sample, STILL, (24, 32), generator(0, "test"))
    assert got.flow_scale == 1
    np.testing.assert_array_equal(got.flow, fine[::2, ::2])
    np.testing.assert_array_equal(got.valid, valid[::2, ::2])


def test_occlusions_are_dropped_and_names_are_kept():
    got = augment_flow(replace(shifted(), sequence="s"), FlowAugment(), (16, 20), generator(0, "test"))
    assert got.occluded is None
    assert got.name == "shifted"
    assert got.sequence == "s"


def test_equal_frames_change_colours_alike_unless_asymmetric():
    sample = shifted(0, 0)
    for probability in (0, 1):
        got = augment_flow(sample, FlowAugment(asymmetric_probability=probability), (16, 20), generator(1, "test"))
        assert np.array_equal(got.first, got.second) == (probability == 0)


def test_joint_contrast_refers_to_the_mean_of_both_frames():
    first, second = np.full((4, 6, 3), 40, dtype=np.uint8), np.full((4, 6, 3), 200, dtype=np.uint8)
    contrast = Jitter(order=(1,), factors=(1.0, 0.5, 1.0, 0.0))
    together, apart = change_colours(first, second, (contrast,)), change_colours(first, second, (contrast, contrast))
    np.testing.assert_allclose([frame.mean() for frame in together], [80, 160], atol=1)  # halfway to 120
    np.testing.assert_allclose([frame.mean() for frame in apart], [40, 200], atol=1)


def test_jitter_is_drawn_around_no_change_in_any_order():
    drawn = [draw_jitter((0.4, 0.3, 0.2, 0.1), generator(i, "test")) for i in range(500)]
    factors = np.array([jitter.factors for jitter in drawn])
    centre, reach = np.array([1, 1, 1, 0]), np.array([0.4, 0.3, 0.2, 0.1])
    assert (np.abs(factors - centre) <= reach).all()
    assert (np.abs(factors - centre).max(axis=0) > 0.95 * reach).all()
    assert len({jitter.order for jitter in drawn}) == 24


def test_jitter_that_changes_nothing_changes_nothing():
    got = augment_flow(shifted(), STILL, (24, 32), generator(0, "test"))
    np.testing.assert_array_equal(got.second, shifted().second)


def test_a_crop_without_pixels_is_refused():
    with pytest.raises(ValueError, match="at least 1 x 1 pixels, got 0 x 20"):
        augment_flow(shifted(), FlowAugment(), (0, 20), generator(0, "test"))


def test_a_range_the_wrong_way_round_is_refused():
    with pytest.raises(ValidationError, match=r"scale is a range \[least, most\]"):
        FlowAugment(scale=(0.5, -0.2))
