"""reenact: a driver's frames become poses one by one, in constant memory, whatever is missing."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.blocks.retarget import RetargetOptions
from fourdface.errors import FourdError
from fourdface.perception.tracking import CALIBRATION_FRAMES, FrameStatus
from fourdface.stages.reenact import (
    LONGEST_WAIT,
    Driver,
    DriverFrame,
    DriverOptions,
    animate,
    driver_from_motion,
    driver_from_video,
    source_pose,
)
from support.lifted import avatar_artifact, lifted_photo, talking_motion
from support.scenes import open_head
from support.seeing import FakePerception, picture

JAW = ARKIT_INDEX["jawOpen"]


def clip(*counts: int, jaw: float = 0.0) -> Iterator[tuple[np.ndarray, float]]:
    """Pictures with so many faces each, at 25 frames a second; the head turns a little from frame to frame."""
    for k, count in enumerate(counts):
        yield picture(96, 96, count, yaw=0.3 * np.sin(k / 5), jaw=jaw), k / 25


def drive(*counts: int, keep: bool = False, jaw: float = 0.0, **options: object) -> Driver:
    chosen = DriverOptions(**options)  # type: ignore[arg-type]
    return driver_from_video(clip(*counts, jaw=jaw), (96, 96), FakePerception(), open_head(), chosen, keep)


def test_every_frame_comes_with_its_time() -> None:
    frames = list(drive(*[1] * 40).frames)
    assert [frame.time for frame in frames] == [k / 25 for k in range(40)]
    assert all(frame.status is FrameStatus.OK and frame.image_u8 is None for frame in frames)
    yaws = np.array([frame.pose.rotation[1] for frame in frames if frame.pose is not None])
    assert np.degrees(np.abs(yaws - 0.3 * np.sin(np.arange(40) / 5))).mean() < 2.5


def test_the_reference_is_the_first_good_frame() -> None:
    driver = drive(0, 0, *[1] * 10)
    assert driver.reference is not None
    assert np.degrees(abs(driver.reference.rotation[1] - 0.3 * np.sin(2 / 5))) < 2.5


@pytest.mark.parametrize("count", [1, 2, 3, CALIBRATION_FRAMES, CALIBRATION_FRAMES + 1])
def test_short_clips_are_complete(count: int) -> None:
    assert len(list(drive(*[1] * count).frames)) == count


def test_hold_repeats_the_last_pose() -> None:
    frames = list(drive(1, 1, 1, 0, 0, 1, 1, 1, missing="hold").frames)
    assert [frame.status for frame in frames][3:5] == [FrameStatus.MISSING] * 2 and len(frames) == 8
    assert frames[3].pose is frames[2].pose is frames[4].pose is not None


def test_hold_has_no_pose_before_the_first_face() -> None:
    frames = list(drive(0, 0, 1, 1).frames)
    assert [frame.pose is None for frame in frames] == [True, True, False, False]


def test_skip_leaves_frames_out() -> None:
    frames = list(drive(0, 1, 1, 0, 0, 1, missing="skip").frames)
    assert [round(frame.time * 25) for frame in frames] == [1, 2, 5]


def test_fail_names_the_frame() -> None:
    with pytest.raises(FourdError, match=r"^frame 3 \(0\.12 s\) of the driver shows no face; use --missing"):
        list(drive(1, 1, 1, 0, 1, missing="fail").frames)


def test_a_driver_without_a_face() -> None:
    with pytest.raises(FourdError, match="shows no face in any frame"):
        drive(0, 0, 0)


def test_a_face_that_comes_late() -> None:
    """Longer than the wait for calibration: frames go out before the face is known, then it is fitted."""
    late = LONGEST_WAIT + 5
    driver = drive(*[0] * late, *[1] * 5)
    frames = list(driver.frames)
    assert len(frames) == late + 5 and driver.reference is not None
    assert all(frame.pose is None for frame in frames[:late]) and frames[-1].pose is not None


def test_two_faces_and_the_one_that_is_asked_for() -> None:
    place = [float(frame.pose.translation[0]) for k in (0, 1) for frame in drive(2, 2, face=k).frames if frame.pose]
    assert max(place[:2]) < 0 < min(place[2:])


def test_pictures_are_kept_for_a_side_by_side_only() -> None:
    assert all(frame.image_u8 is not None for frame in drive(1, 1, 1, keep=True).frames)


@pytest.mark.parametrize("keep", [False, True])
def test_memory_does_not_grow_with_the_clip(keep: bool) -> None:
    """Of 120 frames no more are alive at a time than are held back at the start for the driver's identity."""
    references: list[weakref.ref] = []
    alive: list[int] = []

    def frames() -> Iterator[tuple[np.ndarray, float]]:
        for k in range(120):
            image = picture(48, 48)
            references.append(weakref.ref(image))
            alive.append(sum(reference() is not None for reference in references))
            yield image, k / 25
            del image

    driver = driver_from_video(frames(), (48, 48), FakePerception(), open_head(), DriverOptions(), keep)
    assert sum(1 for _ in driver.frames) == 120
    assert max(alive) <= CALIBRATION_FRAMES + 8
    assert max(alive[60:]) <= 8, "and once that is done only those in the smoothing window"


