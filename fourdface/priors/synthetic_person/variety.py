"""All kinds of people, clothes and lights: wider ranges than the demo's person, drawn from one generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .look import HAIR_TONES, IRIS_TONES, SKIN_TONES, Look, between
from .shading import Light

OTHER_HAIR = ((0.55, 0.53, 0.52), (0.80, 0.79, 0.77), (0.80, 0.66, 0.42), (0.52, 0.23, 0.10), (0.05, 0.05, 0.06))
"""Grey, white, blond, red, black."""
FRAMES = ((0.04, 0.04, 0.05), (0.28, 0.17, 0.08), (0.45, 0.42, 0.38), (0.35, 0.05, 0.08), (0.10, 0.14, 0.30))


@dataclass(frozen=True)
class Style:
    """look; glasses: colour of the frame, its half width, half height and thickness in metres (None: no glasses);
    long_hair: how far it hangs below the ears, metres (0: it does not); cloth [2,3]: two colours; pattern: 0 plain,
    1 stripes, 2 checks, 3 a gradient, 4 an open jacket; pattern_size in metres."""

    look: Look
    glasses: tuple[np.ndarray, float, float, float] | None
    long_hair: float
    cloth: np.ndarray
    pattern: int
    pattern_size: float


def random_style(rng: np.random.Generator, shape_count: int) -> Style:
    """Draw a person's looks. Identity coefficients are within 1.5 standard deviations."""
    tone = rng.uniform()
    hair = between(HAIR_TONES, rng.uniform(0, 1 - 0.8 * tone))
    if rng.random() < (0.45 if tone < 0.5 else 0.15):
        hair = np.array(OTHER_HAIR[rng.integers(len(OTHER_HAIR))]) * rng.uniform(0.8, 1.1)
    style = rng.choice(4, p=(0.52, 0.26, 0.12, 0.10))  # short, long, shorn, bald
    length = (rng.uniform(0.008, 0.030), rng.uniform(0.010, 0.022), rng.uniform(0.001, 0.004), 0.0)[style]
    bearded = style != 1 and rng.random() < 0.35
    skin = between(SKIN_TONES, tone) * (1 + rng.normal(0, 0.025, 3))
    cloth = np.clip(rng.uniform(0.04, 0.85, (2, 1)) + rng.normal(0, 0.13, (2, 3)), 0.02, 0.92)
    look = Look(
        shape=np.clip(rng.normal(0, 0.75, shape_count), -1.5, 1.5).astype(np.float32), skin=np.clip(skin, 0, 0.95),
        hair=np.clip(hair, 0.02, 0.95), iris=between(IRIS_TONES, rng.uniform(0, 1 - 0.7 * tone)), shirt=cloth[0],
        backdrop=np.full(3, 0.5), hair_length=float(length), hairline=float(rng.uniform(-0.002, 0.016)),
        brow_width=float(rng.uniform(0.0020, 0.0044)), redness=float(rng.uniform(0.2, 1.0)),
        freckles=float(max(0.0, rng.uniform(-1.5, 1.0)) * (1 - tone)), stubble=float(max(0.0, rng.uniform(-1.0, 0.8))),
        beard=float(rng.uniform(0.5, 1.0)) if bearded else 0.0,
        shaven=(0.0, 0.0, float(rng.uniform(0.0, 0.6)), 1.0)[style], temples=float(rng.uniform(-0.006, 0.018)),
        parting=float(rng.uniform(-0.03, 0.03)),
    )  # fmt: skip
    glasses = None
    if rng.random() < 0.22:
        colour = np.array(FRAMES[rng.integers(len(FRAMES))])
        glasses = (colour, float(rng.uniform(0.022, 0.028)), float(rng.uniform(0.015, 0.023)),
                   float(rng.uniform(0.0007, 0.0019)))  # fmt: skip
    return Style(
        look, glasses, float(rng.uniform(0.03, 0.20)) if style == 1 else 0.0, cloth, int(rng.integers(5)),
        float(np.exp(rng.uniform(np.log(0.008), np.log(0.05)))),
    )  # fmt: skip


def cloth_colour(style: Style, points: torch.Tensor) -> torch.Tensor:
    """Linear albedo [P,3] of the clothes at places [P,3] of the resting body."""
    first, second = (torch.from_numpy(colour**2.2).float() for colour in style.cloth)
    x, y = points[:, 0] / style.pattern_size, points[:, 1] / style.pattern_size
    if style.pattern == 1:
        share = (torch.remainder(y, 2) < 1).float()
    elif style.pattern == 2:
        share = 0.5 * ((torch.remainder(y, 2) < 1).float() + (torch.remainder(x, 2) < 1).float())
    elif style.pattern == 3:
        share = ((points[:, 1] + 0.3) / 0.25).clamp(0, 1)
    elif style.pattern == 4:  # what is worn under a jacket shows as a wedge
        share = ((-0.01 - points[:, 1]).clamp_min(0) * 0.3 - points[:, 0].abs() + 0.045 > 0).float()
        share = share * (points[:, 2] > 0).float()
    else:
        share = torch.zeros_like(x)
    return torch.lerp(first, second, share[:, None])


def random_lights(rng: np.random.Generator) -> list[Light]:
    """A key light from anywhere in front, hard or soft, perhaps a rim, and a dome that is brighter in one direction."""
    temperature = rng.normal(0, 0.10)
    warm = np.array([1 + temperature, 1.0, 1 - temperature])
    turn, lift = rng.uniform(-1.4, 1.4), rng.uniform(-0.2, 1.1)
    key = np.array([np.sin(turn) * np.cos(lift), np.sin(lift), np.cos(turn) * np.cos(lift)])
    softness = rng.uniform(0.03, 0.45)
    strength = rng.uniform(0.3, 1.8)
    found = [(key + softness * rng.normal(0, 0.5, 3), strength / 3 * warm, True) for _ in range(3)]
    if rng.random() < 0.4:
        rim = np.array([rng.choice([-1.0, 1.0]) * rng.uniform(0.5, 1.0), rng.uniform(0, 0.8), -0.6])
        found.append((rim, rng.uniform(0.2, 0.9) * np.clip(1 + rng.normal(0, 0.15, 3), 0.4, 1.6), False))
    sky, tint = rng.normal(0, 1, 3), 1 + rng.normal(0, 0.06, 3)
    sky /= np.linalg.norm(sky)
    for k in range(5):  # evenly spread by the golden angle
        height = 0.9 - 1.4 * k / 4
        around = np.sqrt(1 - height**2)
        direction = np.array([around * np.sin(2.4 * k), height, 0.3 + around * np.cos(2.4 * k)])
        found.append((direction, 0.28 * (1 + 0.5 * direction @ sky) * tint, False))
    front = sum(float(colour.mean()) * max(0.1, d[2] / np.linalg.norm(d)) for d, colour, _ in found)
    gain = rng.uniform(0.8, 1.35) / front
    return [
        Light(torch.from_numpy(d / np.linalg.norm(d)).float(), torch.from_numpy(gain * np.maximum(c, 0)).float(), shine)
        for d, c, shine in found
    ]
