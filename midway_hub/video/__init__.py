"""Frame-exact video reading: one protocol, several decoders behind it."""

from midway_hub.video.choose import READERS, available_readers, open_video
from midway_hub.video.errors import VideoError
from midway_hub.video.reader import FrameReader

__all__ = ["READERS", "FrameReader", "VideoError", "available_readers", "open_video"]
