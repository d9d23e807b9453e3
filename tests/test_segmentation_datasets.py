"""Data sets of labelled pictures: hand-made trees in the published layouts, and the real samples."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.segmentation import (
    SEGMENTATION_DATASETS,
    WorldSegmentation,
    build_segmentation_dataset,
    check_segmentation_dataset,
)
from midway_hub.training.data.segmentation.files import read_label_map
from midway_hub.training.data.synthetic import CLASSES, TextureSettings, WorldSettings, held_out_seeds, render_pairs

SMALL = (4, 6)
WORLD = WorldSettings(size=(48, 64), textures=TextureSettings(tiles=4, tile_size=32))


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def picture(path: Path, size=SMALL) -> Path:
    return save(path, np.full((*size, 3), 90, dtype=np.uint8))


def label_map(path: Path, values, size=SMALL) -> Path:
    return save(path, np.resize(np.array(values, dtype=np.uint8), size))


def plain_tree(root: Path, *values) -> Path:
    """A `folder` data set of one picture per list of values."""
    for number, found in enumerate(values):
        picture(root / f"images/{number}.png")
        label_map(root / f"labels/{number}.png", found)
    return root


def test_bdd100k_is_found_where_its_downloads_unpack_to(tmp_path):
    picture(tmp_path / "images/10k/val/a1.jpg")
    label_map(tmp_path / "labels/sem_seg/masks/val/a1.png", [0, 18, 255])
    dataset = build_segmentation_dataset("bdd100k/val", tmp_path)
    sample = dataset[0]
    assert (len(dataset), sample.name, sample.labels[0].tolist()) == (1, "a1", [0, 18, 255, 0, 18, 255])
    assert dataset.classes[18] == "bicycle"


def test_cityscapes_pairs_pictures_and_label_ids_of_every_city(tmp_path):
    for city in ("ulm", "bonn"):
        picture(tmp_path / f"leftImg8bit/train/{city}/{city}_000000_000019_leftImg8bit.png")
        label_map(tmp_path / f"gtFine/train/{city}/{city}_000000_000019_gtFine_labelIds.png", [7, 26, 3])
        label_map(tmp_path / f"gtFine/train/{city}/{city}_000000_000019_gtFine_instanceIds.png", [200])
    dataset = build_segmentation_dataset("cityscapes/train", tmp_path)
    assert [dataset[index].name for index in range(2)] == ["bonn/bonn_000000_000019", "ulm/ulm_000000_000019"]
    assert dataset[1].labels[0, :3].tolist() == [0, 13, 255]


def test_cityscapes_train_ids_are_an_option(tmp_path):
    picture(tmp_path / "leftImg8bit/val/ulm/u_leftImg8bit.png")
    label_map(tmp_path / "gtFine/val/ulm/u_gtFine_labelTrainIds.png", [0, 13, 255])
    options = {"label_suffix": "_gtFine_labelTrainIds.png", "encoding": "train_ids"}
    dataset = build_segmentation_dataset("cityscapes/val", tmp_path, **options)
    assert dataset[0].labels[0, :3].tolist() == [0, 13, 255]


def test_ade20k_reads_its_numbers_one_lower_and_ignores_other(tmp_path):
    picture(tmp_path / "images/validation/ADE_val_00000001.jpg")
    label_map(tmp_path / "annotations/validation/ADE_val_00000001.png", [0, 1, 150])
    dataset = build_segmentation_dataset("ade20k/val", tmp_path)
    assert dataset[0].labels[0, :3].tolist() == [255, 0, 149]


def test_wt_sem_can_lie_and_be_encoded_otherwise(tmp_path):
    picture(tmp_path / "frames/val/Rome/000001.jpg")
    label_map(tmp_path / "masks/val/Rome/000001_sem.png", [0, 149, 200])
    dataset = build_segmentation_dataset(
        "wt_sem/val",
        tmp_path,
        images="frames/val",
        labels="masks/val",
        label_suffix="_sem.png",
        encoding="train_ids",
        ignore=[200],
    )
    sample = dataset[0]
    assert (sample.name, sample.labels[0, :3].tolist()) == ("Rome/000001", [0, 149, 255])


def test_a_folder_takes_classes_of_ones_own(tmp_path):
    plain_tree(tmp_path, [0, 1])
    dataset = build_segmentation_dataset(
        "folder", tmp_path, classes=["ground", "thing"], palette=[(1, 2, 3), (4, 5, 6)]
    )
    assert (dataset.classes, dataset.palette) == (("ground", "thing"), ((1, 2, 3), (4, 5, 6)))


def test_colour_pictures_are_read_by_their_palette(tmp_path):
    picture(tmp_path / "images/a.png")
    colours = np.zeros((*SMALL, 3), dtype=np.uint8)
    colours[:, :2], colours[:, 2:] = (128, 64, 128), (0, 0, 142)
    save(tmp_path / "labels/a.png", colours)
    sample = build_segmentation_dataset("folder", tmp_path, encoding="colours")[0]
    assert sample.labels[0].tolist() == [0, 0, 13, 13, 13, 13]


def test_palette_files_give_their_indices(tmp_path):
    written = Image.fromarray(np.resize(np.arange(4, dtype=np.uint8), SMALL), "P")
    written.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 255, 255, 255])
    written.save(tmp_path / "a.png")
    assert read_label_map(tmp_path / "a.png")[0].tolist() == [0, 1, 2, 3, 0, 1]


def test_pictures_of_one_channel_become_rgb(tmp_path):
    plain_tree(tmp_path, [0])
    save(tmp_path / "images/0.png", np.full(SMALL, 7, dtype=np.uint8))
    image = build_segmentation_dataset("folder", tmp_path)[0].image
    assert image.shape == (*SMALL, 3)
    assert np.unique(image).tolist() == [7]


def jpeg_labels(path):
    Image.fromarray(np.zeros(SMALL, dtype=np.uint8)).save(path, format="JPEG")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: save(path, np.zeros(SMALL, np.uint16)), r"more than 8 bits per pixel \(mode I;16\).*instance"),
        (lambda path: save(path, np.zeros((*SMALL, 3), np.uint8)), r"colour picture \(mode RGB\).*encoding=colours"),
        (jpeg_labels, "is a JPEG, which changes labels"),
        (lambda path: path.write_bytes(b"nonsense"), "cannot be read as a picture"),
        (lambda path: path.write_bytes(path.read_bytes()[:45]), "is broken|cannot be read as a picture"),
        (Path.unlink, "there is no such file"),
        (lambda path: label_map(path, [0], size=(6, 4)), r"sizes 4x6 and 6x4; both need one size \(.*images/0.png\)"),
        (lambda path: label_map(path, [3, 19]), "1 value of no class: 19 at 12 pixels; .*one too high"),
    ],
)
def test_label_files_that_cannot_be_right_are_named(tmp_path, spoil, message):
    dataset = build_segmentation_dataset("folder", plain_tree(tmp_path, [0]))
    spoil(tmp_path / "labels/0.png")
    with pytest.raises(SampleError, match=message) as caught:
        dataset[0]
    assert caught.value.file == str(tmp_path / "labels/0.png")
    assert caught.value.always


def test_numbers_are_refused_where_colours_are_wanted(tmp_path):
    dataset = build_segmentation_dataset("folder", plain_tree(tmp_path, [0]), encoding="colours")
    with pytest.raises(SampleError, match=r"holds numbers \(mode L\).*wants an RGB picture"):
        dataset[0]


def test_a_picture_that_is_gone_is_named(tmp_path):
    dataset = build_segmentation_dataset("folder", plain_tree(tmp_path, [0]))
    (tmp_path / "images/0.png").unlink()
    with pytest.raises(SampleError, match=r"images/0\.png: there is no such file"):
        dataset[0]


def test_missing_files_of_both_kinds_are_known_without_opening_any(tmp_path):
    plain_tree(tmp_path, [0], [0], [0])
    (tmp_path / "labels/1.png").unlink()
    (tmp_path / "images/2.png").rename(tmp_path / "images/3.png")
    dataset = build_segmentation_dataset("folder", tmp_path, image_suffixes=[".png"])
    expected = ["labels/1.png", "images/2.png", "labels/3.png"]
    assert dataset.missing() == [str(tmp_path / path) for path in expected]


def test_missing_files_are_counted_and_named_before_training(tmp_path):
    plain_tree(tmp_path, *[[0]] * 8)
    for number in range(7):
        (tmp_path / f"labels/{number}.png").unlink()
    dataset = build_segmentation_dataset("folder", tmp_path)
    wanted = r"folder: 7 files missing for its 8 pictures: .*labels/0\.png.*labels/4\.png and 2 more; complete"
    with pytest.raises(FileNotFoundError, match=wanted):
        check_segmentation_dataset(dataset)


def test_a_data_set_with_fewer_pictures_than_published_is_noticed(tmp_path, caplog):
    picture(tmp_path / "images/10k/val/a1.jpg")
    label_map(tmp_path / "labels/sem_seg/masks/val/a1.png", [0])
    with caplog.at_level(logging.WARNING, "midway_hub"):
        check_segmentation_dataset(build_segmentation_dataset("bdd100k/val", tmp_path))
    assert "bdd100k/val has 1 pictures here, the published data set has 1000" in caplog.text


def test_a_complete_data_set_passes_in_silence(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "midway_hub"):
        check_segmentation_dataset(build_segmentation_dataset("folder", plain_tree(tmp_path, [0])))
    assert not caplog.records


def test_published_sizes_are_the_data_sets():
    published = {name: layout.published for name, layout in SEGMENTATION_DATASETS.items()}
    assert published == {
        **{"bdd100k/train": 7000, "bdd100k/val": 1000, "cityscapes/train": 2975, "cityscapes/val": 500},
        **{"ade20k/train": 20210, "ade20k/val": 2000, "wt_sem/train": 25910, "wt_sem/val": 6170, "folder": None},
    }


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "bdd100k/vall",
            {},
            r"unknown segmentation data set .*; did you mean 'bdd100k/val'.*'folder' reads",
        ),
        ("folder", {"encodng": "colours"}, "folder has no option 'encodng'; did you mean 'encoding'"),
        ("folder", {"encoding": "train_id"}, "unknown encoding 'train_id'; did you mean 'train_ids'"),
        ("folder", {"classes": "ade"}, "unknown class list 'ade'; did you mean 'ade20k'|there are"),
        ("wt_sem/val", {"reduce_zero_label": True}, "takes encoding='zero_is_ignored' or 'train_ids'"),
        ("ade20k/val", {"encoding": "cityscapes_label_ids"}, "is of 19 classes, got 150"),
    ],
)
def test_unknown_names_and_options_get_a_hint(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        build_segmentation_dataset(name, plain_tree(tmp_path, [0]), **options)


def test_an_empty_folder_says_what_was_looked_for(tmp_path):
    (tmp_path / "pictures").mkdir()
    wanted = (
        r"looked in .* for images/10k/val/\*\*/\*{\.jpg} and labels/sem_seg/masks/val/.*; the folder holds pictures/"
    )
    with pytest.raises(FileNotFoundError, match=wanted):
        build_segmentation_dataset("bdd100k/val", tmp_path)


def test_a_root_one_too_high_is_noticed(tmp_path):
    picture(tmp_path / "bdd100k/images/10k/val/a.jpg")
    with pytest.raises(FileNotFoundError, match=r"is the root .*/bdd100k\?"):
        build_segmentation_dataset("bdd100k/val", tmp_path)


def test_a_root_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        build_segmentation_dataset("bdd100k/val", tmp_path / "nowhere")


def test_the_fingerprint_tells_data_apart_and_survives_moving(tmp_path):
    one = build_segmentation_dataset("folder", plain_tree(tmp_path / "a", [0], [1])).fingerprint()
    moved = build_segmentation_dataset("folder", plain_tree(tmp_path / "b", [0], [1])).fingerprint()
    label_map(tmp_path / "b/labels/1.png", range(19), size=(64, 64))
    changed = build_segmentation_dataset("folder", tmp_path / "b").fingerprint()
    ignoring = build_segmentation_dataset("folder", tmp_path / "a", ignore=[3]).fingerprint()
    assert one == moved
    assert len({str(print_) for print_ in (one, changed, ignoring)}) == 3


def test_data_sets_survive_pickling(tmp_path):
    dataset = build_segmentation_dataset("folder", plain_tree(tmp_path, [5]))
    again = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(again[0].labels, dataset[0].labels)


def test_worlds_give_their_first_frame_and_its_classes():
    seeds = held_out_seeds(2)
    dataset = WorldSegmentation(WORLD, seeds)
    sample, made = dataset[1], render_pairs(WORLD, [seeds[1]])
    assert np.array_equal(sample.image, made.first[0].permute(1, 2, 0))
    assert np.array_equal(sample.labels, made.labels[0])
    assert (len(dataset), dataset.classes, dataset.missing()) == (2, CLASSES, [])


def test_worlds_of_other_seeds_are_other_data():
    one, other = (WorldSegmentation(WORLD, held_out_seeds(3, start)).fingerprint() for start in (0, 3))
    assert one != other
    assert one == WorldSegmentation(WORLD, list(held_out_seeds(3))).fingerprint()


def test_worlds_need_seeds():
    with pytest.raises(ValueError, match="give at least one seed"):
        WorldSegmentation(WORLD, [])


def test_real_ade20k_files_have_the_classes_that_they_show(shared):
    dataset = build_segmentation_dataset(
        "ade20k/val", shared / "data/segmentation/ade20k", images="images", labels="labels"
    )
    sample = dataset[0]
    assert (sample.name, sample.image.shape, sample.labels.shape) == ("ADE_val_00000001", (512, 683, 3), (512, 683))
    raw = np.array([1, 2, 3, 5, 7, 10, 18])
    assert np.unique(sample.labels).tolist() == [*(raw - 1), 255]
    shown = {dataset.classes[label] for label in np.unique(sample.labels)[:-1]}
    assert shown == {"wall", "building", "sky", "tree", "road", "grass", "plant"}


def test_a_real_bdd100k_palette_file_gives_train_ids(shared):
    raw = read_label_map(shared / "data/segmentation/bdd100k/labels/sem_seg_0.png")
    assert raw.shape == (720, 1280)
    assert np.unique(raw).tolist() == [0, 1, 2, 5, 6, 7, 8, 9, 10, 13, 14]


def test_real_camvid_files_have_sky_above_and_road_below(shared):
    dataset = build_segmentation_dataset("folder", shared / "data/segmentation/camvid", classes="camvid", ignore=[11])
    sky, road = (dataset.classes.index(name) for name in ("sky", "road"))
    for index in range(5):
        labels = dataset[index].labels
        assert labels.shape == (360, 480)
        assert np.nonzero(labels == sky)[0].mean() < 120 < 240 < np.nonzero(labels == road)[0].mean()


def test_real_camvid_files_do_not_pass_for_eleven_classes_without_void(shared):
    dataset = build_segmentation_dataset("folder", shared / "data/segmentation/camvid", classes="camvid")
    with pytest.raises(SampleError, match=r"1 value of no class: 11 at 7,980 pixels; .*if 11 is void, ignore=\[11\]"):
        dataset[0]
