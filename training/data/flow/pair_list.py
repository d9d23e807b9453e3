"""A flow data set as a list of files, read one pair at a time."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from midway_hub.flow_io import FlowField, read_flow
from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.flow.frames import read_frame, read_mask
from midway_hub.training.data.flow.numbering import entries_of
from midway_hub.training.data.flow.sample import FlowSample


class PairFiles(NamedTuple):
    """The files of a pair, below the folder of the data set; "" for one that the data set does not have.

    Attributes:
        first: Picture of the source frame.
        second: Picture of the target frame.
        flow: Flow from source to target.
        name: As in `FlowSample`.
        sequence: As in `FlowSample`.
        occlusion: What tells the source pixels that the target does not show.
        invalid: Mask of the pixels whose flow does not count.
    """

    first: str
    second: str
    flow: str
    name: str
    sequence: str = ""
    occlusion: str = ""
    invalid: str = ""

    def files(self) -> list[str]:
        """Return the files that have to be there."""
        return [file for file in (self.first, self.second, self.flow, self.occlusion, self.invalid) if file]


def _read_marked(path: Path, valid: np.ndarray) -> np.ndarray:
    return read_mask(path)


@dataclass(frozen=True)
class FileForm:
    """How the files of a data set are to be understood.

    Attributes:
        sparse: Whether the flow is known at scattered pixels only.
        flow_scale: Cells of the flow per pixel of the frames along each axis.
        largest: Flow above it, in pixels along either axis, is not known.
        occluded: Reads an occlusion file; it is given the pixels where the flow is known.
    """

    sparse: bool = False
    flow_scale: int = 1
    largest: float = math.inf
    occluded: Callable[[Path, np.ndarray], np.ndarray] = _read_marked


PLAIN = FileForm()
"""Flow at every pixel of the frames."""


class PairList:
    """A `FlowDataset` of listed files.

    Args:
        name: As `build_flow_dataset` knows it.
        root: Folder that the files are below.
        pairs: The pairs; all of their files should exist.
        form: How to understand the files.
        occlusions: Whether to read the occlusion files, which training has no use for.
        expected: Number of pairs of the whole data set as it is published, where that is known.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        pairs: Iterable[PairFiles],
        *,
        form: FileForm = PLAIN,
        occlusions: bool = True,
        expected: int | None = None,
    ) -> None:
        self.name, self.root, self.form, self.expected = name, Path(root), form, expected
        self._pairs = _Packed(pair if occlusions else pair._replace(occlusion="") for pair in pairs)

    @property
    def sparse(self) -> bool:
        """Whether the flow is known at scattered pixels only."""
        return self.form.sparse

    def __len__(self) -> int:
        """Returns: the number of pairs."""
        return len(self._pairs)

    def files(self, index: int) -> PairFiles:
        """Return the files of a pair without opening them."""
        return self._pairs[index]

    def __getitem__(self, index: int) -> FlowSample:
        """Read a pair; see `FlowDataset`."""
        files = self._pairs[index]
        first, second = self._read(files.first, read_frame), self._read(files.second, read_frame)
        if first.shape != second.shape:
            raise self._error(files.second, f"{_by(second)} pixels, but {self.root / files.first} has {_by(first)}")
        field = self._read(files.flow, read_flow)
        self._check_size(files.flow, field.valid, first)
        valid = self._known(files, field)
        occluded = None
        if files.occlusion:
            occluded = self._read(files.occlusion, lambda path: self.form.occluded(path, field.valid))
            self._check_size(files.occlusion, occluded, first)
        return FlowSample(
            first=first,
            second=second,
            flow=np.where(valid[..., None], field.flow, np.float32(0)),
            valid=valid,
            name=files.name,
            sequence=files.sequence,
            occluded=occluded,
            flow_scale=self.form.flow_scale,
            sparse=self.form.sparse,
        )

    def missing(self) -> list[str]:
        """Return the paths of the files that are not there; lists each folder once and opens nothing."""
        names_in = cache(lambda folder: frozenset(entry.name for entry in entries_of(self.root / folder)))
        wanted = dict.fromkeys(file for index in range(len(self)) for file in self.files(index).files())
        places = ((file, *file.rpartition("/")[::2]) for file in wanted)
        return [str(self.root / file) for file, folder, name in places if name not in names_in(folder)]

    def fingerprint(self) -> Mapping[str, Any]:
        """Return name, number of pairs and a hash of the list of files."""
        return {"name": self.name, "pairs": len(self), "files": self._pairs.digest()}

    def _known(self, files: PairFiles, field: FlowField) -> np.ndarray:
        valid = field.valid & (np.abs(field.flow) <= self.form.largest).all(axis=2)
        if files.invalid:
            invalid = self._read(files.invalid, read_mask)
            self._check_size(files.invalid, invalid, valid, scale=1)
            valid &= ~invalid
        if not valid.any():
            raise self._error(files.flow, "the flow is not known at any pixel (all NaN, infinite or marked invalid)")
        return valid

    def _check_size(self, file: str, got: np.ndarray, frame: np.ndarray, scale: int | None = None) -> None:
        scale = scale or self.form.flow_scale
        wanted = (scale * frame.shape[0], scale * frame.shape[1])
        if got.shape != wanted:
            raise self._error(file, f"{_by(got)} pixels, but {wanted[0]}×{wanted[1]} (height×width) would fit")

    def _read(self, file: str, reader: Callable[[Path], Any]) -> Any:
        path = self.root / file
        try:
            return reader(path)
        except FileNotFoundError:
            raise self._error(file, "there is no such file") from None
        except (OSError, EOFError, ValueError, SyntaxError) as error:  # the last is what Pillow makes of broken PNGs
            raise self._error(file, str(error).removeprefix(f"{path}: ")) from error

    def _error(self, file: str, reason: str) -> SampleError:
        return SampleError(str(self.root / file), reason, always=True)


class _Packed:
    """Records of many pairs as one text: some hundred thousand objects would be copied into every reading process."""

    def __init__(self, pairs: Iterable[PairFiles]) -> None:
        lines = ["\0".join(pair).encode("utf-8", "surrogateescape") for pair in pairs]
        self._ends = np.cumsum([len(line) for line in lines], dtype=np.int64)
        self._text = b"".join(lines)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> PairFiles:
        if not 0 <= index < len(self):
            raise IndexError(f"there are pairs 0 to {len(self) - 1}, got {index}")
        start = int(self._ends[index - 1]) if index else 0
        return PairFiles(*self._text[start : int(self._ends[index])].decode("utf-8", "surrogateescape").split("\0"))

    def digest(self) -> str:
        return hashlib.sha256(self._text + self._ends.tobytes()).hexdigest()


def _by(array: np.ndarray) -> str:
    return f"{array.shape[0]}×{array.shape[1]}"
