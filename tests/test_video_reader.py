"""What every frame reader promises apart from exactness, and how one is chosen."""

import importlib.util
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from video_clips import number_of, numbers_of, write_clip

import midway_hub.video.choose as choose
from midway_hub.video import READERS, FrameReader, VideoError, available_readers, open_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Sixty numbered frames at 30 per second."""
    return write_clip(tmp_path_factory.mktemp("reader") / "clip.mp4", options={"g": "12", "bf": "3"})


@pytest.fixture(params=READERS)
def reader(request, clip):
    """The clip, opened by each reader that is installed."""
    state = available_readers()[request.param]
    if not state[0].isdigit():
        pytest.skip(f"{request.param}: {state}")
    with open_video(clip, reader=request.param, num_threads=1) as reader:
        yield reader


def test_a_reader_tells_what_it_reads(reader, clip):
    assert isinstance(reader, FrameReader)
    assert (reader.path, READERS[reader.name].name) == (clip, reader.name)
    assert (len(reader), reader.width, reader.height, reader.rotation) == (60, 128, 96, 0)
    assert reader.fps == pytest.approx(30)
    assert reader.duration == pytest.approx(2)
    np.testing.assert_allclose(reader.timestamps, np.arange(60) / 30, atol=1e-9)
    assert "60 frames of 128x96" in repr(reader)


def test_frames_come_in_the_order_asked_for_repeats_and_negatives_included(reader):
    assert numbers_of(reader.get_frames([40, 3, 3, -1, 12, -60, 40])) == [40, 3, 3, 59, 12, 0, 40]


def test_numbers_may_be_any_sequence_of_integers(reader):
    for numbers in (range(4, 10, 2), np.array([4, 6, 8], np.int32), (4, 6, 8), [np.uint8(4), 6, 8]):
        assert numbers_of(reader.get_frames(numbers)) == [4, 6, 8]


def test_no_numbers_give_no_frames(reader):
    assert reader.get_frames([]).shape == (0, 96, 128, 3)


@pytest.mark.parametrize("number", [60, -61, 10**9])
def test_a_number_outside_the_video_is_an_index_error_that_names_the_length(reader, number):
    with pytest.raises(IndexError, match=rf"frame {number} is out of range, the video has 60 frames"):
        reader.get_frames([0, number])


@pytest.mark.parametrize("number", [1.0, "1", None, [1]])
def test_a_number_that_is_no_integer_is_refused(reader, number):
    with pytest.raises(TypeError, match="frame numbers must be integers, got"):
        reader.get_frames([number])


def test_a_single_number_is_refused_with_the_way_to_write_it(reader):
    with pytest.raises(TypeError, match=r"must be a sequence of frame numbers, got 3: write \[3\]"):
        reader.get_frames(3)


def test_a_mask_is_not_taken_for_numbers(reader):
    with pytest.raises(TypeError, match=r"np\.flatnonzero"):
        reader.get_frames(np.array([True, False]))


def test_the_frames_belong_to_the_caller(reader):
    first = reader.get_frames([7, 7])
    first[0] = 0
    assert number_of(first[1]) == 7
    assert numbers_of(reader.get_frames([7])) == [7]


@pytest.mark.parametrize(
    "arguments",
    [{}, {"start": 5, "stop": 33, "step": 4}, {"start": -7}, {"stop": 500, "step": 25}, {"start": 60}, {"batch": 100}],
)
def test_streaming_gives_what_get_frames_gives(reader, arguments):
    batch = arguments.setdefault("batch", 5)
    batches = list(reader.iterate(**arguments))
    numbers = [int(n) for part, _ in batches for n in part]
    bounds = slice(arguments.get("start", 0), arguments.get("stop"), arguments.get("step"))
    assert numbers == list(range(60))[bounds]
    assert all(len(part) == len(frames) <= batch for part, frames in batches)
    if numbers:
        np.testing.assert_array_equal(np.concatenate([frames for _, frames in batches]), reader.get_frames(numbers))


def test_reading_between_two_batches_does_not_disturb_the_stream(reader):
    seen = []
    for numbers, frames in reader.iterate(batch=9):
        assert numbers_of(frames) == numbers.tolist()
        assert numbers_of(reader.get_frames([50, 1])) == [50, 1]
        seen.extend(numbers.tolist())
    assert seen == list(range(60))


def test_streaming_decodes_each_frame_once(clip, monkeypatch):
    from midway_hub.video.pyav_decoder import Decoder

    fed = []
    feed = Decoder._feed
    monkeypatch.setattr(
        Decoder, "_feed", lambda self, ordinal, *rest, **more: fed.append(ordinal) or feed(self, ordinal, *rest, **more)
    )
    with open_video(clip, reader="pyav") as reader:
        assert sum(len(numbers) for numbers, _ in reader.iterate(batch=4)) == 60
    assert fed == list(range(61))  # the last one empties the decoder


@pytest.mark.parametrize("arguments", [{"step": 0}, {"step": -1}, {"batch": 0}])
def test_streaming_backwards_or_in_empty_batches_is_refused(reader, arguments):
    with pytest.raises(ValueError, match="step and batch must be at least 1, got"):
        reader.iterate(**arguments)


def test_a_time_finds_the_frame_on_screen(reader):
    assert [reader.index_at(t) for t in (0, 0.033, 1 / 30, 0.1 + 0.2, 1.99, 2)] == [0, 0, 1, 9, 59, 59]
    assert [reader.index_at(t) for t in reader.timestamps] == list(range(60))


@pytest.mark.parametrize("seconds", [-0.1, 2.1, float("nan"), float("inf")])
def test_a_time_outside_the_video_is_refused(reader, seconds):
    with pytest.raises(ValueError, match=rf"there is no frame at {seconds} s, the video lasts 2\.000 s"):
        reader.index_at(seconds)


def test_a_closed_reader_says_so(clip):
    reader = open_video(clip)
    reader.close()
    reader.close()
    with pytest.raises(VideoError, match="this reader is closed; open the video again with open_video"):
        reader.get_frames([0])


def test_a_reader_cannot_be_pickled(reader):
    with pytest.raises(TypeError, match="holds an open decoder and cannot be pickled: hand over its path"):
        pickle.dumps(reader)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", READERS)
def test_a_reader_handed_to_a_forked_child_is_an_error_there_and_nothing_hangs(clip, name):
    """In a process of its own, because forking this one with its many threads is another matter."""
    if not available_readers()[name][0].isdigit():
        pytest.skip(f"{name}: {available_readers()[name]}")
    code = (
        "import gc, os, sys, signal\n"
        "from midway_hub.video import open_video, VideoError\n"
        "reader = open_video(sys.argv[1], reader=sys.argv[2], num_threads=3)\n"
        "reader.get_frames([5, 50])\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(20)\n"
        "    try:\n"
        "        reader.get_frames([1])\n"
        "    except VideoError as error:\n"
        "        reader.close()\n"
        "        del reader\n"
        "        gc.collect()\n"
        "        sys.exit(7 if 'call open_video inside the worker' in str(error) else 1)\n"
        "    sys.exit(2)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "assert len(reader.get_frames([1])) == 1\n"
        "reader.close()\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(clip), name], check=True, timeout=60)


def _first_number(path: str) -> int:
    with open_video(path, num_threads=1) as reader:
        return number_of(reader.get_frames([33])[0])


def test_a_worker_opens_its_own_reader(clip):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_first_number, (str(clip),)) == 33


def test_every_thread_reads_with_a_reader_of_its_own(clip):
    given: dict[int, list[int]] = {}

    def read(start: int) -> None:
        with open_video(clip, num_threads=1) as reader:
            given[start] = numbers_of(reader.get_frames(range(start, 60, 7)))

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert given == {start: list(range(start, 60, 7)) for start in range(4)}


def test_a_misspelt_reader_is_answered_with_the_names(clip):
    with pytest.raises(ValueError, match=r"unknown reader 'decrod', the readers are 'auto', .*did you mean 'decord'\?"):
        open_video(clip, reader="decrod")


@pytest.mark.parametrize("threads", [-1, 1.5, True, "2"])
def test_a_wrong_number_of_threads_is_refused(clip, threads):
    with pytest.raises(ValueError, match=r"num_threads must be 0 \(automatic\) or a positive integer, got"):
        open_video(clip, num_threads=threads)


def test_a_reader_that_is_not_installed_is_refused_with_the_reason(clip, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(VideoError, match="reader 'decord' cannot be used here: not installed"):
        open_video(clip, reader="decord")
    assert available_readers()["decord"].startswith("not installed")
    with open_video(clip) as reader:
        assert reader.name == "pyav"


def test_a_package_that_does_not_load_is_reported_in_one_line(monkeypatch):
    def fail(name):
        raise RuntimeError("Could not load libtorchcodec.\nA page of hints")

    monkeypatch.setattr(choose.importlib, "import_module", fail)
    assert set(available_readers().values()) == {"cannot be imported: Could not load libtorchcodec."}


def test_the_readers_that_can_be_used_are_listed_with_their_versions():
    readers = available_readers()
    assert set(readers) == {"pyav", "decord", "torchcodec"}
    assert readers["pyav"][0].isdigit()


def test_importing_the_readers_loads_no_decoder():
    code = (
        "import sys, midway_hub.video\n"
        "loaded = {'av', 'decord', 'torchcodec', 'torch', 'transformers', 'timm'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# -- decord's bridges ----------------------------------------------------------------------------------------------


class _Framework:
    """Frames as another framework holds them, which is known by the name of its way to numpy alone."""

    def __init__(self, way, frames):
        setattr(self, way, frames.asnumpy)


class _ArrayLike:
    def __init__(self, frames):
        self._frames = frames

    def __array__(self, dtype=None, copy=None):
        return self._frames.asnumpy()


@pytest.fixture
def bridge():
    """decord's bridges, left as they were."""
    decord = pytest.importorskip("decord")
    yield decord.bridge
    decord.bridge.reset_bridge()


