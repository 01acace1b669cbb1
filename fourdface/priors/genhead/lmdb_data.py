"""The official training data of Portrait4D, read-only: LMDB folders of protobuf records (FFHQ pictures, VFHQ clips).

A folder is named ..._SIZE_COUNT and holds records under eight-digit numbers and their count under `num_samples`. They
are parsed here as plain bytes, so nothing of a file is executed; every size is checked before it is used. Labels are
437 float32: camera 25, shape 300, expression 100, neck 3, jaw 3, eyes 6.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fourdface.errors import FourdError
from fourdface.priors.genhead.training_data import PictureRow

__all__ = ["GENHEAD_FIELDS", "LABELS", "VFHQ_FIELDS", "LmdbPictures", "LmdbRecord", "LmdbRecords", "is_lmdb",
           "parse_record"]  # fmt: skip

GENHEAD_FIELDS = {1: "channels", 2: "height", 3: "width", 4: "image", 5: "seg", 6: "labels", 7: "mots"}
"""Numbers of the fields of FFHQ's records (Datum_genhead): encoded picture and segmentation, one label."""
VFHQ_FIELDS = {1: "channels", 2: "height", 3: "width", 4: "num", 5: "images", 6: "segs", 7: "labels", 8: "mots"}
"""Of VFHQ's (Datum_vfhq): `num` raw pictures [num, height, width, 3] and segmentations uint8, `num` labels."""
LABELS = 437
MOST_SAMPLES = 10_000_000
MOST_BYTES = 1 << 30
LARGEST_SIDE = 4096


def parse_record(data: bytes | memoryview, fields: Mapping[int, str]) -> dict[str, int | memoryview]:
    """One protobuf message of whole numbers and byte strings: field name -> value; unknown fields are skipped.

    Raises ValueError for a record that is cut short, or has a field of another wire type than these two.
    """
    view, place, out = memoryview(data), 0, {}  # type: ignore[var-annotated]
    while place < len(view):
        key, place = _varint(view, place)
        number, wire = key >> 3, key & 7
        value: int | memoryview
        if wire == 0:
            value, place = _varint(view, place)
        elif wire == 2:
            length, place = _varint(view, place)
            if length > len(view) - place:
                raise ValueError(f"field {number} claims {length} bytes, and {len(view) - place} are left")
            value, place = view[place : place + length], place + length
        else:
            raise ValueError(f"field {number} has wire type {wire}, expected a number or bytes")
        if number in fields:
            out[fields[number]] = value
    return out


