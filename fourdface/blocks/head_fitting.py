"""Fit the head model to dense 2D landmarks: batched, robust Gauss-Newton in closed form.

One camera a source: x right, y up, z towards the viewer in the world; the camera stands `CAMERA_DISTANCE` in front
of the world's origin and looks along -z. With neck and jaw at rest a landmark is linear in identity and expression,
so the Jacobian is exact and cheap: the whole clip is solved at once, frames eliminated first (Schur complement) and
identity and focal length shared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from . import face_topology as topology
from .arkit import ARKIT_INDEX
from .head_model import HeadModel
from .rotation import axis_angle_to_matrix, matrix_to_axis_angle

CAMERA_DISTANCE = 1.0
"""Metres from the world's origin to the camera of a tracked photo or clip."""
TYPICAL_DEPTH = 0.8
"""Metres between camera and face where nothing else tells the focal length (a portrait or a selfie)."""
EXPRESSION_RANGE = (0.0, 1.0)
PAIR_REACH = 3.0
"""How much farther, in robust scales, the ends of a lip or lid pair may be off before the pair counts less."""
SIZE_WEIGHT = 1e8
"""Stiffness (per frame) with which the size of the face is held at the mean head's."""


def tracking_world_to_camera() -> np.ndarray:
    """The fixed `world_to_camera` [4,4] (OpenCV axes) of every tracked source."""
    matrix = np.diag([1.0, -1.0, -1.0, 1.0])
    matrix[2, 3] = CAMERA_DISTANCE
    return matrix


@dataclass(frozen=True)
class HeadTrack:
    """Head parameters of T frames: shape [S], focal (pixels), and per frame expression [T,52], rotation [T,3],
    translation [T,3] (metres), eyes [T,6] (radians), residual [T] (root mean square, fraction of face size)."""

    shape: Tensor
    focal: float
    expression: Tensor
    rotation: Tensor
    translation: Tensor
    eyes: Tensor
    residual: Tensor


@dataclass(frozen=True)
class FitOptions:
    """Weights of the fit; landmark residuals are in units of 1 % of the face's size.

    The sigmas are small because the 468 landmarks are far from independent: they count as some tens of readings.
    """

    shape_sigma: float = 0.5
    coefficient_sigma: float = 0.1
    pair_weight: float = 3.0
    depth_sigma: float = 0.02
    robust_scale: float = 2.5
    iterations: int = 8
    pose_rounds: int = 2


# how far a coefficient may leave the network's reading, relative to coefficient_sigma: where landmarks hardly see a
# movement the reading is all there is
_LOOSE = {
    "eyeBlinkLeft": 3.0, "eyeBlinkRight": 3.0, "jawOpen": 2.0, "eyeWideLeft": 1.5, "eyeWideRight": 1.5,
    "eyeSquintLeft": 1.5, "eyeSquintRight": 1.5, "browInnerUp": 1.5, "mouthClose": 1.5,
}  # fmt: skip
_TIGHT = ("cheekPuff", "tongueOut", "cheekSquintLeft", "cheekSquintRight", "jawForward")


def coefficient_sigmas(options: FitOptions) -> Tensor:
    """Prior deviation [52] of each coefficient around the perception's reading."""
    sigma = torch.full((52,), options.coefficient_sigma)
    for name, factor in _LOOSE.items():
        sigma[ARKIT_INDEX[name]] *= factor
    for name in _TIGHT:
        sigma[ARKIT_INDEX[name]] *= 0.5
    return sigma


