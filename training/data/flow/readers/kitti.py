"""KITTI 2012 (Geiger et al., 2012) and 2015 (Menze and Geiger, 2015)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from midway_hub.flow_io import read_flow
from midway_hub.training.data.flow.flow_set import FlowSet
from midway_hub.training.data.flow.numbering import numbered
from midway_hub.training.data.flow.pair_list import FileForm, PairFiles

SUBVAL_PAIRS = 10


def kitti_pairs(root: Path, *, images: str, part: slice = slice(None)) -> list[PairFiles]:
    """List the pairs of frames 10 and 11, of which a part is taken."""
    pictures, flows, visible = (root / "training" / folder for folder in (images, "flow_occ", "flow_noc"))
    numbers = {*numbered(pictures, r"(\d+)_10\.png"), *numbered(flows, r"(\d+)_10\.png")}
    with_visible = visible.is_dir()
    return [
        PairFiles(
            f"training/{images}/{number:06d}_10.png",
            f"training/{images}/{number:06d}_11.png",
            f"training/flow_occ/{number:06d}_10.png",
            name=f"{number:06d}_10",
            occlusion=f"training/flow_noc/{number:06d}_10.png" if with_visible else "",
        )
        for number in sorted(numbers)[part]
    ]


def _hidden(path: Path, valid: np.ndarray) -> np.ndarray:
    """Return the pixels whose flow is known with occluded ones (`flow_occ`), but not without (`flow_noc`)."""
    return valid & ~read_flow(path).valid


def _kitti(year: int, images: str, description: str, expected: int, part: slice = slice(None)) -> FlowSet:
    return FlowSet(
        f"KITTI {year}, {description}",
        f"training/{images}/NNNNNN_{{10,11}}.png and training/flow_occ/NNNNNN_10.png",
        partial(kitti_pairs, images=images, part=part),
        FileForm(sparse=True, occluded=_hidden),
        expected,
    )


SETS = {
    "kitti2012/train": _kitti(2012, "colored_0", "training", 194),
    "kitti2015/train": _kitti(2015, "image_2", "training", 200),
    "kitti2015/subtrain": _kitti(2015, "image_2", "training without the last 10", 190, slice(-SUBVAL_PAIRS)),
    "kitti2015/subval": _kitti(2015, "image_2", "the last 10 of training", 10, slice(-SUBVAL_PAIRS, None)),
}
