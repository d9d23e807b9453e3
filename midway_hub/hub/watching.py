"""Telling how far a download from the Hub is, to whoever asked."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.utils import tqdm

from midway_hub._progress import download_watcher


def watched(filename: str) -> dict[str, Any]:
    """Return what `hf_hub_download` needs to tell how far it is: nothing where nobody asked, or where it cannot."""
    tell = download_watcher(filename)
    able = "tqdm_class" in inspect.signature(hf_hub_download).parameters
    return {} if tell is None or not able else {"tqdm_class": _telling(tell)}


def _telling(tell: Callable[[int, int], None]) -> type[tqdm]:
    class Telling(tqdm):
        """The Hub's own bar, which is silent without a terminal."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._arrived, self._size = int(kwargs.get("initial") or 0), int(kwargs.get("total") or 0)
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> bool | None:
            self._arrived += int(n or 0)
            tell(self._arrived, self._size)
            return super().update(n)

    return Telling
