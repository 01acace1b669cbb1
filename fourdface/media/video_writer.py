"""Encode videos: H.264 in MP4, exact frame rate, BT.709 converted and tagged, the driver's sound beside it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from fractions import Fraction
from types import TracebackType
from typing import IO, Any

import av
import numpy as np

from fourdface.errors import FourdError, UsageError
from fourdface.media.audio import AudioMuxer, AudioTrack
from fourdface.media.colour import BT709, ToBt709
from fourdface.media.timing import limit

log = logging.getLogger(__name__)

# Keys that every MP4 player knows; others need the "mdta" form, which movflags +use_metadata_tags selects.
_COMMON_KEYS = frozenset(
    {"title", "artist", "album", "comment", "description", "copyright", "date", "genre", "synopsis"}
)
# Variable-rate output: the clock of MPEG systems, in which all common rates are whole.
_VFR_TIME_BASE = Fraction(1, 90000)


class VideoWriter:
    """Write uint8 RGB frames as H.264 (yuv420p) in MP4; use as a context manager.

    The file is written in place: making that atomic is the caller's business. After an exception in the `with` block
    the file lacks its last frames and must not be used.
    """

    def __init__(
        self,
        target: str | os.PathLike[str] | IO[bytes],
        width: int,
        height: int,
        rate: Fraction | int,
        *,
        audio: AudioTrack | None = None,
        metadata: Mapping[str, str] | None = None,
        fragmented: bool = False,
        crf: int = 18,
        preset: str = "veryfast",
        threads: int = 0,
        variable_rate: bool = False,
    ) -> None:
        """Open the output.

        Args:
            target: path, or binary file; one that cannot seek (a pipe) needs `fragmented`.
            width: pixels; an odd size is padded to even by repeating the last column, as yuv420p needs it.
            height: pixels; the same for the last row.
            rate: frames a second, exact (30000/1001 stays so; numerators above a million are rounded).
            audio: sound to carry along, cut to the length of the video.
            metadata: tags, e.g. {"comment": "synthetic media made by fourd ..."}; any key is allowed.
            fragmented: write fragments of 2 s instead of one index, for pipes.
            crf: x264's constant quality, 0 (lossless) to 51; 18 is visually transparent.
            preset: x264's preset; "veryfast" is what keeps 512x512 below 5 ms a frame on two cores.
            threads: encoder threads, 0 = automatic.
            variable_rate: `write` takes the time of each frame.

        Raises:
            FourdError: the target cannot be written, or the encoder refuses the size.
        """
        if width < 1 or height < 1 or rate <= 0:
            raise ValueError(f"VideoWriter: width, height and rate must be positive, got {width}x{height} at {rate}")
        self.width, self.height, self.rate = width, height, limit(Fraction(rate))
        self.name = getattr(target, "name", "the output stream") if hasattr(target, "write") else os.fspath(target)  # type: ignore[arg-type]
        self.count = 0
        self._variable = variable_rate
        self._pad = (height % 2, width % 2)
        if any(self._pad):
            log.info(
                "%s: %dx%d is padded to %dx%d (H.264 needs even sizes)", self.name, width, height, *self._coded_size()
            )
        self._convert = ToBt709()
        self._base = _VFR_TIME_BASE if variable_rate else 1 / self.rate
        self._last_stamp = -1
        self._container: Any = None
        try:
            with self._errors():
                self._file = _Output(target) if fragmented else _SeekableOutput(target)
                self._container = self._open(metadata or {})
                self._stream = self._add_video(crf, preset, threads)
                self._audio = AudioMuxer(audio, self._container) if audio is not None and not audio.is_empty() else None
                # Writing the header here makes a full disk or a refused size fail before the work, not after it.
                self._container.start_encoding()
                self._file.check()
        except BaseException:
            self.abort()
            raise

    def write(self, image_u8: np.ndarray, time: float | None = None) -> None:
        """Encode one frame.

        Args:
            image_u8: uint8 [height, width, 3] sRGB.
            time: presentation time [s], strictly rising; only (and always) with `variable_rate`.

        Raises:
            FourdError: the disk is full or the reader of a pipe has gone.
        """
        if image_u8.shape != (self.height, self.width, 3) or image_u8.dtype != np.uint8:
            raise ValueError(
                f"VideoWriter.write: expected uint8 [{self.height},{self.width},3], "
                f"got {image_u8.dtype} {list(image_u8.shape)}"
            )
        if (time is not None) != self._variable:
            raise ValueError("VideoWriter.write: give a time with every frame if variable_rate, else with none")
        if any(self._pad):
            image_u8 = np.pad(image_u8, ((0, self._pad[0]), (0, self._pad[1]), (0, 0)), mode="edge")
        stamp = self.count if time is None else max(round(Fraction(float(time)) / self._base), self._last_stamp + 1)
        with self._errors():
            frame = self._convert(image_u8)
            frame.pts, frame.time_base = stamp, self._base
            frame.duration = self._frame_duration()
            self._mux(self._stream.encode(frame))
            if self._audio is not None:
                self._audio.advance(stamp * self._base)
        self._last_stamp = stamp
        self.count += 1

    def close(self) -> None:
        """Flush the encoder, write the rest of the sound and the index."""
        if self._container is None:
            return
        try:
            with self._errors():
                self._mux(self._stream.encode(None))
                if self._audio is not None:
                    self._audio.finish(
                        (self._last_stamp + self._frame_duration()) * self._base if self.count else Fraction(0)
                    )
        finally:
            container, self._container = self._container, None
            with self._errors():
                container.close()
                self._file.close()
                self._file.check()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Let go of the output without finishing it."""
        opened = [self._container, getattr(self, "_file", None)]
        self._container = None
        for part in opened:
            try:
                if part is not None:
                    part.close()
            except (OSError, ValueError, av.error.FFmpegError) as error:  # the first error is the one to be seen
                log.debug("closing %s after a failure: %s", self.name, error)

    def _frame_duration(self) -> int:
        return max(1, round(1 / self.rate / self._base))

    def _coded_size(self) -> tuple[int, int]:
        return self.width + self._pad[1], self.height + self._pad[0]

    def _open(self, metadata: Mapping[str, str]) -> Any:
        options: dict[str, Any] = {"buffer_size": 1 << 20}
        flags = []
        if not isinstance(self._file, _SeekableOutput):
            # delay_moov lets fragments have edit lists, so that sound with encoder delay still starts with the picture.
            flags = ["frag_keyframe", "empty_moov", "delay_moov", "default_base_moof"]
        elif self._file.path is not None:
            # To move the index to the front, the muxer reads its own output again.
            flags = ["faststart"]
            options["io_open"] = self._file.reopen
        if not metadata.keys() <= _COMMON_KEYS:
            flags.append("use_metadata_tags")
        movflags = {"movflags": "+".join(flags)} if flags else {}
        container = av.open(self._file, "w", format="mp4", container_options=movflags, **options)
        container.metadata.update(metadata)
        return container

    def _add_video(self, crf: int, preset: str, threads: int) -> Any:
        # Variable rate: the encoder must not be told a constant one, its rate control works from the stamps.
        stream = self._container.add_stream("libx264", rate=self.rate, options={"crf": str(crf), "preset": preset})
        context = stream.codec_context
        context.width, context.height = self._coded_size()
        context.pix_fmt = "yuv420p"
        context.time_base = self._base
        context.thread_count = threads
        # A key frame every two seconds: players can seek, and fragments stay short.
        context.gop_size = max(1, round(2 * self.rate))
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1
        return stream

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            self._container.mux_one(packet)
        self._file.check()

    def _errors(self) -> _Errors:
        return _Errors(self.name)


