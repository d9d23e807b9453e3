"""Where clips come from: the source that a configuration asks for."""

from __future__ import annotations

from pathlib import Path

from midway_hub.training.data.clip import ClipSource
from midway_hub.training.data.flow_provider.settings import WORLD
from midway_hub.training.data.needs import PAIR, Frames
from midway_hub.training.data.settings import DataSettings


def build_source(
    settings: DataSettings, *, frames: Frames = PAIR, flow: bool = False, seed: int = 0, index_cache: Path | None = None
) -> ClipSource:
    """Open the source of clips, and find out now whether it holds any.

    Args:
        settings: The `data` section of a configuration.
        frames: What a clip is.
        flow: Whether worlds are to say how their frames move.
        seed: Seed of the run, for synthetic worlds.
        index_cache: Folder that keeps lists of the videos' frames, so that a visit need not read a whole file.

    Raises:
        FileNotFoundError: There is nothing at `data.path`.
        ValueError: There is nothing there that the source reads; the message says what there is.
    """
    match settings.source:
        case "synthetic":
            from midway_hub.training.data.synthetic import WorldSource

            return WorldSource(settings.world, seed, frames=frames, flow=flow and settings.flow.provider == WORLD)
        case "pack":
            from midway_hub.training.data.packs import PackSource

            assert settings.path is not None
            return PackSource(settings.path, settings.gap, frames=frames)
        case "frames":
            from midway_hub.training.data.sources.frames import FrameSource

            assert settings.path is not None
            return FrameSource(
                settings.path,
                settings.gap,
                pattern=settings.pattern,
                frame_rate=settings.frame_rate,
                frame_times=settings.frame_times,
                every_pair=settings.every_pair,
                frames=frames,
            )
        case "videos":
            from midway_hub.training.data.sources.videos import VideoSource

            assert settings.path is not None
            return VideoSource(
                settings.path,
                settings.gap,
                pattern=settings.pattern,
                reader=settings.reader,
                index_cache=index_cache,
                frames=frames,
            )
