import math

import numpy as np
import pytest
import torch
from PIL import Image

from midway_hub.drawing import heat_colours, inset
from midway_hub.flow_io import draw_arrows, error_legend, error_picture, flow_picture, flow_wheel
from midway_hub.label_pictures import class_legend, label_map, most_common, overlay_labels

PALETTE = ((128, 64, 128), (244, 35, 232), (70, 70, 70))
GREY = (128, 128, 128)


def random_flow(height=20, width=30, spread=5.0):
    return np.random.default_rng(0).normal(0, spread, (height, width, 2)).astype(np.float32)


def colour_of(x, y, largest):
    """The colour of one vector."""
    return flow_picture(np.full((1, 1, 2), (x, y)), largest=largest).getpixel((0, 0))


# -- flow ----------------------------------------------------------------------------------------------------------


def test_colours_are_torchvisions():
    flow_to_image = pytest.importorskip("torchvision.utils").flow_to_image
    flow = random_flow()
    theirs = flow_to_image(torch.from_numpy(flow).movedim(-1, 0)).movedim(0, -1).numpy().astype(int)
    assert np.abs(np.asarray(flow_picture(flow)).astype(int) - theirs).max() <= 1


def test_under_a_fixed_maximum_a_vector_has_one_colour_in_every_picture():
    flow = random_flow()
    whole = np.asarray(flow_picture(flow, largest=40.0))
    assert (whole[:4, :4] == np.asarray(flow_picture(flow[:4, :4], largest=40.0))).all()
    assert (whole != np.asarray(flow_picture(flow))).any()


@pytest.mark.parametrize("angle", np.linspace(0, 2 * math.pi, 23))
def test_flow_beyond_the_maximum_has_the_full_colour_of_its_direction(angle):
    x, y = math.cos(angle), math.sin(angle)
    assert colour_of(3 * x, 3 * y, 3.0) == colour_of(500 * x, 500 * y, 3.0)
    faint = np.array(colour_of(0.5 * x, 0.5 * y, 3.0), dtype=int)
    assert (faint >= np.array(colour_of(3 * x, 3 * y, 3.0), dtype=int)).all()


def test_no_motion_is_white():
    assert np.asarray(flow_picture(np.zeros((2, 3, 2)))).min() == 255


def test_what_is_unknown_or_not_finite_is_grey_and_changes_no_other_colour():
    flow = random_flow()
    known = np.asarray(flow_picture(flow, largest=9.0))
    flow[0, 0], flow[1, 1, 0] = np.nan, np.inf
    valid = np.ones(flow.shape[:2], dtype=bool)
    valid[2, 2] = False
    seen = np.asarray(flow_picture(flow, valid=valid, largest=9.0))
    grey = np.zeros_like(valid)
    grey[0, 0] = grey[1, 1] = grey[2, 2] = True
    assert (seen[grey] == GREY).all()
    assert (seen[~grey] == known[~grey]).all()


def test_a_picture_of_nothing_known_is_grey():
    assert (np.asarray(flow_picture(np.full((2, 3, 2), np.nan))) == 128).all()


def test_the_wheel_shows_the_colour_of_flow_towards_every_side():
    size = 201
    wheel = flow_wheel(8.0, size=size)
    assert wheel.size == (size, size)
    radius = 100 - max(10, size // 11) - 4
    for x, y in [(1, 0), (0, 1), (-1, 0), (0.6, -0.8)]:
        share = 0.75
        seen = np.array(wheel.getpixel((round(100 + share * radius * x), round(100 + share * radius * y))), dtype=int)
        assert np.abs(seen - colour_of(8 * share * x, 8 * share * y, 8.0)).max() <= 12
    assert wheel.getpixel((0, 0)) == (255, 255, 255)


def test_the_wheel_states_its_maximum():
    assert (np.asarray(flow_wheel(8.0)) != np.asarray(flow_wheel(30.0))).any()


def test_an_arrow_ends_where_the_pixel_goes():
    flow = np.zeros((60, 60, 2))
    flow[...] = (20, 10)
    picture = np.asarray(draw_arrows(Image.new("RGB", (60, 60)), flow, step=60, colour=(255, 0, 0)))
    red = np.argwhere(picture[..., 0] > 200)
    assert red.min(axis=0) == pytest.approx([30, 30], abs=3)
    assert red.max(axis=0) == pytest.approx([40, 50], abs=4)


def test_under_a_maximum_the_longest_arrow_spans_the_grid():
    flow = np.zeros((60, 60, 2))
    flow[...] = (0.5, 0)
    picture = np.asarray(draw_arrows(Image.new("RGB", (60, 60)), flow, step=20, largest=0.5, colour=(255, 0, 0)))
    middle = picture[30, :, 0] > 200
    assert middle[10:60].mean() > 0.9


def test_arrows_that_lead_far_away_leave_the_picture():
    flow = np.full((60, 60, 2), (1e30, 0))
    picture = np.asarray(draw_arrows(Image.new("RGB", (60, 60)), flow, step=60, colour=(255, 0, 0)))
    assert (picture[30, 32:, 0] > 200).all()


def test_arrows_leave_out_what_is_unknown():
    frame = Image.new("RGB", (64, 64), (10, 20, 30))
    assert (np.asarray(draw_arrows(frame, np.full((64, 64, 2), np.nan))) == (10, 20, 30)).all()
    assert (np.asarray(draw_arrows(frame, np.zeros((64, 64, 2)), valid=np.zeros((64, 64)))) == (10, 20, 30)).all()


def test_errors_run_from_dark_to_bright_and_are_grey_where_the_truth_is_unknown():
    error = np.array([[0.0, 2.5, 5.0, 50.0, np.nan, 1.0]])
    seen = np.asarray(error_picture(error, valid=np.array([[1, 1, 1, 1, 1, 0]]), largest=5.0))[0]
    assert (seen[:3] == heat_colours(np.array([[0.0, 0.5, 1.0]]), top=1.0)[0]).all()
    assert (seen[3] == seen[2]).all()
    assert (seen[4:] == GREY).all()
    assert error_legend(5.0).width > 100


@pytest.mark.parametrize("largest", [0, -1, math.nan, math.inf])
def test_a_maximum_that_is_no_length_is_refused(largest):
    for draw in (
        lambda: flow_picture(random_flow(), largest=largest),
        lambda: flow_wheel(largest),
        lambda: error_picture(np.zeros((2, 2)), largest=largest),
        lambda: draw_arrows(Image.new("RGB", (30, 20)), random_flow(), largest=largest),
    ):
        with pytest.raises(ValueError, match="largest must be a positive number"):
            draw()


def test_arrows_on_a_picture_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"flow is that of 30×20 .* image has .30, 21."):
        draw_arrows(Image.new("RGB", (30, 21)), random_flow())


