"""Read any still picture into uint8 RGB, refuse bombs before decoding, and encode PNG."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import av
import av.error
import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from fourdface.errors import FourdError
from fourdface.media.sniff import describe_source

# 64 megapixels hold the biggest camera pictures in common use and decode into 200 MB.
MAX_PIXELS = 64_000_000
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".gif", ".jp2"}
)
ImageSource = str | os.PathLike[str] | bytes
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "HEIF", "JPEG2000", "MPO", "TGA", "PCX", "ICO")
# What Pillow's parsers answer damaged files with.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    MemoryError,
    # A GIF's frame may be larger than its canvas.
    Image.DecompressionBombError,
)


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, max_side: int | None = None) -> np.ndarray:
    """Read a picture as sRGB, upright, with transparency composited over white.

    Args:
        source: a path, or the encoded bytes.
        max_pixels: refuse pictures with more pixels than this, before any pixel is decoded.
        max_side: if given, huge JPEGs may be decoded at 1/2, 1/4 or 1/8 size, never below this longer side [pixels].

    Returns:
        uint8 [H, W, 3] RGB, C-contiguous and writable.

    Raises:
        FourdError: the file is missing, empty, damaged, too large or no picture; one sentence that says which.
    """
    return flatten(read_image_rgba(source, max_pixels=max_pixels, max_side=max_side))


def read_image_rgba(source: ImageSource, *, max_pixels: int = MAX_PIXELS, max_side: int | None = None) -> np.ndarray:
    """Read a picture as :func:`read_image` does, keeping transparency.

    Returns:
        uint8 [H, W, 4] RGBA, alpha straight (not premultiplied), 255 where the file has none.

    Raises:
        FourdError: as :func:`read_image`.
    """
    name = _name(source)
    try:
        with _quiet(), _open(source, name, max_pixels) as image:
            if max_side is not None:
                _draft(image, max_side)
            return _decode(image)
    except UnidentifiedImageError:
        deep = _deep_tiff(source, max_pixels)
        if deep is None:
            raise FourdError(_unreadable(source, name)) from None
        return deep
    except _DAMAGED as error:
        raise FourdError(
            f"{name} looks like {describe_source(source)} but is damaged or cut short ({_one_line(error)}): "
            "a complete picture (JPEG, PNG, WebP, TIFF, ...) is wanted."
        ) from None


def flatten(image_rgba_u8: np.ndarray, background: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    """Composite uint8 [H, W, 4] (straight alpha) over a plain colour; returns uint8 [H, W, 3]."""
    alpha_u8 = image_rgba_u8[..., 3:]
    if alpha_u8.min(initial=255) == 255:
        return np.ascontiguousarray(image_rgba_u8[..., :3])
    alpha = alpha_u8.astype(np.float32) / 255.0
    over = image_rgba_u8[..., :3] * alpha + np.asarray(background, np.float32) * (1.0 - alpha)
    return np.rint(over).astype(np.uint8)


def encode_png(image_u8: np.ndarray, *, compress_level: int = 1) -> bytes:
    """Encode uint8 [H, W], [H, W, 3] or [H, W, 4] as PNG; level 1 is several times faster than the usual 6."""
    if image_u8.dtype != np.uint8 or (image_u8.ndim != 2 and image_u8.shape[2:] not in ((3,), (4,))):
        raise ValueError(
            f"encode_png: expected uint8 [H,W], [H,W,3] or [H,W,4], got {image_u8.dtype} {list(image_u8.shape)}"
        )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_u8)).save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()


def decode_png(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode what :func:`encode_png` wrote, unchanged: uint8 [H, W], [H, W, 3] or [H, W, 4].

    Raises:
        FourdError: not a PNG of 8 bits a channel, damaged, or more than ``max_pixels`` pixels.
    """
    try:
        with _quiet(), _open(data, "the PNG", max_pixels) as image:
            if image.format != "PNG" or image.mode not in ("L", "RGB", "RGBA"):
                raise FourdError(f"the PNG is {image.format} {image.mode}: a PNG with modes L, RGB or RGBA is wanted.")
            return np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise FourdError(f"the PNG is damaged or cut short ({_one_line(error)}): write it again.") from None


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """List a folder's pictures (by suffix) in natural order: frame_2 before frame_10; hidden files are left out.

    Raises:
        FourdError: the folder does not exist, is no folder or cannot be read.
    """
    try:
        entries = [path for path in Path(folder).iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise FourdError(f"cannot list folder {folder}: {error.strerror}.") from None
    return sorted(
        (path for path in entries if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()), key=natural_key
    )


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Key that sorts names as people do: runs of digits as numbers, letters without case, ties by the exact name."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    # A tag (0 number, 1 text) keeps numbers and texts comparable.
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part.casefold()) for part in parts], path.name


