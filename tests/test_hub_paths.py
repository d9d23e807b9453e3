"""Checkpoints on the user's own disk, and what a safetensors file says of itself."""

import json
import os
import re
import struct
from pathlib import Path

import pytest
from hub_files import CONFIG, TINY, WEIGHTS, safetensors_bytes, sharded, write

from midway_hub.hub import CorruptWeightsError, check_safetensors, resolve
from midway_hub.hub.weight_files import read_header

# -- safetensors files ----------------------------------------------------------------------------------------------


def test_a_whole_file_passes_and_gives_its_metadata(tmp_path: Path) -> None:
    write(tmp_path, {"a.safetensors": safetensors_bytes(metadata={"format": "pt"})})
    assert check_safetensors(tmp_path / "a.safetensors") == {"format": "pt"}


def test_a_truncated_file_is_reported_with_the_bytes_seen_and_expected(tmp_path: Path) -> None:
    data = safetensors_bytes()
    write(tmp_path, {"a.safetensors": data[:-100]})
    with pytest.raises(CorruptWeightsError, match=f"truncated: {len(data) - 100} bytes, expected {len(data)}"):
        check_safetensors(tmp_path / "a.safetensors")


def test_a_file_cut_inside_its_header_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"a.safetensors": safetensors_bytes()[:20]})
    with pytest.raises(CorruptWeightsError, match="truncated: 20 bytes, and its header alone takes"):
        check_safetensors(tmp_path / "a.safetensors")


def test_a_file_with_bytes_behind_its_tensors_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"a.safetensors": safetensors_bytes() + b"xx"})
    with pytest.raises(CorruptWeightsError, match="longer than its header says"):
        check_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("data", [b"", b"abc", b"<!DOCTYPE html><html>not found</html>", b"\0" * 64])
def test_a_file_that_is_no_safetensors_file_is_reported(tmp_path: Path, data: bytes) -> None:
    write(tmp_path, {"a.safetensors": data})
    with pytest.raises(CorruptWeightsError, match="not a safetensors file"):
        check_safetensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("header", [b"{not json", b"[1, 2]    ", b'{"w": {"dtype": "F32"}}', b'{"w": 3}   '])
def test_a_damaged_header_is_reported(tmp_path: Path, header: bytes) -> None:
    write(tmp_path, {"a.safetensors": struct.pack("<Q", len(header)) + header})
    with pytest.raises(CorruptWeightsError, match="damaged"):
        check_safetensors(tmp_path / "a.safetensors")


TWO = {
    "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
    "b": {"dtype": "F16", "shape": [2], "data_offsets": [16, 20]},
}


