"""A folder of pictures as a video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from types import TracebackType

import numpy as np
from PIL import Image

from fourdface.errors import FourdError
from fourdface.media.audio import AudioTrack
from fourdface.media.image import list_images, read_image
from fourdface.media.video_reader import VideoFrame


class ImageFolderReader:
    """Read a folder's pictures in natural order as the frames of a video; the interface of `VideoReader`.

    Pictures of another size than the first are scaled to it; unreadable ones are skipped, counted in `bad_packets` and
    named in `warning`.
    """

    def __init__(self, folder: str | os.PathLike[str], rate: Fraction | int = Fraction(25)) -> None:
        """Open the folder and read its first good picture.

        Args:
            folder: path.
            rate: frames a second to assume.

        Raises:
            FourdError: no folder, no pictures in it, or none that can be read.
        """
        self.name = os.fspath(folder)
        self.rate = Fraction(rate)
        self._paths = list_images(folder)
        if not self._paths:
            raise FourdError(f"folder {self.name} holds no pictures (JPEG, PNG, WebP, TIFF, ...).")
        self.audio: AudioTrack | None = None
        self.variable_rate = False
        self.rotation = 0
        self.start_time = 0.0
        self.count_hint: int | None = len(self._paths)
        self.bad_packets = 0
        self.warning: str | None = None
        first = next(iter(self), None)
        if first is None:
            raise FourdError(
                f"none of the {len(self._paths)} pictures in folder {self.name} can be read: {self.warning}"
            )
        self.height, self.width = first.image_u8.shape[:2]

    def __enter__(self) -> ImageFolderReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __iter__(self) -> Iterator[VideoFrame]:
        """Read from the first picture on."""
        self.bad_packets, self.warning = 0, None
        size: tuple[int, int] | None = None
        index = 0
        for path in self._paths:
            try:
                image_u8 = read_image(path)
            except FourdError as error:
                self.bad_packets += 1
                self.warning = f"{self.bad_packets} pictures could not be read; the last: {error}"
                continue
            size = size or (image_u8.shape[1], image_u8.shape[0])
            if (image_u8.shape[1], image_u8.shape[0]) != size:
                image_u8 = np.array(Image.fromarray(image_u8).resize(size, Image.Resampling.LANCZOS))
            yield VideoFrame(image_u8, float(index / self.rate), index)
            index += 1