def frames_by_decord(clip, numbers):
    with open_video(clip, reader="decord", num_threads=1) as reader:
        return reader.get_frames(numbers)


def test_frames_are_the_same_whether_decord_hands_out_torch_tensors_or_its_own(bridge, clip):
    native = frames_by_decord(clip, [3, 40, 3])
    bridge.set_bridge("torch")
    through_torch = frames_by_decord(clip, [3, 40, 3])
    bridge.set_bridge("native")
    assert numbers_of(native) == [3, 40, 3]
    assert isinstance(through_torch, np.ndarray)
    assert np.array_equal(through_torch, native)
    assert np.array_equal(frames_by_decord(clip, [3, 40, 3]), native)


def test_a_bridge_set_while_a_video_is_open_holds_from_then_on(bridge, clip):
    with open_video(clip, reader="decord", num_threads=1) as reader:
        assert numbers_of(reader.get_frames([5])) == [5]
        bridge.set_bridge("torch")
        assert numbers_of(reader.get_frames([6, 2])) == [6, 2]
        bridge.reset_bridge()
        assert numbers_of(reader.get_frames([7])) == [7]


def test_streaming_through_a_torch_bridge_gives_every_frame_once(bridge, clip):
    bridge.set_bridge("torch")
    with open_video(clip, reader="decord", num_threads=1) as reader:
        seen = [number_of(frame) for _, frames in reader.iterate(0, 60, 7, batch=4) for frame in frames]
    assert seen == list(range(0, 60, 7))


