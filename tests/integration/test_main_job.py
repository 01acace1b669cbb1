"""The main job on real photos and clips: lift, reenact, and a look at the result with perception itself."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from fourdface.artifacts import Avatar, Tracked
from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.media.resize import resize_longest
from fourdface.media.video import open_video
from fourdface.perception import Face, Perception, load_perception
from support.calling import files, fourd, good, show, write_clip

PROGRAM = "from fourdface.cli.main import main; main()"
FRAMES = 36


@pytest.fixture(scope="module")
def perception() -> Perception:
    return load_perception("embedded")


@pytest.fixture(autouse=True)
def _embedded(monkeypatch: pytest.MonkeyPatch, perception: Perception) -> None:
    monkeypatch.setattr("fourdface.perception.load_perception", lambda *_: perception)


def shorten(clip: Path, place: Path, step: int = 2, longest: int = 384, sound: bool = False) -> list[np.ndarray]:
    """Every `step`-th frame of a clip's start, small and with even sides, written to `place`; returns the frames."""
    with open_video(clip) as reader:
        pictures = [resize_longest(frame.image_u8, longest) for frame in islice(reader, 0, FRAMES * step, step)]
    pictures = [image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2] for image in pictures]
    write_clip(place, pictures, Fraction(25), sound)
    return pictures


def faces_of(perception: Perception, pictures: list[np.ndarray]) -> list[Face | None]:
    """The largest face of each picture."""
    out: list[Face | None] = []
    for image in pictures:
        image = np.ascontiguousarray(image)
        found = perception.detect(image)
        out.append(perception.analyse(image, found[0].box) if found else None)
    return out


def landmark_error(a: list[Face | None], b: list[Face | None]) -> float:
    """Mean distance over the outer-eye distance, both faces' centres and sizes left as they are."""
    pairs = [(x.landmarks, y.landmarks) for x, y in zip(a, b, strict=True) if x is not None and y is not None]
    errors = [np.linalg.norm(x - y, axis=1).mean() / np.linalg.norm(x[33] - x[263]) for x, y in pairs]
    return float(np.mean(errors))


@pytest.mark.real
@pytest.mark.parametrize("name", ["woman_expressions", "man_glasses"])
def test_self_reenactment_follows_the_clip(tmp_path: Path, test_data: Path, perception: Perception, name: str) -> None:
    """A clip's first frame, moved as the clip goes on: nearer to the clip than the still picture is, in every way."""
    pictures = shorten(test_data / "driving" / f"{name}.mp4", tmp_path / "drive.mp4")
    Image.fromarray(pictures[0]).save(tmp_path / "in.png")
    good("lift", tmp_path / "in.png", "-o", tmp_path / "a.h5")
    good("reenact", tmp_path / "drive.mp4", "--avatar", tmp_path / "a.h5", "-o", tmp_path / "out.mp4")
    shown = show(tmp_path / "out.mp4")
    assert len(shown.frames) == len(pictures) and shown.size == pictures[0].shape[1::-1]
    chosen = range(4, FRAMES, 4)
    truth = faces_of(perception, [pictures[k] for k in chosen])
    result = faces_of(perception, [shown.frames[k] for k in chosen])
    still = faces_of(perception, [pictures[0]]) * len(truth)
    assert all(face is not None for face in result), "a face in every frame"
    moved, stood = landmark_error(truth, result), landmark_error(truth, still)
    assert moved < 0.1 and moved < 0.75 * max(stood, 0.04), (moved, stood)
    jaw = ARKIT_INDEX["jawOpen"]
    opened = [np.array([face.coefficients[jaw] for face in faces if face]) for faces in (truth, result, still)]
    assert np.abs(opened[1] - opened[0]).mean() < max(np.abs(opened[2] - opened[0]).mean(), 0.08)


