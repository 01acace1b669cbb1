"""The skin of a synthetic person: albedo and gloss, painted once in uv from positions on the neutral head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import points_in_poly

from ...blocks import face_topology as topology
from ...blocks.head_model import HeadModel
from ...ops.rasterize_mesh import interpolate, rasterize_mesh
from .body import INNER_REGIONS, TORSO_UV, Body, collar_depth, distance_to
from .look import Look

IRIS_RADIUS, PUPIL_RADIUS = 0.0059, 0.0021
TEETH, GUMS, TONGUE, MOUTH_BAG = (0.88, 0.85, 0.78), (0.66, 0.33, 0.33), (0.70, 0.36, 0.36), (0.42, 0.17, 0.17)
UPPER_LASHES, LOWER_LASHES = (0.09, 0.06, 0.05), (0.40, 0.24, 0.21)
SCLERA = (0.80, 0.77, 0.75)
CROWN = np.array([0.012, 0.0, 0.005])
"""x and z of the whorl from which the hair runs outwards, metres."""


@dataclass(frozen=True)
class Texture:
    """albedo [N,N,3] linear light, gloss [N,N] strength and sharpness [N,N] exponent of highlights; row 0 is v = 0."""

    albedo: np.ndarray
    gloss: np.ndarray
    sharpness: np.ndarray


@dataclass
class _Canvas:
    """Texels that show the head: points [P,3] on the neutral head, and what has been painted on them so far (sRGB)."""

    points: np.ndarray
    colour: np.ndarray
    gloss: np.ndarray
    sharpness: np.ndarray

    def paint(self, colour: np.ndarray, strength: np.ndarray, gloss: float, sharpness: float) -> None:
        """Blend colour [3] or [P,3] (sRGB), gloss and sharpness in, by strength [P] in 0..1."""
        self.colour += strength[:, None] * (np.asarray(colour) - self.colour)
        self.gloss += strength * (gloss - self.gloss)
        self.sharpness += strength * (sharpness - self.sharpness)


def paint_texture(model: HeadModel, body: Body, look: Look, rng: np.random.Generator, size: int = 1024) -> Texture:
    """Paint the look on the body's chart, size x size texels."""
    neutral = model.shaped(torch.from_numpy(look.shape)[None])[0]
    face_index, barycentrics = _chart(model, size)

    def spread(values: np.ndarray) -> np.ndarray:
        """Values at vertices [V] or [V,C] -> at texels [P] or [P,C]."""
        table = torch.from_numpy(np.ascontiguousarray(values.reshape(len(values), -1), np.float32))
        texels = interpolate(table, model.faces, face_index, barycentrics)[face_index >= 0].numpy()
        return texels[:, 0] if values.ndim == 1 else texels

    texels = spread(neutral.numpy())
    count = len(texels)
    canvas = _Canvas(texels, np.tile(look.skin, (count, 1)), np.full(count, 0.45), np.full(count, 18.0))
    landmarks = model.landmarks(neutral[None])[0].double().numpy()
    _skin(canvas, landmarks, look, rng)
    _lips(canvas, landmarks, look, rng)
    _brows(canvas, landmarks, look, rng)
    masks = {name: spread(model.regions[name].numpy().astype(np.float64)) for name in INNER_REGIONS}
    inner = _inside(canvas, masks)
    _lashes(canvas, landmarks, inner)
    _eyes(canvas, model.joints(torch.from_numpy(look.shape)[None])[0].numpy(), masks, look)
    _hair(canvas, spread(body.hair), look, rng)
    below = collar_depth(texels)
    band = 1 - 0.22 * _ramp(below, 0.013, 0.011) * _ramp(below, -0.002, 0.0)
    canvas.paint(look.shirt * band[:, None], _ramp(below, 0.0, 0.0012), 0.02, 4.0)
    return _assemble(canvas, (face_index >= 0).numpy(), look)