def of_header(header: object, data: int = 20) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"a": {"data_offsets": [16, 0]}},
            r"tensor 'a' of shape \[4\] has bytes 16 to 0 of the data, expected 16 bytes",
        ),
        (
            {"b": {"data_offsets": [12, 16]}},
            "tensor 'b' begins at byte 12 of the data and overlaps the tensor before it",
        ),
        ({"b": {"data_offsets": [18, 22]}}, "tensor 'b' begins at byte 18 of the data and leaves a gap before it"),
        ({"a": {"data_offsets": [-16, 0]}}, r"data offsets \[-16, 0\], expected two whole numbers"),
        ({"a": {"data_offsets": [0, float("inf")]}}, r"data offsets \[0, inf\]"),
        ({"a": {"data_offsets": [0, float("nan")]}}, r"data offsets \[0, nan\]"),
        ({"a": {"data_offsets": [0, 16.0]}}, r"data offsets \[0, 16\.0\]"),
        ({"a": {"data_offsets": [0, 8, 16]}}, r"data offsets \[0, 8, 16\]"),
        ({"a": {"data_offsets": "0:16"}}, "data offsets '0:16'"),
        ({"a": {"data_offsets": [0, 1 << 70]}}, r"data offsets \[0, 1180591620717411303424\]"),
        ({"a": {"dtype": "F99"}}, "tensor 'a' has the dtype 'F99', expected one of BOOL, U8"),
        ({"a": {"dtype": ["F32"]}}, r"has the dtype \['F32'\]"),
        ({"a": {"dtype": None}}, "has the dtype None"),
        ({"a": {"shape": [1 << 62, 4]}}, "of shape .* has bytes 0 to 16 of the data, expected"),
        ({"a": {"shape": [1 << 62] * 16}}, "has bytes 0 to 16 of the data, expected"),
        ({"a": {"shape": [2] * 17}}, "has the shape"),
        ({"a": {"shape": [-4]}}, r"has the shape \[-4\], expected whole numbers from 0"),
        ({"a": {"shape": [True, 4]}}, r"has the shape \[True, 4\]"),
        ({"a": {"shape": {"0": 4}}}, "has the shape"),
        ({"a": {"shape": [3]}}, r"of shape \[3\] has bytes 0 to 16 of the data, expected 12 bytes"),
    ],
)
def test_a_header_that_contradicts_itself_is_reported(
    tmp_path: Path, changes: dict[str, dict[str, object]], message: str
) -> None:
    header = {name: {**tensor, **changes.get(name, {})} for name, tensor in TWO.items()}
    folder = write(tmp_path / "net", {"config.json": CONFIG, WEIGHTS: of_header(header)})
    with pytest.raises(
        CorruptWeightsError, match=rf"model\.safetensors is damaged: .*{message}.*copy, download or save it"
    ):
        resolve(folder)


def test_a_whole_header_of_several_tensors_gives_their_shapes(tmp_path: Path) -> None:
    empty = {
        "c": {"dtype": "I64", "shape": [], "data_offsets": [20, 28]},
        "d": {"dtype": "F32", "shape": [0, 9], "data_offsets": [28, 28]},
    }
    write(tmp_path, {"a.safetensors": of_header({**empty, **TWO}, 28)})
    assert read_header(tmp_path / "a.safetensors").shapes == {"a": (4,), "b": (2,), "c": (), "d": (0, 9)}


@pytest.mark.parametrize("metadata", [3, ["format", "pt"], None, {"format": 3}, {"config": {"model_type": "midway"}}])
def test_metadata_that_is_no_text_by_name_is_reported(tmp_path: Path, metadata: object) -> None:
    write(tmp_path, {"a.safetensors": of_header({"__metadata__": metadata, **TWO})})
    with pytest.raises(CorruptWeightsError, match=r"damaged: the metadata in its header is .*expected text by name"):
        check_safetensors(tmp_path / "a.safetensors")


DEEP = [b"[" * depth + b"]" * depth for depth in (40, 900, 50_000)] + [b'{"a":' * 40 + b"1" + b"}" * 40]


@pytest.mark.parametrize("deep", DEEP, ids=len)
def test_deeply_nested_json_is_reported_wherever_it_is(tmp_path: Path, deep: bytes) -> None:
    deeply = "nested more than 32 levels deep"
    header = write(tmp_path / "header", {"config.json": CONFIG, WEIGHTS: of_header(b'{"a": ' + deep + b"}")})
    with pytest.raises(CorruptWeightsError, match=rf"model\.safetensors is damaged: .*{deeply}"):
        resolve(header)
    config = write(tmp_path / "config", {**TINY, "config.json": b'{"model_type": "midway", "x": ' + deep + b"}"})
    with pytest.raises(CorruptWeightsError, match=rf"config\.json .*{deeply}.*yours and was left alone"):
        resolve(config)
    index = write(tmp_path / "index", {**sharded(), "model.safetensors.index.json": b'{"x": ' + deep + b"}"})
    with pytest.raises(CorruptWeightsError, match=rf"index\.json .*{deeply}"):
        resolve(index)
    inside = safetensors_bytes(metadata={"config": deep.decode()})
    write(tmp_path / "inside", {"best.safetensors": inside})
    with pytest.raises(CorruptWeightsError, match=rf"'config' in the metadata of .*{deeply}"):
        resolve(tmp_path / "inside" / "best.safetensors")


