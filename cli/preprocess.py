"""`fourd preprocess`: photo or clip -> tracked."""

from __future__ import annotations

import click

from fourdface.cli.options import output_options, shard_option
from fourdface.cli.sources import parse_face


@click.command("preprocess")
@click.argument("inputs", nargs=-1, metavar="[INPUT]...")
@click.option(
    "--face", default="largest", show_default=True, callback=parse_face, help="largest, or 0, 1, ... from the left."
)
@click.option("--mattes", is_flag=True, help="Keep a person matte of every frame (always for a photo).")
@click.option("--keep-frames", is_flag=True, help="Store the frames in the artifact (always for a photo).")
@click.option("--fit", is_flag=True, help="Run fit-flame on the result at once.")
@click.option(
    "--debug",
    type=click.Path(dir_okay=False),
    metavar="FILE.mp4",
    help="Also write an overlay of landmarks and fitted head.",
)
@click.option("--strict", is_flag=True, help="With several inputs: stop at the first that fails.")
@click.option("--perception", default="auto", show_default=True, help="Backend: auto, embedded, mediapipe, ...")
@shard_option
@output_options("the tracked artifact (several inputs: a folder)")
def command(
    inputs: tuple[str, ...], face: str | int, mattes: bool, keep_frames: bool, fit: bool, debug: str | None,
    strict: bool, perception: str, shard: tuple[int, int] | None, output: str | None, overwrite: bool,
) -> int:  # fmt: skip
    """Find and track the face in photos or clips (files, folders of them, patterns, or - for standard input).

    Several inputs make one artifact each in the folder -o; those that are complete are skipped when run again.
    """
    from fourdface.cli.tracking import TrackRequest, track_inputs

    request = TrackRequest(face, mattes, keep_frames, fit, debug, perception)
    return track_inputs(inputs or ("-",), request, output, overwrite=overwrite, strict=strict, shard=shard)
