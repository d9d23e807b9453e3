"""Frames of any kind and size to model input, and back."""

import copy
import io
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoImageProcessor, PreTrainedConfig

from midway_hub.outputs import FlowOutput
from midway_hub.processing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Geometry,
    MidwayImageProcessor,
    load_clips,
    load_frame,
    load_frames,
    register_image_processor,
)

SIZES = [(1, 1), (1, 40), (16, 16), (17, 31), (101, 67), (436, 1024), (375, 1242), (500, 700), (239, 3), (64, 48)]
FITS = [("pad", None), ("resize", (48, 80)), ("shortest", 40), ("contain", (64, 50)), ("crop", 48)]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height: int, width: int) -> torch.Tensor:
    """(1, 2, H, W): the row and column of each pixel's centre, as fractions of the sides."""
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]


def denormalised(inputs: torch.Tensor) -> torch.Tensor:
    return inputs * torch.tensor(IMAGENET_STD)[:, None, None] + torch.tensor(IMAGENET_MEAN)[:, None, None]


def encoded(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


# What comes out -----------------------------------------------------------------------------------------------------


def test_pixels_are_scaled_and_normalised() -> None:
    pixels = picture(32, 48)
    expected = (torch.from_numpy(pixels).permute(2, 0, 1) / 255 - torch.tensor(IMAGENET_MEAN)[:, None, None]) / (
        torch.tensor(IMAGENET_STD)[:, None, None]
    )
    inputs = MidwayImageProcessor()(pixels)
    assert inputs.pixel_values.dtype == torch.float32
    torch.testing.assert_close(inputs.pixel_values[0], expected)


def test_another_mean_and_deviation_are_used() -> None:
    inputs = MidwayImageProcessor(image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5))(
        np.zeros((16, 16, 3), np.uint8)
    )
    assert torch.equal(inputs.pixel_values, torch.full((1, 3, 16, 16), -1.0))


@pytest.mark.parametrize("size", SIZES)
def test_padding_repeats_the_edge_up_to_multiples_of_16(size: tuple[int, int]) -> None:
    pixels = torch.from_numpy(picture(*size)).permute(2, 0, 1)
    seen = MidwayImageProcessor(image_mean=(0, 0, 0), image_std=(1, 1, 1))(pixels).pixel_values[0]
    height, width = seen.shape[-2:]
    assert (height, width) == tuple(math.ceil(side / 16) * 16 for side in size)
    rows, columns = torch.arange(height).clamp(max=size[0] - 1), torch.arange(width).clamp(max=size[1] - 1)
    torch.testing.assert_close(seen, (pixels / 255)[:, rows][:, :, columns])


@pytest.mark.parametrize(
    ("fit", "size", "source", "model"),
    [
        ("pad", (50, 60), (40, 60), (64, 64)),
        ("resize", (48, 80), (101, 67), (48, 80)),
        ("resize", 40, (101, 67), (48, 48)),
        ("shortest", 40, (101, 67), (64, 48)),  # 60×40
        ("shortest", 32, (20, 30), (32, 48)),
        ("contain", (64, 50), (100, 200), (64, 64)),
        ("crop", 48, (101, 67), (48, 48)),
        ("crop", (32, 64), (101, 67), (32, 64)),
    ],
)
def test_every_fit_gives_the_size_it_promises(
    fit: str, size: int | tuple[int, int], source: tuple[int, int], model: tuple[int, int]
) -> None:
    inputs = MidwayImageProcessor(fit=fit, size=size)(picture(*source))
    assert inputs.pixel_values.shape == (1, 3, *model)
    assert inputs.geometry.model_size == model


def test_the_multiple_can_be_another() -> None:
    assert MidwayImageProcessor(multiple=14)(picture(30, 15)).pixel_values.shape == (1, 3, 42, 28)


def test_resizing_is_antialiased_bicubic_clamped_to_the_range_of_pixels() -> None:
    pixels = torch.randint(0, 2, (1, 3, 24, 60)).float()
    raw = F.interpolate(pixels, (32, 16), mode="bicubic", antialias=True, align_corners=False)
    assert raw.min() < 0
    expected = raw.clamp(0, 1)
    inputs = MidwayImageProcessor(fit="resize", size=(32, 16), image_mean=(0, 0, 0), image_std=(1, 1, 1))(pixels)
    torch.testing.assert_close(inputs.pixel_values, expected)


def test_contain_keeps_the_aspect_ratio_and_pads_the_rest() -> None:
    processor = MidwayImageProcessor(fit="contain", size=(64, 64), image_mean=(0, 0, 0), image_std=(1, 1, 1))
    inputs = processor(picture(50, 100))
    (placement,) = inputs.geometry.placements
    assert placement.resized == (32, 64)
    below = inputs.pixel_values[0, :, 32:]
    assert torch.equal(below, inputs.pixel_values[0, :, 31:32].expand_as(below))


