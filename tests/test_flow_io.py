import csv
import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_bytes import RGB, write_png
from PIL import Image

from midway_hub._regular import IrregularFileError
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
        with pytest.raises(ImportError, match=r"pip install 'midway-hub\[flow\]'"):
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


# -- more is announced than is there -------------------------------------------------------------------------------

TERABYTES = (10**6, 10**6, 2)


def npy_header(shape, *, descr="<f4", columns=False):
    file = io.BytesIO()
    np.lib.format.write_array_header_2_0(file, {"descr": descr, "fortran_order": columns, "shape": shape})
    return file.getvalue()


def npz_of(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


@pytest.mark.parametrize("shape", [TERABYTES, (3, 4, 2), (2**40, 2), (2**62, 2**62, 2), (-1, 4, 2)])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_arrays_larger_than_their_file_are_refused_by_the_header(tmp_path, shape, suffix):
    data = npy_header(shape) + bytes(40)
    (tmp_path / f"a{suffix}").write_bytes(data if suffix == ".npy" else npz_of(flow=data))
    with pytest.raises(FlowFileError, match=rf"a\{suffix}: no|its header (announces|says|cannot)"):
        read_flow(tmp_path / f"a{suffix}")


def test_flow_and_masks_of_an_archive_are_each_held_against_what_it_holds(tmp_path, flow):
    parts = io.BytesIO()
    np.save(parts, flow[..., 0])
    for name, members in {
        "v": {"u": parts.getvalue(), "v": npy_header((10**7, 10**7))},
        "valid": {"u": parts.getvalue(), "v": parts.getvalue(), "valid": npy_header((10**7, 10**7), descr="|b1")},
    }.items():
        (tmp_path / "a.npz").write_bytes(npz_of(**members))
        with pytest.raises(FlowFileError, match=rf"its member {name}\.npy .* its header announces"):
            read_flow(tmp_path / "a.npz")


def test_what_is_not_flow_in_an_archive_is_not_read(tmp_path, flow):
    parts = io.BytesIO()
    np.save(parts, flow)
    (tmp_path / "a.npz").write_bytes(npz_of(flow=parts.getvalue(), other=npy_header(TERABYTES)))
    assert (read_flow(tmp_path / "a.npz").flow == flow).all()


@pytest.mark.parametrize("data", [b"no array", b"", b"\x93NUMPY\x03\0", b"\x93NUMPY\x02\0\xff\xff\xff\xff{"])
def test_members_that_are_no_arrays_are_named(tmp_path, data):
    (tmp_path / "a.npz").write_bytes(npz_of(flow=data))
    with pytest.raises(FlowFileError, match=r"its member flow\.npy is no array"):
        read_flow(tmp_path / "a.npz")


@pytest.mark.parametrize("member", ["flow", "u", "valid"])
def test_members_of_objects_are_named_and_not_run(tmp_path, monkeypatch, flow, member):
    monkeypatch.chdir(tmp_path)
    arrays = {"flow": flow} if member != "u" else {"v": flow[..., 0]}
    np.savez("a.npz", **{**arrays, member: np.array([Harmful()], dtype=object)})
    with pytest.raises(FlowFileError, match=rf"its member {member}\.npy .*Python objects"):
        read_flow("a.npz")
    assert not Path("harm").exists()


@pytest.mark.parametrize("kind", ["<c8", "<U4", "<M8[s]"])
def test_members_of_other_types_are_refused(tmp_path, kind):
    np.savez(tmp_path / "a.npz", flow=np.zeros((3, 4, 2), dtype=kind))
    with pytest.raises(FlowFileError, match=r"flow\.npy .*wanted real numbers"):
        read_flow(tmp_path / "a.npz")


@pytest.mark.parametrize("member", ["flow", "u", "v"])
def test_encrypted_archives_are_refused_in_a_sentence(tmp_path, flow, member):
    parts = io.BytesIO()
    np.save(parts, flow)
    data = bytearray(npz_of(**{name: parts.getvalue() for name in ({"u", "v"} if member != "flow" else {"flow"})}))
    name = f"{member}.npy".encode()
    data[data.index(name) - 24] |= 1  # the local header's flags
    data[data.rindex(name) - 38] |= 1  # and those of the directory
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(FlowFileError, match=rf"its member {member}\.npy is encrypted; write the file again without"):
        read_flow(tmp_path / "a.npz")


@pytest.mark.parametrize("columns", [False, True])
def test_an_array_stored_column_by_column_or_big_endian_is_read(tmp_path, flow, columns):
    np.save(tmp_path / "a.npy", np.asfortranarray(flow) if columns else flow.astype(">f8"))
    assert (read_flow(tmp_path / "a.npy").flow == flow).all()


def test_a_member_whose_checksum_is_wrong_is_refused(tmp_path, flow):
    np.savez(tmp_path / "a.npz", flow=flow)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(flow.tobytes()) + 20] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(FlowFileError, match="CRC"):
        read_flow(tmp_path / "a.npz")


