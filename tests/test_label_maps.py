"""Label maps: the numbers that a file holds, however it packs them, or a refusal that says why."""

import numpy as np
import pytest
from picture_bytes import GREY_ALPHA, PALETTE, RGB, write_pgm, write_png, write_tiff
from PIL import Image

from midway_hub.label_maps import (
    LabelMapError,
    object_numbers,
    read_binary_mask,
    read_label_colours,
    read_label_map,
)
from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.segmentation import build_segmentation_dataset
from midway_hub.training.probes.labelled_folder import read_labelled_folder

SIZE = (9, 13)
rng = np.random.default_rng(0)


def numbers(below, size=SIZE):
    values = rng.integers(0, below, size)
    values.flat[:3] = 0, 1, below - 1
    return values


def palette_of(count):
    return (b"PLTE", bytes(rng.integers(0, 256, 3 * count).astype(np.uint8)))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_pngs_of_any_depth_give_their_numbers(tmp_path, depth, interlaced):
    values = numbers(2**depth)
    found = read_label_map(write_png(tmp_path / "a.png", values, depth, interlaced=interlaced))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_pngs_of_any_depth_give_their_indices(tmp_path, depth):
    values = numbers(2**depth)
    chunks = [palette_of(2**depth), (b"tRNS", b"\0\x80")]
    np.testing.assert_array_equal(
        read_label_map(write_png(tmp_path / "a.png", values, depth, PALETTE, chunks=chunks)), values
    )


@pytest.mark.parametrize("depth", [2, 4, 8])
def test_a_transparent_number_of_a_grey_png_stays_a_number(tmp_path, depth):
    values = numbers(2**depth)
    file = write_png(tmp_path / "a.png", values, depth, chunks=[(b"tRNS", b"\0\1")])
    np.testing.assert_array_equal(read_label_map(file), values)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("largest", [1, 2, 3, 18, 100, 127, 254, 255])
def test_pgms_of_any_largest_value_give_their_numbers(tmp_path, largest, plain):
    values = numbers(largest + 1)
    file = write_pgm(tmp_path / "a.pgm", values, largest, plain=plain)
    np.testing.assert_array_equal(read_label_map(file), values)


@pytest.mark.parametrize("largest", [256, 1000, 1023, 4095, 40000, 65534, 65535])
def test_deep_files_are_refused_unless_they_are_asked_for(tmp_path, largest):
    values = numbers(largest + 1)
    file = write_pgm(tmp_path / "a.pgm", values, largest)
    with pytest.raises(LabelMapError, match="more than 8 bits per pixel"):
        read_label_map(file)
    np.testing.assert_array_equal(read_label_map(file, deep=True), values)


def test_deep_pngs_and_tiffs_give_their_numbers_where_they_are_asked_for(tmp_path):
    values = numbers(65536)
    for file in (write_png(tmp_path / "a.png", values, 16), write_tiff(tmp_path / "a.tif", values, 16)):
        with pytest.raises(LabelMapError, match="more than 8 bits per pixel"):
            read_label_map(file)
        np.testing.assert_array_equal(read_label_map(file, deep=True), values)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_tiffs_give_their_numbers_or_are_refused_where_zero_is_white(tmp_path, bits):
    values = numbers(2**bits)
    np.testing.assert_array_equal(read_label_map(write_tiff(tmp_path / "a.tif", values, bits)), values)
    with pytest.raises(LabelMapError, match="not read exactly; save it as PNG"):
        read_label_map(write_tiff(tmp_path / "white.tif", values, bits, photometric=0))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "pgm"])
def test_what_pillow_writes_comes_back(tmp_path, suffix):
    values = numbers(256).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_label_map(tmp_path / f"a.{suffix}"), values)


def test_a_label_map_is_turned_upright_as_its_picture_is(tmp_path):
    values = numbers(9).astype(np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.rot90(values)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), values)


def test_alpha_is_taken_off_where_all_is_opaque_and_refused_where_not(tmp_path):
    values = numbers(20)
    opaque = np.stack([values, np.full(SIZE, 255)], axis=2)
    np.testing.assert_array_equal(read_label_map(write_png(tmp_path / "a.png", opaque, 8, GREY_ALPHA)), values)
    opaque[0, 0, 1] = 0
    with pytest.raises(LabelMapError, match="transparent in places"):
        read_label_map(write_png(tmp_path / "a.png", opaque, 8, GREY_ALPHA))