def plane_waves(points: np.ndarray, wavelength: float, rng: np.random.Generator, waves: int = 12) -> np.ndarray:
    """Smooth isotropic noise [P], about -1..1: a sum of plane waves of random direction around one wavelength [m]."""
    directions = rng.normal(size=(waves, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    frequency = 2 * np.pi / (wavelength * rng.uniform(0.6, 1.6, waves))
    phase = rng.uniform(0, 2 * np.pi, waves)
    total = np.zeros(len(points), np.float32)
    for k in range(waves):
        total += np.cos(points @ (directions[k] * frequency[k]).astype(np.float32) + np.float32(phase[k]))
    return total / np.sqrt(waves)


def _chart(model: HeadModel, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Face seen by each texel, and where on it: the chart is a flat mesh at z = 1."""
    flat = torch.cat([model.uv, torch.ones(len(model.uv), 1)], 1)
    intrinsics = torch.tensor([[float(size), 0, 0], [0, float(size), 0], [0, 0, 1]])
    raster = rasterize_mesh(flat, model.faces_uv.int(), torch.eye(4), intrinsics, size, size)
    return raster.face_index, raster.barycentrics


def _ramp(values: np.ndarray, start: float, end: float) -> np.ndarray:
    t = np.clip((values - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def _spot(points: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    return np.exp(-np.square(points - centre).sum(1) / (2 * radius**2))


def _skin(canvas: _Canvas, landmarks: np.ndarray, look: Look, rng: np.random.Generator) -> None:
    """Tone that varies, blood under cheeks, nose, ears and chin, shade under the eyes, freckles, stubble."""
    p = canvas.points
    mottle = 0.020 * plane_waves(p, 0.018, rng) + 0.010 * plane_waves(p, 0.005, rng)
    mottle += 0.010 * plane_waves(p, 0.0014, rng)
    canvas.colour *= 1 + mottle[:, None] * np.array([0.7, 1.0, 1.0])
    blood = 0.8 * (_spot(p, landmarks[50], 0.014) + _spot(p, landmarks[280], 0.014))
    blood += 0.7 * _spot(p, landmarks[4], 0.010) + 0.3 * _spot(p, landmarks[152], 0.012)
    blood += 0.7 * _ramp(np.abs(p[:, 0]), 0.070, 0.085)
    canvas.colour *= 1 - look.redness * np.clip(blood, 0, 1)[:, None] * np.array([0.03, 0.20, 0.16])
    shade = _spot(p, landmarks[230], 0.007) + _spot(p, landmarks[450], 0.007)
    canvas.colour *= 1 - np.clip(shade, 0, 1)[:, None] * np.array([0.12, 0.15, 0.10])
    if look.freckles > 0:
        cheeks = _ramp(plane_waves(p, 0.004, rng), 1.1, 1.7) * sum(_spot(p, landmarks[k], 0.02) for k in (50, 280, 4))
        canvas.colour *= 1 - look.freckles * np.clip(cheeks, 0, 1)[:, None] * np.array([0.2, 0.3, 0.35])
    if look.stubble > 0:
        places = ((152, 0.03, 1.0), (164, 0.010, 0.7), (172, 0.025, 1.0), (397, 0.025, 1.0))
        beard = np.clip(sum(s * _spot(p, landmarks[k], radius) for k, radius, s in places), 0, 1)
        beard *= 0.75 + 0.25 * plane_waves(p, 0.0015, rng)
        canvas.colour *= 1 - look.stubble * beard[:, None] * np.array([0.38, 0.34, 0.28])
    if look.beard > 0:
        _beard(canvas, landmarks, look, rng)
    oily = _spot(p, landmarks[4], 0.012) + _spot(p, landmarks[151], 0.02) + 0.6 * _spot(p, landmarks[50], 0.015)
    oily += 0.6 * _spot(p, landmarks[280], 0.015)
    canvas.gloss += 0.35 * np.clip(oily, 0, 1)


def _beard(canvas: _Canvas, landmarks: np.ndarray, look: Look, rng: np.random.Generator) -> None:
    """Full beard: below the cheeks, round the mouth, down to the throat; strands run downwards."""
    p = canvas.points
    places = (
        (152, 0.030), (164, 0.010), (172, 0.017), (397, 0.017), (58, 0.011), (288, 0.011), (61, 0.008), (291, 0.008),
    )  # fmt: skip
    mask = np.clip(1.6 * sum(_spot(p, landmarks[k], radius) for k, radius in places), 0, 1)
    mask *= _ramp(p[:, 2], 0.01, 0.04)
    below_nose = _ramp(p[:, 1] - landmarks[2, 1], -0.001, -0.006)
    mask *= np.maximum(below_nose, _ramp(np.abs(p[:, 0]), 0.018, 0.034))
    hairs = plane_waves(p * np.array([2.2, 0.6, 1.4], np.float32), 0.004, rng)
    strength = np.clip(look.beard * 1.4 * _ramp(mask + 0.10 * hairs, 0.30, 0.65), 0, 1)
    canvas.paint(look.hair * np.clip(0.85 + 0.14 * hairs, 0.3, 1.6)[:, None], strength, 0.15, 12.0)


def _lips(canvas: _Canvas, landmarks: np.ndarray, look: Look, rng: np.random.Generator) -> None:
    """The area within the outer contour of the lips, seen from the front."""
    contour = _polyline(landmarks[[*topology.LIPS_OUTER, topology.LIPS_OUTER[0]]], 200)
    distance = distance_to(contour, canvas.points, 0.03)
    near = np.isfinite(distance)
    inside = points_in_poly(canvas.points[near, :2], contour[:, :2]) & (canvas.points[near, 2] > 0.08)
    depth = np.where(inside, distance[near], -distance[near])
    strength = np.zeros(len(distance))
    strength[near] = 0.8 * _ramp(depth, -0.0010, 0.0022)
    grain = 1 + 0.06 * plane_waves(canvas.points * np.array([4.0, 0.6, 1.0], np.float32), 0.004, rng)
    canvas.paint(look.skin * np.array([0.82, 0.57, 0.58]) * grain[:, None], strength, 0.8, 40.0)


def _polyline(points: np.ndarray, count: int = 60) -> np.ndarray:
    """Points resampled evenly along a line [K,3] -> [count,3]."""
    t = np.linspace(0, len(points) - 1, count)
    return np.stack([np.interp(t, np.arange(len(points)), points[:, c]) for c in range(3)], 1)


def _brows(canvas: _Canvas, landmarks: np.ndarray, look: Look, rng: np.random.Generator) -> None:
    """Hairs between the upper and lower rows of brow landmarks, thinner towards the temple."""
    slanted = canvas.points @ np.array([2600.0, 2100.0, 0.0])
    hairs = 0.5 + 0.5 * np.sin(slanted + 2.5 * plane_waves(canvas.points, 0.003, rng))
    for brow in (topology.BROW_RIGHT, topology.BROW_LEFT):
        upper, lower = landmarks[list(brow[:5])], landmarks[list(brow[:4:-1])]
        line = _polyline(0.5 * (upper + lower))
        found = cKDTree(line).query(canvas.points, distance_upper_bound=0.012)
        distance, along = np.asarray(found[0]), np.clip(np.asarray(found[1]) / len(line), 0, 1)  # 0 at the temple
        width = look.brow_width * (0.45 + 0.65 * along**0.7)
        strength = np.clip(1.35 - distance / np.maximum(width, 1e-6), 0, 1) * _ramp(along, 0.0, 0.15)
        strength *= 1 - 0.5 * _ramp(along, 0.85, 1.0)
        canvas.paint(0.8 * look.hair, strength * (0.45 + 0.5 * hairs), 0.15, 12.0)


def _inside(canvas: _Canvas, masks: dict[str, np.ndarray]) -> np.ndarray:
    """Mouth and eye sockets; returns how much a texel [P] belongs to anything but the outer skin."""
    # Masks overlap at their borders, so the harder parts are painted last.
    for name, colour, gloss, sharpness in (
        ("mouth_bag", MOUTH_BAG, 0.3, 20.0), ("eye_sockets", MOUTH_BAG, 0.3, 20.0), ("gums", GUMS, 0.8, 40.0),
        ("tongue", TONGUE, 0.5, 25.0), ("teeth_upper", TEETH, 0.9, 60.0), ("teeth_lower", TEETH, 0.9, 60.0),
    ):  # fmt: skip
        canvas.paint(np.array(colour), (masks[name] > 0.5).astype(np.float64), gloss, sharpness)
    return np.clip(sum(masks[name] for name in INNER_REGIONS), 0, 1)


def _lashes(canvas: _Canvas, landmarks: np.ndarray, inner: np.ndarray) -> None:
    """A dark line along the upper lid, a faint and reddish one along the lower."""
    for eye in (topology.EYE_RIGHT, topology.EYE_LEFT):
        loop = landmarks[list(eye)]
        lower, upper = _polyline(loop[:9]), _polyline(np.concatenate([loop[8:], loop[:1]]))
        for line, width, colour, most in ((lower, 0.0011, LOWER_LASHES, 0.45), (upper, 0.0016, UPPER_LASHES, 0.9)):
            distance = distance_to(line, canvas.points, 0.006)
            canvas.paint(np.array(colour), most * np.clip(1.5 - distance / width, 0, 1) * (inner < 0.5), 0.2, 15.0)


def _eyes(canvas: _Canvas, joints: np.ndarray, masks: dict[str, np.ndarray], look: Look) -> None:
    """Sclera, iris with fibres and a dark rim, pupil: rings around the line of sight."""
    for side, joint in (("left", joints[3]), ("right", joints[4])):
        ball = masks[f"eyeball_{side}"] > 0.5
        offset = canvas.points[ball] - joint
        radius = np.hypot(offset[:, 0], offset[:, 1])
        angle = np.arctan2(offset[:, 1], offset[:, 0])
        front = offset[:, 2] > 0
        vein = 1 - 0.5 * _ramp(radius, 0.0065, 0.012)[:, None] * np.array([0.08, 0.28, 0.28])
        colour = np.array(SCLERA) * vein
        fibres = 1 + 0.18 * np.sin(31 * angle) * np.sin(17 * angle + 1) + 0.25 * _ramp(radius, 0.0048, 0.0026)
        iris = look.iris * fibres[:, None] * (1 - 0.65 * _ramp(radius, 0.0046, IRIS_RADIUS))[:, None]
        within = (_ramp(radius, IRIS_RADIUS + 0.0003, IRIS_RADIUS - 0.0003) * front)[:, None]
        colour = colour + within * (iris - colour)
        pupil = (_ramp(radius, PUPIL_RADIUS + 0.0002, PUPIL_RADIUS - 0.0002) * front)[:, None]
        canvas.colour[ball] = colour + pupil * (0.015 - colour)
        canvas.gloss[ball], canvas.sharpness[ball] = 2.2, 300.0


def _hair(canvas: _Canvas, depth: np.ndarray, look: Look, rng: np.random.Generator) -> None:
    """Strands that run outwards from the crown: they are long in one direction and fine in the other."""
    p = canvas.points
    bend = 0.07 * plane_waves(p, 0.09, rng) + 0.012 * plane_waves(p, 0.03, rng)
    azimuth = np.arctan2(p[:, 0] - CROWN[0], p[:, 2] - CROWN[2]) + bend
    strands = np.zeros(len(p))
    for waves, strength in ((37, 0.5), (83, 0.5), (151, 0.45), (263, 0.35)):
        strands += strength * np.sin(waves * azimuth + rng.uniform(0, 6.28) + 0.9 * plane_waves(p, 0.03, rng, 6))
    ragged = depth + 0.0022 * strands + 0.0016 * plane_waves(p, 0.012, rng)
    colour = look.hair * np.clip(0.95 + 0.36 * strands, 0.3, 2.0)[:, None]
    if look.shaven > 0:
        colour = colour + look.shaven * (0.5 * look.skin + 0.5 * canvas.colour - colour)
    canvas.paint(colour, (1 - 0.5 * look.shaven) * _ramp(ragged, -0.002, 0.005), 0.35, 14.0)
    hair = depth > 0.004
    canvas.gloss[hair] *= np.clip(1 + 0.9 * strands[hair], 0, 2.5)


def _assemble(canvas: _Canvas, seen: np.ndarray, look: Look) -> Texture:
    """Texels to pictures; the gaps around the chart's islands take the nearest texel, so that no seam shows."""
    size = len(seen)
    layers = np.zeros((size, size, 5))
    layers[seen] = np.column_stack([np.clip(canvas.colour, 0, 1), canvas.gloss, canvas.sharpness])
    nearest = ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True)
    layers = layers[nearest[0], nearest[1]]
    row, column = round(TORSO_UV[1] * size), round(TORSO_UV[0] * size)
    layers[row - 4 : row + 5, max(0, column - 4) : column + 5] = [*look.shirt, 0.02, 4.0]
    layers = layers.astype(np.float32)
    return Texture(layers[..., :3] ** 2.2, layers[..., 3], layers[..., 4])
