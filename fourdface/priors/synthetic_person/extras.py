"""What a person wears on the head beside its own mesh: glasses, and hair that hangs down as a sheet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...blocks.head_model import HeadModel
from .variety import Style


@dataclass(frozen=True)
class Extras:
    """vertices [E,3] at rest; faces [F,3] among them; colours [E,3] sRGB; skull [E]: 1 follows it, 0 the torso."""

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray
    skull: np.ndarray

    @staticmethod
    def joined(parts: list[Extras]) -> Extras:
        """Several as one."""
        first = np.cumsum([0, *(len(part.vertices) for part in parts)])
        return Extras(
            np.concatenate([np.zeros((0, 3)), *(part.vertices for part in parts)]),
            np.concatenate([np.zeros((0, 3), int), *(part.faces + k for part, k in zip(parts, first, strict=False))]),
            np.concatenate([np.zeros((0, 3)), *(part.colours for part in parts)]),
            np.concatenate([np.zeros(0), *(part.skull for part in parts)]),
        )


def build_extras(
    model: HeadModel, neutral: np.ndarray, joints: np.ndarray, style: Style, rng: np.random.Generator
) -> Extras:
    """Glasses and hanging hair of a person. neutral [V,3]: the head with its hair; joints [5,3]: root to right eye."""
    ears = neutral[model.regions["ears"].numpy()]
    parts = []
    if style.glasses is not None:
        parts.append(_glasses(neutral, joints, ears, style.glasses))
    if style.long_hair > 0:
        scalp = neutral[model.regions["scalp"].numpy()]
        parts.append(_curtain(scalp, ears, style, rng))
    return Extras.joined(parts)


def _grid_faces(rows: int, columns: int, wrap_rows: bool, wrap_columns: bool) -> np.ndarray:
    """Triangles [F,3] of a grid of vertices."""
    index = np.arange(rows * columns).reshape(rows, columns)
    if wrap_rows:
        index = np.concatenate([index, index[:1]])
    if wrap_columns:
        index = np.concatenate([index, index[:, :1]], 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])


def _tube(line: np.ndarray, radius: float, closed: bool, colour: np.ndarray) -> Extras:
    """A tube of six sides around a line [K,3]."""
    ahead = np.roll(line, -1, 0) - np.roll(line, 1, 0) if closed else np.gradient(line, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    reference = np.where(np.abs(ahead[:, 2:]) > 0.8, [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
    side = np.cross(ahead, reference)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(ahead, side)
    turn = np.arange(6) * np.pi / 3
    ring = np.cos(turn)[None, :, None] * side[:, None] + np.sin(turn)[None, :, None] * other[:, None]
    vertices = (line[:, None] + radius * ring).reshape(-1, 3)
    count = len(vertices)
    return Extras(vertices, _grid_faces(len(line), 6, closed, True), np.tile(colour, (count, 1)), np.ones(count))


def _glasses(
    neutral: np.ndarray, joints: np.ndarray, ears: np.ndarray, frame: tuple[np.ndarray, float, float, float]
) -> Extras:
    """Two rims before the eyes, a bridge over the nose, temples to the ears."""
    colour, width, height, thickness = frame
    left, right = joints[3], joints[4]
    middle = 0.5 * (left + right)
    between = neutral[(np.abs(neutral[:, 0]) < 0.010) & (np.abs(neutral[:, 1] - middle[1]) < 0.004)]
    front = between[:, 2].max() + 0.002
    turn = np.arange(28) * 2 * np.pi / 28
    wave = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** 0.7, np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** 0.7
    parts = []
    for eye, side in ((left, 1.0), (right, -1.0)):
        centre = np.array([eye[0] + side * 0.002, eye[1] - 0.003, front])
        bend = -0.18 * np.maximum(0, side * (width * wave[0]))  # rims follow the face
        parts.append(_tube(centre + np.stack([width * wave[0], height * wave[1], bend], 1), thickness, True, colour))
        start = centre + np.array([side * width, 0.35 * height, -0.18 * width])
        far = np.quantile(np.abs(ears[:, 0]), 0.35) + 0.003
        end = np.array([side * far, eye[1] - 0.002, np.quantile(ears[:, 2], 0.4)])
        corner = np.array([side * max(far - 0.002, abs(start[0]) + 0.003), start[1], start[2] - 0.012])
        t = np.linspace(0, 1, 8)[:, None]
        parts.append(_tube(np.concatenate([start[None], corner + t * (end - corner)]), thickness, False, colour))
    inner = 0.5 * (left[0] - right[0]) + 0.002 - width
    x = np.linspace(-inner, inner, 7)
    arch = np.stack([middle[0] + x, middle[1] + 0.002 * np.cos(x / inner * np.pi / 2), np.full(7, front)], 1)
    return Extras.joined([*parts, _tube(arch, thickness, False, colour)])


def _curtain(scalp: np.ndarray, ears: np.ndarray, style: Style, rng: np.random.Generator) -> Extras:
    """Hair that hangs from the height of the temples round the back of the head, over the ears, to its length."""
    columns, rows = 72, 22
    top, bottom = ears[:, 1].max() + 0.045, ears[:, 1].min() - style.long_hair
    near = scalp[np.abs(scalp[:, 1] - top) < 0.02]
    half_width = np.abs(near[:, 0]).max()
    back, front = near[:, 2].min(), ears[:, 2].max() + 0.012
    middle = 0.5 * (back + front) + 0.01
    most = np.pi - 0.35
    angle = np.linspace(-most, most, columns)  # 0 is the back of the head
    t = np.linspace(0, 1, rows)[:, None]
    waves = sum(rng.uniform(0.3, 1) / k * np.sin(k * angle * 3 + rng.uniform(0, 6.28)) for k in range(1, 6))
    below = np.clip((t * (top - bottom) - 0.02) / 0.12, 0, 1)
    tucked = 0.16 * (1 - np.clip(4 * t, 0, 1)) ** 2  # under the hair of the scalp
    fall = 1 - tucked + rng.uniform(0.0, 0.22) * below + rng.uniform(-0.05, 0.1) * np.sin(np.pi * t)
    ripple = 0.004 * waves * np.minimum(t * 6, 1) + 0.0025 * np.sin(23 * angle + 2 * t) * np.minimum(t * 6, 1)
    x = (half_width * fall + 0.006 + ripple) * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.75
    depth = np.where(np.cos(angle) > 0, middle - back, front - middle)
    z = middle - (depth * np.where(np.cos(angle) > 0, fall, 1.0) + ripple) * np.cos(angle)
    ragged = 0.012 * waves * t
    y = np.broadcast_to(top - t * (top - bottom) + ragged, x.shape)
    strands = np.zeros_like(x)
    for w in (19, 41, 67):
        strands += rng.uniform(0.4, 1) / 3 * np.sin(w * angle + rng.uniform(0, 6.28) + 2 * t)
    colours = np.clip(style.look.hair * (0.92 + 0.35 * strands[..., None]), 0, 1)
    skull = np.clip((y - (ears[:, 1].min() - 0.03)) / 0.05, 0, 1)
    return Extras(
        np.stack([x, y, z], -1).reshape(-1, 3), _grid_faces(rows, columns, False, False), colours.reshape(-1, 3),
        skull.reshape(-1),
    )  # fmt: skip
