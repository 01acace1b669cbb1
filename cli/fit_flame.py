"""`fourd fit-flame`: tracked -> tracked with head parameters, or motion."""

from __future__ import annotations

import click

from fourdface.cli.options import output_options
from fourdface.cli.stream import check_single_stdin, open_output, read_artifact, write_artifact


@click.command("fit-flame")
@click.argument("tracked", default="-")
@click.option("--motion", is_flag=True, help="Write a motion artifact: the movement without the pictures.")
@click.option("--head", default="open", show_default=True, help="Head model.")
@click.option("--focal", type=click.FloatRange(1.0), help="Focal length in pixels (default: estimated).")
@click.option("--smoothing", type=click.FloatRange(0.0, 5.0), default=0.6, show_default=True, help="Frames; 0 = off.")
@output_options("the artifact")
def command(
    tracked: str, motion: bool, head: str, focal: float | None, smoothing: float, output: str | None, overwrite: bool
) -> None:
    """Fit the head model to what `fourd preprocess` tracked (a file, or standard input)."""
    check_single_stdin(TRACKED=tracked)
    kind = "a motion artifact" if motion else "a tracked artifact"
    target = open_output(
        output, overwrite=overwrite, what=kind, example="motion.h5" if motion else "fitted.h5",
        pipe="fourd fit-flame clip.h5 --motion | fourd info -",
    )  # fmt: skip
    from dataclasses import replace

    from fourdface.artifacts import Tracked
    from fourdface.blocks.head_model import HeadModel
    from fourdface.cli.stream import command_line
    from fourdface.stages.fit_flame import FitFlameOptions, fit_flame, to_motion

    source = read_artifact(Tracked, tracked)
    provenance = replace(source.provenance, command=command_line())
    fitted = fit_flame(source, HeadModel.load(head), provenance, FitFlameOptions(focal=focal, smoothing=smoothing))
    write_artifact(to_motion(fitted, provenance) if motion else fitted, target)
