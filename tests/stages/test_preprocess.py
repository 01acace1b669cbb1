"""preprocess: frames in, tracked artifact out, whatever the frames show."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from fourdface.errors import FourdError
from fourdface.media.image import decode_png
from fourdface.stages.preprocess import PreprocessOptions, Source, crop_transform, preprocess
from support.artifacts import PROVENANCE
from support.seeing import FakePerception, picture

RATE = Fraction(30000, 1001)


def source(pictures: Sequence[np.ndarray], name: str = "clip.mp4") -> Source:
    height, width = pictures[0].shape[:2] if pictures else (96, 96)
    frames = [(image, float(k / RATE)) for k, image in enumerate(pictures)]
    return Source(iter(frames), width, height, RATE, name, "ab" * 32)


def run(*counts: int, **options: object):
    chosen = PreprocessOptions(**options)  # type: ignore[arg-type]
    return preprocess(source([picture(faces=count) for count in counts]), FakePerception(), PROVENANCE, chosen)


def test_a_clip_keeps_its_time_and_its_gaps() -> None:
    tracked = run(1, 1, 0, 0, 1)
    tracked.validate()
    assert tracked.rate == RATE and (tracked.width, tracked.height) == (96, 96)
    assert np.allclose(tracked.times, np.arange(5) * 1001 / 30000)
    assert tracked.status.tolist() == [0, 0, 1, 1, 0]
    assert (tracked.landmarks[[2, 3]] == 0).all() and (tracked.landmarks[[0, 1, 4]] > 0).any()
    assert tracked.source_path == "clip.mp4" and tracked.source_sha256 == "ab" * 32
    assert tracked.frame_blobs is None and tracked.matte_blobs is None and not tracked.has_head


def test_frames_and_mattes_are_kept_when_asked() -> None:
    tracked = run(1, 0, 1, mattes=True, keep_frames=True)
    assert tracked.frame_blobs is not None and tracked.matte_blobs is not None
    assert np.array_equal(decode_png(tracked.frame_blobs[0]), picture())
    assert decode_png(tracked.matte_blobs[0]).shape == (96, 96) and tracked.matte_blobs[1] == b""
    assert tracked.source_path == ""


def test_several_faces_are_recorded() -> None:
    assert run(2, 2).status.tolist() == [2, 2]
    left = run(2, 2, face=0).landmarks[..., 0].mean()
    assert left < 48 < run(2, 2, face=1).landmarks[..., 0].mean()


@pytest.mark.parametrize(("count", "words"), [(1, "in the picture"), (3, "in any of 3 frames")])
def test_no_face_at_all(count: int, words: str) -> None:
    with pytest.raises(FourdError) as caught:
        run(*[0] * count)
    assert str(caught.value).startswith(f"clip.mp4: no face found {words}; ")


def test_an_index_beyond_the_faces_names_those_there_are() -> None:
    with pytest.raises(FourdError, match=r"--face 5 asked for, but only 2 found.*--face 0\.\.1"):
        run(2, face=5)


def test_no_frames() -> None:
    with pytest.raises(FourdError, match=r"clip\.mp4: holds no frames"):
        preprocess(source([]), FakePerception(), PROVENANCE)


def test_frames_are_not_held() -> None:
    """However long the clip: at most a couple of pictures are alive at a time."""
    import weakref

    alive: list[weakref.ref] = []
    most = 0

    def frames():
        nonlocal most
        for k in range(300):
            image = picture(32, 32)
            alive.append(weakref.ref(image))
            most = max(most, sum(ref() is not None for ref in alive[-20:]))
            yield image, k / 25

    tracked = preprocess(Source(frames(), 32, 32, RATE, "x", ""), FakePerception(), PROVENANCE)
    assert len(tracked.times) == 300 and most <= 3


@pytest.mark.parametrize("angle", [0.0, 0.5, -2.0])
def test_the_crop_is_an_upright_square_around_the_face(angle: float) -> None:
    """Its transform is a similarity, the eyes come out level, and all landmarks lie in the unit square."""
    points = FakePerception().faces(picture())[0].landmarks
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (points @ turn.T * 3 + 50).astype(np.float32)
    matrix = crop_transform(points)
    linear = matrix[:, :2].astype(np.float64)
    scale = np.sqrt(np.linalg.det(linear))
    assert np.allclose(linear @ linear.T, scale**2 * np.eye(2), atol=1e-9)
    inside = points @ linear.T + matrix[:, 2]
    assert inside.min() > 0.05 and inside.max() < 0.95
    assert inside[33, 1] == pytest.approx(inside[263, 1], abs=1e-4) and inside[33, 0] < inside[263, 0]
