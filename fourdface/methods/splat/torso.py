"""Neck and torso as a stack of ellipses: width from the silhouette, depth from how people are built.

A photo shows how wide the body is in each row and nothing of its depth. The neck is as deep as the model's; below it
the chest deepens downwards. The camera's tilt against an upright body is taken as part of the head's own pitch:
who looks up to a level camera and who looks level into a raised one cannot be told apart by the face alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .scene import Scene
from .surface import View

NECK_HALF_DEPTH, CHEST_HALF_DEPTH = 0.062, 0.115
"""Metres from the middle to the front, at the neck's foot and at the chest."""
CHEST_FROM, CHEST_TO = 0.06, 0.22
"""Metres below the neck joint over which the one becomes the other."""
SHOULDERS = 0.20
"""Metres from the neck to a shoulder's end, where the picture cuts it off."""
BEYOND = 0.12
"""Metres by which a torso that the picture cuts off below goes on."""
HAIR_HALF_DEPTH = 0.085
"""Half depth of neck and hanging hair together, metres."""
HAIR_TOP = 0.10
"""Metres over which hanging hair gains its depth."""
TURN_SHARE, LARGEST_TURN = (0.6, 0.6), 0.35
"""Shares of the head's pitch and yaw against the camera that the body has too, and their limit in radians."""


@dataclass(frozen=True)
class Torso:
    """One ellipse for each image row 0..R-1 (R may exceed the picture): middle and half width in pixels, depth_z of
    the middle, half depth, and slant (depth of the right end over the middle's) in metres, all [R]; first: the row
    where neck or hanging hair begins; hair: how sure it is (0..1) that there is such hair."""

    middle: np.ndarray
    half_width: np.ndarray
    depth: np.ndarray
    half_depth: np.ndarray
    slant: np.ndarray
    first: int
    hair: float

    def front(self, view: View) -> np.ndarray:
        """Depth_z [H,W] of the front; beside the ellipse it is its middle's."""
        columns, _ = view.grid()
        rho = (columns - self.middle[: view.height, None]) / self.half_width[: view.height, None]
        rho = np.clip(rho, -1, 1)
        dome = np.sqrt(1 - rho**2)
        return self._at(np.arange(view.height), rho) - self.half_depth[: view.height, None] * dome

    def _at(self, rows: np.ndarray, rho: np.ndarray) -> np.ndarray:
        """Depth_z [K,M] of the ellipses' long axis at rho [K,M] (-1 left end, 1 right end) in `rows` [K]."""
        return self.depth[rows, None] + self.slant[rows, None] * rho

    def mesh(self, view: View, step: int, around: int = 64) -> tuple[np.ndarray, np.ndarray]:
        """Vertices [V,3] (world) and triangles [F,3] of every `step`-th ellipse; triangles turn outward."""
        rows = np.arange(self.first, len(self.middle), step)
        if len(rows) < 2:
            return np.zeros((0, 3)), np.zeros((0, 3), int)
        angle = np.arange(around) * 2 * np.pi / around
        columns = self.middle[rows, None] + self.half_width[rows, None] * np.cos(angle)
        depth = self._at(rows, np.cos(angle)[None]) - self.half_depth[rows, None] * np.sin(angle)
        points = view.unproject(columns, np.broadcast_to(rows[:, None] + 0.5, columns.shape), depth)
        a = np.arange(len(rows) - 1)[:, None] * around + np.arange(around)
        b = np.arange(len(rows) - 1)[:, None] * around + (np.arange(around) + 1) % around
        faces = np.concatenate([np.stack([a, b, a + around], -1), np.stack([b, b + around, a + around], -1)], 1)
        return points.reshape(-1, 3), faces.reshape(-1, 3)


def torso_turn(scene: Scene) -> tuple[float, float]:
    """Radians by which the body is taken to lean back from the camera, and to face the picture's right."""
    x, y, z = scene.view.world_to_camera[:3, :3] @ scene.rig.source_rotation.numpy()[:, 2]
    pitch = np.arctan2(-y, max(float(np.hypot(x, z)), 1e-6))
    turn = np.array([TURN_SHARE[0] * pitch, TURN_SHARE[1] * np.arctan2(x, -z)])
    return tuple(np.clip(turn, -LARGEST_TURN, LARGEST_TURN))  # type: ignore[return-value]