def _varint(view: memoryview, place: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven a byte, lowest first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(view):
            raise ValueError("the record ends within a number")
        byte = view[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & ((1 << 64) - 1), place
    raise ValueError("a number is longer than 64 bits")


def is_lmdb(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an LMDB folder."""
    return (Path(path) / "data.mdb").is_file()


_OPENED: dict[str, tuple[int, Any]] = {}
"""The process and the environment that it opened, of each folder."""


def _environment(folder: str) -> Any:
    """A folder's environment, one in each process: LMDB must not be carried over a fork, nor opened twice."""
    process, environment = _OPENED.get(folder, (0, None))
    if process == os.getpid():
        return environment
    if environment is not None:
        environment.close()  # the parent's; in this process alone
    try:
        import lmdb
    except ImportError as error:
        raise FourdError("LMDB data needs the package lmdb: pip install lmdb") from error
    try:
        environment = lmdb.open(folder, readonly=True, lock=False, create=False, readahead=False)
    except lmdb.Error as error:
        raise FourdError(f"{folder} cannot be read as LMDB: {error}") from error
    _OPENED[folder] = (os.getpid(), environment)
    return environment


class LmdbRecord:
    """One record while it is open: `frames` pictures with their labels. `where` names it in errors (FourdError)."""

    def __init__(self, fields: Mapping[str, int | memoryview], where: str, frames: int) -> None:
        self.fields, self.where, self.frames = fields, where, frames

    def labels(self) -> np.ndarray:
        """Labels [frames, 437] float32."""
        data = self._bytes("labels")
        if len(data) != 4 * LABELS * self.frames:
            raise FourdError(
                f"{self.where}: labels have {len(data)} bytes, expected {4 * LABELS * self.frames} "
                f"({LABELS} numbers for each of {self.frames} pictures)"
            )
        labels = np.frombuffer(data, "<f4").reshape(self.frames, LABELS).astype(np.float32)
        if not np.isfinite(labels).all():
            raise FourdError(f"{self.where}: labels hold NaN or infinity")
        return labels

    def picture(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """One picture uint8 [H, W, 3] and its segmentation uint8 [H, W]; of a clip only that frame is read."""
        if "images" not in self.fields:
            return self._decoded("image", "RGB"), self._decoded("seg", "L")
        height, width = self.whole("height", LARGEST_SIDE), self.whole("width", LARGEST_SIDE)
        pixels, segments = (np.frombuffer(self._bytes(name), np.uint8) for name in ("images", "segs"))
        count = self.frames * height * width
        if len(pixels) != 3 * count or len(segments) not in (count, 3 * count):
            raise FourdError(
                f"{self.where}: a clip has {len(pixels)} and {len(segments)} bytes of pictures and segmentations, "
                f"expected {3 * count} and {count} or {3 * count}"
            )
        image = pixels.reshape(self.frames, height, width, 3)[frame]
        return image.copy(), segments.reshape(self.frames, height, width, -1)[frame, ..., 0].copy()

    def whole(self, name: str, most: int) -> int:
        """A field that is a number from 1 to `most`."""
        value = self.fields.get(name)
        if not isinstance(value, int) or not 0 < value <= most:
            raise FourdError(f"{self.where}: {name} is not a number from 1 to {most}")
        return value

    def _decoded(self, name: str, mode: str) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(self._bytes(name)), formats=("PNG", "JPEG")) as file:
                if max(file.size) > LARGEST_SIDE:
                    raise FourdError(f"{self.where}: {name} of {file.width} x {file.height} pixels is too large")
                return np.asarray(file.convert(mode))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise FourdError(f"{self.where}: {name} is no whole PNG or JPEG") from error

    def _bytes(self, name: str) -> memoryview:
        value = self.fields.get(name)
        if not isinstance(value, memoryview):
            raise FourdError(f"{self.where} holds no {name}; Datum_genhead or Datum_vfhq records are wanted")
        return value


class LmdbRecords:
    """The records of one folder, each of `frames` pictures. The folder is mapped, never written or locked, and of a
    record only what is asked for is read; every process that reads (workers) opens it itself."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises FourdError for a folder that is no such data, or where the package lmdb is missing."""
        self.folder = Path(folder)
        if not is_lmdb(folder):
            raise FourdError(f"{self.folder} holds no data.mdb: an LMDB folder of Portrait4D's layout is wanted")
        with self._value(b"num_samples") as value:
            count = bytes(value[:20])
        if not count.isdigit() or not 0 < int(count) <= MOST_SAMPLES:
            raise FourdError(f"{self.folder}: num_samples is {count!r}, expected a number up to {MOST_SAMPLES}")
        self._count, self.frames = int(count), 1
        with self.record(0) as first:
            if "num" in first.fields:
                self.frames = first.whole("num", 1000)

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def record(self, number: int) -> Iterator[LmdbRecord]:
        """A record for as long as the context lasts. FourdError where it is missing or damaged."""
        where = f"{self.folder}: record {number}"
        with self._value(b"%08d" % number) as data:
            if len(data) > MOST_BYTES:
                raise FourdError(f"{where} has {len(data)} bytes, more than {MOST_BYTES}")
            try:
                fields = parse_record(data, GENHEAD_FIELDS)
                if isinstance(fields.get("image"), int):
                    fields = parse_record(data, VFHQ_FIELDS)
            except ValueError as error:
                raise FourdError(f"{where} is damaged: {error}") from error
            yield LmdbRecord(fields, where, self.frames)

    @contextmanager
    def _value(self, key: bytes) -> Iterator[memoryview]:
        with _environment(str(self.folder.resolve())).begin(buffers=True) as transaction:
            value = transaction.get(key)
            if value is None:
                raise FourdError(f"{self.folder} has no record {key.decode()}; it is incomplete or of another layout")
            yield memoryview(value)


class LmdbPictures:
    """Records of one folder as training pictures (see `training_data.PictureSource`); clips give every frame.

    Labels of all records are read once at the start.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises FourdError as `LmdbRecords` does, and for damaged labels."""
        self._records = LmdbRecords(folder)
        labels = []
        for number in range(len(self._records)):
            with self._records.record(number) as record:
                labels.append(record.labels())
        self._all = np.concatenate(labels)
        self.labels = self._all[:, :25]

    def __len__(self) -> int:
        return len(self._all)

    def row(self, index: int) -> PictureRow:
        """Read and decode one picture. Raises FourdError for a damaged record."""
        number, frame = divmod(index, self._records.frames)
        with self._records.record(number) as record:
            image, opacity = record.picture(frame)
        label = self._all[index]
        return PictureRow(image, opacity, label[:25], label[25:325], label[325:425], label[428:431], label[431:437])
