"""Points tracked through a video, as a video and as a file: what `midway-hub track` does."""

from midway_hub.tracks.drawing import TrackLook, point_colours
from midway_hub.tracks.files import write_video_tracks

__all__ = ["TrackLook", "point_colours", "write_video_tracks"]
