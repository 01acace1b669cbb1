"""Head pose from picture differences: landmarks say where a face is, its own texture says how it moved.

Dense landmarks of a network jitter and lean by a degree or two with the pose. The texture of a face hardly changes
between two frames of a clip, so points of the fitted mesh, with the grey values that a keyframe shows there, are
aligned with every frame (Lucas-Kanade on the six parameters of a rigid head, as La Cascia et al., 2000, with a mesh
for their cylinder), held near the landmarks' pose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ..blocks.head_fitting import CAMERA_DISTANCE, HeadTrack
from ..blocks.head_model import HeadModel
from .glimpse import Glimpse

LEVELS = ((3.0, 3), (1.2, 4))
"""Blur (deviation, pixels of the glimpse) and Gauss-Newton steps of each level, coarse to fine."""
STILL = 0.004
"""Metres by which the strongest expression moves a point that counts half."""
SPREAD = np.array([0.045, 0.045, 0.045, 0.003, 0.003, 0.02])
"""How far the landmarks' pose is typically off (radians; metres at the face): the prior of the alignment."""
INDEPENDENT = 0.1
"""Share of the points that count as independent readings: neighbours see the same pixels."""
NOISE = 2.0
"""Least deviation of grey values (of 255) between two pictures of the same skin."""
KEYFRAME_ANGLE = np.radians(20.0)
LONGEST_REACH = np.radians(35.0)
"""Turn from a keyframe beyond which it says nothing any more."""
MOST_KEYFRAMES = 12
WORST_MATCH = 0.75
"""Correlation with the keyframes under which the landmarks' pose is kept: something covers the face, or it was cut."""


@dataclass(frozen=True)
class _Keyframe:
    """Points of the mesh as seen in one frame: which [K], their grey values [level][K], weights [K]."""

    rotation: Rotation
    values: tuple[np.ndarray, ...]
    weights: np.ndarray


