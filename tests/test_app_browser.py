"""The page as users meet it: a real server, a real Chromium without a window, clicks, keys and uploads."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from midway_hub.config import MidwayConfig
from midway_hub.registry import DEFAULT_MODEL, get_entry
from midway_hub.video.writer import write_video

pytest.importorskip("gradio", reason="the page needs the extra `app`")
playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 120_000
CONFIG = MidwayConfig(**get_entry(DEFAULT_MODEL).architecture)
LEVELS = len(CONFIG.levels)
PATCH = CONFIG.patch_size * 720 / 224
"""Width of a patch in pixels of the bundled clip."""

SLOWED = """
import os, pathlib, time
from torch.nn.modules.module import register_module_forward_pre_hook
wait, done = (pathlib.Path(os.environ["TMPDIR"], name) for name in ("seconds", "passes"))
def pause(*_):
    if wait.exists():
        with done.open("a") as file:
            file.write(".")
        time.sleep(float(wait.read_text() or 0))
register_module_forward_pre_hook(pause)
from midway_hub.cli import main
main()
"""
"""The command as users start it, whose networks are as slow as a file says."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a page, started as a user would, and the folder that it keeps its files in."""
    with serving(tmp_path_factory.mktemp("server")) as started:
        yield started


@contextmanager
def serving(temporary):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SLOWED, "app", "--no-open", "--offline", "--device", "cpu"]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"}
    process = subprocess.Popen(
        [*command, "--port", str(port), "--max-mb", "1"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        yield _address_of(process, port), temporary
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert process.returncode == 0
    assert [path.name for path in temporary.glob("midway-hub-app-*")] == []


def _address_of(process, port):
    address, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urlopen(address, timeout=5):
                return address
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"the page did not start: {process.returncode}")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(server, browser):
    """A new user's page that has shown its first heatmaps; afterwards, no request may have left this machine."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(PATIENCE)
    asked = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(server[0])
    opened.wait_for_selector("#mw-felt img")
    yield opened
    opened.close()
    elsewhere = [url for url in asked if urlsplit(url).scheme in ("http", "https", "ws", "wss")]
    assert {urlsplit(url).hostname for url in elsewhere} == {"127.0.0.1"}


def said(page):
    return page.inner_text("#mw-felt [role=status]")


def point_of(words):
    return tuple(map(int, re.match(r"Point (\d+), (\d+)", words).groups()))


def peaks_of(words):
    return [tuple(map(int, peak)) for peak in re.findall(r"level \d+ at (\d+), (\d+)", words)]


def after(page, act):
    """Do something and return what the page then says of the point."""
    before = said(page)
    act()
    page.wait_for_function(
        "before => document.querySelector('#mw-felt [role=status]')?.innerText != before", arg=before
    )
    return said(page)


def click_at(page, picker, x, y):
    box = page.locator(f"#{picker} img").bounding_box()
    page.click(f"#{picker} img", position={"x": x * box["width"], "y": y * box["height"]})


def test_the_page_opens_and_shows_what_the_model_is_and_its_licence(page):
    assert "Apache-2.0" in page.inner_text("#mw-about")
    assert page.get_by_label("Model and its licence").input_value() == "midway_pico (Apache-2.0)"


def test_the_clip_plays(page):
    page.evaluate("document.querySelector('#mw-film video').play()")
    page.wait_for_function("document.querySelector('#mw-film video').currentTime > 0.2")
    facts = page.evaluate("(v => [v.videoWidth, v.videoHeight, v.duration])(document.querySelector('#mw-film video'))")
    assert facts[:2] == [1280, 720]
    assert facts[2] == pytest.approx(1.52, abs=0.05)


def test_a_click_draws_heatmaps_whose_peaks_and_mark_move_with_it(page):
    first = after(page, lambda: click_at(page, "mw-source", 0.25, 0.3))
    pictures = page.eval_on_selector_all("#mw-felt img", "images => images.map(image => image.src)")
    second = after(page, lambda: click_at(page, "mw-source", 0.75, 0.7))
    assert point_of(first) == pytest.approx((320, 216), abs=4)
    assert point_of(second) == pytest.approx((960, 504), abs=4)
    for words in (first, second):  # what is there moves by little
        assert len(peaks_of(words)) == LEVELS
        assert all(
            abs(x - point_of(words)[0]) <= 104 and abs(y - point_of(words)[1]) <= 104 for x, y in peaks_of(words)
        )
    moved = page.eval_on_selector_all("#mw-felt img", "images => images.map(image => image.src)")
    assert len(moved) == LEVELS
    assert not set(moved) & set(pictures)
    mark, frame = (page.locator(f"#mw-source {part}").bounding_box() for part in (".mw-mark", "img"))
    centre = ((mark["x"] + mark["width"] / 2 - frame["x"]) / frame["width"], (mark["y"] - frame["y"]) / frame["height"])
    assert centre == pytest.approx((0.75, 0.68), abs=0.05)


def test_keys_alone_move_the_point(page):
    start = point_of(said(page))
    page.focus("#mw-source .mw-picker")
    stepped = point_of(after(page, lambda: page.keyboard.press("ArrowRight")))
    assert PATCH / 2 - 1 <= stepped[0] - start[0] <= 3 * PATCH / 2 + 1  # the start lay somewhere in its patch
    again = point_of(after(page, lambda: page.keyboard.press("ArrowRight")))  # the picture kept the focus
    assert again[0] - stepped[0] == pytest.approx(PATCH, abs=1)
    typed = after(page, lambda: page.fill("#mw-x input", "100"))
    assert point_of(typed)[0] == 100
    source = page.get_by_role("slider", name="Source frame")
    source.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#mw-which').innerText.startsWith('From frame 14 ')")


def test_a_broken_upload_shows_a_message_and_the_page_goes_on(page, server, tmp_path):
    broken = tmp_path / "holiday.mp4"
    broken.write_bytes(b"this is no video")
    page.set_input_files("#mw-upload input[type=file]", str(broken))
    page.wait_for_selector("#mw-trouble [role=alert]")
    assert "holiday.mp4" in page.inner_text("#mw-trouble")
    assert point_of(after(page, lambda: click_at(page, "mw-source", 0.5, 0.75)))[1] == pytest.approx(540, abs=4)
    assert list(server[1].rglob("holiday.mp4")) == []


def test_two_pictures_are_looked_at_and_deleted_once_they_are_read(page, server, tmp_path):
    for name, shade in (("first.png", 80), ("second.png", 120)):
        Image.radial_gradient("L").point(lambda value, shade=shade: value // 2 + shade).save(tmp_path / name)
    page.set_input_files("#mw-upload input[type=file]", [str(tmp_path / name) for name in ("first.png", "second.png")])
    page.wait_for_function("document.querySelector('#mw-film').innerText.includes('two frames of 256×256')")
    assert "first frame to the second" in page.inner_text("#mw-which")
    assert [path for path in server[1].rglob("*.png") if path.is_file()] == []


def test_an_uploaded_video_plays_and_is_deleted_when_its_user_leaves(page, server, tmp_path):
    frames = [np.full((64, 96, 3), shade, np.uint8) for shade in range(0, 200, 10)]
    write_video(tmp_path / "street.mp4", frames, fps=10)
    page.set_input_files("#mw-upload input[type=file]", str(tmp_path / "street.mp4"))
    page.wait_for_function("document.querySelector('#mw-film').innerText.includes('street.mp4: 20 frames of 96×64')")
    page.wait_for_function("document.querySelector('#mw-film video').readyState >= 3")
    assert page.evaluate("document.querySelector('#mw-film video').videoWidth") == 96
    assert len(_uploaded(server[1])) == 1
    page.goto("about:blank")
    deadline = time.monotonic() + 30
    while _uploaded(server[1]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _uploaded(server[1]) == []


def test_an_upload_beyond_the_limit_shows_a_message(page, tmp_path):
    (tmp_path / "large.mp4").write_bytes(os.urandom(2_000_000))
    page.set_input_files("#mw-upload input[type=file]", str(tmp_path / "large.mp4"))
    page.get_by_text(re.compile("maximum.* size", re.IGNORECASE)).first.wait_for()


def _uploaded(folder):
    """Files with something in them, but for the bundled clip."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if path.stat().st_size and path.name != "highway.mp4"]


def show_classes(page):
    page.get_by_role("tab", name="Segmentation").click()
    page.get_by_role("button", name="Show classes").click()


def show_flow(page):
    page.get_by_role("tab", name="Flow").click()
    page.get_by_label("the flow head").check()
    page.get_by_role("button", name="Show flow").click()


def test_flow_and_classes_of_the_bundled_model_are_shown(page):
    show_classes(page)
    page.wait_for_selector("#mw-segment img")
    show_flow(page)
    page.wait_for_selector("#mw-flow img")


def test_what_a_model_lacks_is_said_plainly(page):
    page.fill("#mw-other input, #mw-other textarea", "midway_pico_untrained")
    page.get_by_role("button", name="Load", exact=True).click()
    page.wait_for_function("document.querySelector('#mw-warning').innerText.includes('UNTRAINED')")
    show_classes(page)
    page.wait_for_selector("#mw-segment [role=alert]")
    assert "this checkpoint has no segmentation head" in page.inner_text("#mw-segment")
    show_flow(page)
    page.wait_for_selector("#mw-flow [role=alert]")
    assert "this checkpoint has no flow head" in page.inner_text("#mw-flow")


def test_a_model_that_is_not_there_shows_a_message_and_the_one_before_stays(page):
    page.fill("#mw-other input, #mw-other textarea", "./no/such/model.safetensors")
    page.get_by_role("button", name="Load", exact=True).click()
    page.wait_for_selector("#mw-trouble [role=alert]")
    assert "no/such/model" in page.inner_text("#mw-trouble")
    assert "Apache-2.0" in page.inner_text("#mw-about")


def test_tracks_play_as_a_video(page):
    page.get_by_role("tab", name="Tracks").click()
    click_at(page, "mw-track-source", 0.4, 0.6)
    page.wait_for_function("document.querySelector('#mw-track-source .mw-legend').innerText.includes('point 1')")
    follow_through(page, 4)
    page.click("#mw-track-button")
    page.wait_for_selector("#mw-tracks video")
    page.wait_for_function("document.querySelector('#mw-tracks video').readyState >= 3")
    assert "Frames 13 to 16: " in page.inner_text("#mw-tracks")
    page.evaluate("document.querySelector('#mw-tracks video').play()")
    page.wait_for_function("document.querySelector('#mw-tracks video').currentTime > 0")


# -- long work -----------------------------------------------------------------------------------------------------


TABS = {"flow": "Flow", "segment": "Segmentation", "features": "Features (PCA)", "tracks": "Tracks"}
BUTTONS = {"flow": "Show flow", "segment": "Show classes", "features": "Show features", "tracks": "Track"}
PROGRESS = ".progress-level-inner, .progress-text"


@pytest.fixture
def slow(server):
    """Make every layer that the server goes through take so many seconds."""
    wait = server[1] / "seconds"
    yield lambda seconds: wait.write_text(str(seconds))
    wait.unlink(missing_ok=True)


@pytest.fixture
def passes(server):
    """How many layers the server has gone through since layers are slow."""
    done = server[1] / "passes"
    return lambda: done.stat().st_size if done.exists() else 0


def begin(page, what):
    """Ask for the long work of a tab."""
    page.get_by_role("tab", name=TABS[what]).click()
    if what == "tracks":
        click_at(page, "mw-track-source", 0.4, 0.6)
        page.wait_for_function("document.querySelector('#mw-track-source .mw-legend').innerText.includes('point 1')")
    page.get_by_role("button", name=BUTTONS[what], exact=True).click()


def follow_through(page, frames):
    length = page.get_by_label("number input for Frames to follow them through")
    length.fill(str(frames))
    length.press("Tab")


def shows_progress(page, what):
    page.locator(f"#mw-{what}").locator(PROGRESS).first.wait_for()


def goes_on(passes):
    before = passes()
    time.sleep(1)
    return passes() > before


def ends(passes):
    deadline = time.monotonic() + 30
    while goes_on(passes):
        assert time.monotonic() < deadline, "it is still being computed"


@pytest.mark.parametrize("what", ["flow", "segment", "features", "tracks"])
def test_long_work_shows_progress_and_cancel_really_ends_it(page, slow, passes, what):
    slow(0.05)
    begin(page, what)
    shows_progress(page, what)
    assert goes_on(passes)
    page.click(f"#mw-{what}-cancel")
    page.wait_for_function(f"document.querySelector('#mw-{what}').innerText.includes('Cancelled.')")
    ends(passes)
    slow(0)
    if what == "tracks":
        follow_through(page, 4)
    page.get_by_role("button", name=BUTTONS[what], exact=True).click()
    page.wait_for_selector(f"#mw-{what} img, #mw-{what} video")


def test_heatmaps_are_cancelled_and_asked_for_again(page, slow, passes):
    slow(0.05)
    click_at(page, "mw-source", 0.25, 0.3)
    page.locator("#mw-felt").locator(PROGRESS).first.wait_for()
    page.click("#mw-heatmaps-cancel")
    page.wait_for_function("document.querySelector('#mw-felt').innerText.includes('Cancelled.')")
    ends(passes)
    slow(0)
    click_at(page, "mw-source", 0.75, 0.7)
    page.wait_for_function("document.querySelector('#mw-felt').innerText.includes('is felt most')")
    assert point_of(said(page)) == pytest.approx((960, 504), abs=4)


def test_of_many_points_the_newest_is_shown(page, slow, passes):
    slow(0.02)
    for x in (0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        click_at(page, "mw-source", x, 0.5)
        time.sleep(0.1)
    page.wait_for_function("document.querySelector('#mw-felt [role=status]')?.innerText.startsWith('Point 89')")
    ends(passes)
    assert point_of(said(page)) == pytest.approx((896, 360), abs=4)


def test_what_other_visitors_do_does_not_wait_for_long_work(page, browser, server, slow, passes):
    slow(0.05)
    for what in ("tracks", "flow", "features"):  # one more than are done at once
        begin(page, what)
    page.get_by_role("tab", name="Where it went").click()
    click_at(page, "mw-source", 0.25, 0.3)
    visitor = browser.new_page()
    visitor.set_default_timeout(20_000)
    visitor.goto(server[0])
    visitor.wait_for_function("document.querySelector('#mw-film')?.innerText.includes('bundled clip')")
    visitor.get_by_role("slider", name="Source frame").focus()
    visitor.keyboard.press("ArrowRight")
    visitor.wait_for_function("document.querySelector('#mw-which').innerText.startsWith('From frame 14 ')")
    click_at(visitor, "mw-source", 0.75, 0.7)
    visitor.wait_for_function("document.querySelector('#mw-x input').value > 950")
    assert goes_on(passes)
    assert page.locator("#mw-flow img, #mw-features img, #mw-tracks video").count() == 0
    visitor.close()
    page.goto("about:blank")
    ends(passes)


@pytest.mark.parametrize("what", ["flow", "features", "tracks"])
@pytest.mark.parametrize("leave", [lambda page: page.close(), lambda page: page.goto("about:blank")])
def test_work_ends_when_its_browser_is_gone(browser, server, slow, passes, what, leave):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(server[0])
    page.wait_for_selector("#mw-felt img")
    slow(0.05)
    begin(page, what)
    shows_progress(page, what)
    assert goes_on(passes)
    leave(page)
    ends(passes)
    assert list(server[1].rglob("tracks_*")) == []
    page.close()


def test_work_ends_when_what_is_looked_at_changes(page, slow, passes):
    slow(0.05)
    begin(page, "tracks")
    shows_progress(page, "tracks")
    page.get_by_role("slider", name="Source frame").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#mw-tracks').innerText.includes('Choose points')")
    slow(0)
    ends(passes)
    assert page.locator("#mw-tracks video").count() == 0


def test_stopping_the_server_ends_work_and_deletes_every_file(browser, tmp_path):
    with serving(tmp_path) as (address, _):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.wait_for_selector("#mw-felt img")
        (tmp_path / "seconds").write_text("0.05")
        begin(page, "tracks")
        shows_progress(page, "tracks")
        stopped = time.monotonic()
    assert time.monotonic() - stopped < 30  # tracks would go on for minutes
    page.close()


def test_flow_is_read_from_the_head_where_there_is_one_and_users_keep_what_they_choose(page):
    page.get_by_role("tab", name="Flow").click()
    assert page.get_by_label("the flow head").is_checked()
    page.get_by_label("the heatmaps' peaks").check()
    page.get_by_role("slider", name="Source frame").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#mw-which').innerText.startsWith('From frame 14 ')")
    page.wait_for_function("document.querySelector('#mw-flow').innerText.includes('Show flow')")
    assert page.get_by_label("the heatmaps' peaks").is_checked()
    page.fill("#mw-other input, #mw-other textarea", "midway_pico_untrained")
    page.get_by_role("button", name="Load", exact=True).click()
    page.wait_for_function("document.querySelector('#mw-flow').innerText.includes('has no flow head')")
    assert page.get_by_label("the heatmaps' peaks").is_checked()
    assert "midway_pico" in page.inner_text("#mw-flow")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_every_tab_is_shown_in_full_width_and_every_picture_is_described(server, browser, tmp_path, scheme, width):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    page.goto(server[0])
    page.wait_for_selector("#mw-felt img")
    for tab in ("Where it went", "Flow", "Segmentation", "Features (PCA)", "Tracks"):
        _open_tab(page, tab)
        if tab.startswith("Features"):
            page.get_by_role("button", name="Show features").click()
            page.wait_for_selector("#mw-features img")
        shot = tmp_path / f"{scheme}_{width}_{tab.split()[0]}.png"
        page.screenshot(path=shot, full_page=True)
        assert shot.stat().st_size > 20_000
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].filter(image => !image.alt && image.offsetParent).length") == 0
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(re.sub(r"rgba?\((.*)\)", r"[\1]", background))[:3]) < 200) is (scheme == "dark")
    page.close()


def _open_tab(page, name):
    """Open a tab, which may be behind the button that holds what a narrow page has no room for."""
    tab = page.get_by_role("tab", name=name)
    if tab.count() and tab.first.is_visible():
        tab.first.click()
    else:
        page.locator(".overflow-menu > button").click()
        page.locator(".overflow-dropdown").get_by_text(name).click()