def test_a_bad_frame_does_not_shake_its_neighbours() -> None:
    class Glitch(FakePerception):
        def follow(self, image_u8: np.ndarray, landmarks_previous: np.ndarray):
            face = super().follow(image_u8, landmarks_previous)
            if self.calls["follow"] == 30:
                centre = face.landmarks.mean(0)
                face = dataclasses.replace(face, landmarks=centre + 1.3 * (face.landmarks - centre))
                face.coefficients[JAW] = 1.0
            return face

    def run(perception: FakePerception) -> np.ndarray:
        frames = ((picture(96, 96), k / 25) for k in range(40))
        driver = driver_from_video(frames, (96, 96), perception, open_head(), DriverOptions())
        return np.array([np.concatenate([f.pose.expression, f.pose.translation]) for f in driver.frames if f.pose])

    clean, spoilt = run(FakePerception()), run(Glitch())
    rest = [k for k in range(40) if k != 30]
    assert np.abs(clean - spoilt)[rest].max() < 0.02


# ------------------------------------------------------------------------------------------------------------ motion


def test_a_motion_drives_without_pictures() -> None:
    motion = talking_motion(6)
    driver = driver_from_motion(motion, DriverOptions())
    frames = list(driver.frames)
    assert [frame.time for frame in frames] == [k / 25 for k in range(6)]
    assert np.allclose([frame.pose.expression[JAW] for frame in frames if frame.pose], np.linspace(0, 0.8, 6))
    assert driver.reference is not None and np.array_equal(driver.reference.rotation, motion.rotation[0])
    assert np.array_equal(driver.neutral, motion.neutral_expression)


def test_missing_frames_of_a_motion() -> None:
    motion = talking_motion(6, missing=(0, 3))
    held = list(driver_from_motion(motion, DriverOptions(missing="hold")).frames)
    assert held[0].pose is None and held[3].pose is not None and held[2].pose is not None
    assert np.array_equal(held[3].pose.rotation, held[2].pose.rotation) and len(held) == 6
    skipped = list(driver_from_motion(motion, DriverOptions(missing="skip")).frames)
    assert [round(frame.time * 25) for frame in skipped] == [1, 2, 4, 5]
    with pytest.raises(FourdError, match=r"frame 0 .* of the motion has no face"):
        list(driver_from_motion(motion, DriverOptions(missing="fail")).frames)
    with pytest.raises(FourdError, match="no frame with a face"):
        driver_from_motion(talking_motion(3, missing=(0, 1, 2)), DriverOptions())


# ----------------------------------------------------------------------------------------------------------- animate


def states(driver: Driver, **options: object):
    _, avatar, _ = lifted_photo()
    return list(animate(avatar_artifact(), avatar, driver, RetargetOptions(**options)))  # type: ignore[arg-type]


def test_the_avatar_moves_as_the_motion_does() -> None:
    motion = talking_motion(6)
    moved = states(driver_from_motion(motion, DriverOptions()))
    assert np.allclose([float(state.expression[JAW]) for state, _ in moved], np.linspace(0, 0.8, 6), atol=1e-6)
    assert np.allclose([float(state.rotation[1]) for state, _ in moved], motion.rotation[:, 1], atol=1e-5)


def test_until_a_face_is_seen_the_photo_stands_still() -> None:
    _, avatar, _ = lifted_photo()
    moved = states(driver_from_motion(talking_motion(4, missing=(0, 1)), DriverOptions()))
    assert moved[0][0] is moved[1][0] is avatar.rig.source and moved[2][0] is not avatar.rig.source


def test_without_a_reference_the_first_pose_is_it() -> None:
    pose = source_pose(avatar_artifact())
    frames = iter([DriverFrame(pose, 0.0, FrameStatus.OK)])
    ((state, _),) = states(Driver(frames), pose="relative")
    assert np.allclose(state.translation, pose.translation) and np.allclose(state.rotation, pose.rotation, atol=1e-6)