class HeadFitter:
    """Fits one head model; holds the landmark bases, so make it once and use it for every frame.

    `size` is (width, height) of the source in pixels; the principal point is the centre. Inside everything is float64:
    in float32 the normal equations answer differently from run to run (vector libraries sum in an order that depends on
    where an array lies in memory), and the same clip must give the same head.
    """

    def __init__(self, model: HeadModel, size: tuple[int, int], options: FitOptions | None = None) -> None:
        model.require_arkit()
        self.model = model
        self.size = size
        self.options = options or FitOptions()
        faces = model.faces[model.dense_faces[: topology.FACE_COUNT]]
        bary = model.dense_barycentric[: topology.FACE_COUNT]
        corners = faces.reshape(-1)

        def at_landmarks(field: Tensor) -> Tensor:
            values = field[..., corners, :].reshape(*field.shape[:-2], *faces.shape, 3)
            return (values * bary[..., None]).sum(-2).double()

        self._mean = at_landmarks(model.template)
        self._shape_basis = at_landmarks(model.shape_basis).permute(1, 2, 0).contiguous()
        self._expression_basis = at_landmarks(model.expression_basis).permute(1, 2, 0).contiguous()
        centred = self._mean - self._mean.mean(0)
        # d log(size) / d shape, size being the root mean square spread of the face's landmarks
        self._size_gradient = torch.einsum("kc,kcs->s", centred, self._shape_basis) / centred.square().sum()
        mobility = self._expression_basis.square().sum(1).max(-1).values.sqrt()  # metres, of the strongest mode
        self._rigid_weights = 1 / (1 + (mobility / 0.002) ** 2)
        self._pairs = torch.tensor(topology.LIP_PAIRS + topology.LID_PAIRS)
        self._weights = torch.from_numpy(topology.landmark_weights()).double()
        self._sigma = coefficient_sigmas(self.options).double()

    # --- public -------------------------------------------------------------------------------------------------

    def fit(
        self, landmarks: Tensor, coefficients: Tensor, *, focal: float | None = None, shape: Tensor | None = None,
        start: HeadTrack | None = None, iterations: int | None = None,
    ) -> HeadTrack:  # fmt: skip
        """Fit T frames together. landmarks [T,478,2] pixels, coefficients [T,52] -> HeadTrack.

        `shape` and `focal` are kept where they are given; with both only the frames' own parameters are solved
        (tracking). `start` continues from an earlier solution (its frames must be T, or 1).
        """
        count = landmarks.shape[0]
        landmarks, coefficients = landmarks.double(), coefficients.double()
        points = landmarks[:, : topology.FACE_COUNT]
        scale = _face_scale(points)
        held = None  # which of the S + 1 shared parameters stay as they are; None: all
        if shape is None or focal is None:
            held = torch.full((self._shape_basis.shape[-1] + 1,), shape is not None)
            held[-1] = focal is not None
        state = self._initial(points, coefficients, focal, shape, start)
        steps = iterations or self.options.iterations
        for _ in range(steps):
            state = self._step(state, points, coefficients, scale, held)
        for _ in range(self.options.pose_rounds):
            state = self._pose_step(state, points, scale)
        residual = self._residual(state, points, scale).square().sum(-1).mean(-1).sqrt() / 100
        track = HeadTrack(
            state.shape.float(), float(state.log_focal.exp()), state.expression.float(),
            matrix_to_axis_angle(state.rotation).float(), state.translation.float(), torch.zeros(count, 6),
            residual.float(),
        )  # fmt: skip
        return replace(track, eyes=self.gaze(track, landmarks))

    def gaze(self, track: HeadTrack, landmarks: Tensor) -> Tensor:
        """Eye rotations [T,6] (left xyz, right xyz) that put each iris centre on its landmark.

        The ray through the landmark meets the eyeball's sphere; the direction from the eyeball's centre is the gaze.
        """
        landmarks = landmarks.float()
        rotation = axis_angle_to_matrix(track.rotation)
        joints, radii = self._eyes(track.shape)
        out = []
        for side, iris in ((0, topology.IRIS_LEFT[0]), (1, topology.IRIS_RIGHT[0])):
            centre = joints[side] @ rotation.transpose(-1, -2) + track.translation
            ray = self._ray(landmarks[:, iris], track.focal)
            origin = torch.tensor([0.0, 0.0, CAMERA_DISTANCE])
            along = ((centre - origin) * ray).sum(-1)
            miss = centre - origin - along[:, None] * ray
            depth = (radii[side] ** 2 - miss.square().sum(-1)).clamp_min((0.25 * radii[side]) ** 2).sqrt()
            direction = torch.nn.functional.normalize(-miss - depth[:, None] * ray, dim=-1)
            local = (direction[:, None, :] @ rotation)[:, 0]
            pitch = torch.asin(-local[:, 1].clamp(-0.6, 0.6))
            yaw = torch.atan2(local[:, 0], local[:, 2].clamp_min(0.2)).clamp(-0.8, 0.8)
            out.append(torch.stack([pitch, yaw, torch.zeros_like(yaw)], -1))
        return torch.cat(out, -1)

    def project(self, track: HeadTrack) -> Tensor:
        """The fitted model's 468 face landmarks in pixels [T,468,2]."""
        state = _State(
            track.shape.double(), torch.tensor(math.log(track.focal)).double(), track.expression.double(),
            axis_angle_to_matrix(track.rotation.double()), track.translation.double(),
        )  # fmt: skip
        return self._project(state)[0].float()

    # --- internals ----------------------------------------------------------------------------------------------

    def _eyes(self, shape: Tensor) -> tuple[Tensor, tuple[float, float]]:
        model = self.model
        shaped = model.shaped(shape[None])[0]
        joints = (model.joint_regressor @ shaped)[3:5]
        radii = []
        for index, name in enumerate(("iris_left", "iris_right")):
            radii.append(float((shaped[model.regions[name]] - joints[index]).norm(dim=-1).mean()))
        return joints, (radii[0], radii[1])

    def _ray(self, pixels: Tensor, focal: float) -> Tensor:
        width, height = self.size
        ray = torch.stack(
            [(pixels[:, 0] - width / 2) / focal, -(pixels[:, 1] - height / 2) / focal, -torch.ones(len(pixels))], -1
        )
        return torch.nn.functional.normalize(ray, dim=-1)

    def _initial(
        self, points: Tensor, coefficients: Tensor, focal: float | None, shape: Tensor | None, start: HeadTrack | None
    ) -> _State:
        count = points.shape[0]
        if start is not None:
            expand = lambda value: value.double().expand(count, -1).clone()  # noqa: E731
            return _State(
                (start.shape if shape is None else shape).double(), points.new_tensor(math.log(focal or start.focal)),
                expand(start.expression), axis_angle_to_matrix(expand(start.rotation)), expand(start.translation),
            )  # fmt: skip
        return self._pose_from_similarity(points, coefficients, focal, shape)

    def _pose_from_similarity(
        self, points: Tensor, coefficients: Tensor, focal: float | None, shape: Tensor | None
    ) -> _State:
        """Weak-perspective start: best affine map of the mean landmarks, made a rotation."""
        width, height = self.size
        shape = points.new_zeros(self._shape_basis.shape[-1]) if shape is None else shape.double()
        neutral = self._mean + self._shape_basis @ shape
        model_points = neutral + torch.einsum("kcd,td->tkc", self._expression_basis, coefficients)
        centre = model_points.mean(1, keepdim=True)
        target = points - points.mean(1, keepdim=True)
        target = torch.stack([target[..., 0], -target[..., 1]], -1)
        affine = torch.linalg.lstsq(model_points - centre, target).solution.transpose(-1, -2)
        lengths = affine.norm(dim=-1)
        rows = torch.nn.functional.normalize(affine, dim=-1)
        third = torch.linalg.cross(rows[:, 0], rows[:, 1], dim=-1)
        u, _, vt = torch.linalg.svd(torch.cat([rows, third[:, None]], 1))
        sign = torch.det(u @ vt)
        u = torch.cat([u[..., :2], u[..., 2:] * sign[:, None, None]], -1)
        rotation = u @ vt
        scale = lengths.mean(-1)
        if focal is None:
            focal = float(scale.median()) * TYPICAL_DEPTH
        depth = focal / scale
        middle = points.mean(1)
        position = torch.stack(
            [(middle[:, 0] - width / 2) / scale, -(middle[:, 1] - height / 2) / scale, CAMERA_DISTANCE - depth], -1
        )
        translation = position - (rotation @ centre.transpose(-1, -2))[..., 0]
        expression = coefficients.clamp(*EXPRESSION_RANGE).clone()
        return _State(shape, points.new_tensor(math.log(focal)), expression, rotation, translation)

    def _camera_points(self, state: _State) -> tuple[Tensor, Tensor]:
        local = self._mean + self._shape_basis @ state.shape
        local = local + torch.einsum("kcd,td->tkc", self._expression_basis, state.expression)
        turned = local @ state.rotation.transpose(-1, -2)
        return turned, turned + state.translation[:, None]

    def _project(self, state: _State) -> tuple[Tensor, Tensor, Tensor]:
        turned, world = self._camera_points(state)
        depth = (CAMERA_DISTANCE - world[..., 2]).clamp_min(0.05)
        focal = state.log_focal.exp()
        width, height = self.size
        pixels = torch.stack(
            [focal * world[..., 0] / depth + width / 2, -focal * world[..., 1] / depth + height / 2], -1
        )
        jacobian = depth.new_zeros(*depth.shape, 2, 3)  # d pixels / d world
        jacobian[..., 0, 0] = focal / depth
        jacobian[..., 1, 1] = -focal / depth
        jacobian[..., 0, 2] = focal * world[..., 0] / depth**2
        jacobian[..., 1, 2] = -focal * world[..., 1] / depth**2
        return pixels, jacobian, turned

    def _residual(self, state: _State, points: Tensor, scale: Tensor) -> Tensor:
        return (self._project(state)[0] - points) * (100 / scale)[:, None, None]

    def _step(self, state: _State, points: Tensor, coefficients: Tensor, scale: Tensor, held: Tensor | None) -> _State:
        jacobian, residual = self._system(state, points, scale, held is not None)
        frame_size = 58
        frame_jacobian, shared_jacobian = jacobian[..., :frame_size], jacobian[..., frame_size:]
        hessian = frame_jacobian.transpose(-1, -2) @ frame_jacobian
        gradient = (frame_jacobian.transpose(-1, -2) @ residual[..., None])[..., 0]
        inverse_variance = self._sigma**-2
        hessian.diagonal(dim1=-2, dim2=-1)[:, 6:] += inverse_variance
        hessian.diagonal(dim1=-2, dim2=-1)[:, :6] += 1e-4
        gradient[:, 6:] += (state.expression - coefficients) * inverse_variance
        shared_update = None
        if held is not None:
            shared_jacobian = shared_jacobian * ~held
            coupling = frame_jacobian.transpose(-1, -2) @ shared_jacobian
            shared_update = self._shared_update(state, shared_jacobian, residual, hessian, coupling, gradient)
            shared_update = torch.where(held, 0.0, shared_update)
            gradient = gradient + coupling @ shared_update
        update = self._bounded_solve(hessian, gradient, state.expression)
        return state.moved(update, shared_update)

    def _pose_step(self, state: _State, points: Tensor, scale: Tensor) -> _State:
        """Rotation and translation once more, from the points that expressions hardly move: what the coefficients
        leave unexplained of a mouth must not turn the head."""
        pixels, point_jacobian, turned = self._project(state)
        units = (100 / scale)[:, None, None]
        residual = (pixels - points) * units
        point_jacobian = point_jacobian * units[..., None]
        jacobian = torch.cat([point_jacobian @ _negative_cross(turned), point_jacobian], -1)
        robust = 1 / (1 + residual.square().sum(-1) / self.options.robust_scale**2)
        weight = (self._rigid_weights * robust).sqrt()[..., None]
        jacobian = (jacobian * weight[..., None]).flatten(1, 2)
        residual = (residual * weight).flatten(1, 2)
        hessian = jacobian.transpose(-1, -2) @ jacobian + 1e-4 * torch.eye(6).to(points)
        gradient = (jacobian.transpose(-1, -2) @ residual[..., None])[..., 0]
        update = points.new_zeros(len(points), 58)
        update[:, :6] = -torch.linalg.solve(hessian, gradient)
        return state.moved(update, None)

    def _shared_update(
        self, state: _State, jacobian: Tensor, residual: Tensor, hessian: Tensor, coupling: Tensor, gradient: Tensor
    ) -> Tensor:
        """Identity and focal step [S+1] with the frames' parameters eliminated."""
        count = jacobian.shape[0]
        total = torch.einsum("tri,trj->ij", jacobian, jacobian)
        slope = torch.einsum("tri,tr->i", jacobian, residual)
        total.diagonal()[:-1] += count * self.options.shape_sigma**-2
        slope[:-1] += count * state.shape * self.options.shape_sigma**-2
        depth = CAMERA_DISTANCE - state.translation[:, 2].mean()
        precision = self.options.depth_sigma**-2
        # focal and depth move together, so the prior on depth is one on the focal length
        total[-1, -1] += count * precision
        slope[-1] += count * precision * torch.log(depth / TYPICAL_DEPTH)
        # one camera cannot tell a small near head from a large far one: identity may not change the size
        total[:-1, :-1] += count * SIZE_WEIGHT * self._size_gradient[:, None] * self._size_gradient
        slope[:-1] += count * SIZE_WEIGHT * self._size_gradient * (self._size_gradient @ state.shape)
        solved = torch.linalg.solve(hessian, torch.cat([coupling, gradient[..., None]], -1))
        total = total - torch.einsum("tfi,tfj->ij", coupling, solved[..., :-1])
        slope = slope - torch.einsum("tfi,tf->i", coupling, solved[..., -1])
        update = -torch.linalg.solve(total, slope)
        update[-1] = update[-1].clamp(-0.2, 0.2)
        return update

    def _bounded_solve(self, hessian: Tensor, gradient: Tensor, expression: Tensor) -> Tensor:
        """Newton step that keeps the coefficients in range: those that would leave are held at the bound."""
        low, high = EXPRESSION_RANGE
        update = -torch.linalg.solve(hessian, gradient)
        for _ in range(2):
            target = expression + update[:, 6:]
            bounded = target.clamp(low, high)
            held = (bounded - target).abs() > 1e-6
            if not bool(held.any()):
                break
            stiff = torch.zeros_like(update)
            stiff[:, 6:] = held * 1e7
            wanted = torch.zeros_like(update)
            wanted[:, 6:] = (bounded - expression) * held
            system = hessian + torch.diag_embed(stiff)
            update = -torch.linalg.solve(system, gradient - stiff * wanted)
        update[:, 6:] = (expression + update[:, 6:]).clamp(low, high) - expression
        return update

    def _system(self, state: _State, points: Tensor, scale: Tensor, shared: bool) -> tuple[Tensor, Tensor]:
        """Weighted Jacobian [T,R,58(+S+1)] and residual [T,R] of landmarks and of lip and lid distances."""
        pixels, point_jacobian, turned = self._project(state)
        units = (100 / scale)[:, None, None]
        residual = (pixels - points) * units
        point_jacobian = point_jacobian * units[..., None]
        count, number = residual.shape[:2]
        into_pixels = (point_jacobian @ state.rotation[:, None]).reshape(count, number, 2, 3)
        columns = [point_jacobian @ _negative_cross(turned), point_jacobian, into_pixels @ self._expression_basis]
        if shared:
            width, height = self.size
            centre = torch.tensor([width / 2, height / 2])
            columns += [into_pixels @ self._shape_basis, ((pixels - centre) * units)[..., None]]
        jacobian = torch.cat(columns, -1)
        first, second = self._pairs[:, 0], self._pairs[:, 1]
        squared = residual.square().sum(-1) / self.options.robust_scale**2
        robust = 1 / (1 + squared)
        # a pair is as good as its worse end, but lids and lips have farther to go than other points
        pair_robust = 1 / (1 + torch.maximum(squared[:, first], squared[:, second]) / PAIR_REACH**2)
        pair_weight = (self.options.pair_weight * pair_robust.sqrt())[..., None]
        pair_jacobian = (jacobian[:, first] - jacobian[:, second]) * pair_weight[..., None]
        pair_residual = (residual[:, first] - residual[:, second]) * pair_weight
        weight = (self._weights * robust).sqrt()[..., None]
        jacobian = torch.cat([jacobian * weight[..., None], pair_jacobian], 1).flatten(1, 2)
        residual = torch.cat([residual * weight, pair_residual], 1).flatten(1, 2)
        return jacobian, residual


