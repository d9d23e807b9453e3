"""HD1K (Kondermann et al., 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from midway_hub.training.data.flow.flow_set import FlowSet
from midway_hub.training.data.flow.numbering import numbered, starts_of_pairs
from midway_hub.training.data.flow.pair_list import FileForm, PairFiles

IMAGES, FLOWS = "hd1k_input/image_2", "hd1k_flow_gt/flow_occ"


def hd1k_pairs(root: Path) -> Iterator[PairFiles]:
    """List pairs within a sequence; the last frame of a sequence has no partner."""
    sequences = {number for folder in (IMAGES, FLOWS) for number in numbered(root / folder, r"(\d{6})_\d{4}\.png")}
    for number in sorted(sequences):
        sequence = f"{number:06d}"
        with_image, with_flow = (numbered(root / folder, rf"{sequence}_(\d{{4}})\.png") for folder in (IMAGES, FLOWS))
        for start in starts_of_pairs(with_image, with_flow, last_has_flow=True):
            name = f"{sequence}_{start:04d}"
            yield PairFiles(
                f"{IMAGES}/{name}.png",
                f"{IMAGES}/{sequence}_{start + 1:04d}.png",
                f"{FLOWS}/{name}.png",
                name=name,
                sequence=sequence,
            )


SETS = {
    "hd1k/train": FlowSet(
        "HD1K, training",
        f"{IMAGES}/SSSSSS_NNNN.png and {FLOWS}/SSSSSS_NNNN.png",
        hd1k_pairs,
        FileForm(sparse=True),
        expected=1047,
    )
}
