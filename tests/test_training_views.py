"""The views of frame pairs, made on the CPU with torchvision and batched by our own kernels, from the same draws."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from midway_hub.training.data.clip import Clip
from midway_hub.training.data.views import (
    ViewDraw,
    ViewSettings,
    apply_views,
    apply_views_batched,
    contact_sheet,
    draw_views,
    normalise_views,
)
from midway_hub.training.data.views.blur import blur
from midway_hub.training.data.views.colour import BRIGHTNESS, CONTRAST, SATURATION, blend, change_colours, turn_hue
from midway_hub.training.data.views.draw import ColourDraw
from midway_hub.training.data.views.resize import _bands, crop_and_resize, resize_weights

GROUPS = ("globals", "locals", "dense")


def needs(settings, groups=GROUPS):
    """What settings ask for, cut down to some groups and what they are cut from."""
    asked = settings.needs()
    return replace(asked, crops={name: crops for name, crops in asked.crops.items() if name in {*groups, "initial"}})


SMALL = ViewSettings(global_size=48, local_size=24, local_count=3, dense_size=48)


def noise(height=120, width=160, seed=0):
    """A picture with large and small structure, and saturated corners."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    fine = generator.normal(0, 25, (height, width, 3))
    return np.clip(np.asarray(coarse) * 1.4 - 40 + fine, 0, 255).astype(np.uint8)


def frame_pair(seed=0, **size):
    return Clip.of_pair(noise(seed=seed, **size), noise(seed=seed + 1000, **size), f"noise {seed}", (3, 18), 0.5)


def draws_for(pairs, settings=SMALL, groups=GROUPS):
    return [
        draw_views(needs(settings, groups), pair.first.shape[:2], np.random.default_rng(seed))
        for seed, pair in enumerate(pairs)
    ]


def on_device(frames, device="cpu"):
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).to(device)


def batched(pairs, draws, device="cpu", **options):
    frames = torch.from_numpy(np.stack([pair.pictures for pair in pairs])).permute(0, 1, 4, 2, 3).to(device)
    return apply_views_batched(frames, draws, **options)


def within_a_level(views, reference):
    """Whether no value differs by more than one grey level of 255, which rounding may make of a last bit."""
    return views.shape == reference.shape and (views.float() - reference.float()).abs().max() <= 1


def assert_nearly_equal(views, reference):
    """At most one value in a hundred differs, and by three grey levels at most."""
    for group, ours in views.items():
        apart = (ours.cpu().int() - reference[group].int()).abs()
        assert apart.max() <= 3, f"{group}: {apart.max()} levels apart"
        assert (apart > 0).float().mean() < 0.01, group


