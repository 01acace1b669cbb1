"""How a synthetic person looks: numbers drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Albedo in sRGB, from light to dark; colours in between are blends of neighbours.
SKIN_TONES = ((0.92, 0.76, 0.68), (0.87, 0.68, 0.57), (0.77, 0.57, 0.45), (0.62, 0.43, 0.32), (0.44, 0.30, 0.22))
HAIR_TONES = ((0.10, 0.08, 0.07), (0.20, 0.13, 0.09), (0.33, 0.21, 0.13), (0.45, 0.28, 0.14), (0.62, 0.47, 0.28))
IRIS_TONES = ((0.24, 0.15, 0.09), (0.37, 0.25, 0.12), (0.36, 0.38, 0.22), (0.28, 0.42, 0.52))
SHIRTS = ((0.16, 0.19, 0.25), (0.14, 0.25, 0.22), (0.30, 0.14, 0.15), (0.22, 0.22, 0.23))
BACKDROPS = ((0.55, 0.60, 0.66), (0.62, 0.58, 0.52), (0.50, 0.58, 0.54), (0.46, 0.48, 0.55))


@dataclass(frozen=True)
class Look:
    """Colours are sRGB in 0..1, lengths metres.

    shape_scale: reach of the identity coefficients in standard deviations; hair_length: thickness of the hair on the
    top of the head; hairline: shift of the hairline, positive upwards; brow_width: half the height of the eyebrows;
    redness, freckles, stubble, beard: strengths from 0 to 1; shaven: how much of the hair's colour is skin; temples:
    how much higher the hairline is 5 cm beside the parting, which is `parting` to the subject's left, metres.
    """

    shape: np.ndarray
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    shirt: np.ndarray
    backdrop: np.ndarray
    hair_length: float
    hairline: float
    brow_width: float
    redness: float
    freckles: float
    stubble: float
    beard: float = 0.0
    shaven: float = 0.0
    temples: float = 0.0
    parting: float = 0.0


def random_look(rng: np.random.Generator, shape_count: int) -> Look:
    """Draw a look. `shape` [shape_count] lies within one standard deviation in every coefficient."""
    tone = rng.beta(1.3, 1.6)
    # Dark skin goes with dark hair and brown eyes; light skin with any.
    hair_tone = rng.uniform(0, 1 - 0.85 * tone)
    iris_tone = rng.uniform(0, 1 - 0.8 * tone)
    return Look(
        shape=np.clip(rng.normal(0, 0.55, shape_count), -1, 1).astype(np.float32),
        skin=between(SKIN_TONES, tone),
        hair=between(HAIR_TONES, hair_tone),
        iris=between(IRIS_TONES, iris_tone),
        shirt=np.array(SHIRTS[rng.integers(len(SHIRTS))]),
        backdrop=np.array(BACKDROPS[rng.integers(len(BACKDROPS))]),
        hair_length=float(rng.uniform(0.010, 0.024)),
        hairline=float(rng.uniform(-0.004, 0.004)),
        brow_width=float(rng.uniform(0.0026, 0.0040)),
        redness=float(rng.uniform(0.5, 1.0)),
        freckles=float(max(0.0, rng.uniform(-1.5, 1.0)) * (1 - tone)),
        stubble=float(max(0.0, rng.uniform(-0.8, 0.7))),
    )


def between(tones: tuple[tuple[float, ...], ...], position: float) -> np.ndarray:
    """Colour at `position` in 0..1 along a list of colours."""
    table = np.array(tones)
    return np.array([np.interp(position * (len(table) - 1), np.arange(len(table)), table[:, c]) for c in range(3)])
