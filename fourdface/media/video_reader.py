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
    Packets that cannot be decoded are skipped and counted: frames before and after a damaged place are given, and
    `warning` tells.

    Attributes:
        rate: exact frames a second; of a variable-rate video the mean, so that frames written at it last as long.
        variable_rate: whether frames lie unevenly in time; `VideoFrame.time` is the truth then.
        width, height: pixels, upright.
        rotation: degrees clockwise that were applied (0, 90, 180, 270).
        count_hint: frames that the file seems to hold, or None.
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
            timing, self._announced = _scan_timing(container, stream)
            audio_index = _audio_index(container)
        with open_container(self._path, self.name) as container:
            stream = container.streams[self._stream_index]
            first = next(self._decode(container, stream, []), None)
            if first is None:
                raise FourdError(
                    f"{self.name} has a video stream ({stream.codec_context.name}) of which no frame can be decoded: "
                    "it is damaged or cut short, give the complete file."
                )
            self._set_geometry(first, stream)
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

    def _set_geometry(self, first: AvFrame, stream: Any) -> None:
        if first.width * first.height > MAX_FRAME_PIXELS:
            raise FourdError(
                f"{self.name} has frames of {first.width}x{first.height} pixels, more than the limit of 7680x4320: "
                "scale it down first."
            )
        side_data: Any = first.side_data
        matrix = next((bytes(data) for data in side_data if data.type.name == "DISPLAYMATRIX"), None)
        self._quarter_turns, self._mirrored = orientation_of(matrix)
        self.rotation = (-self._quarter_turns % 4) * 90
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        # A ratio beyond 4 is a broken header, not an anamorphic lens.
        aspect = aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)
        self._size = (max(1, round(first.width * aspect)), first.height)
        self.width: int = self._size[self._quarter_turns % 2]
        self.height: int = self._size[1 - self._quarter_turns % 2]

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
                try:
                    image_u8 = upright(to_rgb(frame), self._quarter_turns, self._mirrored)
                except AV_ERRORS as error:
                    damage.append(_reason(error))
                    continue
                if index:
                    time = self._next_time(_seconds(frame, stream), time)
                yield VideoFrame(image_u8, float(time), index)
                index += 1
                self._note_damage(damage, index)
        if index == 0:
            raise FourdError(f"{self.name}: no frame can be converted to RGB ({', '.join(damage[:1])}).")
        if not damage and self._announced is not None:
            self.warning = (
                f"{self.name} is cut short: {index} frames could be read, the file announces {self._announced}."
            )
        self._note_damage(damage, index)

    def _next_time(self, stamp: Fraction | None, time: Fraction) -> Fraction:
        """Time of a frame after `time`; missing or backward stamps (joined streams) go on at the nominal rate."""
        if stamp is not None and stamp - self._origin > time:
            return stamp - self._origin
        return time + 1 / self.rate

    def _note_damage(self, damage: list[str], count: int) -> None:
        self.bad_packets = len(damage)
        if damage:
            self.warning = (
                f"{self.name} is damaged or cut short: {count} frames could be read, {len(damage)} packets could not "
                f"({damage[0]})."
            )

    def _decode(self, container: Any, stream: Any, damage: list[str]) -> Iterator[AvFrame]:
        context = stream.codec_context
        context.thread_type = "AUTO"
        context.thread_count = self._threads
        deinterlacer: _Deinterlacer | None = None
        # None at the end flushes the frames that the decoder's threads still hold.
        for packet in itertools.chain(_usable(robust_demux(container, stream, damage), damage), [None]):
            try:
                frames = context.decode(packet)
            except AV_ERRORS as error:
                damage.append(_reason(error))
                continue
            for frame in frames:
                if deinterlacer is None and self._deinterlace and frame.interlaced_frame:
                    deinterlacer = _Deinterlacer(frame, stream)
                if deinterlacer is None:
                    yield frame
                else:
                    yield from deinterlacer.push(frame)
        if deinterlacer is not None:
            yield from deinterlacer.flush()


class _Deinterlacer:
    """bwdif, one frame out for each in, touching only frames that are flagged; it looks one frame ahead."""

    def __init__(self, frame: AvFrame, stream: Any) -> None:
        self._stream = stream
        self._build(frame)

    def _build(self, frame: AvFrame) -> None:
        self._look = (frame.width, frame.height, frame.format.name)
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=Fraction(frame.time_base or self._stream.time_base),
        )
        bwdif = self._graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(bwdif)
        bwdif.link_to(sink)
        self._graph.configure()

    def push(self, frame: AvFrame) -> Iterator[AvFrame]:
        """Give a frame, get those that are ready. A change of size in mid-stream starts a new filter."""
        if (frame.width, frame.height, frame.format.name) != self._look:
            yield from self.flush()
            self._build(frame)
        self._graph.vpush(frame)
        yield from self._pull()

    def flush(self) -> Iterator[AvFrame]:
        """Get the frames that are still inside."""
        self._graph.vpush(None)
        yield from self._pull()

    def _pull(self) -> Iterator[AvFrame]:
        while True:
            try:
                yield self._graph.vpull()
            except (BlockingIOError, EOFError):
                return


def _usable(packets: Iterator[Any], damage: list[str]) -> Iterator[Any]:
    """Note packets that the demuxer marks as damaged; drop such a one at the end, which is cut off by the file's end.

    Inside a broadcast stream they are worth decoding, for the frames after them build on them.
    """
    held = None
    for packet in packets:
        if held is not None:
            yield held
        held = packet if packet.is_corrupt else None
        if held is None:
            yield packet
        else:
            damage.append("damaged packet")


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _seconds(frame: AvFrame, stream: Any) -> Fraction | None:
    base = frame.time_base or stream.time_base
    # AVI stores no presentation stamps: libav's are those of decoding order, wrong wherever frames are reordered.
    stamp = frame.dts if stream.container.format.name == "avi" else frame.pts
    return None if stamp is None or base is None else stamp * Fraction(base)


def _scan_timing(container: Any, stream: Any) -> tuple[Timing, int | None]:
    """Read all presentation stamps without decoding (an MP4's index has only decoding stamps, which may be uneven).

    Returns:
        the timing, and how many frames the index announces if that is more than the file holds, else None.
    """
    declared = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    vp8 = stream.codec_context.name == "vp8"
    stamps = array("q")
    last, last_duration, packets = -(2**63), 0, 0
    for packet in robust_demux(container, stream, []):
        packets += not packet.is_corrupt
        stamp = packet.pts if packet.pts is not None else packet.dts
        # VP8 has packets that only prepare a reference and show nothing: bit 4 of the first byte (RFC 6386, 9.1).
        if stamp is None or packet.is_discard or (vp8 and not bytes(packet)[0] & 0x10):
            continue
        stamps.append(stamp)
        if stamp > last:
            last, last_duration = stamp, packet.duration or 0
    timing = fit_timing(np.frombuffer(stamps, np.int64), Fraction(stream.time_base), declared, last_duration)
    # Only an MP4's count is that of its packets; other containers estimate.
    exact = "mp4" in container.format.name.split(",")
    return timing, stream.frames if exact and stream.frames > packets else None


def _audio_index(container: Any) -> int | None:
    """The default sound track, or the first that can be decoded."""
    streams = [s for s in container.streams.audio if s.codec_context is not None and s.codec_context.sample_rate]
    best = container.streams.best("audio")
    return (best if best in streams else streams[0]).index if streams else None


def is_folder(source: MediaSource) -> bool:
    """Whether a source is a folder (of images)."""
    return isinstance(source, str | os.PathLike) and Path(source).is_dir()
