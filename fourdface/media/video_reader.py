"""Decode videos frame by frame: upright, sRGB, with true presentation times, in constant memory."""

from __future__ import annotations

import itertools
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from av import VideoFrame as AvFrame
from av.filter import Graph

from fourdface.errors import FourdError
from fourdface.media.audio import AudioTrack
from fourdface.media.colour import ToRgb, orientation_of, upright
from fourdface.media.container import AV_ERRORS, MediaSource, locate, open_container, robust_demux
from fourdface.media.timing import Timing, fit_timing

# 8K UHD; larger frames are a decompression bomb for a head of 512 pixels.
MAX_FRAME_PIXELS = 7680 * 4320


@dataclass(frozen=True)
class VideoFrame:
    """One picture of a video: `image_u8` uint8 [H, W, 3] sRGB, `time` [s] from the first frame, `index` from 0."""

    image_u8: np.ndarray
    time: float
    index: int


class VideoReader:
    """Read a video of any container and codec that PyAV knows. Iterating again starts again from the first frame.

    Rotation and mirroring flags and non-square pixels are applied; interlaced frames are deinterlaced (bwdif, one frame
    out for one in); colours follow the tags (see :func:`fourdface.media.colour.source_matrix` for untagged ones).
    Packets that cannot be decoded are skipped and counted. Frames before a damaged place are given, and `warning` tells.

    Attributes:
        rate: exact frames a second; of a variable-rate video the mean, so that frames written at it last as long.
        variable_rate: whether frames lie unevenly in time; `VideoFrame.time` is the truth then.
        width, height: pixels, upright.
        rotation: degrees clockwise that were applied (0, 90, 180, 270).
        count_hint: frames that the container announces, or None.
        start_time: the first frame's time in the container [s].
        audio: the sound track on the same clock (time 0 = the first frame), or None.
        bad_packets: packets that could not be decoded in the last (or running) iteration.
        warning: one sentence about damage in the last (or running) iteration, or None.
    """

    def __init__(self, source: MediaSource, *, threads: int = 0, deinterlace: bool = True) -> None:
        """Open `source` (a path or a binary stream, which is spooled to a temporary file) and decode its first frame.

        Args:
            source: path, or binary stream such as ``sys.stdin.buffer``.
            threads: decoder threads, 0 = as many as there are cores.
            deinterlace: remove interlacing where frames are flagged.

        Raises:
            FourdError: missing, empty, not a video, sound only, or no frame can be decoded.
        """
        self._path, self._spool, self.name = locate(source)
        self._threads = threads
        self._deinterlace = deinterlace
        self.bad_packets = 0
        self.warning: str | None = None
        self._probe()

    def _probe(self) -> None:
        with open_container(self._path, self.name) as container:
            stream = self._video_stream(container)
            self._stream_index: int = stream.index
            damage: list[str] = []
            timing = _scan_timing(container, stream, damage)
            audio = [a for a in container.streams.audio if a.codec_context is not None]
            audio_index = audio[0].index if audio else None
        with open_container(self._path, self.name) as container:
            stream = container.streams[self._stream_index]
            first = next(self._decode(container, stream, []), None)
            if first is None:
                raise FourdError(
                    f"{self.name} has a video stream ({stream.codec_context.name}) but not one frame of it can be decoded: "
                    "the file is damaged or cut short, give the complete file."
                )
            self._set_geometry(first)
            self._origin = _seconds(first, stream) or Fraction(0)
        self.rate, self.variable_rate = timing.rate, timing.variable
        self.count_hint = timing.count or None
        self.start_time = float(self._origin)
        self.audio: AudioTrack | None = None
        if audio_index is not None:
            self.audio = AudioTrack.from_file(self._path, audio_index, self._origin, keep_alive=self._spool)

    def _video_stream(self, container: Any) -> Any:
        # Cover art of a sound file is a "video" of one picture: not a video.
        streams = [s for s in container.streams.video if not (s.disposition & s.disposition.attached_pic)]
        if not streams:
            kinds = "sound only" if container.streams.audio else "no picture"
            raise FourdError(f"{self.name} holds {kinds}: a file with a video stream is wanted.")
        best = container.streams.best("video")
        stream = best if best in streams else streams[0]
        if stream.codec_context is None:
            raise FourdError(f"{self.name} is coded with a codec that PyAV does not know: convert it to H.264 first.")
        return stream

    def _set_geometry(self, first: AvFrame) -> None:
        if first.width * first.height > MAX_FRAME_PIXELS:
            raise FourdError(
                f"{self.name} has frames of {first.width}x{first.height} pixels, more than the limit of 7680x4320: scale it down."
            )
        matrix = next((bytes(data) for data in first.side_data if data.type.name == "DISPLAYMATRIX"), None)
        self._quarter_turns, self._mirrored = orientation_of(matrix)
        self.rotation = (-self._quarter_turns % 4) * 90
        aspect = self._sample_aspect or Fraction(1)
        # A ratio beyond 4 is a broken header, not an anamorphic lens.
        aspect = aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)
        self._size = (max(1, round(first.width * aspect)), first.height)
        self.width, self.height = self._size if self._quarter_turns % 2 == 0 else self._size[::-1]

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def __iter__(self) -> Iterator[VideoFrame]:
        """Decode from the first frame on."""
        self.bad_packets, self.warning = 0, None
        damage: list[str] = []
        index, time = 0, Fraction(0)
        with open_container(self._path, self.name) as container:
            stream = container.streams[self._stream_index]
            to_rgb = ToRgb(*self._size, codec=stream.codec_context.name)
            for frame in self._decode(container, stream, damage):
                stamp = _seconds(frame, stream)
                if index:
                    # Missing or backward stamps (joined streams): go on at the nominal rate.
                    time = max(time, stamp - self._origin) if stamp is not None and stamp - self._origin > time else time + 1 / self.rate
                image_u8 = upright(to_rgb(frame), self._quarter_turns, self._mirrored)
                yield VideoFrame(image_u8, float(time), index)
                index += 1
                self._note_damage(damage, index, finished=False)
        self._note_damage(damage, index, finished=True)

    def _note_damage(self, damage: list[str], count: int, finished: bool) -> None:
        self.bad_packets = len(damage)
        missing = (self.count_hint or 0) - count if finished else 0
        if damage:
            self.warning = f"{self.name} is damaged: {len(damage)} packets could not be decoded ({damage[0]}), {count} frames were read."
        elif missing > max(2, 0.02 * count):
            self.warning = f"{self.name} is cut short or damaged: {count} of {self.count_hint} announced frames could be read."

    def _decode(self, container: Any, stream: Any, damage: list[str]) -> Iterator[AvFrame]:
        context = stream.codec_context
        context.thread_type = "AUTO"
        context.thread_count = self._threads
        self._sample_aspect = stream.sample_aspect_ratio or context.sample_aspect_ratio
        deinterlacer: _Deinterlacer | None = None
        # None at the end flushes the frames that the decoder's threads still hold.
        for packet in itertools.chain(robust_demux(container, stream, damage), [None]):
            try:
                frames = context.decode(packet)
            except AV_ERRORS as error:
                damage.append(getattr(error, "strerror", None) or type(error).__name__)
                continue
            for frame in frames:
                if deinterlacer is None and self._deinterlace and frame.interlaced_frame:
                    deinterlacer = _Deinterlacer(stream)
                if deinterlacer is None:
                    yield frame
                else:
                    yield from deinterlacer.push(frame)
        if deinterlacer is not None:
            yield from deinterlacer.push(None)