def flo5_with(path, make):
    import h5py

    with h5py.File(path, "w") as file:
        make(h5py, file)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"shape": TERABYTES},
        {"shape": TERABYTES, "chunks": (100, 100, 2), "compression": "gzip"},
        {"shape": (300, 100, 2), "chunks": (100, 100, 2)},
        {"shape": (3, 4, 2)},
    ],
)
def test_a_flo5_that_announces_what_was_never_written_is_refused(tmp_path, options):
    path = flo5_with(tmp_path / "a.flo5", lambda _, file: file.create_dataset("flow", dtype="f4", **options))
    with pytest.raises(FlowFileError, match="announces an array"):
        read_flow(path)


def test_a_flo5_of_which_a_part_was_never_written_is_refused(tmp_path):
    def make(_, file):
        made = file.create_dataset("flow", (300, 100, 2), "f4", chunks=(100, 100, 2), compression="gzip")
        made[:200] = 1.5

    with pytest.raises(FlowFileError, match="holds 2 of 3 parts; it was cut short"):
        read_flow(flo5_with(tmp_path / "a.flo5", make))


@pytest.mark.parametrize(
    ("link", "message"),
    [
        (lambda h5py, file: h5py.SoftLink("/nowhere"), "is a link to '/nowhere', which this file does not hold"),
        (lambda h5py, file: h5py.SoftLink("/flow"), "is a link to '/flow'"),
        (lambda h5py, file: h5py.ExternalLink("other.h5", "/flow"), "link to '/flow' of another file, other.h5; give"),
        (lambda h5py, file: file.create_group("group"), "no data set of numbers"),
        (lambda h5py, file: h5py.Empty("f4"), "no data set of numbers"),
        (lambda h5py, file: 3.0, "no data set of numbers"),
        (lambda h5py, file: np.zeros((2, 3, 2), dtype="S3"), "wanted real numbers"),
    ],
)
def test_a_flo5_whose_flow_is_elsewhere_or_none_is_refused_in_a_sentence(tmp_path, link, message):
    flo5_with(tmp_path / "other.h5", lambda _, file: file.create_dataset("flow", data=np.zeros((3, 4, 2))))
    path = flo5_with(tmp_path / "a.flo5", lambda h5py, file: file.update({"flow": link(h5py, file)}))
    with pytest.raises(FlowFileError, match=message):
        read_flow(path)


def test_a_flo5_never_reads_numbers_out_of_other_files(tmp_path):
    (tmp_path / "raw.bin").write_bytes(bytes(96))

    def external(_, file):
        file.create_dataset("flow", (3, 4, 2), "f4", external=[(str(tmp_path / "raw.bin"), 0, 96)])

    def virtual(h5py, file):
        layout = h5py.VirtualLayout((3, 4, 2), "f4")
        layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "flow", shape=(3, 4, 2))
        file.create_virtual_dataset("flow", layout)

    flo5_with(tmp_path / "other.h5", lambda _, file: file.create_dataset("flow", data=np.zeros((3, 4, 2), "f4")))
    for make in (external, virtual):
        with pytest.raises(FlowFileError, match="lie in other files"):
            read_flow(flo5_with(tmp_path / "a.flo5", make))


def test_a_flo5_may_link_to_its_own_numbers(tmp_path, flow):
    def make(h5py, file):
        file["data/forward"] = flow
        file["flow"] = h5py.SoftLink("/data/forward")

    assert (read_flow(flo5_with(tmp_path / "a.flo5", make)).flow == flow).all()


