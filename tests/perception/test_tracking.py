"""Following one face and its head through a clip: who is followed, what is lost and found, what smoothing does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.perception.base import Face, Perception
from fourdface.perception.tracking import DETECT_EVERY, FaceTracker, FrameStatus, HeadTracker, smoothed, stack_faces
from support.scenes import open_head, photo_view
from support.seeing import FakePerception, picture

OK, MISSING, MULTIPLE, LOW = FrameStatus


def run(tracker: FaceTracker, *counts: int, **state: float) -> list[tuple[Face | None, FrameStatus]]:
    """Pictures with so many faces each."""
    return [tracker.step(picture(faces=count, **state)) for count in counts]


def middle(face: Face | None) -> float:
    assert face is not None
    return float(face.landmarks[:, 0].mean())


# ------------------------------------------------------------------------------------------------------------- faces


def test_the_fake_is_a_perception() -> None:
    assert isinstance(FakePerception(), Perception)


def test_it_detects_once_and_then_follows() -> None:
    perception = FakePerception()
    seen = run(FaceTracker(perception), *[1] * 10)
    assert [status for _, status in seen] == [OK] * 10
    assert perception.calls == {"detect": 1, "analyse": 1, "follow": 9, "matte": 0}


def test_a_face_that_leaves_and_comes_back() -> None:
    perception = FakePerception()
    seen = run(FaceTracker(perception), 1, 1, 0, 0, 0, 1, 1)
    assert [status for _, status in seen] == [OK, OK, MISSING, MISSING, MISSING, OK, OK]
    assert [face is None for face, _ in seen] == [False, False, True, True, True, False, False]
    assert perception.calls["detect"] == 5, "first frame, three without a face, and the return"


def test_nothing_at_all() -> None:
    tracker = FaceTracker(FakePerception())
    assert run(tracker, 0, 0) == [(None, MISSING)] * 2 and tracker.face_count == 0


def test_of_two_the_larger_is_followed_and_the_status_says_so() -> None:
    tracker = FaceTracker(FakePerception())
    seen = run(tracker, 2, 2)
    assert [status for _, status in seen] == [MULTIPLE, MULTIPLE] and tracker.face_count == 2
    assert all(middle(face) > 48 for face, _ in seen)


@pytest.mark.parametrize(("choice", "side"), [(0, -1), (1, 1)])
def test_an_index_counts_from_the_left(choice: int, side: int) -> None:
    seen = run(FaceTracker(FakePerception(), choice), 2, 2, 0, 2)
    for face, status in (seen[0], seen[1], seen[3]):
        assert status is MULTIPLE and np.sign(middle(face) - 48) == side


def test_an_index_that_is_not_there() -> None:
    tracker = FaceTracker(FakePerception(), 2)
    assert run(tracker, 2) == [(None, MISSING)] and tracker.face_count == 2


def test_a_second_face_is_noticed_later() -> None:
    tracker = FaceTracker(FakePerception(), 0)
    statuses = [status for _, status in run(tracker, *[2] * 3, *[1] * (DETECT_EVERY + 2))]
    assert statuses[:3] == [MULTIPLE] * 3 and statuses[-1] is OK, "counted again while one is followed"


class Jumping(FakePerception):
    """Follows wrongly from the third frame on: landmarks of another size or place."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def follow(self, image_u8: np.ndarray, landmarks_previous: np.ndarray) -> Face:
        face = super().follow(image_u8, landmarks_previous)
        if self.calls["follow"] < 2:
            return face
        centre = face.landmarks.mean(0)
        return dataclasses.replace(face, landmarks=(face.landmarks - centre) * self.scale + centre + self.shift)


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 0.0), (0.3, 0.0), (1.0, 200.0)])
def test_a_face_cannot_jump(scale: float, shift: float) -> None:
    """A face three times as large, or elsewhere, from one frame to the next is no face: it is found anew."""
    perception = Jumping(scale, shift)
    seen = run(FaceTracker(perception), 1, 1, 1)
    assert [status for _, status in seen] == [OK] * 3 and perception.calls["detect"] == 2
    assert np.allclose(seen[2][0].landmarks, seen[0][0].landmarks)  # type: ignore[union-attr]


