"""`fourd fit-flame`: the head in a tracked clip, or its movement."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from fourdface.artifacts import Motion, Tracked
from fourdface.stages.preprocess import PreprocessOptions, Source, preprocess
from support.artifacts import PROVENANCE, make_avatar
from support.calling import files, fourd, good
from support.scenes import photo_view
from support.seeing import FakePerception, picture

YAWS = np.linspace(-0.3, 0.3, 5)


@pytest.fixture(scope="module")
def tracked_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A clip of five frames, its third without a face, as `fourd preprocess` writes it."""
    frames = [(picture(256, 256, int(k != 2), yaw), k / 30) for k, yaw in enumerate(YAWS)]
    source = Source(frames, 256, 256, Fraction(30), "c.mp4", "")
    path = tmp_path_factory.mktemp("tracked") / "t.h5"
    preprocess(source, FakePerception(), PROVENANCE, PreprocessOptions()).write(path)
    return path.read_bytes()


@pytest.fixture
def tracked(tmp_path: Path, tracked_bytes: bytes) -> Path:
    path = tmp_path / "t.h5"
    path.write_bytes(tracked_bytes)
    return path


def test_the_head_is_added(tmp_path: Path, tracked: Path) -> None:
    good("fit-flame", tracked, "--focal", photo_view(256).intrinsics[0, 0], "-o", tmp_path / "f.h5")
    fitted, before = Tracked.read(tmp_path / "f.h5"), Tracked.read(tracked)
    seen = [0, 1, 3, 4]
    assert np.degrees(np.abs(fitted.head().rotation[seen, 1] - YAWS[seen])).max() < 2
    assert fitted.head().intrinsics[0, 0] == pytest.approx(photo_view(256).intrinsics[0, 0])
    assert np.array_equal(fitted.landmarks, before.landmarks) and fitted.status.tolist() == [0, 0, 1, 0, 0]
    assert fitted.provenance.sources == before.provenance.sources


def test_it_stands_in_a_pipe(tmp_path: Path, tracked_bytes: bytes) -> None:
    outcome = good("fit-flame", "--motion", stdin=tracked_bytes)
    (tmp_path / "m.h5").write_bytes(outcome.out)
    motion = Motion.read(tmp_path / "m.h5")
    assert motion.rate == 30 and len(motion.times) == 5 and motion.neutral_expression.shape == (52,)


def test_smoothing_off_differs_from_smoothing_on(tmp_path: Path, tracked: Path) -> None:
    for value in (0, 2):
        good("fit-flame", tracked, "--smoothing", value, "-o", tmp_path / f"{value}.h5")
    raw, smooth = (Tracked.read(tmp_path / f"{value}.h5").head().rotation for value in (0, 2))
    assert np.abs(raw - smooth).max() > 1e-4


def test_it_can_be_run_again(tmp_path: Path, tracked: Path) -> None:
    good("fit-flame", tracked, "-o", tmp_path / "a.h5")
    good("fit-flame", tmp_path / "a.h5", "-o", tmp_path / "b.h5")
    first, again = (Tracked.read(tmp_path / f"{name}.h5").head().rotation for name in "ab")
    assert np.array_equal(first, again)


def test_refusals(tmp_path: Path, tracked: Path) -> None:
    make_avatar().write(tmp_path / "avatar.h5")
    before = files(tmp_path)
    for words, code, arguments in (
        ("avatar", 2, [tmp_path / "avatar.h5"]),
        ("does not exist", 1, [tmp_path / "nothing.h5"]),
        ("Unknown head model 'giraffe'", 1, [tracked, "--head", "giraffe"]),
        ("--focal", 2, [tracked, "--focal", "0"]),
    ):
        assert words in fourd("fit-flame", *arguments, "-o", tmp_path / "out.h5").sentence(code), arguments
    assert "standard input is empty" in fourd("fit-flame", "-o", tmp_path / "out.h5").sentence()
    assert "--overwrite" in fourd("fit-flame", tracked, "-o", tracked).sentence(2)
    assert files(tmp_path) == before