class _Output:
    """What libav writes to: it keeps the first error for :meth:`check` instead of raising it inside libav.

    libav does not report a failure of its last flush, so that a full disk would go unnoticed.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[bytes]) -> None:
        self.error: OSError | None = None
        self.path = os.fspath(target) if isinstance(target, str | os.PathLike) else None
        self.file: Any = target if self.path is None else open(self.path, "w+b", buffering=0)  # noqa: SIM115

    def write(self, data: bytes) -> int:
        """libav's write: all of `data`, or the error is kept for :meth:`check`."""
        if self.error is None:
            try:
                rest = memoryview(data)
                while rest:
                    # An unbuffered file may take only a part.
                    rest = rest[self.file.write(rest) :]
            except OSError as error:
                self.error = error
        return len(data)

    def reopen(self, url: str, flags: int, options: dict[str, str]) -> IO[bytes]:
        """libav's way to read what it wrote (the signature is PyAV's)."""
        return open(self.path or url, "rb")

    def check(self) -> None:
        """Raise what went wrong so far."""
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Flush, and close what was opened here."""
        if self.path is not None:
            self.file.close()
        elif hasattr(self.file, "flush"):
            self.file.flush()


class _SeekableOutput(_Output):
    """An output that libav may also position, to fill in sizes that it learns at the end."""

    def __init__(self, target: str | os.PathLike[str] | IO[bytes]) -> None:
        super().__init__(target)
        if not self.seekable():
            raise UsageError(f"{getattr(target, 'name', target)} cannot seek: write fragmented MP4 to a pipe.")

    def seekable(self) -> bool:
        """Whether the file can be positioned."""
        return bool(self.file.seekable()) if hasattr(self.file, "seekable") else False

    def seek(self, offset: int, whence: int = 0) -> int:
        """Position the file; returns the new position."""
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """The position in the file."""
        return self.file.tell()


class _Errors:
    """Turn libav's and the system's errors while writing into one sentence; a broken pipe passes as it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BrokenPipeError) or not isinstance(error, OSError | av.error.FFmpegError):
            return
        reason = getattr(error, "strerror", None) or str(error)
        raise FourdError(f"cannot write {self._name}: {reason}.") from None
