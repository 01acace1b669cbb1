"""How shoulders and chest move in a clip: tracked in the picture, because nothing in a face tells it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..blocks.head_fitting import CAMERA_DISTANCE
from .glimpse import Glimpse, Samples
from .photometric import match_step

LEVELS = ((6.0, 4), (2.0, 3))
"""Blur (deviation, pixels of the glimpse) and Gauss-Newton steps of each level, coarse to fine."""
SPREAD = np.array([0.03, 0.03, 0.04, 0.04])
"""Typical step of one frame: shift right and down (in faces), roll (radians), log of the size."""
DAMPING = np.array([0.5, 0.5, 0.15, 0.15])
"""Typical distance from the first frame of the same four."""
FEWEST = 150
"""Points of the torso below which there is nothing to track."""
MOST = 1500
WORST_MATCH = 0.7


@dataclass(frozen=True)
class TorsoMotion:
    """Motion in the picture since the first frame: pixels move from p to pivot + shift + size * turn(roll)(p - pivot).

    shift [2] pixels; roll radians, clockwise on the screen; pivot [2] pixels.
    """

    shift: np.ndarray
    roll: float
    size: float
    pivot: np.ndarray


class TorsoTracker:
    """Follows the torso of the first frame's matte by its brightness (Lucas-Kanade, four parameters).

    matte [H,W] of that frame in 0..1; landmarks [478,2] pixels, of which only the extent is used.
    """

    def __init__(self, glimpse: Glimpse, matte: np.ndarray, landmarks: np.ndarray) -> None:
        low, high = landmarks.min(0).astype(float), landmarks.max(0).astype(float)
        self._face = float((high - low).max())
        self._pivot = np.array([0.5 * (low[0] + high[0]), high[1] + 0.25 * self._face])
        self._points = _torso_points(matte, glimpse.factor, low, high)
        self._scale = np.array([self._face, self._face, 1.0, 1.0])
        self._state = np.zeros(4)  # shift in pixels, roll, log size
        self._values: list[np.ndarray] = []
        self._weights = np.ones(len(self._points))
        if self.usable:
            for sigma, _ in LEVELS:
                value, slope, inside = self._samples(glimpse, self._points, sigma).at(self._points)
                self._values.append(value)
                self._weights *= inside
            # plain cloth says nothing, and there is a lot of it
            strength = np.linalg.norm(slope, axis=1)
            self._weights *= np.clip(strength / max(float(np.percentile(strength, 85)), 1e-6), 0.02, 1)

    @property
    def usable(self) -> bool:
        """Whether the first frame shows enough of a torso."""
        return len(self._points) >= FEWEST

    def step(self, glimpse: Glimpse) -> TorsoMotion:
        """The torso's motion from the first frame to this one; what cannot be seen stays as it was."""
        state, match = self._state.copy(), 0.0
        for level, (sigma, steps) in enumerate(LEVELS):
            samples = self._samples(glimpse, self._moved(state)[0], sigma)
            for _ in range(steps):
                place, jacobian = self._moved(state)
                value, slope, inside = samples.at(place)
                columns = (slope[:, None, :] @ jacobian)[:, 0]
                hessian, push, match = match_step(value, columns, self._values[level], self._weights * inside)
                spread, damping = SPREAD * self._scale, DAMPING * self._scale
                hessian = hessian + np.diag(spread**-2) + np.diag(damping**-2)
                push = push - (state - self._state) / spread**2 - state / damping**2
                state = state + np.linalg.solve(hessian, push)
        if match >= WORST_MATCH:
            self._state = state
        return TorsoMotion(self._state[:2].copy(), float(self._state[2]), float(np.exp(self._state[3])), self._pivot)

    def _samples(self, glimpse: Glimpse, place: np.ndarray, sigma: float) -> Samples:
        margin = 0.05 * self._face
        return glimpse.blurred(place.min(0) - margin, place.max(0) + margin, sigma)

    def _moved(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [K,2] of the points and their derivatives [K,2,4]."""
        cosine, sine, size = np.cos(state[2]), np.sin(state[2]), np.exp(state[3])
        offset = (self._points - self._pivot) @ (size * np.array([[cosine, sine], [-sine, cosine]]))
        jacobian = np.zeros((len(offset), 2, 4))
        jacobian[:, 0, 0] = jacobian[:, 1, 1] = 1
        jacobian[:, :, 2] = np.stack([-offset[:, 1], offset[:, 0]], 1)
        jacobian[:, :, 3] = offset
        return offset + self._pivot + state[:2], jacobian


def _torso_points(matte: np.ndarray, step: int, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Pixels [K,2] that lie in the matte, or just outside it where its outline shows, and below the face low..high
    (x, y): beside the neck from the chin on, under it lower, where neither throat nor hair hangs; at most `MOST`."""
    small = matte[step // 2 :: step, step // 2 :: step]
    person = ndimage.binary_dilation(small > 0.5, iterations=2)
    rows, columns = np.nonzero(person)
    points = np.stack([columns * step + step // 2 + 0.5, rows * step + step // 2 + 0.5], 1)
    across, tall = high - low
    beside = np.abs(points[:, 0] - 0.5 * (low[0] + high[0])) / across
    top = high[1] + tall * np.interp(beside, [0.75, 0.95], [0.4, 0.05])
    points = points[points[:, 1] > top]
    return points[:: max(1, len(points) // MOST)]


def torso_in_world(motion: TorsoMotion, neck: np.ndarray, focal: float, size: tuple[int, int]) -> np.ndarray:
    """The motion as a rotation and translation [6] (axis-angle; metres, world axes) about the neck joint of the first
    frame, `neck` [3]. focal, size (width, height): the clip's, pixels."""
    depth = CAMERA_DISTANCE - neck[2]
    middle = np.array(size) / 2
    start = middle + focal / depth * neck[:2] * [1, -1]
    cosine, sine = np.cos(motion.roll), np.sin(motion.roll)
    turn = motion.size * np.array([[cosine, -sine], [sine, cosine]])
    end = motion.pivot + motion.shift + turn @ (start - motion.pivot)
    nearer = depth / motion.size
    place = (end - middle) * [1, -1] * nearer / focal
    return np.array([0.0, 0.0, -motion.roll, *(place - neck[:2]), depth - nearer])