def test_modest_changes_are_followed() -> None:
    perception = Jumping(1.2, 5.0)
    run(FaceTracker(perception), 1, 1, 1)
    assert perception.calls["detect"] == 1


def test_a_larger_face_that_walks_in_is_not_taken_for_the_first() -> None:
    """Followed is the left, smaller face; when following fails for a moment it is found again, not the larger one."""
    perception = Jumping(3.0, 0.0)
    tracker = FaceTracker(perception, 0)
    seen = run(tracker, 2, 2, 2, 2)
    assert perception.calls["detect"] >= 2 and all(middle(face) < 48 for face, _ in seen)
    tracker = FaceTracker(Jumping(3.0, 0.0))
    run(tracker, 2)
    tracker._landmarks = tracker._landmarks - 40  # the followed one stood on the left
    assert middle(run(tracker, 2, 2)[-1][0]) < 48


@pytest.mark.parametrize(("presence", "status"), [(0.9, OK), (0.4, LOW), (0.1, MISSING)])
def test_doubtful_faces(presence: float, status: FrameStatus) -> None:
    class Doubtful(FakePerception):
        def analyse(self, image_u8: np.ndarray, box: np.ndarray) -> Face:
            return dataclasses.replace(super().analyse(image_u8, box), presence=presence)

    face, found = run(FaceTracker(Doubtful()), 1)[0]
    assert found is status and (face is None) == (status is MISSING)


def test_stacking() -> None:
    faces = [FakePerception().faces(picture(jaw=jaw))[0] for jaw in (0.0, 0.5)]
    landmarks, coefficients = stack_faces(faces)
    assert landmarks.shape == (2, 478, 2) and coefficients.shape == (2, 52) and landmarks.dtype == torch.float32
    assert coefficients[:, ARKIT_INDEX["jawOpen"]].tolist() == pytest.approx([0, 0.5])


# -------------------------------------------------------------------------------------------------------------- head


def faces_of(*yaws: float, size: int = 256) -> list[Face]:
    return [FakePerception().faces(picture(size, size, yaw=yaw))[0] for yaw in yaws]


def tracker_of(size: int = 256) -> HeadTracker:
    return HeadTracker(open_head(), (size, size), focal=float(photo_view(size).intrinsics[0, 0]))


def test_calibration_comes_first() -> None:
    with pytest.raises(ValueError, match="calibrate"):
        tracker_of().step(faces_of(0.0)[0])


def test_the_heads_turn_is_followed() -> None:
    tracker, yaws = tracker_of(), np.linspace(-0.5, 0.5, 12)
    faces = faces_of(*yaws)
    tracker.calibrate(faces[::3])
    measured = [float(tracker.step(face).rotation[0, 1]) for face in faces]
    assert np.degrees(np.abs(np.array(measured) - yaws)).max() < 1.5
    assert tracker.calibration is not None and tracker.calibration.shape.norm() < 1.0, "the mean head is the mean head"


def test_a_wrong_start_is_thrown_away() -> None:
    """After a cut the next frame has nothing to do with the last one."""
    tracker = tracker_of()
    left, right = faces_of(-0.7, 0.7)
    tracker.calibrate([left, right])
    tracker.step(left)
    moved = dataclasses.replace(right, landmarks=0.4 * right.landmarks + 0.6 * 128)  # farther away
    track = tracker.step(moved)
    assert float(track.residual[0]) < 0.02
    assert float(track.rotation[0, 1]) == pytest.approx(0.7, abs=0.08)


