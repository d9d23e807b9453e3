import csv
import io
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_bytes import RGB, write_png
from PIL import Image

from midway_hub.flow_io import FLOW_SUFFIXES, FlowFileError, read_flow, write_flow

EXACT = [suffix for suffix in FLOW_SUFFIXES if suffix != ".png"]
HEIGHT, WIDTH = 7, 5


@pytest.fixture(autouse=True)
def _h5py(request):
    if "flo5" in request.node.name and "without" not in request.node.name:
        pytest.importorskip("h5py")


@pytest.fixture
def flow():
    """Flow of every magnitude, in steps of 1/64 pixel."""
    return (np.random.default_rng(0).integers(-32768, 32768, (HEIGHT, WIDTH, 2)) / 64).astype(np.float32)


@pytest.fixture
def valid():
    return np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.7


def kitti_raw(flow, valid):
    """KITTI's numbers by its own formula, (H, W, 3) uint16, red first."""
    steps = flow.astype(np.float64) * 64 + 32768
    return np.concatenate([steps * valid[..., None], valid[..., None]], axis=2).astype(np.uint16)


# -- what is written is what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FLOW_SUFFIXES)
def test_flow_and_what_is_known_come_back_to_the_bit(tmp_path, flow, valid, suffix):
    write_flow(tmp_path / f"flow{suffix}", flow, valid)
    field = read_flow(tmp_path / f"flow{suffix}")
    assert field.flow.dtype == np.float32
    assert field.valid.dtype == bool
    assert (field.valid == valid).all()
    assert field.flow.tobytes() == np.where(valid[..., None], flow, np.float32(0)).tobytes()


@pytest.mark.parametrize("suffix", EXACT)
def test_every_bit_of_a_float_is_kept(tmp_path, suffix):
    odd = np.array([1e-45, -0.0, 1 / 3, -1e8, np.nextafter(np.float32(1), np.float32(2)), 7.7e7], dtype=np.float32)
    write_flow(tmp_path / f"odd{suffix}", odd.reshape(1, 3, 2))
    assert read_flow(tmp_path / f"odd{suffix}").flow.tobytes() == odd.tobytes()


def test_every_number_that_kittis_png_can_hold_comes_back(tmp_path):
    steps = np.arange(65536).reshape(256, 256)
    flow = (np.stack([steps, steps[::-1]], axis=-1) - 32768) / 64
    write_flow(tmp_path / "all.png", flow)
    assert (read_flow(tmp_path / "all.png").flow == flow).all()


@pytest.mark.parametrize("suffix", FLOW_SUFFIXES)
def test_numbers_that_are_not_finite_are_not_known(tmp_path, flow, suffix):
    flow[0, 0, 0], flow[1, 2, 1], flow[3, 3] = np.nan, np.inf, -np.inf
    write_flow(tmp_path / f"flow{suffix}", flow, np.ones((HEIGHT, WIDTH)))
    field = read_flow(tmp_path / f"flow{suffix}")
    assert np.argwhere(~field.valid).tolist() == [[0, 0], [1, 2], [3, 3]]
    assert (field.flow[~field.valid] == 0).all()


def test_endings_may_be_in_capitals(tmp_path, flow):
    write_flow(tmp_path / "FLOW.FLO", flow)
    assert (read_flow(str(tmp_path / "FLOW.FLO")).flow == flow).all()


# -- the forms, byte by byte ---------------------------------------------------------------------------------------


def test_a_flo_is_magic_sizes_and_interleaved_little_endian_floats(tmp_path, flow):
    write_flow(tmp_path / "a.flo", flow)
    expected = struct.pack("<fii", 202021.25, WIDTH, HEIGHT) + struct.pack(f"<{flow.size}f", *flow.ravel().tolist())
    assert (tmp_path / "a.flo").read_bytes() == expected


