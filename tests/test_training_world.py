"""The synthetic world: pure functions of settings and seed, looks like nature, refuses bad settings."""

import hashlib
import json
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from midway_hub.training.data.clip import Clip, ClipSource
from midway_hub.training.data.synthetic import (
    CLASSES,
    CLEAR,
    PALETTE,
    SHIFT_ONLY,
    STILL,
    EffectSettings,
    MotionSettings,
    TextureSettings,
    WorldSettings,
    WorldSource,
    held_out_seeds,
    render_moments,
    render_pairs,
    world_sheet,
)
from midway_hub.training.data.synthetic.atlas import atlas, make_tiles
from midway_hub.training.data.synthetic.textures import FAMILIES
from midway_hub.training.data.synthetic.worlds import Worlds, _pairs

CPU = torch.device("cpu")
TEXTURES = TextureSettings(tiles=6, tile_size=64)
WORLD = WorldSettings(size=(48, 64), textures=TEXTURES)
NAMES = ("first", "second", "flow", "backward_flow", "occluded", "backward_occluded", "labels", "second_labels")


def digest(settings: WorldSettings, seeds: list[int]) -> str:
    pairs = render_pairs(settings, seeds)
    return hashlib.sha256(b"".join(getattr(pairs, name).numpy().tobytes() for name in NAMES)).hexdigest()


def slope(picture: np.ndarray) -> float:
    """Exponent of frequency that the power of a picture (H, W) falls with, over the middle frequencies."""
    size = min(picture.shape)
    window = np.hanning(size)[:, None] * np.hanning(size)
    power = np.abs(np.fft.fft2((picture - picture.mean())[:size, :size] * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    edges = np.geomspace(3 / size, 0.3, 8)
    band = [(frequency >= low) & (frequency < high) for low, high in pairwise(edges)]
    return np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), [np.log(power[inside].mean()) for inside in band], 1)[0]


def test_pairs_have_the_shapes_and_types_promised():
    pairs = render_pairs(WORLD, [1, 2, 3])
    kinds = {name: (tuple(getattr(pairs, name).shape), getattr(pairs, name).dtype) for name in NAMES}
    assert kinds["first"] == kinds["second"] == ((3, 3, 48, 64), torch.uint8)
    assert kinds["flow"] == kinds["backward_flow"] == ((3, 2, 48, 64), torch.float32)
    assert kinds["occluded"] == kinds["backward_occluded"] == ((3, 48, 64), torch.bool)
    assert kinds["labels"] == kinds["second_labels"] == ((3, 48, 64), torch.uint8)
    assert pairs.labels.max() < len(CLASSES) == len(PALETTE)


def largest_difference(one, other):
    return (one.double() - other.double()).abs().max()


def test_a_pair_does_not_depend_on_its_batch():
    together, alone = render_pairs(WORLD, [9, 4, 7]), render_pairs(WORLD, [4])
    for name in NAMES:
        assert largest_difference(getattr(together, name)[1:2], getattr(alone, name)) < 1e-3, name


def test_worlds_rendered_as_one_batch_are_those_rendered_one_by_one():
    seeds = list(range(12))
    together, alone = _pairs(Worlds(WORLD, seeds, CPU)), render_pairs(WORLD, seeds)
    for name in ("flow", "backward_flow"):
        torch.testing.assert_close(getattr(together, name), getattr(alone, name), rtol=0, atol=1e-3)
    for name in ("first", "second"):
        difference = (getattr(together, name).int() - getattr(alone, name).int()).abs()
        assert difference.max() <= 1
        assert difference.float().mean() < 1e-3
    assert torch.equal(together.labels, alone.labels)
    assert (together.occluded != alone.occluded).float().mean() < 1e-3


def test_frames_alone_are_those_of_the_pairs():
    pairs, (first, second) = render_pairs(WORLD, [3, 5]), render_moments(WORLD, [3, 5]).frames.unbind(1)
    assert torch.equal(first, pairs.first)
    assert torch.equal(second, pairs.second)


def test_another_process_makes_the_same_worlds():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_training_world as t;"
        "import torch; torch.set_num_threads(1); print(t.digest(t.WORLD, [3, 8]))"
    )
    folder = str(Path(__file__).parent)
    said = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True).stdout
    assert said.strip() == digest(WORLD, [3, 8])