@pytest.mark.parametrize(
    ("name", "mode", "options", "reason"),
    [
        ("a.png", "RGB", {}, r"is a colour picture \(mode RGB\)"),
        ("a.png", "RGBA", {}, r"is a colour picture \(mode RGBA\)"),
        ("a.jpg", "L", {}, "is a JPEG, which changes labels"),
        ("a.tif", "L", {"compression": "jpeg"}, "is a JPEG, which changes labels"),
        ("a.webp", "RGB", {"lossless": True}, "is a WEBP file; label maps are PNG"),
        ("a.gif", "L", {}, "is a GIF file; label maps are PNG"),
        ("a.jp2", "L", {}, "is a JPEG2000 file; label maps are PNG"),
        ("a.pbm", "1", {}, "is a PBM, in which 1 is black"),
        ("a.tif", "F", {}, "has mode F; a label map has one whole number per pixel"),
    ],
)
def test_files_without_exact_numbers_are_refused_by_name(tmp_path, name, mode, options, reason):
    Image.new(mode, (6, 4)).save(tmp_path / name, **options)
    with pytest.raises(LabelMapError, match=rf"{name} {reason}"):
        read_label_map(tmp_path / name)


def test_a_bmp_of_four_bits_and_grey_is_refused_where_it_cannot_be_read(tmp_path):
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(16))
    rows = bytes(4 * 4)
    head = b"BM" + (54 + 64 + len(rows)).to_bytes(4, "little") + bytes(4) + (54 + 64).to_bytes(4, "little")
    info = b"".join(value.to_bytes(size, "little") for value, size in ((40, 4), (8, 4), (4, 4), (1, 2), (4, 2)))
    (tmp_path / "a.bmp").write_bytes(head + info + bytes(16) + (16).to_bytes(4, "little") + bytes(4) + palette + rows)
    with pytest.raises(LabelMapError, match="not read exactly; save it as PNG"):
        read_label_map(tmp_path / "a.bmp")


def test_what_is_no_picture_or_cut_short_says_so(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with pytest.raises(LabelMapError, match=r"a\.png cannot be read as a picture"):
        read_label_map(tmp_path / "a.png")
    whole = write_png(tmp_path / "b.png", numbers(200, (64, 64)), 8).read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabelMapError, match=r"b\.png is broken"):
        read_label_map(tmp_path / "b.png")
    with pytest.raises(FileNotFoundError):
        read_label_map(tmp_path / "c.png")


# -- colours -----------------------------------------------------------------------------------------------------------


def test_colours_of_palettes_and_small_ppms_are_those_of_the_file(tmp_path):
    colours = rng.integers(0, 101, (*SIZE, 3))
    np.testing.assert_array_equal(read_label_colours(write_pgm(tmp_path / "a.ppm", colours, 255)), colours)
    file = write_png(tmp_path / "a.png", colours, 8, RGB, chunks=[(b"tRNS", b"\0\1\0\2\0\3")])
    np.testing.assert_array_equal(read_label_colours(file), colours)
    values, palette = numbers(4), palette_of(4)
    file = write_png(tmp_path / "p.png", values, 2, PALETTE, chunks=[palette, (b"tRNS", b"\0\x80")])
    np.testing.assert_array_equal(read_label_colours(file), np.frombuffer(palette[1], np.uint8).reshape(4, 3)[values])


def test_colours_that_would_change_are_refused(tmp_path):
    deep = write_png(tmp_path / "a.png", rng.integers(0, 65536, (*SIZE, 3)), 16, RGB)
    small = write_pgm(tmp_path / "a.ppm", rng.integers(0, 101, (*SIZE, 3)), 100)
    for file in (deep, small):
        with pytest.raises(LabelMapError, match="other than 8 bits per channel"):
            read_label_colours(file)


# -- masks of one object -----------------------------------------------------------------------------------------------


