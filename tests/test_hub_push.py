"""Saved networks to a Hub on loopback, and back."""

from pathlib import Path
from typing import Any

import pytest
from hub_client import Cache, RemoteError
from hub_files import TINY, WEIGHTS, sharded, write
from hub_server import Hub

from midway_hub.hub import push_folder, resolve

pytest_plugins = ["hub_fixtures"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return write(tmp_path / "saved", {**TINY, "preprocessor_config.json": b"{}", "optimizer.pth": b"x"})


def push(cache: Cache, folder: Path, repo_id: str = "me/net", **kwargs: Any) -> str:
    value = cache.process.call("push_folder", str(folder), repo_id, token="hf_me", **kwargs)["value"]
    assert isinstance(value, str)
    return value


def test_what_is_pushed_loads_again(hub: Hub, cache: Cache, saved: Path) -> None:
    address = push(cache, saved)
    resolved = cache.resolve("me/net")
    assert resolved["sha256"] == {WEIGHTS: resolve(saved).sha256[WEIGHTS]}
    assert address == f"{hub.url}/me/net/commit/{resolved['commit']}"


def test_only_what_belongs_to_a_checkpoint_is_pushed(hub: Hub, cache: Cache, saved: Path) -> None:
    push(cache, saved)
    head = hub.repos["me/net"]
    assert sorted(head.commits[head.refs["main"]]) == [
        ".gitattributes",
        "README.md",
        "config.json",
        WEIGHTS,
        "preprocessor_config.json",
    ]
    assert not (saved / "README.md").exists()


def test_a_hand_written_card_in_the_repository_is_kept(hub: Hub, cache: Cache, saved: Path) -> None:
    hub.put("me/net", {"README.md": b"# Mine\n"})
    push(cache, saved)
    head = hub.repos["me/net"]
    assert head.commits[head.refs["main"]]["README.md"] == b"# Mine\n"
    assert WEIGHTS in head.commits[head.refs["main"]]


def test_a_hand_written_card_in_the_folder_is_pushed(hub: Hub, cache: Cache, saved: Path) -> None:
    hub.put("me/net", {"README.md": b"# Old\n"})
    (saved / "README.md").write_text("# New\n")
    push(cache, saved)
    head = hub.repos["me/net"]
    assert head.commits[head.refs["main"]]["README.md"] == b"# New\n"


def test_a_generated_card_is_replaced_and_states_the_licence_of_what_it_was_made_from(
    hub: Hub, cache: Cache, saved: Path
) -> None:
    push(cache, saved)
    push(cache, saved, base="midway_vits_bdd100k")
    head = hub.repos["me/net"]
    card = head.commits[head.refs["main"]]["README.md"].decode()
    assert "license: cc-by-4.0" in card
    assert "Made from the weights of `midway_vits_bdd100k`" in card


def test_shards_of_an_earlier_upload_are_removed(hub: Hub, cache: Cache, saved: Path, tmp_path: Path) -> None:
    push(cache, write(tmp_path / "big", sharded()))
    push(cache, saved)
    head = hub.repos["me/net"]
    assert [name for name in head.commits[head.refs["main"]] if name.startswith("model")] == [WEIGHTS]


def test_a_push_may_go_to_a_branch_of_its_own(hub: Hub, cache: Cache, saved: Path) -> None:
    hub.put("me/net", {"README.md": b"# Mine\n"})
    push(cache, saved, revision="draft")
    head = hub.repos["me/net"]
    assert WEIGHTS in head.commits[head.refs["draft"]]
    assert WEIGHTS not in head.commits[head.refs["main"]]


def test_a_token_that_may_not_write_is_refused_as_such(hub: Hub, cache: Cache, saved: Path) -> None:
    hub.token = "hf_someone_else"
    with pytest.raises(RemoteError, match="May not write to 'me/net'"):
        push(cache, saved)


def test_a_damaged_folder_is_not_pushed(hub: Hub, cache: Cache, saved: Path) -> None:
    (saved / WEIGHTS).write_bytes(TINY[WEIGHTS][:-1])
    with pytest.raises(RemoteError, match="truncated"):
        push(cache, saved)
    assert hub.log == []


def test_pushing_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="Save the network first"):
        push_folder(tmp_path / "none", "me/net")


def test_a_network_that_is_pushed_loads_again_whole_or_in_shards(hub: Hub, cache: Cache) -> None:
    cache.process.call("push_network", "me/whole", token="hf_me")
    cache.process.call("push_network", "me/shards", token="hf_me", max_shard_size=10_000)
    whole, shards = (
        cache.process.call("load_network", name, cache_dir=str(cache.folder))["value"]
        for name in ("me/whole", "me/shards")
    )
    assert whole["source"] == "Hub repo me/whole"
    assert list(whole["sha256"]) == [WEIGHTS]
    assert len(shards["sha256"]) > 1
    assert whole["weights"] == shards["weights"] > 0
    assert (whole["missing"], whole["unexpected"]) == ([], [])


def test_a_network_loaded_by_name_is_pushed_with_the_licence_of_that_name(hub: Hub, cache: Cache) -> None:
    cache.process.call("push_network", "authors/net", token="hf_me")
    entry = {
        "name": "named",
        "repo_id": "authors/net",
        "filename": WEIGHTS,
        "citation": "Somebody.",
        "licence": "CC0-1.0",
    }
    cache.process.call("register", **entry)
    cache.process.call("push_again", "named", "me/copy", cache_dir=str(cache.folder), token="hf_me")
    head = hub.repos["me/copy"]
    card = head.commits[head.refs["main"]]["README.md"].decode()
    assert "Made from the weights of `named` (CC0-1.0): Somebody." in card
