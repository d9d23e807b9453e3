"""What one user of the page has before them: a clip, a network, two frames, a point, and what was computed of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from midway_hub.app.clips import Clip, VideoClip
from midway_hub.app.networks import Chosen
from midway_hub.app.pair import Pair, Place
from midway_hub.app.uploads import Limits, Uploads
from midway_hub.app.work import Work, Works
from midway_hub.dense.writing import Progress

PAIR_SECONDS = 0.4
UPLOAD = "upload"
"""The kind of work that is not done on what the user has before them, and goes on when that changes."""
START: Place = (0.5, 0.5)


class Session:
    """One user's state.

    Args:
        clip: What is looked at first.
        film: A file of it that browsers play.
        chosen: The network at first.
        uploads: Where files go that this user hands in.

    Attributes:
        lock: Held while something is changed, which never takes long: a page can ask for several things at once.
        works: What is being computed of what the user has before them. Whatever changes that stops it.
        source: Number of the source frame.
        gap: Frames from source to target.
        place: The point that is looked at in the source frame.
        points: Points to track, as places in the source frame.
    """

    def __init__(self, clip: VideoClip, chosen: Chosen, uploads: Uploads) -> None:
        self.lock, self.works, self.chosen, self.uploads = threading.RLock(), Works(), chosen, uploads
        self._taking = threading.Lock()
        self._pair: Pair | None = None
        self._start(clip, clip.path)

    @contextmanager
    def work(self, kind: str) -> Iterator[Work]:
        """Do long work of a kind, as `Works.begin`; if the user leaves meanwhile, no file of it stays."""
        try:
            with self.works.begin(kind) as work:
                yield work
        finally:
            if self.works.closed:
                self.uploads.clear()

    def leave(self) -> None:
        """Stop what is being computed and delete what was uploaded."""
        self.works.close()
        self.uploads.clear()

    def open_bundled(self, clip: VideoClip) -> None:
        """Look at the bundled clip; what was uploaded, or still is being uploaded, is deleted."""
        with self.lock:
            self.works.stop_all()
            self._start(clip, clip.path)
            self.uploads.clear()

    def open_uploaded(self, files: Sequence[str | Path], progress: Progress) -> None:
        """Look at uploaded files; what was uploaded before is deleted. If they cannot be read, nothing changes.

        Raises:
            ValueError, VideoError, OSError: As `Uploads.take`.
        """
        with self._taking:
            clip, film = self.uploads.take(files, progress)
            with self.lock:
                progress("clip", 1, 1)  # the last moment for what watches it to say that nobody waits any more
                self._start(clip, film)
            self.uploads.clear(keep=clip.path if isinstance(clip, VideoClip) else None)

    def use(self, chosen: Chosen) -> None:
        """Look through another network."""
        with self.lock:
            self.works.stop_all(but=UPLOAD)
            self.chosen, self._pair = chosen, None

    def choose_frames(self, source: float, gap: float) -> None:
        """Choose source and target frame; numbers beyond the clip's ends are taken for its ends."""
        with self.lock:
            self.source = min(max(0, int(source)), self.last_source)
            self.gap = min(max(1, int(gap)), len(self.clip.seconds) - 1)
            self.works.stop_all(but=UPLOAD)
            self._pair = None

    @property
    def last_source(self) -> int:
        """The last frame that has one after it."""
        return len(self.clip.seconds) - 2

    @property
    def target(self) -> int:
        """Number of the target frame: `gap` after the source, or the clip's last."""
        return min(self.source + self.gap, len(self.clip.seconds) - 1)

    @property
    def pair(self) -> Pair:
        """Source and target frame as the chosen network sees them."""
        with self.lock:
            if self._pair is None:
                self._pair = Pair(self.chosen.net, self.clip.frames([self.source, self.target]))
            return self._pair

    def put_place(self, place: Place) -> None:
        """Look at a point of the source frame; what lies outside is taken for the edge."""
        self.place = (min(max(0.0, place[0]), 1.0), min(max(0.0, place[1]), 1.0))

    def step_place(self, columns: int, rows: int) -> None:
        """Look at the middle of the patch that is so many columns to the right and rows further down."""
        pair = self.pair
        row, column = pair.patch_at(self.place)
        row, column = row + max(-1, min(1, rows)), column + max(-1, min(1, columns))
        self.put_place(pair.centre_of((min(max(0, row), pair.grid[0] - 1), min(max(0, column), pair.grid[1] - 1))))

    def _start(self, clip: Clip, film: Path | None) -> None:
        self.works.stop_all(but=UPLOAD)
        seconds = clip.seconds
        self.clip, self.film, self._pair = clip, film, None
        per_frame = seconds[-1] / (len(seconds) - 1)
        self.gap = min(max(1, round(PAIR_SECONDS / per_frame)), len(seconds) - 1)
        self.source = (len(seconds) - 1 - self.gap) // 2
        self.place, self.points = START, list[Place]()


class Sessions:
    """The users of the page.

    Args:
        bundled: What every user looks at first.
        first: The network that every user starts with.
        folder: Where uploads are kept, a folder of its own for each user.
        limits: How much is taken from each.
    """

    def __init__(self, bundled: VideoClip, first: Callable[[], Chosen], folder: Path, limits: Limits) -> None:
        self.bundled, self.limits = bundled, limits
        self._first, self._folder = first, folder
        self._open: dict[str, Session] = {}
        self._lock = threading.Lock()

    def of(self, key: str) -> Session:
        """Return a user's session, which starts when first asked for."""
        with self._lock:
            if key not in self._open:
                uploads = Uploads(self._folder / uuid4().hex, self.limits)
                self._open[key] = Session(self.bundled, self._first(), uploads)
            return self._open[key]

    def close(self, key: str) -> None:
        """Forget a user, stop what is being computed for them and delete what they uploaded."""
        with self._lock:
            session = self._open.pop(key, None)
        if session is not None:
            session.leave()

    def close_all(self) -> None:
        """Do as `close` for every user."""
        for key in list(self._open):
            self.close(key)
