"""Flow as data: providers, their cache, which pixels are valid, and crops."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from midway_hub import MidwayNetwork
from midway_hub.flow_io import FlowFileError, read_flow, write_flow
from midway_hub.flow_peers import DIS, RAFT
from midway_hub.models.network import MissingHeadError
from midway_hub.training.data.flow_provider import CachedFlow, FlowProviderSettings, crop_flow, open_flow_provider
from midway_hub.training.data.flow_provider import providers as providers_module
from midway_hub.training.data.flow_provider.masks import (
    ddflow_occluded,
    forward_backward_error,
    forward_backward_occluded,
    in_frame,
    valid_pixels,
    warp,
)
from midway_hub.training.data.flow_provider.protocol import only_known
from midway_hub.training.data.flow_provider.providers import FilesFlow
from midway_hub.training.data.views import normalise

NAN = float("nan")


def opened(provider, **values):
    return open_flow_provider(FlowProviderSettings(provider=provider, **values))


def noise(batch=2, height=40, width=56, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (batch, 3, height, width)).astype(np.uint8))


def shifted(x, y, height=72, width=96):
    """A smooth picture and the same moved by whole pixels: two of (1, 3, height, width), flow (x, y)."""
    coarse = torch.from_numpy(np.random.default_rng(3).uniform(0, 255, (1, 3, 30, 30)))
    large = torch.nn.functional.interpolate(coarse, size=(height + 40, width + 40), mode="bicubic").clamp(0, 255).byte()
    return large[..., 20 : 20 + height, 20 : 20 + width], large[..., 20 - y : 20 - y + height, 20 - x : 20 - x + width]


def constant(x, y, height=6, width=8):
    return torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, height, width).clone()


class Counting:
    """A provider whose flow follows from the frames, and which counts the pairs that it was asked for."""

    device = torch.device("cpu")

    def __init__(self, kind="counting", unknown=False):
        self.kind, self.unknown, self.asked, self.named = kind, unknown, 0, None

    def __call__(self, first: Tensor, second: Tensor, *, names=None) -> Tensor:
        self.asked, self.named = self.asked + len(first), names
        flow = (first.float() - second.float())[:, :2] / 7
        if self.unknown:
            flow[:, :, 0, 0] = NAN
        return flow

    def fingerprint(self):
        return {"kind": self.kind, "numbers": [1, 2]}


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"provider": "raft_larg"},
            r"no flow provider 'raft_larg'; did you mean 'raft_large'\? There are: world",
        ),
        ({"provider": "raft_large=x.pth"}, "did you mean 'raft_large'"),
        ({"provider": "midway:"}, "no flow provider 'midway:'"),
        ({"provider": "files"}, "`files` and a path go together, got provider=files and path=None"),
        ({"provider": "dis", "path": "."}, "`files` and a path go together"),
        ({"provider": "dis", "weights": "x.pth"}, "provider=dis takes no weights"),
        ({"provider": "dis", "updates": 3}, "provider=dis makes no updates"),
        ({"provider": "world", "cache": "c"}, "provider=world computes nothing that a cache could keep"),
        ({"provider": "files", "path": ".", "cache": "c"}, "computes nothing that a cache could keep"),
        ({"provider": "dis", "cache_gib": 0}, "greater than 0"),
        ({"provider": "dis", "occlusion": "brox"}, "forward_backward"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_a_sentence(values, message):
    with pytest.raises(ValidationError, match=message):
        FlowProviderSettings(**values)


@pytest.mark.parametrize("provider", ["world"])
def test_nothing_is_opened_where_no_flow_is_computed(provider):
    assert opened(provider) is None


# -- providers ---------------------------------------------------------------------------------------------------------


def test_dis_finds_a_shift_and_is_the_estimator_of_the_command_line():
    pytest.importorskip("cv2")
    first, second = shifted(3, -2)
    flow = opened("dis")(first, second)
    assert (flow.shape, flow.dtype) == ((1, 2, 72, 96), torch.float32)
    torch.testing.assert_close(
        flow[0, :, 20:-20, 20:-20].median(dim=2)[0].median(dim=1)[0], torch.tensor([3.0, -2.0]), atol=0.2, rtol=0
    )
    expected = DIS()(*(frame[0].permute(1, 2, 0).numpy() for frame in (first, second)))
    np.testing.assert_array_equal(flow[0].numpy(), expected)


def test_dis_without_opencv_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"dis needs OpenCV: pip install 'midway-hub\[peers\]'"):
        opened("dis")


@pytest.mark.parametrize(("height", "width"), [(45, 61), (128, 136)])
def test_raft_takes_a_batch_of_any_size_and_equals_the_estimator_pair_by_pair(height, width):
    provider = opened("raft_small", weights="random", updates=2)
    first, second = noise(2, height, width), noise(2, height, width, seed=1)
    flow = provider(first, second)
    assert (flow.shape, flow.dtype, flow.requires_grad) == ((2, 2, height, width), torch.float32, False)
    peer = RAFT("small", updates=2)
    for row in range(2):
        expected = peer(*(frames[row].permute(1, 2, 0).numpy() for frames in (first, second)))
        np.testing.assert_allclose(flow[row].numpy(), expected, rtol=1e-3, atol=1e-3)


def test_raft_splits_batches_whose_correlation_volumes_are_too_large(monkeypatch):
    provider = opened("raft_small", weights="random", updates=1)
    first, second = noise(3), noise(3, seed=1)
    whole, sizes = provider(first, second), []
    monkeypatch.setattr(providers_module, "VOLUME_BYTES", 1)
    provider.peer.network.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    torch.testing.assert_close(provider(first, second), whole, rtol=1e-3, atol=1e-3)
    assert sizes == [1, 1, 1]


def test_raft_takes_a_file_of_weights_and_its_fingerprint_does_not_say_where_it_lies(tmp_path):
    states = {"a.pth": RAFT("small").network.state_dict()}
    states["b.pth"] = {
        name: value * 0.5 if value.is_floating_point() else value for name, value in states["a.pth"].items()
    }
    states["c.pth"] = states["a.pth"]
    for name, state in states.items():
        torch.save(state, tmp_path / name)
    (tmp_path / "moved.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    of = {
        name: opened("raft_small", weights=str(tmp_path / name)).fingerprint()
        for name in ("a.pth", "b.pth", "moved.pth")
    }
    assert of["a.pth"] == of["moved.pth"] != of["b.pth"]
    assert of["a.pth"]["updates"] == 12
    assert not {"device", "weights"} & of["a.pth"].keys()


def test_raft_without_weights_says_how_to_name_them(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    from torchvision.models.optical_flow import Raft_Small_Weights

    monkeypatch.setattr(Raft_Small_Weights.DEFAULT.value, "url", (tmp_path / "raft-00000000.pth").as_uri())
    with pytest.raises(
        ValueError, match=r"raft_small needs weights.*cannot be downloaded.*named by data\.flow\.weights"
    ):
        opened("raft_small")


def test_opening_a_provider_leaves_torchs_random_numbers_alone():
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    opened("raft_small", weights="random")
    opened("midway:midway_pico")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_ptlflow_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ptlflow", None)
    with pytest.raises(
        ImportError, match=r"^ptlflow:raft_small needs the package ptlflow: pip install 'midway-hub\[ptlflow\]'$"
    ):
        opened("ptlflow:raft_small")


def test_an_unknown_model_of_ptlflow_is_one_sentence_with_near_ones():
    pytest.importorskip("ptlflow")
    with pytest.raises(ValueError, match=r"^ptlflow has no model 'raft_smal'; near ones are raft_small, [\w, ]+$"):
        opened("ptlflow:raft_smal", weights="random")


def test_a_model_of_ptlflow_gives_flow_at_the_frames_size():
    pytest.importorskip("ptlflow")
    provider = opened("ptlflow:raft_small", weights="random")
    flow = provider(noise(2, 130, 140), noise(2, 130, 140, seed=1))
    assert (flow.shape, flow.dtype) == ((2, 2, 130, 140), torch.float32)
    assert provider.fingerprint()["kind"] == "ptlflow raft_small"


def test_a_checkpoint_gives_the_flow_that_its_network_gives():
    first, second = noise(2, 70, 90), noise(2, 70, 90, seed=1)
    network = MidwayNetwork.from_pretrained("midway_pico")
    with torch.no_grad():
        expected = network.flow(*(normalise(frames) for frames in (first, second)), updates=2).flow
    flow = opened("midway:midway_pico", updates=2)(first, second)
    torch.testing.assert_close(flow, expected)


def test_a_checkpoint_is_known_by_its_weights_and_updates_and_not_by_its_place(tmp_path):
    MidwayNetwork.from_pretrained("midway_pico").save_pretrained(tmp_path / "copy")
    first, copy, other = (
        opened(f"midway:{name}", **more).fingerprint()
        for name, more in (("midway_pico", {}), (tmp_path / "copy", {}), ("midway_pico", {"updates": 2}))
    )
    assert first == copy != other
    json.dumps(first)


def test_a_checkpoint_without_a_flow_head_is_refused(tmp_path):
    network = MidwayNetwork.from_pretrained("midway_pico")
    del network.flow_head
    network.config.flow_head = None
    network.save_pretrained(tmp_path / "plain")
    with pytest.raises(MissingHeadError, match="flow head"):
        opened(f"midway:{tmp_path / 'plain'}")


def test_estimates_do_not_change_under_autocast():
    first, second = noise(1, 64, 64), noise(1, 64, 64, seed=1)
    for provider in (opened("raft_small", weights="random", updates=2), opened("midway:midway_pico")):
        expected = provider(first, second)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(provider(first, second), expected)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (noise().float() / 255, noise(), r"uint8 RGB, got \(2, 3, 40, 56\) torch\.float32"),
        (noise()[0], noise()[0], r"\(B, 3, H, W\)"),
        (noise()[:0], noise()[:0], r"got \(0, 3, 40, 56\)"),
        (noise(), noise(2, 40, 48), r"one shape and device, got \(2, 3, 40, 56\) on cpu and \(2, 3, 40, 48\)"),
    ],
)
def test_other_tensors_are_refused(first, second, message, tmp_path):
    for provider in (
        opened("raft_small", weights="random"),
        FilesFlow(tmp_path),
        CachedFlow(Counting(), tmp_path / "c", 99),
    ):
        with pytest.raises(ValueError, match=message):
            provider(first, second)


def test_flow_with_one_number_that_is_not_finite_is_not_known():
    flow = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    flow[0, 0, 0, 0], flow[0, 1, 1, 1] = NAN, float("inf")
    found = only_known(flow)
    assert found.dtype == torch.float32
    assert found[0].isnan().tolist() == [[[True, False], [False, True]]] * 2


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clip").mkdir()
    return tmp_path


@pytest.mark.parametrize("suffix", [".flo", ".png", ".npy", ".npz", ".pfm"])
def test_files_are_found_by_the_names_of_both_frames(folder, suffix):
    flow = np.random.default_rng(0).integers(-640, 640, (4, 5, 2)).astype(np.float32) / 64
    known = np.ones((4, 5), bool)
    if suffix != ".pfm":
        known[1, 2] = False
    write_flow(folder / "clip" / f"00001_00016{suffix}", flow, known)
    write_flow(folder / "clip" / f"00016_00001{suffix}", -flow, known)
    provider = opened("files", path=folder)
    frames = noise(2, 4, 5)
    names = [("clip/00001", "clip/00016"), ("clip/00016.jpg", "clip/00001.jpg")]
    found = provider(frames, frames, names=names)
    expected = torch.from_numpy(np.where(known[..., None], flow, np.float32(NAN))).permute(2, 0, 1)
    torch.testing.assert_close(found, torch.stack([expected, -expected]), rtol=0, atol=0, equal_nan=True)


def test_files_that_are_missing_or_do_not_fit_are_sentences(folder):
    provider, frames = FilesFlow(folder), noise(1, 4, 5)
    with pytest.raises(ValueError, match="1 pairs, none of names"):
        provider(frames, frames)
    with pytest.raises(ValueError, match="1 pairs, 2 of names"):
        provider(frames, frames, names=[("a", "b")] * 2)
    with pytest.raises(FileNotFoundError, match=r"no flow from clip/1 to clip/2: wanted .*clip/1_2\.flo \(or \.pfm"):
        provider(frames, frames, names=[("clip/1", "clip/2")])
    write_flow(folder / "clip/1_2.flo", np.zeros((5, 4, 2)))
    with pytest.raises(FlowFileError, match=r"1_2\.flo is of 5×4 pixels \(height×width\), its frames of 4×5"):
        provider(frames, frames, names=[("clip/1", "clip/2")])
    (folder / "clip/1_2.flo").write_bytes(b"PIEH")
    with pytest.raises(FlowFileError, match=r"1_2\.flo"):
        provider(frames, frames, names=[("clip/1", "clip/2")])
    with pytest.raises(FileNotFoundError, match="no folder of flow"):
        opened("files", path=folder / "none")


def test_others_ignore_names():
    first, second, names = noise(1, 64, 64), noise(1, 64, 64, seed=1), [("a", "b")]
    provider = opened("midway:midway_pico")
    assert torch.equal(provider(first, second, names=names), provider(first, second))


# -- cache -------------------------------------------------------------------------------------------------------------


def kept(folder):
    return sorted(folder.glob("*/*.npz"))


def test_what_was_computed_is_found_again_and_is_the_same(tmp_path):
    inner = Counting(unknown=True)
    cached = CachedFlow(inner, tmp_path / "c", 10**6)
    first, second = noise(), noise(seed=1)
    before, after = cached(first, second), CachedFlow(Counting(unknown=True), tmp_path / "c", 10**6)(first, second)
    torch.testing.assert_close(after, before, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(before, inner(first, second), rtol=2**-11, atol=0, equal_nan=True)
    assert before[:, :, 0, 0].isnan().all()
    assert (before.dtype, before.is_contiguous()) == (torch.float32, True)
    assert (cached.hits, cached.misses, len(kept(tmp_path / "c"))) == (0, 2, 2)


def test_only_missing_pairs_are_computed_with_their_names(tmp_path):
    cached = CachedFlow(inner := Counting(), tmp_path / "c", 10**6)
    first, second = noise(3), noise(3, seed=1)
    cached(first[1:2], second[1:2])
    flow = cached(first, second, names=[("a", "b"), ("c", "d"), ("e", "f")])
    assert (cached.hits, cached.misses, inner.asked) == (1, 3, 3)
    assert inner.named == [("a", "b"), ("e", "f")]
    torch.testing.assert_close(flow, inner(first, second), rtol=2**-11, atol=0)


def test_direction_content_and_shape_are_told_apart(tmp_path):
    cached = CachedFlow(Counting(), tmp_path / "c", 10**6)
    one, other = noise(1), noise(1, seed=1)
    changed = one.clone()
    changed[0, 2, -1, -1] ^= 1
    for pair in (
        (one, other),
        (other, one),
        (changed, other),
        (one, changed),
        (one.reshape(1, 3, 56, 40), other.reshape(1, 3, 56, 40)),
    ):
        cached(*pair)
    assert (cached.hits, cached.misses, cached.damaged) == (0, 5, 0)


def test_strides_and_channels_last_do_not_matter(tmp_path):
    cached = CachedFlow(Counting(), tmp_path / "c", 10**6)
    first, second = noise(), noise(seed=1)
    cached(first, second)
    cached(first.to(memory_format=torch.channels_last), second.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1))
    assert (cached.hits, cached.misses) == (2, 2)


def test_flow_that_sixteen_bits_cannot_hold_is_not_known_from_the_first_time(tmp_path):
    class Far(Counting):
        def __call__(self, first, second, *, names=None):
            flow = super().__call__(first, second)
            flow[:, 0, 3, 4] = 1e6
            return flow

    cached = CachedFlow(Far(), tmp_path / "c", 10**6)
    first, second = noise(1), noise(1, seed=1)
    for _ in range(2):
        flow = cached(first, second)
        assert flow[0, :, 3, 4].isnan().all()
        assert int(flow.isnan().sum()) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other size", "no archive"])
def test_damaged_files_are_computed_anew(tmp_path, damage):
    cached = CachedFlow(Counting(), tmp_path / "c", 10**6)
    first, second = noise(1), noise(1, seed=1)
    expected = cached(first, second)
    (file,) = kept(tmp_path / "c")
    data = bytearray(file.read_bytes())
    if damage == "other size":
        np.savez(file, flow=np.zeros((3, 3, 2), np.float16))
    else:
        flipped = data.copy()
        flipped[len(data) // 2] ^= 1
        file.write_bytes({"empty": b"", "cut": data[:-99], "flipped": flipped, "no archive": b"x" * 99}[damage])
    assert torch.equal(cached(first, second), expected)
    assert (cached.hits, cached.misses, cached.damaged) == (0, 2, 1)
    assert torch.equal(cached(first, second), expected)
    assert cached.hits == 1


def test_the_cache_of_another_provider_is_refused_with_what_differs(tmp_path):
    CachedFlow(Counting(), tmp_path / "c", 10**6)
    with pytest.raises(
        ValueError, match=r"another provider: kind is 'counting' there, 'dis' here; give this one a cache"
    ):
        CachedFlow(Counting("dis"), tmp_path / "c", 10**6)
    (tmp_path / "c" / "provider.json").write_text("{")
    with pytest.raises(ValueError, match=r"its provider\.json is damaged"):
        CachedFlow(Counting(), tmp_path / "c", 10**6)


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match=r"holds photo\.jpg and no provider\.json, so it is no cache of flow"):
        CachedFlow(Counting(), tmp_path, 10**6)
    with pytest.raises(ValueError, match="at least 1 byte, got 0"):
        CachedFlow(Counting(), tmp_path / "c", 0)


def test_the_folder_stays_within_its_limit_and_what_was_not_used_for_longest_goes(tmp_path):
    one = CachedFlow(Counting(), tmp_path / "probe", 10**6)
    one(noise(1), noise(1, seed=1))
    size = kept(tmp_path / "probe")[0].stat().st_size
    cached = CachedFlow(Counting(), tmp_path / "c", 4 * size)
    first, second = noise(12), noise(12, seed=1)
    for row in range(4):
        cached(first[row : row + 1], second[row : row + 1])
        time.sleep(0.02)
    cached(first[:1], second[:1])  # used again: the second is now the oldest
    for row in range(4, 6):
        cached(first[row : row + 1], second[row : row + 1])
        assert sum(path.stat().st_size for path in kept(tmp_path / "c")) <= 4 * size
    hits = cached.hits
    cached(first[:1], second[:1])
    assert cached.hits == hits + 1
    cached(first[1:2], second[1:2])
    assert cached.hits == hits + 1
    again = CachedFlow(Counting(), tmp_path / "c", 2 * size)  # a smaller limit holds from the first file on
    again(first[6:7], second[6:7])
    assert len(kept(tmp_path / "c")) <= 2


def test_files_that_nobody_finishes_are_deleted(tmp_path):
    cached = CachedFlow(Counting(), tmp_path / "c", 10**6)
    (tmp_path / "c" / "ab").mkdir()
    left, busy = (tmp_path / "c" / "ab" / name for name in (".left.partial", ".busy.partial"))
    for file in (left, busy):
        file.touch()
    os.utime(left, (0, 0))
    cached(noise(1), noise(1, seed=1))
    assert (left.exists(), busy.exists()) == (False, True)


def test_a_cache_that_cannot_be_written_still_answers(tmp_path, monkeypatch, caplog):
    cached = CachedFlow(Counting(), tmp_path / "c", 10**6)

    def full(file, **arrays):
        file.write(b"PK")
        raise OSError(errno.ENOSPC, "no space left", file.name)

    monkeypatch.setattr(np, "savez", full)
    first, second = noise(1), noise(1, seed=1)
    for _ in range(2):
        torch.testing.assert_close(cached(first, second), Counting()(first, second), rtol=2**-11, atol=0)
    assert not [path for path in (tmp_path / "c").rglob("*") if path.is_file() and path.name != "provider.json"]
    assert caplog.text.count("flow cannot be kept") == 1


def _fill(folder: Path, seed: int, limit: int, answers) -> None:
    order = np.random.default_rng(seed).permutation(12)
    cached, first, second = CachedFlow(Counting(), folder, limit), noise(12), noise(12, seed=1)
    for rows in np.concatenate([order, order]).reshape(-1, 3):
        flow = cached(first[rows], second[rows])
        if not torch.allclose(flow, Counting()(first[rows], second[rows]), rtol=2**-10, atol=0):
            answers.put("other flow")
    answers.put((cached.hits, cached.misses, cached.damaged))


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_processes_share_a_folder(tmp_path, share):
    processes = multiprocessing.get_context("fork")
    answers = processes.Queue()
    size = 12 * 2 * 2 * 40 * 56 + 12 * 600
    working = [
        processes.Process(target=_fill, args=(tmp_path / "c", seed, int(share * size), answers)) for seed in range(4)
    ]
    for process in working:
        process.start()
    found = [answers.get(timeout=60) for _ in working]
    for process in working:
        process.join(60)
    assert [process.exitcode for process in working] == [0] * 4
    assert all(hits + misses == 24 and damaged == 0 for hits, misses, damaged in found)
    assert not list((tmp_path / "c").rglob("*.partial"))
    if share == 1.0:
        assert len(kept(tmp_path / "c")) == 12
    assert all(read_flow(path).valid.all() for path in kept(tmp_path / "c"))


def test_settings_open_a_provider_with_its_cache(tmp_path):
    provider = opened("midway:midway_pico", cache=tmp_path / "c", cache_gib=0.5)
    first, second = noise(1, 64, 64), noise(1, 64, 64, seed=1)
    assert torch.equal(provider(first, second), provider(first, second))
    assert (provider.hits, provider.misses, provider.limit_bytes) == (1, 1, 2**29)
    assert provider.fingerprint() != provider.provider.fingerprint()
    with pytest.raises(ValueError, match="updates is None there, 2 here"):
        opened("midway:midway_pico", updates=2, cache=tmp_path / "c")


# -- masks -------------------------------------------------------------------------------------------------------------


def test_warping_by_whole_pixels_fetches_exactly_the_pixel_that_flow_points_at():
    maps = torch.arange(2 * 6 * 8, dtype=torch.float32).view(1, 2, 6, 8)
    fetched = warp(maps, constant(2, -1))
    torch.testing.assert_close(fetched[..., 1:, :-2], maps[..., :-1, 2:], rtol=0, atol=1e-4)
    torch.testing.assert_close(fetched[..., 0, :], torch.zeros(1, 2, 8), rtol=0, atol=1e-4)
    torch.testing.assert_close(fetched[..., -2:], torch.zeros(1, 2, 6, 2), rtol=0, atol=1e-4)


def test_a_target_is_in_the_frame_to_its_very_edge():
    seen = in_frame(constant(2.5, 0))[0]
    assert seen[0].tolist() == [True] * 6 + [False] * 2  # 5 + 2.5 = 7.5, the right edge of the last pixel
    assert in_frame(constant(0, -1))[0, :, 0].tolist() == [False] + [True] * 5
    assert not in_frame(constant(NAN, 0)).any()
    assert in_frame(constant(0, 0)).all()


def test_flow_there_and_back_by_whole_pixels_has_no_error():
    assert float(forward_backward_error(constant(2, -1), constant(-2, 1)).max()) < 1e-5
    np.testing.assert_allclose(forward_backward_error(constant(2, -1), constant(-2, 1 + 3)).numpy(), 3, rtol=1e-5)
    occluded = forward_backward_occluded(constant(2, -1), constant(-2, 1))[0]
    expected = torch.ones(6, 8, dtype=torch.bool)
    expected[1:, :-2] = False
    assert torch.equal(occluded, expected)


def test_errors_are_read_where_the_flow_leads():
    flow, backward = constant(2, 1), constant(-2, -1)
    backward[0, 0, 4, 5] += 5.0
    error = forward_backward_error(flow, backward)[0]
    assert torch.equal(
        error > 1, torch.zeros(6, 8).index_put((torch.tensor(3), torch.tensor(3)), torch.tensor(1.0)) > 0
    )
    assert float(error[3, 3]) == pytest.approx(5, abs=1e-4)


def test_the_limit_of_flowe_is_a_distance():
    inside, outside = (forward_backward_occluded(constant(0, 0), constant(0, length)) for length in (3.53, 3.55))
    assert not inside.any()
    assert outside.all()
    assert forward_backward_occluded(constant(0, 0), constant(0, 1.5), pixels=1).all()


def test_the_limit_of_ddflow_grows_with_the_flow():
    # |f + b|^2 = 25 is held against 0.1 (400 + 225) + 0.5 = 63 and 0.01 (400 + 225) + 0.5 = 6.75.
    flow, backward = constant(20, 0, 4, 60), constant(-15, 0, 4, 60)
    assert not ddflow_occluded(flow, backward)[0, :, :40].any()
    assert ddflow_occluded(flow, backward)[0, :, 40:].all()
    assert ddflow_occluded(flow, backward, slope=0.01).all()
    assert ddflow_occluded(constant(0, 0), constant(0, 1)).all()  # 1 > 0.1 + 0.5
    assert not ddflow_occluded(constant(0, 0), constant(0, 1), offset=1.0).any()


@pytest.mark.parametrize("test", [forward_backward_occluded, ddflow_occluded])
def test_what_is_not_known_is_not_relied_on_and_spoils_nothing_else(test):
    flow, backward = constant(1, 0), constant(-1, 0)
    flow[0, :, 2, 2] = NAN
    backward[0, 0, 4, 5] = NAN
    hidden = test(flow, backward)[0]
    expected = torch.zeros(6, 8, dtype=torch.bool)
    expected[:, -1] = expected[2, 2] = expected[4, 4] = True
    assert torch.equal(hidden, expected)


def test_an_unknown_pixel_has_no_error_and_is_occluded():
    flow = constant(0, 0)
    flow[0, 1, 2, 2] = NAN
    wanted = torch.zeros(6, 8, dtype=torch.bool)
    wanted[2, 2] = True
    assert torch.equal(forward_backward_error(flow, constant(0, 0))[0].isnan(), wanted)
    assert torch.equal(forward_backward_occluded(flow, constant(0, 0))[0], wanted)
    assert torch.equal(ddflow_occluded(flow, constant(0, 0))[0], wanted)


def test_a_covered_pixel_is_occluded_in_a_scene_of_two_layers():
    flow, backward = constant(0, 0, 4, 12), constant(0, 0, 4, 12)
    flow[0, 0, :, 2:5], backward[0, 0, :, 6:9] = 4.0, -4.0  # a square moves from columns 2-4 to 6-8
    for test in (forward_backward_occluded, ddflow_occluded):
        assert test(flow, backward)[0, 0].tolist() == [column in (6, 7, 8) for column in range(12)]


def test_settings_choose_the_test_and_its_numbers():
    flow, backward = constant(0, 0), constant(0, 1)
    valid = {
        name: bool(valid_pixels(flow, backward, FlowProviderSettings(occlusion=kind, **numbers)).all())
        for name, kind, numbers in (
            ("none", "none", {}),
            ("flowe", "forward_backward", {}),
            ("strict", "forward_backward", {"occlusion_pixels": 0.9}),
            ("ddflow", "ddflow", {}),
            ("lenient", "ddflow", {"occlusion_offset": 1.0}),
        )
    }
    assert valid == {"none": True, "flowe": True, "strict": False, "ddflow": False, "lenient": True}
    assert valid_pixels(flow, None, FlowProviderSettings()).all()


# -- crop --------------------------------------------------------------------------------------------------------------


def test_a_crop_of_its_own_size_is_exact():
    flow = torch.randn(2, 9, 11)
    moved, valid = crop_flow(flow, torch.ones(9, 11, dtype=torch.bool), (2, 3, 5, 6), (5, 6))
    assert torch.equal(moved, flow[:, 2:7, 3:9])
    x = torch.arange(6) + moved[0]
    y = torch.arange(5)[:, None] + moved[1]
    assert torch.equal(valid, (x >= -0.5) & (x <= 5.5) & (y >= -0.5) & (y <= 4.5))


@pytest.mark.parametrize("size", [(8, 4), (16, 32), (24, 12)])
def test_flow_is_in_pixels_of_the_view(size):
    flow = constant(2, -4, 20, 20)[0]
    moved, valid = crop_flow(flow, torch.ones(20, 20, dtype=torch.bool), (2, 3, 16, 8), size)
    down, across = size[0] / 16, size[1] / 8
    torch.testing.assert_close(moved, constant(2 * across, -4 * down, *size)[0])
    assert torch.equal(valid, in_frame(moved[None])[0])


def test_targets_that_leave_the_box_are_invalid_even_within_the_frame():
    _, valid = crop_flow(constant(3, 0, 10, 20)[0], torch.ones(10, 20, dtype=torch.bool), (1, 2, 8, 8), (8, 8))
    assert valid.tolist() == [[True] * 5 + [False] * 3] * 8


def test_a_point_leads_to_the_same_place_in_the_view_as_in_the_frame():
    """An affine motion: the view's flow at the centre of a view pixel is that of the frame there, in view pixels."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    flow = torch.stack([0.1 * x - 0.05 * y + 1, 0.02 * x + 0.1 * y - 2])
    box, size = (4, 6, 30, 24), (45, 12)
    moved, _ = crop_flow(flow, torch.ones(40, 50, dtype=torch.bool), box, size)
    rows, columns = (torch.arange(size[0]) + 0.5) * 30 / 45 - 0.5 + 4, (torch.arange(size[1]) + 0.5) * 2 - 0.5 + 6
    expected_x = (0.1 * columns - 0.05 * rows[:, None] + 1) * 0.5
    expected_y = (0.02 * columns + 0.1 * rows[:, None] - 2) * 1.5
    torch.testing.assert_close(moved[:, 1:-1], torch.stack([expected_x, expected_y])[:, 1:-1], rtol=1e-4, atol=1e-4)


def test_a_view_pixel_is_known_where_all_it_is_made_of_is():
    valid = torch.ones(8, 8, dtype=torch.bool)
    valid[2, 2] = False
    flow = constant(0, 0, 8, 8)[0]
    flow[0, 5, 5] = NAN
    moved, seen = crop_flow(flow, valid, (0, 0, 8, 8), (4, 4))
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[1, 1] = expected[2, 2] = False
    assert torch.equal(seen, expected)
    assert moved.isfinite().all()
    _, same = crop_flow(flow, valid, (0, 0, 8, 8), (8, 8))
    assert int((~same).sum()) == 2


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 5, 4, 4), (0, 0, 0, 4), (5, 0, 4, 4)])
def test_a_box_beyond_the_frame_is_refused(box):
    with pytest.raises(ValueError, match="is not within flow of"):
        crop_flow(constant(0, 0, 8, 8)[0], torch.ones(8, 8, dtype=torch.bool), box, (4, 4))
