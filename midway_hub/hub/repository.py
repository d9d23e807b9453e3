"""Files of one Hub repository: fetched through huggingface_hub's cache, and checked against what was published."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache

from midway_hub._version import __version__
from midway_hub.cards import CARD
from midway_hub.hub import checksums
from midway_hub.hub.errors import (
    CorruptWeightsError,
    MissingFromRepositoryError,
    WeightsUnavailableError,
    plain_errors,
)
from midway_hub.hub.patience import limited_patience
from midway_hub.hub.reach import Reach
from midway_hub.hub.watching import watched
from midway_hub.hub.weight_files import (
    CONFIG,
    INDEX,
    PREPROCESSOR,
    WEIGHTS,
    check_config,
    check_safetensors,
    is_pickle,
    shard_names,
)
from midway_hub.registry import of_repository

logger = logging.getLogger("midway_hub")

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPTIONAL = (PREPROCESSOR, "conversion.json")


@dataclass(frozen=True)
class Repository:
    """One revision of one Hub repository, as one cache sees it.

    Attributes:
        repo_id: `"owner/name"`.
        revision: Branch, tag or commit; None is `main`.
        cache_dir: The user's choice of cache, or None for the Hub's own.
        local_files_only: Whether the network is ruled out.
        token: Access token, or None for the stored one.
        reach: What this load has seen of the Hub; copies for other revisions share it.
    """

    repo_id: str
    revision: str | None = None
    cache_dir: Path | None = None
    local_files_only: bool = False
    token: str | bool | None = None
    reach: Reach = field(default_factory=Reach, compare=False, repr=False)

    @property
    def offline(self) -> str:
        """Why the network may not be used; empty if it may."""
        if self.local_files_only:
            return "local_files_only=True"
        return "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""

    @property
    def hub_cache(self) -> Path:
        """Where huggingface_hub keeps downloads."""
        return Path(constants.HF_HUB_CACHE if self.cache_dir is None else self.cache_dir).expanduser().resolve()

    @property
    def root(self) -> Path:
        """Where this package keeps its own records and conversions."""
        return checksums.cache_root(self.cache_dir)

    def fetch(self, filename: str, *, sha256: str | None = None) -> Path:
        """Get one file, downloading it unless it is cached, and check that it is what was published.

        Args:
            filename: Path in the repository.
            sha256: What the file must hash to; by default what the Hub says of it.

        Returns:
            The file in the cache.

        Raises:
            WeightsError: The file could not be had; the message says why and what to do.
            CorruptWeightsError: It is damaged. It was removed, so that the next call downloads it anew.
        """
        with plain_errors(self.repo_id, filename, self.revision, self.hub_cache, offline=self.offline):
            if not self.offline and not self._cached(filename):
                self.reach.need(self.repo_id, filename, self.revision, self.token)
            downloaded = hf_hub_download(
                self.repo_id,
                filename,
                revision=self.revision,
                cache_dir=self.hub_cache,
                local_files_only=bool(self.offline),
                token=self.token,
                library_name="midway_hub",
                library_version=__version__,
                **watched(filename),
            )
        path = Path(downloaded)
        try:
            if path.suffix == ".safetensors":
                check_safetensors(path)
            self._check_digest(path, filename, sha256)
        except CorruptWeightsError as error:
            self._discard(path)
            raise CorruptWeightsError(
                f"{error} The damaged file was removed from the cache; run the same call again to download it anew."
            ) from error
        if sha256 is not None and checksums.digest(path, self.root) != sha256:
            raise CorruptWeightsError(
                f"{filename} of {self.repo_id!r} arrived whole but is another file than the registry pins: sha256 "
                f"{checksums.digest(path, self.root)}, expected {sha256}. Update midway_hub, or pass revision= to "
                "choose a revision yourself."
            )
        return path

    def fetch_checkpoint(self, folder: str = "") -> tuple[Path, list[Path]]:
        """Get the configuration, the processor's settings and all weight files.

        Args:
            folder: Folder of the repository that holds them; by default its top.

        Returns:
            The folder in the cache and the weight files.

        Raises:
            WeightsError: A file could not be had; the message says which and what to do.
            CorruptWeightsError: A file is damaged.
            ValueError: The repository holds another kind of model.
        """
        prefix = f"{folder}/" if folder else ""
        config = self.fetch(prefix + CONFIG)
        check_config(config)
        here = replace(self, revision=commit_of(config, prefix + CONFIG))
        for name in _OPTIONAL:
            here._fetch_if_there(prefix + name)
        return config.parent, here._fetch_weights(prefix)

    def fetch_description(self) -> Path:
        """Get what says what the checkpoint is, without its weights.

        Returns:
            The configuration in the cache; the processor's settings and the card lie beside it, if there are any.

        Raises:
            WeightsError: The configuration could not be had; the message says why and what to do.
            ValueError: The repository holds another kind of model.
        """
        config = self.fetch(CONFIG)
        check_config(config)
        here = replace(self, revision=commit_of(config, CONFIG))
        for name in (*_OPTIONAL, CARD):
            here._fetch_if_there(name)
        return config

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a full commit hash."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def _fetch_weights(self, prefix: str) -> list[Path]:
        if self._cached(prefix + WEIGHTS) or not self._cached(prefix + INDEX):
            with contextlib.suppress(MissingFromRepositoryError):
                return [self.fetch(prefix + WEIGHTS)]
        try:
            index = self.fetch(prefix + INDEX)
        except MissingFromRepositoryError as error:
            raise MissingFromRepositoryError(self._no_safetensors()) from error
        return [self.fetch(prefix + name) for name in shard_names(index)]

    def _fetch_if_there(self, filename: str) -> None:
        known = try_to_load_from_cache(self.repo_id, filename, cache_dir=self.hub_cache, revision=self.revision)
        why = self.offline if known is None else ""
        if not why:
            try:
                if known is None or isinstance(known, str):  # else the Hub said before that there is none
                    self.fetch(filename)
                return
            except MissingFromRepositoryError:
                return
            except WeightsUnavailableError as error:
                why = str(error)
        if filename.endswith(PREPROCESSOR):
            logger.warning(
                "whether Hub repository %r says how its frames are normalised (%s) cannot be seen (%s); ImageNet's "
                "mean and standard deviation are taken",
                self.repo_id,
                filename,
                why,
            )

    def _cached(self, filename: str) -> bool:
        found = try_to_load_from_cache(self.repo_id, filename, cache_dir=self.hub_cache, revision=self.revision)
        return isinstance(found, str)

    def _no_safetensors(self) -> str:
        message = f"Hub repository {self.repo_id!r} has neither {WEIGHTS} nor {INDEX}."
        names = of_repository(self.repo_id)
        if names:
            return f"{message} Its weights are loaded by name: {', '.join(map(repr, names))}."
        with (
            contextlib.suppress(Exception),
            limited_patience(0),
        ):  # the list is a courtesy: the error is the missing file
            held = HfApi(token=self.token).list_repo_files(self.repo_id, revision=self.revision)
            pickles = [name for name in held if is_pickle(name)]
            message += f" It holds: {', '.join(held[:12])}{', ...' if len(held) > 12 else ''}."
            if pickles:
                message += (
                    f" Pickled files are not loaded from a repository: if you trust {pickles[0]}, download it and run "
                    f"`midway-hub convert {pickles[0]} OUT`."
                )
        return message

    def _check_digest(self, path: Path, filename: str, sha256: str | None) -> None:
        expected = self._published_digest(path, filename) or sha256
        if expected is None:
            return
        seen = checksums.digest(path, self.root, "sha256" if _SHA256.fullmatch(expected) else "git-sha1")
        if seen != expected:
            raise CorruptWeightsError(
                f"{path} is not what was published: its {path.stat().st_size} bytes have checksum {seen}, "
                f"expected {expected}."
            )

    def _published_digest(self, path: Path, filename: str) -> str | None:
        # The cache names a blob after the Hub's checksum: a sha256 for large files, git's id for small ones.
        if path.is_symlink():
            name = path.readlink().name
            return name if _SHA256.fullmatch(name) or _COMMIT.fullmatch(name) else None
        verified_before = checksums.remembered(path, self.root)
        if verified_before or self.offline:
            return verified_before
        commit = commit_of(path, filename)
        with plain_errors(self.repo_id, filename, commit, self.hub_cache, offline=""):
            for file in HfApi(token=self.token).get_paths_info(self.repo_id, [filename], revision=commit):
                return getattr(getattr(file, "lfs", None), "sha256", None) or getattr(file, "blob_id", None)
        return None

    def _discard(self, path: Path) -> None:
        # A snapshot entry is a link to a blob, which may itself be a link into a store shared by repositories.
        checksums.forget(path, self.root)
        while True:
            target = Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else None
            path.unlink(missing_ok=True)
            if target is None or not target.is_relative_to(self.hub_cache):
                return
            path = target


def commit_of(path: Path, filename: str) -> str:
    """Read from a cached file's place which commit it belongs to.

    Args:
        path: What `Repository.fetch` returned.
        filename: What it was asked for.

    Returns:
        The full commit hash.
    """
    return path.parents[filename.count("/")].name
