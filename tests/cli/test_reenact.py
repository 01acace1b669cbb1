"""`fourd reenact`: drivers of every kind, outputs of every kind."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourdface.artifacts import Frames
from fourdface.media.image import decode_png
from fourdface.media.video import VideoReader
from support.artifacts import make_tracked
from support.calling import files, fourd, good, show, write_clip
from support.lifted import avatar_artifact, talking_motion
from support.seeing import FakePerception, picture

SIZE = 144


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourdface.perception.load_perception", lambda *_: FakePerception())


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("avatar") / "avatar.h5"
    avatar_artifact().write(path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames at 30000/1001 with sound: the head turns to its left and the mouth opens."""
    pictures = [picture(128, 96, 1, yaw=0.1 * k, jaw=0.15 * k) for k in range(6)]
    return write_clip(tmp_path_factory.mktemp("driver") / "drive.mp4", pictures, Fraction(30000, 1001), sound=True)


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames 2 and 3 of six show nobody."""
    pictures = [picture(128, 96, int(k not in (2, 3)), yaw=0.1 * k) for k in range(6)]
    return write_clip(tmp_path_factory.mktemp("driver") / "gappy.mp4", pictures)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_a_clip_drives_the_avatar(tmp_path: Path, avatar: Path, clip: Path) -> None:
    """As many frames as the driver, its rate and sound, the photo's size, and a note that the person is synthetic."""
    good("reenact", clip, "--avatar", avatar, "-o", tmp_path / "out.mp4")
    shown, driver = show(tmp_path / "out.mp4"), show(clip)
    assert len(shown.frames) == 6 and shown.rate == driver.rate == Fraction(30000, 1001)
    assert shown.size == (SIZE, SIZE)
    assert shown.sound_seconds == pytest.approx(driver.sound_seconds, abs=0.05) and driver.sound_seconds > 0.15
    assert shown.metadata["synthetic_media"] == "true" and "drive.mp4" in shown.metadata["comment"]
    assert "my photo.jpg" in shown.metadata["comment"], "what the avatar was made from"
    assert difference(shown.frames[0], shown.frames[5]) > 3, "it moves"


def test_sound_can_be_left_out(tmp_path: Path, avatar: Path, clip: Path) -> None:
    good("reenact", clip, "--avatar", avatar, "--audio", "off", "-o", tmp_path / "out.mp4")
    assert show(tmp_path / "out.mp4").sound_seconds == 0


def test_the_main_pipe(avatar: Path, clip: Path) -> None:
    """The avatar comes from standard input and a video goes to standard output, readable from a pipe."""
    outcome = good("reenact", clip, stdin=avatar.read_bytes())
    shown = show(outcome.out)
    assert len(shown.frames) == 6 and shown.sound_seconds > 0.15
    assert b"moof" in outcome.out, "fragmented"


def test_the_driver_from_standard_input(tmp_path: Path, avatar: Path, clip: Path) -> None:
    good("reenact", "-", "--avatar", avatar, "-o", tmp_path / "out.mp4", stdin=clip.read_bytes())
    shown = show(tmp_path / "out.mp4")
    assert len(shown.frames) == 6 and "standard input" in shown.metadata["comment"]


def test_one_standard_input_is_not_enough_for_two(tmp_path: Path, avatar: Path) -> None:
    sentence = fourd("reenact", "-", "-o", tmp_path / "out.mp4", stdin=avatar.read_bytes()).sentence(2)
    assert "cannot both come from standard input" in sentence


def test_a_motion_drives_as_the_clip_does(tmp_path: Path, avatar: Path) -> None:
    talking_motion(5).write(tmp_path / "m.h5")
    good("reenact", tmp_path / "m.h5", "--avatar", avatar, "-o", tmp_path / "out")
    assert files(tmp_path / "out") == [f"{k:06d}.png" for k in range(5)]
    first, last = (np.asarray(Image.open(tmp_path / "out" / f"{k:06d}.png")) for k in (0, 4))
    assert first.shape == (SIZE, SIZE, 3) and difference(first, last) > 3
    motion = (tmp_path / "m.h5").read_bytes()
    good("reenact", "-", "--avatar", avatar, "-o", tmp_path / "f.h5", stdin=motion)
    names = [source.name for source in Frames.read(tmp_path / "f.h5").provenance.sources]
    assert names == ["my photo.jpg", "standard input"]


def test_a_folder_of_pictures_drives(tmp_path: Path, avatar: Path) -> None:
    (tmp_path / "seq").mkdir()
    for k in range(4):
        Image.fromarray(picture(96, 96, yaw=0.1 * k)).save(tmp_path / "seq" / f"{k:04d}.png")
    good("reenact", tmp_path / "seq", "--avatar", avatar, "-o", tmp_path / "out.mp4")
    shown = show(tmp_path / "out.mp4")
    assert len(shown.frames) == 4 and shown.rate == 25