def disc(size=(64, 96), soft=0.0):
    """Light of a disc, 0 to 255, whose rim is `soft` pixels wide."""
    row, column = np.mgrid[: size[0], : size[1]]
    away = np.hypot(row - 30, column - 40) - 15
    return (np.clip(0.5 - away / max(soft, 1e-6), 0, 1) * 255).round().astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("hard.png", Image.fromarray(disc())),
        ("soft.png", Image.fromarray(disc(soft=4))),
        ("bits.png", Image.fromarray(disc() > 0)),
        ("bits.pbm", Image.fromarray(disc() > 0)),
        ("numbers.png", Image.fromarray(disc() // 255)),
        ("deep.png", Image.fromarray(disc(soft=4).astype(np.uint16) * 257)),
        ("colours.png", Image.fromarray(disc()).convert("RGB")),
        ("alpha.png", Image.fromarray(disc()).convert("LA")),
        ("lossy.jpg", Image.fromarray(disc())),
        ("indexed.png", Image.fromarray(disc() // 255 * 3).convert("P")),
    ],
)
def test_a_binary_mask_is_the_object_however_it_is_saved(tmp_path, name, made):
    made.save(tmp_path / name)
    found = read_binary_mask(tmp_path / name)
    assert found.dtype == np.uint8
    assert np.unique(found).tolist() == [0, 1]
    assert (found != (disc() > 0)).mean() < 0.005


def test_a_mask_without_its_object_is_empty(tmp_path):
    for name, light in (("black.png", 0), ("faint.png", 40), ("noise.jpg", 1)):
        Image.fromarray(np.full((16, 16), light, np.uint8)).save(tmp_path / name)
        assert not read_binary_mask(tmp_path / name).any()


def test_soft_masks_are_refused_with_what_to_do():
    for soft in (2, 4, 8, 12):
        with pytest.raises(ValueError, match=r"m\.png looks like a mask with soft edges: 255 covers .*--binary-masks"):
            object_numbers(disc(soft=soft), "m.png")


def test_unknown_borders_around_objects_are_no_soft_mask():
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30], labels[12:28, 12:28], labels[0, :5] = 255, 2, 7
    assert object_numbers(labels, "m.png") == [2, 7]


# -- everywhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_segmentation_data_reads_classes_of_few_bits(tmp_path, depth):
    values = numbers(2**depth)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "images/a.png")
    write_png(tmp_path / "labels/a.png", values, depth)
    np.testing.assert_array_equal(build_segmentation_dataset("folder", tmp_path)[0].labels, values)
    write_pgm(tmp_path / "labels/a.png", values, 2**depth)
    np.testing.assert_array_equal(build_segmentation_dataset("folder", tmp_path)[0].labels, values)


def test_segmentation_data_says_of_deep_and_coloured_maps_what_to_do(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "images/a.png")
    for write, message in (
        (lambda path: write_png(path, numbers(300), 16), "Is it an instance or panoptic map"),
        (lambda path: Image.new("RGB", SIZE[::-1]).save(path), "encoding=colours"),
        (lambda path: write_pgm(path, numbers(300), 299), "Is it an instance or panoptic map"),
    ):
        write(tmp_path / "labels/a.png")
        with pytest.raises(SampleError, match=message):
            build_segmentation_dataset("folder", tmp_path)[0]


def test_the_labelled_folder_of_probes_reads_stored_numbers_and_upright_pictures(tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    values = numbers(4, (32, 48))
    exif = Image.Exif()
    exif[0x112] = 8
    pixels = rng.integers(0, 256, (32, 48, 3)).astype(np.uint8)
    Image.fromarray(np.rot90(pixels, -1)).save(tmp_path / "images/a.png", exif=exif)
    Image.fromarray(pixels).save(tmp_path / "images/b.png")
    for name in ("a", "b"):
        write_png(tmp_path / f"labels/{name}.png", values, 2)
    found = read_labelled_folder(tmp_path / "images", tmp_path / "labels", size=32)
    assert found.labels[0].unique().tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.labels[0], values[:, 8:40])
    np.testing.assert_array_equal(found.frames[0], found.frames[1])


@pytest.mark.parametrize(("largest", "values"), [(1, [0, 1, 2]), (3, [1, 4, 0]), (15, [255, 0, 1]), (254, [255, 3, 0])])
def test_a_pgm_with_numbers_above_the_largest_of_its_header_is_refused(tmp_path, largest, values):
    path = write_pgm(tmp_path / "labels.pgm", [values], largest)
    with pytest.raises(LabelMapError, match=f"holds {max(values)}, but its header says that {largest} is the largest"):
        read_label_map(path)


def test_a_deep_pgm_with_numbers_above_the_largest_of_its_header_is_refused(tmp_path):
    path = write_pgm(tmp_path / "labels.pgm", [[1, 700, 2]], 600)
    with pytest.raises(LabelMapError, match="holds 700, but its header says that 600 is the largest"):
        read_label_map(path, deep=True)
