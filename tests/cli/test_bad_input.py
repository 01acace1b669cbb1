"""What people really hand over: every bad file gets one sentence, and every odd but good file works.

The pictures are real (scikit-image's own), and so is the embedded perception.
"""

from __future__ import annotations

import io
import os
import pty
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
import skimage.data
from PIL import Image

from fourdface.artifacts import Tracked
from fourdface.errors import FourdError
from fourdface.perception import Perception, load_perception
from support.artifacts import MAKERS
from support.calling import files, fourd, good, show, write_clip
from support.lifted import avatar_artifact


@lru_cache(maxsize=1)
def perception() -> Perception:
    return load_perception("embedded")


@pytest.fixture(autouse=True)
def _embedded_perception_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourdface.perception.load_perception", lambda *_: perception())


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatar") / "avatar.h5"
    avatar_artifact().write(path)
    return path


@lru_cache(maxsize=1)
def astronaut() -> np.ndarray:
    """A person, 200 pixels wide: [H,W,3] uint8."""
    return np.ascontiguousarray(skimage.data.astronaut()[:260, 90:350])


def jpeg(image: np.ndarray | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(astronaut() if image is None else image).save(buffer, "JPEG", quality=92, **options)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------------- pictures, no face


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (200, 240, 3), dtype=np.uint8)


NOBODY: dict[str, Callable[[], np.ndarray]] = {
    "plain": lambda: np.full((200, 300, 3), 120, np.uint8),
    "noise": noise,
    "bricks": lambda: np.repeat(skimage.data.brick()[:300, :300, None], 3, -1),
    "grass": lambda: np.repeat(skimage.data.grass()[:300, :300, None], 3, -1),
    "coffee": skimage.data.coffee,
    "a cat": skimage.data.chelsea,
    "one pixel": lambda: np.zeros((1, 1, 3), np.uint8),
    "a line": lambda: np.full((2, 900, 3), 200, np.uint8),
}


@pytest.mark.parametrize("name", NOBODY)
@pytest.mark.parametrize("command", ["lift", "preprocess"])
def test_no_face(tmp_path: Path, command: str, name: str) -> None:
    Image.fromarray(np.ascontiguousarray(NOBODY[name]())).save(tmp_path / "in.png")
    sentence = fourd(command, tmp_path / "in.png", "-o", tmp_path / "out.h5").sentence()
    assert "in.png: no face found in the picture" in sentence and files(tmp_path) == ["in.png"]


def test_a_tiny_face(tmp_path: Path) -> None:
    """A person far away: found perhaps, but nothing to lift."""
    scene = np.full((700, 900, 3), 110, np.uint8)
    small = np.asarray(Image.fromarray(astronaut()).resize((60, 60), Image.Resampling.LANCZOS))
    scene[400:460, 500:560] = small
    Image.fromarray(scene).save(tmp_path / "far.png")
    sentence = fourd("lift", tmp_path / "far.png", "-o", tmp_path / "out.h5").sentence()
    assert "32" in sentence and "crop closer" in sentence and files(tmp_path) == ["far.png"]


def test_several_faces_and_the_picked_one_is_named(tmp_path: Path) -> None:
    two = np.full((260, 560, 3), 100, np.uint8)
    two[:, :260] = astronaut()
    two[30:238, 340:548] = np.asarray(Image.fromarray(astronaut()).resize((208, 208)))
    Image.fromarray(two).save(tmp_path / "two.png")
    outcome = good("lift", tmp_path / "two.png", "-o", tmp_path / "a.h5")
    warnings = [line for line in outcome.err.splitlines() if "warning" in line]
    assert len(warnings) == 1 and "several faces" in warnings[0] and "--face" in warnings[0]
    left, right = (int(number) for number in warnings[0].split("x ")[1].split(",")[0].split(".."))
    assert 60 < left < right < 220, "the larger one, on the left"
    good("preprocess", tmp_path / "two.png", "--face", 1, "-o", tmp_path / "t.h5")
    assert Tracked.read(tmp_path / "t.h5").landmarks[0, :, 0].mean() > 340


# ------------------------------------------------------------------------------------------------------ broken pictures


def jpeg_bomb() -> bytes:
    """A JPEG of a few kilobytes whose header claims 20000 x 20000 pixels."""
    data = bytearray(jpeg())
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", 20000, 20000)
    return bytes(data)