@dataclass(frozen=True)
class _State:
    shape: Tensor
    log_focal: Tensor
    expression: Tensor
    rotation: Tensor
    translation: Tensor

    def moved(self, update: Tensor, shared: Tensor | None) -> _State:
        turn = axis_angle_to_matrix(_limited(update[:, :3], 0.5))
        translation = self.translation + _limited(update[:, 3:6], 0.3)
        shape, log_focal = self.shape, self.log_focal
        if shared is not None:
            shape, log_focal = shape + shared[:-1], log_focal + shared[-1]
        return _State(shape, log_focal, self.expression + update[:, 6:], turn @ self.rotation, translation)


def _negative_cross(turned: Tensor) -> Tensor:
    """d(Rx)/d(delta) [...,3,3] for a rotation that acts on the left: delta x (Rx)."""
    skew = turned.new_zeros(*turned.shape[:-1], 3, 3)
    skew[..., 0, 1], skew[..., 0, 2] = turned[..., 2], -turned[..., 1]
    skew[..., 1, 0], skew[..., 1, 2] = -turned[..., 2], turned[..., 0]
    skew[..., 2, 0], skew[..., 2, 1] = turned[..., 1], -turned[..., 0]
    return skew


def _limited(step: Tensor, longest: float) -> Tensor:
    return step * (longest / step.norm(dim=-1, keepdim=True).clamp_min(longest))


def _face_scale(points: Tensor) -> Tensor:
    """Size [T] of the face in pixels: root mean square spread of its landmarks, comparable for all yaws."""
    centred = points - points.mean(1, keepdim=True)
    return centred.square().sum(-1).mean(-1).sqrt() * 2
