"""`fourd lift`: photo -> avatar."""

from __future__ import annotations

import click

from fourdface.cli.options import network_options, output_options
from fourdface.cli.sources import parse_face
from fourdface.cli.stream import open_output, write_artifact


@click.command("lift")
@click.argument("photo", default="-")
@click.option(
    "--method",
    type=click.Choice(["splat", "portrait4d-v2", "portrait4d", "lp3d"]),
    default="splat",
    show_default=True,
    help="How to lift; all but splat need weights, see `fourd assets list`.",
)
@click.option(
    "--face", default="largest", show_default=True, callback=parse_face, help="largest, or 0, 1, ... from the left."
)
@click.option(
    "--size",
    type=click.IntRange(64, 2048),
    default=1024,
    show_default=True,
    help="Longest side at most; smaller photos stay as they are.",
)
@click.option("--focal", type=click.FloatRange(1.0), help="Focal length of the photo in pixels (default: estimated).")
@click.option("--mask", type=click.Path(exists=True, dir_okay=False), help="Your own person matte (white = person).")
@click.option("--perception", default="auto", show_default=True, help="Backend: auto, embedded, mediapipe, ...")
@network_options
@output_options("the avatar")
def command(photo: str, output: str | None, overwrite: bool, **options: object) -> None:
    """Turn one photo (or a fitted tracked artifact of one) into an avatar that `fourd reenact` and `render` move."""
    target = open_output(
        output, overwrite=overwrite, what="an avatar artifact", example="avatar.h5",
        pipe="fourd lift in.jpg | fourd reenact drive.mp4 -o out.mp4",
    )  # fmt: skip
    from fourdface.cli.lifting import LiftRequest, lift_file
    from fourdface.cli.networks import take_network

    request = LiftRequest(photo, network=take_network(options), **options)  # type: ignore[arg-type]
    write_artifact(lift_file(request), target)
