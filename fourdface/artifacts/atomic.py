"""Files that are either whole or absent: written beside their place and moved there, or spooled from a stream."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fourdface.errors import FourdError, UsageError

COPY_BYTES = 1 << 20


def reason(error: BaseException) -> str:
    """The cause of an I/O error in a few words, without the errno and the path that the sentence around it names."""
    if isinstance(error, OSError) and error.errno is not None and error.strerror and not error.strerror.startswith("["):
        return error.strerror.split(" (")[0].lower() if error.errno != errno.ENOSPC else "no space left on the device"
    text = " ".join(str(error).split())
    if "No space left" in text:
        return "no space left on the device"
    return text[:200] or type(error).__name__


def check_place(path: Path, *, overwrite: bool) -> None:
    """Refuse a place that cannot be written, so that nothing is computed in vain.

    Raises UsageError for an existing file without `overwrite` and FourdError for a folder that is absent or closed.
    """
    parent = path.parent
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file")
    if not parent.is_dir():
        raise FourdError(f"cannot write {path}: the folder {parent} does not exist")
    if not os.access(parent, os.W_OK | os.X_OK) and not is_special(path):
        raise FourdError(f"cannot write {path}: no permission to write in the folder {parent}")
    if path.exists() and not is_special(path) and not overwrite:
        raise UsageError(f"{path} exists; give --overwrite to replace it")


def is_special(path: Path) -> bool:
    """Whether the path is a device, pipe or socket: such a place is written into, never replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed to the disk and moved there in one step.

    On any error the temporary file is removed and an old file at `path` stays as it was. The temporary file keeps the
    suffix, by which encoders choose a format. Devices and pipes (``/dev/stdout``) receive a copy instead.
    """
    place = Path(path)
    check_place(place, overwrite=overwrite)
    if is_special(place):
        with scratch_file(place.suffix) as temporary:
            yield temporary
            with _named(place), open(temporary, "rb") as source, open(place, "wb") as target:
                shutil.copyfileobj(source, target, COPY_BYTES)
        return
    place = Path(os.path.realpath(place))  # a link stays a link, and its target is replaced
    with _named(place):
        handle, name = tempfile.mkstemp(prefix=f".{place.stem}.", suffix=f".tmp{place.suffix}", dir=place.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with _named(place):
            os.chmod(temporary, 0o666 & ~_umask())
            _flush(temporary)
            check_place(place, overwrite=overwrite)
            os.replace(temporary, place)
            _flush_folder(place.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_file(suffix: str = "") -> Iterator[Path]:
    """Give the path of an empty file in the folder for temporary files ($TMPDIR); it is removed afterwards."""
    handle, name = tempfile.mkstemp(prefix="fourd-", suffix=suffix)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def spool(stream: BinaryIO, path: Path, *, words: str = "standard input") -> int:
    """Copy a stream to a file (HDF5 and most videos need one that can be searched) and return the number of bytes."""
    with _named(path, f"spooling {words} to"), open(path, "wb") as target:
        shutil.copyfileobj(stream, target, COPY_BYTES)
        return target.tell()


@contextlib.contextmanager
def _named(path: Path, action: str = "cannot write") -> Iterator[None]:
    """Turn an operating system error into a sentence that names the file; a closed pipe stays what it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FourdError(f"{action} {path}: {reason(error)}") from error


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    """Make the move itself durable; not every file system lets a folder be flushed."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
