from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from fourdface.errors import FourdError
from fourdface.media.image import (
    decode_png,
    encode_png,
    flatten,
    list_images,
    natural_key,
    read_image,
    read_image_rgba,
)

FOUR = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


def blocks(scale: int = 16) -> np.ndarray:
    return FOUR.repeat(scale, 0).repeat(scale, 1)


def save(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_plain_formats_are_read_exactly(tmp_path):
    for suffix in ("png", "bmp", "tiff", "webp", "ppm"):
        path = save(
            tmp_path / f"a.{suffix}", Image.fromarray(blocks()), **({"lossless": True} if suffix == "webp" else {})
        )
        image = read_image(path)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        assert image.flags.writeable
        np.testing.assert_array_equal(image, blocks())
        np.testing.assert_array_equal(read_image(path.read_bytes()), blocks())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(tmp_path, orientation):
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:20, :32], upright[:20, 32:] = (255, 0, 0), (0, 255, 0)
    upright[20:, :32], upright[20:, 32:] = (0, 0, 255), (255, 255, 255)
    # What a camera stores for each EXIF orientation: the inverse of the turn that the tag demands.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 1)[:, ::-1][::-1, :][:, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    if orientation == 7:
        stored = upright[::-1, ::-1].transpose(1, 0, 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)


def test_cmyk_jpeg_has_the_right_colours(tmp_path):
    image = Image.fromarray(blocks(32)).convert("CMYK")
    got = read_image(save(tmp_path / "a.jpg", image, quality=95)).astype(int)
    want = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(got[16::32, 16::32] - want[16::32, 16::32]).max() <= 12


def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for suffix in ("png", "tiff"):
        path = save(tmp_path / f"a.{suffix}", Image.fromarray(deep))
        got = read_image(path)
        np.testing.assert_array_equal(got[..., 0], np.rint(deep / 257.0))
        assert (got[..., 0] == got[..., 2]).all()


