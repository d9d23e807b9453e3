"""What can go wrong between a name and its weights, said in the user's terms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, errors

from midway_hub.hub.patience import asked_to_wait, limited_patience


class WeightsError(OSError):
    """Weights could not be had."""


class WeightsNotFoundError(WeightsError, FileNotFoundError):
    """There is no such path, repository, revision or file, or it is not in the cache while offline."""


class WeightsAccessError(WeightsError, PermissionError):
    """The repository is gated, private or disabled for this user."""


class WeightsUnavailableError(WeightsError, ConnectionError):
    """The Hub could not be reached or did not answer as a Hub does."""


class CorruptWeightsError(WeightsError, ValueError):
    """A file is truncated, damaged, or not what was published."""


class MissingFromRepositoryError(WeightsNotFoundError):
    """The repository was reached and does not hold the file."""


@contextmanager
def plain_errors(repo_id: str, filename: str, revision: str | None, cache_dir: Path, *, offline: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into an error that says what was seen and what to do, and bound its waits.

    Args:
        repo_id: Repository that is asked.
        filename: File that is asked for.
        revision: Branch, tag or commit; None is `main`.
        cache_dir: Where downloads are kept.
        offline: Why the network may not be used; empty if it may.
    """
    at = f"revision {revision or constants.DEFAULT_REVISION!r}"
    what = f"{filename} of Hub repository {repo_id!r} at {at}"
    try:
        with limited_patience():
            yield
    except errors.GatedRepoError as error:
        raise WeightsAccessError(
            f"Hub repository {repo_id!r} is gated. Accept its terms at {constants.ENDPOINT}/{repo_id}, then log in "
            "with `hf auth login` or pass token=."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsNotFoundError(
            f"There is no Hub repository {repo_id!r} at {constants.ENDPOINT}, or it is private, and there is no file "
            f"or folder of that name in {Path.cwd()}. Check the spelling; for a private repository log in with "
            "`hf auth login` or pass token=."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise WeightsNotFoundError(
            f"Hub repository {repo_id!r} has no {at}. Its branches, tags and commits are listed at "
            f"{constants.ENDPOINT}/{repo_id}/commits/main."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if offline:
            raise WeightsNotFoundError(
                f"Offline ({offline}) and {what} is not in the cache {cache_dir}. Load it once with network access, or "
                "point cache_dir= (or HF_HUB_CACHE) at a cache that holds it."
            ) from error
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _http_error(error.__cause__, repo_id, what) from error
        raise WeightsUnavailableError(
            f"{constants.ENDPOINT} could not be reached ({_reason(error)}) and {what} is not in the cache {cache_dir}. "
            "Check the connection and try again."
        ) from error
    except errors.EntryNotFoundError as error:
        raise MissingFromRepositoryError(f"Hub repository {repo_id!r} has no {filename} at {at}.") from error
    except errors.HfHubHTTPError as error:
        raise _http_error(error, repo_id, what) from error
    except errors.HFValidationError as error:
        raise ValueError(f"{repo_id!r} is not a Hub repository id, which is written 'owner/name': {error}") from error
    except WeightsError:
        raise
    except (OSError, errors.HTTPError) as error:
        raise _transfer_error(error, what) from error


def _http_error(error: errors.HfHubHTTPError, repo_id: str, what: str) -> WeightsError:
    status = error.response.status_code
    if status in (401, 403):
        return WeightsAccessError(
            f"The Hub refused {what} (HTTP {status}). The token is wrong, has expired, or may not read {repo_id!r}: "
            "log in with `hf auth login` or pass another token=."
        )
    answered = f"The Hub at {constants.ENDPOINT} answered HTTP {status} to {what}, which is not cached"
    wait = asked_to_wait(error.response)
    if wait is None:
        return WeightsUnavailableError(f"{answered}. Try again later.")
    why = "too many requests came from this address or token" if status == 429 else "it is busy"
    return WeightsUnavailableError(
        f"{answered}, and asks to wait for {wait} seconds: {why}. Try again after that; logging in with "
        "`hf auth login` raises the limit."
    )


def _transfer_error(error: Exception, what: str) -> WeightsError:
    if "Consistency check failed" in str(error):
        return CorruptWeightsError(
            f"The download of {what} was cut short: {str(error).splitlines()[0]} Nothing was kept; run the same call "
            "again to download it anew."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return WeightsError(error.errno, f"{error.strerror} while storing {what}", error.filename)
    return WeightsUnavailableError(f"The download of {what} broke off ({_reason(error)}). Run the same call again.")


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no further details'}"


__all__ = [
    "CorruptWeightsError",
    "MissingFromRepositoryError",
    "WeightsAccessError",
    "WeightsError",
    "WeightsNotFoundError",
    "WeightsUnavailableError",
    "plain_errors",
]
