"""Do a head and a data set speak of the same classes."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 8


class ClassMismatchError(ValueError):
    """A head's classes are not those of a data set; the message says how they differ."""


def check_classes(head: Sequence[str], dataset: Sequence[str], *, name: str) -> list[str]:
    """Compare the classes of a head with those of a data set.

    Args:
        head: Names of the head's classes, in order.
        dataset: Names of the data set's classes, in order.
        name: What the data set is called.

    Returns:
        One line per class of another name, for a warning: the classes may be the same under other names.

    Raises:
        ClassMismatchError: There are more or fewer, or the same ones in another order.
    """
    if len(head) != len(dataset):
        lacks = [each for each in dataset if each not in head]
        beyond = [each for each in head if each not in dataset]
        raise ClassMismatchError(
            f"the head tells {len(head)} classes apart, {name} has {len(dataset)}: the head lacks {_listed(lacks)} "
            f"and has besides {_listed(beyond)}. "
            "Evaluate on a data set of the head's classes, or train a head on this one"
        )
    pairs = enumerate(zip(head, dataset, strict=True))
    differing = [f"{n} is {ours!r} in the head, {theirs!r} in {name}" for n, (ours, theirs) in pairs if ours != theirs]
    if differing and set(head) == set(dataset):
        raise ClassMismatchError(
            f"the head has the classes of {name} in another order: {_listed(differing)}. Every number would be wrong; "
            "give the data set the head's list of classes"
        )
    return differing


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "none") + more
