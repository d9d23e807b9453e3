"""The way from a name or path to checked local files."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

from midway_hub.hub import checksums, local
from midway_hub.hub.named import NamedCheckpoint, open_bundled
from midway_hub.hub.repository import Repository, commit_of
from midway_hub.hub.weight_files import CONFIG
from midway_hub.registry import get_entry, list_models

logger = logging.getLogger("midway_hub")


@dataclass(frozen=True)
class Resolved:
    """Checked local files that a network can be loaded from.

    Attributes:
        directory: Folder with `config.json` and the weights, as transformers expects them.
        source: Where they came from, in words.
        name: Registry name, repository id, or name of the folder or file.
        commit: Commit of the Hub repository, or None for local files.
        sha256: Checksum of each weight file, by file name.
        converted: Whether the weights were converted from the authors' `.pth`.
    """

    directory: Path
    source: str
    name: str
    commit: str | None
    sha256: dict[str, str]
    converted: bool = False


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Resolved:
    """Find weights, download them if need be, and check them. What was checked once is not hashed again.

    Args:
        name_or_path: Registry name, `"owner/name"` of a Hub repository, either with `@revision`, a folder, or a
            `.safetensors` file. A path that exists wins.
        revision: Branch, tag or commit of the Hub repository. It overrides a registry name's pinned one.
        cache_dir: Where downloads, conversions and records are kept; by default the Hub's own cache.
        local_files_only: Whether to rule the network out, as `HF_HUB_OFFLINE=1` does.
        token: Access token of the Hub; by default the stored one.

    Returns:
        The checked files and where they came from.

    Raises:
        WeightsNotFoundError: There is no such path, repository, revision or file, or it is not cached while offline.
        CorruptWeightsError: A file is damaged. If it was in a cache it was removed, so that the next call recovers.
        WeightsAccessError: The repository is private or gated.
        WeightsUnavailableError: The Hub cannot be reached.
        UnknownModelError: There is no such name; close ones are listed.
        ValueError: The arguments contradict each other, or the weights are another model's or a pickle.
    """
    cache = None if cache_dir is None else Path(cache_dir)
    path = as_path(name_or_path)
    if path is not None:
        if revision is not None:
            raise ValueError(
                f"revision={revision!r} needs a Hub repository or registry name, and {path} is a local path."
            )
        return _resolve_path(path, checksums.cache_root(cache))
    name, revision = split_revision(str(name_or_path), revision)
    repository = Repository(name, revision, cache, local_files_only, token)
    if name.count("/") == 1:
        return _resolve_repository(repository)
    return _resolve_name(name, repository)


def as_path(name_or_path: str | os.PathLike[str]) -> Path | None:
    """Return the path that was meant, or None for a name.

    Raises:
        WeightsNotFoundError: It looks like a path, and there is nothing there.
        ValueError: It is empty or a URL.
        TypeError: It is neither text nor a path.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise TypeError(f"Expected a name or a path, got {type(name_or_path).__name__}.")
    text = os.fspath(name_or_path)
    if not text.strip():
        raise ValueError(f"Expected a name or a path, got {text!r}. Registered names: {', '.join(list_models())}.")
    if "://" in text:
        raise ValueError(
            f"{text!r} is a URL. Write a Hub repository as 'owner/name', or download the file and pass it."
        )
    path = Path(text).expanduser()
    if path.exists():
        return path
    if not isinstance(name_or_path, str) or local.looks_like_path(text):
        raise local.missing_path(path)
    return None


def split_revision(text: str, revision: str | None) -> tuple[str, str | None]:
    """Return name and revision of `name` or `name@revision`.

    Raises:
        ValueError: There is nothing after the `@`, or it contradicts `revision`.
    """
    name, at, written = text.partition("@")
    if at and not written:
        raise ValueError(f"{text!r} ends in '@' without a revision. Write {name + '@main'!r}, or leave the '@' away.")
    if at and revision not in (None, written):
        raise ValueError(f"Two revisions are given: {written!r} in {text!r} and revision={revision!r}. Give one.")
    return name, written or revision


def _resolve_path(path: Path, root: Path) -> Resolved:
    if path.is_dir():
        directory, weights, kind = path, local.open_directory(path), "directory"
        if path.name in list_models():
            logger.info("loading the directory %s, not the registry's %s", path.absolute(), path.name)
    else:
        directory, file = local.open_file(path, root)
        weights, kind = [file], "file"
    return Resolved(directory, f"{kind} {path}", path.name, None, _checksums_of(weights, root))


def _resolve_repository(repository: Repository) -> Resolved:
    directory, weights = repository.fetch_checkpoint()
    return Resolved(
        directory,
        f"Hub repo {repository.repo_id}",
        repository.repo_id,
        commit_of(directory / CONFIG, CONFIG),
        _checksums_of(weights, repository.root),
    )


def _resolve_name(name: str, repository: Repository) -> Resolved:
    entry = get_entry(name)
    source = f"registry name {name}"
    if entry.bundled:
        if repository.revision is not None:
            raise ValueError(f"{name!r} is inside the package and has no revision {repository.revision!r}.")
        weights = open_bundled(entry, repository.root)
        return Resolved(weights[0].parent, source, name, None, _checksums_of(weights, repository.root))
    checkpoint = NamedCheckpoint(entry, replace(repository, repo_id=str(entry.repo_id)))
    directory, weights, commit, converted = checkpoint.open()
    return Resolved(directory, source, name, commit, _checksums_of(weights, repository.root), converted)


def _checksums_of(weights: list[Path], root: Path) -> dict[str, str]:
    return {path.name: checksums.digest(path, root) for path in weights}
