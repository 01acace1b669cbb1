"""What `fourd preprocess` does between its input and its output, for one file or many."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from fourdface.cli.sources import expand_inputs, open_source, provenance_of
from fourdface.cli.stream import Output, open_output, progress, write_artifact
from fourdface.errors import FourdError, UsageError

if TYPE_CHECKING:
    from fourdface.artifacts import Tracked
    from fourdface.blocks.head_model import HeadModel
    from fourdface.perception.base import Perception

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class TrackRequest:
    """The options of `fourd preprocess`, see there."""

    face: str | int = "largest"
    mattes: bool = False
    keep_frames: bool = False
    fit: bool = False
    debug: str | None = None
    perception: str = "auto"


def track_inputs(
    inputs: tuple[str, ...], request: TrackRequest, output: str | None, *, overwrite: bool, strict: bool,
    shard: tuple[int, int] | None,
) -> int:  # fmt: skip
    """One input -> one artifact; several -> a folder of them. Returns the exit code: 1 where an input failed."""
    if len(inputs) == 1 and not any(mark in inputs[0] for mark in "*?["):
        target = open_output(
            output, overwrite=overwrite, what="a tracked artifact", example="tracked.h5",
            pipe="fourd preprocess clip.mp4 | fourd fit-flame --motion -o motion.h5",
        )  # fmt: skip
        overlay = _overlay_target(inputs[0], request.debug)
        tracked, shown = track_one(inputs[0], request, *_tools(request))
        if overlay is not None:
            _write_overlay(inputs[0], overlay, shown)
        write_artifact(tracked, target)
        return 0
    return _track_many(expand_inputs(inputs), request, output, overwrite=overwrite, strict=strict, shard=shard)


def _tools(request: TrackRequest) -> tuple[Perception, HeadModel | None]:
    from fourdface.blocks.head_model import HeadModel
    from fourdface.perception import load_perception

    return load_perception(request.perception), HeadModel.load("open") if request.fit or request.debug else None


def _track_many(
    paths: list[Path], request: TrackRequest, output: str | None, *, overwrite: bool, strict: bool,
    shard: tuple[int, int] | None,
) -> int:  # fmt: skip
    if output is None or output == "-" or Path(output).suffix:
        raise UsageError(f"{len(paths)} inputs make {len(paths)} artifacts; give a folder with -o FOLDER")
    if request.debug is not None:
        raise UsageError("--debug shows one input; give one input, or leave it out")
    names = [path.name for path in paths]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{doubled[0]} is there twice, and the results are named after the inputs; run them apart")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    index, count = shard or (0, 1)
    perception, model = _tools(request)
    failed = 0
    for path in progress(paths[index::count], label="preprocess", unit="file"):
        place = folder / f"{path.name}.h5"
        if place.exists() and not overwrite:
            log.info("%s is complete already", place)
            continue
        try:
            track_one(str(path), request, perception, model)[0].write(place, overwrite=True)
        except FourdError as error:
            if strict:
                raise
            failed += 1
            log.error("%s", error)
    if failed:
        log.error("%d of %d inputs failed", failed, len(paths[index::count]))
    return 1 if failed else 0


def track_one(
    argument: str, request: TrackRequest, perception: Perception, model: HeadModel | None
) -> tuple[Tracked, Tracked]:
    """What is asked for, and the same with the head fitted where there is a model."""
    from fourdface.stages.fit_flame import fit_flame
    from fourdface.stages.preprocess import PreprocessOptions, preprocess

    with open_source(argument) as (source, _):
        options = PreprocessOptions(request.face, request.mattes or source.still, request.keep_frames or source.still)
        provenance = provenance_of(source, "preprocess", config=json.dumps(dataclasses.asdict(request)))
        shown = dataclasses.replace(source, frames=progress(source.frames, label="preprocess"))
        tracked = preprocess(shown, perception, provenance, options)
    fitted = tracked
    if model is not None:
        fitted = fit_flame(tracked, model, provenance)
    return (fitted if request.fit else tracked), fitted


def _overlay_target(argument: str, debug: str | None) -> Output | None:
    if debug is None:
        return None
    if argument == "-":
        raise UsageError("--debug reads the input twice; give a file name instead of standard input")
    return open_output(debug, overwrite=True, what="an overlay", example="overlay.mp4", suffix=".mp4")


def _write_overlay(argument: str, target: Output, fitted: Tracked) -> None:
    """The clip with what was found in it drawn over: landmarks, and the fitted head's outline and features."""
    from fourdface.blocks.head_model import HeadModel
    from fourdface.media.video import VideoWriter
    from fourdface.stages.overlay import draw_overlay

    model = HeadModel.load("open")
    with (
        open_source(argument) as (source, audio),
        target as path,
        VideoWriter(path, source.width, source.height, source.rate, audio=audio) as writer,
    ):
        for k, (image_u8, _) in enumerate(source.frames):
            writer.write(draw_overlay(image_u8, fitted, k, model))
