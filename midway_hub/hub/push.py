"""Saved networks to the Hub: only what belongs to a checkpoint, in one commit, and no hand-written card is lost."""

from __future__ import annotations

import logging
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, errors, hf_hub_download

from midway_hub._version import __version__
from midway_hub.cards import CARD, is_handwritten, write_model_card
from midway_hub.hub.errors import WeightsAccessError, WeightsUnavailableError
from midway_hub.hub.local import open_directory
from midway_hub.hub.patience import limited_patience
from midway_hub.hub.weight_files import CONFIG, INDEX, PREPROCESSOR, WEIGHTS
from midway_hub.registry import list_models

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger("midway_hub")

_EXTRAS = (PREPROCESSOR, "conversion.json")
_WEIGHTS = re.compile(rf"{re.escape(WEIGHTS)}|{re.escape(INDEX)}|model-\d+-of-\d+\.safetensors")


def push_to_hub(
    model: PreTrainedModel,
    repo_id: str,
    *,
    processor: Any = None,
    base: str | None = None,
    max_shard_size: int | str | None = None,
    **kwargs: Any,
) -> str:
    """Save a network and upload it; a hand-written card in the repository is kept.

    Args:
        model: The network.
        repo_id: `"owner/name"` of a Hub repository, which is made if there is none.
        processor: An image processor to save beside it, in place of the network's own.
        base: Registry name of the checkpoint it was made from, so that its licence is stated; by default the name it
            was loaded by.
        max_shard_size: Largest size of one weight file, in bytes or such as `"2GB"`.
        **kwargs: `private`, `revision`, `commit_message`, `create_pr`, `token`: see `push_folder`.

    Returns:
        Address of the commit, or of the pull request.

    Raises:
        WeightsAccessError: The token may not write there.
        WeightsUnavailableError: The Hub cannot be reached.
    """
    if base is None:
        loaded_by = getattr(getattr(model, "load_report", None), "source", "").removeprefix("registry name ")
        base = loaded_by if loaded_by in list_models() else None
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, **({} if max_shard_size is None else {"max_shard_size": max_shard_size}))
        if processor is not None:
            processor.save_pretrained(folder)
        return push_folder(folder, repo_id, base=base, **kwargs)


@limited_patience()
def push_folder(
    directory: str | Path,
    repo_id: str,
    *,
    base: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a Midway Network",
    create_pr: bool = False,
    token: str | bool | None = None,
) -> str:
    """Upload a saved network in one commit.

    Configuration, safetensors, processor settings, conversion record and card go up; nothing else in the folder does.
    Weight files that an earlier upload left and this one lacks are removed. A hand-written card in the folder wins;
    else one in the repository is kept; else a card is generated.

    Args:
        directory: What `save_pretrained` or the conversion wrote.
        repo_id: `"owner/name"` of a Hub repository, which is made if there is none.
        base: Registry name of the checkpoint it was made from, so that its licence is stated.
        private: Whether a repository that is made is private; by default the owner's setting.
        revision: Branch to commit to, which is made if there is none; by default `main`.
        commit_message: One line.
        create_pr: Whether to open a pull request instead.
        token: Access token of the Hub; by default the stored one.

    Returns:
        Address of the commit, or of the pull request.

    Raises:
        WeightsNotFoundError: The folder lacks a file.
        CorruptWeightsError: A file is damaged.
        WeightsAccessError: The token may not write there.
        WeightsUnavailableError: The Hub cannot be reached.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is not a folder. Save the network first: net.save_pretrained(folder).")
    weights = open_directory(directory)
    index = [directory / INDEX] if len(weights) > 1 or weights[0].name != WEIGHTS else []
    extras = [directory / name for name in _EXTRAS if (directory / name).is_file()]
    api = HfApi(token=token, library_name="midway_hub", library_version=__version__)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None and not create_pr:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            card = _card(directory, base, repo_id, revision, token, Path(folder))
            uploads = [directory / CONFIG, *weights, *index, *extras, *card]
            names = {path.name for path in uploads}
            stale = [
                name
                for name in api.list_repo_files(repo_id, revision=revision)
                if _WEIGHTS.fullmatch(name) and name not in names
            ]
            commit = api.create_commit(
                repo_id,
                [
                    *(CommitOperationAdd(path.name, str(path)) for path in uploads),
                    *(CommitOperationDelete(name) for name in stale),
                ],
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise WeightsAccessError(
                f"May not write to {repo_id!r} (HTTP {status}). Log in with `hf auth login`, or pass a token= that has "
                "write access."
            ) from error
        raise
    except (errors.HTTPError, ConnectionError) as error:
        raise WeightsUnavailableError(f"{constants.ENDPOINT} could not be reached: {error}") from error
    return str(commit.pr_url or commit.commit_url)


def _card(
    directory: Path, base: str | None, repo_id: str, revision: str | None, token: str | bool | None, folder: Path
) -> list[Path]:
    if is_handwritten(directory / CARD):
        return [directory / CARD]
    try:
        there = hf_hub_download(repo_id, CARD, revision=revision, token=token, cache_dir=folder / "there")
    except errors.EntryNotFoundError:
        there = None
    if there is not None and is_handwritten(Path(there)):
        logger.info("the card of %s was written by hand and is kept", repo_id)
        return []
    for name in (CONFIG, "conversion.json"):
        if (directory / name).is_file():
            (folder / name).write_bytes((directory / name).read_bytes())
    return [write_model_card(folder, base=base)]
