"""The flow data sets by name."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from midway_hub.training.data.flow.flow_set import FlowSet
from midway_hub.training.data.flow.numbering import folders
from midway_hub.training.data.flow.pair_list import PairList
from midway_hub.training.data.flow.readers import (
    chairs,
    hd1k,
    kitti,
    middlebury,
    own,
    sintel,
    spring,
    tartanair,
    things,
    things_subset,
    viper,
)

_READERS = (chairs, things, things_subset, sintel, kitti, hd1k, spring, tartanair, middlebury, viper, own)
_SETS: dict[str, FlowSet] = {name: flow_set for reader in _READERS for name, flow_set in reader.SETS.items()}

FLOW_DATASETS: dict[str, str] = {name: flow_set.description for name, flow_set in _SETS.items()}
"""What each name stands for."""


def build_flow_dataset(name: str, root: Path, *, occlusions: bool = True, **options: Any) -> PairList:
    """List the pairs of a data set; nothing is opened yet.

    Args:
        name: One of `FLOW_DATASETS`, such as `sintel/subtrain/clean`.
        root: The data set's own folder, which holds what its archives unpack to.
        occlusions: Whether to read occlusion masks where there are any; training has no use for them.
        options: What the reader of the data set takes, such as `cameras=("left", "right")` for FlyingThings3D.

    Returns:
        A `FlowDataset`.

    Raises:
        ValueError: There is no such data set or option.
        FileNotFoundError: There is no such folder, or no pair in it; the message says what was looked for.
    """
    flow_set = _SETS[check_flow_name(name)]
    _check_options(name, flow_set, options)
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {root} (looked for {root.absolute()})")
    # A choice of cameras or directions changes the number; leaving out masked pixels does not.
    expected = flow_set.expected if set(options) <= {"exclude_masked"} else None
    pairs = flow_set.find(root, **options)
    made = PairList(name, root, pairs, form=flow_set.form, occlusions=occlusions, expected=expected)
    if not len(made):
        raise FileNotFoundError(
            f"{name}: no pair in {root}; looked for {flow_set.layout}. {_instead(root, flow_set, options)}"
        )
    return made


def check_flow_name(name: str) -> str:
    """Return the name of a data set, or refuse it.

    Raises:
        ValueError: There is no such data set; near names, or all, are named.
    """
    if name not in _SETS:
        longer = [known for known in _SETS if known.startswith(f"{name}/")]
        near = longer or difflib.get_close_matches(name, _SETS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(_SETS)}"
        raise ValueError(f"unknown flow data set {name!r}; {hint}")
    return name


def _check_options(name: str, flow_set: FlowSet, options: dict[str, Any]) -> None:
    known = ["occlusions", *flow_set.options()]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            raise ValueError(
                f"{name} has no option {option!r}; "
                + (f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}")
            )


def _instead(root: Path, flow_set: FlowSet, options: dict[str, Any]) -> str:
    """Say where the data set seems to be, or what is in the folder."""
    inside = folders(root)
    for folder in inside:
        if next(iter(flow_set.find(root / folder, **options)), None) is not None:
            return f"{root / folder} has pairs: give that folder"
    return f"It holds {', '.join(inside[:6]) + (', ...' if len(inside) > 6 else '') if inside else 'no folders'}"