def test_a_key_that_is_there_twice_is_reported(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {**TINY, "config.json": b'{"model_type": "midway", "depth": 3, "depth": 12}'})
    with pytest.raises(CorruptWeightsError, match="it has the key 'depth' twice"):
        resolve(folder)


# -- what is no file -----------------------------------------------------------------------------------------------

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")


@needs_pipes
@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "model.safetensors.index.json"])
def test_a_pipe_in_place_of_a_file_of_a_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "net", {file: data for file, data in sharded().items() if file != name})
    os.mkfifo(folder / name)
    with pytest.raises(OSError, match=rf"{re.escape(name)} is a named pipe \(FIFO\); wanted a regular file"):
        resolve(folder)


@needs_pipes
@pytest.mark.parametrize("name", ["best.safetensors", "best.pth", "config.json"])
def test_a_pipe_given_as_a_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    path = (
        tmp_path / name
        if name != "config.json"
        else write(tmp_path, {"a.safetensors": TINY[WEIGHTS]}) / "a.safetensors"
    )
    with pytest.raises(OSError, match="is a named pipe"):
        resolve(path)


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="the system has no /dev/zero")
def test_a_device_given_as_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "best.safetensors").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="is a device; wanted a regular file"):
        resolve(tmp_path / "best.safetensors")


def test_a_git_lfs_pointer_is_recognised(tmp_path: Path) -> None:
    write(tmp_path, {"a.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"})
    with pytest.raises(CorruptWeightsError, match="git lfs pull"):
        check_safetensors(tmp_path / "a.safetensors")


# -- the user's own folders and files -------------------------------------------------------------------------------


def test_a_folder_resolves_to_itself(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", TINY)
    resolved = resolve(folder, cache_dir=tmp_path / "cache")
    assert (resolved.directory, resolved.name, resolved.commit) == (folder, "net", None)
    assert resolved.source == f"directory {folder}"
    assert list(resolved.sha256) == [WEIGHTS]


def test_an_existing_folder_wins_over_a_registered_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "midway_vits_bdd100k", TINY)
    monkeypatch.chdir(tmp_path)
    assert resolve("midway_vits_bdd100k", cache_dir=tmp_path / "cache").source == "directory midway_vits_bdd100k"


def test_an_existing_folder_wins_over_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "org" / "tiny", TINY)
    monkeypatch.chdir(tmp_path)
    assert resolve("org/tiny", cache_dir=tmp_path / "cache").source == f"directory {Path('org/tiny')}"


@pytest.mark.parametrize("name", [".", "./net", "../net", "~/no/such", "/no/such", "a/b/c", "net/", "a\\b", "C:/net"])
def test_what_looks_like_a_path_and_is_not_there_is_a_missing_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == ".":
        with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
            resolve(name)
        return
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        resolve(name)


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "runs/net.bin"])
def test_what_ends_like_a_checkpoint_and_is_not_there_is_a_missing_file(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="There is no file or folder"):
        resolve(name)


def test_a_path_object_is_never_taken_for_a_name() -> None:
    with pytest.raises(FileNotFoundError, match="There is no file or folder midway_vits_bdd100k"):
        resolve(Path("midway_vits_bdd100k"))


def test_a_missing_path_says_how_far_it_exists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{re.escape(str(tmp_path))} exists, runs in it does not"):
        resolve(tmp_path / "runs" / "net")


def test_a_released_file_that_is_not_there_leads_to_its_registered_name() -> None:
    with pytest.raises(FileNotFoundError, match="'midway_vitb_bdd100k'"):
        resolve("midway-bdd-vit-b-ep300.pth")


def test_a_folder_without_configuration_says_what_it_holds(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {WEIGHTS: TINY[WEIGHTS]})
    with pytest.raises(FileNotFoundError, match=r"has no config\.json.*It holds: model\.safetensors"):
        resolve(folder)