def png_bomb() -> bytes:
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    body = b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + body


def scrambled_jpeg() -> bytes:
    """The tables are damaged, so nothing can be decoded."""
    data = bytearray(jpeg())
    start = data.index(b"\xff\xc4")
    data[start + 4 : start + 40] = b"\xff" * 36
    return bytes(data)


BROKEN: dict[str, tuple[str, Callable[[], bytes]]] = {
    "cut jpeg": ("in.jpg", lambda: jpeg()[:4000]),
    "jpeg header only": ("in.jpg", lambda: jpeg()[:200]),
    "scrambled jpeg": ("in.jpg", scrambled_jpeg),
    "jpeg bomb": ("in.jpg", jpeg_bomb),
    "png bomb": ("in.png", png_bomb),
    "cut png": ("in.png", lambda: png(Image.fromarray(astronaut()))[:5000]),
    "empty": ("in.jpg", bytes),
    "text": ("in.jpg", lambda: b"Dear reader,\nthis is no picture.\n"),
    "a page": ("in.jpg", lambda: b"<!DOCTYPE html><html><body>404 not found</body></html>"),
    "random bytes": ("in.jpg", lambda: np.random.default_rng(1).bytes(5000)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures(tmp_path: Path, name: str) -> None:
    file, data = BROKEN[name][0], BROKEN[name][1]()
    (tmp_path / file).write_bytes(data)
    for command in ("lift", "preprocess"):
        sentence = fourd(command, tmp_path / file, "-o", tmp_path / "out.h5").sentence()
        assert file in sentence and len(sentence) < 300, sentence
        assert files(tmp_path) == [file]


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    """400 megapixels would be 1.2 GB: the sentence says how large it is, and memory hardly grows."""
    import resource

    (tmp_path / "bomb.jpg").write_bytes(jpeg_bomb())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sentence = fourd("lift", tmp_path / "bomb.jpg", "-o", tmp_path / "a.h5").sentence()
    assert "20000" in sentence
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_broken_pictures_through_a_pipe() -> None:
    for data in (b"just text\n", jpeg()[:3000], jpeg_bomb()):
        for command in ("lift", "preprocess"):
            assert fourd(command, stdin=data).sentence().startswith(f"fourd {command}: standard input ")


# ------------------------------------------------------------------------------------------------------- odd but good


def as_cmyk() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(astronaut()).convert("CMYK").save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def sixteen_bits() -> bytes:
    """A 16-bit RGB PNG; Pillow cannot write one, FFmpeg can."""
    frame = av.VideoFrame.from_ndarray(astronaut().astype(np.uint16) * 257, format="rgb48le")
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "rgb48be"
    encoder.time_base = Fraction(1)
    packets = encoder.encode(frame.reformat(format="rgb48be")) + encoder.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def with_alpha() -> bytes:
    alpha = np.full(astronaut().shape[:2], 255, np.uint8)
    alpha[:, :40] = 0
    return png(Image.fromarray(np.dstack([astronaut(), alpha])))


def turned_by_exif() -> bytes:
    """The pixels lie on their side, the tag says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(np.ascontiguousarray(np.rot90(astronaut(), 1)), exif=exif)


ODD: dict[str, Callable[[], bytes]] = {
    "cmyk": as_cmyk,
    "16 bit": sixteen_bits,
    "alpha": with_alpha,
    "exif": turned_by_exif,
    "palette": lambda: png(Image.fromarray(astronaut()).convert("P", palette=Image.Palette.ADAPTIVE)),
    "grey": lambda: png(Image.fromarray(astronaut()).convert("L")),
    "progressive": lambda: jpeg(progressive=True),
    "wrong suffix": lambda: png(Image.fromarray(astronaut())),
}


@lru_cache(maxsize=1)
def upright() -> np.ndarray:
    """Landmarks [478,2] in the plain picture."""
    found = perception().detect(astronaut())
    return perception().analyse(astronaut(), found[0].box).landmarks


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_work_and_mean_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.jpg").write_bytes(ODD[name]())
    good("preprocess", tmp_path / "in.jpg", "-o", tmp_path / "out.h5")
    tracked = Tracked.read(tmp_path / "out.h5")
    assert (tracked.width, tracked.height) == (260, 260)
    eyes = np.linalg.norm(upright()[33] - upright()[263])
    error = np.linalg.norm(tracked.landmarks[0] - upright(), axis=1).mean()
    assert error < 0.08 * eyes


def test_an_odd_picture_is_lifted_whole(tmp_path: Path) -> None:
    """The photo's own view comes back: a picture lying on its side by EXIF is lifted upright."""
    (tmp_path / "in.jpg").write_bytes(turned_by_exif())
    good("lift", tmp_path / "in.jpg", "-o", tmp_path / "a.h5")
    good("render", tmp_path / "a.h5", "--yaw", 0, "-o", tmp_path / "out")
    picture = np.asarray(Image.open(tmp_path / "out" / "000000.png")).astype(float)
    error = np.mean((picture - astronaut()) ** 2)
    assert 10 * np.log10(255**2 / error) > 27


# ---------------------------------------------------------------------------------------------------------------- clips


def clip_of(path: Path, count: int = 8) -> Path:
    return write_clip(path, [np.ascontiguousarray(np.roll(astronaut(), k, 1)) for k in range(count)])


def audio_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=44100, layout="mono")
        for start in range(0, 44100, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def cut_in_half(path: Path) -> None:
    data = clip_of(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


BAD_CLIPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "audio only": (audio_only, "sound only"),
    "truncated": (cut_in_half, ""),
    "text": (lambda path: path.write_text("not a video\n" * 50), "text"),
    "random bytes": (lambda path: path.write_bytes(np.random.default_rng(2).bytes(9000)), ""),
    "a scene without people": (lambda path: write_clip(path, [skimage.data.coffee()[:240, :320]] * 4), "no face"),
    "an empty folder": (lambda path: path.mkdir(), ""),
}


@pytest.mark.parametrize("name", BAD_CLIPS)
def test_bad_drivers(tmp_path: Path, avatar: Path, name: str) -> None:
    make, words = BAD_CLIPS[name]
    make(tmp_path / "drive.mp4")
    for arguments in (["preprocess", tmp_path / "drive.mp4", "-o", tmp_path / "out.h5"],
                      ["reenact", tmp_path / "drive.mp4", "--avatar", avatar, "-o", tmp_path / "out.mp4"]):  # fmt: skip
        sentence = fourd(*arguments).sentence()
        assert words in sentence and len(sentence) < 300, sentence
        assert files(tmp_path) == ["drive.mp4"]
    outcome = fourd("reenact", tmp_path / "drive.mp4", "--avatar", avatar)
    assert outcome.code == 1 and outcome.out == b""


def test_a_face_that_leaves_and_comes_back(tmp_path: Path, avatar: Path) -> None:
    """The clip works, the frames without a face say so, and the result is as long as the driver."""
    empty = np.full_like(astronaut(), 100)
    frames = [astronaut()] * 4 + [empty] * 3 + [astronaut()] * 4
    clip = write_clip(tmp_path / "drive.mp4", frames)
    good("preprocess", clip, "-o", tmp_path / "t.h5")
    assert [int(status == 1) for status in Tracked.read(tmp_path / "t.h5").status] == [0] * 4 + [1] * 3 + [0] * 4
    good("reenact", clip, "--avatar", avatar, "-o", tmp_path / "out.mp4")
    assert len(show(tmp_path / "out.mp4").frames) == 11


def test_a_photo_is_a_driver_of_one_frame(tmp_path: Path, avatar: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(jpeg())
    good("reenact", tmp_path / "in.jpg", "--avatar", avatar, "-o", tmp_path / "out")
    assert files(tmp_path / "out") == ["000000.png"]


# ------------------------------------------------------------------------------------------------------- wrong places


def test_places_that_cannot_be_written(tmp_path: Path, avatar: Path) -> None:
    """Said before anything is computed."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "in.jpg").write_bytes(jpeg())
    before = files(tmp_path)
    photo = tmp_path / "in.jpg"
    calls = (("lift", photo, ".h5"), ("preprocess", photo, ".h5"), ("render", avatar, ".mp4"), ("render", avatar, ""))
    for place in (tmp_path / "nowhere" / "x", tmp_path / "file" / "x"):
        for command, source, suffix in calls:
            outcome = fourd(command, source, "-o", f"{place}{suffix}")
            assert outcome.code in (1, 2) and outcome.out == b"" and len(outcome.err.splitlines()) == 1, outcome.err
            assert "Traceback" not in outcome.err and str(place.parent) in outcome.err
    assert files(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "in.jpg").write_bytes(jpeg())
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert "closed" in fourd("lift", tmp_path / "in.jpg", "-o", closed / "a.h5").sentence()


COMMANDS: dict[str, tuple[str, list[str]]] = {
    "fit-flame": ("tracked", ["fit-flame", "{}"]),
    "lift": ("tracked", ["lift", "{}"]),
    "reenact": ("avatar", ["reenact", "{clip}", "--avatar", "{}"]),
    "reenact's driver": ("motion", ["reenact", "{}", "--avatar", "{avatar}"]),
    "render": ("avatar", ["render", "{}"]),
    "render's motion": ("motion", ["render", "{avatar}", "--motion", "{}"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_kinds_and_newer_schemas(tmp_path: Path, avatar: Path, name: str) -> None:
    """Each sentence names what came; a newer file gives both numbers."""
    wanted, arguments = COMMANDS[name]
    clip = clip_of(tmp_path / "clip.mp4", 2)
    file = tmp_path / "x.h5"

    def call(code: int) -> str:
        filled = [argument.format(file, clip=clip, avatar=avatar) for argument in arguments]
        sentence = fourd(*filled, "-o", tmp_path / "out.h5").sentence(code)
        assert not (tmp_path / "out.h5").exists() and "x.h5" in sentence
        return sentence

    for kind in MAKERS:
        if kind != wanted:
            MAKERS[kind]().write(file, overwrite=True)
            sentence = call(2)
            assert kind in sentence and wanted in sentence
    MAKERS[wanted]().write(file, overwrite=True)
    with h5py.File(file, "a") as opened:
        opened.attrs["schema_version"] = 99
    sentence = call(1)
    assert "99" in sentence and "1" in sentence
    file.write_bytes(jpeg())
    if name not in ("lift", "reenact's driver"):  # these take pictures too
        assert "JPEG" in call(2)
    file.write_bytes(avatar.read_bytes()[:30000])
    call(1)


def test_an_avatar_of_another_representation(tmp_path: Path) -> None:
    from dataclasses import replace

    replace(avatar_artifact(), representation="triplane").write(tmp_path / "x.h5")
    assert "triplane" in fourd("render", tmp_path / "x.h5", "-o", tmp_path / "out.mp4").sentence(2)


def test_an_avatar_with_damaged_tensors(tmp_path: Path) -> None:
    from dataclasses import replace

    good_one = avatar_artifact()
    for name in ("triangle", "local_mean", "colour", "head_offset"):
        for change in (lambda a: a[:-1], lambda a: np.full_like(a, 10**6) if a.dtype.kind == "i" else a * np.nan):
            tensors = {**good_one.tensors, name: change(good_one.tensors[name])}
            try:
                replace(good_one, tensors=tensors).write(tmp_path / "x.h5", overwrite=True)
            except FourdError:  # what the artifact itself refuses to hold need not be refused again
                continue
            sentence = fourd("render", tmp_path / "x.h5", "--yaw", 0, "-o", tmp_path / "out").sentence()
            assert "avatar" in sentence and files(tmp_path) == ["x.h5"], name


# ------------------------------------------------------------------------------------------------------------ terminals


PROGRAM = "from fourdface.cli.main import main; main()"


@pytest.mark.parametrize("arguments", [["lift", "in.jpg"], ["preprocess", "in.jpg"], ["render", "a.h5"],
                                       ["reenact", "d.mp4", "--avatar", "a.h5"], ["fit-flame", "t.h5"]])  # fmt: skip
def test_binary_on_the_terminal_is_refused_at_once(tmp_path: Path, arguments: list[str]) -> None:
    """Before the input is opened: it does not even exist."""
    controller, terminal = pty.openpty()
    try:
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], stdin=subprocess.DEVNULL, stdout=terminal,
            stderr=subprocess.PIPE, cwd=tmp_path, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(terminal)
        os.close(controller)
    text = result.stderr.decode()
    assert result.returncode == 2 and text.count("\n") == 1 and "terminal" in text and "-o " in text and "|" in text
