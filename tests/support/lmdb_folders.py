"""Made-up LMDB folders in the official layout of Portrait4D: records put together byte by byte."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def varint(value: int) -> bytes:
    """A number, seven bits a byte, lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """A protobuf message of numbers and byte strings."""
    out = b""
    for number, value in fields:
        wire = varint(number << 3 | (0 if isinstance(value, int) else 2))
        out += wire + (varint(value) if isinstance(value, int) else varint(len(value)) + value)
    return out


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    """A picture as the bytes of a file."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind)
    return out.getvalue()


def store(folder: Path, records: Sequence[bytes], count: bytes | None = None) -> Path:
    """Write records under eight-digit numbers, and their count (or what is claimed to be)."""
    import lmdb

    folder.mkdir()
    with lmdb.open(str(folder), map_size=1 << 24) as file, file.begin(write=True) as transaction:
        for number, record in enumerate(records):
            transaction.put(b"%08d" % number, record)
        transaction.put(b"num_samples", str(len(records)).encode() if count is None else count)
    return folder


def picture_record(image_u8: np.ndarray, opacity_u8: np.ndarray, label: np.ndarray) -> bytes:
    """A record of FFHQ's kind (Datum_genhead): image [H, W, 3], opacity [H, W], label [437]."""
    height, width = opacity_u8.shape
    parts = (encoded(image_u8), encoded(opacity_u8), label.astype("<f4").tobytes())
    return message((1, 3), (2, height), (3, width), *zip((4, 5, 6), parts, strict=True))


def clip_record(images_u8: np.ndarray, opacities_u8: np.ndarray, labels: np.ndarray) -> bytes:
    """A record of VFHQ's kind (Datum_vfhq): images [N, H, W, 3], opacities [N, H, W], labels [N, 437]."""
    count, height, width = opacities_u8.shape
    parts = (images_u8.tobytes(), opacities_u8.tobytes(), labels.astype("<f4").tobytes())
    return message((1, 3), (2, height), (3, width), (4, count), *zip((5, 6, 7), parts, strict=True))