@pytest.mark.gpu
def test_a_gpu_makes_the_worlds_of_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    seeds = list(range(100))
    ours, theirs = render_pairs(WORLD, seeds), render_pairs(WORLD, seeds, device="cuda")
    assert (ours.first.int() - theirs.first.cpu().int()).abs().float().mean() < 0.1
    assert (ours.labels != theirs.labels.cpu()).float().mean() < 1e-3
    assert (ours.flow - theirs.flow.cpu()).abs().median() < 1e-3
    again = render_pairs(WORLD, seeds[40:43], device="cuda")
    for name in NAMES:
        assert largest_difference(getattr(again, name), getattr(theirs, name)[40:43]) < 1e-3, name


def test_other_seeds_make_other_worlds():
    assert len({frame.numpy().tobytes() for frame in render_moments(WORLD, range(8)).frames[:, 0]}) == 8


def test_held_out_worlds_lie_beyond_all_that_training_draws():
    source = WorldSource(WORLD, seed=3, length=5)
    drawn = [seed for index in range(5) for seed in source.seeds(index, 200, np.random.default_rng(index))]
    held_out = held_out_seeds(1000)
    assert len(set(drawn)) == 1000
    assert max(drawn) < 1 << 62 == held_out[0]
    assert len(held_out) == 1000
    assert set(held_out_seeds(10, start=1000)).isdisjoint(held_out)


@pytest.mark.parametrize("arguments", [(-1, 0), (1, -1), (1, 1 << 62)])
def test_impossible_held_out_seeds_are_refused(arguments):
    with pytest.raises(ValueError, match="held-out seeds need"):
        held_out_seeds(*arguments)


@pytest.mark.parametrize("seed", [-1, 1 << 63, 0.5, True, "3"])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match=r"integer from 0 to 2\^63 - 1, got"):
        render_pairs(WORLD, [seed])


def test_no_seeds_are_refused():
    with pytest.raises(ValueError, match="at least one seed"):
        render_pairs(WORLD, [])


def test_a_source_gives_the_pairs_of_its_seeds():
    source = WorldSource(WORLD, seed=1, length=7)
    assert isinstance(source, ClipSource)
    assert len(source) == 7
    pairs = pickle.loads(pickle.dumps(source)).clips(2, 3, np.random.default_rng(5))
    seeds = source.seeds(2, 3, np.random.default_rng(5))
    first, second = render_moments(WORLD, seeds).frames.unbind(1)
    for pair, seed, x, y in zip(pairs, seeds, first, second, strict=True):
        assert isinstance(pair, Clip)
        assert pair.first.dtype == np.uint8
        np.testing.assert_array_equal(pair.first, x.permute(1, 2, 0))
        np.testing.assert_array_equal(pair.second, y.permute(1, 2, 0))
        assert (pair.name, pair.frames, pair.seconds) == (f"world {seed}", (0, 1), WORLD.seconds)


def test_seeds_of_a_source_depend_on_seed_item_and_generator():
    def seeds(seed: int, index: int, drawn: int) -> tuple[int, ...]:
        return tuple(WorldSource(WORLD, seed).seeds(index, 2, np.random.default_rng(drawn)))

    assert seeds(0, 0, 0) == seeds(0, 0, 0)
    assert len({seeds(0, 0, 0), seeds(1, 0, 0), seeds(0, 1, 0), seeds(0, 0, 1)}) == 4


def test_a_fingerprint_is_json_and_tells_sources_apart():
    marks = [WorldSource(WORLD), WorldSource(WORLD, 1), WorldSource(WORLD, length=5), WorldSource(SHIFT_ONLY)]
    assert len({json.dumps(source.fingerprint()) for source in marks}) == 4


def test_a_source_refuses_what_it_does_not_have():
    with pytest.raises(ValueError, match="length=0"):
        WorldSource(WORLD, length=0)
    with pytest.raises(IndexError, match="items 0 to 9999, got 10000"):
        WorldSource(WORLD).seeds(10_000, 1, np.random.default_rng())


