"""`fourd fit-flame`: tracked -> tracked with head parameters, or motion."""

from __future__ import annotations

import click

from fourdface.cli.options import output_options
from fourdface.cli.stream import check_single_stdin, open_output, write_artifact


@click.command("fit-flame")
@click.argument("tracked", default="-")
@click.option("--motion", is_flag=True, help="Write a motion artifact: the movement without the pictures.")
@click.option("--head", default="open", show_default=True, help="Head model.")
@click.option("--focal", type=click.FloatRange(1.0), help="Focal length in pixels (default: estimated).")
@click.option("--smoothing", type=click.FloatRange(0.0, 5.0), default=0.6, show_default=True, help="Frames; 0 = off.")
@click.option(
    "--embedding", type=click.Choice(["pdfgc"]),
    help="With --motion: also hold Portrait4D's motion embedding, so that `fourd reenact` needs no pictures.",
)
@click.option("--motion-weights", metavar="ID|FILE", help="Weights of the motion encoder (default: pdfgc-motion).")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
    help="Where the motion encoder runs.",
)
@click.option("--sound", metavar="CLIP", help="With --motion: also hold the sound of this file.")
@output_options("the artifact")
def command(output: str | None, overwrite: bool, **options: object) -> None:
    """Fit the head model to what `fourd preprocess` tracked (a file, or standard input)."""
    check_single_stdin(TRACKED=str(options["tracked"]))
    motion = bool(options["motion"])
    kind = "a motion artifact" if motion else "a tracked artifact"
    target = open_output(
        output, overwrite=overwrite, what=kind, example="motion.h5" if motion else "fitted.h5",
        pipe="fourd fit-flame clip.h5 --motion | fourd info -",
    )  # fmt: skip
    from fourdface.cli.fitting import FitRequest, fit_file

    write_artifact(fit_file(FitRequest(**options)), target)  # type: ignore[arg-type]