def test_the_neutral_is_what_the_calm_frames_show() -> None:
    tracker = tracker_of()
    faces = [FakePerception().faces(picture(256, 256, jaw=jaw))[0] for jaw in (0.0, 0.0, 0.0, 0.7, 0.9, 0.8)]
    tracker.calibrate(faces)
    assert tracker.calibration is not None and tracker.calibration.neutral.shape == (52,)
    assert tracker.calibration.neutral[ARKIT_INDEX["jawOpen"]] < 0.15


# --------------------------------------------------------------------------------------------------------- smoothing

gappy = st.lists(st.one_of(st.none(), st.floats(-3, 3)), max_size=40)


def vectors(values: list[float | None]) -> list[np.ndarray | None]:
    return [None if value is None else np.array([value, -value]) for value in values]


@given(gappy, st.floats(0.1, 3), st.integers(0, 4))
@settings(max_examples=80, deadline=None)
def test_smoothing_keeps_length_gaps_and_range(values: list[float | None], sigma: float, lag: int) -> None:
    out = list(smoothed(vectors(values), sigma, lag))
    assert len(out) == len(values)
    assert [item is None for item in out] == [value is None for value in values]
    known = [value for value in values if value is not None]
    for item in out:
        if item is not None:
            assert item.shape == (2,) and min(known) - 1e-9 <= item[0] <= max(known) + 1e-9


@given(st.floats(-3, 3), st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 4))
@settings(max_examples=50, deadline=None)
def test_a_constant_stays_constant(value: float, there: list[bool], lag: int) -> None:
    out = smoothed(vectors([value if here else None for here in there]), 0.8, lag)
    assert all(item is None or np.allclose(item[0], value) for item in out)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_the_latency_is_the_lag(lag: int) -> None:
    """The first result comes when `lag` further values are in, and no more are read ahead."""
    read = 0

    def values():
        nonlocal read
        for k in range(20):
            read += 1
            yield np.array([float(k)])

    stream = smoothed(values(), 0.8, lag)
    for k in range(10):
        next(stream)
        assert read == k + 1 + lag


def test_a_ramp_stays_a_ramp() -> None:
    """Steady movement is neither delayed nor flattened."""
    out = list(smoothed([np.array([0.1 * k]) for k in range(20)], 0.8, 2))
    assert np.allclose([item[0] for item in out[2:-2]], 0.1 * np.arange(2, 18))


def test_noise_gets_less() -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal((300, 3))
    out = np.stack(list(smoothed(list(noise), 0.8, 2)))  # type: ignore[arg-type]
    assert out.std() < 0.75 * noise.std()


def test_one_bad_frame_leaves_its_neighbours_alone() -> None:
    clean = [np.array([0.01 * k, 0.0]) for k in range(15)]
    spoilt = list(clean)
    spoilt[7] = np.array([5.0, -5.0])
    a, b = list(smoothed(clean, 0.8, 2)), list(smoothed(spoilt, 0.8, 2))
    for k in range(15):
        if k != 7:
            assert np.abs(a[k] - b[k]).max() < 0.01, k
    assert np.abs(b[7] - a[7]).max() < 0.05, "and is itself replaced by them"


def test_a_blink_is_no_outlier() -> None:
    """Three frames of a closed eye survive: half the window agrees on them."""
    values = [np.array([0.0])] * 6 + [np.array([1.0])] * 3 + [np.array([0.0])] * 6
    out = [float(item[0]) for item in smoothed(values, 0.6, 2)]
    assert out[7] > 0.7 and max(out[:5] + out[10:]) < 0.2


@pytest.mark.parametrize("speed", [0.3, 1.0])
def test_a_fast_turn_is_no_outlier(speed: float) -> None:
    values = [np.array([speed * k]) for k in range(12)]
    out = [float(item[0]) for item in smoothed(values, 0.6, 2)]
    assert np.allclose(out[2:-2], speed * np.arange(2, 10), atol=1e-6)
