"""Clips from a pack."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from midway_hub.training.data.clip import Clip, SampleError
from midway_hub.training.data.needs import PAIR, Frames
from midway_hub.training.data.packs.errors import PackError
from midway_hub.training.data.packs.layout import PackedVideo, PackFolder, Rejected
from midway_hub.training.data.packs.reading import DamagedFrameError, StoredVideo
from midway_hub.training.data.packs.settings import PackSettings

if TYPE_CHECKING:
    from midway_hub.training.data.settings import GapSettings

_REMEDY = "find all damage with verify; packing again with the same settings mends it"


class PackSource:
    """Clips from a finished pack; the gap goes by the frame numbers and times of the originals.

    A pack of all frames gives the clips that a `VideoSource` of the originals gives for the same generator.

    Args:
        path: The pack's folder.
        gap: Distance of neighbouring frames.
        frames: What a clip is.

    Attributes:
        settings: How it was packed.
        rejected: Videos that packing left out.

    Raises:
        PackError: It is no pack, not finished, damaged, or holds no video.
    """

    def __init__(self, path: Path, gap: GapSettings, *, frames: Frames = PAIR) -> None:
        self.path, self.gap, self.frames = Path(path), gap, frames
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

    def clips(self, index: int, count: int, generator: np.random.Generator) -> list[Clip]:
        """Take `count` clips of one video; see `ClipSource`."""
        shard, video = self._items[index]
        path = self.path / video.file
        try:
            rows = np.array(self._folder.rows(shard)[slice(*video.rows)])
            chosen = self._choose(video, rows, count, generator)
            with closing(StoredVideo(path, video, rows, self.settings)) as stored:
                pictures = {
                    position: stored.frame(position) for position in sorted({p for clip in chosen for p in clip})
                }
        except (DamagedFrameError, PackError, OSError, ValueError) as error:
            raise SampleError(str(path), f"{error}; {_REMEDY}") from error
        numbers, times = rows["number"].tolist(), rows["seconds"].tolist()
        return [
            Clip(
                tuple(pictures[p] for p in clip),
                video.name,
                tuple(numbers[p] for p in clip),
                tuple(times[p] - times[clip[0]] for p in clip),
            )
            for clip in chosen
        ]

    def fingerprint(self) -> dict[str, Any]:
        """Return kind, form, number of items and a hash of all checksums."""
        return {"kind": "pack", "form": self.settings.form, "items": len(self), "hash": self._hash}

    def _choose(
        self, video: PackedVideo, rows: np.ndarray, count: int, generator: np.random.Generator
    ) -> list[tuple[int, ...]]:
        # With them comes torch, which packing can do without.
        from midway_hub.training.data.sources.choose import choose_frames, room

        frames = self.frames
        times = rows["number" if self.gap.unit == "frames" else "seconds"]
        runs = len(rows) // video.run
        if runs == 1:
            chosen = choose_frames(times, frames, self.gap.range, count, generator)
        else:
            chosen = []
            for start in (video.run * generator.integers(runs, size=count)).tolist():
                clips = choose_frames(times[start : start + video.run], frames, self.gap.range, 1, generator)
                chosen += [tuple(start + p for p in clip) for clip in clips or []]
        if not chosen or len(chosen) < count:
            what = f"two frames {self.gap} apart" if frames.kind == "pair" else room(frames, self.gap)
            reason = (
                f"{video.name} has no {what} in the pack, which keeps {len(rows)} of its frames "
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
