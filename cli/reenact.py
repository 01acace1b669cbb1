"""`fourd reenact`: avatar + driver -> video."""

from __future__ import annotations

import click

from fourdface.cli.options import avatar_option, network_options, output_options
from fourdface.cli.sources import parse_face
from fourdface.cli.stream import check_single_stdin
from fourdface.cli.writing import open_frame_target


@click.command("reenact")
@click.argument("driver")
@avatar_option
@click.option(
    "--pose",
    type=click.Choice(["absolute", "relative", "none"]),
    default="absolute",
    show_default=True,
    help="The head's rotation: the driver's own, its change since the first frame, or the photo's.",
)
@click.option(
    "--expression",
    type=click.Choice(["absolute", "relative"]),
    default="absolute",
    show_default=True,
    help="The driver's own, or its change from the driver's rest added to the photo's.",
)
@click.option(
    "--expression-scale", type=click.FloatRange(0.0, 3.0), default=1.0, show_default=True, help="Exaggerate or damp."
)
@click.option(
    "--gaze", type=click.Choice(["on", "off"]), default="on", show_default=True, help="Follow the driver's eyes."
)
@click.option("--orbit", type=click.FloatRange(0.0, 90.0), default=0.0, help="Let the camera swing by so many degrees.")
@click.option("--side-by-side", is_flag=True, help="Show the driver beside the result.")
@click.option(
    "--missing",
    type=click.Choice(["hold", "skip", "fail"]),
    default="hold",
    show_default=True,
    help="Frames in which the driver's face is not seen.",
)
@click.option(
    "--face",
    default="largest",
    show_default=True,
    callback=parse_face,
    help="Driver's face: largest, or 0, 1, ... from the left.",
)
@click.option(
    "--background",
    default="keep",
    show_default=True,
    metavar="keep|white|transparent|driver|IMAGE",
    help="What stands behind; driver (Portrait4D): what stands behind the driver, taken out by its matte.",
)
@click.option("--size", type=click.IntRange(64, 2048), help="Longest side in pixels (default: the photo's).")
@click.option("--smoothing", type=click.FloatRange(0.0, 5.0), default=0.6, show_default=True, help="Frames; 0 = off.")
@click.option(
    "--audio", type=click.Choice(["on", "off"]), default="on", show_default=True, help="Carry the driver's sound."
)
@click.option("--perception", default="auto", show_default=True, help="Backend: auto, embedded, mediapipe, ...")
@click.option("--paste-back", is_flag=True, help="Portrait4D: put the moved head back into the whole photo.")
@network_options
@output_options("the video (NAME.mp4, a folder for PNG files, or NAME.h5)")
def command(driver: str, avatar: str, output: str | None, overwrite: bool, **options: object) -> None:
    """Move an avatar as DRIVER does: a video, a folder of pictures, a motion artifact, or - for standard input."""
    check_single_stdin(DRIVER=driver, avatar=avatar)
    target = open_frame_target(
        output, overwrite=overwrite, transparent=options["background"] == "transparent",
        pipe="fourd lift in.jpg | fourd reenact drive.mp4 | ffplay -",
    )  # fmt: skip
    from fourdface.cli.driving import ReenactRequest, reenact_file
    from fourdface.cli.networks import take_network

    network = take_network(options)
    reenact_file(ReenactRequest(driver=driver, avatar=avatar, network=network, **options), target)  # type: ignore[arg-type]
