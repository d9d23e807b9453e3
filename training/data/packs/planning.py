"""What a pack is made from, how it is divided, and whether it may be made where it is to be made."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from midway_hub._version import __version__
from midway_hub.extraction.sources import StrPath, find_sources
from midway_hub.training.data.packs.errors import PackError
from midway_hub.training.data.packs.forecast import forecast_files, free_bytes
from midway_hub.training.data.packs.layout import LAYOUT, PackFacts, PackFolder
from midway_hub.training.data.packs.settings import PackSettings

logger = logging.getLogger("midway_hub")

_SHARDS_AT_LEAST = 64
_SHOWN = 5


def find_videos(videos: StrPath | Sequence[StrPath], out: Path) -> list[tuple[str, str]]:
    """Find what is to be packed: (name, path) of each video.

    Raises:
        FileNotFoundError: A video does not exist.
        ValueError: There are no videos.
        PackError: `out` lies in a folder that is searched, where a later run would take the pack for videos.
    """
    given = [videos] if isinstance(videos, str | os.PathLike) else list(videos)
    for place in map(Path, given):
        if place.is_dir() and out.resolve().is_relative_to(place.resolve()):
            raise PackError(f"the pack {out} would lie in {place}, which is searched for videos; choose another folder")
    found = find_sources(given, kinds=("video",))
    if str(found.left_out):
        logger.warning("%s: %s", ", ".join(map(str, given)), found.left_out)
    return [(source.name, str(source.paths[0].absolute())) for source in found.items]


def begin(folder: PackFolder, files: list[tuple[str, str]], settings: PackSettings) -> PackFacts:
    """Take up the pack that is there, or plan a new one and write its `pack.json`.

    Raises:
        PackError: The folder holds another pack or other files, or the disk has no room.
    """
    described = [(name, Path(path).stat().st_size) for name, path in files]
    if folder.facts_path.exists():
        facts = folder.facts()
        _check_same(folder, facts, settings, described)
        stored = sum(path.stat().st_size for path in folder.path.rglob("*") if path.is_file())
        check_room(folder.path, max(0, facts.bytes_expected - stored))
        return facts
    others = sorted(path.name for path in folder.path.iterdir() if not path.name.startswith("."))
    if others:
        raise PackError(
            f"{folder.path} is no pack and holds other files ({', '.join(others[:_SHOWN])}); choose another"
        )
    expected = forecast_files(files, folder.path, settings)
    logger.info("packing %s", expected.text)
    check_room(folder.path, expected.bytes)
    by_size = settings.shard_bytes * len(files) // max(1, expected.bytes)
    facts = PackFacts(
        layout=LAYOUT,
        settings=settings.content(),
        videos=described,
        videos_per_shard=max(1, min(by_size, -(-len(files) // _SHARDS_AT_LEAST))),
        bytes_expected=expected.bytes,
        versions={"midway_hub": __version__, **{name: metadata.version(name) for name in ("av", "pillow")}},
    )
    folder.write_facts(facts)
    return facts


def check_room(folder: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        PackError: With both numbers.
    """
    free = free_bytes(folder)
    if needed > free:
        raise PackError(
            f"the pack needs about {needed / 1e9:.3g} GB more and {folder} has {free / 1e9:.3g} GB free; choose "
            f"another disk, form=h264, a lower quality or short_side, every=2, or a frame budget (max_frames)"
        )


def _check_same(folder: PackFolder, facts: PackFacts, settings: PackSettings, described: list[tuple[str, int]]) -> None:
    """Refuse to mix two packs in one folder."""
    asked = settings.content()
    changed = [
        f"{name} is {facts.settings.get(name)!r} there and {asked.get(name)!r} now"
        for name in sorted(facts.settings.keys() | asked.keys())
        if facts.settings.get(name) != asked.get(name)
    ]
    before, now = dict(facts.videos), dict(described)
    for what, names in {
        "new": now.keys() - before.keys(),
        "gone": before.keys() - now.keys(),
        "of another size": {name for name in before.keys() & now.keys() if before[name] != now[name]},
    }.items():
        if names:
            changed.append(f"{len(names)} videos are {what} ({', '.join(sorted(names)[:_SHOWN])})")
    if changed:
        raise PackError(
            f"{folder.path} holds a pack made otherwise: {'; '.join(changed)}. Go on with what it was begun with, or "
            f"pack into another folder"
        )
