"""`fourd synth-data`: make training pictures with their truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from fourdface.cli.options import shard_option

F = TypeVar("F", bound=Callable[..., Any])


def common(function: F) -> F:
    """Options of every source of pictures."""
    for option in reversed(
        (
            click.option("-o", "--output", metavar="FOLDER", required=True, help="Folder for views-00000.h5, ..."),
            click.option("--overwrite", is_flag=True, help="Make shards anew that are there."),
            click.option("--count", type=click.IntRange(1), help="People in all (default: as many as there are)."),
            click.option("--motions", type=click.IntRange(1, 1000), default=4, show_default=True, help="Of a person."),
            click.option("--views", type=click.IntRange(1, 1000), default=6, show_default=True, help="Of a motion."),
            click.option("--size", type=click.IntRange(32, 1024), default=128, show_default=True, help="Pixels."),
            click.option("--neck", type=click.FloatRange(0, 1), default=0.0, show_default=True,
                         help="How often the neck is bent."),
            click.option("--per-shard", type=click.IntRange(1), default=50, show_default=True, help="People a file."),
            click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Any number."),
            click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True,
                         help="Processes; each takes one core and a shard at a time."),
            click.option("--sheet", metavar="PICTURE", help="Contact sheet of the first shard: NAME.png or NAME.jpg."),
        )
    ):  # fmt: skip
        function = option(function)
    return shard_option(function)


@click.group("synth-data")
def command() -> None:
    """Make `views` shards to train with: people, motions and cameras with depth, opacity and head parameters."""


@command.command("open-head")
@common
def open_head(**options: Any) -> int:
    """People of the open head who do not exist, with procedural skin, hair, glasses, clothes, lights: no download."""
    from fourdface.cli.synthesising import open_heads, run

    return run(open_heads(options), options)


@command.command("genhead")
@click.argument("checkpoint")
@click.option(
    "--clips",
    multiple=True,
    metavar="FILE",
    help="Fitted tracked or motion artifacts to move people by (default: expressions in general).",
)
@click.option("--static", is_flag=True, help="One motion a person, the jaw as it is.")
@common
def genhead(checkpoint: str, clips: tuple[str, ...], static: bool, **options: Any) -> int:
    """People of a GenHead (weights.safetensors of `fourd train genhead`): Portrait4D's own training data."""
    from fourdface.cli.synthesising import run
    from fourdface.cli.synthesising_networks import open_genhead

    return run(open_genhead(checkpoint, static, clips, options), options)


@command.command("video")
@click.argument("clips", nargs=-1, required=True)
@click.option("--synthesizer", required=True, metavar="ID|FILE", help="Weights of a static reconstructor (Psi_3d).")
@click.option("--perception", default="auto", show_default=True, help="Backend with which clips are tracked.")
@common
def video(clips: tuple[str, ...], synthesizer: str, perception: str, **options: Any) -> int:
    """Frames of CLIPS and views of them from random cameras, made by a static reconstructor (Portrait4D-v2)."""
    from fourdface.cli.synthesising import run
    from fourdface.cli.synthesising_networks import VideoClips

    return run(VideoClips.open(clips, synthesizer, perception, options), options)


@command.command("avatars")
@click.argument("folder")
@click.option("--perception", default="auto", show_default=True, help="Backend with which photos are lifted.")
@common
def avatars(folder: str, perception: str, **options: Any) -> int:
    """People of FOLDER (splat avatars, or photos to be lifted) in new expressions, views and lights."""
    from fourdface.cli.synthesising import AvatarFolder, run

    return run(AvatarFolder.open(folder, perception, options), options)


@command.command("pictures")
@click.argument("folder")
@click.option("--perception", default="auto", show_default=True, help="Backend that looks at the photos.")
@click.option("--mirror", is_flag=True, help="Take every photo mirrored too.")
@click.option("--frames", type=click.IntRange(1), default=1, show_default=True, help="Of a tracked clip at most.")
@click.option("-o", "--output", metavar="FOLDER", required=True, help="Folder for views-00000.h5, ...")
@click.option("--overwrite", is_flag=True, help="Make shards anew that are there.")
@click.option("--count", type=click.IntRange(1), help="Files in all (default: as many as there are).")
@click.option("--size", type=click.IntRange(32, 1024), default=512, show_default=True, help="Pixels.")
@click.option("--per-shard", type=click.IntRange(1), default=500, show_default=True, help="Files (people) a shard.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--sheet", metavar="PICTURE", help="Contact sheet of the first shard: NAME.png or NAME.jpg.")
@shard_option
def pictures(folder: str, **options: Any) -> int:
    """Real photos, and tracked photos or clips, of FOLDER and its subfolders: aligned, with fitted heads.

    For adversarial training (`fourd train genhead`). Clips come from `fourd preprocess --keep-frames --mattes`.
    """
    from fourdface.cli.synthesising import run
    from fourdface.cli.synthesising_pictures import PictureFolder

    return run(PictureFolder.open(folder, options), {**options, "seed": 0})