def fit_torso(scene: Scene, chin_row: float) -> Torso:
    """The torso below `chin_row` of a posed scene."""
    view = scene.view
    joint = scene.rig.source_rotation.numpy() @ scene.rig.joints[1].numpy() + scene.rig.source.translation.numpy()
    (column, row), depth = view.project(joint.astype(np.float64))
    metre = view.intrinsics[1, 1] / float(depth)
    inside = scene.matte > 0.5
    rows = view.height + (int(BEYOND * metre) if inside[-2:].any() else 0)
    left, right = _row_ends(inside, float(column), SHOULDERS * metre)
    half = ndimage.gaussian_filter1d(np.maximum((right - left) / 2, 2.0), 1.5, mode="nearest")
    middle = ndimage.gaussian_filter1d((left + right) / 2, 1.5, mode="nearest")
    half, middle = (np.pad(field, (0, rows - view.height), mode="edge") for field in (half, middle))
    below = (np.arange(rows) + 0.5 - row) / metre
    t = np.clip((below - CHEST_FROM) / (CHEST_TO - CHEST_FROM), 0, 1)
    share = t * t * (3 - 2 * t)
    half_depth = NECK_HALF_DEPTH + share * (CHEST_HALF_DEPTH - NECK_HALF_DEPTH)
    hair, first = _hanging_hair(scene, left, right, chin_row, metre)
    # hanging hair begins flat beside the ears and ends on the shoulders
    top = np.sqrt(np.clip((np.arange(rows) - first) / (HAIR_TOP * metre), 0, 1))
    end = np.clip(2 - below / CHEST_FROM, 0, 1)
    half_depth = (1 - hair + hair * top) * (half_depth + hair * end * np.maximum(HAIR_HALF_DEPTH - half_depth, 0))
    lean, yaw = torso_turn(scene)
    centre = float(depth) - below * np.tan(lean) - 0.015 * share + (middle - column) / metre * np.tan(yaw)
    slant = half / metre * np.tan(yaw)
    return Torso(middle, half, centre, half_depth, slant, first, hair)


def _hanging_hair(
    scene: Scene, left: np.ndarray, right: np.ndarray, chin_row: float, metre: float
) -> tuple[float, int]:
    """How sure it is (0..1) that hair hangs beside jaw and neck, between the person's ends [H] in each row; and the
    row where the stack of ellipses begins: the chin's, or with such hair that of the ears."""
    last = scene.view.height - 1
    model = scene.model
    ears = scene.vertices[: len(model.template)][model.regions["ears"].numpy()]
    ear_row = float(scene.view.project(ears.mean(0))[0][1])
    top, chin = (int(np.clip(row, 0, last)) for row in (0.5 * (ear_row + chin_row), chin_row))
    drawn = scene.mesh_depth > 0
    rows = np.arange(top, chin + 1)
    mesh = drawn[rows].sum(1)
    excess = float(np.median((right - left)[rows] - mesh)) / metre if (mesh > 0).any() else 0.0
    sure = float(np.clip((excess - 0.03) / 0.03, 0, 1))
    return sure, int(np.clip(ear_row if sure > 0.5 else chin_row, 0, last))


def _row_ends(inside: np.ndarray, neck: float, shoulders: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the person begins and ends in each row, both [H]; what the picture's edge cuts off goes on beyond it,
    as far as on the other side of the neck's column, or to the `shoulders` (pixels from it), and at least a little."""
    width = inside.shape[1]
    any_row = inside.any(1)
    left = np.where(any_row, inside.argmax(1), neck - 2.0).astype(float)
    right = np.where(any_row, width - inside[:, ::-1].argmax(1), neck + 2.0).astype(float)
    cut_left, cut_right = any_row & (left <= 1), any_row & (right >= width - 1)
    beyond_left = np.where(cut_right, neck - shoulders, 2 * neck - right)
    beyond_right = np.where(cut_left, neck + shoulders, 2 * neck - left)
    little = 0.1 * (right - left)
    return (
        np.where(cut_left, np.minimum(left - little, beyond_left), left),
        np.where(cut_right, np.maximum(right + little, beyond_right), right),
    )
