"""Whether the Hub can be reached at all: asked once per load, before a download that would be tried for minutes."""

from __future__ import annotations

from huggingface_hub import constants, errors, get_hf_file_metadata, hf_hub_url

from midway_hub.hub.patience import limited_patience

_UNREACHED = {"ConnectError", "ConnectTimeout", "ProxyError"}  # of the HTTP library that huggingface_hub happens to use


class Reach:
    """What one load has seen of the Hub.

    huggingface_hub tries a server that cannot be reached six times for every file that is not cached, and waits in
    between. A server that answers, or breaks off, is left to it.
    """

    def __init__(self) -> None:
        self._answered = False
        self._failed: Exception | None = None

    def need(self, repo_id: str, filename: str, revision: str | None, token: str | bool | None) -> None:
        """Ask for a file, unless the Hub was asked before.

        Args:
            repo_id: `"owner/name"`.
            filename: Path in the repository.
            revision: Branch, tag or commit; None is `main`.
            token: Access token, or None for the stored one.

        Raises:
            LocalEntryNotFoundError: There is no connection to the Hub; its cause says why.
        """
        if not self._answered and self._failed is None:
            try:
                url = hf_hub_url(repo_id, filename, revision=revision)
                with limited_patience(0):  # nobody waits here
                    get_hf_file_metadata(url, token=token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            except Exception as error:
                kinds = {kind.__name__ for kind in type(error).__mro__}
                self._failed = error if kinds & _UNREACHED else None
            self._answered = self._failed is None
        if self._failed is not None:
            raise errors.LocalEntryNotFoundError("there is no connection to the Hub") from self._failed
