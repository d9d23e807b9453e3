"""Middlebury (Baker et al., 2011): the sequences with public ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from midway_hub.training.data.flow.flow_set import FlowSet
from midway_hub.training.data.flow.numbering import folders
from midway_hub.training.data.flow.pair_list import PairFiles


def middlebury_pairs(root: Path) -> Iterator[PairFiles]:
    """List frames 10 and 11 of each sequence with flow."""
    for sequence in folders(root / "other-gt-flow"):
        yield PairFiles(
            f"other-data/{sequence}/frame10.png",
            f"other-data/{sequence}/frame11.png",
            f"other-gt-flow/{sequence}/flow10.flo",
            name=sequence,
            sequence=sequence,
        )


SETS = {
    "middlebury/train": FlowSet(
        "Middlebury, the sequences with public ground truth",
        "other-data/SEQUENCE/frame{10,11}.png and other-gt-flow/SEQUENCE/flow10.flo",
        middlebury_pairs,
        expected=8,
    )
}
