"""`fourd render`: avatar -> pictures from any side."""

from __future__ import annotations

import click

from fourdface.cli.options import network_options, output_options
from fourdface.cli.stream import check_single_stdin
from fourdface.cli.writing import open_frame_target
from fourdface.errors import UsageError


@click.command("render")
@click.argument("avatar", default="-")
@click.option(
    "--orbit", type=click.FloatRange(0.0, 180.0), metavar="DEGREES", help="Swing left and right (default: 30)."
)
@click.option(
    "--tilt", type=click.FloatRange(0.0, 80.0), default=0.0, metavar="DEGREES", help="Also swing up and down."
)
@click.option("--turntable", is_flag=True, help="One full turn.")
@click.option(
    "--yaw",
    type=float,
    multiple=True,
    metavar="DEGREES",
    help="A still from this side (repeatable; + is the subject's left).",
)
@click.option(
    "--cameras", type=click.Path(exists=True, dir_okay=False), help="Camera path as JSON, see docs/conventions.md."
)
@click.option("--motion", type=click.Path(exists=True, dir_okay=False), help="Move as this motion artifact does.")
@click.option(
    "--frames", type=click.IntRange(1, 100000), default=75, show_default=True, help="Length of orbit and turntable."
)
@click.option("--rate", type=click.IntRange(1, 240), default=25, show_default=True, help="Frames a second.")
@click.option("--neutral", is_flag=True, help="Rest expression instead of the photo's.")
@click.option(
    "--background",
    default="keep",
    show_default=True,
    metavar="keep|white|transparent|IMAGE",
    help="What stands behind.",
)
@click.option("--size", type=click.IntRange(64, 2048), help="Longest side in pixels (default: the photo's).")
@click.option(
    "--head-pose",
    metavar="YAW,PITCH,ROLL",
    help="Portrait4D: turn the neck by so many degrees (default: as in the photo).",
)
@click.option("--paste-back", is_flag=True, help="Portrait4D: put the moved head back into the whole photo.")
@click.option(
    "--mesh",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Portrait4D: write the surface with colours (NAME.ply, .obj or .glb) instead of pictures.",
)
@network_options
@output_options("the result (NAME.mp4, a folder for PNG files, or NAME.h5)")
def command(avatar: str, output: str | None, overwrite: bool, **options: object) -> None:
    """Look at an avatar from any side: orbit, turntable, given cameras, with or without a motion."""
    check_single_stdin(AVATAR=avatar)
    mesh = options["mesh"] is not None
    if mesh and output is not None:
        raise UsageError("--mesh FILE is written instead of pictures; leave -o out")
    target = None if mesh else open_frame_target(
        output, overwrite=overwrite, transparent=options["background"] == "transparent",
        pipe="fourd lift in.jpg | fourd render --turntable | ffplay -",
    )  # fmt: skip
    from fourdface.cli.networks import take_network
    from fourdface.cli.rendering import RenderRequest, render_file

    network = take_network(options)
    render_file(RenderRequest(avatar=avatar, network=network, overwrite=overwrite, **options), target)  # type: ignore[arg-type]
