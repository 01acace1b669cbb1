"""Known heads, projected by the head model and a camera of the test's own, are found again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fourdface.blocks import face_topology as topology
from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.blocks.head_fitting import (
    CAMERA_DISTANCE,
    FitOptions,
    HeadFitter,
    coefficient_sigmas,
    tracking_world_to_camera,
)
from fourdface.blocks.rotation import axis_angle_to_matrix
from support.scenes import PLACE, open_head

SIZE = (640, 480)
FOCAL = 900.0
MOVING = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp", "mouthPucker", "eyeBlinkLeft", "eyeBlinkRight")
ALL_PAIRS = topology.LIP_PAIRS + topology.LID_PAIRS


@dataclass
class Truth:
    """Parameters of T frames and their landmarks [T,478,2] in pixels."""

    shape: torch.Tensor
    expression: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor
    eyes: torch.Tensor
    landmarks: torch.Tensor


def project(points: torch.Tensor, focal: float = FOCAL) -> torch.Tensor:
    """World points [..., 3] -> pixels, written down from the conventions and not from the code under test."""
    matrix = torch.from_numpy(tracking_world_to_camera()).float()
    camera = points @ matrix[:3, :3].T + matrix[:3, 3]
    return camera[..., :2] / camera[..., 2:] * focal + torch.tensor([SIZE[0] / 2, SIZE[1] / 2])


def make_truth(count: int, seed: int = 0, turn: float = 0.35, identity: float = 0.3) -> Truth:
    """Random poses within +-turn radians, a random identity, moderate expressions."""
    random = torch.Generator().manual_seed(seed)
    model = open_head()
    shape = identity * torch.randn(model.shape_count, generator=random)
    expression = torch.zeros(count, 52)
    for name in MOVING:
        expression[:, ARKIT_INDEX[name]] = 0.6 * torch.rand(count, generator=random)
    rotation = turn * (2 * torch.rand(count, 3, generator=random) - 1)
    translation = torch.from_numpy(PLACE) + 0.03 * torch.randn(count, 3, generator=random)
    eyes = torch.zeros(count, 6)
    eyes[:, [0, 3]] = 0.15 * torch.randn(count, 1, generator=random)
    eyes[:, [1, 4]] = 0.25 * torch.randn(count, 1, generator=random)
    vertices = model(shape.expand(count, -1), expression, rotation, translation, None, None, eyes)
    landmarks = project(model.landmarks(vertices))
    joints = model.joints(shape[None])[0]
    for side, point in ((0, topology.IRIS_LEFT[0]), (1, topology.IRIS_RIGHT[0])):
        landmarks[:, point] = project(iris_centres(vertices, joints[3 + side], rotation, translation, side))
    return Truth(shape, expression, rotation, translation, eyes, landmarks)


def iris_centres(
    vertices: torch.Tensor, joint: torch.Tensor, rotation: torch.Tensor, translation: torch.Tensor, side: int
) -> torch.Tensor:
    """Middle of the iris, pushed out to the eyeball's surface [T,3]."""
    iris = vertices[:, open_head().regions[("iris_left", "iris_right")[side]]]
    centre = axis_angle_to_matrix(rotation) @ joint + translation
    direction = torch.nn.functional.normalize(iris.mean(1) - centre, dim=-1)
    return centre + direction * (iris - centre[:, None]).norm(dim=-1).mean(1, keepdim=True)