def test_a_legend_goes_into_the_corner_unless_it_would_hide_too_much():
    picture, legend = Image.new("RGB", (100, 80), (1, 2, 3)), Image.new("RGB", (40, 30), (9, 9, 9))
    marked = np.asarray(inset(picture, legend))
    assert (marked[50:, 60:] == 9).all()
    assert (marked[:50] == (1, 2, 3)).all()
    assert (np.asarray(inset(picture, legend.resize((60, 10)))) == (1, 2, 3)).all()


# -- classes -------------------------------------------------------------------------------------------------------


def test_classes_are_laid_over_the_frame_by_their_opacity():
    frame = Image.new("RGB", (3, 1), (200, 100, 0))
    seen = np.asarray(overlay_labels(frame, np.array([[0, 1, 255]]), PALETTE, opacity=0.25))[0]
    assert seen[0].tolist() == [182, 91, 32]
    assert seen[1].tolist() == [211, 84, 58]
    assert seen[2].tolist() == [200, 100, 0]


def test_a_label_map_holds_the_numbers_and_the_palette(tmp_path):
    labels = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    label_map(labels, PALETTE).save(tmp_path / "labels.png")
    read = Image.open(tmp_path / "labels.png")
    assert read.mode == "P"
    assert (np.asarray(read) == labels).all()
    assert np.asarray(read.convert("RGB")).reshape(-1, 3).tolist() == [*map(list, PALETTE), [0, 0, 0]]


def test_the_most_common_classes_come_in_the_order_of_their_numbers():
    labels = np.array([[4, 4, 4, 2, 2, 7, 255, 255, 255, 255]])
    assert most_common(labels, 2) == [2, 4]
    assert most_common(labels, 9) == [2, 4, 7]


def test_a_legend_shows_the_colour_of_every_class_it_lists():
    legend = np.asarray(class_legend(("road", "a much longer name", "wall"), PALETTE, [0, 2]))
    colours = {tuple(pixel) for pixel in legend.reshape(-1, 3).tolist()}
    assert PALETTE[0] in colours
    assert PALETTE[2] in colours
    assert PALETTE[1] not in colours


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([[0, 3]]), "labels hold 3; there are classes 0 to 2, and 255"),
        (np.array([[0, -1]]), "labels hold -1"),
        (np.array([[0.0, 1.0]]), "whole numbers"),
        (np.array([0, 1]), "of shape"),
        (np.array([[0], [1]]), "the frame has 1×2"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        overlay_labels(Image.new("RGB", (2, 1)), labels, PALETTE)


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1e-3, 1e18, 1e25, 1e38])
def test_flow_of_every_magnitude_has_the_colours_of_its_parts_of_the_longest(scale):
    flow = random_flow(spread=0.5).astype(np.float64)
    seen, wanted = np.asarray(flow_picture(flow * scale)).astype(int), np.asarray(flow_picture(flow)).astype(int)
    assert np.abs(seen - wanted).max() <= (1 if scale > 1e-38 else 8)  # below, float32 has few digits


@pytest.mark.parametrize("largest", [1e-30, 1.0, 1e30])
def test_a_maximum_far_from_the_flow_leaves_colours_of_directions(largest):
    flow = np.full((2, 2, 2), (3e38, -3e38))
    assert flow_picture(flow, largest=largest).getpixel((0, 0)) == colour_of(1.0, -1.0, 1.0)