@pytest.mark.real
def test_the_first_frame_comes_back(tmp_path: Path, test_data: Path) -> None:
    """Lifted and rendered in its own pose the photo looks like itself."""
    pictures = shorten(test_data / "driving" / "man_beard_glasses.mp4", tmp_path / "drive.mp4")
    Image.fromarray(pictures[0]).save(tmp_path / "in.png")
    good("lift", tmp_path / "in.png", "-o", tmp_path / "a.h5")
    good("render", tmp_path / "a.h5", "--yaw", 0, "-o", tmp_path / "out")
    picture = np.asarray(Image.open(tmp_path / "out" / "000000.png")).astype(float)
    assert 10 * np.log10(255**2 / np.mean((picture - pictures[0]) ** 2)) > 30


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["style_statue_marble.jpg", "style_cartoon_3d.jpg", "woman_headscarf.png", "man_glasses_cap.jpg"]
)
def test_difficult_portraits_are_lifted_and_turned(
    tmp_path: Path, test_data: Path, perception: Perception, name: str
) -> None:
    """Statue, cartoon, headscarf, cap with glasses: an avatar comes out and shows a face when it turns."""
    good("lift", test_data / "portraits" / name, "--size", 320, "-o", tmp_path / "a.h5")
    avatar = Avatar.read(tmp_path / "a.h5")
    assert len(avatar.tensors["triangle"]) > 5000 and max(avatar.width, avatar.height) <= 320
    good("render", tmp_path / "a.h5", "--yaw", 0, "--yaw", 20, "--yaw", -20, "-o", tmp_path / "out")
    shots = [np.asarray(Image.open(tmp_path / "out" / file)) for file in files(tmp_path / "out")]
    assert sum(face is not None for face in faces_of(perception, shots)) >= 2


@pytest.mark.real
def test_a_profile_is_lifted_or_refused_in_one_sentence(tmp_path: Path, test_data: Path) -> None:
    outcome = fourd("lift", test_data / "portraits" / "man_profile_90.png", "-o", tmp_path / "a.h5")
    if outcome.code == 0:
        assert Avatar.read(tmp_path / "a.h5").tensors["triangle"].size > 5000
    else:
        assert "man_profile_90.png: no face found" in outcome.sentence() and files(tmp_path) == []


@pytest.mark.real
def test_a_group(tmp_path: Path, test_data: Path) -> None:
    """Every face of a group can be picked, and the pick is said."""
    group = test_data / "portraits" / "group_three_faces.jpg"
    places = []
    for index in range(3):
        good("preprocess", group, "--face", index, "-o", tmp_path / f"{index}.h5")
        places.append(float(Tracked.read(tmp_path / f"{index}.h5").landmarks[0, :, 0].mean()))
    assert places[0] < places[1] < places[2]
    outcome = good("lift", group, "--size", 640, "-o", tmp_path / "a.h5")
    assert "shows several faces" in outcome.err


def test_the_documented_pipe(tmp_path: Path) -> None:
    """`fourd lift in.jpg | fourd reenact drive.mp4 -o out.mp4` with real processes and nothing replaced.

    Photo and driver are scikit-image's astronaut, the driver sways a little.
    """
    astronaut = np.ascontiguousarray(skimage.data.astronaut()[:256, 96:352])
    Image.fromarray(astronaut).save(tmp_path / "in.jpg", quality=95)
    pictures = [np.ascontiguousarray(np.roll(astronaut, round(6 * np.sin(k / 3)), 1)) for k in range(12)]
    write_clip(tmp_path / "drive.mp4", pictures, Fraction(30000, 1001), sound=True)
    program = f'"{sys.executable}" -c "{PROGRAM}"'
    script = f"set -o pipefail; {program} lift in.jpg | {program} reenact drive.mp4 -o out.mp4"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout == b"" and files(tmp_path) == ["drive.mp4", "in.jpg", "out.mp4"]
    shown = show(tmp_path / "out.mp4")
    assert len(shown.frames) == 12 and shown.rate == Fraction(30000, 1001) and shown.size == (256, 256)
    assert shown.sound_seconds == pytest.approx(12 * 1001 / 30000, abs=0.06)
    assert shown.metadata["synthetic_media"] == "true"
    error = np.mean((shown.frames[0].astype(float) - astronaut) ** 2)
    assert 10 * np.log10(255**2 / error) > 22
