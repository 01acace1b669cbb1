"""Open a foreign weight file, whatever its format, without executing anything in it."""

from __future__ import annotations

import dataclasses
import mmap
from pathlib import Path
from typing import Any

from fourdface.assets.formats.arrays import Array
from fourdface.assets.formats.errors import Budget, FormatError, damage_refused
from fourdface.assets.formats.numpy_files import NPY_MARK, is_npz, read_npz
from fourdface.assets.formats.onnx_files import Outline, looks_like_onnx, read_outline
from fourdface.assets.formats.safe_pickle import read_pickle
from fourdface.assets.formats.safetensors_files import looks_like_safetensors, read_safetensors
from fourdface.assets.formats.torch_files import (
    ZIP_MARK,
    TensorReader,
    is_torch_stream,
    read_torch_stream,
    read_torch_zip,
)

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "is packed with gzip: unpack it first"),
    (b"7z\xbc\xaf", "is packed with 7z: unpack it first"),
    (b"\xfd7zXZ", "is packed with xz: unpack it first"),
    (b"BZh", "is packed with bzip2: unpack it first"),
    (b"version https://git-lfs", "is a Git LFS pointer and not the file itself: fetch it with `git lfs pull`"),
    (b"<", "is a web page and not the file itself: the download failed"),
    (b"\x89HDF", "is an HDF5 file, which is no weight file"),
    (b"\x89PNG", "is a picture"),
    (b"\xff\xd8\xff", "is a picture"),
    (NPY_MARK, "is a single numpy array, and no known model is one"),
)
_TAR = (257, b"ustar")


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A file that was read: its format, its inert content and the reader of its tensors.

    `arrays` is set for formats that are nothing but named arrays, `outline` for ONNX, `root` for pickles.
    """

    kind: str
    root: Any = None
    tensors: TensorReader = dataclasses.field(default_factory=TensorReader)
    arrays: dict[str, Array] | None = None
    outline: Outline | None = None


def open_weights(path: Path) -> Opened:
    """Read a weight file. Tensors are views of the file, which is mapped and not loaded.

    Raises:
        FormatError: the file is damaged, hostile, too large or of no known format. Its text names no file.
    """
    with damage_refused():
        return read_weights(_mapped(path))


def read_weights(data: memoryview) -> Opened:
    """Read the bytes of a weight file; see `open_weights`."""
    budget = Budget()
    head = bytes(data[:32])
    if head.startswith(ZIP_MARK):
        if is_npz(data):
            return Opened("npz", arrays=read_npz(data))
        root, tensors = read_torch_zip(data, budget)
        return Opened("torch", root, tensors)
    if is_torch_stream(data):
        root, tensors = read_torch_stream(data, budget)
        return Opened("torch", root, tensors)
    if looks_like_safetensors(data):
        return Opened("safetensors", arrays=read_safetensors(data)[0])
    for mark, words in _OTHERS:
        if head.startswith(mark):
            raise FormatError(f"it {words}")
    if bytes(data[_TAR[0] : _TAR[0] + 5]) == _TAR[1]:
        raise FormatError("it is a tar archive, as torch wrote before 2017 or a collection: unpack it or save it anew")
    if looks_like_onnx(data):
        return Opened("onnx", outline=read_outline(data))
    return _pickle(data, budget)


def _pickle(data: memoryview, budget: Budget) -> Opened:
    modern = data[0] == 0x80
    try:
        root, end = read_pickle(data, 0, budget)
    except FormatError:
        if modern or data[0] in b"(c]}":
            raise
        raise FormatError("it is no pickle, torch, numpy, safetensors or ONNX file") from None
    if end != len(data):
        raise FormatError(f"it has {len(data) - end} bytes after its pickle")
    return Opened("pickle", root, TensorReader(None, budget))


def _mapped(path: Path) -> memoryview:
    """The bytes of a file, mapped for reading only: pages come from the disk when they are looked at."""
    try:
        if not path.exists():
            raise FormatError("it does not exist")
        if not path.is_file():
            raise FormatError("it is not a file")
        with open(path, "rb") as file:
            if path.stat().st_size == 0:
                raise FormatError("it is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise FormatError(f"it cannot be read: {error.strerror or error}") from error