def test_power_falls_with_frequency_as_in_nature():
    settings = WorldSettings(textures=TextureSettings(tiles=12, tile_size=128), effects=CLEAR)
    slopes = [slope(frame.float().mean(dim=0).numpy()) for frame in render_moments(settings, range(40)).frames[:, 0]]
    assert -2.6 < np.mean(slopes) < -1.6


@pytest.mark.parametrize("family", FAMILIES)
def test_tiles_repeat_without_a_seam(family):
    ratios = []
    for number in range(4):
        tile = FAMILIES[family](64, np.random.default_rng(number)).mean(axis=2)
        steps = np.abs(np.diff(tile, axis=0, append=tile[:1])).mean(axis=1)
        ratios.append(steps[-1] / np.sort(steps)[-4:].mean())
    assert np.mean(ratios) < 1.3


def test_every_patch_has_something_to_match():
    frames = render_moments(WorldSettings(textures=TEXTURES, size=(64, 64), effects=CLEAR), range(24)).frames[:, 0]
    patches = frames.float().mean(dim=1).unfold(1, 16, 16).unfold(2, 16, 16).flatten(3)
    assert (patches.std(dim=-1) > 2).float().mean() > 0.97  # grey levels of 255


def test_sampling_an_atlas_between_texels_and_sizes_is_trilinear():
    pool = atlas(TEXTURES, CPU)
    tile = torch.from_numpy(make_tiles(TEXTURES)[2]).float()
    half = tile.view(32, 2, 32, 2, 3).mean(dim=(1, 3))
    x, y = 63.25, 10.5  # reaches over the right edge
    fine = sum(
        wx * wy * tile[row, column % 64]
        for column, wx in ((63, 0.75), (64, 0.25))
        for row, wy in ((10, 0.5), (11, 0.5))
    )
    hx, hy = (x + 0.5) / 2 - 0.5, (y + 0.5) / 2 - 0.5  # 31.375, 5.0
    coarse = (1 - hx % 1) * half[int(hy), 31] + hx % 1 * half[int(hy), 0]
    place = torch.tensor([[x, y], [x + 64, y - 128], [x, y], [x, y]])
    footprint = torch.tensor([0.5, 1.0, 2.0, 2**0.5])
    sampled = pool.sample(torch.full((4,), 2, dtype=torch.int32), place, footprint)
    expected = torch.stack([fine, fine, coarse, (fine + coarse) / 2], dim=1)
    torch.testing.assert_close(sampled, expected, rtol=0, atol=2e-4)


