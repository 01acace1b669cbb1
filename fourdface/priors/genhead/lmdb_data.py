"""The official training data of Portrait4D, read-only: LMDB folders of protobuf records (FFHQ pictures, VFHQ clips).

A folder is named ..._SIZE_COUNT and holds records under eight-digit numbers and their count under `num_samples`. They
are parsed here as plain bytes, so nothing of a file is executed; every size is checked before it is used. Labels are
437 float32: camera 25, shape 300, expression 100, neck 3, jaw 3, eyes 6.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from fourdface.errors import FourdError
from fourdface.priors.genhead.training_data import PictureRow

__all__ = ["GENHEAD_FIELDS", "LABELS", "VFHQ_FIELDS", "LmdbPictures", "parse_record"]

GENHEAD_FIELDS = {1: "channels", 2: "height", 3: "width", 4: "image", 5: "seg", 6: "labels", 7: "mots"}
"""Numbers of the fields of FFHQ's records (Datum_genhead): encoded picture and segmentation, one label."""
VFHQ_FIELDS = {1: "channels", 2: "height", 3: "width", 4: "num", 5: "images", 6: "segs", 7: "labels", 8: "mots"}
"""Of VFHQ's (Datum_vfhq): `num` raw pictures [num, height, width, 3] and segmentations uint8, `num` labels."""
LABELS = 437
MOST_SAMPLES = 10_000_000
MOST_BYTES = 1 << 30
LARGEST_SIDE = 4096


def parse_record(data: bytes, fields: Mapping[int, str]) -> dict[str, int | memoryview]:
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


class LmdbPictures:
    """Records of one LMDB folder as training pictures (see `training_data.PictureSource`); clips give every frame.

    The environment is opened in each process that reads (workers), never written or locked. Labels of all records are
    read once at the start.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Raises FourdError for a folder that is no such data, or where the package lmdb is missing."""
        self.folder = Path(folder)
        if not (self.folder / "data.mdb").is_file():
            raise FourdError(f"{self.folder} holds no data.mdb: an LMDB folder of Portrait4D's layout is wanted")
        self._environments: dict[int, Any] = {}
        count = self._get(b"num_samples")
        if not count.isdigit() or not 0 < int(count) <= MOST_SAMPLES:
            raise FourdError(f"{self.folder}: num_samples is {count[:20]!r}, expected a number up to {MOST_SAMPLES}")
        first = self._record(0)
        self.frames = self._whole(first, "num", 1000) if "num" in first else 1
        self._records = int(count)
        labels = [self._labels(self._record(k)) for k in range(self._records)]
        self._all = np.concatenate(labels)
        self.labels = self._all[:, :25]

    def __len__(self) -> int:
        return len(self._all)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environments": {}}

    def row(self, index: int) -> PictureRow:
        """Read and decode one picture. Raises FourdError for a damaged record."""
        record, label = self._record(index // self.frames), self._all[index]
        if self.frames > 1:
            image, opacity = self._raw(record, index % self.frames)
        else:
            image, opacity = self._decoded(record, "image", "RGB"), self._decoded(record, "seg", "L")
        return PictureRow(image, opacity, label[:25], label[25:325], label[325:425], label[428:431], label[431:437])

    def _get(self, key: bytes) -> bytes:
        environment = self._environments.get(os.getpid())
        if environment is None:
            environment = self._environments[os.getpid()] = self._opened()
        with environment.begin() as transaction:
            value = transaction.get(key)
        if value is None:
            raise FourdError(f"{self.folder} has no record {key.decode()}; it is incomplete or of another layout")
        return bytes(value)

    def _opened(self) -> Any:
        try:
            import lmdb
        except ImportError as error:
            raise FourdError("LMDB data needs the package lmdb: pip install lmdb") from error
        try:
            return lmdb.open(str(self.folder), readonly=True, lock=False, create=False, readahead=False)
        except lmdb.Error as error:
            raise FourdError(f"{self.folder} cannot be read as LMDB: {error}") from error

    def _record(self, number: int) -> dict[str, int | memoryview]:
        data = self._get(b"%08d" % number)
        if len(data) > MOST_BYTES:
            raise FourdError(f"{self.folder}: record {number} has {len(data)} bytes, more than {MOST_BYTES}")
        try:
            record = parse_record(data, GENHEAD_FIELDS)
            return parse_record(data, VFHQ_FIELDS) if isinstance(record.get("image"), int) else record
        except ValueError as error:
            raise FourdError(f"{self.folder}: record {number} is damaged: {error}") from error

    def _labels(self, record: dict[str, int | memoryview]) -> np.ndarray:
        data = self._bytes(record, "labels")
        if len(data) != 4 * LABELS * self.frames:
            raise FourdError(
                f"{self.folder}: labels have {len(data)} bytes, expected {4 * LABELS * self.frames} "
                f"({LABELS} numbers for each of {self.frames} pictures)"
            )
        labels = np.frombuffer(data, "<f4").reshape(self.frames, LABELS).astype(np.float32)
        if not np.isfinite(labels).all():
            raise FourdError(f"{self.folder}: labels hold NaN or infinity")
        return labels

    def _raw(self, record: dict[str, int | memoryview], frame: int) -> tuple[np.ndarray, np.ndarray]:
        height, width = (self._whole(record, name, LARGEST_SIDE) for name in ("height", "width"))
        pixels, segments = (np.frombuffer(self._bytes(record, name), np.uint8) for name in ("images", "segs"))
        count = self.frames * height * width
        if len(pixels) != 3 * count or len(segments) not in (count, 3 * count):
            raise FourdError(
                f"{self.folder}: a clip has {len(pixels)} and {len(segments)} bytes of pictures and segmentations, "
                f"expected {3 * count} and {count} or {3 * count}"
            )
        image = pixels.reshape(self.frames, height, width, 3)[frame]
        return image, segments.reshape(self.frames, height, width, -1)[frame, ..., 0]

    def _decoded(self, record: dict[str, int | memoryview], name: str, mode: str) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(self._bytes(record, name)), formats=("PNG", "JPEG")) as file:
                if max(file.size) > LARGEST_SIDE:
                    raise FourdError(f"{self.folder}: a picture of {file.width} x {file.height} pixels is too large")
                return np.asarray(file.convert(mode))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise FourdError(f"{self.folder}: {name} of a record is no whole PNG or JPEG") from error

    def _bytes(self, record: dict[str, int | memoryview], name: str) -> memoryview:
        value = record.get(name)
        if not isinstance(value, memoryview):
            raise FourdError(f"{self.folder}: a record holds no {name}; Datum_genhead or Datum_vfhq records are wanted")
        return value

    def _whole(self, record: dict[str, int | memoryview], name: str, most: int) -> int:
        value = record.get(name)
        if not isinstance(value, int) or not 0 < value <= most:
            raise FourdError(f"{self.folder}: {name} of a record is not a number from 1 to {most}")
        return value
