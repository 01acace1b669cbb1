"""`fourd render`: stills, orbits, turntables, given cameras, given motions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourdface.artifacts import Frames
from fourdface.media.image import decode_png
from support.artifacts import make_motion
from support.calling import files, fourd, good, show
from support.lifted import avatar_artifact, talking_motion
from support.scenes import make_photo

SIZE = 144


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatar") / "avatar.h5"
    avatar_artifact().write(path)
    return path


def pictures(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / name)) for name in files(folder)]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def test_stills_from_given_sides(tmp_path: Path, avatar: Path) -> None:
    good("render", avatar, "--yaw", 0, "--yaw", 40, "--yaw", -40, "-o", tmp_path / "out")
    front, left, right = pictures(tmp_path / "out")
    assert psnr(front, make_photo(SIZE).image_u8) > 30
    assert psnr(front, left) < 25 and psnr(left, right) < 25


def test_an_orbit_by_default(tmp_path: Path, avatar: Path) -> None:
    good("render", avatar, "--frames", 8, "--rate", 30, "--size", 64, "-o", tmp_path / "out.mp4")
    shown = show(tmp_path / "out.mp4")
    assert len(shown.frames) == 8 and shown.rate == 30 and shown.size == (64, 64)
    assert shown.metadata["synthetic_media"] == "true"


def test_a_turntable_comes_round(tmp_path: Path, avatar: Path) -> None:
    good("render", avatar, "--turntable", "--frames", 6, "-o", tmp_path / "f.h5")
    frames = Frames.read(tmp_path / "f.h5")
    matrices = frames.world_to_camera
    assert len(matrices) == 6 and np.allclose(frames.times, np.arange(6) / 25)
    assert np.allclose(matrices[3][2, :3], -matrices[0][2, :3], atol=1e-5), "half way round it looks the other way"
    turn = matrices[1][:3, :3] @ matrices[0][:3, :3].T
    again = matrices[0][:3, :3] @ matrices[5][:3, :3].T
    assert np.allclose(turn, again, atol=1e-5), "the last step leads back to the first"


def test_given_cameras(tmp_path: Path, avatar: Path) -> None:
    photo = make_photo(SIZE).view
    entry = {"world_to_camera": photo.world_to_camera.tolist(), "intrinsics": photo.intrinsics.tolist()}
    wide = {**entry, "width": 200, "height": 100}
    (tmp_path / "own.json").write_text(json.dumps([entry, entry]))
    (tmp_path / "wide.json").write_text(json.dumps([wide]))
    (tmp_path / "mixed.json").write_text(json.dumps([entry, wide]))
    good("render", avatar, "--cameras", tmp_path / "own.json", "-o", tmp_path / "own")
    good("render", avatar, "--cameras", tmp_path / "wide.json", "-o", tmp_path / "wide")
    own, wide_shot = pictures(tmp_path / "own"), pictures(tmp_path / "wide")
    assert len(own) == 2 and psnr(own[0], make_photo(SIZE).image_u8) > 30
    assert wide_shot[0].shape == (100, 200, 3)
    sentence = fourd("render", avatar, "--cameras", tmp_path / "mixed.json", "-o", tmp_path / "no").sentence(2)
    assert "differ in size" in sentence
    (tmp_path / "own.json").write_text("{}")
    assert "own.json" in fourd("render", avatar, "--cameras", tmp_path / "own.json", "-o", tmp_path / "no").sentence()
    assert not (tmp_path / "no").exists()


def test_a_motion_keeps_its_length_and_rate(tmp_path: Path, avatar: Path) -> None:
    talking_motion(5).write(tmp_path / "m.h5")
    good("render", avatar, "--motion", tmp_path / "m.h5", "-o", tmp_path / "still.mp4")
    good("render", avatar, "--motion", tmp_path / "m.h5", "--orbit", 40, "-o", tmp_path / "orbit.h5")
    shown = show(tmp_path / "still.mp4")
    assert len(shown.frames) == 5 and shown.rate == 25
    frames = Frames.read(tmp_path / "orbit.h5")
    assert len(frames.times) == 5 and np.abs(np.ptp(frames.world_to_camera, axis=0)).max() > 0.1


def test_transparent_stills(tmp_path: Path, avatar: Path) -> None:
    good("render", avatar, "--yaw", 20, "--background", "transparent", "-o", tmp_path / "out")
    good("render", avatar, "--yaw", 20, "--background", "transparent", "-o", tmp_path / "f.h5")
    (rgba,) = pictures(tmp_path / "out")
    assert rgba.shape == (SIZE, SIZE, 4) and rgba[5, 5, 3] == 0 and rgba[SIZE // 2, SIZE // 2, 3] > 240
    assert np.array_equal(decode_png(Frames.read(tmp_path / "f.h5").frame_blobs[0]), rgba)


def test_neutral_is_the_rest_expression(tmp_path: Path, avatar: Path) -> None:
    """Of a resting photo it is the photo's own."""
    good("render", avatar, "--yaw", 0, "--neutral", "-o", tmp_path / "a")
    good("render", avatar, "--yaw", 0, "-o", tmp_path / "b")
    assert np.array_equal(pictures(tmp_path / "a")[0], pictures(tmp_path / "b")[0])


def test_pipes(avatar: Path) -> None:
    shown = show(good("render", "--frames", 3, "--size", 64, stdin=avatar.read_bytes()).out)
    assert len(shown.frames) == 3 and shown.size == (64, 64)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--turntable", "--yaw", "20"], 2, "--turntable and --yaw"),
        (["--orbit", "20", "--turntable"], 2, "--turntable and --orbit"),
        (["--cameras", "nowhere.json"], 2, "nowhere.json"),
        (["--frames", "0"], 2, "--frames"),
        (["--rate", "0"], 2, "--rate"),
        (["--background", "nowhere.png"], 1, "nowhere.png"),
    ],
)
def test_wrong_calls(tmp_path: Path, avatar: Path, arguments: list[str], code: int, words: str) -> None:
    assert words in fourd("render", avatar, *arguments, "-o", tmp_path / "out.mp4").sentence(code)
    assert files(tmp_path) == []


def test_wrong_inputs(tmp_path: Path, avatar: Path) -> None:
    make_motion().write(tmp_path / "m.h5")
    out = ["-o", tmp_path / "out.mp4"]
    assert "motion" in fourd("render", tmp_path / "m.h5", *out).sentence(2)
    assert "avatar" in fourd("render", avatar, "--motion", avatar, *out).sentence(2)
    assert "standard input is empty" in fourd("render", *out).sentence()
    assert files(tmp_path) == ["m.h5"]
