"""A driver's movement on another person: what is taken over and what stays the person's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.blocks.retarget import FACE_CENTRE, GAZE_MODES, Pose, Retargeter, RetargetOptions
from support.scenes import expression

DISTANCE = 1.0


def pose(
    yaw: float = 0.0, place: tuple[float, float, float] = (0.0, -0.1, 0.1), eyes: float = 0.0, **coefficients: float
) -> Pose:
    """A pose by yaw in degrees, the neck joint's place in metres, the eyes' yaw and coefficients by name."""
    rotation = np.array([0.0, np.radians(yaw), 0.0])
    return Pose(expression(**coefficients), rotation, np.array(place), np.tile([0.0, eyes, 0.0], 2), np.zeros(3))


def retarget(source: Pose, reference: Pose, neutral: np.ndarray | None = None, **options: object) -> Retargeter:
    rest = np.zeros(52) if neutral is None else neutral
    return Retargeter(source, reference, rest, RetargetOptions(**options), DISTANCE)  # type: ignore[arg-type]


def same(a: Pose, b: Pose) -> bool:
    turn = (Rotation.from_rotvec(a.rotation).inv() * Rotation.from_rotvec(b.rotation)).magnitude()
    rest = [(a.expression, b.expression), (a.translation, b.translation), (a.eyes, b.eyes), (a.jaw, b.jaw)]
    return turn < 1e-6 and all(np.allclose(x, y, atol=1e-6) for x, y in rest)


@pytest.mark.parametrize("mode", ["absolute", "relative"])
def test_the_driver_himself_is_reproduced_exactly(mode: str) -> None:
    """Self-reenactment: source, reference and driver are one person, so every frame comes out as it went in."""
    first = pose(10, (0.02, -0.1, 0.1), 0.1, jawOpen=0.1)
    own = retarget(first, first, pose=mode)
    for frame in (first, pose(-25, (0.05, -0.08, 0.2), -0.2, jawOpen=0.7, eyeBlinkLeft=1.0), pose(60)):
        assert same(own(frame), frame)


def test_absolute_takes_the_drivers_rotation_and_relative_its_change() -> None:
    source, reference, now = pose(20), pose(-10), pose(5)
    assert np.degrees(retarget(source, reference)(now).rotation[1]) == pytest.approx(5)
    assert np.degrees(retarget(source, reference, pose="relative")(now).rotation[1]) == pytest.approx(35)


def test_relative_starts_in_the_photos_pose() -> None:
    source, reference = pose(20, (0.1, -0.1, 0.1), 0.0), pose(-10, (-0.2, 0.0, 0.3))
    start = retarget(source, reference, pose="relative")(reference)
    assert np.allclose(start.rotation, source.rotation) and np.allclose(start.translation, source.translation)


def test_none_keeps_the_photos_pose_but_not_its_expression() -> None:
    source = pose(20, (0.1, -0.1, 0.1), jawOpen=0.2)
    out = retarget(source, pose(), pose="none")(pose(40, (0.3, 0.0, 0.4), 0.2, mouthPucker=0.5))
    assert np.array_equal(out.rotation, source.rotation) and np.array_equal(out.translation, source.translation)
    assert out.expression[ARKIT_INDEX["mouthPucker"]] == 0.5 and out.expression[ARKIT_INDEX["jawOpen"]] == 0
    assert out.eyes[1] == 0.2


def test_the_person_stays_where_the_photo_shows_it() -> None:
    """A driver at the right edge of a clip does not push the person to the right; only the movement counts."""
    source, reference = pose(0, (-0.2, -0.1, 0.1)), pose(0, (0.3, 0.1, -0.2))
    own = retarget(source, reference)
    assert np.allclose(own(reference).translation, source.translation)
    moved = own(pose(0, (0.34, 0.07, -0.2)))
    assert np.allclose(moved.translation - source.translation, [0.04, -0.03, 0])


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.5])
def test_depth_changes_by_ratio(factor: float) -> None:
    """A driver who comes to half the distance doubles in size, and so does the person, whatever the lenses were."""
    source, reference = pose(0, (0, 0, 0.3)), pose(0, (0, 0, -1.0))
    near = pose(0, (0, 0, DISTANCE - factor * (DISTANCE + 1.0)))
    depth = DISTANCE - retarget(source, reference)(near).translation[2]
    assert depth == pytest.approx(factor * (DISTANCE - 0.3))


def test_a_failed_fit_does_not_throw_the_head_away() -> None:
    out = retarget(pose(), pose())(pose(0, (0, 0, -80.0)))
    assert DISTANCE - out.translation[2] == pytest.approx(2.5 * (DISTANCE - 0.1))


def test_expression_scale_works_about_the_drivers_rest() -> None:
    """What is at rest stays at rest; what moves is exaggerated or damped."""
    neutral = expression(browInnerUp=0.3)
    driver = pose(browInnerUp=0.3, jawOpen=0.2, mouthPucker=0.8)
    for scale, jaw, pucker in ((2.0, 0.4, 1.0), (0.5, 0.1, 0.4), (0.0, 0.0, 0.0)):
        out = retarget(pose(), pose(), neutral, expression_scale=scale)(driver).expression
        assert out[ARKIT_INDEX["browInnerUp"]] == pytest.approx(0.3)
        assert out[ARKIT_INDEX["jawOpen"]] == pytest.approx(jaw)
        assert out[ARKIT_INDEX["mouthPucker"]] == pytest.approx(pucker)


def test_relative_expression_adds_to_the_photos() -> None:
    source, neutral = pose(mouthSmileLeft=0.6, jawOpen=0.1), expression(mouthSmileLeft=0.2)
    own = retarget(source, pose(), neutral, expression="relative")
    assert np.allclose(own(pose(mouthSmileLeft=0.2)).expression, source.expression)
    out = own(pose(mouthSmileLeft=0.3, jawOpen=0.5)).expression
    assert out[ARKIT_INDEX["mouthSmileLeft"]] == pytest.approx(0.7)
    assert out[ARKIT_INDEX["jawOpen"]] == pytest.approx(0.6)
    assert own(pose()).expression[ARKIT_INDEX["mouthSmileLeft"]] == pytest.approx(0.4)


def test_gaze_off_keeps_the_photos_eyes_and_lids_follow() -> None:
    assert GAZE_MODES.sum() == 8
    source = pose(0, eyes=0.1, eyeLookDownLeft=0.4)
    driver = pose(0, eyes=-0.3, eyeLookUpLeft=0.9, eyeBlinkLeft=1.0)
    out = retarget(source, pose(), gaze=False)(driver)
    assert np.array_equal(out.eyes, source.eyes)
    assert np.array_equal(out.expression[GAZE_MODES], source.expression[GAZE_MODES])
    assert out.expression[ARKIT_INDEX["eyeBlinkLeft"]] == 1.0
    assert np.array_equal(retarget(source, pose())(driver).eyes, driver.eyes)


@pytest.mark.parametrize(("angle", "share"), [(3, 1.0), (10, 0.5), (20, 0.0)])
def test_start_correction_keeps_the_face_where_the_poses_agree(angle: float, share: float) -> None:
    """Photo and driver's first frame differ by a few degrees: that is the fits' error, and the face's middle stays."""
    source, reference = pose(0), pose(angle)
    out = retarget(source, reference)(reference)
    face = lambda p: p.translation + Rotation.from_rotvec(p.rotation).apply(FACE_CENTRE)  # noqa: E731
    full = Rotation.from_rotvec(source.rotation).apply(FACE_CENTRE)
    full = full - Rotation.from_rotvec(reference.rotation).apply(FACE_CENTRE)
    # both stand at the same place, so the rays to the camera agree up to the correction itself: under a millimetre
    assert np.allclose((out.translation - source.translation)[:2], share * full[:2], atol=1e-3)
    if share == 1.0:
        assert np.allclose(face(out)[:2], face(source)[:2], atol=1e-3)


