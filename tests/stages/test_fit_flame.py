"""fit-flame: from tracked landmarks to head parameters, and on to a motion."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from fourdface.artifacts import Tracked
from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.errors import FourdError, UsageError
from fourdface.stages.fit_flame import (
    FitFlameOptions,
    calibration_choice,
    faces_of,
    fit_flame,
    intrinsics_of,
    to_motion,
    unpack,
)
from fourdface.stages.preprocess import Source, preprocess
from support.artifacts import PROVENANCE
from support.scenes import open_head, photo_view
from support.seeing import FakePerception, picture

YAWS = np.linspace(-0.4, 0.4, 12)
FOCAL = float(photo_view(256).intrinsics[0, 0])


def tracked_clip(missing: tuple[int, ...] = (), jaw: float = 0.0, yaws: np.ndarray = YAWS) -> Tracked:
    """A head that turns from one side to the other, unseen in some frames; the second half opens its mouth."""
    frames = [
        (picture(256, 256, 0 if k in missing else 1, yaw, jaw * (k >= len(yaws) // 2)), k / 25)
        for k, yaw in enumerate(yaws)
    ]
    return preprocess(Source(frames, 256, 256, Fraction(25), "clip.mp4", ""), FakePerception(), PROVENANCE)


def fit(tracked: Tracked, **options: object) -> Tracked:
    chosen = FitFlameOptions(**{"focal": FOCAL, **options})  # type: ignore[arg-type]
    return fit_flame(tracked, open_head(), PROVENANCE, chosen)


def test_a_turning_head() -> None:
    fitted = fit(tracked_clip(jaw=0.6))
    fitted.validate()
    head = fitted.head()
    assert np.degrees(np.abs(head.rotation[:, 1] - YAWS)).max() < 2
    assert np.abs(head.expression[[2, 9], ARKIT_INDEX["jawOpen"]] - [0.0, 0.6]).max() < 0.1
    assert head.intrinsics[0, 0] == pytest.approx(FOCAL) and head.intrinsics[0, 2] == 128
    assert head.fit_residual.max() < 0.02
    assert np.array_equal(fitted.landmarks, tracked_clip(jaw=0.6).landmarks), "what was tracked stays"


def test_missing_frames_hold_the_last_pose_and_keep_their_status() -> None:
    fitted = fit(tracked_clip(missing=(0, 5, 6)))
    head = fitted.head()
    assert fitted.status.tolist() == [1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    assert np.array_equal(head.rotation[5], head.rotation[4]) and np.array_equal(head.rotation[6], head.rotation[4])
    assert np.array_equal(head.rotation[0], head.rotation[1]), "before the first face: the first pose"
    assert np.degrees(abs(head.rotation[8, 1] - YAWS[8])) < 2


def test_one_bad_frame_does_not_drag_its_neighbours() -> None:
    clean = tracked_clip()
    spoilt = clean.landmarks.copy()
    spoilt[6] = spoilt[6][:, ::-1] * 0.7 + 20
    good, bad = fit(clean).head(), fit(replace(clean, landmarks=spoilt)).head()
    rest = [k for k in range(12) if abs(k - 6) > 0]
    assert np.degrees(np.abs(good.rotation[rest] - bad.rotation[rest])).max() < 2.0
    assert np.abs(good.translation[rest] - bad.translation[rest]).max() < 0.02


def test_smoothing_can_be_switched_off() -> None:
    tracked = tracked_clip()
    noisy = replace(tracked, landmarks=tracked.landmarks + np.random.default_rng(0).normal(0, 1.0, (12, 478, 2)))
    noisy = replace(noisy, landmarks=noisy.landmarks.astype(np.float32))
    raw, smooth = fit(noisy, smoothing=0.0).head(), fit(noisy, smoothing=1.5).head()
    jitter = lambda head: np.abs(np.diff(head.expression, 2, axis=0)).mean()  # noqa: E731
    assert jitter(smooth) < 0.7 * jitter(raw)


def test_a_single_photo() -> None:
    fitted = fit(tracked_clip(yaws=np.array([0.2])), focal=None)
    assert fitted.has_head and fitted.head().rotation[0, 1] == pytest.approx(0.2, abs=0.06)


def test_nothing_to_fit() -> None:
    empty = replace(tracked_clip(), status=np.ones(12, np.uint8))
    with pytest.raises(FourdError, match="no frame with a face"):
        fit(empty)


def test_a_motion_is_the_movement_without_pictures() -> None:
    fitted = fit(tracked_clip(missing=(3,), jaw=0.8))
    motion = to_motion(fitted, PROVENANCE)
    motion.validate()
    head = fitted.head()
    assert np.array_equal(motion.rotation, head.rotation) and np.array_equal(motion.expression, head.expression)
    assert motion.rate == 25 and motion.status.tolist() == fitted.status.tolist() and motion.head_model == "open"
    assert motion.neutral_expression[ARKIT_INDEX["jawOpen"]] < 0.2, "rest is the calm part of the clip"


def test_a_motion_needs_a_fit() -> None:
    with pytest.raises(UsageError, match="fit-flame"):
        to_motion(tracked_clip(), PROVENANCE)


def test_calibration_frames_are_spread_over_the_clip() -> None:
    faces = faces_of(tracked_clip())
    chosen = calibration_choice(faces, 4)  # type: ignore[arg-type]
    assert len(chosen) == 4 and chosen[0] is faces[0] and chosen[-1] is faces[-1]
    assert calibration_choice(faces[:2], 24) == faces[:2]  # type: ignore[arg-type]


def test_packing() -> None:
    rows = np.arange(130, dtype=np.float64).reshape(2, 65)
    fields = unpack(rows)
    joined = [fields[name] for name in ("expression", "rotation", "translation", "eyes")]
    joined.append(fields["fit_residual"][:, None])
    assert np.array_equal(np.concatenate(joined, 1), rows) and all(part.dtype == np.float32 for part in joined)


def test_intrinsics() -> None:
    assert intrinsics_of(500, 640, 480).tolist() == [[500, 0, 320], [0, 500, 240], [0, 0, 1]]