class _Deinterlacer:
    """bwdif, one frame out for each in, touching only frames that are flagged; it looks one frame ahead."""

    def __init__(self, stream: Any) -> None:
        self._graph = Graph()
        source = self._graph.add_buffer(template=stream)
        bwdif = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()

    def push(self, frame: AvFrame | None) -> Iterator[AvFrame]:
        """Give a frame (None at the end), get those that are ready."""
        self._graph.vpush(frame)
        while True:
            try:
                yield self._graph.vpull()
            except (BlockingIOError, EOFError):
                return


def _seconds(frame: AvFrame, stream: Any) -> Fraction | None:
    base = frame.time_base or stream.time_base
    return None if frame.pts is None or base is None else frame.pts * Fraction(base)


def _scan_timing(container: Any, stream: Any, damage: list[str]) -> Timing:
    """Read all presentation stamps without decoding (an MP4's index has only decoding stamps, which may be uneven)."""
    declared = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    stamps = array("q")
    last, last_duration = -(2**63), 0
    for packet in robust_demux(container, stream, damage):
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None or packet.is_discard:
            continue
        stamps.append(stamp)
        if stamp > last:
            last, last_duration = stamp, packet.duration or 0
    return fit_timing(np.frombuffer(stamps, np.int64), Fraction(stream.time_base), declared, last_duration)


def is_folder(source: MediaSource) -> bool:
    """Whether a source is a folder (of images)."""
    return isinstance(source, str | os.PathLike) and Path(source).is_dir()
