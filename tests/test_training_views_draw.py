"""What is random about the views of a pair: boxes, flips, colours, and what they depend on."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from midway_hub.training.data.needs import Crops, Frames, Needs
from midway_hub.training.data.views import DinoViews, ViewSettings, draw_views
from midway_hub.training.data.views.boxes import random_box

SIZE = (720, 1280)
GROUPS = ("globals", "locals", "dense")


def needs(settings, groups=GROUPS):
    """What settings ask for, cut down to some groups and what they are cut from."""
    asked = settings.needs()
    return replace(asked, crops={name: crops for name, crops in asked.crops.items() if name in {*groups, "initial"}})


def draw(seed=0, groups=GROUPS, size=SIZE, **settings):
    return draw_views(needs(ViewSettings(**settings), groups), size, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def many():
    return [draw(seed) for seed in range(500)]


def within(boxes, outer):
    top, left, height, width = outer
    ends = boxes[:, :2] + boxes[:, 2:]
    return (boxes[:, :2] >= (top, left)).all() and (ends <= (top + height, left + width)).all()


def test_box_areas_and_aspects_lie_in_their_ranges():
    generator = np.random.default_rng(0)
    boxes = np.array([random_box((0, 0, 1000, 1500), (0.2, 0.4), (3 / 4, 4 / 3), generator) for _ in range(1000)])
    areas, aspects = boxes[:, 2] * boxes[:, 3] / 1.5e6, boxes[:, 3] / boxes[:, 2]
    assert 0.199 < areas.min() < 0.21
    assert 0.39 < areas.max() < 0.401
    assert 0.748 < aspects.min() < 0.77
    assert 1.3 < aspects.max() < 1.336
    assert abs(areas.mean() - 0.3) < 0.01
    assert abs(np.log(aspects).mean()) < 0.02


def test_boxes_agree_in_distribution_with_torchvision():
    import torch
    from torchvision.transforms.v2 import RandomResizedCrop

    torch.manual_seed(0)
    theirs = RandomResizedCrop(10, scale=(0.4, 1.0))
    frame = torch.empty(3, 300, 400)
    reference = np.array([list(theirs.make_params([frame]).values())[:4] for _ in range(3000)])
    generator = np.random.default_rng(1)
    ours = np.array([random_box((0, 0, 300, 400), (0.4, 1.0), (3 / 4, 4 / 3), generator) for _ in range(3000)])
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.quantile(ours, quantile, axis=0) == pytest.approx(np.quantile(reference, quantile, axis=0), abs=12)


@pytest.mark.parametrize(
    ("outer", "expected"),
    [((5, 7, 100, 10), (48, 7, 13, 10)), ((5, 7, 10, 100), (5, 50, 10, 13)), ((5, 7, 10, 10), (5, 7, 10, 10))],
)
def test_where_no_box_fits_the_largest_centred_one_is_taken(outer, expected):
    tall_and_wide = (0.99, 1.0) if outer[2] != outer[3] else (1.2, 1.2)
    assert random_box(outer, tall_and_wide, (3 / 4, 4 / 3), np.random.default_rng(0)) == expected


def test_globals_and_locals_lie_in_the_initial_crop(many):
    for one in many:
        assert within(one.groups["globals"].boxes, one.outer["initial"])
        assert within(one.groups["locals"].boxes, one.outer["initial"])


def test_areas_of_initial_global_local_and_dense_boxes_are_those_of_the_settings(many):
    def shares(group, outer):
        return [np.prod(one.groups[group].boxes[:, 2:], axis=1) / np.prod(outer(one)[2:]) for one in many]

    initial = np.array([np.prod(one.outer["initial"][2:]) / np.prod(SIZE) for one in many])
    globals_, locals_ = (
        np.concatenate(shares(group, lambda one: one.outer["initial"])) for group in ("globals", "locals")
    )
    dense = np.concatenate(shares("dense", lambda one: (0, 0, *SIZE)))
    for values, low, high in ((initial, 0.05, 0.2), (globals_, 0.4, 1), (locals_, 0.05, 0.4), (dense, 0.2, 0.4)):
        assert low * 0.97 <= values.min() < low * 1.2
        assert high * 0.9 < values.max() <= high * 1.03


def test_without_an_initial_crop_boxes_come_from_the_whole_frame():
    one = draw(initial_area=None, global_area=(1.0, 1.0), size=(100, 100), aspect=(1, 1))
    assert one.outer == {}
    assert one.groups["globals"].boxes.tolist() == [[0, 0, 100, 100]] * 4


def test_both_frames_share_global_and_dense_boxes_and_global_flips(many):
    for one in many:
        globals_, dense = one.groups["globals"], one.groups["dense"]
        assert (globals_.boxes[:2] == globals_.boxes[2:]).all()
        assert (globals_.flips[:2] == globals_.flips[2:]).all()
        assert (dense.boxes[0] == dense.boxes[1]).all()
        assert not dense.flips.any()


def test_the_two_global_boxes_differ(many):
    assert all((one.groups["globals"].boxes[0] != one.groups["globals"].boxes[1]).any() for one in many)


def test_local_boxes_and_flips_of_the_two_frames_are_independent(many):
    areas = np.array(
        [np.prod(one.groups["locals"].boxes[[0, 8], 2:], axis=1) / np.prod(one.outer["initial"][2:]) for one in many]
    )
    flips = np.array([one.groups["locals"].flips[[0, 8]] for one in many])
    assert abs(np.corrcoef(areas.T)[0, 1]) < 0.12
    assert abs(np.corrcoef(flips.T)[0, 1]) < 0.12


def test_colours_are_drawn_for_each_view_of_each_frame(many):
    factors = np.array([one.groups["globals"].colour.factors[:, 0] for one in many])
    correlation = np.corrcoef(factors.T)
    assert np.abs(correlation - np.eye(4)).max() < 0.15


@pytest.mark.parametrize(
    ("group", "change", "expected"),
    [
        ("globals", lambda colour: colour.jitter, [0.8] * 4),
        ("globals", lambda colour: colour.grayscale, [0.2] * 4),
        ("globals", lambda colour: colour.blur > 0, [1.0, 0.1, 1.0, 0.1]),
        ("globals", lambda colour: colour.solarise, [0.0, 0.2, 0.0, 0.2]),
        ("locals", lambda colour: colour.jitter, [0.8] * 16),
        ("locals", lambda colour: colour.grayscale, [0.2] * 16),
        ("locals", lambda colour: colour.blur > 0, [0.5] * 16),
        ("locals", lambda colour: colour.solarise, [0.0] * 16),
        ("dense", lambda colour: colour.blur > 0, [1.0, 0.1]),
        ("dense", lambda colour: colour.solarise, [0.0, 0.2]),
    ],
)
def test_changes_come_as_often_as_their_recipe_says(many, group, change, expected):
    frequency = np.mean([change(one.groups[group].colour) for one in many], axis=0)
    assert frequency == pytest.approx(expected, abs=0.09)
    for value, wanted in zip(frequency, expected, strict=True):
        assert wanted not in (0, 1) or value == wanted


def test_flips_come_half_of_the_time(many):
    assert np.mean([one.groups["globals"].flips[:2] for one in many]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([one.groups["locals"].flips for one in many]) == pytest.approx(0.5, abs=0.03)


def test_factors_span_their_ranges(many):
    factors = np.concatenate([one.groups["locals"].colour.factors for one in many])
    assert factors.min(axis=0) == pytest.approx([0.6, 0.6, 0.8, -0.1], abs=0.01)
    assert factors.max(axis=0) == pytest.approx([1.4, 1.4, 1.2, 0.1], abs=0.01)
    blur = np.concatenate([one.groups["locals"].colour.blur for one in many])
    assert blur[blur > 0].min() == pytest.approx(0.1, abs=0.01)
    assert blur.max() == pytest.approx(2.0, abs=0.01)


def test_all_orders_of_the_jitter_operations_come_equally_often(many):
    orders = np.concatenate([one.groups["locals"].colour.order for one in many])
    kinds, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(kinds) == 24
    assert counts / len(orders) == pytest.approx(np.full(24, 1 / 24), abs=0.01)


def test_without_dense_colour_the_dynamics_views_keep_their_colours_and_their_boxes():
    kept, changed = draw(dense_colour=False).groups["dense"], draw().groups["dense"]
    assert not (kept.colour.jitter | kept.colour.grayscale | kept.colour.solarise).any()
    assert not kept.colour.blur.any()
    assert (kept.boxes == changed.boxes).all()


def test_the_same_generator_gives_the_same_draw():
    assert pickle.dumps(draw(3)) == pickle.dumps(draw(3))
    assert pickle.dumps(draw(3)) != pickle.dumps(draw(4))


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_does_not_depend_on_which_others_are_drawn(group):
    assert pickle.dumps(draw(groups=(group,)).groups[group]) == pickle.dumps(draw().groups[group])


def test_the_generator_moves_on_by_the_same_amount_whatever_is_drawn():
    generators = [np.random.default_rng(0) for _ in range(2)]
    draw_views(ViewSettings().needs(), SIZE, generators[0])
    draw_views(needs(ViewSettings(initial_area=None, local_count=1), ("dense",)), (90, 120), generators[1])
    assert generators[0].random() == generators[1].random()


def test_the_number_of_locals_leaves_the_globals_as_they_are():
    few, many_ = draw(local_count=2).groups["globals"], draw(local_count=8).groups["globals"]
    assert pickle.dumps(few) == pickle.dumps(many_)


def test_a_draw_survives_pickling_and_is_small():
    one = draw()
    data = pickle.dumps(one)
    assert len(data) < 8000
    assert (pickle.loads(data).groups["locals"].boxes == one.groups["locals"].boxes).all()


def test_frames_of_two_pixels_can_be_drawn_for_and_smaller_ones_are_refused():
    assert (draw(size=(2, 2)).groups["locals"].boxes[:, 2:] >= 1).all()
    with pytest.raises(ValueError, match=r"1×1280 pixels, views need at least 2×2"):
        draw(size=(1, 1280))


PAIR = Frames("pair", 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"crops": {"small": Crops((8, 8), within="large")}},
            "group small is cut from 'large', which has to stand before",
        ),
        ({"crops": {"late": Crops((8, 8), frames=(2,))}}, r"group late is cut from frames \(2,\); a clip has 0 to 1"),
        ({"crops": {"a/b": Crops((8, 8))}}, "cannot be called 'a/b'"),
        ({"crops": {}, "flow": ((0, 1),), "flow_on": "none"}, "flow goes with a group of one unmirrored box"),
        ({"crops": {"own": Crops((8, 8))}, "flow": ((0, 1),), "flow_on": "own"}, "that all frames share"),
        (
            {"crops": {"flip": Crops((8, 8), same_box=True, flip=0.5)}, "flow": ((0, 1),), "flow_on": "flip"},
            "unmirrored",
        ),
    ],
)
def test_needs_that_cannot_be_met_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Needs(PAIR, **arguments)


@pytest.mark.parametrize(("kind", "count"), [("single", 2), ("pair", 1), ("sandwich", 2), ("window", 0)])
def test_a_clip_has_the_frames_of_its_kind(kind, count):
    with pytest.raises(ValueError, match=rf"a {kind} has"):
        Frames(kind, count)


def test_views_of_a_window_come_frame_by_frame_and_share_boxes_where_they_are_to():
    window = Needs(
        Frames("window", 3),
        {"shared": Crops((20, 30), 2, same_box=True, flip=0.5), "own": Crops((16, 16), 2, frames=(0, 2))},
    )
    drawn = draw_views(window, SIZE, np.random.default_rng(0)).groups
    assert drawn["shared"].size == (20, 30)
    assert drawn["shared"].frames.tolist() == [0, 0, 1, 1, 2, 2]
    assert (drawn["shared"].boxes.reshape(3, 2, 4) == drawn["shared"].boxes[:2]).all()
    assert drawn["own"].frames.tolist() == [0, 0, 2, 2]
    assert len({tuple(box) for box in drawn["own"].boxes.tolist()}) == 4


def test_affines_stay_in_their_ranges_and_are_drawn_for_each_view():
    crops = Crops((64, 128), aspect=(2, 2), same_box=True, rotate=10, scale=(0.9, 1.1), affine_flip=0.5)
    drawn = [
        draw_views(Needs(PAIR, {"crops": crops}), SIZE, np.random.default_rng(seed)).groups["crops"].affine
        for seed in range(300)
    ]
    maps = np.stack(drawn).reshape(-1, 2, 3).astype(float)
    assert not maps[..., 2].any()  # around the middle
    to_pixels = np.diag([64.0, 32.0])
    linear = to_pixels @ maps[..., :2] @ np.linalg.inv(to_pixels)
    lengths = np.linalg.norm(linear, axis=1)
    assert np.allclose(lengths[:, 0], lengths[:, 1], atol=1e-6)
    assert np.allclose((linear[:, :, 0] * linear[:, :, 1]).sum(1), 0, atol=1e-6)
    assert (1 / lengths).min() > 0.899
    assert (1 / lengths).max() < 1.101
    angles = np.degrees(np.arctan2(linear[:, 1, 1], linear[:, 0, 1])) - 90
    assert 9 < np.abs(angles).max() < 10.001
    assert (np.linalg.det(linear) < 0).mean() == pytest.approx(0.5, abs=0.08)
    assert np.abs(np.stack(drawn)[:, 0] - np.stack(drawn)[:, 1]).max() > 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"global_area": (0.9, 0.4)}, "lower end 0.9 is above the upper end 0.4"),
        ({"local_area": (0.0, 0.4)}, "greater than 0"),
        ({"dense_area": (0.2, 1.4)}, "less than or equal to 1"),
        ({"local_size": 8}, "greater than or equal to 16"),
        ({"blur_radius": (0.1, 9.0)}, "less than or equal to 5"),
        ({"jitter": (0.4, 0.4, 0.2, 0.6)}, "less than or equal to 0.5"),
        ({"global_1": {"blur": 1.5, "solarise": 0}}, "less than or equal to 1"),
        ({"local_number": 8}, "Extra inputs"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        ViewSettings(**changes)


def test_needs_describe_their_groups():
    lines = needs(ViewSettings(local_count=6), ("locals", "dense")).describe()
    assert lines[1].startswith("locals: 6 boxes of every frame, 96 px, area 0.05–0.4 within initial")
    assert lines[2].startswith("dense: 1 box shared by all frames, 224 px, area 0.2–0.4 of the frame")
    assert len(lines) == 3
    assert "initial" not in " ".join(ViewSettings(initial_area=None).needs().describe())


def test_views_of_one_frame_are_those_of_dino_itself():
    asked = DinoViews(frames=1, initial_area=None, local_count=3).needs()
    assert asked.frames.count == 1
    drawn = draw_views(asked, SIZE, np.random.default_rng(0)).groups
    assert {name: len(crops) for name, crops in drawn.items()} == {"globals": 2, "locals": 3}


def test_what_only_dynamics_read_is_no_part_of_dinos_views_and_may_still_be_named():
    assert "dense_size" not in DinoViews.model_fields
    assert DinoViews(dense_size=32) == DinoViews()
