"""Two small commands that use the stream contract as the real ones do: `make | use`, with no model behind them.

Run as `python -m support.probe make -o a.h5`. `--trace FILE` leaves a line when the computing starts.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from fourdface.artifacts import Avatar
from fourdface.cli import main as main_module
from fourdface.cli.options import avatar_option, output_options, seed_option, shard_option, size_option
from fourdface.cli.stream import check_single_stdin, input_file, open_output, progress, read_artifact, write_artifact
from fourdface.errors import FourdError
from support.artifacts import make_avatar, make_motion

FAILURES = {
    "none": None,
    "face": FourdError("no face was found in in.jpg"),
    "bug": TypeError("a thing went\nwrong"),
    "interrupt": KeyboardInterrupt(),
    "memory": MemoryError(),
    "disk": OSError(28, "No space left on device", "/big"),
}


@click.command()
@output_options("the avatar")
@seed_option
@size_option()
@shard_option
@click.option("--count", default=11)
@click.option("--fail", type=click.Choice(list(FAILURES)), default="none")
@click.option("--sleep", type=float, default=0.0)
@click.option("--trace", type=click.Path(path_type=Path))
def make(output, overwrite, seed, size, shard, count, fail, sleep, trace) -> None:
    """Make an avatar."""
    target = open_output(
        output, overwrite=overwrite, what="an avatar artifact", example="a.h5", pipe="fourd make | fourd use"
    )
    if trace:
        trace.write_text("computing")
    for _ in progress(range(3), total=3, label="making"):
        time.sleep(sleep / 3)
    failure = FAILURES[fail]
    if failure is not None:
        raise failure
    write_artifact(make_avatar(count, seed), target)


@click.command()
@click.argument("driver", required=False)
@avatar_option
@output_options("the motion")
def use(driver, avatar, output, overwrite) -> None:
    """Turn an avatar and a driver into a motion."""
    check_single_stdin(avatar=avatar, driver=driver)
    target = open_output(output, overwrite=overwrite, what="a motion artifact", example="m.h5")
    artifact = read_artifact(Avatar, avatar, option="--avatar")
    size = 0
    if driver:
        with input_file(driver, "a driving video") as path:
            size = path.stat().st_size
    write_artifact(make_motion(len(artifact.tensors["color"]) % 5, embeddings={}, width=size + 1), target)


if __name__ == "__main__":
    for name in ("make", "use"):
        main_module.COMMANDS[name] = (f"support.probe:{name}", "A probe.")
    main_module.main()