@pytest.fixture(scope="module")
def pairs():
    return [frame_pair(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def photographs(shared):
    """Frame pairs of 320×480 cut from real photographs."""
    images = shared / "data" / "images"
    names = [("highway_1.jpg", "highway_2.jpg"), ("motorcycle_left.png", "motorcycle_right.png")]
    return [
        Clip.of_pair(
            *(np.array(Image.open(images / name).convert("RGB").resize((480, 320))) for name in two),
            two[0],
            (0, 1),
            1.0,
        )
        for two in names
    ]


# Views made on the CPU


def test_views_have_the_shapes_and_the_order_of_their_groups(pairs):
    views = apply_views(pairs[0], draws_for(pairs)[0])
    shapes = {group: tuple(view.shape) for group, view in views.items()}
    assert shapes == {"globals": (4, 3, 48, 48), "locals": (6, 3, 24, 24), "dense": (2, 3, 48, 48)}
    assert all(view.dtype == torch.uint8 for view in views.values())


def test_the_first_half_of_a_group_comes_from_frame_x_and_the_rest_from_frame_y():
    black, white = np.zeros((60, 80, 3), np.uint8), np.full((60, 80, 3), 255, np.uint8)
    pair = Clip.of_pair(black, white, "flat", (0, 1), 1.0)
    plain = ViewSettings(**SMALL.model_dump() | {"jitter_probability": 0, "global_2": {"blur": 0, "solarise": 0}})
    draws = draws_for([pair], plain)
    for views in (apply_views(pair, draws[0]), {name: view[0] for name, view in batched([pair], draws).items()}):
        for view in views.values():
            early, late = view.chunk(2)
            assert (early == 0).all()
            assert (late >= 254).all()  # torchvision's grayscale takes white down by one level


def test_a_view_without_colour_changes_is_the_resized_and_mirrored_crop(pairs):
    plain = {"jitter_probability": 0, "grayscale_probability": 0, "flip_probability": 1}
    plain |= {name: {"blur": 0, "solarise": 0} for name in ("global_1", "global_2", "local")}
    pair, draw = pairs[0], draws_for(pairs, ViewSettings(**SMALL.model_dump() | plain))[0]
    top, left, height, width = draw.groups["globals"].boxes[0]
    crop = Image.fromarray(pair.first).crop((left, top, left + width, top + height))
    expected = np.asarray(crop.resize((48, 48), Image.Resampling.BICUBIC)).astype(int)[:, ::-1]
    ours = apply_views(pair, draw)["globals"][0].permute(1, 2, 0).numpy()
    assert np.abs(ours - expected).max() <= 1


def test_read_only_frames_are_taken_without_a_warning(pairs, recwarn):
    pair = frame_pair()
    for frame in (pair.first, pair.second):
        frame.flags.writeable = False
    apply_views(pair, draws_for([pair])[0])
    assert not recwarn.list


def test_frames_that_are_not_uint8_are_refused(pairs):
    floats = Clip.of_pair(pairs[0].first / 255, pairs[0].second, "clip.mp4", (3, 18), 0.5)
    with pytest.raises(ValueError, match=r"clip.mp4: frame 3 is float64, wanted uint8"):
        apply_views(floats, draws_for(pairs)[0])


def test_frames_of_two_sizes_are_refused(pairs):
    uneven = Clip.of_pair(pairs[0].first, pairs[0].second[:-2], "clip.mp4", (3, 18), 0.5)
    with pytest.raises(ValueError, match=r"clip.mp4: frame 18 has shape \(118, 160, 3\), .* \(120, 160, 3\)"):
        apply_views(uneven, draws_for(pairs)[0])


# The batched way


def test_batched_views_agree_with_those_of_the_cpu_on_noise(pairs):
    draws = draws_for(pairs)
    reference = [apply_views(pair, draw) for pair, draw in zip(pairs, draws, strict=True)]
    assert_nearly_equal(
        batched(pairs, draws), {group: torch.stack([one[group] for one in reference]) for group in GROUPS}
    )


def test_batched_views_agree_with_those_of_the_cpu_on_photographs_at_full_size(photographs):
    draws = draws_for(photographs, ViewSettings(local_count=4))
    reference = [apply_views(pair, draw) for pair, draw in zip(photographs, draws, strict=True)]
    views = batched(photographs, draws)
    assert_nearly_equal(views, {group: torch.stack([one[group] for one in reference]) for group in GROUPS})


def test_batched_views_do_not_depend_on_what_else_is_in_the_batch(pairs):
    draws = draws_for(pairs)
    together = batched(pairs, draws)
    for index in (0, 3, 5):
        alone = batched([pairs[index]], [draws[index]])
        assert all(within_a_level(alone[group][0], together[group][index]) for group in GROUPS)
    backwards = batched(pairs[::-1], draws[::-1])
    assert all(within_a_level(backwards[group].flip(0), together[group]) for group in GROUPS)


def test_batched_views_do_not_depend_on_the_memory_they_may_take(pairs):
    draws = draws_for(pairs)
    roomy, tight = batched(pairs, draws), batched(pairs, draws, memory=1)
    assert all(within_a_level(roomy[group], tight[group]) for group in GROUPS)


def test_batched_views_are_exact_under_autocast_and_low_matmul_precision(pairs):
    draws = draws_for(pairs)
    expected = batched(pairs, draws)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            views = batched(pairs, draws)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(within_a_level(views[group], expected[group]) for group in GROUPS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batched_views_on_a_gpu_agree_with_those_of_the_cpu(pairs):
    draws = draws_for(pairs)
    assert_nearly_equal(batched(pairs, draws, "cuda"), batched(pairs, draws))


@pytest.mark.parametrize(
    ("frames", "count", "message"),
    [
        (torch.zeros(2, 2, 3, 120, 160), 2, "frames are torch.float32"),
        (torch.zeros(2, 2, 120, 160, 3).byte(), 2, r"wanted uint8 \(B, T, 3, H, W\)"),
        (torch.zeros(2, 2, 3, 120, 160).byte(), 1, "1 draws for 2 clips"),
        (torch.zeros(2, 2, 3, 60, 160).byte(), 2, "views were drawn for"),
    ],
)
def test_batches_that_do_not_fit_their_draws_are_refused(pairs, frames, count, message):
    with pytest.raises(ValueError, match=message):
        apply_views_batched(frames, draws_for(pairs)[:count])


def test_draws_of_different_groups_are_refused_in_one_batch(pairs):
    mixed = [*draws_for(pairs[:1]), *draws_for(pairs[:1], groups=("dense",))]
    with pytest.raises(ValueError, match="draws of one batch differ"):
        batched(pairs[:2], mixed)


# Its kernels, against torch and torchvision


@pytest.mark.parametrize("length", [1, 2, 17, 48, 100, 333])
def test_resize_weights_are_those_of_torch(length):
    positions, weights = _bands(torch.tensor([length]), 48, length)
    exact = torch.zeros(1, 48, length + 1, dtype=torch.float64).scatter_(2, positions, weights)[0, :, :length]
    rows = torch.eye(length, dtype=torch.float64)[None, None]
    expected = interpolate(rows, size=(length, 48), mode="bicubic", antialias=True)[0, 0].T
    assert torch.allclose(exact, expected, atol=1e-12)
    rounded = resize_weights(torch.tensor([length]), 48, length)[0]
    assert torch.allclose(rounded.double(), expected, rtol=0, atol=2**-15)


def test_resize_weights_of_short_rows_are_zero_beyond_their_length():
    weights = resize_weights(torch.tensor([30, 90]), 48, 90)
    assert (weights[0, :, 30:] == 0).all()
    torch.testing.assert_close(weights[0, :, :30], resize_weights(torch.tensor([30]), 48, 30)[0])


def test_resized_crops_equal_torchvisions_on_uint8():
    image, generator = on_device([noise(200, 260)]), np.random.default_rng(0)
    sides = generator.integers(1, 190, (30, 2))
    boxes = np.concatenate([generator.integers(0, 11, (30, 2)), sides], axis=1)
    where, flips = torch.zeros(30, dtype=torch.int64), torch.zeros(30, dtype=torch.bool)
    ours = crop_and_resize(image, where, torch.from_numpy(boxes), flips, (48, 48), largest=tuple(sides.max(axis=0)))
    for box, crop in zip(boxes.tolist(), ours, strict=True):
        theirs = functional.resized_crop(image[0], *box, [48, 48], InterpolationMode.BICUBIC, antialias=True)
        assert (crop - theirs).abs().max() <= 1
        assert (crop != theirs).float().mean() < 1e-3


@pytest.fixture(scope="module")
def levels():
    """(5, 3, 64, 64) uint8: noise, a photograph-like picture, greys, one flat and one black picture."""
    generator = np.random.default_rng(0)
    random = torch.from_numpy(generator.integers(0, 256, (3, 64, 64), dtype=np.uint8))
    smooth = on_device([noise(64, 64)])[0]
    return torch.stack([random, smooth, smooth[:1].expand(3, -1, -1), torch.full_like(smooth, 77), smooth * 0])


@pytest.mark.parametrize(
    ("operation", "theirs"),
    [
        (BRIGHTNESS, functional.adjust_brightness),
        (CONTRAST, functional.adjust_contrast),
        (SATURATION, functional.adjust_saturation),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.63, 1.0, 1.37, 2.0])
def test_blending_agrees_with_torchvision(levels, operation, theirs, factor):
    ours = blend(levels.float(), np.full(5, operation), np.full(5, factor))
    apart = (ours - torch.stack([theirs(view, factor) for view in levels])).abs()
    assert apart.max() <= 1
    assert (apart[:2] > 0).float().mean() < 0.03


@pytest.mark.parametrize("turns", [-0.5, -0.08, 0.0, 0.03, 0.1, 0.41])
def test_turned_hues_agree_with_torchvision(levels, turns):
    ours = turn_hue(levels.float(), np.full(5, turns))
    apart = (ours - torch.stack([functional.adjust_hue(view, turns) for view in levels])).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 1e-3


@pytest.mark.parametrize("deviation", [0.1, 0.5, 1.0, 2.0])
def test_blurred_views_agree_with_torchvision(levels, deviation):
    taps = 2 * int(np.ceil(3 * deviation)) + 1
    theirs = functional.gaussian_blur(levels, [taps, taps], [deviation])
    apart = (blur(levels.float(), np.full(5, deviation)) - theirs).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 1e-3


@pytest.mark.parametrize("deviation", [0.5, 1.0, 2.0])
def test_blurred_photographs_are_near_to_pillows(photographs, deviation):
    picture = Image.fromarray(photographs[0].first).resize((224, 224))
    theirs = np.asarray(picture.filter(ImageFilter.GaussianBlur(deviation))).astype(float)
    ours = blur(on_device([np.asarray(picture)]).float(), np.array([deviation]))[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).mean() < 0.7


def test_each_view_is_changed_by_its_own_factors_and_in_its_own_order(levels):
    generator = np.random.default_rng(0)
    draw = ColourDraw(
        jitter=np.array([True, True, True, False, True]),
        factors=generator.uniform((0.6, 0.6, 0.8, -0.1), (1.4, 1.4, 1.2, 0.1), (5, 4)),
        order=generator.permuted(np.tile(np.arange(4), (5, 1)), axis=1),
        grayscale=np.array([False, False, True, False, False]),
        blur=np.array([0.0, 1.3, 0.0, 0.4, 2.0]),
        solarise=np.array([True, False, False, True, False]),
    )
    together = change_colours(levels.float(), draw)
    for index in range(5):
        alone = change_colours(levels[[index]].float(), draw[[index]])
        torch.testing.assert_close(together[index], alone[0], rtol=0, atol=1e-2)


def test_solarising_inverts_the_bright_half_like_torchvision():
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, -1, -1)
    no = np.zeros(1, dtype=bool)
    draw = ColourDraw(no, np.ones((1, 4)), np.arange(4)[None], no, np.zeros(1), ~no)
    assert torch.equal(change_colours(ramp.float(), draw), functional.solarize(ramp, 128).float())


# Normalising and looking


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_normalised_views_have_imagenets_mean_and_deviation(dtype):
    from torchvision.transforms.v2.functional import normalize

    levels = torch.randint(0, 256, (2, 4, 3, 8, 8))
    views = {"globals": levels.to(dtype)}
    before = views["globals"].clone()
    expected = normalize(levels.double() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    made = normalise_views(views)["globals"]
    assert made.dtype == torch.float32
    assert torch.allclose(made.double(), expected, atol=1e-5)
    assert torch.equal(views["globals"], before)


def test_a_contact_sheet_shows_frames_boxes_and_all_views(pairs):
    sheet = contact_sheet(pairs[0], draws_for(pairs)[0])
    assert sheet.width == 1240
    colours = {colour for _, colour in sheet.getcolors(sheet.width * sheet.height)}
    assert {(255, 255, 255), (255, 69, 0), (0, 191, 255), (255, 215, 0)} <= colours
    only_dense = contact_sheet(pairs[0], draws_for(pairs, groups=("dense",))[0])
    assert only_dense.height < sheet.height


def test_views_are_the_same_from_a_draw_that_travelled(pairs):
    draw = draws_for(pairs)[0]
    travelled = pickle.loads(pickle.dumps(draw))
    assert isinstance(travelled, ViewDraw)
    here, there = apply_views(pairs[0], draw), apply_views(pairs[0], travelled)
    assert all(within_a_level(here[group], there[group]) for group in GROUPS)
