"""Registry names: inside the package, published as safetensors, or the authors' .pth converted once per cache."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from huggingface_hub import HfFileMetadata, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import WeakFileLock

from midway_hub.hub import checksums
from midway_hub.hub.errors import (
    CorruptWeightsError,
    WeightsError,
    WeightsNotFoundError,
    WeightsUnavailableError,
)
from midway_hub.hub.patience import limited_patience
from midway_hub.hub.repository import Repository, commit_of
from midway_hub.hub.weight_files import CONFIG, WEIGHTS, check_directory, is_pickle
from midway_hub.registry import RegistryEntry, of_repository

logger = logging.getLogger("midway_hub")

_NEWS_TIMEOUT = 3.0  # seconds; whether a repository has moved on is a courtesy and must not hold loading up


def bundled_folder(entry: RegistryEntry) -> Path:
    """Return where the package holds a bundled checkpoint, whether or not it is there."""
    return Path(str(files("midway_hub.weights"))) / entry.name


def open_bundled(entry: RegistryEntry, root: Path) -> list[Path]:
    """Check weights that are inside the package.

    Args:
        entry: The registry's entry.
        root: What `cache_root` returns.

    Returns:
        The weight files.

    Raises:
        WeightsNotFoundError: The package lacks them.
        CorruptWeightsError: They are damaged.
    """
    again = "Reinstall the package: `pip install --force-reinstall --no-deps midway-hub`."
    directory = bundled_folder(entry)
    if not directory.is_dir():
        raise WeightsNotFoundError(f"The weights of {entry.name!r} are missing from the package ({directory}). {again}")
    try:
        weights = check_directory(directory)
        seen = checksums.digest(weights[0], root)
        if entry.sha256 not in (None, seen):
            raise CorruptWeightsError(
                f"{weights[0]} is not what the registry pins: sha256 {seen}, expected {entry.sha256}."
            )
    except CorruptWeightsError as error:
        raise CorruptWeightsError(f"{error} {again}") from error
    return weights


class NamedCheckpoint:
    """A registered checkpoint that lives in a Hub repository, as one cache sees it.

    An entry without a pinned revision is trusted on first use: the commit that a cache resolves first is kept in it, so
    that a repository that moves on does not change what a name means.

    Args:
        entry: The registry's entry.
        repository: Its repository; a revision in it overrides the pinned or kept one.
    """

    def __init__(self, entry: RegistryEntry, repository: Repository) -> None:
        self.entry, self.root = entry, repository.root
        self.overridden = repository.revision is not None
        self.kept_path = self.root / "commits" / f"{entry.name}.json"
        kept = checksums.read_json(self.kept_path) or {}
        self.kept = kept if kept.get("repo_id") == entry.repo_id and kept.get("filename") == entry.filename else {}
        revision = repository.revision or entry.revision or self.kept.get("commit")
        self.repository = replace(repository, revision=revision)

    def open(self) -> tuple[Path, list[Path], str, bool]:
        """Get the weights, converting the authors' file if nothing else is published.

        Returns:
            The folder, its weight files, the commit, and whether they were converted.

        Raises:
            WeightsError: They could not be had; the message says why and what to do.
        """
        ready = self._already_converted(self.repository.revision) if self.repository.is_commit else None
        if ready is None:
            ready = self._published() or self._converted()
        self._keep_commit(commit=ready[2])
        return ready

    def _published(self) -> tuple[Path, list[Path], str, bool] | None:
        filename = str(self.entry.filename)
        if not is_pickle(filename):
            folder, _, name = filename.rpartition("/")
            if self._sha256 is not None:
                self.repository.fetch(filename, sha256=self._sha256)
            directory, weights = self.repository.fetch_checkpoint(folder)
            return directory, weights, commit_of(directory / name, filename), False
        # A repository of several checkpoints has a folder for each; only one that holds a single one may use its top.
        alone = of_repository(str(self.entry.repo_id)) == [self.entry.name]
        for folder in (Path(filename).stem, *([""] if alone else [])):
            try:
                directory, weights = self.repository.fetch_checkpoint(folder)
            except (WeightsNotFoundError, WeightsUnavailableError, ValueError) as error:
                if isinstance(error, CorruptWeightsError):
                    raise
                logger.debug("no safetensors for %s: %s", self.entry.name, error)
                continue
            return directory, weights, commit_of(directory / CONFIG, f"{folder}/{CONFIG}" if folder else CONFIG), False
        return None

    def _converted(self) -> tuple[Path, list[Path], str, bool]:
        filename = str(self.entry.filename)
        source = self.repository.fetch(filename, sha256=self._sha256)
        commit = commit_of(source, filename)
        folder = self._folder(commit)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WeightsError(
                f"{filename} is converted to safetensors once, and {folder} cannot be written: {error}. Point "
                "cache_dir= (or HF_HOME) at a folder that can."
            ) from error
        with WeakFileLock(folder.with_suffix(".lock")):
            ready = self._already_converted(commit)
            if ready is not None:
                return ready
            from midway_hub.convert import convert_checkpoint

            for leftover in folder.parent.glob(f".{commit}.*"):  # of a conversion that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            logger.info("converting %s to safetensors, once, in %s", filename, folder)
            convert_checkpoint(source, folder)
            checksums.digest(folder / WEIGHTS, self.root)
        ready = self._already_converted(commit)
        if ready is None:
            raise WeightsNotFoundError(f"The conversion of {source} wrote nothing to {folder}.")
        return ready

    def _already_converted(self, commit: str | None) -> tuple[Path, list[Path], str, bool] | None:
        if commit is None or not self._folder(commit).is_dir():
            return None
        folder = self._folder(commit)
        origin = (checksums.read_json(folder / "conversion.json") or {}).get("source", {})
        if self._sha256 not in (None, origin.get("sha256")):
            return None  # it was made before the pin; fetching the file again says what is wrong with it
        try:
            weights = check_directory(folder)
            expected = checksums.remembered(weights[0], self.root)
            if expected is not None and checksums.digest(weights[0], self.root) != expected:
                raise CorruptWeightsError(f"{weights[0]} is not what the conversion wrote.")
        except (CorruptWeightsError, WeightsNotFoundError) as error:
            checksums.forget(folder / WEIGHTS, self.root)
            shutil.rmtree(folder, ignore_errors=True)
            raise CorruptWeightsError(
                f"{error} The damaged conversion was removed from the cache; run the same call again to redo it."
            ) from error
        return folder, weights, commit, True

    def _folder(self, commit: str) -> Path:
        return self.root / "converted" / self.entry.name / commit

    @property
    def _sha256(self) -> str | None:
        pinned = not self.overridden or self.repository.revision == self.entry.revision
        return self.entry.sha256 if pinned else None

    def _keep_commit(self, commit: str) -> None:
        if self.overridden or self.entry.revision is not None:
            return
        if self.kept:
            self._tell_news(commit)
            return
        content = {"repo_id": self.entry.repo_id, "filename": self.entry.filename, "commit": commit}
        checksums.write_json(self.kept_path, content)

    def _tell_news(self, commit: str) -> None:
        if self.repository.offline:
            return
        try:
            now = self._published_at("main")
            changed = now.commit_hash != commit and now.etag != self._published_at(commit).etag
        except Exception as error:
            logger.debug("could not see whether %s has moved on: %s", self.entry.repo_id, error)
            return
        if changed:
            logger.warning(
                "%s stays at commit %s, which this cache loaded first; %s of %s has changed since (commit %s). "
                "Pass revision=%r to load the new weights, or delete %s to use them from now on.",
                self.entry.name,
                commit,
                self.entry.filename,
                self.entry.repo_id,
                now.commit_hash,
                now.commit_hash,
                self.kept_path,
            )

    def _published_at(self, revision: str) -> HfFileMetadata:
        url = hf_hub_url(str(self.entry.repo_id), str(self.entry.filename), revision=revision)
        with limited_patience(0):
            return get_hf_file_metadata(url, token=self.repository.token, timeout=_NEWS_TIMEOUT)
