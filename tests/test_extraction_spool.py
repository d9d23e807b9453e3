"""Arrays on disk: what is written can be read by others, appears whole or not at all, and leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from midway_hub.extraction import StorageError, read_metadata
from midway_hub.extraction.spool import FORMATS, Spool, remove_leftovers

METADATA = {"kind": "features", "note": "größer"}


def arrays(rows: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "half": random.normal(size=(rows, 3)).astype(np.float16),
        "last": random.normal(size=(rows, 4, 2, 5)).astype(np.float32),
        "timestamps": random.normal(size=rows),
        "frame_indices": np.arange(rows),
    }


def write(path: Path, format: str, values: dict[str, np.ndarray], step: int = 3) -> None:
    with Spool(path.parent) as spool:
        for start in range(0, len(values["half"]), step):
            for name, value in values.items():
                spool.append(name, value[start : start + step])
        spool.save(path, METADATA, format)


def read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files if name != "metadata"}
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_appended_is_read_back_by_the_formats_own_library(tmp_path, format):
    path = tmp_path / f"out.{format}"
    write(path, format, arrays(7))
    found = read(path)
    assert found.keys() == arrays(7).keys()
    for name, value in arrays(7).items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("format", FORMATS)
def test_metadata_are_read_back_without_the_arrays(tmp_path, format):
    path = tmp_path / f"out.{format}"
    write(path, format, arrays(2))
    assert read_metadata(path) == METADATA


def test_safetensors_metadata_are_seen_by_the_library(tmp_path):
    write(tmp_path / "out.safetensors", "safetensors", arrays(2))
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        assert file.metadata() == METADATA


def test_every_array_of_a_safetensors_file_is_aligned_to_its_numbers(tmp_path):
    write(tmp_path / "out.safetensors", "safetensors", arrays(3))
    header_bytes = int.from_bytes((tmp_path / "out.safetensors").read_bytes()[:8], "little")
    assert header_bytes % 8 == 0
    with safe_open(tmp_path / "out.safetensors", framework="numpy") as file:
        order = [file.get_slice(name).get_dtype() for name in file.offset_keys()]
    assert order == ["I64", "F64", "F32", "F16"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_arrays_give_the_same_bytes(tmp_path, format):
    write(tmp_path / f"a.{format}", format, arrays(7), step=1)
    write(tmp_path / f"b.{format}", format, arrays(7), step=7)
    assert (tmp_path / f"a.{format}").read_bytes() == (tmp_path / f"b.{format}").read_bytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_file_that_is_cut_short_is_noticed_from_its_ends_alone(tmp_path, format, kept):
    path = tmp_path / f"out.{format}"
    write(path, format, arrays(7))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"truncated|not a safetensors file"):
        read_metadata(path)


def test_nothing_but_the_output_is_left_in_the_folder(tmp_path):
    write(tmp_path / "out.npz", "npz", arrays(2))
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_an_error_half_way_leaves_neither_a_file_nor_a_temporary_folder(tmp_path):
    def stumble() -> None:
        with Spool(tmp_path) as spool:
            spool.append("last", np.zeros((2, 3)))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        stumble()
    assert list(tmp_path.iterdir()) == []


def test_rows_of_another_shape_or_type_are_refused(tmp_path):
    with Spool(tmp_path) as spool:
        spool.append("last", np.zeros((2, 3), np.float32))
        with pytest.raises(ValueError, match=r"last began with rows \(3,\) float32, now got \(4,\) float32"):
            spool.append("last", np.zeros((2, 4), np.float32))
        with pytest.raises(ValueError, match=r"now got .* float64"):
            spool.append("last", np.zeros((2, 3)))


def test_saving_nothing_is_refused(tmp_path):
    with Spool(tmp_path) as spool, pytest.raises(ValueError, match="nothing to save"):
        spool.save(tmp_path / "out.npz", {}, "npz")


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from midway_hub.extraction import StorageError
from midway_hub.extraction.spool import Spool
folder, format, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with Spool(folder) as spool:
        for name in ("a", "b", "c"):
            spool.append(name, np.zeros((100, 1000)))
        spool.save(folder / f"out.{format}", {}, format)
except StorageError as error:
    print(error)
"""


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("limit", [500_000, 1_000_000])
def test_where_no_more_can_be_written_the_error_says_what_to_do_and_nothing_half_is_left(tmp_path, format, limit):
    # A limit on the size of files stands for a full disk: the first stops the spool, the second the assembled file.
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), format, str(limit)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"could not write to {tmp_path}: File too large" in said
    assert "Finished files are whole; make room" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"could not write to .*gone"), Spool(tmp_path / "gone"):
        pass


LEAVE = """
import os, sys
from pathlib import Path
import numpy as np
from midway_hub.extraction.spool import Spool
spool = Spool(Path(sys.argv[1])).__enter__()
spool.append("last", np.zeros((2, 3)))
print("ready", flush=True)
if sys.argv[2] == "die":
    os._exit(9)
sys.stdin.read()
"""


def test_leftovers_of_a_dead_process_are_removed(tmp_path):
    subprocess.run([sys.executable, "-c", LEAVE, str(tmp_path), "die"], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_spool_of_a_live_process_is_left_alone(tmp_path):
    command = [sys.executable, "-c", LEAVE, str(tmp_path), "stay"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other, Spool(tmp_path):
        assert other.stdout.readline() == b"ready\n"
        remove_leftovers(tmp_path)
        left = sorted(tmp_path.iterdir())
        other.stdin.close()
    assert len(left) == 2
    assert {str(other.pid), str(os.getpid())} == {path.name.split("-")[-3] for path in left}


def test_leftovers_of_an_earlier_process_with_this_processs_number_are_removed(tmp_path):
    with Spool(tmp_path):
        (mine,) = tmp_path.iterdir()
        earlier = mine.name.rsplit("-", 2)[0] + "-00000000-abc"
        (tmp_path / earlier).mkdir()
        remove_leftovers(tmp_path)
        assert list(tmp_path.iterdir()) == [mine]


def test_leftovers_of_another_host_stay_and_are_mentioned(tmp_path, caplog):
    other = tmp_path / ".midway-hub-far.away-1-00000000-abc"
    other.mkdir()
    with caplog.at_level("WARNING", logger="midway_hub"):
        remove_leftovers(tmp_path)
    assert other.is_dir()
    assert "belongs to a process on far.away" in caplog.text