def test_photographs_become_tiles(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    pixels[..., 0] = 255
    Image.fromarray(pixels).save(tmp_path / "red.png")
    settings = TextureSettings(tiles=4, tile_size=64, photographs=tmp_path, photograph_share=0.5)
    red = [bool((tile[..., 0] > 0.99).all()) for tile in make_tiles(settings)]
    assert sum(red) == 2


def test_a_folder_without_photographs_is_refused(tmp_path):
    settings = WORLD.model_copy(update={"textures": TextureSettings(tiles=4, tile_size=64, photographs=tmp_path)})
    with pytest.raises(FileNotFoundError, match=r"no picture .* in .*name a folder of pictures or null"):
        render_pairs(settings, [0])


def test_a_fingerprint_lists_the_photographs(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    source = WorldSource(WORLD.model_copy(update={"textures": TextureSettings(photographs=tmp_path)}))
    assert source.fingerprint()["photographs"] == [["a.png", (tmp_path / "a.png").stat().st_size]]


def test_a_world_can_hold_as_many_objects_as_there_may_be():
    labels = render_pairs(WORLD.model_copy(update={"objects": (29, 29)}), [0]).labels
    assert len(labels.unique()) > 6


def test_noise_is_as_strong_as_it_was_drawn():
    quiet = WORLD.model_copy(update={"effects": CLEAR, "motion": STILL})
    noisy = quiet.model_copy(update={"effects": CLEAR.model_copy(update={"noise_probability": 1.0})})
    clean, grainy = render_moments(quiet, range(16)).frames[:, 0], render_moments(noisy, range(16)).frames.unbind(1)
    worlds = Worlds(noisy, range(16), CPU)
    for world in range(16):
        middle = (clean[world] > 80) & (clean[world] < 180)
        spread = (grainy[0][world].float() - clean[world].float())[middle].std().item() / 255
        brightness = 0.5 + clean[world][middle].float().mean().item() / 255
        assert spread == pytest.approx(worlds.effects.noise[world] * brightness, rel=0.1, abs=2e-3)
    assert not torch.equal(grainy[0], grainy[1])


def test_light_changes_brightness_no_more_than_its_strength():
    effects = CLEAR.model_copy(update={"lighting_probability": 1.0, "lighting_strength": 0.2})
    settings = WORLD.model_copy(update={"effects": effects, "motion": STILL})
    first, second = (frames.float() for frames in render_moments(settings, range(16)).frames.unbind(1))
    bright = (first > 60) & (first < 200)
    ratio = second[bright] / first[bright]
    assert (ratio - 1).abs().max() > 0.05
    assert (ratio - 1).abs().max() < 0.2 / (1 - 0.2) + 0.02


def test_motion_blur_smooths_along_the_motion_alone():
    sideways = STILL.model_copy(update={"background_shift": 0.2, "displacement": (0.2, 0.2)})
    sharp = SHIFT_ONLY.model_copy(update={"motion": sideways, "textures": TEXTURES})
    blurred = sharp.model_copy(update={"effects": EffectSettings(**{**CLEAR.model_dump(), "blur_probability": 1})})
    pairs, smoothed = render_pairs(sharp, range(12)), render_moments(blurred, range(12)).frames[:, 0]
    along = pairs.flow[:, :, 0, 0].abs()
    rough = pairs.first.float().mean(dim=1), smoothed.float().mean(dim=1)
    across_x = [frames.diff(dim=2).abs().mean(dim=(1, 2)) for frames in rough]
    across_y = [frames.diff(dim=1).abs().mean(dim=(1, 2)) for frames in rough]
    kept_x, kept_y = across_x[1] / across_x[0], across_y[1] / across_y[0]
    moved = along.amax(dim=1) > 3
    assert ((kept_x < kept_y) == (along[:, 0] > along[:, 1]))[moved].float().mean() > 0.8


def test_a_sheet_shows_five_pictures_per_world():
    sheet = world_sheet(WORLD, range(3), columns=2, zoom=2)
    assert sheet.size == (2 * 2 * (5 * 64 + 4), 2 * 2 * (48 + 4))
    assert len(sheet.getcolors(1 << 20)) > 500


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (WorldSettings, {"size": (8, 64)}, "at least 16 x 16 pixels, got 8 x 64"),
        (WorldSettings, {"size": (32, 128)}, "not be longer than 3 to 1, got 32 x 128"),
        (WorldSettings, {"objects": (3, 2)}, r"objects is a range \[fewest, most\] within \[0, 29\], got \[3, 2\]"),
        (WorldSettings, {"objects": (0, 30)}, "objects is a range"),
        (WorldSettings, {"object_radius": (0.5, 0.2)}, "object_radius is a range"),
        (WorldSettings, {"depth": (0.1, 2)}, r"depth is a range \[least, most\] within \[1, 100\]"),
        (WorldSettings, {"shapes": {"cow": 1}}, r"shapes has \['cow'\]; there are ellipse, box"),
        (WorldSettings, {"shapes": {"star": 0}}, "not all 0"),
        (WorldSettings, {"shape": {}}, "Extra inputs are not permitted"),
        (WorldSettings, {"motion": {"snap": 16}}, "needs a motion.displacement that slows nothing down"),
        (MotionSettings, {"displacement": (0.3, 0.1)}, "motion.displacement is a range"),
        (TextureSettings, {"tile_size": 100}, "a power of two from 32 on, got 100"),
        (TextureSettings, {"weights": {"leaves": -1}}, "at least 0"),
        (TextureSettings, {"sharpness": (0, 1)}, "textures.sharpness is a range"),
        (EffectSettings, {"blur_samples": 4}, "must be odd"),
        (EffectSettings, {"blur_shutter": (0.2, 2)}, "effects.blur_shutter is a range"),
        (EffectSettings, {"noise_probability": 2}, "less than or equal to 1"),
    ],
)
def test_bad_settings_are_refused_with_what_was_seen_and_wanted(section, values, message):
    with pytest.raises(ValueError, match=message):
        section(**values)