def test_a_folder_with_a_pickle_leads_to_convert(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {"config.json": CONFIG, "epoch.pth": b"x"})
    with pytest.raises(FileNotFoundError, match=r"midway-hub convert .*epoch\.pth OUT"):
        resolve(folder)


def test_a_folder_with_another_safetensors_file_leads_to_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {"config.json": CONFIG, "best.safetensors": TINY[WEIGHTS]})
    with pytest.raises(FileNotFoundError, match=r"pass that file: .*best\.safetensors"):
        resolve(folder)


def test_a_damaged_file_of_the_user_is_reported_and_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {"config.json": CONFIG, WEIGHTS: TINY[WEIGHTS][:-9]})
    with pytest.raises(CorruptWeightsError, match=r"truncated.*yours and was left alone"):
        resolve(folder)
    assert (folder / WEIGHTS).read_bytes() == TINY[WEIGHTS][:-9]


def test_a_damaged_configuration_is_reported(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {**TINY, "config.json": b'{"model_type": '})
    with pytest.raises(CorruptWeightsError, match=r"config\.json \(15 bytes\) is not valid JSON"):
        resolve(folder)


def test_another_models_folder_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {**TINY, "config.json": b'{"model_type": "bert"}'})
    with pytest.raises(ValueError, match="model of type 'bert'"):
        resolve(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    name = "model-00002-of-00003.safetensors"
    folder = write(tmp_path / "net", sharded(without=name))
    with pytest.raises(FileNotFoundError, match=f"misses 1 of 3 shards: {name}"):
        resolve(folder)


def test_an_index_that_points_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"w": "../../secret.safetensors"}}).encode()
    folder = write(tmp_path / "net", {"config.json": CONFIG, "model.safetensors.index.json": index})
    with pytest.raises(CorruptWeightsError, match="not a safetensors file of its own folder"):
        resolve(folder)


