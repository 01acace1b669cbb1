"""`fourd eval`: measure videos and avatars by fixed protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from fourdface.cli.options import shard_option

F = TypeVar("F", bound=Callable[..., Any])


def common(function: F) -> F:
    """Options of every protocol."""
    for option in reversed(
        (
            click.option("-o", "--output", metavar="PLACE", help="NAME.h5, or a folder for h5, json, csv and html."),
            click.option("--overwrite", is_flag=True, help="Replace PLACE if it exists."),
            click.option(
                "--protocol", type=click.Path(exists=True, dir_okay=False), metavar="YAML", help="Other rules."
            ),
            click.option("--every", type=click.IntRange(1), help="Judge every n-th frame (default: the protocol's)."),
            click.option("--metrics", metavar="A,B,...", help="Only these metrics (default: the protocol's)."),
            click.option(
                "--judges", metavar="YAML|open|embedded", default="embedded", show_default=True,
                help="Networks that read faces; open: the set of configs/eval/judges.yaml.",
            ),
            click.option(
                "--models", type=click.Path(exists=True, file_okay=False), help="Folder of the judges' networks."
            ),
            click.option(
                "--compare", type=click.Path(exists=True, dir_okay=False), help="An earlier report beside it."
            ),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def systems(function: F) -> F:
    """Options that say what is judged."""
    for option in reversed(
        (
            click.option("--method", multiple=True, metavar="ID", help="Run this method of fourd (such as splat)."),
            click.option("--weights", metavar="ID|FILE", help="Weights of the one --method (see `fourd lift`)."),
            click.option(
                "--results", multiple=True, metavar="NAME=FOLDER",
                help="Results of any program: FOLDER/SEQUENCE.mp4, .h5 or a folder of pictures.",
            ),
            click.option("--size", type=click.IntRange(64, 2048), default=1024, show_default=True,
                         help="Longest side of photos that --method lifts."),
            click.option("--work", type=click.Path(file_okay=False), help="Keep results of --method here, and reuse."),
        )
    ):  # fmt: skip
        function = option(function)
    return shard_option(function)


baselines_option = click.option(
    "--baselines", default="still,similarity", show_default=True, metavar="A,B|none",
    help="still: the source picture; similarity: it, moved by the best 2D similarity.",
)  # fmt: skip
lengths_option = click.option(
    "--lengths", type=click.Choice(["refuse", "trim"]), help="Where result and truth differ in length."
)

sizes_option = click.option(
    "--sizes", type=click.Choice(["refuse", "resize"]),
    help="Where a result has another size than the truth: refuse it, or resize it to the truth's.",
)  # fmt: skip


@click.group("eval")
def command() -> None:
    """Measure results by fixed protocols; a report has every metric by frame, sequence and in all."""


@command.command("pairs")
@click.argument("result", required=False)
@click.argument("truth", required=False)
@click.option("--manifest", type=click.Path(exists=True, dir_okay=False), help="yaml or json list of pairs.")
@lengths_option
@sizes_option
@common
@shard_option
def pairs(result: str | None, truth: str | None, manifest: str | None, **options: Any) -> None:
    """Compare RESULT with TRUTH (videos, folders of pictures or frames artifacts), or all pairs of a manifest."""
    from fourdface.cli.evaluating import run_pairs

    run_pairs(result, truth, manifest, options)


@command.command("self-reenact")
@click.argument("clips", nargs=-1, required=True)
@systems
@baselines_option
@lengths_option
@sizes_option
@common
def self_reenact(clips: tuple[str, ...], **options: Any) -> None:
    """Each clip drives the person of its own first frame; the clip is the truth."""
    from fourdface.cli.evaluating import run_self

    run_self(clips, options)


@command.command("cross-reenact")
@click.argument("clips", nargs=-1, required=True)
@click.option("--photos", multiple=True, required=True, metavar="PHOTO|FOLDER", help="Who is driven.")
@systems
@common
def cross_reenact(clips: tuple[str, ...], photos: tuple[str, ...], **options: Any) -> None:
    """Every clip drives every photo: identity of the photo, pose and expression of the clip."""
    from fourdface.cli.evaluating import run_cross

    run_cross(clips, photos, options)


@command.command("novel-view")
@click.argument("subjects", nargs=-1, required=True)
@click.option("--inputs", type=click.Choice(["frontal", "all"]), default="frontal", show_default=True,
              help="Lift the most frontal view, or every view (score matrix).")  # fmt: skip
@systems
@common
def novel_view(subjects: tuple[str, ...], inputs: str, **options: Any) -> None:
    """Lift one view of a calibrated subject (folder with transforms.json) and render it into the others."""
    from fourdface.cli.evaluating_views import run_views

    run_views(subjects, inputs, options)


@command.command("static-360")
@click.argument("photos", nargs=-1, required=True)
@click.option("--views", type=click.IntRange(2, 360), default=16, show_default=True, help="Views of --method.")
@systems
@common
def static_360(photos: tuple[str, ...], views: int, **options: Any) -> None:
    """Views all round one photo: identity to the photo and among the views."""
    from fourdface.cli.evaluating_views import run_static

    run_static(photos, views, options)


@command.command("generator")
@click.argument("generated")
@click.argument("real")
@common
def generator(generated: str, real: str, **options: Any) -> None:
    """FID and KID of a folder (or video) of generated pictures against real ones."""
    from fourdface.cli.evaluating import run_generator

    run_generator(generated, real, options)


@command.command("merge")
@click.argument("reports", nargs=-1, required=True)
@click.option("-o", "--output", metavar="PLACE", help="NAME.h5, or a folder for h5, json, csv and html.")
@click.option("--overwrite", is_flag=True, help="Replace PLACE if it exists.")
def merge(reports: tuple[str, ...], output: str | None, overwrite: bool) -> None:
    """Join the reports of shards into one (a single report is only written out again)."""
    from fourdface.cli.evaluating import run_merge

    run_merge(reports, output, overwrite)
