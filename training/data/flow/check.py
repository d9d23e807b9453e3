"""Naming what is missing of flow data sets before anything starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from midway_hub.training.data.flow.mix import MixedFlow
from midway_hub.training.data.flow.sample import FlowDataset

logger = logging.getLogger("midway_hub")

NAMED = 3  # missing files that a line names


@dataclass(frozen=True)
class FlowCheck:
    """What is there of a data set.

    Attributes:
        name: Its name.
        pairs: Number of pairs, those with missing files included.
        missing: Paths of the files that are not there.
        expected: Pairs of the data set as it is published, None where that is not known.
    """

    name: str
    pairs: int
    missing: tuple[str, ...]
    expected: int | None = None

    def __str__(self) -> str:
        if not self.missing:
            return f"{self.name}: {self.pairs} pairs, all files are there"
        more = f" and {len(self.missing) - NAMED} more" if len(self.missing) > NAMED else ""
        return (
            f"{self.name}: {self.pairs} pairs, {len(self.missing)} files are missing: "
            f"{', '.join(self.missing[:NAMED])}{more}"
        )


def check_flow_datasets(datasets: Iterable[FlowDataset], *, allowed: float = 0.0) -> list[FlowCheck]:
    """Count and name missing files, and warn of data sets whose number of pairs is not the published one.

    Args:
        datasets: The data sets; of a mixture, each part.
        allowed: Missing files per pair of a data set that are put up with; its broken pairs raise `SampleError` later.

    Returns:
        What is there of each.

    Raises:
        FileNotFoundError: More files are missing than allowed; the message names them for every data set.
    """
    parts = [part for dataset in datasets for part in _parts(dataset)]
    checks = [FlowCheck(part.name, len(part), tuple(part.missing()), getattr(part, "expected", None)) for part in parts]
    for check in checks:
        logger.log(logging.WARNING if check.missing else logging.INFO, "%s", check)
        if check.expected not in (None, check.pairs) and not check.missing:
            logger.warning(
                "%s: %d pairs are complete, but %d are published; numbers will not compare with others'",
                check.name,
                check.pairs,
                check.expected,
            )
    if any(len(check.missing) > allowed * check.pairs for check in checks):
        found = "\n".join(f"  {check}" for check in checks if check.missing)
        raise FileNotFoundError(
            f"flow data sets are not complete (allowed are {allowed:g} missing files per pair):\n{found}\n"
            "unpack their archives again, or allow more"
        )
    return checks


def _parts(dataset: FlowDataset) -> list[FlowDataset]:
    return [part for part, _ in dataset.parts] if isinstance(dataset, MixedFlow) else [dataset]
