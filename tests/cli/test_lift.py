"""`fourd lift`: a photo, a clip's first frame or a tracked artifact becomes an avatar."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourdface.artifacts import Avatar
from fourdface.media.image import decode_png
from fourdface.methods.splat.restore import restore_avatar
from support.calling import files, fourd, good, write_clip
from support.lifted import tracked_photo
from support.scenes import make_photo
from support.seeing import FakePerception, picture

SIZE = 144


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourdface.perception.load_perception", lambda *_: FakePerception())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(make_photo(SIZE).image_u8).save(tmp_path / "in.png")
    return tmp_path / "in.png"


def test_a_photo_becomes_an_avatar(tmp_path: Path, photo: Path) -> None:
    outcome = good("lift", photo, "-o", tmp_path / "a.h5")
    avatar = Avatar.read(tmp_path / "a.h5")
    avatar.validate()
    assert avatar.representation == "gaussians" and (avatar.width, avatar.height) == (SIZE, SIZE)
    assert len(avatar.tensors["triangle"]) > 5000 and decode_png(avatar.background_blob).shape == (SIZE, SIZE, 3)
    assert np.array_equal(decode_png(avatar.source_blob), make_photo(SIZE).image_u8)
    assert avatar.provenance.synthetic_media and avatar.provenance.method == "splat"
    assert [source.name for source in avatar.provenance.sources] == ["in.png"]
    assert "Gaussians" in outcome.err and "dB" in outcome.err and outcome.out == b""


def test_stdin_stdout_and_quiet(photo: Path) -> None:
    outcome = good("lift", "-q", stdin=photo.read_bytes())
    assert outcome.out.startswith(b"\x89HDF") and outcome.err == ""


def test_the_same_photo_gives_the_same_avatar(tmp_path: Path, photo: Path) -> None:
    """Up to the rounding of the matrix products, which depends on where in memory the numbers lie."""
    pictures = []
    for name in ("a.h5", "b.h5"):
        good("lift", photo, "-o", tmp_path / name)
        avatar = restore_avatar(Avatar.read(tmp_path / name))
        pictures.append(avatar.render_u8(avatar.rig.source, avatar.plate_u8).astype(int))
    one, two = Avatar.read(tmp_path / "a.h5"), Avatar.read(tmp_path / "b.h5")
    assert np.allclose(one.shape, two.shape, atol=1e-3) and np.allclose(one.rotation, two.rotation, atol=1e-5)
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.02


def test_a_large_photo_is_made_smaller(tmp_path: Path) -> None:
    image = np.asarray(Image.fromarray(make_photo(SIZE).image_u8).resize((300, 300)))
    Image.fromarray(image).save(tmp_path / "large.jpg", quality=95)
    good("lift", tmp_path / "large.jpg", "--size", 100, "-o", tmp_path / "a.h5")
    avatar = Avatar.read(tmp_path / "a.h5")
    assert (avatar.width, avatar.height) == (100, 100)
    good("lift", tmp_path / "large.jpg", "--size", 512, "-o", tmp_path / "a.h5", "--overwrite")
    assert Avatar.read(tmp_path / "a.h5").width == 300, "never enlarged"


def test_a_focal_length_is_kept(tmp_path: Path, photo: Path) -> None:
    good("lift", photo, "--focal", 200, "-o", tmp_path / "a.h5")
    assert Avatar.read(tmp_path / "a.h5").intrinsics[0, 0] == pytest.approx(200)


def test_a_tracked_artifact_is_lifted_as_it_is(tmp_path: Path) -> None:
    tracked = tracked_photo(make_photo(SIZE))
    tracked.write(tmp_path / "t.h5")
    good("lift", tmp_path / "t.h5", "-o", tmp_path / "a.h5")
    avatar = Avatar.read(tmp_path / "a.h5")
    assert np.array_equal(avatar.rotation, tracked.rotation[0]) and np.array_equal(avatar.shape, tracked.shape)


def test_preprocess_and_lift_in_a_pipe(photo: Path) -> None:
    tracked = good("preprocess", photo).out
    assert good("lift", stdin=tracked).out.startswith(b"\x89HDF")


def test_a_tracked_clip_without_its_frames(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.mp4", [picture(96, 96)] * 2)
    tracked = good("preprocess", clip).out
    assert "holds no picture and matte" in fourd("lift", stdin=tracked).sentence()


def test_a_clips_first_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "c.mp4", [make_photo(SIZE).image_u8] * 3)
    good("lift", clip, "-o", tmp_path / "a.h5")
    assert Avatar.read(tmp_path / "a.h5").width == SIZE


def test_an_own_mask_decides_who_is_lifted(tmp_path: Path, photo: Path) -> None:
    """A mask without the shoulders: they stay in the background plate."""
    mask = np.round(make_photo(SIZE).matte * 255).astype(np.uint8)
    mask[int(0.80 * SIZE) :] = 0
    Image.fromarray(mask).resize((2 * SIZE, 2 * SIZE)).save(tmp_path / "mask.png")
    good("lift", photo, "--mask", tmp_path / "mask.png", "-o", tmp_path / "own.h5")
    good("lift", photo, "-o", tmp_path / "all.h5")
    row = int(0.95 * SIZE)
    shirt = lambda name: decode_png(Avatar.read(tmp_path / name).background_blob)[row, SIZE // 2].astype(int)  # noqa: E731
    assert np.abs(shirt("own.h5") - make_photo(SIZE).image_u8[row, SIZE // 2]).max() < 12
    assert np.abs(shirt("all.h5") - make_photo(SIZE).image_u8[row, SIZE // 2]).max() > 40


def test_of_several_faces_the_picked_one_is_named(tmp_path: Path) -> None:
    Image.fromarray(picture(320, 320, 2)).save(tmp_path / "two.png")
    outcome = good("lift", tmp_path / "two.png", "-o", tmp_path / "a.h5")
    warning = next(line for line in outcome.err.splitlines() if "warning" in line)
    assert "two.png shows several faces" in warning and "--face" in warning
    left, right = (int(number) for number in warning.split("x ")[1].split(",")[0].split(".."))
    assert 160 < left < right <= 320, "the larger one stands on the right"
    good("lift", tmp_path / "two.png", "--face", 0, "-o", tmp_path / "b.h5")
    assert Avatar.read(tmp_path / "b.h5").translation[0] < 0 < Avatar.read(tmp_path / "a.h5").translation[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "magic"], "magic"),
        (["--size", "10"], "--size"),
        (["--focal", "-5"], "--focal"),
        (["--mask", "nowhere.png"], "nowhere.png"),
        (["--face", "-1"], "--face"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_wrong_calls(tmp_path: Path, photo: Path, arguments: list[str], words: str) -> None:
    assert words in fourd("lift", photo, *arguments, "-o", tmp_path / "a.h5").sentence(2)
    assert files(tmp_path) == ["in.png"]


def test_failures_write_nothing(tmp_path: Path, photo: Path) -> None:
    Image.fromarray(picture(96, 96, 0)).save(tmp_path / "nobody.png")
    before = files(tmp_path)
    assert "nobody.png: no face found" in fourd("lift", tmp_path / "nobody.png").sentence()
    assert "nobody.png: no face found" in fourd("lift", tmp_path / "nobody.png", "-o", tmp_path / "a.h5").sentence()
    assert "is a folder" in fourd("lift", tmp_path).sentence()
    assert "does not exist" in fourd("lift", tmp_path / "gone.jpg").sentence()
    assert "standard input is empty" in fourd("lift").sentence()
    assert "--overwrite" in fourd("lift", photo, "-o", photo).sentence(2)
    assert files(tmp_path) == before
