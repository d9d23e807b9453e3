"""What is known about a flow data set before its folder is looked at."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from midway_hub.training.data.flow.pair_list import PLAIN, FileForm, PairFiles


@dataclass(frozen=True)
class FlowSet:
    """A data set, or a split of one.

    Attributes:
        description: One line for people.
        layout: Where its files are expected below its folder.
        find: Lists the pairs below a folder; keyword arguments with a default are options for users.
        form: How to understand the files.
        expected: Pairs of the data set as it is published, where that is known.
    """

    description: str
    layout: str
    find: Callable[..., Iterable[PairFiles]]
    form: FileForm = PLAIN
    expected: int | None = None

    def options(self) -> list[str]:
        """Return the names of what users may choose."""
        fixed = self.find.keywords if isinstance(self.find, partial) else {}
        parameters = inspect.signature(self.find).parameters.values()
        return [item.name for item in parameters if item.kind is item.KEYWORD_ONLY and item.name not in fixed]


def chosen_of(option: str, chosen: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """Return what a user chose of what there is.

    Raises:
        ValueError: Something else, or nothing.
    """
    known = list(known)
    chosen = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    if not chosen or not set(chosen) <= set(known):
        raise ValueError(f"{option} must be some of {', '.join(known)}, got {', '.join(map(str, chosen)) or 'none'}")
    return chosen
