"""Registered names: pinned or kept revisions, the authors' pickles converted once, and bundled weights."""

import hashlib
import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_client import Cache, Client
from hub_files import CONFIG, TINY, WEIGHTS, safetensors_bytes, write
from hub_server import Hub

from midway_hub import registry
from midway_hub.config import MidwayConfig
from midway_hub.convert.authors_layout import expected_shapes
from midway_hub.hub import CorruptWeightsError, resolve

pytest_plugins = ["hub_fixtures"]


RELEASE = {"repo_id": "authors/release", "filename": "small.pth"}
COMMIT = "0" * 40


def authors_file(seed: int = 0) -> bytes:
    """A checkpoint in the authors' layout that holds a very small teacher alone."""
    generator = torch.Generator().manual_seed(seed)
    config = MidwayConfig(embed_dim=12, depth=1, image_size=32, dynamics=False, target_network="shared")
    teacher = {
        name.replace("student.", "backbone.", 1): torch.randn(shape, generator=generator)
        for name, shape in expected_shapes(config).items()
    }
    file = io.BytesIO()
    torch.save({"teacher": teacher, "args": {"arch": "vit_small"}}, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def pth() -> bytes:
    return authors_file()


def register(cache: Cache, **fields: Any) -> None:
    cache.process.call("register", **{"name": "small", **RELEASE, **fields})


def test_a_registered_pickle_is_downloaded_and_converted_once(hub: Hub, cache: Cache, pth: bytes) -> None:
    commit = hub.put("authors/release", {"small.pth": pth})
    register(cache)
    first = cache.resolve("small")
    assert first["converted"]
    assert (first["source"], first["name"], first["commit"]) == ("registry name small", "small", commit)
    assert Path(first["directory"]).is_relative_to(cache.folder)
    assert sorted(path.name for path in Path(first["directory"]).iterdir()) == [
        "config.json",
        "conversion.json",
        WEIGHTS,
        "preprocessor_config.json",
    ]
    hub.log.clear()
    again = cache.resolve("small")
    assert (again["sha256"], again["hashed"]) == (first["sha256"], 0)
    assert [sent for _, _, sent in hub.log if sent] == []


def test_what_was_converted_loads_offline_even_without_the_pickle(hub: Hub, cache: Cache, pth: bytes) -> None:
    hub.put("authors/release", {"small.pth": pth})
    register(cache)
    online = cache.resolve("small")
    shutil.rmtree(next(cache.folder.glob("models--*")))
    hub.log.clear()
    assert cache.resolve("small", local_files_only=True)["sha256"] == online["sha256"]
    assert hub.log == []


def test_a_name_that_was_never_loaded_says_so_offline(cache: Cache) -> None:
    error = cache.refused("midway_vits_bdd100k", local_files_only=True)
    assert "Offline (local_files_only=True)" in error.message
    assert "midway-bdd-vit-s-ep300.pth of Hub repository 'agentic-learning-ai-lab/Midway-Network'" in error.message


def test_two_processes_at_once_convert_once(hub: Hub, tmp_path: Path, pth: bytes) -> None:
    hub.put("authors/release", {"small.pth": pth})
    clients = [Client(hub.url, tmp_path / "home") for _ in range(2)]
    for client in clients:
        client.call("register", name="small", **RELEASE)
    for client in clients:
        client.send("resolve", "small")
    answers = [client.receive() for client in clients]
    for client in clients:
        client.close()
    assert answers[0]["value"] == answers[1]["value"]
    assert sum("converting" in line for answer in answers for line in answer["log"]) == 1
    assert hub.bodies("small.pth") == 1


def test_a_repository_that_moved_on_does_not_change_what_a_name_means(hub: Hub, cache: Cache, pth: bytes) -> None:
    old = hub.put("authors/release", {"small.pth": pth})
    register(cache)
    before = cache.resolve("small")
    new = hub.put("authors/release", {"small.pth": authors_file(seed=1)})
    after = cache.resolve("small")
    assert (after["commit"], after["sha256"]) == (old, before["sha256"])
    (warning,) = after["log"]
    assert f"small stays at commit {old}" in warning
    assert f"Pass revision='{new}'" in warning
    chosen = cache.resolve("small", revision=new)
    assert chosen["commit"] == new
    assert chosen["sha256"] != before["sha256"]
    assert cache.resolve("small")["commit"] == old


def test_deleting_the_kept_commit_follows_the_repository_as_the_warning_says(
    hub: Hub, cache: Cache, pth: bytes
) -> None:
    hub.put("authors/release", {"small.pth": pth})
    register(cache)
    cache.resolve("small")
    new = hub.put("authors/release", {"small.pth": authors_file(seed=1)})
    (warning,) = cache.resolve("small")["log"]
    kept = re.search(r"or delete (\S+) to use them", warning)
    assert kept is not None
    Path(kept[1]).unlink()
    assert cache.resolve("small")["commit"] == new


def test_a_repository_that_changed_elsewhere_is_no_news(hub: Hub, cache: Cache, pth: bytes) -> None:
    hub.put("authors/release", {"small.pth": pth})
    register(cache)
    cache.resolve("small")
    hub.put("authors/release", {"small.pth": pth, "README.md": b"new words"})
    assert cache.resolve("small")["log"] == []


def test_a_pinned_revision_is_loaded_wherever_main_is(hub: Hub, cache: Cache, pth: bytes) -> None:
    pinned = hub.put("authors/release", {"small.pth": pth})
    hub.put("authors/release", {"small.pth": authors_file(seed=1)})
    register(cache, revision=pinned, sha256=hashlib.sha256(pth).hexdigest())
    assert cache.resolve("small")["commit"] == pinned


def test_a_file_that_is_not_the_pinned_one_is_refused(hub: Hub, cache: Cache, pth: bytes) -> None:
    hub.put("authors/release", {"small.pth": pth})
    register(cache, sha256=COMMIT + "0" * 24)
    error = cache.refused("small")
    assert "CorruptWeightsError" in error.kinds
    assert "another file than the registry pins" in error.message
    assert hashlib.sha256(pth).hexdigest() in error.message


def test_a_pin_also_holds_for_what_was_converted_before_it(hub: Hub, cache: Cache, pth: bytes) -> None:
    hub.put("authors/release", {"small.pth": pth})
    register(cache)
    cache.resolve("small")
    register(cache, sha256=hashlib.sha256(pth).hexdigest())
    assert cache.resolve("small")["converted"]
    register(cache, sha256="f" * 64)
    assert "another file than the registry pins" in cache.refused("small").message


def test_a_revision_of_the_users_choice_overrides_the_pins(hub: Hub, cache: Cache, pth: bytes) -> None:
    commit = hub.put("authors/release", {"small.pth": pth})
    register(cache, revision=COMMIT, sha256=COMMIT + "0" * 24)
    assert cache.resolve(f"small@{commit}")["commit"] == commit


def test_a_pickle_that_arrives_altered_is_not_converted_and_the_next_call_recovers(
    hub: Hub, cache: Cache, pth: bytes
) -> None:
    hub.put("authors/release", {"small.pth": pth})
    register(cache)
    hub.faults.flip.add("small.pth")
    assert "CorruptWeightsError" in cache.refused("small").kinds
    assert not (cache.folder / "midway_hub" / "converted").exists()
    hub.faults.flip.clear()
    assert cache.resolve("small")["converted"]


@pytest.mark.parametrize("damage", ["altered", "truncated", "deleted"])
def test_a_conversion_damaged_in_the_cache_is_an_error_and_the_next_call_redoes_it(
    hub: Hub, cache: Cache, pth: bytes, damage: str
) -> None:
    hub.put("authors/release", {"small.pth": pth})
    register(cache)
    first = cache.resolve("small")
    weights = Path(first["directory"], WEIGHTS)
    good = weights.read_bytes()
    if damage == "deleted":
        weights.unlink()
    else:
        weights.write_bytes(good[:-8] if damage == "truncated" else good[:-1] + bytes([good[-1] ^ 1]))
    error = cache.refused("small")
    assert "CorruptWeightsError" in error.kinds
    assert "run the same call again to redo it" in error.message
    assert cache.resolve("small")["sha256"] == first["sha256"]
    assert hub.bodies("small.pth") == 1


def test_what_a_killed_conversion_left_is_swept_up(hub: Hub, cache: Cache, pth: bytes) -> None:
    commit = hub.put("authors/release", {"small.pth": pth})
    register(cache)
    left = cache.folder / "midway_hub" / "converted" / "small" / f".{commit}.0a1b2c3d.partial"
    write(left, {WEIGHTS: b"half of"})
    cache.resolve("small")
    assert not left.exists()


def test_published_safetensors_are_preferred_to_the_pickle(hub: Hub, cache: Cache, pth: bytes) -> None:
    folder = {f"small/{name}": data for name, data in TINY.items()}
    commit = hub.put("authors/release", {"small.pth": pth, **folder})
    register(cache)
    resolved = cache.resolve("small")
    assert (resolved["converted"], resolved["commit"]) == (False, commit)
    assert Path(resolved["directory"], WEIGHTS).read_bytes() == TINY[WEIGHTS]
    assert hub.bodies("small.pth") == 0


def test_safetensors_at_the_top_are_used_where_they_can_only_be_this_checkpoint(
    hub: Hub, cache: Cache, pth: bytes
) -> None:
    hub.put("authors/release", {"small.pth": pth, **TINY})
    register(cache)
    assert not cache.resolve("small")["converted"]


def test_safetensors_at_the_top_of_a_repository_of_several_checkpoints_are_left_alone(
    hub: Hub, cache: Cache, pth: bytes
) -> None:
    hub.put("authors/release", {"small.pth": pth, "large.pth": pth, **TINY})
    register(cache)
    register(cache, name="large", filename="large.pth")
    assert cache.resolve("small")["converted"]


def test_a_configuration_of_another_model_beside_the_pickle_is_no_obstacle(hub: Hub, cache: Cache, pth: bytes) -> None:
    hub.put("authors/release", {"small.pth": pth, "config.json": b'{"arch": "vit_small"}'})
    register(cache)
    assert cache.resolve("small")["converted"]


def test_an_entry_may_name_a_safetensors_file_and_pin_it(hub: Hub, cache: Cache) -> None:
    commit = hub.put("authors/release", {f"nets/{name}": data for name, data in TINY.items()})
    good = hashlib.sha256(TINY[WEIGHTS]).hexdigest()
    register(cache, filename=f"nets/{WEIGHTS}", revision=commit, sha256=good)
    assert cache.resolve("small")["sha256"] == {WEIGHTS: good}
    register(cache, filename=f"nets/{WEIGHTS}", revision=commit, sha256="f" * 64)
    assert "another file than the registry pins" in cache.refused("small").message


def test_the_authors_repository_leads_to_its_registered_names(hub: Hub, cache: Cache, pth: bytes) -> None:
    hub.put("authors/release", {"small.pth": pth, "config.json": CONFIG})
    register(cache)
    error = cache.refused("authors/release")
    assert "Its weights are loaded by name: 'small'" in error.message
    assert hub.bodies("small.pth") == 0


def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], sha256: str | None) -> Path:
    folder = write(tmp_path / "package" / "boxed", files)
    entry = registry.RegistryEntry("boxed", "A test.", ("features",), {}, bundled=True, sha256=sha256)
    monkeypatch.setitem(registry._ENTRIES, "boxed", entry)
    monkeypatch.setattr("midway_hub.hub.named.files", lambda package: folder.parent)
    return folder


def test_bundled_weights_are_checked_against_their_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin = hashlib.sha256(TINY[WEIGHTS]).hexdigest()
    folder = bundle(tmp_path, monkeypatch, TINY, pin)
    resolved = resolve("boxed", cache_dir=tmp_path / "cache")
    assert (resolved.directory, resolved.sha256, resolved.source) == (folder, {WEIGHTS: pin}, "registry name boxed")
    (folder / WEIGHTS).write_bytes(safetensors_bytes(2))
    with pytest.raises(CorruptWeightsError, match=r"not what the registry pins: .* Reinstall the package"):
        resolve("boxed", cache_dir=tmp_path / "cache")
    assert (folder / WEIGHTS).exists()


def test_bundled_weights_have_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path, monkeypatch, TINY, None)
    with pytest.raises(ValueError, match="inside the package and has no revision 'v1'"):
        resolve("boxed@v1")


def test_missing_bundled_weights_lead_to_a_new_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(bundle(tmp_path, monkeypatch, TINY, None))
    with pytest.raises(FileNotFoundError, match=r"missing from the package .* Reinstall"):
        resolve("boxed")