def test_a_flo_above_a_thousand_million_pixels_is_unknown(tmp_path):
    data = struct.pack("<4sii4f", b"PIEH", 2, 1, 1.5, -2.5, 1666666752.0, 0.0)
    (tmp_path / "a.flo").write_bytes(data)
    field = read_flow(tmp_path / "a.flo")
    assert field.valid.tolist() == [[True, False]]
    assert field.flow.tolist() == [[[1.5, -2.5], [0.0, 0.0]]]


@pytest.mark.parametrize(("order", "scale"), [("<", "-1.0"), (">", "1.0"), (">", "0.5")])
def test_a_pfm_is_read_from_the_bottom_up_in_either_byte_order(tmp_path, order, scale):
    values = range(2 * 3 * 3)
    data = f"PF\n3 2\n{scale}\n".encode() + struct.pack(f"{order}18f", *values)
    (tmp_path / "a.pfm").write_bytes(data)
    flow = read_flow(tmp_path / "a.pfm").flow
    assert flow[1].tolist() == [[0, 1], [3, 4], [6, 7]]
    assert flow[0].tolist() == [[9, 10], [12, 13], [15, 16]]


def test_a_pfm_is_written_with_a_third_channel_of_zeros(tmp_path, flow):
    write_flow(tmp_path / "a.pfm", flow)
    header, body = (tmp_path / "a.pfm").read_bytes().split(b"-1\n", 1)
    assert header == f"PF\n{WIDTH} {HEIGHT}\n".encode()
    rows = np.frombuffer(body, "<f4").reshape(HEIGHT, WIDTH, 3)
    assert (rows[::-1, :, :2] == flow).all()
    assert (rows[..., 2] == 0).all()


def test_a_pfm_whose_first_floats_look_like_white_space_is_read_whole(tmp_path):
    spaces = np.frombuffer(b"\n \n\n" * 6, "<f4").reshape(1, 2, 3)
    (tmp_path / "a.pfm").write_bytes(b"PF\n2 1\n-1\n" + spaces.tobytes())
    assert (read_flow(tmp_path / "a.pfm").flow == spaces[..., :2]).all()


def test_a_flo5_is_hdf5_with_one_data_set_and_nan_where_unknown(tmp_path, flow, valid):
    import h5py

    write_flow(tmp_path / "a.flo5", flow, valid)
    with h5py.File(tmp_path / "a.flo5") as file:
        assert list(file) == ["flow"]
        assert file["flow"].compression_opts == 5
        stored = file["flow"][()]
    assert (np.isnan(stored).all(axis=2) == ~valid).all()
    assert (stored[valid] == flow[valid]).all()


def test_tartanairs_npy_and_vipers_half_precision_npz_are_read(tmp_path, flow):
    np.save(tmp_path / "tartan.npy", flow)
    assert (read_flow(tmp_path / "tartan.npy").flow == flow).all()
    half = flow.astype(np.float16)
    half[2, 1, 0] = np.nan
    np.savez_compressed(tmp_path / "viper.npz", u=half[..., 0], v=half[..., 1])
    field = read_flow(tmp_path / "viper.npz")
    assert np.argwhere(~field.valid).tolist() == [[2, 1]]
    assert (field.flow[field.valid] == half.astype(np.float32)[field.valid]).all()


def test_an_npz_may_hold_flow_and_valid(tmp_path, flow, valid):
    np.savez(tmp_path / "a.npz", flow=flow.astype(np.float64), valid=valid.astype(np.uint8))
    field = read_flow(tmp_path / "a.npz")
    assert (field.valid == valid).all()
    assert (field.flow[valid] == flow[valid]).all()


def read_by_opencv(path):
    """OpenCV's reading, in a process of its own: decord's libraries, once loaded, break that of 16-bit pictures."""
    pytest.importorskip("cv2")
    program = "import cv2, numpy, sys; numpy.save(sys.argv[2], cv2.imread(sys.argv[1], cv2.IMREAD_UNCHANGED))"
    subprocess.run([sys.executable, "-c", program, str(path), str(path.with_suffix(".npy"))], check=True)
    return np.load(path.with_suffix(".npy"))