class HeadAligner:
    """Refines the pose of one clip's frames, one after the other; keeps at most `MOST_KEYFRAMES` keyframes.

    model: the head; size: (width, height) of the frames in pixels.
    """

    def __init__(self, model: HeadModel, size: tuple[int, int]) -> None:
        mobility = model.expression_basis.norm(dim=-1).amax(0)
        still = (1 / (1 + (mobility / STILL) ** 2)).numpy()
        chosen = model.regions["face"] & ~model.regions["lips"] & ~model.regions["eyelids"]
        self._ids = np.flatnonzero(chosen.numpy())[::2]
        self._still = still[self._ids]
        self._model = model
        self._size = size
        self._shape: torch.Tensor | None = None
        self._neutral = np.zeros((0, 3))
        self._normals = np.zeros((0, 3))
        self._modes = model.expression_basis[:, self._ids].reshape(model.expression_count, -1).numpy()
        self._keyframes: list[_Keyframe] = []

    def refine(self, track: HeadTrack, glimpse: Glimpse) -> HeadTrack:
        """The track (T = 1) of a frame with its rotation and translation aligned; the first frame is the measure."""
        self._use_shape(track.shape)
        points = self._neutral + (track.expression[0].numpy() @ self._modes).reshape(-1, 3)
        rotation = Rotation.from_rotvec(track.rotation[0].numpy().astype(float))
        place = track.translation[0].numpy().astype(float)
        if not self._keyframes:
            self._add(points, rotation, place, track.focal, glimpse)
            return track
        found = self._align(points, rotation, place, track.focal, glimpse)
        if found is None:
            return track
        rotation, place = found
        if len(self._keyframes) < MOST_KEYFRAMES and self._distances(rotation).min() > KEYFRAME_ANGLE:
            self._add(points, rotation, place, track.focal, glimpse)
        vector = torch.from_numpy(rotation.as_rotvec().astype(np.float32))
        return replace(track, rotation=vector[None], translation=torch.from_numpy(place.astype(np.float32))[None])

    def _use_shape(self, shape: torch.Tensor) -> None:
        if self._shape is shape:
            return
        vertices = self._model.shaped(shape[None])[0].numpy()
        corners = vertices[self._model.faces.numpy()]
        weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.zeros_like(vertices)
        for k in range(3):
            np.add.at(normals, self._model.faces.numpy()[:, k], weighted)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        self._shape, self._neutral, self._normals = shape, vertices[self._ids], normals[self._ids]

    def _distances(self, rotation: Rotation) -> np.ndarray:
        return np.array([(key.rotation.inv() * rotation).magnitude() for key in self._keyframes])

    def _weights(self, rotation: Rotation, world: np.ndarray) -> np.ndarray:
        """How well each point is seen [K]: it must face the camera and be on skin that stays."""
        ray = np.array([0.0, 0.0, CAMERA_DISTANCE]) - world
        cosine = (rotation.apply(self._normals) * ray).sum(1) / np.linalg.norm(ray, axis=1)
        return self._still * np.clip((cosine - 0.25) / 0.35, 0, 1)

    def _project(self, world: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [K,2] and their derivatives to world positions [K,2,3]."""
        depth = np.maximum(CAMERA_DISTANCE - world[:, 2], 0.05)
        scale = focal / depth
        pixels = np.stack([scale * world[:, 0], -scale * world[:, 1]], 1)
        slope = np.zeros((len(world), 2, 3))
        slope[:, 0, 0], slope[:, 1, 1] = scale, -scale
        slope[:, :, 2] = pixels / depth[:, None]
        return pixels + np.array(self._size) / 2, slope

    def _add(self, points: np.ndarray, rotation: Rotation, place: np.ndarray, focal: float, glimpse: Glimpse) -> None:
        world = rotation.apply(points) + place
        pixels, _ = self._project(world, focal)
        weights = self._weights(rotation, world)
        values = []
        for sigma, _ in LEVELS:
            value, _, inside = glimpse.blurred(pixels.min(0), pixels.max(0), sigma).at(pixels)
            values.append(value)
            weights = weights * inside
        self._keyframes.append(_Keyframe(rotation, tuple(values), weights))

    def _align(
        self, points: np.ndarray, rotation: Rotation, place: np.ndarray, focal: float, glimpse: Glimpse
    ) -> tuple[Rotation, np.ndarray] | None:
        """Rotation and translation that match the nearest keyframe and the first; None where nothing matches."""
        distance = self._distances(rotation)
        near = [k for k in {0, int(distance.argmin())} if distance[k] < LONGEST_REACH]
        if not near:
            return None
        middle = points.mean(0)
        offset = points - middle
        start, centre = rotation, rotation.apply(middle) + place
        shift = np.zeros(3)
        pixels, _ = self._project(rotation.apply(offset) + centre, focal)
        low, high, margin = pixels.min(0), pixels.max(0), 0.06 * np.ptp(pixels, axis=0)
        match = 0.0
        for level, (sigma, steps) in enumerate(LEVELS):
            samples = glimpse.blurred(low - margin, high + margin, sigma)
            for _ in range(steps):
                turned = rotation.apply(offset)
                world = turned + centre + shift
                pixels, slope = self._project(world, focal)
                value, gradient, inside = samples.at(pixels)
                facing = self._weights(rotation, world) * inside
                jacobian = (gradient[:, None, :] @ slope)[:, 0]
                jacobian = np.concatenate([np.cross(turned, jacobian), jacobian], 1)
                off = np.concatenate([(rotation * start.inv()).as_rotvec(), shift])
                hessian, slope_sum = np.diag(SPREAD**-2), -off / SPREAD**2
                for k in near:
                    part, push, match = match_step(
                        value, jacobian, self._keyframes[k].values[level], np.sqrt(facing * self._keyframes[k].weights)
                    )
                    hessian, slope_sum = hessian + part, slope_sum + push
                update = np.linalg.solve(hessian, slope_sum)
                rotation = Rotation.from_rotvec(update[:3]) * rotation
                shift = shift + update[3:]
        if match < WORST_MATCH:
            return None
        return rotation, centre + shift - rotation.apply(middle)


def match_step(
    value: np.ndarray, jacobian: np.ndarray, wanted: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Gauss-Newton system (hessian [P,P], right side [P]) of value - (a wanted + b), gain a and offset b solved for,
    and the correlation of the two. value, wanted, weight [K]; jacobian [K,P]."""
    count = jacobian.shape[1]
    total = weight.sum() + 1e-9
    if total < 10:
        return np.zeros((count, count)), np.zeros(count), 0.0
    mean, aim = (weight * value).sum() / total, (weight * wanted).sum() / total
    first, second = value - mean, wanted - aim
    power = (weight * second**2).sum() + 1e-6
    covariance = (weight * first * second).sum()
    gain = float(np.clip(covariance / power, 0.5, 2.0))
    residual = first - gain * second
    match = float(covariance / np.sqrt(power * ((weight * first**2).sum() + 1e-6)))
    spread = max(1.5 * float(np.median(np.abs(residual[weight > 0.05 * weight.max()]))), NOISE)
    robust = weight / (1 + (residual / (2 * spread)) ** 2)
    # what a common brightening explains is no motion
    sum_of_weights = robust.sum() + 1e-9
    centred = jacobian - (robust[:, None] * jacobian).sum(0) / sum_of_weights
    residual = residual - (robust * residual).sum() / sum_of_weights
    scaled = centred * (robust * INDEPENDENT / spread**2)[:, None]
    return scaled.T @ centred, -scaled.T @ residual, match
