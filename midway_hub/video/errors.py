"""The error of the video readers."""


class VideoError(RuntimeError):
    """A video cannot be opened, or a frame of it cannot be decoded; the message names file, frame and reason."""