def degrees_between(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Angles [T] between rotations given as axis-angle [T,3]."""
    relative = axis_angle_to_matrix(first).transpose(-1, -2) @ axis_angle_to_matrix(second)
    skew = torch.stack([relative[:, 2, 1] - relative[:, 1, 2], relative[:, 0, 2] - relative[:, 2, 0],
                        relative[:, 1, 0] - relative[:, 0, 1]], -1)  # fmt: skip
    return torch.rad2deg(torch.atan2(skew.norm(dim=-1), relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1))


def noisy(expression: torch.Tensor, sigma: float = 0.03, seed: int = 5) -> torch.Tensor:
    """What perception would read: the truth, slightly off, in range."""
    random = torch.Generator().manual_seed(seed)
    return (expression + sigma * torch.randn(expression.shape, generator=random)).clamp(0, 1)


def gaps(points: torch.Tensor, pairs: tuple[tuple[int, int], ...] = ALL_PAIRS) -> torch.Tensor:
    """Distances [..., P] between pairs of points [..., K, D]."""
    first, second = torch.tensor(pairs).T
    return (points[..., first, :] - points[..., second, :]).norm(dim=-1)


@pytest.fixture(scope="module")
def fitter() -> HeadFitter:
    return HeadFitter(open_head(), SIZE)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth(12)


def test_the_camera_stands_before_the_face_and_looks_at_it() -> None:
    matrix = tracking_world_to_camera()
    assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3)) and np.isclose(np.linalg.det(matrix[:3, :3]), 1)
    assert np.allclose(matrix @ [0, 0, 0, 1], [0, 0, CAMERA_DISTANCE, 1])
    up, right, nearer = (matrix[:3, :3] @ axis for axis in ([0, 1, 0], [1, 0, 0], [0, 0, 1]))
    assert up[1] == -1 and right[0] == 1 and nearer[2] == -1


def test_pose_and_expression_with_known_identity_and_focal(fitter: HeadFitter, truth: Truth) -> None:
    track = fitter.fit(truth.landmarks, noisy(truth.expression), focal=FOCAL, shape=truth.shape)
    assert degrees_between(track.rotation, truth.rotation).max() < 0.5
    assert (track.translation - truth.translation).norm(dim=-1).max() < 0.003
    assert (track.expression - truth.expression)[:, [ARKIT_INDEX[name] for name in MOVING]].abs().mean() < 0.03
    assert track.focal == pytest.approx(FOCAL)
    assert track.residual.max() < 0.002
    error = (fitter.project(track) - truth.landmarks[:, : topology.FACE_COUNT]).norm(dim=-1)
    assert error.mean() < 0.3  # pixels; the face is some 200 wide


def test_lip_and_lid_distances_are_kept(fitter: HeadFitter, truth: Truth) -> None:
    track = fitter.fit(truth.landmarks, noisy(truth.expression, 0.06), focal=FOCAL, shape=truth.shape)
    assert (gaps(fitter.project(track)) - gaps(truth.landmarks)).abs().max() < 0.8


def test_identity_is_shared_and_leaves_the_pose_right(fitter: HeadFitter, truth: Truth) -> None:
    """Identity unknown: what it explains is not charged to the pose."""
    coefficients = noisy(truth.expression)
    track = fitter.fit(truth.landmarks, coefficients, focal=FOCAL, iterations=12)
    mean_head = fitter.fit(truth.landmarks, coefficients, focal=FOCAL, shape=torch.zeros_like(truth.shape))
    assert degrees_between(track.rotation, truth.rotation).mean() < 1.5
    assert track.residual.mean() < 0.4 * mean_head.residual.mean()
    assert track.shape.shape == truth.shape.shape


def test_focal_follows_from_the_typical_distance(fitter: HeadFitter, truth: Truth) -> None:
    """One picture of a face cannot tell focal length from distance: the prior on the distance decides."""
    track = fitter.fit(truth.landmarks, noisy(truth.expression), iterations=14)
    depth = CAMERA_DISTANCE - float(track.translation[:, 2].mean())
    assert 0.6 < depth < 1.0
    assert track.focal / depth == pytest.approx(FOCAL / (CAMERA_DISTANCE - PLACE[2]), rel=0.1)


def test_gaze_within_a_degree(fitter: HeadFitter, truth: Truth) -> None:
    assert truth.eyes.abs().max() > 0.3, "the truth must look somewhere"
    track = fitter.fit(truth.landmarks, noisy(truth.expression), focal=FOCAL, shape=truth.shape)
    difference = torch.rad2deg((track.eyes - truth.eyes).reshape(-1, 2, 3)[..., :2])
    assert difference.abs().max() < 1.0


def test_outliers_hardly_count(fitter: HeadFitter, truth: Truth) -> None:
    """One landmark in ten thrown anywhere within some 80 pixels."""
    random = torch.Generator().manual_seed(3)
    landmarks = truth.landmarks.clone()
    spoilt = torch.rand(landmarks.shape[:2], generator=random) < 0.1
    landmarks[spoilt] += 80 * torch.randn(int(spoilt.sum()), 2, generator=random)
    track = fitter.fit(landmarks, noisy(truth.expression), focal=FOCAL, shape=truth.shape)
    assert degrees_between(track.rotation, truth.rotation).mean() < 1.0
    assert (track.translation - truth.translation).norm(dim=-1).mean() < 0.01


@pytest.mark.parametrize("yaw", [-1.0, -0.6, 0.6, 1.0])
def test_wide_turns(fitter: HeadFitter, yaw: float) -> None:
    truth = make_truth(1, turn=0.0)
    rotation = torch.tensor([[0.0, yaw, 0.0]])
    vertices = open_head()(truth.shape[None], truth.expression, rotation, truth.translation)
    landmarks = project(open_head().landmarks(vertices))
    track = fitter.fit(landmarks, noisy(truth.expression), focal=FOCAL, shape=truth.shape)
    assert degrees_between(track.rotation, rotation).max() < 0.5


def test_frames_do_not_touch_each_other(fitter: HeadFitter, truth: Truth) -> None:
    """With identity and focal given a spoilt frame leaves its neighbours exactly as they were."""
    landmarks = truth.landmarks.clone()
    landmarks[5] = landmarks[5].flip(0) * 0.3
    one = fitter.fit(truth.landmarks, noisy(truth.expression), focal=FOCAL, shape=truth.shape)
    other = fitter.fit(landmarks, noisy(truth.expression), focal=FOCAL, shape=truth.shape)
    rest = [k for k in range(12) if k != 5]
    assert torch.allclose(one.rotation[rest], other.rotation[rest], atol=1e-5)
    assert torch.allclose(one.expression[rest], other.expression[rest], atol=1e-4)
    assert other.residual[5] > 5 * other.residual[rest].max()


def test_coefficients_stay_in_range(fitter: HeadFitter, truth: Truth) -> None:
    """Landmarks beyond what the model can do push against the bounds and not through them."""
    lips = list(topology.LIPS_OUTER + topology.LIPS_INNER)
    centre = truth.landmarks[:, 13:15].mean(1, keepdim=True)
    landmarks = truth.landmarks.clone()
    landmarks[:, lips] = centre + 2.5 * (landmarks[:, lips] - centre)
    coefficients = noisy(truth.expression)
    coefficients[:, ARKIT_INDEX["jawOpen"]] = 1.0
    track = fitter.fit(landmarks, coefficients, focal=FOCAL)
    assert float(track.expression.min()) >= 0.0 and float(track.expression.max()) <= 1.0
    assert float((track.expression == 1).sum()) > 0, "some must have met the bound"
    assert all(torch.isfinite(getattr(track, name)).all() for name in ("shape", "rotation", "translation", "eyes"))


def test_without_evidence_the_reading_stands(fitter: HeadFitter, truth: Truth) -> None:
    """tongueOut moves no landmark, so its reading is kept."""
    coefficients = noisy(truth.expression)
    coefficients[:, ARKIT_INDEX["tongueOut"]] = 0.7
    track = fitter.fit(truth.landmarks, coefficients, focal=FOCAL, shape=truth.shape)
    assert (track.expression[:, ARKIT_INDEX["tongueOut"]] - 0.7).abs().max() < 0.1


def test_a_good_start_needs_one_step(fitter: HeadFitter, truth: Truth) -> None:
    coefficients = noisy(truth.expression)
    given = {"focal": FOCAL, "shape": truth.shape}
    full = fitter.fit(truth.landmarks[:1], coefficients[:1], **given)
    again = fitter.fit(truth.landmarks[:1], coefficients[:1], **given, start=full, iterations=1)
    assert degrees_between(full.rotation, again.rotation).max() < 0.05
    assert torch.allclose(full.expression, again.expression, atol=0.01)


def test_the_size_of_the_head_is_not_identity(fitter: HeadFitter, truth: Truth) -> None:
    """A larger face is nearer or its lens longer; the identity keeps the mean head's size."""
    track = fitter.fit(truth.landmarks, noisy(truth.expression), iterations=12)
    points = open_head().landmarks(open_head().shaped(track.shape[None]))[0, : topology.FACE_COUNT]
    mean = open_head().landmarks(open_head().template[None])[0, : topology.FACE_COUNT]
    spread = lambda p: (p - p.mean(0)).square().sum().sqrt()  # noqa: E731
    assert track.shape.norm() > 0.3
    assert float(spread(points) / spread(mean)) == pytest.approx(1.0, abs=0.01)


def test_scale_of_the_picture_does_not_matter(truth: Truth) -> None:
    """The same face in a picture of half the size: same pose, same expression."""
    coefficients = noisy(truth.expression)
    large = HeadFitter(open_head(), SIZE).fit(truth.landmarks, coefficients, focal=FOCAL)
    half = HeadFitter(open_head(), (SIZE[0] // 2, SIZE[1] // 2))
    small = half.fit(truth.landmarks / 2, coefficients, focal=FOCAL / 2)
    assert degrees_between(large.rotation, small.rotation).max() < 0.02
    assert torch.allclose(large.translation, small.translation, atol=1e-4)
    assert torch.allclose(large.expression, small.expression, atol=1e-3)


def test_prior_widths_are_positive_and_named() -> None:
    sigma = coefficient_sigmas(FitOptions(coefficient_sigma=0.1))
    assert sigma.shape == (52,) and float(sigma.min()) > 0
    assert sigma[ARKIT_INDEX["eyeBlinkLeft"]] > sigma[ARKIT_INDEX["mouthSmileLeft"]] > sigma[ARKIT_INDEX["cheekPuff"]]


def test_topology_sets_are_disjoint_and_weighed() -> None:
    weights = topology.landmark_weights()
    assert weights.shape == (topology.FACE_COUNT,) and weights.min() > 0
    features = [topology.LIPS_OUTER, topology.LIPS_INNER, topology.EYE_RIGHT, topology.EYE_LEFT]
    features += [topology.BROW_LEFT, topology.BROW_RIGHT, topology.OVAL]
    flat = [index for group in features for index in group]
    assert len(flat) == len(set(flat)) and max(flat) < topology.FACE_COUNT
    assert weights[13] > weights[50] > weights[10]


def test_topology_pairs_meet_on_the_head() -> None:
    """The pairs of lips and lids close with the mouth and the eyes of the model; left and right are the subject's."""
    model = open_head()
    rest = model.landmarks(model())[0]
    assert rest[topology.IRIS_LEFT[0], 0] > 0 > rest[topology.IRIS_RIGHT[0], 0]
    assert rest[list(topology.EYE_LEFT), 0].min() > 0 > rest[list(topology.BROW_RIGHT), 0].max()
    expression = torch.zeros(1, 52)
    expression[0, [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]] = 1
    shut = model.landmarks(model(expression=expression))[0]
    assert gaps(shut, topology.LID_PAIRS).max() < 0.5 * gaps(rest, topology.LID_PAIRS).max()
    assert gaps(rest, topology.LIP_PAIRS).max() < 0.006  # metres


def test_what_is_given_is_kept(fitter: HeadFitter, truth: Truth) -> None:
    """A known focal length is not fitted away while identity is found, nor a known identity with the focal length."""
    coefficients = noisy(truth.expression)
    assert fitter.fit(truth.landmarks, coefficients, focal=700.0).focal == pytest.approx(700.0)
    track = fitter.fit(truth.landmarks, coefficients, shape=truth.shape)
    assert torch.equal(track.shape, truth.shape) and abs(track.focal - FOCAL) > 1
