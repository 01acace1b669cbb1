"""Open what the user names as a photo, a clip or a folder; several files become one list."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fourdface.artifacts import Provenance, Source
from fourdface.cli.stream import command_line, input_file, source_of
from fourdface.errors import FourdError, UsageError

if TYPE_CHECKING:
    from fourdface.artifacts import Weights
    from fourdface.media.audio import AudioTrack
    from fourdface.stages.preprocess import Source as StageSource

PICTURE_WORDS = "picture"


def is_picture(path: Path) -> bool:
    """Whether a file's first bytes are a still picture's (the name does not count)."""
    from fourdface.media.sniff import describe_source

    return path.is_file() and PICTURE_WORDS in describe_source(path)


@contextlib.contextmanager
def open_source(argument: str, rate: Fraction = Fraction(25)) -> Iterator[tuple[StageSource, AudioTrack | None]]:
    """A photo, clip or folder of pictures (or "-") as frames for a stage, with the clip's sound track."""
    from fourdface.media.image import read_image
    from fourdface.media.video import open_video
    from fourdface.stages.preprocess import Source as StageSource

    with input_file(argument, "a photo or a video") as path:
        name = "standard input" if argument == "-" else Path(argument).name
        digest = "" if path.is_dir() else source_of(path).sha256
        if is_picture(path):
            image_u8 = read_image(path)
            height, width = image_u8.shape[:2]
            yield StageSource([(image_u8, 0.0)], width, height, Fraction(1), name, digest, still=True), None
            return
        reader = open_video(path, rate=rate)
        frames = ((frame.image_u8, frame.time) for frame in reader)
        uneven = reader.variable_rate
        source = StageSource(frames, reader.width, reader.height, reader.rate, name, digest, variable_rate=uneven)
        yield source, reader.audio


def provenance_of(
    source: StageSource, method: str, seed: int = 0, config: str = "{}", synthetic: bool = False,
    earlier: tuple[Provenance, ...] = (),
) -> Provenance:  # fmt: skip
    """Provenance of a result made from `source` (and from earlier artifacts) with the embedded weights."""
    sources = tuple(entry for old in earlier for entry in old.sources)
    if source.name:
        sources += (Source(source.name, source.sha256),)
    return Provenance(
        command=command_line(), config_json=config, seed=seed, sources=tuple(dict.fromkeys(sources)),
        weights=embedded_weights(), method=method, synthetic_media=synthetic,
    )  # fmt: skip


USED_BY_ALL = ("open-head", "perception")
"""Shipped assets that every result depends on; networks of single methods are shipped as well."""


def embedded_weights() -> tuple[Weights, ...]:
    """Registry entries of the shipped assets that every result depends on."""
    from fourdface.artifacts import Weights
    from fourdface.assets import load_registry

    registry = load_registry()
    return tuple(
        Weights(asset.id, asset.sha256 or "", asset.licence, asset.commercial_use)
        for asset in map(registry.__getitem__, USED_BY_ALL)
    )


def parse_face(ctx: click.Context, parameter: click.Parameter, value: str) -> str | int:
    """Callback of --face: "largest" or an index."""
    if value == "largest":
        return value
    if value.isdigit():
        return int(value)
    raise UsageError(f"--face is {value!r}, expected largest or an index such as 0 (counted from the left)")


def expand_inputs(arguments: tuple[str, ...]) -> list[Path]:
    """Files and globs, and folders opened up, as a sorted list without repeats. Raises FourdError where nothing is."""
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found += sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
        elif path.exists():
            found.append(path)
        else:
            found += _glob(argument)
    return list(dict.fromkeys(found))


def _glob(pattern: str) -> list[Path]:
    import glob

    matches = sorted(Path(name) for name in glob.glob(pattern))
    if not matches:
        raise FourdError(f"{pattern} does not exist; give a photo, a video, a folder or a pattern that matches some")
    return matches
