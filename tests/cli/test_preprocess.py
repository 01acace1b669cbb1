"""`fourd preprocess`: one photo, one clip, or many of them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourdface.artifacts import Tracked
from fourdface.media.image import decode_png
from support.calling import files, fourd, good, show, write_clip
from support.seeing import FakePerception, picture


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourdface.perception.load_perception", lambda *_: FakePerception())


def photo(path: Path, faces: int = 1, **state: float) -> Path:
    Image.fromarray(picture(128, 96, faces, **state)).save(path)
    return path


def clip(path: Path, *counts: int, rate: Fraction | int = 25) -> Path:
    return write_clip(path, [picture(128, 96, count, yaw=0.03 * k) for k, count in enumerate(counts)], rate)


def test_a_photo_is_kept_with_its_matte(tmp_path: Path) -> None:
    good("preprocess", photo(tmp_path / "a.png"), "-o", tmp_path / "a.h5")
    tracked = Tracked.read(tmp_path / "a.h5")
    assert tracked.status.tolist() == [0] and (tracked.width, tracked.height) == (128, 96) and not tracked.has_head
    assert np.array_equal(decode_png(tracked.frame_blobs[0]), picture(128, 96))
    assert decode_png(tracked.matte_blobs[0]).shape == (96, 128)
    (source,) = tracked.provenance.sources
    assert source.name == "a.png" and len(source.sha256) == 64
    assert tracked.provenance.method == "preprocess" and not tracked.provenance.synthetic_media


def test_a_clip_is_not_copied_unless_asked(tmp_path: Path) -> None:
    path = clip(tmp_path / "c.mp4", 1, 1, 0, 1, rate=Fraction(30000, 1001))
    good("preprocess", path, "-o", tmp_path / "c.h5")
    tracked = Tracked.read(tmp_path / "c.h5")
    assert tracked.rate == Fraction(30000, 1001) and tracked.status.tolist() == [0, 0, 1, 0]
    assert tracked.frame_blobs is None and tracked.matte_blobs is None and tracked.source_path == "c.mp4"
    good("preprocess", path, "--keep-frames", "--mattes", "-o", tmp_path / "c.h5", "--overwrite")
    tracked = Tracked.read(tmp_path / "c.h5")
    assert len(tracked.frame_blobs) == 4 and [bool(blob) for blob in tracked.matte_blobs] == [True, True, False, True]


def test_a_folder_of_pictures_is_a_clip(tmp_path: Path) -> None:
    (tmp_path / "seq").mkdir()
    for k in range(3):
        photo(tmp_path / "seq" / f"{k:03d}.png", yaw=0.1 * k)
    good("preprocess", tmp_path / "seq", "-o", tmp_path / "seq.h5")
    assert len(Tracked.read(tmp_path / "seq.h5").times) == 3


def test_stdin_and_stdout(tmp_path: Path) -> None:
    data = photo(tmp_path / "a.png").read_bytes()
    outcome = good("preprocess", stdin=data)
    (tmp_path / "piped.h5").write_bytes(outcome.out)
    tracked = Tracked.read(tmp_path / "piped.h5")
    assert tracked.provenance.sources[0].name == "standard input" and tracked.frame_blobs is not None


def test_fit_adds_the_head(tmp_path: Path) -> None:
    good("preprocess", clip(tmp_path / "c.mp4", 1, 1, 1), "--fit", "-o", tmp_path / "c.h5")
    head = Tracked.read(tmp_path / "c.h5").head()
    assert head.rotation.shape == (3, 3) and head.head_model == "open"


def test_the_overlay_shows_every_frame(tmp_path: Path) -> None:
    """Landmarks and head are drawn on frames with a face, a red border on those without."""
    path = clip(tmp_path / "c.mp4", 1, 1, 0)
    good("preprocess", path, "--debug", tmp_path / "overlay.mp4", "-o", tmp_path / "c.h5")
    shown = show(tmp_path / "overlay.mp4")
    assert len(shown.frames) == 3 and shown.size == (128, 96)
    assert np.abs(shown.frames[0][48, 64].astype(int) - 90).max() > 20, "the head in the middle"
    red = shown.frames[2][1, 64].astype(int)
    assert red[0] > 150 and red[1] < 90
    assert not Tracked.read(tmp_path / "c.h5").has_head, "the overlay's fit is not part of the result"


def test_the_overlay_cannot_come_from_a_pipe(tmp_path: Path) -> None:
    data = clip(tmp_path / "c.mp4", 1, 1).read_bytes()
    outcome = fourd("preprocess", "-", "--debug", tmp_path / "overlay.mp4", "-o", tmp_path / "c.h5", stdin=data)
    assert "--debug" in outcome.sentence(2) and files(tmp_path) == ["c.mp4"]


@pytest.mark.parametrize(("face", "side"), [("0", -1), ("1", 1), ("largest", 1)])
def test_which_face(tmp_path: Path, face: str, side: int) -> None:
    good("preprocess", photo(tmp_path / "a.png", 2), "--face", face, "-o", tmp_path / "a.h5")
    tracked = Tracked.read(tmp_path / "a.h5")
    assert np.sign(tracked.landmarks[0, :, 0].mean() - 64) == side and tracked.status.tolist() == [2]


def test_a_face_that_is_not_there(tmp_path: Path) -> None:
    sentence = fourd("preprocess", photo(tmp_path / "a.png", 2), "--face", 3, "-o", tmp_path / "a.h5").sentence()
    assert "a.png: --face 3 asked for, but only 2 found" in sentence and files(tmp_path) == ["a.png"]
    assert "expected largest or an index" in fourd("preprocess", tmp_path / "a.png", "--face", "left").sentence(2)


# ------------------------------------------------------------------------------------------------------ many inputs


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for name, faces in (("a.png", 1), ("b.png", 1), ("c.png", 0), ("d.png", 1)):
        photo(folder / name, faces)
    return folder


def test_one_bad_file_does_not_end_a_batch(tmp_path: Path, album: Path) -> None:
    outcome = fourd("preprocess", f"{album}/*.png", "-o", tmp_path / "out")
    assert outcome.code == 1 and outcome.out == b"" and "Traceback" not in outcome.err
    assert "c.png: no face found" in outcome.err and "1 of 4 inputs failed" in outcome.err
    assert files(tmp_path / "out") == ["a.png.h5", "b.png.h5", "d.png.h5"]
    assert Tracked.read(tmp_path / "out" / "b.png.h5").provenance.sources[0].name == "b.png"


def test_strict_stops_at_the_first(tmp_path: Path, album: Path) -> None:
    outcome = fourd("preprocess", f"{album}/*.png", "--strict", "-o", tmp_path / "out")
    assert "c.png" in outcome.sentence() and files(tmp_path / "out") == ["a.png.h5", "b.png.h5"]


def test_what_is_complete_is_skipped(tmp_path: Path, album: Path) -> None:
    good("preprocess", album / "a.png", album / "b.png", "-o", tmp_path / "out")
    stamp = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in files(tmp_path / "out")}
    good("preprocess", album / "a.png", album / "b.png", album / "d.png", "-o", tmp_path / "out")
    assert files(tmp_path / "out") == ["a.png.h5", "b.png.h5", "d.png.h5"]
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == time for name, time in stamp.items())
    good("preprocess", album / "a.png", album / "b.png", "-o", tmp_path / "out", "--overwrite")
    assert (tmp_path / "out" / "a.png.h5").stat().st_mtime_ns != stamp["a.png.h5"]


def test_shards_share_the_work(tmp_path: Path, album: Path) -> None:
    for index in (0, 1):
        fourd("preprocess", f"{album}/*.png", "--shard", f"{index}/2", "-o", tmp_path / str(index))
    assert files(tmp_path / "0") == ["a.png.h5"] and files(tmp_path / "1") == ["b.png.h5", "d.png.h5"]


def test_same_names_in_two_folders_do_not_overwrite_each_other(tmp_path: Path, album: Path) -> None:
    (tmp_path / "other").mkdir()
    photo(tmp_path / "other" / "a.png", yaw=0.4)
    outcome = fourd("preprocess", album / "a.png", tmp_path / "other" / "a.png", "-o", tmp_path / "out")
    assert "a.png" in outcome.sentence(2) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("output", [[], ["-o", "out.h5"], ["-o", "-"]])
def test_several_inputs_need_a_folder(album: Path, output: list[str]) -> None:
    outcome = fourd("preprocess", album / "a.png", album / "b.png", *output)
    assert "give a folder with -o FOLDER" in outcome.sentence(2)


def test_a_pattern_without_matches(tmp_path: Path) -> None:
    sentence = fourd("preprocess", tmp_path / "*.png", "-o", tmp_path / "out").sentence()
    assert "*.png does not exist" in sentence and files(tmp_path) == []
