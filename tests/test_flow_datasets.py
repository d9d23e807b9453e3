"""Flow data sets: each layout, its splits, and what is said of files that are missing or broken."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
from flow_trees import SIZE, make_tree
from PIL import Image
from torchvision import datasets as torchvision_datasets

from midway_hub.flow_io import write_flow
from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.flow import (
    FLOW_DATASETS,
    FileForm,
    PairFiles,
    PairList,
    WorldFlow,
    build_flow_dataset,
    check_flow_datasets,
)
from midway_hub.training.data.flow.frames import read_mask
from midway_hub.training.data.flow.readers import things
from midway_hub.training.data.synthetic import TextureSettings, WorldSettings, held_out_seeds, render_pairs

FEW = TextureSettings(tiles=4, tile_size=32)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Roots of tiny copies of all data sets by family, made when first asked for."""
    made = {}

    def tree(family):
        if family not in made:
            folder = {
                "chairs": "FlyingChairs",
                "things": "FlyingThings3D",
                "sintel": "Sintel",
                "kitti2015": "KittiFlow",
            }
            made[family] = make_tree(family, tmp_path_factory.mktemp(family) / folder.get(family, family))
        return made[family]

    return tree


@pytest.fixture
def pair(tmp_path):
    """A single good pair, whose files a test then spoils."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(tmp_path / name)
    write_flow(tmp_path / "f.flo", rng.normal(size=(*SIZE, 2)).astype(np.float32))
    return PairList("one", tmp_path, [PairFiles("a.png", "b.png", "f.flo", name="one")])


def names(dataset):
    return [dataset.files(index).name for index in range(len(dataset))]


@pytest.mark.parametrize("name", FLOW_DATASETS)
def test_every_data_set_gives_samples_of_the_contract(name, trees):
    dataset = build_flow_dataset(name, trees(name.split("/")[0]).root)
    assert dataset.name == name
    assert len(dataset) > 0
    assert dataset.missing() == []
    for index in range(len(dataset)):
        sample, scale = dataset[index], dataset.form.flow_scale
        assert sample.first.dtype == sample.second.dtype == np.uint8
        assert sample.first.shape == sample.second.shape == (*SIZE, 3)
        assert sample.flow.dtype == np.float32
        assert sample.flow.shape == (scale * SIZE[0], scale * SIZE[1], 2)
        assert sample.valid.dtype == bool
        assert sample.valid.shape == sample.flow.shape[:2]
        assert sample.valid.any()
        assert np.isfinite(sample.flow).all()
        assert not sample.flow[~sample.valid].any()
        assert sample.occluded is None or (sample.occluded.shape == SIZE and sample.occluded.dtype == bool)
        assert sample.flow_scale == scale
        assert sample.sparse == dataset.sparse == (name.startswith(("kitti", "hd1k")) or name == "folder/sparse")
    assert len(set(names(dataset))) == len(dataset)


@pytest.mark.parametrize("name", FLOW_DATASETS)
def test_flow_is_what_was_written_bit_for_bit(name, trees):
    tree = trees(name.split("/")[0])
    dataset = build_flow_dataset(name, tree.root)
    for index in range(len(dataset)):
        np.testing.assert_array_equal(dataset[index].flow, tree.flows[dataset.files(index).flow])


def same_as_torchvision(ours, theirs):
    """Compare all pairs in order: frames, flow, and where it is known."""
    assert len(ours) == len(theirs) > 0
    for sample, (first, second, flow, *valid) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(sample.first, first)
        np.testing.assert_array_equal(sample.second, second)
        known = valid[0] if valid else np.ones(flow.shape[1:], dtype=bool)
        np.testing.assert_array_equal(sample.valid, known)
        np.testing.assert_array_equal(sample.flow[known], flow.transpose(1, 2, 0)[known])


@pytest.mark.parametrize("split", ["train", "val"])
def test_chairs_equal_torchvisions(split, trees):
    root = trees("chairs").root
    theirs = torchvision_datasets.FlyingChairs(root.parent, split=split)
    same_as_torchvision(build_flow_dataset(f"chairs/{split}", root), theirs)


@pytest.mark.parametrize("camera", ["left", "right"])
@pytest.mark.parametrize("look", ["clean", "final"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_things_equal_torchvisions(split, look, camera, trees):
    root = trees("things").root
    theirs = torchvision_datasets.FlyingThings3D(root.parent, split=split, pass_name=look, camera=camera)
    same_as_torchvision(build_flow_dataset(f"things/{split}/{look}", root, cameras=camera), theirs)


@pytest.mark.parametrize("look", ["clean", "final"])
def test_sintel_equals_torchvisions(look, trees, monkeypatch):
    import os

    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: sorted(listdir(folder)))  # which torchvision does not sort
    root = trees("sintel").root
    theirs = torchvision_datasets.Sintel(root.parent, pass_name=look)
    same_as_torchvision(build_flow_dataset(f"sintel/train/{look}", root), theirs)


def test_kitti_2015_equals_torchvisions(trees):
    root = trees("kitti2015").root
    same_as_torchvision(build_flow_dataset("kitti2015/train", root), torchvision_datasets.KittiFlow(root.parent))


def test_hd1k_equals_torchvisions(trees):
    root = trees("hd1k").root
    same_as_torchvision(build_flow_dataset("hd1k/train", root), torchvision_datasets.HD1K(root.parent))


def test_real_chairs_read_as_torchvision_reads_them(shared, tmp_path):
    root = tmp_path / "FlyingChairs"
    (root / "data").mkdir(parents=True)
    for folder in ("chairs_0", "chairs_1"):
        for file in (shared / "data" / "flow" / folder).glob("0000*"):
            (root / "data" / file.name).symlink_to(file)
    (root / "FlyingChairs_train_val.txt").write_text("1\n1\n")
    ours = build_flow_dataset("chairs/train", root)
    assert [sample.first.shape for sample in ours] == [(384, 512, 3)] * 2
    same_as_torchvision(ours, torchvision_datasets.FlyingChairs(tmp_path))


def test_a_real_sparse_flow_is_known_where_its_png_says(shared, tmp_path):
    folder = shared / "data" / "flow" / "chairs_0"
    files = PairFiles("00001_img1.ppm", "00001_img2.ppm", "derived_kitti_sparse.png", name="sparse")
    dense = PairList("dense", folder, [files._replace(flow="00001_flow.flo")])[0]
    sparse = PairList("sparse", folder, [files], form=FileForm(sparse=True))[0]
    assert 0.1 < sparse.valid.mean() < 0.3
    np.testing.assert_allclose(sparse.flow[sparse.valid], dense.flow[sparse.valid], atol=0.5 / 64)


def test_chairs_take_the_other_name_of_the_split_file(trees, tmp_path):
    make_tree("chairs", tmp_path)
    (tmp_path / "FlyingChairs_train_val.txt").rename(tmp_path / "chairs_split.txt")
    assert names(build_flow_dataset("chairs/val", tmp_path)) == ["00002", "00005"]


def test_chairs_without_split_file_name_both_files(tmp_path):
    make_tree("chairs", tmp_path)
    (tmp_path / "FlyingChairs_train_val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither FlyingChairs_train_val\.txt nor chairs_split\.txt"):
        build_flow_dataset("chairs/train", tmp_path)


@pytest.mark.parametrize("text", ["1\n2\n", "1\n2\n3\n1\n1\n"])
def test_a_split_file_that_does_not_fit_is_refused(tmp_path, text):
    make_tree("chairs", tmp_path)
    (tmp_path / "FlyingChairs_train_val.txt").write_text(text)
    with pytest.raises(ValueError, match="pairs 1 to 5"):
        build_flow_dataset("chairs/train", tmp_path)


def test_chairs_missing_a_pair_keep_their_split(tmp_path):
    make_tree("chairs", tmp_path)
    for file in (tmp_path / "data").glob("00001*"):
        file.unlink()
    assert names(build_flow_dataset("chairs/val", tmp_path)) == ["00002", "00005"]


def test_sintel_subtrain_and_subval_part_the_training_scenes(trees):
    root = trees("sintel").root
    train, subtrain, subval = (
        set(names(build_flow_dataset(f"sintel/{split}/clean", root))) for split in ("train", "subtrain", "subval")
    )
    assert subtrain | subval == train
    assert not subtrain & subval
    assert {name.split("/")[0] for name in subval} == {"temple_2", "temple_3"}


def test_sintels_occlusions_and_invalid_masks_are_read(trees):
    root = trees("sintel").root
    plain = build_flow_dataset("sintel/train/clean", root)[0]
    masked = build_flow_dataset("sintel/train/clean", root, exclude_masked=True)[0]
    marks = {
        kind: np.array(Image.open(root / "training" / kind / "alley_1" / "frame_0001.png")) > 0
        for kind in ("occlusions", "invalid")
    }
    np.testing.assert_array_equal(plain.occluded, marks["occlusions"])
    assert plain.valid.all()
    np.testing.assert_array_equal(masked.valid, ~marks["invalid"])


def test_occlusions_are_left_unread_on_demand(trees):
    dataset = build_flow_dataset("sintel/train/clean", trees("sintel").root, occlusions=False)
    assert dataset[0].occluded is None
    assert not any("occlusions" in file for file in dataset.files(0))


def test_kittis_occluded_pixels_are_those_that_only_flow_occ_knows(trees):
    root = trees("kitti2015").root
    sample = build_flow_dataset("kitti2015/train", root)[3]
    noc = torchvision_valid(root / "training/flow_noc/000003_10.png")
    np.testing.assert_array_equal(sample.occluded, sample.valid & ~noc)
    assert sample.occluded.any()


def torchvision_valid(path: Path) -> np.ndarray:
    from torchvision.datasets._optical_flow import _read_16bits_png_with_flow_and_valid_mask

    return _read_16bits_png_with_flow_and_valid_mask(str(path))[1]


def test_the_last_ten_kitti_pairs_are_held_out(trees):
    root = trees("kitti2015").root
    train, subtrain, subval = (
        names(build_flow_dataset(f"kitti2015/{split}", root)) for split in ("train", "subtrain", "subval")
    )
    assert subtrain + subval == train
    assert len(subval) == 10


def test_the_1024_test_pairs_are_every_seventh_of_all_but_the_last_698(monkeypatch):
    monkeypatch.setattr(things, "things_pairs", lambda *args, **kwargs: range(7866))
    assert things.test1024_pairs(Path(), look="clean") == list(range(0, 7168, 7))


def test_the_test_pairs_are_in_the_order_of_published_subsets(trees):
    found = names(build_flow_dataset("things/test/clean", trees("things").root))
    assert found == sorted(found, key=lambda name: (name.split("/")[3], name))


def test_things_flow_into_the_past_leads_to_the_frame_before(trees):
    dataset = build_flow_dataset("things/train/final", trees("things").root, directions=["into_past"])
    files = dataset.files(0)
    assert files.first.endswith("A/0000/left/0007.png")
    assert files.second.endswith("A/0000/left/0006.png")
    assert files.flow.endswith("into_past/left/OpticalFlowIntoPast_0007_L.pfm")


def test_the_subset_of_things_makes_no_pair_across_sequences(trees):
    dataset = build_flow_dataset("things_subset/train/clean", trees("things_subset").root)
    steps = {(int(Path(files.first).stem), int(Path(files.second).stem)) for files in map(dataset.files, range(8))}
    assert steps == {(0, 1), (1, 2), (3, 4), (4, 5), (1, 0), (2, 1), (4, 3), (5, 4)}


def test_nan_in_things_is_not_valid_and_the_rest_stays(tmp_path):
    make_tree("things_subset", tmp_path)
    path = tmp_path / "train/flow/left/into_future/0000000.flo"
    values = np.frombuffer(path.read_bytes()[12:], "<f4").copy()
    values[5] = np.nan  # y of the third pixel
    path.write_bytes(path.read_bytes()[:12] + values.tobytes())
    sample = build_flow_dataset("things_subset/train/clean", tmp_path)[0]
    assert np.argwhere(~sample.valid).tolist() == [[0, 2]]


def test_spring_has_both_cameras_and_directions_on_a_finer_grid(trees):
    dataset = build_flow_dataset("spring/train", trees("spring").root)
    assert len(dataset) == 2 * 2 * 2 * 2
    back = next(dataset.files(i) for i in range(len(dataset)) if "0001/right/BW" in dataset.files(i).name)
    assert back.first.endswith("frame_right_0002.png")
    assert back.second.endswith("frame_right_0001.png")
    assert back.flow == "train/0001/flow_BW_right/flow_BW_right_0002.flo5"
    assert not dataset[0].valid.all()  # NaN in the file


def test_springs_scene_0041_is_held_out(trees):
    root = trees("spring").root
    subtrain, subval = (build_flow_dataset(f"spring/{split}", root) for split in ("subtrain", "subval"))
    assert {subtrain[i].sequence for i in range(8)} == {"0001"}
    assert {subval[i].sequence for i in range(8)} == {"0041"}


def test_tartanair_reads_environments_named_twice_and_once(trees):
    dataset = build_flow_dataset("tartanair/train", trees("tartanair").root)
    assert names(dataset) == [f"{place}/{i:06d}" for place in ("ocean/Hard/P001", "office/Easy/P000") for i in (0, 1)]
    assert dataset[0].occluded is None  # there are no masks


def test_tartanairs_masks_say_what_is_occluded_or_left_out(tmp_path):
    tree = make_tree("tartanair", tmp_path)
    marks = [tree.mask(f"ocean/Hard/P001/flow/{i:06d}_{i + 1:06d}_mask.npy") for i in (0, 1)]
    np.testing.assert_array_equal(build_flow_dataset("tartanair/train", tmp_path)[1].occluded, marks[1])
    excluded = build_flow_dataset("tartanair/train", tmp_path, levels="Hard", exclude_masked=True)
    assert len(excluded) == 2
    np.testing.assert_array_equal(excluded[0].valid, ~marks[0])


def test_middleburys_large_numbers_are_unknown_flow(trees):
    tree = trees("middlebury")
    raw = np.frombuffer((tree.root / "other-gt-flow/Venus/flow10.flo").read_bytes()[12:], "<f4").reshape(*SIZE, 2)
    sample = build_flow_dataset("middlebury/train", tree.root)[1]
    np.testing.assert_array_equal(sample.valid, (np.abs(raw) < 1e9).all(axis=2))
    assert not sample.valid.all()


def test_vipers_flow_above_512_pixels_is_unknown(tmp_path):
    make_tree("viper", tmp_path)
    u = np.zeros(SIZE, dtype=np.float16)
    u[1, 2], u[3, 4] = 513, 512
    np.savez(tmp_path / "train/flow/001/001_00001.npz", u=u, v=np.zeros_like(u))
    sample = build_flow_dataset("viper/train", tmp_path)[0]
    assert np.argwhere(~sample.valid).tolist() == [[1, 2]]
    assert sample.flow.max() == 512


@pytest.mark.parametrize(
    ("family", "name", "gone"),
    [
        ("chairs", "chairs/train", "data/00003_img2.ppm"),
        ("things", "things/train/clean", "frames_cleanpass/TRAIN/C/0001/left/0009.png"),
        ("things", "things/test/final", "optical_flow/TEST/A/0000/into_past/left/OpticalFlowIntoPast_0007_L.pfm"),
        ("sintel", "sintel/train/clean", "training/clean/alley_1/frame_0003.png"),
        ("sintel", "sintel/train/clean", "training/occlusions/alley_1/frame_0002.png"),
        ("kitti2012", "kitti2012/train", "training/flow_noc/000001_10.png"),
        ("hd1k", "hd1k/train", "hd1k_flow_gt/flow_occ/000000_0011.png"),
        ("spring", "spring/train", "train/0001/flow_FW_left/flow_FW_left_0001.flo5"),
        ("tartanair", "tartanair/train", "office/office/Easy/P000/image_left/000000_left.png"),
        ("middlebury", "middlebury/train", "other-data/Venus/frame11.png"),
        ("viper", "viper/val", "val/img/001/001_00002.png"),
        ("things_subset", "things_subset/val/final", "val/image_final/left/0000004.png"),
    ],
)
def test_a_file_that_is_gone_is_named_and_its_pair_stays_listed(family, name, gone, tmp_path):
    make_tree(family, tmp_path)
    whole = build_flow_dataset(name, tmp_path)
    (tmp_path / gone).unlink()
    rest = build_flow_dataset(name, tmp_path)
    assert rest.missing() == [str(tmp_path / gone)]
    assert names(rest) == names(whole)


def test_looking_for_missing_files_reads_none(tmp_path):
    make_tree("sintel", tmp_path)
    for file in tmp_path.rglob("*.*"):
        file.write_bytes(b"")
    assert build_flow_dataset("sintel/train/clean", tmp_path).missing() == []


def test_a_missing_file_is_a_sample_error_that_names_it(pair, tmp_path):
    (tmp_path / "f.flo").unlink()
    with pytest.raises(SampleError, match="no such file") as caught:
        pair[0]
    assert caught.value.file == str(tmp_path / "f.flo")
    assert caught.value.always


def test_a_broken_frame_is_a_sample_error(pair, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(SampleError, match=r"a\.png"):
        pair[0]


def test_a_broken_flow_is_a_sample_error_that_names_the_file_once(pair, tmp_path):
    path = tmp_path / "f.flo"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SampleError, match="bytes") as caught:
        pair[0]
    assert str(caught.value).count("f.flo") == 1


def test_a_frame_with_16_bits_per_channel_is_refused(pair, tmp_path):
    flow = np.zeros((*SIZE, 2), dtype=np.float32)
    write_flow(tmp_path / "flow.png", flow)
    (tmp_path / "flow.png").replace(tmp_path / "b.png")
    with pytest.raises(SampleError, match="more than 8 bits"):
        pair[0]


def test_a_grey_frame_with_16_bits_is_refused(pair, tmp_path):
    Image.fromarray(np.zeros(SIZE, dtype=np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(SampleError, match="more than 8 bits"):
        pair[0]


def test_a_flow_png_with_8_bits_per_channel_is_refused(tmp_path, pair):
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "f.png")
    with pytest.raises(SampleError, match=r"f\.png.*(8|16).bit"):
        PairList("one", tmp_path, [PairFiles("a.png", "b.png", "f.png", name="one")])[0]


def test_flow_that_is_nan_everywhere_is_refused(pair, tmp_path):
    write_flow(tmp_path / "f.flo", np.full((*SIZE, 2), np.nan, dtype=np.float32))
    with pytest.raises(SampleError, match="not known at any pixel"):
        pair[0]


def test_frames_of_unequal_size_are_refused(pair, tmp_path):
    Image.new("RGB", (9, 6)).save(tmp_path / "b.png")
    with pytest.raises(SampleError, match=r"b\.png: 6×9 pixels, but .*a\.png has 6×8"):
        pair[0]


def test_flow_of_another_size_than_the_frames_is_refused(pair, tmp_path):
    write_flow(tmp_path / "f.flo", np.zeros((12, 16, 2), dtype=np.float32))
    with pytest.raises(SampleError, match=r"12×16 pixels, but 6×8 .* would fit"):
        pair[0]


def test_grey_frames_become_rgb(pair, tmp_path):
    grey = np.arange(48, dtype=np.uint8).reshape(SIZE)
    Image.fromarray(grey).save(tmp_path / "a.png")
    np.testing.assert_array_equal(pair[0].first, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sintel/subtrian/clean", "did you mean sintel/subtrain/clean"),
        ("sintel/train", "did you mean sintel/train/clean or sintel/train/final"),
        ("nothing like it", "there are: chairs/train"),
    ],
)
def test_unknown_names_get_a_hint(name, hint, tmp_path):
    with pytest.raises(ValueError, match=hint):
        build_flow_dataset(name, tmp_path)


def test_unknown_options_get_a_hint(trees):
    with pytest.raises(ValueError, match="did you mean cameras"):
        build_flow_dataset("spring/train", trees("spring").root, camera="left")
    with pytest.raises(ValueError, match="it takes occlusions"):
        build_flow_dataset("hd1k/train", trees("hd1k").root, look="clean")


def test_a_camera_that_there_is_not_is_refused(trees):
    with pytest.raises(ValueError, match="cameras must be some of left, right, got left, middle"):
        build_flow_dataset("spring/train", trees("spring").root, cameras=["left", "middle"])


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        build_flow_dataset("hd1k/train", tmp_path / "nowhere")


@pytest.mark.parametrize("name", FLOW_DATASETS)
def test_a_folder_without_pairs_says_what_was_looked_for(name, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no pair in .*; looked for .*It holds other"):
        build_flow_dataset(name, tmp_path)


def test_the_folder_above_the_data_set_points_to_it(trees):
    root = trees("sintel").root
    with pytest.raises(FileNotFoundError, match=f"{root} has pairs: give that folder"):
        build_flow_dataset("sintel/train/clean", root.parent)


def test_data_sets_travel_to_other_processes(trees):
    for family, name in (("kitti2015", "kitti2015/train"), ("spring", "spring/train")):
        dataset = build_flow_dataset(name, trees(family).root)
        copy = pickle.loads(pickle.dumps(dataset))
        np.testing.assert_array_equal(copy[1].flow, dataset[1].flow)


def test_numbers_beyond_the_last_pair_are_refused(pair):
    with pytest.raises(IndexError, match="pairs 0 to 0, got 1"):
        pair[1]


def test_the_fingerprint_tells_lists_of_files_apart(trees, tmp_path):
    make_tree("hd1k", tmp_path)
    before = build_flow_dataset("hd1k/train", tmp_path).fingerprint()
    assert before == build_flow_dataset("hd1k/train", trees("hd1k").root).fingerprint()  # wherever it is
    (tmp_path / "hd1k_input/image_2/000000_0012.png").rename(tmp_path / "hd1k_input/image_2/000000_0013.png")
    assert build_flow_dataset("hd1k/train", tmp_path).fingerprint() != before


def test_checking_warns_of_unpublished_numbers(trees, caplog):
    with caplog.at_level(logging.WARNING, "midway_hub"):
        (check,) = check_flow_datasets([build_flow_dataset("hd1k/train", trees("hd1k").root)])
    assert check.pairs == 3
    assert check.expected == 1047
    assert "hd1k/train: 3 pairs are complete, but 1047 are published" in caplog.text


def test_a_world_is_what_render_pairs_makes():
    settings, seeds = WorldSettings(size=(32, 48), textures=FEW), held_out_seeds(2)
    dataset, truth = WorldFlow(settings, seeds), render_pairs(settings, seeds)
    for index in (1, 0):
        sample = dataset[index]
        np.testing.assert_array_equal(sample.first.transpose(2, 0, 1), truth.first[index])
        np.testing.assert_array_equal(sample.second.transpose(2, 0, 1), truth.second[index])
        np.testing.assert_allclose(sample.flow.transpose(2, 0, 1), truth.flow[index], rtol=0, atol=1e-3)
        np.testing.assert_array_equal(sample.occluded, truth.occluded[index])
        assert sample.valid.all()
        assert sample.name == f"world {seeds[index]}"
    assert dataset.missing() == []
    assert len(dataset) == 2


def test_worlds_without_seeds_are_refused():
    with pytest.raises(ValueError, match="at least one seed"):
        WorldFlow(WorldSettings(), [])


def test_the_fingerprint_of_worlds_tells_seeds_apart():
    first, second = (WorldFlow(WorldSettings(), held_out_seeds(3, start)).fingerprint() for start in (0, 3))
    assert first != second
    assert first["pairs"] == 3


@pytest.mark.parametrize("shape", [(10**7, 10**7), (2**40,), (5, 3)])
def test_a_mask_that_announces_more_than_it_holds_is_refused_by_its_header(tmp_path, shape):
    with (tmp_path / "mask.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.write(bytes(7))
    with pytest.raises(ValueError, match="its header announces an array"):
        read_mask(tmp_path / "mask.npy")


# -- one's own ---------------------------------------------------------------------------------------------------------


def listed(root, **options):
    dataset = build_flow_dataset("folder", root, **options)
    return [dataset.files(index) for index in range(len(dataset))]


def place(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


@pytest.mark.parametrize("form", ["{}", "frame_{}", "frame ({})", "{}_left", "v1.{}"])
def test_the_flow_of_a_frame_leads_to_the_next_one_in_natural_order(tmp_path, form):
    for number in range(12):
        place(tmp_path, f"images/{form.format(number)}.jpg", f"flow/{form.format(number)}.flo")
    pairs = listed(tmp_path)
    assert [(pair.first, pair.second, pair.flow) for pair in pairs] == [
        (f"images/{form.format(n)}.jpg", f"images/{form.format(n + 1)}.jpg", f"flow/{form.format(n)}.flo")
        for n in range(11)
    ]


def test_own_folders_may_be_called_otherwise_and_lie_deep(tmp_path):
    place(tmp_path, *(f"rgb/a/b/{number}.png" for number in (1, 2)), "of/a/b/1.png")
    (pair,) = listed(tmp_path, images="rgb", flow="of")
    assert (pair.first, pair.second, pair.flow) == ("rgb/a/b/1.png", "rgb/a/b/2.png", "of/a/b/1.png")
    assert (pair.name, pair.sequence) == ("a/b/1", "a/b")


def test_flow_into_a_frame_that_is_missing_is_left_out_and_named(tmp_path, caplog):
    for number in (0, 1, 2, 4, 5):
        place(tmp_path, f"images/{number}.png", f"flow/{number}.flo")
    assert [pair.name for pair in listed(tmp_path)] == ["0", "1", "4"]
    assert "2 flows have no frame after theirs and are left out: 2, 5" in caplog.text


def test_flow_without_its_frame_is_a_missing_file(tmp_path):
    place(tmp_path, "images/1.png", "images/2.png", "flow/1.flo", "flow/7.flo")
    dataset = build_flow_dataset("folder", tmp_path)
    assert dataset.missing() == [str(tmp_path / "images/7.png")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["images/000000_10.png", "images/000000_11.png", "images/000001_10.png", "images/000001_11.png"], "2 videos"),
        (["images/1_img1.png", "images/1_img2.png", "images/2_img1.png", "images/2_img2.png"], "2 videos"),
        (["images/1.png", "images/2.png", "images/3.png", "images/cover.png"], "named unlike the others"),
        (["images/1.png", "images/1.jpg"], "doubled"),
        (["flow/1.npz", "images/1.png", "images/2.png"], "are the flow of one frame; keep one of them"),
    ],
)
def test_frames_that_may_be_paired_in_several_ways_are_refused(tmp_path, names, message):
    place(tmp_path, "flow/1.flo", *names)
    with pytest.raises(ValueError, match=message):
        listed(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_list_of_pairs_comes_before_the_folders(tmp_path, end, mark):
    place(tmp_path, "images/1.png", "images/2.png", "flow/1.flo", "#1.png")
    lines = ["# first second flow", "b.png a.png x/1.flo", "", "'two words.png' a.png 2.flo", "c d.png\te.png\t3.flo"]
    (tmp_path / "pairs.txt").write_bytes((mark + end.join([*lines, "#1.png a.png 4.flo", "#", "# don't"])).encode())
    pairs = listed(tmp_path)
    assert [(pair.first, pair.second, pair.flow) for pair in pairs] == [
        ("b.png", "a.png", "x/1.flo"),
        ("two words.png", "a.png", "2.flo"),
        ("c d.png", "e.png", "3.flo"),
        ("#1.png", "a.png", "4.flo"),
    ]
    assert [(pair.name, pair.sequence) for pair in pairs] == [("x/1", "x"), ("2", ""), ("3", ""), ("4", "")]


def test_a_list_may_have_another_name_and_absolute_paths(tmp_path, pair):
    files = [str(pair.root / name) for name in ("a.png", "b.png", "f.flo")]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/val.tsv").write_text("\t".join(files))
    dataset = build_flow_dataset("folder", tmp_path, pairs="lists/val.tsv")
    assert dataset.missing() == []
    np.testing.assert_array_equal(dataset[0].flow, pair[0].flow)


@pytest.mark.parametrize("line", ["a.png b.png", "a.png b.png c.flo d", "a.png 'b.png c.flo", "a.png\tb.png"])
def test_a_line_that_is_no_pair_is_named(tmp_path, line):
    (tmp_path / "pairs.txt").write_text(f"a.png b.png c.flo\n{line}\n")
    with pytest.raises(ValueError, match=r"pairs.txt, line 2"):
        listed(tmp_path)


def test_a_folder_without_flow_says_what_was_looked_for(tmp_path):
    place(tmp_path, "images/1.png")
    with pytest.raises(
        FileNotFoundError, match=r"no pair in .*; looked for images/\*\*/NAME.png and flow/\*\*/NAME.flo"
    ):
        listed(tmp_path)