def with_png_size(data, width, height):
    """The PNG with another size in its header, whose checksum fits."""
    data = bytearray(data)
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (WIDTH, HEIGHT + 1),
        (WIDTH, HEIGHT - 1),
        (WIDTH + 1, HEIGHT),
        (WIDTH - 1, HEIGHT),
        (WIDTH, 60_000),
        (2**20, 2**20),
    ],
)
def test_a_png_of_other_rows_than_its_header_announces_is_refused(tmp_path, flow, width, height):
    write_flow(tmp_path / "a.png", flow)
    (tmp_path / "a.png").write_bytes(with_png_size((tmp_path / "a.png").read_bytes(), width, height))
    with pytest.raises(FlowFileError, match=rf"announces {height}×{width} pixels .* and it holds .* bytes of them"):
        read_flow(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(7, 5), (1, 1), (3, 9), (8, 8)])
def test_an_interlaced_png_is_read_and_counted_alike(tmp_path, size):
    raw = np.random.default_rng(4).integers(0, 2**16, (*size, 3), dtype=np.uint16)
    raw[..., 2] = 1
    (tmp_path / "a.png").write_bytes(interlaced_png(raw))
    assert (read_flow(tmp_path / "a.png").flow == (raw[..., :2].astype(np.float32) - 32768) / 64).all()
    (tmp_path / "b.png").write_bytes(with_png_size(interlaced_png(raw), size[1], size[0] + 1))
    with pytest.raises(FlowFileError, match="announces"):
        read_flow(tmp_path / "b.png")


def interlaced_png(raw):
    """A 16-bit RGB PNG in Adam7's passes, none of them filtered."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [raw[y::down, x::across].astype(">u2") for x, y, across, down in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    header = struct.pack(">IIBBBBB", raw.shape[1], raw.shape[0], 16, 2, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    made = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (10**6, 10**6)])
def test_a_flo_or_pfm_of_terabytes_is_refused_by_its_header(tmp_path, size):
    (tmp_path / "a.flo").write_bytes(struct.pack("<4sii", b"PIEH", *size) + bytes(72))
    (tmp_path / "a.pfm").write_bytes(b"PF\n%d %d\n-1\n" % (size[0] % 10**9, 10**8) + bytes(72))
    for name in ("a.flo", "a.pfm"):
        with pytest.raises(FlowFileError, match=r"bytes, it has|no \.pfm"):
            read_flow(tmp_path / name)


@pytest.mark.parametrize(
    "header",
    [
        b"PF\n2 1\n-1.0 # of the left camera\n",
        b"PF\n2 1\n-1.0\n# of the left camera\n# and of day 2\n",
        b"PF\n# written by hand\n2 1\n-1.0\n",
        b"PF\r\n2 1\r\n-1.0\r\n",
        b"PF 2 1 -1.0 ",
        b"PF #w h\n2 # width\n1\n-1.0 \n",
    ],
)
@pytest.mark.parametrize("first", [b"# no\n", b"\n\n\n\n", b"-1.0", b"\0\0\x80?"])
def test_a_pfm_may_have_comments_and_its_numbers_may_look_like_one(tmp_path, header, first):
    numbers = np.frombuffer((first + bytes(4))[:4] + np.arange(5, dtype="<f4").tobytes(), "<f4").reshape(1, 2, 3)
    (tmp_path / "a.pfm").write_bytes(header + numbers.tobytes())
    assert (read_flow(tmp_path / "a.pfm").flow == numbers[..., :2]).all()


@pytest.mark.parametrize("header", [b"PF\n2 1\n-1.0 left camera\n", b"PF\n2 1\n-1.0\n# without end", b"PF\n2 1\n-1.0"])
def test_a_pfm_with_something_else_before_its_numbers_is_refused(tmp_path, header):
    (tmp_path / "a.pfm").write_bytes(header + bytes(24))
    with pytest.raises(FlowFileError, match="bytes, it has"):
        read_flow(tmp_path / "a.pfm")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("suffix", FLOW_SUFFIXES)
def test_a_pipe_is_refused_at_once(tmp_path, suffix):
    os.mkfifo(tmp_path / f"a{suffix}")
    with pytest.raises(IrregularFileError, match="wanted a regular file"):
        read_flow(tmp_path / f"a{suffix}")
