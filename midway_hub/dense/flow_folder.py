"""Flow of clips and of lists of pairs as numbered files in a folder, which a later run goes on with."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice, tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from midway_hub._durable import whole_file
from midway_hub.dense.colour_scale import ColourScale
from midway_hub.dense.estimates import FlowEstimate, as_pixels, check_flow_options, clip_flow
from midway_hub.dense.flow_files import (
    DEFAULT_LOOK,
    FlowLook,
    both_files,
    common_scale,
    count_pairs,
    load_pair,
    reach_notes,
    write_both,
)
from midway_hub.dense.flow_sources import RECORD, FlowSource
from midway_hub.dense.folder_record import LOOK, claim_folder, fingerprint_files
from midway_hub.dense.propagated_files import open_frames
from midway_hub.dense.writing import PICTURE_SUFFIXES, Progress, no_progress, save_picture
from midway_hub.extraction.plan import output_folder
from midway_hub.extraction.provenance import network_digest
from midway_hub.flow_io import FLOW_SUFFIXES, flow_picture, read_flow, write_flow
from midway_hub.flow_peers import FlowPeer
from midway_hub.models.network import MidwayNetwork
from midway_hub.video import VideoError

logger = logging.getLogger("midway_hub")

COLOURS = "colours.json"
KITTI = "kitti"
LATER = ("updates", "both")
"""Options that folders of before had none of: they are noted where they are used."""
FORMATS = (*dict.fromkeys(suffix[1:] for suffix in (*FLOW_SUFFIXES, *PICTURE_SUFFIXES) if suffix != ".jpeg"), KITTI)
FAILURES = (VideoError, ValueError, torch.OutOfMemoryError, FileNotFoundError, Image.UnidentifiedImageError)


@dataclass
class FlowFolder:
    """What was done.

    Attributes:
        out: The folder.
        done: Pairs estimated by this run.
        skipped: Pairs whose files were there, and whole.
        failed: Why the rest of a source, by its name, has no files.
        beyond: Pairs of this run whose motion was probably out of reach.
        reach: How far motion may go, in pixels of the last frames.
        notes: What users should know of single sources, such as that a video is cut off.
    """

    out: Path
    done: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    beyond: int = 0
    reach: float | None = None
    notes: list[str] = field(default_factory=list)

    def count(self, estimate: FlowEstimate) -> None:
        """Note a pair whose files are written."""
        self.done, self.beyond, self.reach = self.done + 1, self.beyond + estimate.out_of_reach, estimate.reach

    def facts(self) -> dict[str, Any]:
        """What to tell the user, as plain data."""
        return {
            "out": str(self.out),
            "pairs": self.done,
            "finished_before": self.skipped,
            "failed": self.failed,
            "reach": None if self.reach is None else round(self.reach, 1),
            **reach_notes(self.beyond, self.done, self.reach or 0.0, *self.notes),
        }


def write_flow_folder(
    net: MidwayNetwork | FlowPeer,
    sources: Sequence[FlowSource],
    out: str | Path,
    *,
    formats: Sequence[str] = ("flo",),
    every: int = 1,
    reader: str = "auto",
    look: FlowLook = DEFAULT_LOOK,
    overwrite: bool = False,
    progress: Progress = no_progress,
    **estimation: Any,
) -> FlowFolder:
    """Write the flow of every pair of frames as a file of its own: OUT/NAME/00000.flo; of one source, OUT/00000.flo.

    Files are named after the first frame: by its number in a video, by its own name in a folder of frames; pairs of a
    list by their place in it. A file appears when it is whole, and one that is there, and can be read, is not made
    again: a run that was stopped goes on. `flow.json` keeps what the files were made of and how, and refuses others.
    A correlation head starts anew where a run goes on, from the flow before elsewhere, which gives slightly other flow.
    The scale of a clip's pictures goes on where it was; `colours.json` has it by frame. With `both`, 00000_backward.flo
    holds the flow back, and 00000_occluded.png is white where the next frame does not show this one.

    Args:
        net: A network with a flow head, or an estimator by others.
        sources: From `find_flow_sources`.
        out: A folder; made if need be.
        formats: Of `FORMATS`, any number: files of numbers, pictures, or `"kitti"` (16-bit .png of numbers).
        every: Of a clip, take every k-th frame.
        reader: Video reader, or "auto".
        look: How pictures look.
        overwrite: Whether to make everything anew, whatever is there.
        progress: Called with the name of a source, how many of its pairs are done, and how many there are.
        **estimation: As for `write_pair_flow`.

    Returns:
        What was done. Where a source fails, the others go on.

    Raises:
        ValueError: An unknown format, two of one ending, or an option that `net` does not take.
        OutputExistsError: The folder holds files that were made otherwise, or of something else.
        MissingHeadError: The network has no flow head.
        OSError: A file cannot be written.
    """
    check_flow_options(net, **estimation)
    suffixes = _suffixes(formats)
    folder = output_folder(out)
    _check_not_input(folder, sources)
    made_of = {source.name: fingerprint_files(source.files) for source in sources}
    request = _request(net, suffixes, every, look, estimation)
    claim_folder(folder, RECORD, made_of, request, overwrite=overwrite)
    result = FlowFolder(folder)
    for source in sources:
        name = source.name or (source.clip.name if source.clip else "pairs")
        work = _Work(net, source, folder / source.name, suffixes, every, reader, look, overwrite, estimation)
        try:
            work.run(result, lambda done, total, name=name: progress(name, done, total))  # type: ignore[misc]
        except FAILURES as error:
            logger.debug("%s failed", source, exc_info=True)
            result.failed[name] = str(error) or type(error).__name__
    return result


@dataclass
class _Work:
    """One source on its way to its files; `suffixes` tells by ending whether it holds numbers."""

    net: MidwayNetwork | FlowPeer
    source: FlowSource
    folder: Path
    suffixes: Mapping[str, bool]
    every: int
    reader: str
    look: FlowLook
    overwrite: bool
    estimation: Mapping[str, Any]

    def run(self, result: FlowFolder, progress: Callable[[int, int], None]) -> None:
        """Write what is missing."""
        names = self._names(result)
        self._check_folder(names)
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [number for number, name in enumerate(names) if self.overwrite or not self._is_whole(name)]
        done = len(names) - len(missing)
        result.skipped += done
        progress(done, len(names))
        for stretch in _stretches(missing):
            estimates = self._clip(stretch, names) if self.source.clip else self._list(stretch, result)
            for number, frame, estimate, largest in estimates:
                self._write(names[number], frame, estimate, largest)
                result.count(estimate)
                done += 1
                progress(done, len(names))

    def _names(self, result: FlowFolder) -> list[str]:
        if self.source.clip is None:
            return [f"{number:05d}" for number in range(len(self.source.pairs))]
        with open_frames(self.source.clip, start=0, every=self.every, reader=self.reader) as found:
            names = list(found.names)
        if found.note:
            result.notes.append(f"{self.source}: {found.note}")
        pairs = count_pairs(found, self.source, self.every)
        doubled = [name for name, times in Counter(names).items() if times > 1]
        if doubled:
            raise ValueError(f"{self.source} holds two frames called {doubled[0]}, whose files would have one name")
        return names[:pairs]

    def _check_folder(self, names: Sequence[str]) -> None:
        """Refuse two files of one name, and a folder whose other files would be taken for those of this run."""
        times = Counter(path.name for name in names for path in self._files(name))
        if doubled := [name for name, count in times.items() if count > 1]:
            raise ValueError(
                f"{self.source}: two frames would write {doubled[0]}, one its flow and one what goes with it; rename "
                "the frames, or leave --both (both=True) out"
            )
        ours = {*times}
        there = (path.name for path in self.folder.glob("*") if path.suffix in self.suffixes)
        if others := sorted({*there} - ours):
            raise ValueError(
                f"{self.folder} holds {others[0]} and {len(others) - 1} more files that this run does not replace and "
                "that would be taken for its own; delete them, or choose another output folder"
            )

    def _list(self, numbers: range, result: FlowFolder) -> Iterator[tuple[int, np.ndarray, FlowEstimate, float]]:
        """Yield number, source frame, flow and scale of pairs of a list, each on a scale of its own."""
        for number in numbers:
            images = self.source.pairs[number]
            try:
                frames = load_pair(images)
                (estimate,) = clip_flow(self.net, frames, **self.estimation)
            except FAILURES as error:
                result.failed[f"{images[0]} and {images[1]}"] = str(error)
                continue
            yield number, as_pixels(frames[0]), estimate, self.look.largest or common_scale([estimate.flow])

    def _clip(self, numbers: range, names: Sequence[str]) -> Iterator[tuple[int, np.ndarray, FlowEstimate, float]]:
        """Yield number, source frame, flow and scale of pairs that follow each other."""
        assert self.source.clip is not None
        place, draws = self.folder / COLOURS, not all(self.suffixes.values())
        steps = {} if self.overwrite else _read_steps(place)
        before = max((steps[name] for name in names[: numbers.start] if name in steps), default=0.0)
        scale = ColourScale(self.look.largest, start=before)
        opened = open_frames(self.source.clip, start=numbers.start * self.every, every=self.every, reader=self.reader)
        with opened as found:
            shown, seen = tee(islice(found.frames, len(numbers) + 1))
            flows = clip_flow(self.net, seen, **self.estimation)
            for number, frame, estimate in zip(numbers, shown, flows, strict=False):
                largest = scale.of(estimate.flow)
                if draws and largest > before:
                    before = steps[names[number]] = largest
                    _write_steps(place, {name: steps[name] for name in names if name in steps})
                yield number, frame, estimate, largest

    def _write(self, name: str, frame: np.ndarray, estimate: FlowEstimate, largest: float) -> None:
        if estimate.backward is not None and estimate.occluded is not None:
            back = None if any(self.suffixes.values()) else flow_picture(estimate.backward, largest=largest)
            write_both(self._beside(name), estimate.backward, estimate.occluded, back)
        for suffix, numbers in self.suffixes.items():
            path = self.folder / f"{name}{suffix}"
            if numbers:
                write_flow(path, estimate.flow)
            else:
                save_picture(self.look.picture(estimate.flow, largest, frame), path)

    def _files(self, name: str) -> dict[Path, bool]:
        """The files of a pair, and whether each holds numbers."""
        files = {self.folder / f"{name}{suffix}": numbers for suffix, numbers in self.suffixes.items()}
        if self.estimation.get("both"):
            backward, occluded = self._beside(name)
            files |= {backward: any(self.suffixes.values()), occluded: False}
        return files

    def _beside(self, name: str) -> list[Path]:
        suffix, numbers = max(self.suffixes.items(), key=lambda entry: entry[1])
        return both_files(self.folder / f"{name}{suffix}", numbers)

    def _is_whole(self, name: str) -> bool:
        return all(_is_whole(path, numbers) for path, numbers in self._files(name).items())


def _check_not_input(folder: Path, sources: Sequence[FlowSource]) -> None:
    for source in sources:
        target = (folder / source.name).resolve()
        if any(file.parent.resolve() == target for file in source.files):
            raise ValueError(
                f"{folder / source.name} cannot be written into: it is what is read; choose another folder"
            )


def _suffixes(formats: Sequence[str]) -> dict[str, bool]:
    """Return whether it holds numbers, by ending."""
    suffixes: dict[str, bool] = {}
    for form in formats:
        if form not in FORMATS:
            raise ValueError(f"flow files are {', '.join(FORMATS)}, got {form!r}")
        suffix = ".png" if form == KITTI else f".{form}"
        if suffix in suffixes:
            raise ValueError(
                f"formats {', '.join(formats)} would write two files called NAME{suffix}; take one of them"
            )
        suffixes[suffix] = form == KITTI or suffix not in PICTURE_SUFFIXES
    if not suffixes:
        raise ValueError(f"name at least one format of {', '.join(FORMATS)}")
    return suffixes


def _request(
    net: MidwayNetwork | FlowPeer,
    suffixes: Mapping[str, bool],
    every: int,
    look: FlowLook,
    estimation: Mapping[str, Any],
) -> dict[str, Any]:
    """What the files depend on beside their frames; further formats may be added later."""
    drawn = {} if all(suffixes.values()) else {LOOK: [look.largest, look.arrows, look.legend, look.beside]}
    asked = {"size": "default", "tile": "default", "overlap": None, **estimation}
    asked = {name: value for name, value in asked.items() if name not in LATER or value not in (None, False)}
    if not isinstance(net, MidwayNetwork):
        return {"estimator": dict(net.settings), "every": every, **asked, **drawn}
    dtype = str(net.dtype).removeprefix("torch.")
    return {"network_sha256": network_digest(net), "dtype": dtype, "every": every, **asked, **drawn}


def _stretches(numbers: Sequence[int]) -> Iterator[range]:
    """Yield stretches of numbers that follow each other."""
    for _, group in groupby(enumerate(numbers), key=lambda entry: entry[1] - entry[0]):
        stretch = [number for _, number in group]
        yield range(stretch[0], stretch[-1] + 1)


def _is_whole(path: Path, numbers: bool) -> bool:
    if not path.exists():
        return False
    try:
        if numbers:
            read_flow(path)
        else:
            with Image.open(path) as picture:
                picture.load()
    except (OSError, ValueError, SyntaxError) as error:
        logger.info("%s is damaged and made anew: %s", path, error)
        return False
    return True


def _read_steps(path: Path) -> dict[str, float]:
    try:
        return {str(name): float(largest) for name, largest in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_steps(path: Path, steps: Mapping[str, float]) -> None:
    with whole_file(path) as beside:
        beside.write_text(json.dumps(steps, indent=2) + "\n", encoding="utf-8")


__all__ = ["FORMATS", "FlowFolder", "write_flow_folder"]
