"""Repositories on the Hub: the real client against a server on loopback."""

import contextlib
import shutil
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hub_client import Cache, Client, RemoteError
from hub_files import CONFIG, TINY, WEIGHTS, safetensors_bytes, sharded
from hub_server import Hub
from huggingface_hub import errors, get_session
from huggingface_hub.errors import HfHubHTTPError

from midway_hub.hub import reach
from midway_hub.hub.patience import _give_up, limited_patience

pytest_plugins = ["hub_fixtures"]


def test_the_first_load_downloads_and_hashes_the_weights(hub: Hub, cache: Cache) -> None:
    commit = hub.put("org/tiny", TINY)
    resolved = cache.resolve("org/tiny")
    assert Path(resolved["directory"], WEIGHTS).read_bytes() == TINY[WEIGHTS]
    assert (resolved["commit"], resolved["source"]) == (commit, "Hub repo org/tiny")
    assert hub.bodies(WEIGHTS) == 1
    assert resolved["hashed"] > 0


def test_a_cached_load_downloads_and_hashes_nothing(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    first = cache.resolve("org/tiny")
    hub.log.clear()
    second = cache.resolve("org/tiny")
    assert [sent for _, _, sent in hub.log if sent] == []
    assert second["hashed"] == 0
    assert second["sha256"] == first["sha256"]


def test_another_process_hashes_nothing_either(hub: Hub, cache: Cache, tmp_path: Path) -> None:
    hub.put("org/tiny", TINY)
    cache.resolve("org/tiny")
    other = Client(hub.url, tmp_path / "home")
    assert other.resolve("org/tiny", cache_dir=str(cache.folder))["hashed"] == 0
    other.close()


def test_a_commit_that_is_cached_needs_no_network(hub: Hub, cache: Cache) -> None:
    commit = hub.put("org/tiny", TINY)
    cache.resolve("org/tiny")
    hub.log.clear()
    assert cache.resolve(f"org/tiny@{commit}")["commit"] == commit
    assert hub.log == []


def test_everything_is_kept_under_cache_dir(hub: Hub, tmp_path: Path) -> None:
    hub.put("org/tiny", TINY)
    client = Client(hub.url, tmp_path / "home")
    client.resolve("org/tiny", cache_dir=str(tmp_path / "cache"))
    client.close()
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_variables_use_the_cache_and_say_what_is_not_in_it(
    hub: Hub, cache: Cache, tmp_path: Path, variable: str
) -> None:
    hub.put("org/tiny", TINY)
    online = cache.resolve("org/tiny")
    hub.log.clear()
    client = Client(hub.url, tmp_path / "home", **{variable: "1"})
    assert client.resolve("org/tiny", cache_dir=str(cache.folder))["sha256"] == online["sha256"]
    with pytest.raises(RemoteError) as caught:
        client.resolve("org/other", cache_dir=str(cache.folder))
    client.close()
    assert hub.log == []
    assert "FileNotFoundError" in caught.value.kinds
    assert "Offline (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set)" in caught.value.message
    assert f"config.json of Hub repository 'org/other' at revision 'main' is not in the cache {cache.folder}" in str(
        caught.value
    )


def test_local_files_only_uses_the_cache_and_says_what_is_not_in_it(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    assert "Offline (local_files_only=True)" in cache.refused("org/tiny", local_files_only=True).message
    online = cache.resolve("org/tiny")
    hub.log.clear()
    assert cache.resolve("org/tiny", local_files_only=True)["sha256"] == online["sha256"]
    assert hub.log == []


def test_a_revision_is_chosen_by_argument_or_by_name(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", {**TINY, WEIGHTS: safetensors_bytes(2)}, "v2")
    hub.put("org/tiny", TINY)
    by_name = cache.resolve("org/tiny@v2")
    assert by_name["sha256"] == cache.resolve("org/tiny", revision="v2")["sha256"]
    assert by_name["sha256"] != cache.resolve("org/tiny")["sha256"]


def test_a_branch_that_moves_is_followed(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    before = cache.resolve("org/tiny")
    commit = hub.put("org/tiny", {**TINY, WEIGHTS: safetensors_bytes(2)})
    after = cache.resolve("org/tiny")
    assert after["commit"] == commit
    assert after["sha256"] != before["sha256"]


def test_a_wrong_revision_is_named(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    error = cache.refused("org/tiny@v9")
    assert "FileNotFoundError" in error.kinds
    assert "'org/tiny' has no revision 'v9'" in error.message


def test_a_missing_repository_is_named_with_both_things_it_may_be(hub: Hub, cache: Cache) -> None:
    error = cache.refused("org/none")
    assert "FileNotFoundError" in error.kinds
    assert "There is no Hub repository 'org/none'" in error.message
    assert "or it is private" in error.message
    assert "no file or folder of that name" in error.message


def test_a_gated_repository_leads_to_its_terms(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    hub.faults.status["org/tiny"] = (403, {"X-Error-Code": "GatedRepo"})
    error = cache.refused("org/tiny")
    assert "PermissionError" in error.kinds
    assert f"Accept its terms at {hub.url}/org/tiny" in error.message


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_without_access_is_refused_as_such(hub: Hub, cache: Cache, status: int) -> None:
    hub.put("org/tiny", TINY)
    hub.faults.status["org/tiny"] = (status, {"X-Error-Message": "Invalid credentials in Authorization header"})
    error = cache.refused("org/tiny", token="hf_wrong")
    assert "PermissionError" in error.kinds
    assert f"The Hub refused config.json of Hub repository 'org/tiny' at revision 'main' (HTTP {status})" in str(error)


@pytest.mark.slow  # the client tries for half a minute
def test_a_hub_that_is_down_is_reported_unless_the_weights_are_cached(hub: Hub, cache: Cache, tmp_path: Path) -> None:
    nowhere = Client("http://127.0.0.1:9", tmp_path / "home")
    nowhere.send("resolve", "org/tiny")
    hub.put("org/tiny", TINY)
    online = cache.resolve("org/tiny")
    hub.put("org/other", TINY)
    hub.faults.status.update({"org/tiny": (503, {}), "org/other": (503, {})})
    assert cache.resolve("org/tiny")["sha256"] == online["sha256"]
    error = cache.refused("org/other")
    assert "ConnectionError" in error.kinds
    assert "answered HTTP 503" in error.message
    with pytest.raises(
        RemoteError, match=r"WeightsUnavailableError: http://127\.0\.0\.1:9 could not be reached"
    ) as caught:
        nowhere.receive()
    assert "ConnectionError" in caught.value.kinds
    nowhere.close()


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A process whose Hub refuses connections, and that never waits to try again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        client = Client(f"http://127.0.0.1:{taken.getsockname()[1]}", tmp_path_factory.mktemp("home"))
        client.call("never_wait")
        yield client
        client.close()


@pytest.mark.parametrize("door", ["resolve", "load_network"])
@pytest.mark.parametrize("name", ["org/tiny", "org/tiny@v1", f"org/tiny@{'a' * 40}", "midway_vits_bdd100k"])
def test_without_a_connection_a_load_says_so_at_once(nowhere: Client, tmp_path: Path, door: str, name: str) -> None:
    with pytest.raises(
        RemoteError, match=r"WeightsUnavailableError: http://127\.0\.0\.1:\d+ could not be reached \(ConnectError: "
    ) as caught:
        nowhere.call(door, name, cache_dir=str(tmp_path))
    assert "ConnectionError" in caught.value.kinds
    assert f"is not in the cache {tmp_path}. Check the connection" in caught.value.message


@pytest.mark.parametrize("revision", [None, "v1"])
def test_what_is_cached_loads_without_a_connection_and_without_waiting(
    hub: Hub, cache: Cache, nowhere: Client, revision: str | None
) -> None:
    hub.put("org/tiny", TINY, ref=revision or "main")
    online = cache.resolve("org/tiny", revision=revision)
    offline = nowhere.resolve("org/tiny", revision=revision, cache_dir=str(cache.folder))
    assert offline["sha256"] == online["sha256"]


def test_a_load_asks_once_whether_there_is_a_hub(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    cache.resolve("org/tiny")
    asked = [path for method, path, _ in hub.log if method == "HEAD"]
    assert asked.count("/org/tiny/resolve/main/config.json") == 2  # whether it is there, and what it is
    assert sum(path.endswith(f"/{WEIGHTS}") for path in asked) == 1


@pytest.mark.parametrize("kind", ["ConnectError", "ConnectTimeout", "ProxyError"])
def test_a_load_that_found_no_hub_does_not_look_for_it_again(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    asked = []

    def fail(url: str, **_: object) -> None:
        asked.append(url)
        raise type(kind, (Exception,), {})("no route")

    monkeypatch.setattr(reach, "get_hf_file_metadata", fail)
    once = reach.Reach()
    for name in ("config.json", WEIGHTS):
        with pytest.raises(errors.LocalEntryNotFoundError) as caught:
            once.need("org/tiny", name, None, None)
        assert str(caught.value.__cause__) == "no route"
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["ReadTimeout", "HfHubHTTPError", "RemoteProtocolError"])
def test_a_hub_that_answers_badly_is_left_to_who_downloads(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def fail(url: str, **_: object) -> None:
        raise type(kind, (Exception,), {})("later")

    monkeypatch.setattr(reach, "get_hf_file_metadata", fail)
    reach.Reach().need("org/tiny", "config.json", None, None)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (429, {"Retry-After": "86400"}),
        (429, {"ratelimit": '"api";r=0;t=86400', "ratelimit-policy": '"fixed window";"api";q=500;w=300'}),
        (503, {"Retry-After": "86400"}),
        (429, {"Retry-After": "99999999999"}),
    ],
)
def test_a_hub_that_asks_to_wait_for_long_is_not_waited_for(
    hub: Hub, cache: Cache, status: int, headers: dict[str, str]
) -> None:
    hub.put("org/tiny", TINY)
    hub.faults.status["org/tiny"] = (status, headers)
    error = cache.refused("org/tiny")
    assert "ConnectionError" in error.kinds
    assert f"answered HTTP {status} to config.json" in error.message
    wait = headers.get("Retry-After", "86400")
    assert f"asks to wait for {wait} seconds" in error.message
    assert "Try again after that" in error.message


def test_a_hub_that_asks_to_wait_is_not_needed_for_what_is_cached(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    online = cache.resolve("org/tiny")
    hub.faults.status["org/tiny"] = (429, {"Retry-After": "86400"})
    assert cache.resolve("org/tiny")["sha256"] == online["sha256"]


def test_waits_that_are_short_but_many_are_bounded_together() -> None:
    http = import_module(type(get_session()).__module__.partition(".")[0])  # httpx, or httpx2 from huggingface_hub 2 on
    request = http.Request("HEAD", "http://127.0.0.1/org/tiny")
    answer = http.Response(429, headers={"Retry-After": "9"}, request=request)
    with limited_patience(25):
        _give_up(answer)
        _give_up(answer)
        with pytest.raises(HfHubHTTPError):
            _give_up(answer)
    _give_up(answer)  # outside of the block, huggingface_hub does as it always does


def test_a_repository_without_safetensors_says_what_it_holds_and_downloads_no_pickle(hub: Hub, cache: Cache) -> None:
    hub.put("org/old", {"config.json": CONFIG, "pytorch_model.bin": b"pickle"})
    error = cache.refused("org/old")
    assert "has neither model.safetensors nor model.safetensors.index.json" in error.message
    assert "midway-hub convert pytorch_model.bin OUT" in error.message
    assert hub.bodies("pytorch_model.bin") == 0


def test_another_models_repository_is_refused_before_its_weights_are_downloaded(hub: Hub, cache: Cache) -> None:
    hub.put("org/bert", {**TINY, "config.json": b'{"model_type": "bert"}'})
    assert "model of type 'bert'" in cache.refused("org/bert").message
    assert hub.bodies(WEIGHTS) == 0


def test_processor_settings_come_along(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", {**TINY, "preprocessor_config.json": b"{}", "training_state.bin": b"x" * 100})
    directory = Path(cache.resolve("org/tiny")["directory"])
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", WEIGHTS, "preprocessor_config.json"]


def test_a_body_that_is_cut_short_is_an_error_and_the_next_call_recovers(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    hub.faults.cut[WEIGHTS] = 900
    error = cache.refused("org/tiny")
    assert "CorruptWeightsError" in error.kinds
    assert f"should be of size {len(TINY[WEIGHTS])} but has size 900" in error.message
    assert "run the same call again" in error.message
    hub.faults.cut.clear()
    assert Path(cache.resolve("org/tiny")["directory"], WEIGHTS).read_bytes() == TINY[WEIGHTS]


def test_a_connection_that_drops_costs_a_second_request_and_no_byte(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    hub.faults.drop_once[WEIGHTS] = 900
    with contextlib.suppress(RemoteError):  # older clients report it, newer ones resume by themselves
        cache.resolve("org/tiny")
    assert Path(cache.resolve("org/tiny")["directory"], WEIGHTS).read_bytes() == TINY[WEIGHTS]
    assert hub.bodies(WEIGHTS) == 2


def test_a_body_that_is_altered_is_an_error_and_the_next_call_recovers(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    hub.faults.flip.add(WEIGHTS)
    error = cache.refused("org/tiny")
    assert "CorruptWeightsError" in error.kinds
    assert "is not what was published" in error.message
    hub.faults.flip.clear()
    assert Path(cache.resolve("org/tiny")["directory"], WEIGHTS).read_bytes() == TINY[WEIGHTS]


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied"])
def test_a_file_damaged_in_the_cache_is_an_error_and_the_next_call_recovers(
    hub: Hub, cache: Cache, damage: str
) -> None:
    hub.put("org/tiny", TINY)
    cache.resolve("org/tiny")
    good = TINY[WEIGHTS]
    bad = {"truncated": good[:-50], "altered": good[:-1] + b"\xff", "emptied": b""}[damage]
    cache.blob(WEIGHTS).write_bytes(bad)
    error = cache.refused("org/tiny")
    assert "CorruptWeightsError" in error.kinds
    assert f"{len(bad)} bytes" in error.message
    assert "was removed from the cache; run the same call again" in error.message
    assert Path(cache.resolve("org/tiny")["directory"], WEIGHTS).read_bytes() == good


def test_a_configuration_damaged_in_the_cache_is_an_error_and_the_next_call_recovers(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    cache.resolve("org/tiny")
    cache.blob("config.json").write_bytes(b'{"model_type": "midway", "embed_dim": 1}')
    assert "CorruptWeightsError" in cache.refused("org/tiny").kinds
    assert Path(cache.resolve("org/tiny")["directory"], "config.json").read_bytes() == CONFIG


def test_a_cache_without_links_is_checked_as_well(hub: Hub, tmp_path: Path) -> None:
    hub.put("org/tiny", TINY)
    client = Client(hub.url, tmp_path / "home", HF_HUB_DISABLE_SYMLINKS="1")
    cache = Cache(client, tmp_path / "cache")
    hub.faults.flip.add(WEIGHTS)
    assert "is not what was published" in cache.refused("org/tiny").message
    hub.faults.flip.clear()
    resolved = cache.resolve("org/tiny")
    weights = Path(resolved["directory"], WEIGHTS)
    if weights.is_symlink():
        client.close()
        pytest.skip("this huggingface_hub links whatever HF_HUB_DISABLE_SYMLINKS says")
    hub.log.clear()
    assert cache.resolve("org/tiny")["hashed"] == 0
    assert [path for _, path, _ in hub.log] == ["/org/tiny/resolve/main/config.json"]
    weights.write_bytes(TINY[WEIGHTS][:-1] + b"\xff")
    assert "is not what was published" in cache.refused("org/tiny").message
    assert cache.resolve("org/tiny")["sha256"] == resolved["sha256"]
    client.close()


def test_a_cache_that_cannot_be_written_is_still_read(hub: Hub, cache: Cache) -> None:
    hub.put("org/tiny", TINY)
    online = cache.resolve("org/tiny")
    shutil.rmtree(cache.folder / "midway_hub")
    (cache.folder / "midway_hub").write_text("a file where the records' folder would be")
    again = cache.resolve("org/tiny", local_files_only=True)
    assert again["sha256"] == online["sha256"]
    assert again["hashed"] > 0


def test_the_records_of_a_cache_can_be_read_by_all_who_share_it(hub: Hub, cache: Cache, tmp_path: Path) -> None:
    hub.put("org/tiny", TINY)
    cache.resolve("org/tiny")
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode for path in (cache.folder / "midway_hub").rglob("*.json")}
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_all_shards_are_downloaded(hub: Hub, cache: Cache) -> None:
    hub.put("org/big", sharded())
    resolved = cache.resolve("org/big")
    assert sorted(resolved["sha256"]) == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    hub.log.clear()
    assert cache.resolve("org/big")["sha256"] == resolved["sha256"]
    assert [path for _, path, _ in hub.log] == ["/org/big/resolve/main/config.json"]
    assert cache.resolve("org/big", local_files_only=True)["sha256"] == resolved["sha256"]


def test_a_shard_that_the_repository_lacks_is_named(hub: Hub, cache: Cache) -> None:
    name = "model-00003-of-00003.safetensors"
    hub.put("org/big", sharded(without=name))
    assert f"has no {name}" in cache.refused("org/big").message


def test_a_shard_that_the_cache_lost_is_named_when_offline(hub: Hub, cache: Cache) -> None:
    name = "model-00002-of-00003.safetensors"
    hub.put("org/big", sharded())
    cache.resolve("org/big")
    next(cache.folder.glob(f"models--*/snapshots/*/{name}")).unlink()
    assert name in cache.refused("org/big", local_files_only=True).message
    cache.resolve("org/big")


def test_two_processes_at_once_both_succeed(hub: Hub, tmp_path: Path) -> None:
    hub.put("org/tiny", TINY)
    clients = [Client(hub.url, tmp_path / "home") for _ in range(2)]
    for client in clients:
        client.send("resolve", "org/tiny")
    results = [client.receive()["value"] for client in clients]
    for client in clients:
        client.close()
    assert results[0] == results[1]
    assert hub.bodies(WEIGHTS) == 1
