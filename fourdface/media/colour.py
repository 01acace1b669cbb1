"""Convert decoded frames to upright sRGB by their tags, and sRGB to tagged BT.709."""

from __future__ import annotations

import numpy as np
from av import VideoFrame as AvFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from fourdface.media.hdr import HDR_CURVES, WIDE_PRIMARIES, HdrMapper
from fourdface.media.image import flatten

# PyAV before 17 does not name it, but hands the number on.
_BT2020 = getattr(Colorspace, "BT2020", 9)
# Numbers of ISO/IEC 23091-2 (the tags in the stream) to libswscale's matrices.
_MATRIX = {
    1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601, 7: Colorspace.SMPTE240M,
    9: _BT2020, 10: _BT2020,
}  # fmt: skip
BT709 = 1
# Without these flags libswscale takes a fast path that repeats chroma samples and is off by up to 2 levels;
# with them by at most 1, for 0.9 ms instead of 0.1 ms at 512x512.
# (SWS_BILINEAR, SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT of libswscale: PyAV before 18 does not name the last two.)
_PRECISE = 0x2 | 0x40000 | 0x2000
_HD_HEIGHT = 720


def source_matrix(colorspace: int, height: int, codec: str = "") -> int:
    """Which YCbCr matrix a frame uses: its tag.

    Untagged frames: BT.601 for JPEG (its standard says so) and below 720 lines, BT.709 from 720 lines on.
    """
    if colorspace in _MATRIX:
        return _MATRIX[colorspace]
    if codec in ("mjpeg", "jpegls"):
        return Colorspace.ITU601
    return Colorspace.ITU709 if height >= _HD_HEIGHT else Colorspace.ITU601


def source_range(color_range: int, pixel_format: str) -> ColorRange:
    """Limited (MPEG) unless the tag or the format (yuvj, grey, RGB) says full."""
    if color_range in (ColorRange.MPEG, ColorRange.JPEG):
        return ColorRange(color_range)
    full = pixel_format.startswith(
        ("yuvj", "gray", "rgb", "bgr", "gbr", "pal8", "ya8", "ya16", "mono", "0rgb", "argb", "abgr")
    )
    return ColorRange.JPEG if full else ColorRange.MPEG


class ToRgb:
    """Decoded frames to uint8 [H, W, 3] sRGB of one fixed size; keeps the scaler's context between frames.

    High dynamic range and wide gamut go through :class:`fourdface.media.hdr.HdrMapper`; everything else is a matrix and
    a range, for BT.709's and sRGB's curves are taken as the same, as all players do.
    """

    def __init__(self, width: int, height: int, codec: str = "", threads: int = 1) -> None:
        self._reformatter = VideoReformatter()
        self._size = (width, height)
        self._codec = codec
        self._threads = threads
        self._mappers: dict[tuple[int, int], HdrMapper] = {}

    def __call__(self, frame: AvFrame) -> np.ndarray:
        """Convert one frame; anything with transparency is composited over white."""
        look = (frame.color_trc, frame.color_primaries)
        if look[0] in HDR_CURVES or look[1] in WIDE_PRIMARIES:
            if look not in self._mappers:
                self._mappers[look] = HdrMapper(*self._size, *look)
            return self._mappers[look](self._convert(frame, "rgb48le"))
        if any(component.is_alpha for component in frame.format.components):
            return flatten(self._convert(frame, "rgba").to_ndarray())
        return self._convert(frame, "rgb24").to_ndarray()

    def _convert(self, frame: AvFrame, pixel_format: str) -> AvFrame:
        return self._reformatter.reformat(
            frame,
            width=self._size[0],
            height=self._size[1],
            format=pixel_format,
            src_colorspace=source_matrix(frame.colorspace, frame.height, self._codec),
            src_color_range=source_range(frame.color_range, frame.format.name),
            dst_color_range=ColorRange.JPEG,
            interpolation=_PRECISE,
            threads=self._threads,
        )


class ToBt709:
    """uint8 [H, W, 3] sRGB to yuv420p frames, converted with the BT.709 matrix to limited range and tagged so."""

    def __init__(self, pixel_format: str = "yuv420p", threads: int = 1) -> None:
        self._reformatter = VideoReformatter()
        self._format = pixel_format
        self._threads = threads

    def __call__(self, image_u8: np.ndarray) -> AvFrame:
        """Convert one image."""
        frame = AvFrame.from_ndarray(np.ascontiguousarray(image_u8), format="rgb24")
        converted = self._reformatter.reformat(
            frame,
            format=self._format,
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=_PRECISE,
            threads=self._threads,
        )
        converted.colorspace = BT709
        converted.color_range = ColorRange.MPEG
        converted.color_primaries = BT709
        converted.color_trc = BT709
        return converted


def orientation_of(matrix: bytes | None) -> tuple[int, bool]:
    """Read a display matrix (9 int32, 16.16 fixed point) as (quarter turns for `numpy.rot90`, mirrored before that).

    Only the eight upright orientations are told apart; anything between goes to the nearest.
    """
    if matrix is None or len(matrix) < 36:
        return 0, False
    values = np.frombuffer(matrix[:36], np.int32).astype(np.float64)
    a, b, c, d = values[0], values[1], values[3], values[4]
    mirrored = a * d - b * c < 0
    if mirrored:
        # Undo a left-right flip of the source: x -> -x turns (a, b) into (-a, -b).
        a, b = -a, -b
    clockwise = int(np.rint(np.degrees(np.arctan2(b, a)) / 90.0)) % 4
    return (-clockwise) % 4, bool(mirrored)


def upright(image_u8: np.ndarray, quarter_turns: int, mirrored: bool) -> np.ndarray:
    """Apply what :func:`orientation_of` found; returns a C-contiguous, writable array."""
    if mirrored:
        image_u8 = image_u8[:, ::-1]
    if quarter_turns:
        image_u8 = np.rot90(image_u8, quarter_turns)
    if image_u8.flags.c_contiguous and image_u8.flags.writeable:
        return image_u8
    return image_u8.copy()
