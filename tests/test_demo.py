import re

import numpy as np
import pytest
from conftest import make_tiny_net
from PIL import Image

from midway_hub.analysis_pictures import overlays
from midway_hub.app.demo import read_clip, run_demo, sample_clip, textured_patches
from midway_hub.app.head_figures import segmentation_figure
from midway_hub.drawing import heat_colours


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The demo as it runs by default, with fewer frames and draws."""
    seen = []
    out = tmp_path_factory.mktemp("demo")
    path = run_demo(out=out, frames=2, draws=2, progress=lambda *step: seen.append(step))
    return path, seen


def test_the_page_shows_every_picture_it_made(page):
    path, _ = page
    html = path.read_text()
    shown = set(re.findall(r"src='([^']+)'", html))
    assert shown == {picture.name for picture in path.parent.glob("*.png")}
    assert {"features_0.png", "features_1.png", "heatmap_0.png", "scale.png"} <= shown
    assert all("alt='" in tag for tag in re.findall(r"<img[^>]+>", html))


def test_the_page_needs_nothing_from_elsewhere(page):
    html = page[0].read_text()
    assert "http" not in html
    assert "<script" not in html


def test_flow_and_classes_of_a_checkpoint_with_heads_are_shown(page):
    path, seen = page
    html = path.read_text()
    assert {"flow.png", "classes_0.png"} <= {picture.name for picture in path.parent.glob("*.png")}
    assert "untrained" not in html
    assert ("flow", 1, 1) in seen


def test_classes_of_synthetic_worlds_are_called_so_over_real_frames(page):
    html = page[0].read_text()
    assert "What it is<" not in html
    note = re.search(r"<h2>What it would be in a synthetic world</h2><p class='warning'>([^<]*)</p>", html)
    assert "The model was taught no class of real scenes" in note[1]
    assert "alt='classes of synthetic worlds and their colours: " in html


def test_one_level_is_called_one_level(page):
    html = page[0].read_text()
    assert "at the network&#x27;s one level, 1. The colours share one scale." in html
    assert "coarse to fine" not in html


def test_classes_of_real_scenes_are_shown_as_what_things_are(tmp_path):
    classes = {"classes": ("road", "sky"), "palette": ((128, 64, 128), (70, 130, 180))}
    frames = [Image.new("RGB", (64, 48))]
    figure = segmentation_figure(make_tiny_net(segmentation_head=classes), frames, [0.0], tmp_path, lambda *step: None)
    assert (figure.title, figure.warning) == ("What it is", None)
    assert figure.scale_says.startswith("classes and their colours")


def test_untrained_weights_are_labelled_as_such(tmp_path):
    page = run_demo(out=tmp_path, frames=2, draws=1, model="midway_pico_untrained")
    assert "untrained random numbers" in page.read_text()


def test_the_page_says_what_ran_on_what(page):
    html = page[0].read_text()
    assert "midway_pico (2.4 M parameters)" in html
    assert "highway.mp4, 1280×720, frames [0, 37]" in html
    assert re.search(r"sha256 [0-9a-f]{64}", html)


def test_progress_is_told_to_its_end(page):
    _, seen = page
    assert ("features", 2, 2) in seen
    assert ("heatmaps", 1, 1) in seen


def test_pictures_are_not_blank(page):
    for picture in page[0].parent.glob("*.png"):
        assert np.asarray(Image.open(picture)).std() > 10


def test_heatmaps_go_over_four_tenths_of_a_second_and_flow_over_one_frame():
    spread, pair, neighbours = read_clip(sample_clip(), 3)
    assert neighbours.indices == [pair.indices[0], pair.indices[0] + 1]
    assert spread.indices == [0, 18, 37]
    assert pair.indices == [13, 23]
    assert pair.seconds[1] - pair.seconds[0] == pytest.approx(0.4)
    assert pair.frames[0].size == (1280, 720)


def test_patches_of_contrast_are_chosen_one_per_quarter():
    picture = np.zeros((80, 80, 3), dtype=np.uint8)
    for top, left in [(10, 10), (10, 60), (60, 20), (50, 60)]:
        picture[top : top + 5, left : left + 5] = 255
    assert textured_patches(Image.fromarray(picture), (8, 8)) == [(1, 1), (1, 6), (6, 2), (5, 6)]


def test_heat_is_hottest_at_its_top():
    colours = heat_colours(np.array([[0.0, 0.5, 1.0, 2.0]]), top=1.0)
    assert colours[0, 0].tolist() == [0, 0, 4]
    assert colours[0, 2].tolist() == colours[0, 3].tolist() == [252, 255, 164]
    brightness = colours.astype(float).sum(axis=-1)[0]
    assert brightness[0] < brightness[1] < brightness[2]


def test_where_there_is_no_heat_the_frame_shows_in_grey():
    frame = Image.fromarray(np.full((4, 4, 3), (200, 100, 50), dtype=np.uint8))
    overlaid = np.asarray(overlays.overlay_heat(frame, np.zeros((4, 4)), top=1.0))
    assert (overlaid == np.asarray(frame.convert("L"))[..., None]).all()


@pytest.mark.parametrize("wrong", [{"frames": 1}, {"draws": 0}])
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="frames must be at least 2 and draws at least 1"):
        run_demo(out=tmp_path, **wrong)