def _open(source: ImageSource, name: str, max_pixels: int) -> Image.Image:
    stream: IO[bytes] | str = io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source)
    if not isinstance(source, bytes):
        if not os.path.exists(source):
            raise FourdError(f"{name} does not exist: give the path of a picture.")
        if os.path.isdir(source):
            raise FourdError(f"{name} is a folder: a single picture is wanted.")
        if not os.access(source, os.R_OK):
            raise FourdError(f"{name} cannot be read: permission denied.")
    formats = _known_formats()
    try:
        image = Image.open(stream, formats=formats)
    except Image.DecompressionBombError:
        width, height = _bomb_size(source, formats)
        raise FourdError(_too_large(name, width, height, max_pixels)) from None
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise FourdError(_too_large(name, width, height, max_pixels))
    if width < 1 or height < 1:
        raise FourdError(f"{name} has no pixels ({width}x{height}).")
    return image


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings: our pixel limit is stricter than its own, and damage that matters is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _known_formats() -> list[str]:
    """Pillow's names of the formats that are read; its others run programs (EPS) or are stubs (HDF5, GRIB)."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _bomb_size(source: ImageSource, formats: list[str]) -> tuple[int, int]:
    """Read the size of a picture that Pillow refuses: `Image.open` checks it, the classes of the formats do not."""
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as stream:
        for factory, accept in (Image.OPEN[name] for name in formats):
            stream.seek(0)
            try:
                if accept is None or accept(stream.read(16)) is True:
                    stream.seek(0)
                    return factory(stream, "").size
            except _DAMAGED:
                continue
    return 0, 0


def _deep_tiff(source: ImageSource, max_pixels: int) -> np.ndarray | None:
    """Decode a TIFF that Pillow cannot (16 bits a channel in colour) with libav; None if it cannot either."""
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    if data[:4] not in (b"II*\x00", b"MM\x00*"):
        return None
    try:
        decoder = av.VideoCodecContext.create("tiff", "r")
        decoder.options = {"max_pixels": str(max_pixels)}
        frame = next(iter(decoder.decode(av.Packet(data))), None)
        return None if frame is None else frame.to_ndarray(format="rgba")
    except (av.error.FFmpegError, ValueError):
        return None


def _draft(image: Image.Image, max_side: int) -> None:
    """Ask the JPEG decoder for a smaller size; other formats ignore it. The longer side stays >= max_side."""
    longer = max(image.size)
    if image.format in ("JPEG", "MPO") and longer >= 2 * max_side:
        scale = max_side / longer
        # Keep CMYK and greyscale as they are: draft must only change the size.
        image.draft(image.mode, (max(1, int(image.width * scale)), max(1, int(image.height * scale))))


def _decode(image: Image.Image) -> np.ndarray:
    profile = image.info.get("icc_profile")
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        grey = _deep_to_u8(image)
        return np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        alpha = np.array(rgba.getchannel("A"))
        image = rgba.convert("RGB")
    image = _to_srgb(image, profile)
    rgb = np.asarray(image)
    return np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8) if alpha is None else alpha])


def _deep_to_u8(image: Image.Image) -> np.ndarray:
    """Scale modes I;16*, I and F to 8 bits; Pillow's own convert would clip them at 255."""
    deep = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        deep = np.nan_to_num(deep, nan=0.0, posinf=1.0, neginf=0.0)
        full = 1.0 if deep.max(initial=0.0) <= 1.0 else 255.0
    else:
        full = 65535.0 if deep.max(initial=0.0) <= 65535.0 else float(deep.max())
    return np.rint(np.clip(deep / full, 0.0, 1.0) * 255.0).astype(np.uint8)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert to sRGB by the embedded ICC profile; a missing, broken or ill-fitting profile means sRGB."""
    if profile and b"sRGB" not in profile[:4096]:
        # Pillow may be built without littlecms; the module then imports, but its functions raise ImportError.
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if image.mode in ("P", "1"):
                image = image.convert("RGB")
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
        except (ImportError, OSError, ValueError, ImageCms.PyCMSError):
            pass
    return image.convert("RGB")


def _name(source: ImageSource) -> str:
    return "the picture" if isinstance(source, bytes) else os.fspath(source)


def _too_large(name: str, width: int, height: int, max_pixels: int) -> str:
    size = f"{width}x{height} pixels ({width * height / 1e6:.0f} megapixels)" if width else "frames of a size"
    return f"{name} has {size} beyond the limit of {max_pixels / 1e6:g} megapixels: make it smaller first."


def _unreadable(source: ImageSource, name: str) -> str:
    what = describe_source(source)
    if what.startswith(("a HEIC", "a HEIF", "an AVIF")):
        return f"{name} is {what}, which this installation cannot decode: convert it to JPEG or PNG."
    return f"{name} looks like {what}: a picture (JPEG, PNG, WebP, TIFF, ...) is wanted."


def _one_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
