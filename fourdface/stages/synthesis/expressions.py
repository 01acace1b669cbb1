"""Expressions for training pictures: what faces do when they talk, smile, blink and look around."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...blocks.arkit import ARKIT_INDEX, ARKIT_NAMES
from ...priors.synthetic_person.speech import PHONEMES

GAZE_PITCH, GAZE_YAW = (0.09, 0.25), (0.16, 0.45)
"""Standard deviation and limit in radians of where eyes look."""
NECK = (0.12, 0.20, 0.07)
"""Standard deviations in radians of the neck's pitch, yaw and roll."""
_RARE = ("cheekPuff", "jawForward", "jawLeft", "jawRight", "mouthLeft", "mouthRight", "tongueOut", "noseSneer")
_GROUPS = tuple(
    name for name in dict.fromkeys(n.removesuffix("Left").removesuffix("Right") for n in ARKIT_NAMES)
    if not name.startswith("eyeLook")
)  # fmt: skip


@dataclass(frozen=True)
class HeadMotion:
    """One moment: expression [52] in 0..1; neck, jaw [3], eyes [6] (left, right), axis-angle radians."""

    expression: np.ndarray
    eyes: np.ndarray
    neck: np.ndarray = field(default_factory=lambda: np.zeros(3))
    jaw: np.ndarray = field(default_factory=lambda: np.zeros(3))


def draw_motion(rng: np.random.Generator, neck: float = 0.0) -> HeadMotion:
    """Draw a motion; `neck`: probability that the neck is bent (else it is straight, as in Portrait4D's data)."""
    values = np.zeros(52)
    kind = rng.choice(4, p=(0.30, 0.35, 0.25, 0.10))
    if kind == 0:
        _speak(values, rng)
    elif kind == 1:
        _mix(values, rng)
    elif kind == 2:
        _act(values, rng)
    blink = rng.random()
    if blink < 0.15:  # closed or closing
        set_both(values, "eyeBlink", float(rng.uniform(0.4, 1.0)), rng, 0.05)
    elif blink < 0.6:
        set_both(values, "eyeBlink", float(rng.uniform(0.0, 0.2)), rng, 0.03)
    eyes = look(values, rng)
    bent = rng.normal(0, NECK) if rng.random() < neck else np.zeros(3)
    return HeadMotion(np.clip(values, 0, 1), eyes, bent)


def set_both(values: np.ndarray, name: str, strength: float, rng: np.random.Generator, uneven: float = 0.1) -> None:
    """Add a mode, or its left and right halves a little unevenly, to coefficients [52] in place."""
    if name in ARKIT_INDEX:
        values[ARKIT_INDEX[name]] += strength
        return
    for side in ("Left", "Right"):
        values[ARKIT_INDEX[name + side]] += strength * float(np.clip(rng.normal(1, uneven), 0, 2))


def look(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn both eyes [6]; the lids follow (eyeLook modes of `values` [52], in place)."""
    pitch, yaw = (float(np.clip(rng.normal(0, sigma), -most, most)) for sigma, most in (GAZE_PITCH, GAZE_YAW))
    follow = 1 - max(values[ARKIT_INDEX["eyeBlinkLeft"]], values[ARKIT_INDEX["eyeBlinkRight"]])
    for name, strength in (("eyeLookDown", 1.5 * pitch * follow), ("eyeLookUp", -1.5 * pitch * follow)):
        for side in ("Left", "Right"):
            values[ARKIT_INDEX[name + side]] += max(0.0, strength)
    # the subject's left is +x, where a positive turn about y leads
    outwards, inwards = ("Left", "Right") if yaw > 0 else ("Right", "Left")
    values[ARKIT_INDEX["eyeLookOut" + outwards]] += abs(yaw) / 0.55
    values[ARKIT_INDEX["eyeLookIn" + inwards]] += abs(yaw) / 0.55
    return np.array([pitch, yaw, 0.0, pitch, yaw, 0.0])


def _speak(values: np.ndarray, rng: np.random.Generator) -> None:
    """Between two sounds, clearly or less so, with a lively or a still face."""
    first, second = (list(PHONEMES.values())[k].viseme for k in rng.integers(len(PHONEMES), size=2))
    along, clear = rng.uniform(), rng.uniform(0.6, 1.7)
    for viseme, share in ((first, 1 - along), (second, along)):
        for name, value in viseme.items():
            set_both(values, name.removesuffix("Left"), float(clear * share * value), rng, 0.05)
    if rng.random() < 0.5:
        for name in ("browInnerUp", "browOuterUp", "mouthSmile"):
            set_both(values, name, float(0.5 * rng.beta(1, 2)), rng)


def _mix(values: np.ndarray, rng: np.random.Generator) -> None:
    """Some modes at random, most of them weak."""
    for name in _GROUPS:
        if name != "eyeBlink" and rng.random() < (0.06 if name in _RARE else 0.16):
            set_both(values, name, float(rng.beta(1.2, 2.0)), rng, 0.25)
    if rng.random() < 0.3:
        set_both(values, "jawOpen", float(rng.beta(1.2, 2.0)), rng)
    _keep_lips_apart(values)


def _act(values: np.ndarray, rng: np.random.Generator) -> None:
    """One clear expression: smile, laugh, surprise, anger, disgust, sadness, a pout, an open mouth."""
    acts: tuple[dict[str, float], ...] = (
        {"mouthSmile": 0.9, "cheekSquint": 0.5, "eyeSquint": 0.3, "mouthUpperUp": 0.2},
        {"mouthSmile": 0.9, "jawOpen": 0.45, "cheekSquint": 0.7, "eyeSquint": 0.5, "mouthUpperUp": 0.4},
        {"jawOpen": 0.6, "browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.8},
        {"browDown": 0.9, "eyeSquint": 0.5, "mouthPress": 0.5, "noseSneer": 0.3},
        {"noseSneer": 0.8, "mouthUpperUp": 0.5, "browDown": 0.5, "eyeSquint": 0.4},
        {"mouthFrown": 0.8, "browInnerUp": 0.7, "mouthShrugLower": 0.5},
        {"mouthPucker": 0.9, "mouthFunnel": 0.2},
        {"jawOpen": 1.0, "mouthLowerDown": 0.3, "mouthUpperUp": 0.2},
        {"jawOpen": 0.35, "mouthFunnel": 0.8},
    )
    strength = float(rng.uniform(0.35, 1.0))
    for name, value in acts[int(rng.integers(len(acts)))].items():
        set_both(values, name, strength * value * float(rng.uniform(0.7, 1.2)), rng, 0.1)


def _keep_lips_apart(values: np.ndarray) -> None:
    """mouthClose belongs to an open jaw: alone it pushes the lips through each other."""
    close, jaw = ARKIT_INDEX["mouthClose"], ARKIT_INDEX["jawOpen"]
    values[close] = min(values[close], 0.8 * min(values[jaw], 1.0))
