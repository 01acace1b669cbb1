"""What every command does with stdin, stdout and files (DESIGN.md section 4), in one place.

A command is four lines: `open_output` first (it refuses before anything is computed), `read_artifact` for what comes
in, one stage, and `with output as path:` around the writing. Results reach their place whole or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, TypeVar, cast

import click

from fourdface.artifacts import Artifact, Source
from fourdface.artifacts.atomic import COPY_BYTES, check_place, reason, replacing, scratch_file, spool
from fourdface.errors import FourdError, UsageError

STREAM = "-"
STDIN = "standard input"
A = TypeVar("A", bound=Artifact)
T = TypeVar("T")


def _binary(name: Literal["stdin", "stdout"]) -> BinaryIO:
    stream = getattr(sys, name)
    if stream is None:  # closed by the shell (`<&-`)
        raise FourdError(f"standard {name.removeprefix('std')}put is closed")
    return cast(BinaryIO, stream.buffer)


# ------------------------------------------------------------------------------------------------------------ input


def check_single_stdin(**arguments: str | None) -> None:
    """Refuse a call in which two arguments are "-": there is one standard input. Names are those of the options."""
    streams = [name.replace("_", "-") for name, value in arguments.items() if value == STREAM]
    if len(streams) > 1:
        names = " and ".join(streams)
        raise UsageError(f"{names} cannot both come from standard input (-); give a file for one of them")


@contextlib.contextmanager
def input_file(argument: str, wanted: str, hint: str = "") -> Iterator[Path]:
    """Give the path of an input: the argument itself, or what came through "-", spooled to a temporary file.

    `wanted` says what should have come ("an avatar artifact", "a photo"), `hint` how to give it. Raises UsageError for
    a terminal in place of a pipe, FourdError for an absent file or an empty stdin.
    """
    if argument != STREAM:
        path = Path(argument)
        if not path.exists():
            raise FourdError(f"{path} does not exist; {wanted} is wanted")
        yield path
        return
    stdin = _binary("stdin")
    if stdin.isatty():
        raise UsageError(f"{wanted} is wanted on standard input, which is the terminal; {hint or 'pipe it in'}")
    with scratch_file() as path:
        if spool(stdin, path) == 0:
            raise FourdError(
                f"{STDIN} is empty, and {wanted} is wanted: the command before the pipe failed or wrote nothing"
            )
        try:
            yield path
        except FourdError as error:  # the temporary file's name would tell nobody anything
            if str(path) not in str(error):
                raise
            raise type(error)(str(error).replace(str(path), STDIN)) from error


def read_artifact(cls: type[A], argument: str, *, option: str = "") -> A:
    """Read an artifact of one kind from a path or "-"; `option` names the option that would take a file ("--avatar").

    Raises UsageError or FourdError as `Artifact.read` and `input_file` do.
    """
    name = STDIN if argument == STREAM else argument
    where = f"`{option} FILE`" if option else "a file name"
    hint = f"pipe it in from {cls.MADE_BY}, or give {where}"
    with input_file(argument, f"the {cls.KIND} artifact", hint) as path:
        return cls.read(path, name=name)


def source_of(path: Path, name: str = "") -> Source:
    """The provenance entry of an input file: base name (or `name`) and SHA-256, read in pieces."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(COPY_BYTES):
                digest.update(piece)
    except OSError as error:
        raise FourdError(f"cannot read {path}: {reason(error)}") from error
    return Source(name or path.name, digest.hexdigest())


def command_line() -> str:
    """The call as one string for the provenance: program name without its folder, arguments quoted for a shell."""
    return shlex.join(["fourd", *sys.argv[1:]]).encode("utf-8", "replace").decode("utf-8")


# ----------------------------------------------------------------------------------------------------------- output


