"""The driver's sound: packets read lazily, carried from file to file, kept in step with the video."""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
from av import AudioFrame
from av.audio.resampler import AudioResampler

from fourdface.errors import FourdError
from fourdface.media.container import AV_ERRORS, open_container, robust_demux

log = logging.getLogger(__name__)

# What MP4 carries and players really play; anything else (PCM, Vorbis, ...) is encoded to AAC.
MP4_CODECS = frozenset({"aac", "mp3", "mp3float", "ac3", "eac3", "opus", "libopus", "alac", "flac"})
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
# Packets that end up to this long before the first picture are kept: codecs need them to start cleanly, and the edit
# list hides them from the player.
_PRIMING = Fraction(1, 10)
_START_TAG = "FOURD_AUDIO_START"


@dataclass(frozen=True)
class TimedPacket:
    """An encoded packet with its place on the video's clock: `start` and `duration` in exact seconds."""

    packet: Any
    start: Fraction
    duration: Fraction


class AudioTrack:
    """One sound track on the clock of a video (time 0 = the first video frame). Holds no samples, only where they are.

    Attributes:
        codec: libav's name, e.g. "aac".
        sample_rate: Hz.
        channels: number of channels.
    """

    def __init__(self, source: Path | bytes, stream_index: int, origin: Fraction, keep_alive: object = None) -> None:
        """Use :meth:`from_file` or :meth:`from_bytes`; `origin` [s] is time 0 in the container's time."""
        self._source = source
        self.stream_index = stream_index
        self._origin = origin
        self._keep_alive = keep_alive
        with self.open() as container:
            context = container.streams[stream_index].codec_context
            if context is None:
                raise FourdError("the sound track has a codec that is not known: convert it to AAC first.")
            self.codec: str = context.name
            self.sample_rate = int(context.sample_rate or 0)
            self.channels = int(context.layout.nb_channels) if context.layout is not None else 0

    @classmethod
    def from_file(
        cls, path: Path, stream_index: int | None = None, origin: Fraction = Fraction(0), keep_alive: object = None
    ) -> AudioTrack:
        """Refer to a file's sound (its first audio stream by default); the file must stay where it is.

        Raises:
            FourdError: no media file, or no sound in it.
        """
        with open_container(Path(path), str(path)) as container:
            streams = [s.index for s in container.streams.audio if s.codec_context is not None]
        if not streams:
            raise FourdError(f"{path} holds no sound that can be read.")
        return cls(Path(path), streams[0] if stream_index is None else stream_index, origin, keep_alive)

    @classmethod
    def from_bytes(cls, blob: bytes) -> AudioTrack:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            FourdError: the bytes are not such a blob.
        """
        try:
            with av.open(io.BytesIO(blob), "r", format="matroska", metadata_errors="replace") as container:
                tags = {key.upper(): value for key, value in container.metadata.items()}
                stream = container.streams.audio[0]
                stamps = (packet.pts for packet in container.demux(stream) if packet.pts is not None)
                origin = next(stamps, 0) * Fraction(stream.time_base or 0) - Fraction(tags[_START_TAG])
                return cls(blob, stream.index, origin)
        except (*AV_ERRORS, IndexError, KeyError, ZeroDivisionError):
            raise FourdError("the sound track inside the file is damaged: write the file again.") from None

    def to_bytes(self, start: float = 0.0, end: float | None = None) -> bytes:
        """Copy the packets, as they are coded, into a Matroska file in memory that needs nothing else.

        Args:
            start: beginning of the part to keep [s], on the video's clock.
            end: its end [s]; packets that only touch the part are kept whole. None: to the end of the sound.
        """
        buffer = io.BytesIO()
        self.save(buffer, start, end)
        return buffer.getvalue()

    def save(self, target: IO[bytes], start: float = 0.0, end: float | None = None) -> None:
        """Write what :meth:`to_bytes` returns to a seekable binary file, in constant memory."""
        wanted = self.between(Fraction(start), None if end is None else Fraction(end))
        first = next(wanted, None)
        with (
            self.open() as template,
            av.open(target, "w", format="matroska", options={"fflags": "+bitexact"}) as output,
        ):
            stream = output.add_stream_from_template(template.streams[self.stream_index])
            output.metadata[_START_TAG] = str(first.start if first else Fraction(0))
            output.start_encoding()
            if first is None:
                return
            sink = _Sink(output, stream, self.tick)
            # Matroska wants times from 0 on; the tag remembers the true start.
            for timed in itertools.chain([first], wanted):
                sink.mux(timed.packet, timed.start - first.start, timed.duration)

    def packets(self) -> Iterator[TimedPacket]:
        """Yield every packet in order. Stamps that the container rounded (Matroska: 1 ms) are made exact again."""
        damage: list[str] = []
        with self.open() as container:
            stream = container.streams[self.stream_index]
            frame_size = int(stream.codec_context.frame_size or 0)
            base = Fraction(stream.time_base)
            coarse = base > self.tick
            expected: Fraction | None = None
            for packet in robust_demux(container, stream, damage):
                stamp = packet.pts if packet.pts is not None else packet.dts
                start = expected if stamp is None else stamp * base - self._origin
                if packet.size == 0 or start is None:
                    continue
                if coarse and expected is not None and abs(start - expected) <= 2 * base:
                    start = expected
                duration = (packet.duration or 0) * base
                if coarse or not duration:
                    duration = _packet_samples(packet, self.codec, frame_size) * self.tick or duration
                expected = start + duration
                yield TimedPacket(packet, start, duration)
        if damage:
            log.warning("the sound is damaged: %d read errors (%s)", len(damage), damage[0])

    def is_empty(self) -> bool:
        """Whether the track has no packets at all."""
        return next(self.packets(), None) is None

    def between(self, start: Fraction, end: Fraction | None) -> Iterator[TimedPacket]:
        """Yield the packets that sound between `start` and `end` [s], and those just before that a decoder needs."""
        for timed in self.packets():
            if end is not None and timed.start >= end:
                return
            if timed.start + timed.duration > start - _PRIMING:
                yield timed

    def frames(self) -> Iterator[tuple[AudioFrame, Fraction]]:
        """Decode: (frame, start [s] on the video's clock). Packets that cannot be decoded are skipped."""
        with self.open() as container:
            stream = container.streams[self.stream_index]
            for packet in robust_demux(container, stream, []):
                try:
                    decoded = packet.decode()
                except AV_ERRORS:
                    continue
                for frame in decoded:
                    if frame.pts is not None:
                        yield frame, frame.pts * Fraction(frame.time_base) - self._origin

    def open(self) -> Any:
        """Open the container that holds the packets (PyAV's input container)."""
        if isinstance(self._source, bytes):
            return av.open(io.BytesIO(self._source), "r", format="matroska", metadata_errors="replace")
        return open_container(self._source, str(self._source))

    @property
    def tick(self) -> Fraction:
        """Seconds a sample."""
        return Fraction(1, self.sample_rate or 48000)


class AudioMuxer:
    """Carries an :class:`AudioTrack` into an output container, in step with the video that is being written.

    Packets are copied where MP4 can hold the codec, else decoded and encoded to AAC. Sound before the first and after
    the last picture is cut; the offset between sound and picture stays.
    """

    def __init__(self, track: AudioTrack, output: Any) -> None:
        """Add the stream to `output`, whose header must not be written yet."""
        self.copied = can_copy(track)
        self._source: Iterator[TimedPacket]
        if self.copied:
            # The template must stay open until the header is written.
            self._template = track.open()
            stream = output.add_stream_from_template(self._template.streams[track.stream_index])
            self._source = track.between(Fraction(0), None)
            tick = track.tick
        else:
            rate = track.sample_rate if track.sample_rate in _AAC_RATES else 48000
            layout = "mono" if track.channels == 1 else "stereo"
            stream = output.add_stream(
                "aac", rate=rate, layout=layout, bit_rate=96_000 if layout == "mono" else 160_000
            )
            self._source = _encode(track, stream, rate, layout)
            tick = Fraction(1, rate)
        self._sink = _Sink(output, stream, tick)
        self._next = next(self._source, None)

    def advance(self, time: Fraction, end: Fraction | None = None) -> None:
        """Write all sound that starts before `time` [s]; with `end`, the last packet's duration is cut there."""
        while self._next is not None and self._next.start < time:
            timed = self._next
            duration = timed.duration if end is None else min(timed.duration, end - timed.start)
            self._sink.mux(timed.packet, timed.start, duration)
            self._next = next(self._source, None)

    def finish(self, end: Fraction) -> None:
        """Write the rest up to `end` [s] and let go of the source."""
        self.advance(end, end)
        self._next = None
        if self.copied:
            self._template.close()


def can_copy(track: AudioTrack) -> bool:
    """Whether MP4 takes the track's packets as they are: the codec is one that players know, and a trial succeeds."""
    if track.codec not in MP4_CODECS:
        return False
    try:
        with track.open() as template, av.open(io.BytesIO(), "w", format="mp4") as trial:
            stream = trial.add_stream_from_template(template.streams[track.stream_index])
            sink = _Sink(trial, stream, track.tick)
            for timed in itertools.islice(track.packets(), 3):
                sink.mux(timed.packet, timed.start, timed.duration)
        return True
    except AV_ERRORS as error:
        log.info("MP4 does not take the sound as it is (%s): it is encoded to AAC", error)
        return False


class _Sink:
    """Writes packets with exact times to one output stream; a packet that would go back in time is left out."""

    def __init__(self, output: Any, stream: Any, tick: Fraction) -> None:
        self._output, self._stream, self._tick = output, stream, tick
        self._last: int | None = None

    def mux(self, packet: Any, start: Fraction, duration: Fraction) -> None:
        stamp = round(start / self._tick)
        if self._last is not None and stamp <= self._last:
            return
        self._last = stamp
        packet.stream = self._stream
        packet.time_base = self._tick
        packet.pts = packet.dts = stamp
        packet.duration = max(1, round(duration / self._tick))
        self._output.mux_one(packet)


def _encode(track: AudioTrack, stream: Any, rate: int, layout: str) -> Iterator[TimedPacket]:
    """Decode, bring to a gapless run of samples on the video's clock from time 0 on, and encode to AAC."""
    resampler = AudioResampler(format="fltp", layout=layout, rate=rate)
    tick = Fraction(1, rate)
    position: int | None = None
    for frame, start in track.frames():
        for part in resampler.resample(frame):
            samples = part.to_ndarray()
            wanted = round(start * rate)
            if position is None:
                position = wanted
            samples, position = _place(samples, wanted, position, rate)
            yield from _encode_samples(stream, samples, position, rate, layout, tick)
            position += samples.shape[1]
    for packet in stream.encode(None):
        yield _timed(packet, tick)


def _place(samples: np.ndarray, wanted: int, position: int, rate: int) -> tuple[np.ndarray, int]:
    """Fit float [C, N] samples that belong at `wanted` to a run that has come to `position`; both in samples.

    Gaps over 50 ms become silence (packets were lost); anything less is rounding of stamps. Samples before 0 are cut.
    """
    if wanted - position > rate // 20:
        samples = np.pad(samples, ((0, 0), (wanted - position, 0)))
    if position < 0:
        cut = min(-position, samples.shape[1])
        samples, position = samples[:, cut:], position + cut
    return samples, position


def _encode_samples(
    stream: Any, samples: np.ndarray, position: int, rate: int, layout: str, tick: Fraction
) -> Iterator[TimedPacket]:
    if samples.shape[1] == 0:
        return
    frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
    frame.sample_rate, frame.pts, frame.time_base = rate, position, tick
    for packet in stream.encode(frame):
        yield _timed(packet, tick)


def _timed(packet: Any, tick: Fraction) -> TimedPacket:
    base = Fraction(packet.time_base) if packet.time_base else tick
    return TimedPacket(packet, packet.pts * base, (packet.duration or 1024) * base)


def _packet_samples(packet: Any, codec: str, frame_size: int) -> int:
    """Samples a packet decodes to where that is fixed or written in its first bytes, else 0 (trust the container)."""
    if codec in ("opus", "libopus"):
        return opus_samples(bytes(packet)[:2])
    return frame_size if codec in ("aac", "mp3", "mp3float", "ac3", "eac3") else 0


def opus_samples(head: bytes) -> int:
    """Samples at 48 kHz in an Opus packet, from its table-of-contents byte (RFC 6716, section 3.1); 0 if malformed."""
    if not head:
        return 0
    config, code = head[0] >> 3, head[0] & 3
    if config < 12:
        samples = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        samples = (480, 960)[config & 1]
    else:
        samples = (120, 240, 480, 960)[config & 3]
    if code < 3:
        return samples * (1, 2, 2)[code]
    return samples * (head[1] & 63) if len(head) > 1 else 0
