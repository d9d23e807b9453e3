"""Frame pairs from a pack."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from midway_hub.training.data.frame_pair import FramePair, SampleError
from midway_hub.training.data.packs.errors import PackError
from midway_hub.training.data.packs.layout import PackedVideo, PackFolder, Rejected
from midway_hub.training.data.packs.reading import DamagedFrameError, StoredVideo
from midway_hub.training.data.packs.settings import PackSettings

if TYPE_CHECKING:
    from midway_hub.training.data.settings import GapSettings

_REMEDY = "find all damage with verify; packing again with the same settings mends it"


class PackSource:
    """Pairs from a finished pack; the gap goes by the frame numbers and times of the originals.

    A pack of all frames gives the pairs that a `VideoSource` of the originals gives for the same generator.

    Args:
        path: The pack's folder.
        gap: Distance of the two frames.

    Attributes:
        settings: How it was packed.
        rejected: Videos that packing left out.

    Raises:
        PackError: It is no pack, not finished, damaged, or holds no video.
    """

    def __init__(self, path: Path, gap: GapSettings) -> None:
        self.path, self.gap = Path(path), gap
        self._folder = PackFolder(self.path)
        facts = self._folder.facts()
        self.settings = PackSettings(**facts.settings)
        self.rejected: list[Rejected] = []
        self._items: list[tuple[int, PackedVideo]] = []
        digest = hashlib.sha256()
        self._check_finished(facts.shards)
        for number in range(facts.shards):
            manifest = self._folder.manifest(number)
            self.rejected += manifest.rejected
            self._items += [(number, video) for video in manifest.videos]
            digest.update("".join(file.sha256 for file in manifest.files.values()).encode())
        if not self._items:
            raise PackError(f"pack {self.path} holds no video: all {len(self.rejected)} were rejected")
        self._hash = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._items)

    def pairs(self, index: int, count: int, generator: np.random.Generator) -> list[FramePair]:
        """Take `count` pairs of one video; see `PairSource`."""
        shard, video = self._items[index]
        path = self.path / video.file
        try:
            rows = np.array(self._folder.rows(shard)[slice(*video.rows)])
            chosen = self._choose(video, rows, count, generator)
            with closing(StoredVideo(path, video, rows, self.settings)) as stored:
                frames = {position: stored.frame(position) for position in sorted({p for pair in chosen for p in pair})}
        except (DamagedFrameError, PackError, OSError, ValueError) as error:
            raise SampleError(str(path), f"{error}; {_REMEDY}") from error
        numbers, times = rows["number"].tolist(), rows["seconds"].tolist()
        return [
            FramePair(frames[a], frames[b], video.name, (numbers[a], numbers[b]), times[b] - times[a])
            for a, b in chosen
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Return kind, form, number of items and a hash of all checksums."""
        return {"kind": "pack", "form": self.settings.form, "items": len(self), "hash": self._hash}

    def _choose(
        self, video: PackedVideo, rows: np.ndarray, count: int, generator: np.random.Generator
    ) -> list[tuple[int, int]]:
        from midway_hub.training.data.sources.choose import (
            choose_pairs,
        )  # with it comes torch, which packing can do without

        times = rows["number" if self.gap.unit == "frames" else "seconds"]
        runs = len(rows) // video.run
        if runs == 1:
            chosen = choose_pairs(times, self.gap.range, count, generator)
        else:
            chosen = []
            for start in (video.run * generator.integers(runs, size=count)).tolist():
                pair = choose_pairs(times[start : start + video.run], self.gap.range, 1, generator)
                chosen += [(start + a, start + b) for a, b in pair or []]
        if not chosen or len(chosen) < count:
            reason = (
                f"{video.name} has no two frames {self.gap} apart in the pack, which keeps {len(rows)} of its frames "
                f"in runs of {video.run}; change data.gap, or pack with other every, fps, max_frames or run"
            )
            raise SampleError(str(self.path / video.file), reason, always=True)
        return chosen

    def _check_finished(self, shards: int) -> None:
        missing = [number for number in range(shards) if not self._folder.manifest_path(number).is_file()]
        if missing:
            raise PackError(
                f"pack {self.path} is not finished: {len(missing)} of {shards} shards are missing (the first is "
                f"{missing[0]}); run the same pack command again, it goes on where it stopped"
            )
