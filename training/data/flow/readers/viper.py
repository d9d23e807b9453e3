"""VIPER (Richter et al., 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from midway_hub.training.data.flow.flow_set import FlowSet
from midway_hub.training.data.flow.numbering import folders, numbered
from midway_hub.training.data.flow.pair_list import FileForm, PairFiles

LARGEST = 512.0  # pixels; larger flow marks pixels where it is not known


def viper_pairs(root: Path, *, split: str) -> Iterator[PairFiles]:
    """List a pair for each flow file that is not of the last frame."""
    for sequence in folders(root / split / "flow"):
        images, flows = f"{split}/img/{sequence}", f"{split}/flow/{sequence}"
        pictures = numbered(root / images, rf"{sequence}_(\d+)\.(?:jpg|png)")
        fields = numbered(root / flows, rf"{sequence}_(\d+)\.npz")
        ending = next(iter(pictures.values()), ".jpg")[-4:]
        last = max([*pictures, *fields], default=0)
        for start in sorted(number for number in fields if number < last):
            yield PairFiles(
                f"{images}/{sequence}_{start:05d}{ending}",
                f"{images}/{sequence}_{start + 1:05d}{ending}",
                f"{flows}/{sequence}_{start:05d}.npz",
                name=f"{sequence}_{start:05d}",
                sequence=sequence,
            )


SETS = {
    f"viper/{split}": FlowSet(
        f"VIPER, {'training' if split == 'train' else 'validation'}",
        f"{split}/img/SSS/SSS_NNNNN.{{jpg,png}} and {split}/flow/SSS/SSS_NNNNN.npz",
        partial(viper_pairs, split=split),
        FileForm(largest=LARGEST),
    )
    for split in ("train", "val")
}
