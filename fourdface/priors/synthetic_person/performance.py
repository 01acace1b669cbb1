"""What a synthetic person does for some seconds: speak, sway, blink, look around, smile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ...blocks.arkit import ARKIT_INDEX
from .person import PersonState
from .speech import GREETING, Utterance, loudness, synthesise, utter, visemes

_DEGREE = np.pi / 180


@dataclass(frozen=True)
class Performance:
    """T frames at `rate`: expression [T,52], head [T,3], eyes [T,6], sway [T,3] as in `PersonState`; sound [N] in -1..1
    at `speech.SAMPLE_RATE`, as long as the frames; utterance: what is said when."""

    rate: Fraction
    expression: np.ndarray
    head: np.ndarray
    eyes: np.ndarray
    sway: np.ndarray
    sound: np.ndarray
    utterance: Utterance

    def __len__(self) -> int:
        return len(self.expression)

    def states(self) -> Iterator[PersonState]:
        """One state a frame."""
        for k in range(len(self)):
            yield PersonState(self.expression[k], self.head[k], self.eyes[k], self.sway[k])


def perform(
    seed: int = 0, seconds: float = 6.0, rate: Fraction | int = 25, text: str = GREETING, liveliness: float = 1.0
) -> Performance:
    """Write a performance. text: phonemes, see `speech.PHONEMES`; liveliness: scale of everything but speech.

    Raises ValueError for lengths or rates that are not positive, and for unknown phonemes.
    """
    if seconds <= 0 or rate <= 0:
        raise ValueError(f"perform: seconds and rate must be positive, got {seconds} and {rate}")
    rng = np.random.default_rng(seed)
    count = max(1, round(seconds * Fraction(rate)))
    times = np.arange(count) / float(rate)
    utterance = utter(text, rng, seconds)
    stress = loudness(utterance, times)
    head = _head(times, stress, liveliness, rng)
    gaze = _gaze(times, liveliness, rng)
    expression = visemes(utterance, times)
    _mimic(expression, times, stress, gaze, liveliness, rng)
    # Eyes stay on their target while the head turns.
    turn = np.clip(gaze - 0.55 * head[:, :2], -0.45, 0.45)
    eyes = np.zeros((count, 6))
    eyes[:, 0:2] = eyes[:, 3:5] = turn
    sway = np.stack([reach * _drift(times, f, rng) for reach, f in ((0.010, 0.13), (0.004, 0.2), (0.008, 0.1))], 1)
    return Performance(
        rate=Fraction(rate), expression=np.clip(expression, 0, 1).astype(np.float32), head=head.astype(np.float32),
        eyes=eyes.astype(np.float32), sway=(liveliness * sway).astype(np.float32),
        sound=synthesise(utterance, rng, pitch=float(rng.uniform(95, 190))), utterance=utterance,
    )  # fmt: skip


def _drift(times: np.ndarray, frequency: float, rng: np.random.Generator) -> np.ndarray:
    """Slow wandering [T] between about -1 and 1: a few sines without common period."""
    total = np.zeros_like(times)
    for factor, strength in ((1.0, 0.6), (1.7, 0.3), (2.9, 0.15)):
        total += strength * np.sin(2 * np.pi * frequency * factor * times + rng.uniform(0, 2 * np.pi))
    return total


def _head(times: np.ndarray, stress: np.ndarray, liveliness: float, rng: np.random.Generator) -> np.ndarray:
    """Axis-angle [T,3]: turns to both sides, tilts, and nods on what is stressed."""
    yaw = 13 * np.sin(2 * np.pi * times / _turn_period(times) + rng.uniform(-0.3, 0.3)) + 4 * _drift(times, 0.3, rng)
    pitch = 3.5 * _drift(times, 0.25, rng) + 3.0 * (stress - 0.5)
    roll = 3.5 * _drift(times, 0.18, rng)
    return liveliness * _DEGREE * np.stack([pitch, yaw, roll], 1)


def _turn_period(times: np.ndarray) -> float:
    """Period in seconds of the slow turn: once through the clip, but not slower than 6 s."""
    return float(max(2.0, min(6.0, times[-1] + 1e-9)))


def _gaze(times: np.ndarray, liveliness: float, rng: np.random.Generator) -> np.ndarray:
    """Where the eyes look, relative to the camera: pitch and yaw [T,2] in radians, held and changed in jumps."""
    gaze = np.zeros((len(times), 2))
    moment, target = 0.0, np.zeros(2)
    while moment < times[-1]:
        gaze[times >= moment] = target
        at_camera = rng.random() < 0.5 or np.any(target)
        target = np.zeros(2) if at_camera and np.any(target) else rng.normal(0, [0.06, 0.20], 2)
        moment += rng.uniform(0.7, 1.4)
    # A saccade takes about 40 ms.
    previous = np.concatenate([gaze[:1], gaze[:-1]])
    return liveliness * (0.7 * gaze + 0.3 * previous)


def _mimic(
    expression: np.ndarray, times: np.ndarray, stress: np.ndarray, gaze: np.ndarray, liveliness: float,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Add blinks, brows, smile and lids that follow the gaze to coefficients [T,52], in place."""

    def add(name: str, values: np.ndarray) -> None:
        names = (name,) if name in ARKIT_INDEX else (name + "Left", name + "Right")
        for full in names:
            expression[:, ARKIT_INDEX[full]] += values.astype(np.float32)

    blink = _blinks(times, rng)
    add("eyeBlink", np.maximum(blink, 0.08))
    add("eyeSquint", 0.15 * blink)
    add("eyeLookDown", np.clip(gaze[:, 0], 0, None) * 1.5 * (1 - blink))
    add("eyeLookUp", np.clip(-gaze[:, 0], 0, None) * 1.5 * (1 - blink))
    lift = np.clip(_drift(times, 0.35, rng), 0, 1) * stress
    add("browInnerUp", liveliness * 0.55 * lift)
    add("browOuterUp", liveliness * 0.40 * lift)
    add("browDown", liveliness * 0.30 * np.clip(-_drift(times, 0.3, rng) - 0.2, 0, 1))
    end = times[-1] + 1e-9
    smile = np.exp(-0.5 * np.square((times - 0.16 * end) / (0.07 * end))) * 0.35
    smile += 0.75 * _rise((times - 0.84 * end) / (0.10 * end))
    add("mouthSmile", liveliness * smile)
    add("cheekSquint", liveliness * 0.45 * smile)
    add("eyeSquint", liveliness * 0.25 * smile)
    add("mouthUpperUp", liveliness * 0.15 * smile)


def _blinks(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Closing in 70 ms, opening in 160 ms, every one to three seconds."""
    total, moment = np.zeros_like(times), rng.uniform(0.5, 1.0)
    while moment < times[-1]:
        after = times - moment
        total = np.maximum(total, np.where(after < 0, _rise(1 + after / 0.07), _rise(1 - (after - 0.03) / 0.16)))
        moment += rng.uniform(1.0, 2.6)
    return total


def _rise(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
