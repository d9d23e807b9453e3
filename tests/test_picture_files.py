"""Still pictures: the same pixels of one file wherever it is read."""

import io
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from picture_bytes import GREY, GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, write_pgm, write_png, write_tiff
from PIL import Image, ImageCms

from midway_hub.picture_files import read_picture, upright_size
from midway_hub.processing import load_frame
from midway_hub.training.data.flow.frames import read_frame, read_mask
from midway_hub.training.data.segmentation import build_segmentation_dataset
from midway_hub.training.data.segmentation.files import read_image
from midway_hub.training.data.settings import GapSettings
from midway_hub.training.data.sources.frames import FrameSource
from midway_hub.video import VideoError, open_video

SIZE = (24, 36)
ORIENTATION = 0x0112
TURNS = {  # how a picture is stored that is upright under an orientation
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.swapaxes(0, 1),
    6: lambda up: np.rot90(up, 1),
    7: lambda up: np.rot90(up, 2).swapaxes(0, 1),
    8: lambda up: np.rot90(up, -1),
}


def pixels(size=SIZE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def profile():
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def save_turned(path, up, orientation, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(TURNS[orientation](up))).save(path, exif=exif, **options)
    return path


# -- pixels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", list(TURNS))
def test_pictures_are_turned_upright(tmp_path, orientation, suffix):
    path = save_turned(tmp_path / f"a.{suffix}", pixels(), orientation, **{"webp": {"lossless": True}}.get(suffix, {}))
    np.testing.assert_array_equal(read_picture(path), pixels())
    with Image.open(path) as image:
        assert upright_size(image) == SIZE[::-1]


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("chunks", [[], [(b"tRNS", b"\0\1")]])
def test_grey_pngs_of_any_depth_are_scaled_to_full_light(tmp_path, depth, interlaced, chunks):
    samples = np.random.default_rng(1).integers(0, 2**depth, SIZE)
    path = write_png(tmp_path / "a.png", samples, depth, GREY, interlaced=interlaced, chunks=chunks)
    light = samples / (2**depth - 1)
    np.testing.assert_allclose(load_frame(path).numpy(), np.broadcast_to(light, (3, *SIZE)), atol=1e-6)
    np.testing.assert_array_equal(read_picture(path), np.rint(light * 255)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [False, True])
def test_palettes_give_their_colours_transparent_or_not(tmp_path, depth, clear):
    generator = np.random.default_rng(2)
    samples, colours = generator.integers(0, 2**depth, SIZE), generator.integers(0, 256, (2**depth, 3))
    chunks = [(b"PLTE", colours.astype(np.uint8).tobytes()), *([(b"tRNS", b"\0\x80")] if clear else [])]
    path = write_png(tmp_path / "a.png", samples, depth, PALETTE, chunks=chunks)
    np.testing.assert_array_equal(read_picture(path), colours[samples])


@pytest.mark.parametrize(
    ("colour", "chunks"),
    [(RGB, []), (RGB, [(b"tRNS", b"\0\1\0\2\0\3")]), (RGB_ALPHA, []), (GREY_ALPHA, [])],
)
@pytest.mark.parametrize("depth", [8, 16])
def test_colour_and_alpha_of_pngs_give_the_colours(tmp_path, colour, chunks, depth):
    channels = {RGB: 3, RGB_ALPHA: 4, GREY_ALPHA: 2}[colour]
    samples = np.random.default_rng(3).integers(0, 2**depth, (*SIZE, channels))
    path = write_png(tmp_path / "a.png", samples, depth, colour, chunks=chunks)
    seen = samples[..., :1].repeat(3, axis=2) if colour == GREY_ALPHA else samples[..., :3]
    assert np.abs(read_picture(path) - seen / (2**depth - 1) * 255).max() < (1 if depth == 16 else 1e-6)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("largest", [1, 15, 100, 255, 256, 511, 1023, 4095, 40000, 65535])
def test_pgms_of_any_largest_value_are_scaled_to_full_light(tmp_path, largest, plain):
    values = np.random.default_rng(4).integers(0, largest + 1, SIZE)
    path = write_pgm(tmp_path / "a.pgm", values, largest, plain=plain)
    step = 1 / 255 if largest < 256 else 1 / 65535
    assert np.abs(load_frame(path).numpy() - values / largest).max() <= step / 2 + 1e-6
    assert np.abs(read_picture(path) - values[..., None] / largest * 255).max() <= 0.51


def test_deep_tiffs_are_scaled_to_full_light_whichever_end_is_white(tmp_path):
    values = np.random.default_rng(5).integers(0, 65536, SIZE)
    np.testing.assert_allclose(load_frame(write_tiff(tmp_path / "a.tif", values, 16))[0], values / 65535, atol=1e-6)
    found = load_frame(write_tiff(tmp_path / "b.tif", values, 16, photometric=0))[0]
    np.testing.assert_allclose(found, 1 - values / 65535, atol=1e-6)
    twelve = values >> 4
    found = load_frame(write_tiff(tmp_path / "c.tif", twelve, 12))[0]
    np.testing.assert_allclose(found, twelve / 4095, atol=1e-5)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_colour_profile_changes_nothing(tmp_path, suffix):
    Image.fromarray(pixels()).save(tmp_path / f"plain.{suffix}")
    Image.fromarray(pixels()).save(tmp_path / f"icc.{suffix}", icc_profile=profile())
    np.testing.assert_array_equal(read_picture(tmp_path / f"icc.{suffix}"), read_picture(tmp_path / f"plain.{suffix}"))


def test_colours_that_have_no_way_to_rgb_are_named():
    with pytest.raises(ValueError, match="frame holds colours of mode La, which are not read"):
        load_frame(Image.new("La", (6, 4)))


# -- data sets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_labels_lie_on_the_pixels_of_pictures_that_are_turned(tmp_path, orientation):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    labels = np.zeros(SIZE, np.uint8)
    labels[:10], labels[:10, :18] = 1, 2
    colours = np.array([[90, 90, 90], [135, 206, 235], [200, 60, 60]], np.uint8)
    save_turned(tmp_path / "images/a.png", colours[labels], orientation)
    Image.fromarray(labels).save(tmp_path / "labels/a.png")
    sample = build_segmentation_dataset("folder", tmp_path, classes=("road", "sky", "house"))[0]
    np.testing.assert_array_equal(sample.image, colours[sample.labels])


def test_segmentation_data_takes_deep_pictures_as_the_commands_do(tmp_path):
    values = np.random.default_rng(6).integers(0, 1024, SIZE)
    path = write_pgm(tmp_path / "a.pgm", values, 1023)
    np.testing.assert_array_equal(read_image(path), read_picture(path))


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_decoded_frames_are_turned_upright(tmp_path, orientation):
    for number in range(4):
        save_turned(tmp_path / f"{number}.png", pixels(seed=number), orientation)
    source = FrameSource(tmp_path, GapSettings(frames=(1, 1)), every_pair=True)
    (pair,) = source.clips(1, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(pair.first, pixels(seed=1))
    np.testing.assert_array_equal(pair.second, pixels(seed=2))


def test_decoded_frames_may_be_deep_grey_or_indexed(tmp_path):
    values = np.random.default_rng(7).integers(0, 4096, SIZE)
    for number in range(2):
        write_pgm(tmp_path / f"{number}.pgm", values, 4095)
    (pair,) = FrameSource(tmp_path, GapSettings(frames=(1, 1))).clips(0, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(pair.first, read_picture(tmp_path / "0.pgm"))
    assert np.abs(pair.first[..., 0] - values / 4095 * 255).max() <= 0.51


def test_frames_of_flow_data_are_turned_upright(tmp_path):
    np.testing.assert_array_equal(read_frame(save_turned(tmp_path / "a.png", pixels(), 6)), pixels())


@pytest.mark.parametrize("largest", [256, 1023, 65535])
def test_deep_pgms_are_no_frames_of_flow_data(tmp_path, largest):
    with pytest.raises(ValueError, match="more than 8 bits per channel"):
        read_frame(write_pgm(tmp_path / "a.pgm", np.zeros(SIZE, int), largest))


def test_masks_mark_all_that_is_not_black_however_dark(tmp_path):
    marks = np.zeros(SIZE, int)
    marks[2:5, 3:9] = 1
    palette = [(b"PLTE", bytes([0, 0, 0, 0, 0, 1]))]  # so dark a blue that its grey is 0
    files = [
        write_png(tmp_path / "grey.png", marks, 8),
        write_png(tmp_path / "bits.png", marks, 1),
        write_png(tmp_path / "deep.png", marks, 16),
        write_png(tmp_path / "blue.png", marks, 1, PALETTE, chunks=palette),
    ]
    for file in files:
        np.testing.assert_array_equal(read_mask(file), marks > 0)


# -- videos ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "bmp", "ppm"])
def test_a_still_is_a_video_of_one_frame_with_the_pixels_of_every_reader(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix in ("bmp", "ppm"):
        Image.fromarray(pixels()).save(path)
    else:
        save_turned(path, pixels(), 6)
    with open_video(path) as video:
        assert (len(video), video.height, video.width) == (1, *SIZE)
        np.testing.assert_array_equal(video.get_frames([0, -1])[1], read_picture(path))
    with pytest.raises(VideoError, match=r"is not exact for this file|cannot be used here"):
        open_video(path, reader="decord")


def test_a_photograph_with_a_preview_is_one_frame(tmp_path):
    preview = Image.fromarray(pixels()[::2, ::2].copy())
    Image.fromarray(pixels()).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    with open_video(tmp_path / "a.jpg") as video:
        assert len(video) == 1


def test_a_damaged_still_is_a_video_error(tmp_path):
    Image.fromarray(pixels((200, 200))).save(tmp_path / "a.bmp")
    whole = (tmp_path / "a.bmp").read_bytes()
    (tmp_path / "a.bmp").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match=r"a\.bmp"), open_video(tmp_path / "a.bmp") as video:
        video.get_frames([0])


def write_pictures(path, codec, count=3, **options):
    """Pictures as Pillow saves them, in a .mov."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = 96, 64
        stream.pix_fmt = "rgb24" if codec == "png" else "yuvj420p"
        for number in range(count):
            buffer = io.BytesIO()
            Image.fromarray(pixels((64, 96), number)).save(buffer, "PNG" if codec == "png" else "JPEG", **options)
            packet = av.Packet(buffer.getvalue())
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 10), True
            packet.pts = packet.dts = number
            packet.duration = 1
            container.mux(packet)
    return path


def turned_by_header(path, matrix):
    data = bytearray(path.read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


READ = """
import gc, sys
from midway_hub.video import open_video
for path in sys.argv[1:]:
    with open_video(path) as video:
        print(len(video), video.height, video.width, video.rotation)
    del video
    gc.collect()
"""


def read_elsewhere(*paths):
    """Lengths, sizes and rotations, by a process of its own, which a fault of a library may end."""
    found = subprocess.run([sys.executable, "-c", READ, *map(str, paths)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    return [tuple(map(int, line.split())) for line in found.stdout.splitlines()]


def test_colour_profiles_and_exif_end_no_process(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    files = []
    for name, options in (("icc", {"icc_profile": profile()}), ("both", {"icc_profile": profile(), "exif": exif})):
        for suffix in ("png", "jpg", "webp", "tif"):
            files.append(tmp_path / f"{name}.{suffix}")
            Image.fromarray(pixels()).save(files[-1], **options)
    assert read_elsewhere(*files) == [(1, *SIZE, 0)] * len(files)
    moving = [Image.fromarray(pixels(seed=number)) for number in range(2)]
    moving[0].save(tmp_path / "moving.png", save_all=True, append_images=moving[1:], icc_profile=profile())
    assert read_elsewhere(tmp_path / "moving.png") == [(2, *SIZE, 0)]


@pytest.mark.parametrize(
    ("matrix", "rotation"), [((1, 0, 0, 1), 0), ((0, 1, -1, 0), 90), ((-1, 0, 0, -1), 180), ((0, -1, 1, 0), 270)]
)
def test_videos_of_pictures_with_profiles_or_exif_are_turned_as_their_container_says(tmp_path, matrix, rotation):
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    files = [
        write_pictures(tmp_path / "png.mov", "png", icc_profile=profile()),
        write_pictures(tmp_path / "jpg.mov", "mjpeg", exif=exif),
        write_pictures(tmp_path / "both.mov", "png", icc_profile=profile(), exif=exif),
    ]
    for file in files:
        turned_by_header(file, matrix)
    size = (96, 64) if rotation in (90, 270) else (64, 96)
    assert read_elsewhere(*files) == [(3, *size, rotation)] * 3


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
@pytest.mark.parametrize(
    "exif",
    [b"JUNKJUNKJUNK", b"II*\0", b"II*\0\xff\xff\0\0", b"II*\0\x08\0\0\0\xff\xff" + bytes(20), b"MM\0+" + bytes(9)],
)
def test_damaged_exif_turns_nothing(tmp_path, suffix, exif):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(pixels()).save(path, exif=b"Exif\0\0" + exif)
    assert read_picture(path).shape == (*SIZE, 3)
    with Image.open(path) as picture:
        assert upright_size(picture) == SIZE[::-1]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_a_picture_that_ends_in_its_header_is_named(tmp_path, suffix, share):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(pixels()).save(path, icc_profile=profile(), exif=Image.Exif())
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"picture \(.*picture.{suffix}\) is (damaged or cut short|not an image)"):
        read_picture(path)
