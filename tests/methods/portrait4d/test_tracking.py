"""Crops of a driver: still where the face is still, near where it moves."""

from __future__ import annotations

import numpy as np

from fourdface.methods.portrait4d.tracking import CropTracker, crops_of
from support.scenes import dense_landmarks, head_state, photo_view

SIZE = (400, 400)


def face(yaw: float = 0.0) -> np.ndarray:
    return dense_landmarks(head_state(None, (0.0, yaw, 0.0)), photo_view(400))


def noisy(count: int) -> list[np.ndarray]:
    source = np.random.default_rng(0)
    return [face() + source.normal(0, 1.0, (478, 2)) for _ in range(count)]


def spread(crops: list) -> float:
    return float(np.std([crop.portrait.scaled[0] for crop in crops[5:]]))


def test_noise_does_not_shake_the_crop() -> None:
    frames = noisy(40)
    steady, raw = CropTracker(512), CropTracker(512, smooth=False)
    smooth = [steady.step(frame, SIZE, k / 25) for k, frame in enumerate(frames)]
    rough = [raw.step(frame, SIZE, k / 25) for k, frame in enumerate(frames)]
    assert spread(smooth) < 0.6 * spread(rough)
    assert np.std([c.motion[0, 0] for c in smooth[5:]]) < 0.8 * np.std([c.motion[0, 0] for c in rough[5:]])


def test_the_first_frame_and_a_still_face_are_exact() -> None:
    tracker, alone = CropTracker(256), crops_of(face(), SIZE, 256)
    for k in range(3):
        crops = tracker.step(face(), SIZE, k / 25)
        assert crops.portrait == alone.portrait and np.allclose(crops.motion, alone.motion, atol=1e-5)


def test_a_reset_forgets() -> None:
    tracker = CropTracker(256)
    tracker.step(face(), SIZE, 0.0)
    tracker.reset()
    moved = face() + np.array([40, 10])
    assert tracker.step(moved, SIZE, 0.04).portrait == crops_of(moved, SIZE, 256).portrait