@dataclasses.dataclass
class Output:
    """Where a result goes. Use as a context: it gives a temporary path, and publishes it when the block succeeds.

    to_stdout: the bytes are copied to standard output at the end, so a video must then be written as fragmented mp4
    (readable from a pipe). A failing block leaves an old file as it was and writes nothing to stdout.
    """

    place: Path | None
    suffix: str = ""
    overwrite: bool = False
    _active: contextlib.AbstractContextManager[Path] | None = dataclasses.field(default=None, repr=False)

    @property
    def to_stdout(self) -> bool:
        """Whether the result goes to standard output."""
        return self.place is None

    @contextlib.contextmanager
    def _publish(self) -> Iterator[Path]:
        if self.place is not None:
            with replacing(self.place, overwrite=self.overwrite) as temporary:
                yield temporary
        else:
            with scratch_file(self.suffix) as temporary:
                yield temporary
                copy_to_stdout(temporary)

    def __enter__(self) -> Path:
        self._active = self._publish()
        return self._active.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._active.__exit__(kind, error, trace) if self._active is not None else None


def open_output(
    argument: str | None, *, overwrite: bool, what: str, example: str, suffix: str = ".h5", pipe: str = ""
) -> Output:
    """Decide where a result goes, before it is computed.

    argument: the value of -o, None or "-" for stdout. what: "an avatar artifact". example: a file name for the refusal.
    pipe: the other right way, a whole command line. Raises UsageError for a terminal, an existing file or a folder, and
    FourdError for a place that cannot be written.
    """
    if argument is None or argument == STREAM:
        if _binary("stdout").isatty():
            right = f"write it to a file (-o {example})" + (f", or pipe it on ({pipe})" if pipe else ", or pipe it on")
            raise UsageError(f"{what} is binary and standard output is the terminal; {right}")
        return Output(None, suffix)
    path = Path(argument)
    check_place(path, overwrite=overwrite)
    return Output(path, path.suffix or suffix, overwrite)


def copy_to_stdout(path: Path) -> None:
    """Copy a finished file to standard output. Raises BrokenPipeError as it is, and FourdError for a full disk."""
    stdout: BinaryIO = _binary("stdout")
    try:
        with open(path, "rb") as file:
            shutil.copyfileobj(file, stdout, COPY_BYTES)
        stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FourdError(f"cannot write to standard output: {reason(error)}") from error


def check_folder(place: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written; call it before computing, `output_folder` calls it again.

    Raises UsageError for a file of that name, or for a folder with files in it unless `overwrite` is given.
    """
    if place.is_dir():
        if any(place.iterdir()) and not overwrite:
            raise UsageError(f"{place} is a folder with files in it; give --overwrite to replace it")
    elif place.exists():
        raise UsageError(f"{place} is a file, and a folder is wanted; name another place")
    else:
        check_place(place, overwrite=False)


@contextlib.contextmanager
def output_folder(place: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside `place` for a sequence of files; it takes that name when the block succeeds.

    An existing folder that is not empty needs `overwrite`, and is then replaced as a whole.
    """
    check_folder(place, overwrite=overwrite)
    place = Path(os.path.abspath(place))  # so that "." and "x/" have a name and a folder around them
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent))
    except OSError as error:
        raise FourdError(f"cannot write {place}: {reason(error)}") from error
    try:
        yield temporary
        temporary.chmod(0o755)
        old = temporary.with_suffix(".old")
        if place.is_dir():
            os.replace(place, old)
        os.replace(temporary, place)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_artifact(artifact: Artifact, output: Output) -> None:
    """Write an artifact to its output, whole or not at all."""
    with output as path:
        artifact.write(path, overwrite=True)


# --------------------------------------------------------------------------------------------------------- progress


def progress_bar(label: str = "", *, total: int | None = None, unit: str = "frame", **details: Any) -> Any:
    """A tqdm bar on stderr; nothing is shown with -q or where stderr is no terminal."""
    from tqdm import tqdm

    quiet = logging.getLogger("fourdface").level >= logging.ERROR
    return tqdm(total=total, desc=label or None, unit=unit, file=sys.stderr, disable=True if quiet else None, **details)


def progress(items: Iterable[T], *, total: int | None = None, label: str = "", unit: str = "frame") -> Iterator[T]:
    """Pass on the items of an iterable while a bar counts them."""
    with progress_bar(label, total=total, unit=unit) as bar:
        for item in items:
            yield item
            bar.update()


def echo_json(value: Any) -> None:
    """Print a value as indented JSON on stdout, keys in the order given."""
    import json

    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextlib.contextmanager
def byte_progress(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """A progress bar for a transfer: gives a function to call with the bytes so far and, if known, in all."""
    with progress_bar(label, unit="B", unit_scale=True) as bar:

        def update(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update