def test_crop_keeps_the_centre() -> None:
    processor = MidwayImageProcessor(fit="crop", size=32, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    pixels = picture(32, 64)
    seen = processor(pixels).pixel_values[0]
    torch.testing.assert_close(seen, torch.from_numpy(pixels[:, 16:48]).permute(2, 0, 1) / 255)


# What goes in -------------------------------------------------------------------------------------------------------


def test_the_same_picture_gives_the_same_input_whatever_holds_it(tmp_path: Path) -> None:
    pixels = picture(37, 50)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    chw = torch.from_numpy(pixels).permute(2, 0, 1)
    holders = [
        pixels,
        np.asfortranarray(pixels),
        np.ascontiguousarray(pixels[:, ::-1])[:, ::-1],
        pixels.transpose(2, 0, 1),
        pixels / 255,
        (pixels / 255).astype(np.float32),
        (pixels.astype(np.uint16) * 257).astype(">u2"),
        np.dstack([pixels, np.full((37, 50), 7, np.uint8)]),
        chw,
        chw.contiguous(),
        chw / 255,
        chw.permute(1, 2, 0),
        Image.fromarray(pixels),
        Image.fromarray(pixels).convert("RGBA"),
        tmp_path / "picture.png",
        str(tmp_path / "picture.png"),
        [pixels],
        (Image.fromarray(pixels),),
        pixels[None],
        chw[None],
    ]
    processor = MidwayImageProcessor(fit="resize", size=(32, 48))
    expected = processor(pixels).pixel_values
    for holder in holders:
        torch.testing.assert_close(processor(holder).pixel_values, expected)


def test_a_read_only_array_is_taken_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    pixels = picture(16, 16)
    pixels.flags.writeable = False
    MidwayImageProcessor()(pixels)
    assert not recwarn.list


def test_what_comes_in_is_left_as_it_was() -> None:
    pixels = torch.rand(3, 16, 16)
    before = pixels.clone()
    MidwayImageProcessor()(pixels).pixel_values.zero_()
    assert torch.equal(pixels, before)


def test_grey_is_repeated_to_three_channels(tmp_path: Path) -> None:
    grey = picture(16, 20)[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    expected = torch.from_numpy(grey).expand(3, -1, -1) / 255
    for holder in (grey, grey[..., None], torch.from_numpy(grey), Image.fromarray(grey), tmp_path / "grey.png"):
        torch.testing.assert_close(load_frame(holder), expected)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    pixels = np.dstack([picture(16, 20), picture(16, 20, seed=1)[..., 0]])
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    for holder in (pixels, torch.from_numpy(pixels).permute(2, 0, 1), Image.fromarray(pixels), tmp_path / "alpha.png"):
        torch.testing.assert_close(load_frame(holder), torch.from_numpy(pixels[..., :3]).permute(2, 0, 1) / 255)


def test_a_palette_with_transparency_is_read_by_its_colours(recwarn: pytest.WarningsRecorder) -> None:
    image = Image.fromarray(picture(16, 20)).convert("P")
    colours = load_frame(image.convert("RGB"))
    file = Image.open(encoded(image, "PNG", transparency=bytes(range(256))))
    assert file.mode == "P"
    torch.testing.assert_close(load_frame(file), colours)
    assert not recwarn.list


def test_16_bit_pictures_keep_their_16_bits(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (16, 20), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    expected = (torch.from_numpy(deep.astype(np.float32)) / 65535).expand(3, -1, -1)
    for holder in (deep, tmp_path / "deep.png", tmp_path / "deep.tif", Image.fromarray(deep)):
        torch.testing.assert_close(load_frame(holder), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(np.kron(picture(2, 3), np.ones((16, 16, 1), np.uint8)))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # orientation -> PIL transpose that undoes it
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    expected = load_frame(upright)
    torch.testing.assert_close(load_frame(tmp_path / "turned.png"), expected)
    with Image.open(tmp_path / "turned.png") as image:
        torch.testing.assert_close(load_frame(image), expected)


def test_a_photograph_with_a_preview_behind_it_is_read(tmp_path: Path) -> None:
    first, second = (Image.fromarray(picture(16, 16, seed=seed)) for seed in (0, 1))
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    with Image.open(tmp_path / "phone.jpg") as image:
        assert image.n_frames == 2
    assert load_frame(tmp_path / "phone.jpg").shape == (3, 16, 16)


def test_a_tensor_that_reads_both_ways_is_channels_first_and_an_array_channels_last() -> None:
    assert load_frame(torch.zeros(3, 5, 3)).shape == (3, 5, 3)
    assert load_frame(np.zeros((3, 5, 3))).shape == (3, 3, 5)


def test_frames_are_images_and_nested_frames_are_clips() -> None:
    processor, frame = MidwayImageProcessor(), picture(16, 32)
    stack = np.stack([frame] * 4)
    tensors = torch.from_numpy(stack).permute(0, 3, 1, 2)
    images, clips = (4, 3, 16, 32), (2, 4, 3, 16, 32)
    for batch, shape in [
        ([frame] * 4, images),
        (stack, images),
        (tensors, images),
        ([[frame] * 4] * 2, clips),
        ([stack, tensors], clips),
        (np.stack([stack] * 2), clips),
        (torch.stack([tensors] * 2), clips),
        (torch.stack([tensors] * 2).permute(0, 1, 3, 4, 2), clips),
    ]:
        assert processor(batch).pixel_values.shape == shape


@pytest.mark.parametrize("kind", ["list", "array", "tensor"])
def test_a_list_of_frames_passed_as_clips_is_one_clip(kind: str) -> None:
    stack = np.stack([picture(16, 32, seed=seed) for seed in range(4)])
    clip = {"list": list(stack), "array": stack, "tensor": torch.from_numpy(stack).permute(0, 3, 1, 2)}[kind]
    inputs = MidwayImageProcessor()(clips=clip)
    assert inputs.pixel_values.shape == (1, 4, 3, 16, 32)
    torch.testing.assert_close(inputs.pixel_values[0], MidwayImageProcessor()(clip).pixel_values)


def test_frames_of_several_number_types_make_one_clip() -> None:
    frame = picture(16, 16)
    inputs = MidwayImageProcessor()(clips=[frame, frame / 255])
    torch.testing.assert_close(inputs.pixel_values[0, 0], inputs.pixel_values[0, 1])


def test_a_batch_equals_its_images_one_by_one() -> None:
    processor = MidwayImageProcessor(fit="contain", size=(48, 64))
    images = [picture(30, 50), picture(77, 40), picture(48, 64)]
    batch = processor(images)
    assert batch.geometry.sizes == ((30, 50), (77, 40), (48, 64))
    for i, image in enumerate(images):
        torch.testing.assert_close(batch.pixel_values[i], processor(image).pixel_values[0])


def test_sizes_that_pad_to_the_same_input_are_one_batch() -> None:
    inputs = MidwayImageProcessor()([picture(30, 50), picture(32, 64)])
    assert inputs.pixel_values.shape == (2, 3, 32, 64)
    assert [out.shape for out in MidwayImageProcessor().undo(torch.rand(2, 5, 2, 4), inputs.geometry)] == [
        (5, 30, 50),
        (5, 32, 64),
    ]


@pytest.mark.parametrize(("fit", "size"), FITS)
@pytest.mark.parametrize("nested", [False, True])
def test_gradients_reach_a_float_tensor(fit: str, size: int | tuple[int, int] | None, nested: bool) -> None:
    pixels = torch.rand(2, 3, 37, 50, requires_grad=True)
    inputs = MidwayImageProcessor(fit=fit, size=size)(pixels[None] if nested else pixels)
    inputs.pixel_values.sum().backward()
    assert pixels.grad is not None
    assert (pixels.grad[..., 20, 25] > 0).all()


def test_load_frames_gives_unit_range_tensors_in_order() -> None:
    images = [picture(5, 9, seed=seed) for seed in range(3)]
    frames = load_frames([images[0], Image.fromarray(images[1]), torch.from_numpy(images[2]).permute(2, 0, 1)])
    for frame, image in zip(frames, images, strict=True):
        assert frame.dtype == torch.float32
        torch.testing.assert_close(frame, torch.from_numpy(image).permute(2, 0, 1) / 255)
    assert [frame.shape for frame in load_frames(np.stack(images))] == [(3, 5, 9)] * 3
    assert [frame.shape for frame in load_frames(images[0])] == [(3, 5, 9)]


def test_load_clips_gives_one_tensor_per_clip() -> None:
    assert [clip.shape for clip in load_clips([[picture(4, 8)] * 2, np.zeros((3, 6, 6, 3))])] == [
        (2, 3, 4, 8),
        (3, 3, 6, 6),
    ]


# And back -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_undoing_padding_is_cropping_to_the_bit(size: tuple[int, int]) -> None:
    processor = MidwayImageProcessor()
    inputs = processor(picture(*size))
    height, width = inputs.geometry.model_size
    dense = torch.randn(1, 2, height, width)
    for mode in ("bilinear", "bicubic", "nearest"):
        assert torch.equal(processor.undo(dense, inputs.geometry, mode=mode), dense[..., : size[0], : size[1]])


@pytest.mark.parametrize(("fit", "size"), FITS)
@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("fraction", [1, 8, 16])
def test_undo_gives_the_size_that_came_in(
    fit: str, size: int | tuple[int, int] | None, source: tuple[int, int], fraction: int
) -> None:
    if fit == "shortest" and max(source) / min(source) > 10:
        source = (source[0] // 10 + 1, source[1] // 10 + 1)
    processor = MidwayImageProcessor(fit=fit, size=size)
    inputs = processor(np.zeros((*source, 3), np.uint8))
    height, width = (side // fraction for side in inputs.geometry.model_size)
    for mode in ("bilinear", "nearest"):
        back = processor.undo(torch.rand(1, 2, height, width), inputs.geometry, mode=mode, vectors=False)
        assert back.shape == (1, 2, *source)


@pytest.mark.parametrize(("fit", "size"), FITS)
@pytest.mark.parametrize("source", [(101, 67), (60, 100), (30, 40), (71, 48)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_what_the_model_says_of_a_place_comes_back_to_that_place(
    fit: str, size: int | tuple[int, int] | None, source: tuple[int, int], mode: str
) -> None:
    """A picture of its own coordinates must come back as coordinates: no shift, no flip, no swap of the axes."""
    processor = MidwayImageProcessor(fit=fit, size=size, resample="bilinear")
    coordinates = ramp(*source)
    inputs = processor(torch.cat([coordinates, torch.zeros(1, 1, *source)], dim=1))
    back = processor.undo(denormalised(inputs.pixel_values), inputs.geometry, mode=mode)[:, :2]
    inner = (..., slice(6, -6), slice(6, -6))  # at the border, the resizing filters repeat the edge
    error = (back[inner] - coordinates[inner]).abs()
    assert error[~error.isnan()].max() < (0.02 if mode == "nearest" else 0.006)
    assert back.isnan().any() == (fit == "crop")


def test_tokens_come_back_to_the_pixels_of_their_patch() -> None:
    processor = MidwayImageProcessor()
    inputs = processor(picture(40, 24))
    tokens = torch.arange(6.0).view(1, 1, 3, 2)
    back = processor.undo(tokens, inputs.geometry, mode="nearest")
    assert torch.equal(back, tokens.repeat_interleave(16, -2).repeat_interleave(16, -1)[..., :40, :24])
    smooth = processor.undo(tokens, inputs.geometry)
    expected = F.interpolate(tokens, (48, 32), mode="bilinear", align_corners=False)[..., :40, :24]
    assert torch.allclose(smooth, expected, atol=1e-5)


def test_labels_come_back_as_labels() -> None:
    processor = MidwayImageProcessor(fit="resize", size=(32, 32))
    inputs = processor(picture(64, 96))
    labels = torch.randint(0, 19, (1, 32, 32))
    back = processor.undo(labels, inputs.geometry, mode="nearest")
    assert back.dtype == torch.int64
    assert torch.equal(back, labels.repeat_interleave(2, -2).repeat_interleave(3, -1))


def test_what_was_cropped_away_is_nan_or_the_given_fill() -> None:
    processor = MidwayImageProcessor(fit="crop", size=32)
    inputs = processor(picture(32, 64))
    back = processor.undo(torch.ones(1, 2, 2, 2), inputs.geometry)
    seen = torch.zeros(32, 64, dtype=torch.bool)
    seen[:, 16:48] = True
    assert torch.equal(back.isnan(), (~seen).expand(1, 2, -1, -1))
    assert (back[..., seen] == 1).all()
    labels = processor.undo(torch.ones(1, 2, 2, dtype=torch.int64), inputs.geometry, mode="nearest", fill=255)
    assert torch.equal(labels[0], torch.where(seen, 1, 255))


def test_clips_come_back_as_clips() -> None:
    processor = MidwayImageProcessor()
    inputs = processor(np.zeros((2, 4, 20, 40, 3), np.uint8))
    assert processor.undo(torch.rand(2, 4, 8, 2, 3), inputs.geometry).shape == (2, 4, 8, 20, 40)
    assert processor.undo(torch.rand(2, 3, 8, 2, 3), inputs.geometry).shape == (2, 3, 8, 20, 40)  # per pair of frames


def test_flow_is_rescaled_to_the_pixels_of_the_frame() -> None:
    processor = MidwayImageProcessor(fit="resize", size=(32, 32))
    inputs = processor(picture(64, 96))
    flow = torch.stack([torch.full((32, 32), 2.0), torch.full((32, 32), -1.0)])[None]
    back = processor.undo_flow(flow, inputs.geometry)
    assert back.shape == (1, 2, 64, 96)
    assert torch.allclose(back[0, 0], torch.tensor(6.0))
    assert torch.allclose(back[0, 1], torch.tensor(-2.0))


@pytest.mark.parametrize(
    ("fit", "size", "across", "down"),
    [("resize", (32, 32), 3, 2), ("shortest", 32, 2, 2), ("resize", (128, 96), 1, 0.5), ("pad", None, 1, 1)],
)
def test_undoing_what_the_network_says_of_flow_rescales_vectors_and_their_uncertainty(fit, size, across, down) -> None:
    processor = MidwayImageProcessor(fit=fit, size=size)
    inputs = processor(clips=[picture(64, 96), picture(64, 96)])
    height, width = inputs.geometry.model_size
    flow = torch.stack([torch.full((height, width), 2.0), torch.full((height, width), -1.0)])[None]
    back = processor.undo(FlowOutput(flow, torch.full((1, height, width), 0.25)), inputs.geometry)
    assert isinstance(back, FlowOutput)
    assert back.flow.shape == (1, 2, 64, 96)
    torch.testing.assert_close(back.flow[0].mean((1, 2)), torch.tensor([2.0 * across, -1.0 * down]))
    torch.testing.assert_close(back.flow, processor.undo_flow(flow, inputs.geometry))
    torch.testing.assert_close(back.uncertainty, torch.full((1, 64, 96), 0.25 + math.log(across * down) / 2))


def test_flow_of_pairs_of_several_sizes_comes_back_one_by_one() -> None:
    processor = MidwayImageProcessor(fit="resize", size=(32, 32))
    inputs = processor(clips=[[picture(64, 64)] * 2, [picture(32, 96)] * 2])
    first, second = processor.undo(FlowOutput(torch.ones(2, 2, 32, 32), torch.zeros(2, 32, 32)), inputs.geometry)
    assert (first.flow.shape, second.flow.shape) == ((1, 2, 64, 64), (1, 2, 32, 96))
    torch.testing.assert_close(second.flow.mean((2, 3))[0], torch.tensor([3.0, 1.0]))
    assert second.uncertainty.shape == (1, 32, 96)


@pytest.mark.parametrize("shape", [(1, 2, 32, 32), (1, 3, 2, 32, 32)])
def test_a_bare_tensor_that_looks_like_flow_is_refused_until_it_is_said_what_it_is(shape) -> None:
    processor = MidwayImageProcessor(fit="resize", size=(32, 32))
    geometry = processor(picture(64, 96)).geometry
    with pytest.raises(ValueError, match=r"pass what net\.flow\(\) returned, whole, or call undo_flow\(\)"):
        processor.undo(torch.ones(shape), geometry)
    assert (processor.undo(torch.ones(shape), geometry, vectors=False) == 1).all()
    rescaled = processor.undo(torch.ones(shape), geometry, vectors=True)
    assert torch.equal(rescaled, processor.undo_flow(torch.ones(shape), geometry))
    assert rescaled.amax() == 3


@pytest.mark.parametrize(
    "dense",
    [torch.ones(1, 3, 32, 32), torch.ones(1, 2, 2, 2), torch.ones(1, 32, 32), torch.ones(1, 2, 32, 32).long()],
    ids=["three channels", "a coarse grid", "no channels", "labels"],
)
def test_what_does_not_look_like_flow_is_undone_without_a_word(dense) -> None:
    processor = MidwayImageProcessor(fit="resize", size=(32, 32))
    back = processor.undo(dense, processor(picture(64, 96)).geometry, mode="nearest")
    assert (back == 1).all()


def test_flow_of_a_frame_that_kept_its_size_is_undone_without_a_word() -> None:
    processor = MidwayImageProcessor()
    back = processor.undo(torch.ones(1, 2, 48, 64), processor(picture(40, 60)).geometry)
    assert (back == 1).all()


def test_the_geometry_of_a_part_of_a_batch_is_that_of_the_part() -> None:
    geometry = MidwayImageProcessor(fit="resize", size=32)([picture(20, 30), picture(40, 50)]).geometry
    assert geometry[:1].sizes == ((20, 30),)
    assert geometry[1:].sizes == ((40, 50),)
    assert geometry[:1].model_size == geometry.model_size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_undo_keeps_the_number_type(dtype: torch.dtype) -> None:
    processor = MidwayImageProcessor(fit="crop", size=32)
    inputs = processor(picture(40, 60))
    assert processor.undo(torch.ones(1, 2, 2, 2, dtype=dtype), inputs.geometry).dtype == dtype
    assert processor.undo_flow(torch.ones(1, 2, 2, 2, dtype=dtype), inputs.geometry).dtype == dtype


def test_gradients_pass_through_undo() -> None:
    processor = MidwayImageProcessor(fit="contain", size=32)
    inputs = processor(picture(40, 60))
    dense = torch.rand(1, 4, 2, 2, requires_grad=True)
    processor.undo(dense, inputs.geometry).sum().backward()
    assert (dense.grad > 0).any()


# Its life in transformers -------------------------------------------------------------------------------------------


def test_the_geometry_survives_moving_copying_and_pickling_and_is_no_model_input() -> None:
    inputs = MidwayImageProcessor()(picture(20, 20))
    geometry = inputs.geometry
    assert isinstance(geometry, Geometry)
    assert set(dict(**inputs)) == {"pixel_values"}
    for twin in (pickle.loads(pickle.dumps(inputs)), copy.copy(inputs), copy.deepcopy(inputs)):
        assert twin.geometry == geometry
        assert torch.equal(twin.pixel_values, inputs.pixel_values)
    moved = inputs.to("cpu", torch.float16)
    assert moved.pixel_values.dtype == torch.float16
    assert moved.geometry == geometry


@pytest.mark.parametrize(("fit", "size"), FITS)
def test_a_saved_processor_does_the_same_when_loaded(
    tmp_path: Path, fit: str, size: int | tuple[int, int] | None
) -> None:
    processor = MidwayImageProcessor(
        fit=fit, size=size, multiple=8, image_mean=(0.1, 0.2, 0.3), image_std=(0.4, 0.5, 0.6), resample="bilinear"
    )
    processor.save_pretrained(tmp_path)
    loaded = MidwayImageProcessor.from_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["preprocessor_config.json"]
    assert loaded.to_dict() == processor.to_dict()
    image = picture(37, 50)
    torch.testing.assert_close(loaded(image).pixel_values, processor(image).pixel_values)
    assert loaded(image).geometry == processor(image).geometry


def test_settings_can_be_overridden_when_loading(tmp_path: Path) -> None:
    MidwayImageProcessor().save_pretrained(tmp_path)
    assert MidwayImageProcessor.from_pretrained(tmp_path, fit="crop", size=64).size == (64, 64)


@pytest.mark.parametrize("backend", [{}, {"backend": "pil"}, {"backend": "torchvision"}])
def test_auto_image_processor_finds_it_whatever_the_backend(tmp_path: Path, backend: dict[str, str]) -> None:
    class Config(PreTrainedConfig):
        model_type = "processing-test"

    register_image_processor(AutoImageProcessor, Config)
    MidwayImageProcessor(multiple=8).save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path, **backend)
    assert type(loaded) is MidwayImageProcessor
    assert loaded.multiple == 8


def test_our_code_does_not_import_torchvision() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import numpy as np; from midway_hub.processing import MidwayImageProcessor\n"
        "print(tuple(MidwayImageProcessor(fit='resize', size=32)(np.zeros((9, 9, 3))).pixel_values.shape))"
    )
    root = Path(__file__).resolve().parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "(1, 3, 32, 32)", run.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("fit", "size"), FITS)
def test_tensors_on_a_gpu_stay_there(fit: str, size: int | tuple[int, int] | None) -> None:
    processor = MidwayImageProcessor(fit=fit, size=size)
    frames = torch.from_numpy(picture(101, 67)).permute(2, 0, 1)
    on_gpu, on_cpu = processor(frames.cuda()), processor(frames)
    assert on_gpu.pixel_values.is_cuda
    assert torch.allclose(on_gpu.pixel_values.cpu(), on_cpu.pixel_values, atol=1e-4)
    for mode in ("bilinear", "nearest"):
        back = processor.undo(on_gpu.pixel_values, on_gpu.geometry, mode=mode)
        assert back.is_cuda
        expected = processor.undo(on_cpu.pixel_values, on_cpu.geometry, mode=mode)
        assert torch.allclose(back.cpu(), expected, atol=1e-3, equal_nan=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_on_several_devices_are_no_batch() -> None:
    frame = torch.zeros(3, 16, 16)
    with pytest.raises(ValueError, match="images lie on cpu and cuda:0; move them to one device"):
        MidwayImageProcessor()([frame, frame.cuda()])


# In words -----------------------------------------------------------------------------------------------------------


def test_describe_says_what_happens_to_a_frame() -> None:
    assert MidwayImageProcessor().describe((436, 1024)) == (
        "Frames keep their size. Padding repeats the edge on the right and at the bottom, up to multiples of 16. "
        "A frame of 436×1024 pixels (height×width) keeps its size, is padded by 12 rows and 0 columns: the model sees "
        "448×1024. undo() brings dense outputs back to 436×1024. Pixels in [0, 1] minus (0.485, 0.456, 0.406), divided "
        "by (0.229, 0.224, 0.225), per RGB channel, are the model input."
    )


@pytest.mark.parametrize(("fit", "size"), FITS)
@pytest.mark.parametrize("source", [(101, 67), (64, 48), (720, 1280)])
def test_describe_names_the_sizes_that_the_processor_makes(
    fit: str, size: int | tuple[int, int] | None, source: tuple[int, int]
) -> None:
    processor = MidwayImageProcessor(fit=fit, size=size)
    height, width = processor(np.zeros((*source, 3), np.uint8)).pixel_values.shape[-2:]
    text = processor.describe(source)
    assert f"the model sees {height}×{width}." in text
    assert f"back to {source[0]}×{source[1]}" in text
    assert ("NaN" in text) == (fit == "crop")


def test_describe_without_a_size_is_general() -> None:
    assert "resized to cover 48×48" in MidwayImageProcessor(fit="crop", size=48).describe()


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        (None, ValueError, "pass either images or clips, got neither"),
        ([], ValueError, "images is empty; pass at least one frame"),
        ([[]], ValueError, r"images\[0\] is empty"),
        ([picture(4, 4), []], ValueError, r"images\[1\] is a list or stack .*do not mix"),
        ([picture(4, 4), picture(4, 4)[None]], ValueError, r"images\[1\] is a list or stack .*do not mix"),
        ([[picture(4, 4)], picture(4, 4)], ValueError, r"images\[1\] is a single frame; a clip is a list of frames"),
        ([[[picture(4, 4)]]], ValueError, "images is nested 3 deep"),
        (3, TypeError, r"images is of type int; wanted a path, an http\(s\) URL, a PIL image, a numpy array"),
        ([picture(4, 4), {}], TypeError, r"images\[1\] is of type dict"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"images is empty: shape \(0, 4, 3\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), ValueError, r"images is empty: shape \(0, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), ValueError, r"images has shape \(4,\); one frame is \(H, W\) or \(H, W, C\)"),
        (np.zeros((8, 8, 2), np.uint8), ValueError, r"shape \(8, 8, 2\): 2 channels where 1, 3 or 4 are wanted"),
        (torch.zeros(5, 8, 8), ValueError, r"5 channels where .* a tensor holds \(H, W\) or \(C, H, W\)"),
        (np.zeros((8, 8, 3), np.int64), ValueError, "dtype int64; wanted uint8 .*convert them to uint8"),
        (torch.zeros(3, 8, 8, dtype=torch.complex64), ValueError, r"dtype torch\.complex64; wanted uint8"),
        (np.zeros((8, 8, 3), bool), ValueError, "dtype bool; wanted uint8"),
        (np.full((8, 8, 3), 200.0), ValueError, r"floats from 200 to 200; wanted \[0, 1\]. They look like 0..255"),
        (torch.full((3, 8, 8), -1.5), ValueError, r"floats from -1\.5 .*look normalised already"),
        (torch.full((3, 8, 8), 1.2), ValueError, r"floats from 1\.2 to 1\.2; .*Clamp or rescale"),
        (
            [torch.zeros(3, 2, 2), torch.tensor([0, math.nan, math.inf, 0]).expand(3, 4, 4)],
            ValueError,
            r"images\[1\] holds 24 values that are NaN or infinite of 48",
        ),
        ("nowhere.png", FileNotFoundError, r"images: there is no file nowhere\.png"),
        (".", IsADirectoryError, r"images is the folder \.; pass the image files in it"),
    ],
)
def test_what_is_no_frame_is_refused(frames: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MidwayImageProcessor()(frames)


def test_images_and_clips_are_not_taken_together() -> None:
    with pytest.raises(ValueError, match="got both"):
        MidwayImageProcessor()(picture(4, 4), clips=[picture(4, 4)])


def test_a_single_frame_is_no_clip() -> None:
    with pytest.raises(ValueError, match="clips is a single frame"):
        MidwayImageProcessor()(clips=picture(4, 4))


def test_the_frames_of_a_clip_must_be_of_one_size() -> None:
    with pytest.raises(ValueError, match=r"clips\[1\] holds frames of 4×4, 4×5; the frames of a clip"):
        MidwayImageProcessor()(clips=[[picture(4, 4)], [picture(4, 4), picture(4, 5)]])


def test_the_clips_of_a_batch_must_be_equally_long() -> None:
    with pytest.raises(ValueError, match="clips hold 1, 2 frames"):
        MidwayImageProcessor()(clips=[[picture(4, 4)], [picture(4, 4)] * 2])


def test_load_frames_refuses_clips() -> None:
    with pytest.raises(ValueError, match="frames holds clips"):
        load_frames([[picture(4, 4)]])


PIXELS = torch.rand(3, 20, 30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PIXELS.to("meta"), "got a meta tensor, which has a shape but no values"),
        (lambda: torch.stack([PIXELS, PIXELS]).to("meta"), "got a meta tensor"),
        (lambda: PIXELS.to_sparse(), "got one of layout torch.sparse_coo; pass its to_dense()"),
        (lambda: torch.nested.nested_tensor([PIXELS, PIXELS]), "got a nested tensor; stack frames of one size"),
        (lambda: torch.quantize_per_tensor(PIXELS, 0.1, 0, torch.quint8), "pass its dequantize()"),
        (lambda: [PIXELS, PIXELS.to("meta")], "got a meta tensor"),
        (lambda: [[PIXELS.to_sparse()]], "pass its to_dense()"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_are_not_dense_are_no_frames(make, message: str) -> None:
    with pytest.raises(ValueError, match="must be a dense tensor") as refused:
        MidwayImageProcessor()(make())
    assert message in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.bool, torch.int64])
def test_pixels_of_types_that_are_none_of_pictures_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"of dtype {dtype}; wanted uint8"):
        load_frame(PIXELS.to(dtype))


@pytest.mark.parametrize("make", [lambda t: t.to("meta"), lambda t: t.to_sparse(), lambda t: t.to_sparse_coo()])
def test_undo_refuses_tensors_that_are_not_dense(make) -> None:
    inputs = MidwayImageProcessor()(PIXELS)
    with pytest.raises(ValueError, match="dense must be a dense tensor"):
        MidwayImageProcessor().undo(make(inputs["pixel_values"]), inputs.geometry)


def test_undo_refuses_floats_that_nothing_computes_with() -> None:
    inputs = MidwayImageProcessor()(PIXELS)
    with pytest.raises(ValueError, match=r"float8_e4m3fn cannot be interpolated"):
        MidwayImageProcessor().undo(inputs["pixel_values"].to(torch.float8_e4m3fn), inputs.geometry)


def test_images_of_different_sizes_are_refused_with_a_remedy_that_works() -> None:
    images = [picture(30, 50), picture(30, 70), picture(30, 50)]
    remedy = r"30×50 \(2 of them\), 30×70 \(1 of them\).*fit='contain'.*fit='pad' with size=\(32, 80\)"
    with pytest.raises(ValueError, match=remedy):
        MidwayImageProcessor()(images)
    assert MidwayImageProcessor(size=(32, 80))(images).pixel_values.shape == (3, 3, 32, 80)


def test_padding_never_shrinks_a_frame() -> None:
    with pytest.raises(ValueError, match=r"a frame of 50×20 does not fit into size=\(32, 32\).*fit='contain'"):
        MidwayImageProcessor(size=32)(picture(50, 20))


def test_other_kinds_of_tensors_are_not_returned() -> None:
    with pytest.raises(ValueError, match=r"return_tensors must be 'pt' \(torch tensors\), got 'np'"):
        MidwayImageProcessor()(picture(4, 4), return_tensors="np")


def test_an_animation_is_refused_with_advice(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(8, 8, seed=seed)) for seed in range(3)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"moving\.gif\) holds several pictures \(GIF\); pass them one by one"):
        load_frame(tmp_path / "moving.gif")


def test_a_still_gif_is_read(tmp_path: Path) -> None:
    Image.fromarray(picture(8, 8)).save(tmp_path / "still.gif")
    assert load_frame(tmp_path / "still.gif").shape == (3, 8, 8)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    Image.fromarray(picture(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=rf"cut\{suffix}\) is damaged or cut short"):
        load_frame(path)


@pytest.mark.parametrize(("name", "advice"), [("notes.txt", ""), ("clip.mp4", "looks like a video")])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\x18ftypmp42 and so on")
    with pytest.raises(ValueError, match=f"is not an image that Pillow can read.*{advice}"):
        load_frame(tmp_path / name)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match="is not an image"):
        load_frame(tmp_path / "empty.png")


def test_a_postscript_drawing_is_not_run(tmp_path: Path) -> None:
    Image.fromarray(picture(8, 8)).save(tmp_path / "drawing.eps")
    with pytest.raises(ValueError, match="is a PostScript drawing; render it to PNG first"):
        load_frame(tmp_path / "drawing.eps")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"fit": "stretch"}, ValueError, "fit must be one of pad, resize, shortest, contain, crop, got 'stretch'"),
        ({"fit": "resize"}, ValueError, r"fit='resize' needs size, \(height, width\) in pixels"),
        ({"fit": "shortest"}, ValueError, "fit='shortest' needs size, the length of the short side"),
        ({"fit": "shortest", "size": (3, 4)}, ValueError, r"takes size as one number.* got \(3, 4\)"),
        ({"fit": "crop", "size": (0, 4)}, ValueError, r"size must be \(height, width\) in pixels, at least 1 each"),
        ({"fit": "crop", "size": {"height": 4}}, ValueError, r"size must be \(height, width\).* got \{'height': 4\}"),
        ({"fit": "crop", "size": (1, 2, 3)}, ValueError, r"size must be \(height, width\)"),
        ({"multiple": 0}, ValueError, "multiple must be a whole number of at least 1, got 0"),
        ({"multiple": True}, ValueError, "multiple must be a whole number"),
        ({"image_mean": (0, 0)}, ValueError, r"image_mean must be three finite numbers.* got \(0, 0\)"),
        ({"image_mean": 0.5}, ValueError, "image_mean must be three finite numbers"),
        ({"image_std": (1, 1, math.nan)}, ValueError, "image_std must be three finite numbers"),
        ({"image_std": (1, 1, 0)}, ValueError, "image_std must be positive"),
        ({"resample": "nearest"}, ValueError, "resample must be one of bicubic, bilinear, got 'nearest'"),
        ({"multipel": 16}, TypeError, "takes no argument 'multipel'; did you mean multiple?"),
        ({"do_resize": True}, TypeError, "takes no argument 'do_resize'; "),
    ],
)
def test_unfit_settings_are_refused(settings: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MidwayImageProcessor(**settings)


@pytest.mark.parametrize(
    ("dense", "options", "message"),
    [
        (torch.rand(1, 2, 5, 5), {}, "dense is 5×5, no whole fraction of the model input 32×64"),
        (torch.rand(1, 2, 32, 32), {}, "dense is 32×32, no whole fraction"),
        (torch.rand(2, 2, 2, 4), {}, "holds 2 items along its first axis, the batch held 1"),
        (torch.rand(2, 4), {}, r"must have shape \(B, \.\.\., h, w\) and not be empty, got \(2, 4\)"),
        (torch.rand(1, 0, 2, 4), {}, "not be empty"),
        (torch.rand(1, 2, 2, 4), {"mode": "linear"}, "mode must be one of bilinear, bicubic, nearest, got 'linear'"),
        (torch.ones(1, 2, 4, dtype=torch.int64), {}, r"dtype torch\.int64 cannot be interpolated: take mode='nearest'"),
        (torch.ones(1, 2, 4, dtype=torch.int64), {"mode": "nearest"}, r"has no NaN .*pass fill, such as fill=255"),
    ],
)
def test_undo_refuses_what_does_not_belong(dense: torch.Tensor, options: dict[str, str], message: str) -> None:
    processor = MidwayImageProcessor(fit="crop", size=(32, 64))
    geometry = processor(picture(50, 50)).geometry
    with pytest.raises(ValueError, match=message):
        processor.undo(dense, geometry, **options)


def test_undo_wants_a_tensor_and_a_geometry() -> None:
    processor = MidwayImageProcessor()
    inputs = processor(picture(16, 16))
    with pytest.raises(TypeError, match="dense must be a tensor, got ndarray"):
        processor.undo(np.zeros((1, 1, 16, 16)), inputs.geometry)
    with pytest.raises(
        TypeError, match=r"geometry must be the inputs\.geometry of a processed batch, got MidwayInputs"
    ):
        processor.undo(torch.zeros(1, 1, 16, 16), inputs)


def test_undo_flow_wants_two_channels() -> None:
    processor = MidwayImageProcessor()
    with pytest.raises(ValueError, match=r"flow must have shape \(B, \.\.\., 2, h, w\), got \(1, 3, 16, 16\)"):
        processor.undo_flow(torch.zeros(1, 3, 16, 16), processor(picture(16, 16)).geometry)


@pytest.mark.parametrize("size", [(0, 4), 4, "large"])
def test_describe_refuses_what_is_no_size(size: object) -> None:
    with pytest.raises(ValueError, match=r"size must be \(height, width\) in pixels"):
        MidwayImageProcessor().describe(size)