def test_a_frames_artifact_is_lossless_and_has_cameras(tmp_path: Path, avatar: Path, clip: Path) -> None:
    good("reenact", clip, "--avatar", avatar, "--orbit", 40, "-o", tmp_path / "f.h5")
    frames = Frames.read(tmp_path / "f.h5")
    assert frames.rate == Fraction(30000, 1001) and len(frames.frame_blobs) == 6
    assert np.allclose(frames.times, np.arange(6) * 1001 / 30000, atol=1e-6)
    assert frames.provenance.synthetic_media and json.loads(frames.provenance.config_json)["orbit"] == 40
    assert decode_png(frames.frame_blobs[0]).shape == (SIZE, SIZE, 3)
    assert np.abs(frames.world_to_camera[0] - frames.world_to_camera[5]).max() > 0.05, "the camera swings"


@pytest.mark.parametrize("size", [64, 90])
def test_size(tmp_path: Path, avatar: Path, clip: Path, size: int) -> None:
    good("reenact", clip, "--avatar", avatar, "--size", size, "-o", tmp_path / "out.mp4")
    assert show(tmp_path / "out.mp4").size == (size, size)


def test_side_by_side(tmp_path: Path, avatar: Path, clip: Path) -> None:
    """The driver at the left, at the height of the result."""
    good("reenact", clip, "--avatar", avatar, "--side-by-side", "-o", tmp_path / "out.mp4")
    shown, driver = show(tmp_path / "out.mp4"), show(clip)
    assert shown.size == (192 + SIZE, SIZE) and len(shown.frames) == 6
    beside = np.asarray(Image.fromarray(driver.frames[3]).resize((192, SIZE)))
    assert difference(shown.frames[3][:, :192], beside) < 3


def test_a_motion_has_no_pictures_to_show_beside(tmp_path: Path, avatar: Path) -> None:
    talking_motion(3).write(tmp_path / "m.h5")
    outcome = fourd("reenact", tmp_path / "m.h5", "--avatar", avatar, "--side-by-side", "-o", tmp_path / "out.mp4")
    assert "a motion has none" in outcome.sentence(2) and files(tmp_path) == ["m.h5"]