def test_a_file_beside_its_configuration_is_loaded_from_there(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", TINY)
    resolved = resolve(folder / WEIGHTS, cache_dir=tmp_path / "cache")
    assert resolved.directory == folder
    assert resolved.source.startswith("file ")


def test_a_file_of_another_name_is_given_the_name_that_loaders_expect(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {"config.json": CONFIG, "best.safetensors": safetensors_bytes(7)})
    resolved = resolve(folder / "best.safetensors", cache_dir=tmp_path / "cache")
    assert (resolved.directory / WEIGHTS).read_bytes() == safetensors_bytes(7)
    assert json.loads((resolved.directory / "config.json").read_bytes()) == json.loads(CONFIG)
    assert resolved.directory.is_relative_to(tmp_path / "cache")


def test_a_file_that_was_written_anew_is_seen_as_it_is_now(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {"config.json": CONFIG, "best.safetensors": safetensors_bytes(7)})
    before = resolve(folder / "best.safetensors", cache_dir=tmp_path / "cache")
    write(folder, {"new": safetensors_bytes(8)})
    (folder / "new").replace(folder / "best.safetensors")
    after = resolve(folder / "best.safetensors", cache_dir=tmp_path / "cache")
    assert (after.directory / WEIGHTS).read_bytes() == safetensors_bytes(8)
    assert after.sha256 != before.sha256


def test_where_links_are_not_to_be_had_a_copy_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.symlink", refuse)
    folder = write(tmp_path / "net", {"config.json": CONFIG, "best.safetensors": safetensors_bytes(7)})
    resolve(folder / "best.safetensors", cache_dir=tmp_path / "cache")
    write(folder, {"best.safetensors": safetensors_bytes(8)})
    resolved = resolve(folder / "best.safetensors", cache_dir=tmp_path / "cache")
    assert not (resolved.directory / WEIGHTS).is_symlink()
    assert (resolved.directory / WEIGHTS).read_bytes() == safetensors_bytes(8)


def test_a_file_may_carry_its_configuration(tmp_path: Path) -> None:
    data = safetensors_bytes(metadata={"config": CONFIG.decode()})
    write(tmp_path, {"best.safetensors": data})
    resolved = resolve(tmp_path / "best.safetensors", cache_dir=tmp_path / "cache")
    assert json.loads((resolved.directory / "config.json").read_bytes()) == json.loads(CONFIG)
    assert (resolved.directory / WEIGHTS).read_bytes() == data


@pytest.mark.parametrize("beside", [True, False], ids=["config beside it", "config inside"])
def test_a_file_loads_where_the_cache_cannot_be_written(tmp_path: Path, beside: bool) -> None:
    data = safetensors_bytes(metadata=None if beside else {"config": CONFIG.decode()})
    folder = write(tmp_path / "net", {"best.safetensors": data, **({"config.json": CONFIG} if beside else {})})
    (tmp_path / "file").write_bytes(b"where a folder would have to be")  # refused to root, too
    first, again = (resolve(folder / "best.safetensors", cache_dir=tmp_path / "file" / "cache") for _ in range(2))
    assert first.directory == again.directory
    assert (first.directory / WEIGHTS).read_bytes() == data
    assert json.loads((first.directory / "config.json").read_bytes()) == json.loads(CONFIG)


def test_a_file_whose_folder_in_the_cache_was_written_before_needs_no_writing(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", {"best.safetensors": safetensors_bytes(metadata={"config": CONFIG.decode()})})
    before = resolve(folder / "best.safetensors", cache_dir=tmp_path / "cache")
    before.directory.chmod(0o555)
    try:
        assert resolve(folder / "best.safetensors", cache_dir=tmp_path / "cache") == before
    finally:
        before.directory.chmod(0o755)


def test_a_file_that_carries_another_models_configuration_is_refused(tmp_path: Path) -> None:
    for config in ('{"model_type": "bert"}', "[1]", "{"):
        write(tmp_path, {"best.safetensors": safetensors_bytes(metadata={"config": config})})
        with pytest.raises(ValueError, match=r"The 'config' in the metadata of .*best\.safetensors"):
            resolve(tmp_path / "best.safetensors", cache_dir=tmp_path / "cache")


def test_a_file_without_configuration_says_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path, {"best.safetensors": safetensors_bytes()})
    with pytest.raises(FileNotFoundError, match=r"no config\.json beside it, and its metadata has no 'config'"):
        resolve(tmp_path / "best.safetensors")


def test_a_pickle_leads_to_convert(tmp_path: Path) -> None:
    write(tmp_path, {"epoch.pth": b"x"})
    with pytest.raises(ValueError, match=r"midway-hub convert .*epoch\.pth OUT"):
        resolve(tmp_path / "epoch.pth")


def test_one_shard_of_several_leads_to_their_folder(tmp_path: Path) -> None:
    folder = write(tmp_path / "net", sharded())
    with pytest.raises(ValueError, match="one shard of several"):
        resolve(folder / "model-00002-of-00003.safetensors")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"notes.txt": b"x"})
    with pytest.raises(ValueError, match=r"not a \.safetensors file"):
        resolve(tmp_path / "notes.txt")


def test_a_revision_of_a_local_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="revision='v1' needs a Hub repository or registry name"):
        resolve(write(tmp_path / "net", TINY), revision="v1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "Expected a name or a path, got ''"),
        ("midway_vits_bdd", "Did you mean 'midway_vits_bdd100k'"),
        ("org/repo@", "ends in '@' without a revision"),
        ("https://huggingface.co/org/repo", "is a URL"),
        ("org/--repo..x", "not a Hub repository id"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        resolve(name)


def test_two_different_revisions_are_refused() -> None:
    with pytest.raises(ValueError, match="Two revisions are given: 'v1' in 'org/repo@v1' and revision='v2'"):
        resolve("org/repo@v1", revision="v2")


def test_something_that_is_no_name_is_refused() -> None:
    with pytest.raises(TypeError, match="Expected a name or a path, got int"):
        resolve(3)  # type: ignore[arg-type]
