"""Call `fourd` inside the test process with a perception that costs nothing, and look at what came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from click.testing import CliRunner

from fourdface.cli.main import cli


@dataclass
class Outcome:
    """What a call left: exit code, bytes on stdout, text on stderr."""

    code: int
    out: bytes
    err: str

    def sentence(self, code: int = 1) -> str:
        """The one sentence of a failed call that wrote nothing to stdout."""
        assert self.code == code, (self.code, self.err)
        assert self.out == b"", "a failing command writes nothing to stdout"
        assert "Traceback" not in self.err and "this is a bug" not in self.err, self.err
        lines = self.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("fourd"), self.err
        return lines[0]


def fourd(*arguments: object, stdin: bytes | None = None) -> Outcome:
    """Run one command; stdin is empty unless given."""
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin or b"")
    return Outcome(result.exit_code, result.stdout_bytes, result.stderr)


def good(*arguments: object, stdin: bytes | None = None) -> Outcome:
    """Run one command that must succeed."""
    outcome = fourd(*arguments, stdin=stdin)
    assert outcome.code == 0, outcome.err
    return outcome


def files(folder: Path) -> list[str]:
    """Names of all that a folder holds."""
    return sorted(entry.name for entry in folder.iterdir())


def write_clip(path: Path, pictures: Sequence[np.ndarray], rate: Fraction | int = 25, sound: bool = False) -> Path:
    """An H.264 clip of pictures [H,W,3] uint8, with a tone of its length where `sound`."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=Fraction(rate), options={"crf": "12", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        audio = output.add_stream("aac", rate=44100, layout="mono") if sound else None
        for image in pictures:
            output.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(video.encode(None))
        if audio is not None:
            times = np.arange(round(44100 * len(pictures) / rate)) / 44100
            wave = (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
            for start in range(0, len(wave), 1024):
                frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 44100, start
                output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
    return path


@dataclass
class Shown:
    """What a video file shows, read with PyAV alone."""

    frames: list[np.ndarray] = field(default_factory=list)
    rate: Fraction = Fraction(0)
    sound_seconds: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.frames[0].shape[1], self.frames[0].shape[0]


def show(source: Path | bytes) -> Shown:
    """Decode a video file or its bytes."""
    import io

    shown = Shown()
    opened = str(source) if isinstance(source, Path) else io.BytesIO(source)
    with av.open(opened) as container:
        shown.metadata = dict(container.metadata)
        shown.rate = container.streams.video[0].average_rate
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                shown.frames.append(frame.to_ndarray(format="rgb24"))
            else:
                shown.sound_seconds += frame.samples / frame.sample_rate
    return shown