def test_kitti_rounds_to_a_64th_and_writes_zeros_where_unknown(tmp_path, valid):
    flow = np.random.default_rng(3).uniform(-500, 500, (HEIGHT, WIDTH, 2))
    write_flow(tmp_path / "a.png", flow, valid)
    raw = read_by_opencv(tmp_path / "a.png")[..., ::-1]
    assert (raw[~valid] == 0).all()
    assert (raw[valid][:, 2] == 1).all()
    assert np.abs(read_flow(tmp_path / "a.png").flow - flow)[valid].max() <= 1 / 128


@pytest.mark.parametrize("clear", [(1, 2, 3), (0, 0, 0), None])
def test_a_transparent_colour_of_kittis_png_is_a_number_like_all(tmp_path, clear):
    raw = np.random.default_rng(4).integers(0, 2**16, (HEIGHT, WIDTH, 3))
    raw[..., 2] = raw[..., 2] > 2**15
    plain = read_flow(write_png(tmp_path / "a.png", raw, 16, RGB))
    named = struct.pack(">HHH", *(clear or raw[2, 1].tolist()))
    found = read_flow(write_png(tmp_path / "b.png", raw, 16, RGB, chunks=[(b"tRNS", named)]))
    np.testing.assert_array_equal(found.flow, plain.flow)
    np.testing.assert_array_equal(found.valid, plain.valid)


# -- others agree --------------------------------------------------------------------------------------------------


def test_opencv_writes_what_we_read(tmp_path, flow, valid):
    cv2 = pytest.importorskip("cv2")
    assert cv2.imwrite(str(tmp_path / "theirs.png"), kitti_raw(flow, valid)[..., ::-1])
    field = read_flow(tmp_path / "theirs.png")
    assert (field.valid == valid).all()
    assert (field.flow[valid] == flow[valid]).all()


def test_torchvision_reads_what_we_write(tmp_path, flow, valid):
    readers = pytest.importorskip("torchvision.datasets._optical_flow")
    for suffix, read in ((".flo", readers._read_flo), (".pfm", readers._read_pfm)):
        write_flow(tmp_path / f"a{suffix}", flow)
        assert (read(str(tmp_path / f"a{suffix}")).transpose(1, 2, 0) == flow).all()
    write_flow(tmp_path / "a.png", flow, valid)
    theirs, known = readers._read_16bits_png_with_flow_and_valid_mask(str(tmp_path / "a.png"))
    assert (known == valid).all()
    assert (theirs.transpose(1, 2, 0)[valid] == flow[valid]).all()


def test_real_files_have_the_sizes_that_their_manifest_states(shared):
    listed = []
    with (shared / "data" / "MANIFEST.tsv").open(newline="") as manifest:
        for row in csv.DictReader(manifest, delimiter="\t"):
            path = shared / "data" / row["file"]
            if row["kind"] == "flow" and ("flow." in path.name or "derived" in path.name):
                listed.append(path.name)
                assert read_flow(path).valid.shape == (int(row["height"]), int(row["width"])), path
    assert len(listed) == 7


def test_real_files_of_the_same_flow_agree(shared):
    folder = shared / "data" / "flow" / "chairs_0"
    dense = read_flow(folder / "00001_flow.flo")
    sparse = read_flow(folder / "derived_kitti_sparse.png")
    assert dense.valid.all()
    assert 0.15 < sparse.valid.mean() < 0.25
    assert np.abs(sparse.flow - dense.flow)[sparse.valid].max() <= 1 / 128
    assert (read_flow(folder / "derived_tophalf.pfm").flow == dense.flow[:192]).all()


def test_torchvision_reads_the_real_files_alike(shared):
    readers = pytest.importorskip("torchvision.datasets._optical_flow")
    folder = shared / "data" / "flow"
    flo, png = folder / "chairs_1" / "00002_flow.flo", folder / "mmflow_sparse_flow.png"
    assert (readers._read_flo(str(flo)).transpose(1, 2, 0) == read_flow(flo).flow).all()
    theirs, known = readers._read_16bits_png_with_flow_and_valid_mask(str(png))
    ours = read_flow(png)
    assert (ours.valid == known).all()
    assert (ours.flow == theirs.transpose(1, 2, 0) * known[..., None]).all()


# -- what is wrong is said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FLOW_SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.97])
def test_a_file_cut_short_is_refused_by_name(tmp_path, flow, suffix, share):
    path = tmp_path / f"flow{suffix}"
    write_flow(path, flow)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(FlowFileError, match=f"flow\\{suffix}: "):
        read_flow(path)


@pytest.mark.parametrize("suffix", FLOW_SUFFIXES)
def test_a_file_of_another_kind_is_refused(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"GIF89a, or anything else that is no flow" * 8)
    with pytest.raises(FlowFileError, match=r"no \.|no PNG|no HDF5"):
        read_flow(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".flo", ".pfm"])
def test_bytes_too_many_are_refused(tmp_path, flow, suffix):
    path = tmp_path / f"a{suffix}"
    write_flow(path, flow)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(FlowFileError, match="bytes, it has"):
        read_flow(path)


def test_a_damaged_png_is_refused(tmp_path, flow):
    write_flow(tmp_path / "a.png", flow)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[data.index(b"IDAT") + 40] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(FlowFileError, match="damaged"):
        read_flow(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("mode", "seen"), [("RGB", "8 bit RGB"), ("RGBA", "8 bit RGB and alpha"), ("I;16", "16 bit grey")]
)
def test_pngs_of_other_depths_and_colours_are_refused(tmp_path, mode, seen):
    Image.new(mode, (4, 3)).save(tmp_path / "picture.png")
    with pytest.raises(FlowFileError, match=f"PNG of {seen}; KITTI's flow is 16 bit RGB"):
        read_flow(tmp_path / "picture.png")


@pytest.mark.parametrize("size", [(0, 3), (-1, 3), (3, 2**30)])
def test_impossible_sizes_in_a_flo_are_refused(tmp_path, size):
    (tmp_path / "a.flo").write_bytes(struct.pack("<4sii", b"PIEH", *size) + b"\0" * 72)
    with pytest.raises(FlowFileError, match="pixels"):
        read_flow(tmp_path / "a.flo")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Pf\n2 1\n-1\n" + bytes(8), "one channel"),
        (b"PF\n2 1\n0\n" + bytes(24), "byte order"),
        (b"PF\n2 1\n1-\n" + bytes(24), "byte order"),
    ],
)
def test_other_float_maps_are_refused(tmp_path, data, message):
    (tmp_path / "a.pfm").write_bytes(data)
    with pytest.raises(FlowFileError, match=message):
        read_flow(tmp_path / "a.pfm")


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def test_a_pickle_in_an_npy_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare.npy").write_bytes(pickle.dumps(Harmful()))
    np.save(tmp_path / "objects.npy", np.array([Harmful()], dtype=object))
    for name in ("bare.npy", "objects.npy"):
        with pytest.raises(FlowFileError, match=r"no \.npy"):
            read_flow(tmp_path / name)
    assert not (tmp_path / "harm").exists()