def test_absolute_pose_is_what_the_camera_sees() -> None:
    """A driver who faces the camera makes a person at the picture's edge face the camera from there."""
    towards = lambda p: np.array([0, 0, DISTANCE]) - p.translation - FACE_CENTRE  # noqa: E731
    driver = pose(0, tuple(-FACE_CENTRE))  # face on the optical axis, looking along it
    source = pose(0, (0.2, 0.15, 0.0))
    out = retarget(source, driver)(driver)
    ray = towards(out) / np.linalg.norm(towards(out))
    assert np.allclose(Rotation.from_rotvec(out.rotation).apply([0, 0, 1]), ray, atol=1e-6)


def test_relative_needs_no_start_correction() -> None:
    out = retarget(pose(0), pose(3), pose="relative")(pose(3))
    assert np.allclose(out.translation, pose(0).translation)


@given(
    st.sampled_from(["absolute", "relative", "none"]), st.sampled_from(["absolute", "relative"]), st.floats(0, 3),
    st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_result_is_finite_and_in_range(mode: str, kind: str, scale: float, gaze: bool, seed: int) -> None:
    random = np.random.default_rng(seed)

    def anything() -> Pose:
        return Pose(random.random(52), random.normal(size=3), random.normal(size=3), random.normal(size=6), np.zeros(3))

    own = retarget(
        anything(), anything(), random.random(52), pose=mode, expression=kind, expression_scale=scale, gaze=gaze
    )
    out = own(anything())
    assert out.expression.min() >= 0 and out.expression.max() <= 1
    assert all(np.isfinite(getattr(out, name)).all() for name in ("rotation", "translation", "eyes", "jaw"))


@pytest.mark.parametrize("wrong", [{"pose": "upside-down"}, {"expression": "loud"}])
def test_unknown_modes_are_programming_errors(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        retarget(pose(), pose(), **wrong)
