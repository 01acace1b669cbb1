"""Videos in and out. `open_video` picks the reader; the classes live in the modules named after them."""

from __future__ import annotations

from fractions import Fraction

from fourdface.media.audio import AudioTrack
from fourdface.media.container import MediaSource
from fourdface.media.image_sequence import ImageFolderReader
from fourdface.media.video_reader import VideoFrame, VideoReader, is_folder
from fourdface.media.video_writer import VideoWriter

__all__ = ["AudioTrack", "ImageFolderReader", "VideoFrame", "VideoReader", "VideoWriter", "open_video"]


def open_video(source: MediaSource, *, rate: Fraction | int = Fraction(25)) -> VideoReader | ImageFolderReader:
    """Open a video file, an animated GIF, a binary stream, or a folder of pictures as a video of `rate` [frames/s].

    Raises:
        FourdError: see the readers.
    """
    return ImageFolderReader(source, rate) if is_folder(source) else VideoReader(source)  # type: ignore[arg-type]