def test_arrays_without_flow_are_refused_by_what_they_hold(tmp_path):
    np.savez(tmp_path / "a.npz", depth=np.zeros((3, 4)))
    with pytest.raises(FlowFileError, match="neither u and v nor flow; there are: depth"):
        read_flow(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", u=np.zeros((3, 4)), v=np.zeros((4, 3)))
    with pytest.raises(FlowFileError, match="wanted the same"):
        read_flow(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", flow=np.zeros((3, 4, 2)), valid=np.ones((4, 3)))
    with pytest.raises(FlowFileError, match="wanted that of the flow"):
        read_flow(tmp_path / "c.npz")


def test_an_archive_is_no_single_array(tmp_path, flow):
    np.savez(tmp_path / "a.npz", flow=flow)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    with pytest.raises(FlowFileError, match=r"no \.npy"):
        read_flow(tmp_path / "a.npy")
    file = io.BytesIO()
    np.save(file, flow)
    (tmp_path / "b.npz").write_bytes(file.getvalue())
    with pytest.raises(FlowFileError, match="a single array"):
        read_flow(tmp_path / "b.npz")


def test_a_flo5_without_flow_names_what_it_holds(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.flo5", "w") as file:
        file["disparity"] = np.zeros((3, 4))
    with pytest.raises(FlowFileError, match="no data set 'flow'; there are: disparity"):
        read_flow(tmp_path / "a.flo5")


def test_without_h5py_flo5_says_what_to_install(tmp_path, monkeypatch, flow):
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "a.flo5").write_bytes(b"")
    for use in (lambda: read_flow(tmp_path / "a.flo5"), lambda: write_flow(tmp_path / "b.flo5", flow)):
        with pytest.raises(ImportError, match="pip install h5py"):
            use()
    assert not (tmp_path / "b.flo5").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((2, 7, 5)), "got .2, 7, 5.; move its channels to the end"),
        (np.zeros((7, 5)), "must have shape"),
        (np.zeros((0, 5, 2)), "must have shape"),
        (np.zeros((7, 5, 2), dtype=complex), "real numbers"),
    ],
)
def test_arrays_that_are_no_flow_are_refused(tmp_path, wrong, message):
    with pytest.raises(FlowFileError, match=message):
        write_flow(tmp_path / "a.flo", wrong)
    assert not (tmp_path / "a.flo").exists()


def test_a_mask_of_another_size_is_refused(tmp_path, flow):
    with pytest.raises(FlowFileError, match="wanted that of the flow"):
        write_flow(tmp_path / "a.flo", flow, np.ones((WIDTH, HEIGHT)))


@pytest.mark.parametrize("value", [-512.01, 511.993, 4000])
def test_flow_that_kittis_png_cannot_hold_is_refused(tmp_path, flow, value):
    flow[2, 2, 1] = value
    with pytest.raises(FlowFileError, match=r"from -512 to 511\.984 pixels"):
        write_flow(tmp_path / "a.png", flow)
    valid = np.ones((HEIGHT, WIDTH), dtype=bool)
    valid[2, 2] = False
    write_flow(tmp_path / "a.png", flow, valid)
    assert (read_flow(tmp_path / "a.png").valid == valid).all()


def test_flow_that_a_flo_would_call_unknown_is_refused(tmp_path, flow):
    flow[0, 0, 0] = 2e9
    with pytest.raises(FlowFileError, match="for unknown"):
        write_flow(tmp_path / "a.flo", flow)


@pytest.mark.parametrize("name", ["flow.exr", "flow", "flow.png.txt"])
def test_unknown_endings_are_refused_and_the_known_ones_named(tmp_path, flow, name):
    for use in (lambda: read_flow(tmp_path / name), lambda: write_flow(tmp_path / name, flow)):
        with pytest.raises(FlowFileError, match=r"known: \.flo \.pfm"):
            use()


def test_a_missing_file_is_just_that(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_flow(tmp_path / "nothing.flo")


def test_a_missing_folder_is_named(tmp_path, flow):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to write a\.flo into"):
        write_flow(tmp_path / "nowhere" / "a.flo", flow)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, flow, monkeypatch):
    path = tmp_path / "a.flo"
    write_flow(path, flow)

    def full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_flow(path, flow * 2)
    assert [file.name for file in tmp_path.iterdir()] == ["a.flo"]
    assert (read_flow(path).flow == flow).all()