@pytest.mark.parametrize("where", ["here", "there", "both"])
def test_each_thread_may_have_a_bridge_of_its_own(bridge, clip, where):
    if where in ("here", "both"):
        bridge.set_bridge("torch")
    seen = []

    def work():
        if where in ("there", "both"):
            bridge.set_bridge("torch")
        seen.extend(numbers_of(frames_by_decord(clip, [9, 30])))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [9, 30]
    assert numbers_of(frames_by_decord(clip, [9, 30])) == [9, 30]


@pytest.mark.parametrize("way", ["asnumpy", "numpy"])
def test_frames_of_other_frameworks_are_taken_by_their_way_to_numpy(bridge, clip, monkeypatch, way):
    monkeypatch.setitem(bridge._BRIDGE_TYPES, "mxnet", (lambda frames: _Framework(way, frames), None))
    bridge.set_bridge("mxnet")
    assert numbers_of(frames_by_decord(clip, [1, 44])) == [1, 44]


def test_frames_that_only_numpy_can_read_are_read_by_numpy(bridge, clip, monkeypatch):
    monkeypatch.setitem(bridge._BRIDGE_TYPES, "tvm", (_ArrayLike, None))
    bridge.set_bridge("tvm")
    assert numbers_of(frames_by_decord(clip, [1, 44])) == [1, 44]


@pytest.mark.parametrize("framework", ["mxnet", "tensorflow", "tvm"])
def test_a_bridge_to_what_is_not_installed_is_said(bridge, clip, framework):
    if importlib.util.find_spec(framework):
        pytest.skip(f"{framework} is installed")
    bridge.set_bridge(framework)
    with pytest.raises(VideoError, match=r"decord is told to hand its frames .*decord\.bridge\.reset_bridge\(\)"):
        frames_by_decord(clip, [0])
