"""What could not be read, and how much of it a run bears."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LISTED = 10


@dataclass(frozen=True)
class Rejection:
    """An item that could not give its pairs.

    Attributes:
        item: Its number in the source.
        file: The file.
        reason: What is wrong with it.
    """

    item: int
    file: str
    reason: str


class TooManyRejectedError(RuntimeError):
    """So much of the data cannot be read that training on the rest would be training on something else."""


class Quarantine:
    """Keeps what was rejected in this process, each file once, and stops the run above a share of the items.

    Args:
        items: Items of the source.
        max_rejected: Share of them that may be rejected.
    """

    def __init__(self, items: int, max_rejected: float) -> None:
        self._items, self._max_rejected = items, max_rejected
        self._rejected: dict[str, Rejection] = {}
        self._numbers: set[int] = set()

    def add(self, rejections: Iterable[Rejection]) -> None:
        """Take note of rejected items.

        Raises:
            TooManyRejectedError: They are more than the share allowed; the message lists them.
        """
        for rejection in rejections:
            self._rejected.setdefault(rejection.file, rejection)
            self._numbers.add(rejection.item)
        if exceeds(len(self._numbers), self._items, self._max_rejected):
            raise TooManyRejectedError(
                f"{len(self._numbers)} of {self._items} items of the data cannot be read, more than the share "
                f"data.max_rejected={self._max_rejected:g}; mend or remove them, or allow more:\n{self.listed()}"
            )

    def records(self) -> list[dict[str, str]]:
        """Return `file` and `reason` of each rejected file, in the order in which they came up."""
        return [{"file": rejection.file, "reason": rejection.reason} for rejection in self._rejected.values()]

    def listed(self) -> str:
        """Return the first rejected files, a line each, and how many more there are."""
        lines = [f"  {record['file']}: {record['reason']}" for record in self.records()]
        rest = len(lines) - LISTED
        return "\n".join(lines[:LISTED] + ([f"  ... and {rest} more"] if rest > 0 else []))


def exceeds(rejected: int, items: int, max_rejected: float) -> bool:
    """Return whether so many rejected items are more than the share allowed."""
    return rejected > max_rejected * items + 1e-9
