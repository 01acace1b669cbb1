"""Say in words what a file's first bytes look like, so that an error can name what came instead of what was wanted."""

from __future__ import annotations

import os
from pathlib import Path

HEAD_BYTES = 512

# (offset, magic, words). Longest and most specific first; RIFF and ISO media are told apart below.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF"),
    (0, b"II*\x00", "a TIFF picture"),
    (0, b"MM\x00*", "a TIFF picture"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (a fourd artifact?)"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (0, b"OggS", "an Ogg file"),
    (0, b"fLaC", "a FLAC sound file"),
    (0, b"ID3", "an MP3 sound file"),
    (0, b"FLV\x01", "an FLV video"),
    (0, b"\x7fELF", "an executable"),
    (0, b"\x00\x00\x01\xba", "an MPEG video"),
    (0, b"ply\n", "a PLY file"),
    (0, b"BM", "a BMP picture"),
)
_ISO_BRANDS = {
    b"heic": "a HEIC picture", b"heix": "a HEIC picture", b"mif1": "a HEIF picture", b"avif": "an AVIF picture",
    b"M4A ": "an M4A sound file", b"qt  ": "a QuickTime video",
}  # fmt: skip


def describe_bytes(head: bytes) -> str:
    """Describe a file by its first bytes (at least 16, better 512): ``"a JPEG picture"``, ``"plain text"``, ..."""
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp":
        return _ISO_BRANDS.get(head[8:12], "an MP4 video")
    if head[:4] == b"RIFF":
        return {b"WEBP": "a WebP picture", b"AVI ": "an AVI video", b"WAVE": "a WAV sound file"}.get(
            head[8:12], "a RIFF file"
        )
    for offset, magic, words in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return words
    if not any(head):
        return "a file of zero bytes only"
    return "plain text" if _is_text(head) else "data of no known kind"


def describe_source(source: str | os.PathLike[str] | bytes) -> str:
    """Describe a path (or bytes already read) as :func:`describe_bytes` does; a folder is ``"a folder"``."""
    if isinstance(source, bytes):
        return describe_bytes(source[:HEAD_BYTES])
    if Path(source).is_dir():
        return "a folder"
    with open(source, "rb") as file:
        return describe_bytes(file.read(HEAD_BYTES))


def _is_text(head: bytes) -> bool:
    if b"\x00" in head:
        return False
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A multi-byte character may be cut at the end of the head: that is still text.
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    printable = sum(character.isprintable() or character in "\r\n\t\f" for character in text)
    return printable >= 0.95 * len(text)