def test_backgrounds(tmp_path: Path, avatar: Path, clip: Path) -> None:
    Image.new("RGB", (300, 100), (10, 20, 200)).save(tmp_path / "blue.png")
    corner = {}
    for choice in ("keep", "white", str(tmp_path / "blue.png"), "transparent"):
        good("reenact", clip, "--avatar", avatar, "--background", choice, "-o", tmp_path / "out", "--overwrite")
        corner[choice] = np.asarray(Image.open(tmp_path / "out" / "000002.png"))
    keep, white, blue, clear = corner.values()
    spot = (SIZE // 3, 5)
    assert white[spot].tolist() == [255, 255, 255] and np.abs(blue[spot] - [10.0, 20, 200]).max() < 3
    assert clear.shape == (SIZE, SIZE, 4) and clear[spot][3] == 0 and clear[SIZE // 2, SIZE // 2, 3] > 240
    assert np.abs(keep[spot].astype(int) - decode_png(avatar_artifact().background_blob)[spot]).max() < 3
    middle = (SIZE // 2, SIZE // 2)
    assert np.abs(keep[middle].astype(int) - white[middle]).max() < 12, "the person is the same"


def test_poses(tmp_path: Path, avatar: Path, clip: Path) -> None:
    """none keeps the head still, so that less moves than with absolute."""
    moved = {}
    for pose in ("absolute", "relative", "none"):
        good("reenact", clip, "--avatar", avatar, "--pose", pose, "-o", tmp_path / f"{pose}")
        first, last = (np.asarray(Image.open(tmp_path / pose / f"{k:06d}.png")) for k in (0, 5))
        moved[pose] = difference(first, last)
    assert moved["none"] < 0.5 * moved["absolute"] and moved["relative"] > 0.7 * moved["absolute"]


def test_expression_scale(tmp_path: Path, avatar: Path, clip: Path) -> None:
    mouths = {}
    for scale in (0, 1):
        good("reenact", clip, "--avatar", avatar, "--pose", "none", "--expression-scale", scale, "-o",
             tmp_path / str(scale))  # fmt: skip
        first, last = (np.asarray(Image.open(tmp_path / str(scale) / f"{k:06d}.png")) for k in (0, 5))
        mouths[scale] = difference(first, last)
    assert mouths[0] < 0.3 * mouths[1]


@pytest.mark.parametrize(("missing", "count"), [("hold", 6), ("skip", 4)])
def test_frames_without_a_face(tmp_path: Path, avatar: Path, gappy: Path, missing: str, count: int) -> None:
    good("reenact", gappy, "--avatar", avatar, "--missing", missing, "-o", tmp_path / "out.mp4")
    assert len(show(tmp_path / "out.mp4").frames) == count


def test_skipped_frames_leave_the_others_in_their_place(tmp_path: Path, avatar: Path, gappy: Path) -> None:
    """Otherwise the driver's sound would run away from the picture."""
    good("reenact", gappy, "--avatar", avatar, "--missing", "skip", "-o", tmp_path / "out.mp4")
    times = [frame.time for frame in VideoReader(tmp_path / "out.mp4")]
    wanted = [frame.time for frame in VideoReader(gappy) if frame.index not in (2, 3)]
    assert times == pytest.approx(wanted, abs=1e-3)


def test_a_missing_face_can_be_an_error(tmp_path: Path, avatar: Path, gappy: Path) -> None:
    outcome = fourd("reenact", gappy, "--avatar", avatar, "--missing", "fail", "-o", tmp_path / "out.mp4")
    assert "frame 2 (0.08 s) of the driver shows no face" in outcome.sentence() and files(tmp_path) == []


def test_a_driver_without_a_face_leaves_nothing(tmp_path: Path, avatar: Path) -> None:
    clip = write_clip(tmp_path / "nobody.mp4", [picture(96, 96, 0)] * 5)
    for output in ("out.mp4", "out", "out.h5"):
        sentence = fourd("reenact", clip, "--avatar", avatar, "-o", tmp_path / output).sentence()
        assert "no face" in sentence and files(tmp_path) == ["nobody.mp4"]
    assert "no face" in fourd("reenact", clip, "--avatar", avatar).sentence()


def test_nothing_is_published_when_all_is_skipped(tmp_path: Path, avatar: Path) -> None:
    """A clip so long without a face that frames go out before one is known, and all of them are skipped."""
    clip = write_clip(tmp_path / "nobody.mp4", [picture(48, 48, 0)] * 90)
    for output in ("out.mp4", "out", "out.h5"):
        outcome = fourd("reenact", clip, "--avatar", avatar, "--missing", "skip", "-o", tmp_path / output)
        assert "nobody.mp4" in outcome.sentence() and files(tmp_path) == ["nobody.mp4"], output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--background", "transparent", "-o", "{}/out.mp4"], "no transparency"),
        (["--side-by-side", "--background", "transparent", "-o", "{}/out"], "--side-by-side"),
        (["-o", "{}/out.gif"], "cannot tell what to write from .gif"),
        (["--pose", "sideways", "-o", "{}/out.mp4"], "sideways"),
        (["--missing", "invent", "-o", "{}/out.mp4"], "invent"),
        (["--size", "65000", "-o", "{}/out.mp4"], "--size"),
        (["--face", "nose", "-o", "{}/out.mp4"], "expected largest or an index"),
    ],
)
def test_wrong_calls(tmp_path: Path, avatar: Path, clip: Path, arguments: list[str], words: str) -> None:
    filled = [argument.format(tmp_path) for argument in arguments]
    assert words in fourd("reenact", clip, "--avatar", avatar, *filled).sentence(2)
    assert files(tmp_path) == []


def test_wrong_inputs(tmp_path: Path, avatar: Path, clip: Path) -> None:
    make_tracked().write(tmp_path / "tracked.h5")
    (tmp_path / "old.mp4").write_bytes(b"old")
    before = files(tmp_path)
    out = ["-o", tmp_path / "out.mp4"]
    for words, code, arguments in (
        ("tracked", 2, [clip, "--avatar", tmp_path / "tracked.h5", *out]),
        ("avatar", 2, [avatar, "--avatar", avatar, *out]),
        ("does not exist", 1, [tmp_path / "gone.mp4", "--avatar", avatar, *out]),
        ("does not exist", 1, [clip, "--avatar", tmp_path / "gone.h5", *out]),
        ("--overwrite", 2, [clip, "--avatar", avatar, "-o", tmp_path / "old.mp4"]),
        ("gone.png", 1, [clip, "--avatar", avatar, "--background", tmp_path / "gone.png", *out]),
    ):
        assert words in fourd("reenact", *arguments).sentence(code), words
    assert files(tmp_path) == before and (tmp_path / "old.mp4").read_bytes() == b"old"


def test_overwriting(tmp_path: Path, avatar: Path, clip: Path) -> None:
    (tmp_path / "old.mp4").write_bytes(b"old")
    good("reenact", clip, "--avatar", avatar, "-o", tmp_path / "old.mp4", "--overwrite")
    assert len(show(tmp_path / "old.mp4").frames) == 6 and files(tmp_path) == ["old.mp4"]