def sixteen_bit_png(rgb: np.ndarray) -> bytes:
    """A 16-bit RGB PNG by hand, as Pillow cannot write one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = rgb.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def sixteen_bit_tiff(rgb: np.ndarray) -> bytes:
    """An uncompressed 16-bit RGB TIFF by hand, little endian, one strip."""
    height, width = rgb.shape[:2]
    data = rgb.astype("<u2").tobytes()
    tags = [
        (256, 4, width),
        (257, 4, height),
        (259, 3, 1),
        (262, 3, 2),
        (277, 3, 3),
        (278, 4, height),
        (279, 4, len(data)),
    ]
    count = len(tags) + 2
    after = 8 + 2 + 12 * count + 4
    tags += [(258, 3, after), (273, 4, after + 6)]
    out = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", count)
    for tag, kind, value in sorted(tags):
        out += struct.pack("<HHII", tag, kind, 3 if tag == 258 else 1, value)
    return out + struct.pack("<I", 0) + struct.pack("<3H", 16, 16, 16) + data


@pytest.mark.parametrize("encode", [sixteen_bit_png, sixteen_bit_tiff])
def test_sixteen_bit_colour(encode):
    rgb = np.random.default_rng(0).integers(0, 65536, (12, 17, 3))
    got = read_image(encode(rgb))
    assert np.abs(got - rgb / 257.0).max() <= 1.0


def test_float_tiff(tmp_path):
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "a.tiff", Image.fromarray(ramp)))[..., 1], np.rint(ramp * 255)
    )


def test_palette_greyscale_and_bilevel(tmp_path):
    palette = Image.fromarray(blocks()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    np.testing.assert_array_equal(read_image(save(tmp_path / "p.png", palette)), blocks())
    np.testing.assert_array_equal(read_image(save(tmp_path / "p.gif", palette)), blocks())
    grey = Image.fromarray(blocks()).convert("L")
    np.testing.assert_array_equal(read_image(save(tmp_path / "l.png", grey))[..., 2], np.asarray(grey))
    bilevel = grey.convert("1")
    np.testing.assert_array_equal(read_image(save(tmp_path / "1.png", bilevel))[..., 0], np.asarray(bilevel) * 255)


def test_alpha_is_composited_over_white_or_kept(tmp_path):
    rgba = np.dstack([blocks(), np.full(blocks().shape[:2], 255, np.uint8)])
    rgba[:8, :, 3] = 0
    rgba[8:12, :, 3] = 128
    path = save(tmp_path / "a.png", Image.fromarray(rgba))
    flat = read_image(path)
    assert (flat[:8] == 255).all()
    np.testing.assert_array_equal(flat[10, 2], [255, 127, 127])
    np.testing.assert_array_equal(flat[12:], rgba[12:, :, :3])
    np.testing.assert_array_equal(read_image_rgba(path), rgba)
    grey = Image.fromarray(rgba).convert("LA")
    np.testing.assert_array_equal(read_image_rgba(save(tmp_path / "la.png", grey))[..., 3], rgba[..., 3])
    palette = Image.fromarray(np.tile(np.uint8([[0, 1]]), (4, 4)), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    image = read_image_rgba(save(tmp_path / "t.png", palette, transparency=1))
    assert (image[:, 1::2, 3] == 0).all()
    np.testing.assert_array_equal(image[0, 0], [10, 20, 30, 255])
    assert (read_image_rgba(save(tmp_path / "o.png", Image.fromarray(blocks())))[..., 3] == 255).all()


def test_flatten_background():
    rgba = np.zeros((1, 1, 4), np.uint8)
    np.testing.assert_array_equal(flatten(rgba, (1, 2, 3))[0, 0], [1, 2, 3])


def test_icc_profile_is_converted_to_srgb(tmp_path):
    lab = Image.new("LAB", (8, 8), (150, 160, 100))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    got = read_image(save(tmp_path / "a.tiff", lab, icc_profile=profile.tobytes()))
    want = ImageCms.profileToProfile(lab, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    np.testing.assert_array_equal(got, np.asarray(want))
    # A broken profile is ignored.
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "b.png", Image.fromarray(blocks()), icc_profile=b"x" * 200)), blocks()
    )


def bomb_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header claims a huge size."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("size", [(20000, 20000), (9000, 9000), (65000, 65000), (8001, 8000)])
def test_bombs_are_refused_by_their_header(tmp_path, size):
    path = tmp_path / "bomb.jpg"
    path.write_bytes(bomb_jpeg(*size))
    with pytest.raises(FourdError) as error:
        read_image(path)
    text = sentence(error)
    assert f"{size[0]}x{size[1]}" in text
    assert "64 megapixels" in text
    assert "bomb.jpg" in text


def test_a_real_bomb_costs_no_time(tmp_path):
    path = save(tmp_path / "b.png", Image.new("1", (20000, 20000)))
    with pytest.raises(FourdError, match="20000x20000"):
        read_image(path)


def test_gif_frame_larger_than_its_canvas(tmp_path):
    path = save(tmp_path / "a.gif", Image.fromarray(blocks()))
    data = bytearray(path.read_bytes())
    at = data.index(b",\0\0\0\0") + 5  # the first image descriptor's width and height
    data[at : at + 4] = struct.pack("<HH", 60000, 60000)
    with pytest.raises(FourdError, match="beyond the limit"):
        read_image(bytes(data))


def test_max_side_shrinks_huge_jpegs_only(tmp_path):
    path = save(tmp_path / "a.jpg", Image.fromarray(blocks(800)))
    assert read_image(path).shape[:2] == (1600, 1600)
    assert read_image(path, max_side=400).shape[:2] == (400, 400)
    assert read_image(path, max_side=401).shape[:2] == (800, 800)
    assert read_image(path, max_side=3000).shape[:2] == (1600, 1600)


def test_bad_files_are_named_in_one_sentence(tmp_path):
    good = save(tmp_path / "good.jpg", Image.fromarray(blocks(64)), quality=90).read_bytes()
    cases = {
        "zero.jpg": (b"", "an empty file"),
        "text.jpg": ("Grüße, this is no picture\n" * 40).encode() and ("Grüße, this is no picture\n" * 40).encode(),
        "cut.jpg": (good[: len(good) // 2], "a JPEG picture"),
        "head.jpg": (good[:30], "a JPEG picture"),
        "video.png": (b"\0\0\0\x18ftypisom" + b"\0" * 100, "an MP4 video"),
        "hdf.png": (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "an HDF5 file"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + b"\0" * 100, "HEIC"),
        "nulls.jpg": (b"\0" * 4096, "zero bytes"),
    }
    cases["text.jpg"] = (cases["text.jpg"], "plain text")
    for name, (data, looks) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(FourdError) as error:
            read_image(path)
        text = sentence(error)
        assert name in text
        assert looks in text, text
        with pytest.raises(FourdError):
            read_image(data)


def test_missing_folder_and_unreadable(tmp_path):
    with pytest.raises(FourdError, match="does not exist"):
        read_image(tmp_path / "no.png")
    with pytest.raises(FourdError, match="is a folder"):
        read_image(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_pictures_never_raise_anything_else(data):
    fmt = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"]))
    buffer = io.BytesIO()
    Image.fromarray(blocks(8)).save(buffer, fmt)
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    try:
        image = read_image(bytes(raw))
    except FourdError as error:
        assert "\n" not in str(error)
    else:
        assert image.ndim == 3
        assert image.dtype == np.uint8


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, st.sampled_from([(1, 1), (3, 5), (4, 7, 3), (6, 2, 4)])), st.integers(0, 9))
def test_png_round_trip(image, level):
    np.testing.assert_array_equal(decode_png(encode_png(image, compress_level=level)), image)


def test_png_errors():
    with pytest.raises(ValueError, match="uint8"):
        encode_png(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"\[2, 2, 2\]"):
        encode_png(np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(FourdError, match="beyond the limit"):
        decode_png(encode_png(np.zeros((20, 20), np.uint8)), max_pixels=399)
    with pytest.raises(FourdError):
        decode_png(encode_png(np.zeros((20, 20), np.uint8))[:-20])
    with pytest.raises(FourdError):
        decode_png(b"no png")


def test_images_are_listed_in_natural_order(tmp_path):
    for name in ("f10.png", "f9.PNG", "f1.jpg", "f010.png", ".hidden.png", "notes.txt", "2.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["2.png", "f1.jpg", "f9.PNG", "f010.png", "f10.png"]
    with pytest.raises(FourdError, match="cannot list"):
        list_images(tmp_path / "missing")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8), max_size=8))
def test_natural_key_orders_any_names(names):
    from pathlib import PurePath

    paths = [PurePath(name) for name in names]
    assert sorted(paths, key=natural_key) == sorted(reversed(paths), key=natural_key)


@pytest.mark.real
def test_real_portraits(test_data):
    paths = list_images(test_data / "portraits")
    assert len(paths) > 30
    for path in paths:
        with Image.open(path) as reference:
            size = reference.size
        image = read_image(path)
        assert image.shape[:2] in (size[::-1], size)
        assert 10 < image.mean() < 250
