"""Flow of one's own: frames and flow files of the same names, or a list of pairs."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from midway_hub.extraction.lists import COMMENT, lines_of
from midway_hub.extraction.sources import IMAGE_SUFFIXES
from midway_hub.flow_io import FLOW_SUFFIXES
from midway_hub.frame_names import natural_path_key, one_series
from midway_hub.training.data.flow.flow_set import FlowSet
from midway_hub.training.data.flow.pair_list import FileForm, PairFiles
from midway_hub.training.data.sources.places import places_of

logger = logging.getLogger("midway_hub")

LIST, IMAGES, FLOW, OCCLUSIONS = "pairs.txt", "images", "flow", "occlusions"
FIELDS = ("first frame", "second frame", "flow")
SHOWN = 3


def folder_pairs(root: Path, *, pairs: str = LIST, images: str = IMAGES, flow: str = FLOW) -> Iterator[PairFiles]:
    """List the pairs of a list if there is one, else those of two folder trees.

    In the trees, `flow/day/7.flo` is the flow from `images/day/7.png` to the frame after it, in natural order; a frame
    that is missing from a regular numbering has no neighbours. Masks of occluded pixels may lie in `occlusions/`.

    Args:
        root: Folder of the data set.
        pairs: The list, relative to `root`: a line holds the first frame, the second and the flow, parted by tabs or
            by blanks, and quoted where they hold blanks; lines that begin with `#` are comments.
        images: Folder of the frames.
        flow: Folder of the flow files, of any form that `midway_hub.flow_io.read_flow` reads.

    Raises:
        ValueError: A line does not hold three paths, or frames have no order.
    """
    return _of_list(root, root / pairs) if (root / pairs).is_file() else _of_trees(root, images, flow)


def _of_list(root: Path, listing: Path) -> Iterator[PairFiles]:
    for number, line in enumerate(lines_of(listing), start=1):
        if not line.strip() or _is_comment(root, line.strip()):
            continue
        try:
            found = _paths(line)
        except ValueError as error:
            raise ValueError(f"{listing}, line {number}: {error}") from None
        if len(found) != len(FIELDS):
            raise ValueError(
                f"{listing}, line {number} holds {len(found)} paths, wanted {', '.join(FIELDS)}; part them by tabs, or "
                "quote those with blanks"
            )
        first, second, field = found
        yield PairFiles(first, second, field, name=Path(field).with_suffix("").as_posix(), sequence=_folder_of(field))


def _is_comment(root: Path, line: str) -> bool:
    """Whether a line begins with # and not with a file that does."""
    first = line.split("\t")[0] if "\t" in line else line.split()[0]
    return line.startswith(COMMENT) and not (root / first).is_file()


def _paths(line: str) -> list[str]:
    """Part a line at its tabs, or else at blanks outside of quotes."""
    if "\t" in line:
        return [item.strip() for item in line.split("\t")]
    words = shlex.shlex(line, posix=True, punctuation_chars=False)
    words.whitespace_split, words.commenters, words.escape = True, "", ""  # backslashes part folders on Windows
    return list(words)


def _of_trees(root: Path, images: str, flow: str) -> Iterator[PairFiles]:
    fields = _by_stem(root, flow)
    if not fields:
        return
    frames, after = _frames(root, images)
    without_partner = []
    for stem in sorted(fields, key=natural_path_key):
        if stem in frames and stem not in after:
            without_partner.append(stem)
            continue
        hidden = f"{OCCLUSIONS}/{stem}.png"
        yield PairFiles(
            frames.get(stem, f"{images}/{stem}.png"),  # named as missing where it is not there
            after.get(stem, f"{images}/{stem}.png"),
            fields[stem],
            name=stem,
            sequence=_folder_of(stem),
            occlusion=hidden if (root / hidden).is_file() else "",
        )
    if without_partner:
        shown = ", ".join(without_partner[:SHOWN])
        logger.warning(
            "%s: %d flows have no frame after theirs and are left out: %s", root, len(without_partner), shown
        )


def _by_stem(root: Path, flow: str) -> dict[str, str]:
    """Return the flow files, relative to the root, by their path below the folder of flow without ending."""
    found: dict[str, str] = {}
    for path in (root / flow).rglob("*"):
        if path.suffix.lower() in FLOW_SUFFIXES and not path.name.startswith("."):
            stem = path.relative_to(root / flow).with_suffix("").as_posix()
            other = found.setdefault(stem, path.relative_to(root).as_posix())
            if other != path.relative_to(root).as_posix():
                raise ValueError(f"{root / other} and {path} are the flow of one frame; keep one of them")
    return found


def _frames(root: Path, images: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the frames, and the frame after each, relative to the root, by their path without ending."""
    names: dict[str, list[str]] = {}
    for path in (root / images).rglob("*"):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            names.setdefault(path.parent.relative_to(root / images).as_posix(), []).append(path.name)
    frames: dict[str, str] = {}
    after: dict[str, str] = {}
    for folder, held in names.items():
        try:
            series = one_series(held)
        except ValueError as error:
            raise ValueError(f"folder {root / images / folder}: {error}, or list the pairs in {root / LIST}") from None
        places = places_of(series).frames
        files = [(Path(images) / folder / name).as_posix() for name in series.names]
        stems = [(Path(folder) / name).with_suffix("").as_posix() for name in series.names]
        frames.update(zip(stems, files, strict=True))
        for number, stem in enumerate(stems[:-1]):
            if places is None or places[number + 1] == places[number] + 1:
                after[stem] = files[number + 1]
    return frames, after


def _folder_of(path: str) -> str:
    parent = Path(path).parent.as_posix()
    return "" if parent == "." else parent


SETS = {
    f"folder{kind}": FlowSet(
        f"frames and flow of one's own, {known}",
        f"{IMAGES}/**/NAME.png and {FLOW}/**/NAME.flo (or another form of flow), or a list {LIST}",
        partial(folder_pairs),
        form,
    )
    for kind, known, form in (
        ("", "known at every pixel", FileForm()),
        ("/sparse", "known at scattered pixels", FileForm(sparse=True)),
    )
}
