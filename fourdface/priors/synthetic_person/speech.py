"""What a synthetic person says: phonemes with times, their sound by formant synthesis, their visemes on the lips.

The sound: a glottal pulse train (voiced) and noise (unvoiced) through three resonances that move from phoneme to
phoneme, after Klatt, "Software for a cascade/parallel formant synthesizer", JASA 1980, reduced to its cascade branch.
Formants are the textbook values of Peterson and Barney (1952), rounded.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage, signal

from ...blocks.arkit import ARKIT_INDEX

SAMPLE_RATE = 24000
_HOP = 120
"""Samples between changes of the resonators: 5 ms."""
_BANDWIDTHS = (80.0, 110.0, 160.0)


@dataclass(frozen=True)
class Phoneme:
    """seconds: typical length; formants [Hz]; voice, noise: loudness of the pulses and the noise; noise_at [Hz]: centre
    of the noise; viseme: ARKIT names (of the left side, or of the middle) with their coefficients."""

    seconds: float
    formants: tuple[float, float, float]
    voice: float
    noise: float
    noise_at: float
    viseme: dict[str, float]


_OPEN = {"mouthLowerDownLeft": 0.18, "mouthUpperUpLeft": 0.10}
_SPREAD = {"jawOpen": 0.10, "mouthStretchLeft": 0.26, "mouthSmileLeft": 0.20}
_ROUND = {"jawOpen": 0.08, "mouthFunnel": 0.55, "mouthPucker": 0.15}
_TONGUE = {"jawOpen": 0.13, "mouthLowerDownLeft": 0.20, "tongueOut": 0.12}
_TEETH = {"jawOpen": 0.06, "mouthStretchLeft": 0.14, "mouthLowerDownLeft": 0.22, "mouthUpperUpLeft": 0.12}
_CLOSED = {"mouthPressLeft": 0.40, "mouthRollLower": 0.22, "mouthRollUpper": 0.18}
_LIP_TEETH = {"jawOpen": 0.06, "mouthRollLower": 0.42, "mouthUpperUpLeft": 0.18}

PHONEMES: dict[str, Phoneme] = {
    "_": Phoneme(0.22, (500, 1500, 2500), 0.0, 0.0, 0, {}),
    "AA": Phoneme(0.15, (730, 1090, 2440), 1.0, 0.0, 0, {"jawOpen": 0.46, **_OPEN}),
    "AE": Phoneme(0.14, (660, 1720, 2410), 1.0, 0.0, 0, {"jawOpen": 0.38, "mouthStretchLeft": 0.22, **_OPEN}),
    "AH": Phoneme(0.10, (640, 1190, 2390), 0.9, 0.0, 0, {"jawOpen": 0.28, **_OPEN}),
    "EH": Phoneme(0.12, (530, 1840, 2480), 1.0, 0.0, 0, {"jawOpen": 0.27, "mouthStretchLeft": 0.20, **_OPEN}),
    "IH": Phoneme(0.09, (390, 1990, 2550), 0.9, 0.0, 0, {"jawOpen": 0.16, "mouthStretchLeft": 0.18, **_OPEN}),
    "IY": Phoneme(0.13, (270, 2290, 3010), 0.9, 0.0, 0, {**_SPREAD, **_OPEN}),
    "OW": Phoneme(0.15, (520, 900, 2400), 1.0, 0.0, 0, {"jawOpen": 0.26, "mouthFunnel": 0.48, "mouthPucker": 0.25}),
    "UW": Phoneme(0.13, (300, 870, 2240), 0.9, 0.0, 0, {"jawOpen": 0.10, "mouthFunnel": 0.22, "mouthPucker": 0.68}),
    "ER": Phoneme(0.12, (490, 1350, 1690), 0.9, 0.0, 0, {"jawOpen": 0.18, "mouthFunnel": 0.30, "mouthPucker": 0.15}),
    "W": Phoneme(0.08, (300, 700, 2200), 0.7, 0.0, 0, {"jawOpen": 0.08, "mouthPucker": 0.75, "mouthFunnel": 0.15}),
    "R": Phoneme(0.08, (350, 1150, 1600), 0.7, 0.0, 0, {"jawOpen": 0.14, "mouthFunnel": 0.32, "mouthPucker": 0.18}),
    "L": Phoneme(0.08, (360, 1200, 2700), 0.7, 0.0, 0, {"jawOpen": 0.18, "mouthLowerDownLeft": 0.15}),
    "Y": Phoneme(0.07, (280, 2200, 2950), 0.7, 0.0, 0, {"jawOpen": 0.10, "mouthStretchLeft": 0.22}),
    "M": Phoneme(0.09, (260, 1000, 2300), 0.45, 0.0, 0, _CLOSED),
    "N": Phoneme(0.08, (270, 1500, 2500), 0.45, 0.0, 0, _TEETH),
    "B": Phoneme(0.08, (250, 900, 2300), 0.25, 0.05, 900, _CLOSED),
    "P": Phoneme(0.08, (400, 1000, 2400), 0.0, 0.25, 1200, _CLOSED),
    "D": Phoneme(0.06, (300, 1700, 2600), 0.3, 0.10, 3500, _TEETH),
    "T": Phoneme(0.07, (400, 1700, 2600), 0.0, 0.35, 4500, _TEETH),
    "K": Phoneme(0.08, (400, 1800, 2300), 0.0, 0.30, 2200, {"jawOpen": 0.14}),
    "F": Phoneme(0.09, (400, 1200, 2400), 0.0, 0.25, 5500, _LIP_TEETH),
    "V": Phoneme(0.08, (300, 1200, 2400), 0.45, 0.15, 5000, _LIP_TEETH),
    "TH": Phoneme(0.08, (350, 1300, 2500), 0.35, 0.15, 5500, _TONGUE),
    "S": Phoneme(0.10, (400, 1600, 2600), 0.0, 0.55, 6500, _TEETH),
    "Z": Phoneme(0.09, (300, 1600, 2600), 0.4, 0.40, 6000, _TEETH),
    "SH": Phoneme(0.11, (400, 1700, 2400), 0.0, 0.55, 3300, _ROUND),
    "HH": Phoneme(0.07, (500, 1400, 2400), 0.0, 0.20, 1600, {"jawOpen": 0.16}),
}  # fmt: skip

GREETING = (
    "_ HH AH L OW _ AY AE M N AA T R IY L _ M AY F EY S IH Z M EY D AH V F AO R M Y UW L AH Z "
    "_ AE N D S OW IH Z M AY V OY S _"
)
"""Hello. I am not real: my face is made of formulas, and so is my voice."""
_DIPHTHONGS = {"AY": "AA IY", "EY": "EH IY", "OY": "OW IY", "AO": "AA OW", "AW": "AA UW"}


@dataclass(frozen=True)
class Utterance:
    """Phonemes in order, each with its start and end in seconds."""

    names: tuple[str, ...]
    starts: np.ndarray
    ends: np.ndarray

    @property
    def seconds(self) -> float:
        """Length of the whole."""
        return float(self.ends[-1])


def utter(text: str, rng: np.random.Generator, seconds: float) -> Utterance:
    """Give times to phonemes (names with spaces between, `_` = pause) so that they last `seconds` together.

    Raises ValueError for a name that is not in PHONEMES.
    """
    names = " ".join(_DIPHTHONGS.get(name, name) for name in text.split()).split()
    unknown = sorted(set(names) - set(PHONEMES))
    if unknown or not names:
        raise ValueError(f"unknown phonemes {unknown}; known are {sorted(PHONEMES)} and {sorted(_DIPHTHONGS)}")
    lengths = np.array([PHONEMES[name].seconds for name in names]) * rng.uniform(0.85, 1.15, len(names))
    ends = np.cumsum(lengths) * (seconds / lengths.sum())
    return Utterance(tuple(names), np.concatenate([[0.0], ends[:-1]]), ends)


def visemes(utterance: Utterance, times: np.ndarray, articulation: float = 1.5) -> np.ndarray:
    """Coefficients [T,52] of the mouth at `times` [T] seconds; articulation: 1 is casual, more is clearer.

    Lips are slower than sound and begin earlier: phonemes are blurred by 45 ms and moved ahead by 30 ms. Lips that
    must meet, do: closures are kept by their strongest moment.
    """
    rate = 200.0
    count = int(np.ceil(utterance.seconds * rate)) + 1
    clock = np.arange(count) / rate
    which = np.clip(np.searchsorted(utterance.ends, clock, side="right"), 0, len(utterance.names) - 1)
    table = np.stack([_viseme_row(name) for name in utterance.names])[which]
    smooth = ndimage.gaussian_filter1d(table, 0.045 * rate, axis=0, mode="nearest")
    closed = np.isin(np.array(utterance.names)[which], ("M", "B", "P", "F", "V")).astype(float)
    shut = np.clip(1.6 * ndimage.gaussian_filter1d(closed, 0.022 * rate, mode="nearest"), 0, 1)[:, None]
    sharp = ndimage.gaussian_filter1d(table, 0.018 * rate, axis=0, mode="nearest")
    smooth = (1 - shut) * smooth + shut * sharp
    ahead = np.clip(np.asarray(times) + 0.03, 0, utterance.seconds)
    rows = np.stack([np.interp(ahead, clock, smooth[:, k]) for k in range(52)], 1)
    return np.clip(articulation * rows, 0, 1).astype(np.float32)


def _viseme_row(name: str) -> np.ndarray:
    row = np.zeros(52)
    for key, value in PHONEMES[name].viseme.items():
        row[ARKIT_INDEX[key]] = value
        if key.endswith("Left"):
            row[ARKIT_INDEX[key.removesuffix("Left") + "Right"]] = value
    return row


def loudness(utterance: Utterance, times: np.ndarray) -> np.ndarray:
    """How loud the voice is [T], smoothed over a syllable: what brows and nods follow."""
    clock = np.arange(0, utterance.seconds, 0.01)
    which = np.clip(np.searchsorted(utterance.ends, clock, side="right"), 0, len(utterance.names) - 1)
    voice = np.array([PHONEMES[name].voice for name in utterance.names])[which]
    return np.interp(times, clock, ndimage.gaussian_filter1d(voice, 12.0, mode="nearest"))


def synthesise(utterance: Utterance, rng: np.random.Generator, pitch: float = 120.0) -> np.ndarray:
    """Sound [N] float32 in -1..1 at SAMPLE_RATE; `pitch`: fundamental frequency in Hz."""
    count = round(utterance.seconds * SAMPLE_RATE)
    clock = np.arange(0, count, _HOP) / SAMPLE_RATE
    tracks = _tracks(utterance, clock)
    samples = np.arange(count) / SAMPLE_RATE
    voice, noise = (np.interp(samples, clock, tracks[name]) for name in ("voice", "noise"))
    fall = 1.12 - 0.22 * samples / utterance.seconds
    tune = fall * (1 + 0.05 * np.sin(2 * np.pi * 0.9 * samples + 1) + 0.006 * np.sin(2 * np.pi * 5.2 * samples))
    source = voice * _glottis(np.cumsum(pitch * tune) / SAMPLE_RATE) + 0.015 * voice * rng.normal(size=count)
    vowel = _resonate(source, tracks["formants"])
    hiss = _band(noise * rng.normal(size=count), tracks["noise_at"])
    mixed = vowel / (np.abs(vowel).max() + 1e-9) + 0.5 * hiss / (np.abs(hiss).max() + 1e-9)
    edge = np.clip(np.minimum(samples, samples[::-1]) / 0.02, 0, 1)
    return (0.7 * edge * mixed / np.abs(mixed).max()).astype(np.float32)


def _tracks(utterance: Utterance, clock: np.ndarray) -> dict[str, np.ndarray]:
    which = np.clip(np.searchsorted(utterance.ends, clock, side="right"), 0, len(utterance.names) - 1)
    phonemes = [PHONEMES[name] for name in utterance.names]
    hops = SAMPLE_RATE / _HOP

    def glide(values: Sequence[float] | Sequence[tuple[float, ...]], seconds: float) -> np.ndarray:
        return ndimage.gaussian_filter1d(np.array(values, float)[which], seconds * hops, axis=0, mode="nearest")

    return {
        "formants": glide([p.formants for p in phonemes], 0.022), "voice": glide([p.voice for p in phonemes], 0.012),
        "noise": glide([p.noise for p in phonemes], 0.008), "noise_at": np.array([p.noise_at for p in phonemes])[which],
    }  # fmt: skip


def _glottis(cycles: np.ndarray) -> np.ndarray:
    """Derivative of a smooth glottal pulse: a slow rise, a sharp closure, a rest."""
    phase = cycles % 1.0
    flow = np.where(phase < 0.6, np.square(phase / 0.6) * (1 - phase / 0.6), 0.0)
    return np.diff(flow, prepend=0.0)


def _resonate(source: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Cascade of two-pole resonators whose frequencies [K,3] change every hop; the filter states are carried on."""
    out = source
    for number, bandwidth in enumerate(_BANDWIDTHS):
        result, state = np.empty_like(out), np.zeros(2)
        radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
        for k, frequency in enumerate(formants[:, number]):
            turn = 2 * np.cos(2 * np.pi * frequency / SAMPLE_RATE)
            denominator = [1.0, -radius * turn, radius**2]
            part = slice(k * _HOP, (k + 1) * _HOP)
            result[part], state = signal.lfilter([sum(denominator)], denominator, out[part], zi=state)
        out = result
    return out


def _band(noise: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Noise through a broad band around `centres` [K] Hz that changes every hop."""
    result, state = np.zeros_like(noise), np.zeros(2)
    for k, centre in enumerate(centres):
        if centre <= 0:
            state = np.zeros(2)
            continue
        numerator, denominator = signal.iirpeak(min(centre, 0.45 * SAMPLE_RATE), 2.0, fs=SAMPLE_RATE)
        part = slice(k * _HOP, (k + 1) * _HOP)
        result[part], state = signal.lfilter(numerator, denominator, noise[part], zi=state)
    return result


def write_wav(path: Path, sound: np.ndarray) -> None:
    """Write mono sound [N] in -1..1 as a 16-bit WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
