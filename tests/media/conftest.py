"""Clips and sounds made for the tests, so that every property of a file is known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

Picture = Callable[[int], np.ndarray]


def corner_picture(width: int, height: int) -> np.ndarray:
    """Grey with a red top-left, green top-right, blue bottom-left and white bottom-right corner."""
    image = np.full((height, width, 3), 90, np.uint8)
    h, w = height // 3, width // 3
    image[:h, :w], image[:h, -w:] = (220, 30, 30), (30, 200, 40)
    image[-h:, :w], image[-h:, -w:] = (30, 40, 220), (250, 250, 250)
    return image


def counting_picture(width: int, height: int, index: int) -> np.ndarray:
    """A picture whose brightness tells `index` (mod 32): see :func:`count_of`."""
    image = np.full((height, width, 3), 16 + 7 * (index % 32), np.uint8)
    image[: height // 4, : width // 4] = (200, 60, 40)
    return image


def count_of(image_u8: np.ndarray) -> int:
    """Read back the index that :func:`counting_picture` drew."""
    height, width = image_u8.shape[:2]
    return round((float(image_u8[height // 2 :, width // 2 :].mean()) - 16) / 7)


def tone(seconds: float, rate: int, channels: int, burst: float | None = None, amplitude: float = 0.5) -> np.ndarray:
    """float32 [C, N]: a 440 Hz tone, or silence that becomes a tone at `burst` seconds."""
    times = np.arange(round(seconds * rate)) / rate
    wave = amplitude * np.sin(2 * np.pi * 440 * times)
    if burst is not None:
        wave[times < burst] = 0
    return np.repeat(wave[None].astype(np.float32), channels, 0)


@dataclass
class Sound:
    """Sound of a test clip; `start` is where it begins on the container's clock."""

    codec: str = "aac"
    samples: np.ndarray | None = None
    rate: int = 44100
    start: Fraction = Fraction(0)
    options: dict[str, str] | None = None


@dataclass
class Clip:
    """Everything about a test clip."""

    width: int = 64
    height: int = 48
    rate: Fraction = Fraction(25)
    frames: int = 20
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    picture: Picture | None = None
    times: Sequence[Fraction] | None = None  # presentation times; None: constant rate
    time_base: Fraction | None = None
    rotation: int = 0
    hflip: bool = False
    sound: Sound | None = None
    color: tuple[int, int, int, int] | None = None  # tags: matrix, range, primaries, transfer curve
    planes: Callable[[int], av.VideoFrame] | None = None
    sample_aspect: Fraction | None = None
    options: dict[str, str] | None = None
    container_options: dict[str, str] | None = None

    def write(self, path: Path, fmt: str | None = None) -> Path:
        """Encode the clip."""
        with av.open(str(path), "w", format=fmt, container_options=self.container_options or {}) as output:
            stream = output.add_stream(self.codec, rate=self.rate, options=self.options or {})
            context = stream.codec_context
            context.width, context.height, context.pix_fmt = self.width, self.height, self.pix_fmt
            base = self.time_base or (Fraction(1, 90000) if self.times is not None else 1 / self.rate)
            context.time_base = base
            if self.color is not None:
                context.colorspace, context.color_range, context.color_primaries, context.color_trc = self.color
            if self.sample_aspect is not None:
                context.sample_aspect_ratio = self.sample_aspect
            if self.rotation or self.hflip:
                stream.set_display_rotation(self.rotation, hflip=self.hflip)
            audio = self._add_sound(output)
            output.start_encoding()
            for index in range(self.frames):
                frame = self._frame(index)
                time = self.times[index] if self.times is not None else index / self.rate
                frame.pts, frame.time_base = round(time / base), base
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
            if audio is not None:
                self._write_sound(output, audio)
        return path

    def _frame(self, index: int) -> av.VideoFrame:
        if self.planes is not None:
            return self.planes(index)
        picture = self.picture(index) if self.picture else counting_picture(self.width, self.height, index)
        return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=self.pix_fmt)

    def _add_sound(self, output):
        if self.sound is None:
            return None
        layout = "mono" if self._samples().shape[0] == 1 else "stereo"
        return output.add_stream(
            self.sound.codec, rate=self.sound.rate, layout=layout, options=self.sound.options or {}
        )

    def _samples(self) -> np.ndarray:
        if self.sound.samples is not None:
            return self.sound.samples
        return tone(float(self.frames / self.rate), self.sound.rate, 2)

    def _write_sound(self, output, stream) -> None:
        samples = self._samples()
        rate = self.sound.rate
        position = round(self.sound.start * rate)
        layout = "mono" if samples.shape[0] == 1 else "stereo"
        for start in range(0, samples.shape[1], 1024):
            part = np.ascontiguousarray(samples[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, position + start, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


@dataclass
class Facts:
    """What is in a file, found with PyAV alone."""

    stamps: list[Fraction]
    video_end: Fraction
    audio_codec: str | None
    audio_start: Fraction
    audio_end: Fraction
    metadata: dict[str, str]
    rate: Fraction

    @staticmethod
    def of(path: Path | str) -> Facts:
        """Demux a file without the code under test; audio times are those of samples that a player plays."""
        with av.open(str(path)) as container:
            video = container.streams.video[0]
            packets = [p for p in container.demux(video) if p.pts is not None]
            stamps = sorted(p.pts * video.time_base for p in packets)
            end = max((p.pts + (p.duration or 0)) * video.time_base for p in packets)
            metadata, rate = dict(container.metadata), video.average_rate
        codec, start, stop = None, Fraction(0), Fraction(0)
        with av.open(str(path)) as container:
            if container.streams.audio:
                audio = container.streams.audio[0]
                codec = audio.codec_context.name
                frames = [(f.pts * f.time_base, Fraction(f.samples, f.sample_rate)) for f in container.decode(audio)]
                start, stop = (frames[0][0], sum(frames[-1])) if frames else (Fraction(0), Fraction(0))
        return Facts(stamps, end, codec, start, stop, metadata, rate)


def onset(path: Path | str | bytes, threshold: float = 0.1) -> float:
    """Container time [s] at which the sound first gets loud."""
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = np.abs(frame.to_ndarray().astype(np.float64))
            samples = samples.max(0) if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).max(1)
            if frame.format.name.startswith("s16"):
                samples /= 32768
            loud = np.flatnonzero(samples > threshold)
            if len(loud):
                return float(frame.pts * frame.time_base) + loud[0] / frame.sample_rate
    return float("nan")


class Kit:
    """The helpers, handed to tests by the `kit` fixture."""

    Clip = Clip
    Sound = Sound
    facts = staticmethod(Facts.of)
    onset = staticmethod(onset)
    tone = staticmethod(tone)
    corner_picture = staticmethod(corner_picture)
    counting_picture = staticmethod(counting_picture)
    count_of = staticmethod(count_of)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit
