"""What synth-data draws: cameras, expressions, and truth that fits the pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fourdface.artifacts import Avatar, Provenance, Source, Views
from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.blocks.head_model import HeadModel
from fourdface.errors import FourdError
from fourdface.methods.portrait4d.alignment import FIVE_DENSE_POINTS, fit_face, portrait_camera, portrait_crop
from fourdface.stages.synth_data import make_shard, shards_of
from fourdface.stages.synthesis.avatars import avatar_person
from fourdface.stages.synthesis.backdrops import blurred, draw_backdrop
from fourdface.stages.synthesis.cameras import intrinsics_of, portrait_rotation, random_camera
from fourdface.stages.synthesis.expressions import draw_motion
from fourdface.stages.synthesis.open_head import OpenHeads
from fourdface.stages.synthesis.rows import ViewPlan, half_depth
from support.lifted import avatar_artifact

PLAN = ViewPlan(motions=2, views=3, size=64, neck=1.0)


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel.load("open")


class Avatars:
    """A synthesizer of one avatar; person 1 is none."""

    kind, head_model, plan, people, weights = "avatars", "open", PLAN, 2, ()

    def person(self, number: int) -> object:
        if number == 1:
            raise FourdError("nobody")
        return avatar_person(avatar_artifact(), "one.h5", Source("one.h5", "0" * 64), PLAN, 0, number)


@pytest.fixture(scope="module", params=["avatars", "open-head"])
def shard(request: pytest.FixtureRequest) -> Views:
    synthesizer = Avatars() if request.param == "avatars" else OpenHeads(PLAN, 0, ())
    views, failed = make_shard(synthesizer, range(2 if request.param == "avatars" else 1), Provenance())
    assert failed == ({1: "nobody"} if request.param == "avatars" else {})
    views.validate()
    return views


def project(points: np.ndarray, matrix: np.ndarray, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = points @ matrix[:3, :3].T + matrix[:3, 3]
    return (seen @ intrinsics.T)[:, :2] / seen[:, 2:], seen[:, 2]


def test_the_head_parameters_and_the_camera_fit_the_picture(model: HeadModel, shard: Views) -> None:
    """The posed head model, seen by the stored camera, has the stored depth at the nose and the forehead."""
    given = [torch.from_numpy(getattr(shard, name)) for name in ("shape", "expression", "rotation", "translation")]
    vertices = model(*given, *(torch.from_numpy(getattr(shard, name)) for name in ("neck", "jaw", "eyes")))
    places = model.landmarks(vertices)[:, [1, 151, 4, 6]].double().numpy()
    assert np.abs(shard.neck).max() > 0.03
    for k in range(len(shard)):
        pixels, depth = project(places[k], shard.world_to_camera[k].astype(float), shard.intrinsics[k].astype(float))
        column, row = (pixels / 2).astype(int).T  # depth is kept at half size
        inside = (column >= 0) & (column < 32) & (row >= 0) & (row < 32)
        assert inside.sum() >= 2, "the face is in the picture"
        found = shard.depths[k][row[inside], column[inside]].astype(float)
        # an avatar has its own offset from the model, and blends depths along the ray
        assert np.abs(found - depth[inside]).max() < 0.02


def test_portraits_are_cut_as_the_method_cuts_them(model: HeadModel, shard: Views) -> None:
    given = [torch.from_numpy(getattr(shard, name)) for name in ("shape", "expression", "rotation", "translation")]
    vertices = model(*given, *(torch.from_numpy(getattr(shard, name)) for name in ("neck", "jaw", "eyes")))
    points = model.landmarks(vertices)[:, list(FIVE_DENSE_POINTS)].double().numpy()
    for k in np.flatnonzero(shard.view < 2):
        pixels, _ = project(points[k], shard.world_to_camera[k].astype(float), shard.intrinsics[k].astype(float))
        crop = portrait_crop(fit_face(pixels), (64, 64), 64)
        assert abs(crop.scaled[0] - 64) <= 5 and abs(crop.left) <= 5 and abs(crop.top) <= 5


def test_one_light_one_background_and_other_expressions(shard: Views) -> None:
    assert shard.background_index.tolist() == [0] * 6 and len(shard.backgrounds) == 1
    assert not np.array_equal(shard.expression[0], shard.expression[3])
    assert np.array_equal(shard.expression[0], shard.expression[1]) and not shard.rotation.any()
    assert np.array_equal(shard.expression, shard.coefficients)


def test_motion_0_of_an_avatar_is_the_photos_own() -> None:
    avatar: Avatar = avatar_artifact()
    person = avatar_person(avatar, "a", Source("a", ""), ViewPlan(1, 1, 32), 0, 0)
    np.testing.assert_allclose(person.rows[0].state.expression, avatar.expression)
    np.testing.assert_allclose(person.rows[0].state.eyes, avatar.eyes)


def test_an_exact_portrait_camera_needs_no_crop(model: HeadModel) -> None:
    points = model.landmarks(model.template[None])[0, list(FIVE_DENSE_POINTS)].double().numpy()
    for k in range(5):
        rotation = portrait_rotation(np.random.default_rng(k))
        pixels, _ = project(points, portrait_camera(points, rotation), intrinsics_of(512))
        np.testing.assert_allclose(fit_face(pixels), [256, 255, 180], atol=0.01)


def test_random_cameras_keep_to_the_papers_ranges() -> None:
    positions, rolls = [], []
    for k in range(300):
        matrix = random_camera(np.random.default_rng(k))
        np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-6)
        positions.append(-matrix[:3, :3].T @ matrix[:3, 3] - [0.0, 0.068, 0.058])
        rolls.append(np.arctan2(matrix[0, 1], -matrix[1, 1]))
    place = np.array(positions)
    radius, yaw = np.linalg.norm(place, axis=1), np.arctan2(place[:, 0], place[:, 2])
    assert 3.65 / 3 - 1e-4 < radius.min() < radius.max() < 4.45 / 3 + 1e-4
    assert 0.7 < np.abs(yaw).max() < 0.7801 and abs(yaw.mean()) < 0.1
    pitch = np.pi / 2 * place[:, 1] / radius  # the height on the sphere is 2 pitch / pi
    assert -0.2501 < pitch.min() < -0.15 and 0.55 < pitch.max() < 0.6501
    assert 0.2 < np.abs(rolls).max() < 0.30


def test_motions_cover_what_faces_do() -> None:
    drawn = [draw_motion(np.random.default_rng(k), neck=0.5) for k in range(1500)]
    table = np.stack([motion.expression for motion in drawn])
    assert table.min() >= 0 and table.max() <= 1
    for name, least in (("jawOpen", 0.10), ("eyeBlinkLeft", 0.08), ("mouthSmileRight", 0.06), ("browInnerUp", 0.06)):
        assert (table[:, ARKIT_INDEX[name]] > 0.4).mean() > least, name
    neck = np.stack([motion.neck for motion in drawn])
    assert 0.4 < neck.any(1).mean() < 0.6
    assert not draw_motion(np.random.default_rng(0)).neck.any()
    eyes = np.stack([motion.eyes for motion in drawn])
    left = eyes[:, 1] > 0.1  # the subject's left: out for the left eye, in for the right
    assert (table[left][:, ARKIT_INDEX["eyeLookOutLeft"]] > 0.15).all()
    assert (table[left][:, ARKIT_INDEX["eyeLookInLeft"]] == 0).all()


@pytest.mark.parametrize("size", [32, 33])
def test_backdrops_are_pictures(size: int) -> None:
    drawn = np.stack([draw_backdrop(np.random.default_rng(k), size) for k in range(40)])
    assert drawn.dtype == np.uint8 and drawn.shape == (40, size, size, 3) and drawn.mean((1, 2, 3)).std() > 20
    soft = blurred(drawn[0], np.random.default_rng(0))
    assert soft.shape == drawn[0].shape and soft.flags.c_contiguous


def test_depth_at_half_size_is_the_mean_of_what_is_solid() -> None:
    depth = np.array([[1.0, 2.0, 0.0], [3.0, 9.0, 0.0]])
    opacity = np.array([[1.0, 1.0, 0.0], [0.9, 0.2, 0.0]])
    np.testing.assert_array_equal(half_depth(depth, opacity), np.array([[2.0]], np.float16))
    assert half_depth(np.ones((4, 4)), np.zeros((4, 4))).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("people", "per_shard", "parts"), [(0, 5, 1), (1, 5, 3), (23, 5, 5), (23, 5, 1), (25, 5, 7)])
def test_parts_share_the_shards_out(people: int, per_shard: int, parts: int) -> None:
    whole = shards_of(people, per_shard)
    assert [k for _, members in whole for k in members] == list(range(people))
    shared = [shard for index in range(parts) for shard in shards_of(people, per_shard, (index, parts))]
    assert sorted(shared, key=lambda shard: shard[0]) == whole


def test_nobody_at_all_is_an_error() -> None:
    with pytest.raises(FourdError, match="not one of 1 people could be rendered; the first: nobody"):
        make_shard(Avatars(), [1], Provenance())  # type: ignore[arg-type]
