"""Checkpoints on the user's own disk, and what a safetensors file says of itself."""

import json
import re
import struct
from pathlib import Path

import pytest
from hub_files import CONFIG, TINY, WEIGHTS, safetensors_bytes, sharded, write

from midway_hub.hub import CorruptWeightsError, check_safetensors, resolve

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
