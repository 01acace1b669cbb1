"""The rig: the photo's pose is the model's, the skull moves rigidly, the torso stays behind without a seam."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from fourdface.methods.splat.rig import CHAIN_LENGTH, HeadState, Rig, personal_model
from support.scenes import PLACE, expression, head_state, open_head, posed

SOURCE = head_state(expression(jawOpen=0.2, mouthSmileLeft=0.5), (0.1, -0.3, 0.05), eyes=np.array([0.1, 0.2, 0] * 2))


def identity() -> torch.Tensor:
    return 0.4 * torch.randn(open_head().shape_count, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def rig() -> Rig:
    return Rig(open_head(), identity(), SOURCE)


def moved(seed: int, size: float = 0.4) -> HeadState:
    """A random pose: another expression, turned by up to `size` radians and shifted by centimetres."""
    random = np.random.default_rng(seed)
    turn = size * (2 * random.random(3) - 1)
    place = PLACE + 0.05 * random.standard_normal(3)
    return HeadState.from_arrays(0.5 * random.random(52), turn, place, 0.2 * random.standard_normal(6))


def head(rig: Rig, state: HeadState) -> torch.Tensor:
    return rig.pose(state)[: open_head().vertex_count]


def proxies(rig: Rig, state: HeadState) -> torch.Tensor:
    """Corners [CHAIN_LENGTH, 3, 3] of the proxy triangles."""
    first = open_head().vertex_count
    return rig.pose(state)[first : first + 3 * CHAIN_LENGTH].reshape(CHAIN_LENGTH, 3, 3)


def proxy(rig: Rig, state: HeadState, level: float) -> torch.Tensor:
    return proxies(rig, state)[int(rig.proxy_triangle(np.array(level))) - rig.head_faces]


def test_the_photos_pose_is_the_head_models(rig: Rig) -> None:
    assert torch.allclose(head(rig, SOURCE), posed(SOURCE, identity()), atol=2e-6)


def test_faces_point_at_vertices_that_exist(rig: Rig) -> None:
    vertices = rig.pose(SOURCE)
    extra = CHAIN_LENGTH + len(rig.lid_vertices)
    assert rig.faces.dtype == torch.int32 and rig.faces.shape == (len(open_head().faces) + extra, 3)
    assert int(rig.faces.min()) == 0 and int(rig.faces.max()) == len(vertices) - 1
    assert torch.equal(rig.faces[: rig.head_faces].long(), open_head().faces)
    corners = vertices[rig.faces.long()]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    assert float(area[rig.head_faces :].min()) > 1e-5


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_the_skull_moves_exactly_as_told(seed: int) -> None:
    """Vertices that hang on the neck joint alone are where the head model puts the turned and shifted head."""
    rig = Rig(open_head(), identity(), SOURCE)
    state = moved(seed)
    with_skull = open_head().skinning_weights[:, 1] > 0.9999
    assert int(with_skull.sum()) > 1000
    expected = posed(state, identity())
    assert torch.allclose(head(rig, state)[with_skull], expected[with_skull], atol=5e-6)


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_the_torso_is_carried_and_not_turned(seed: int) -> None:
    """Vertices that hang on the root are shifted with the neck joint, all of them alike."""
    rig = Rig(open_head(), identity(), SOURCE)
    state = replace(moved(seed), expression=SOURCE.expression)
    root = open_head().skinning_weights[:, 0]
    on_torso = root > 0.9999 if bool((root > 0.9999).any()) else root > float(root.max()) - 1e-6
    shift = (head(rig, state) - head(rig, SOURCE))[on_torso]
    turn = Rotation.from_rotvec(state.rotation.numpy()).apply(rig.joints[1].numpy())
    expected = torch.from_numpy(turn).float() + state.translation - rig.anchor
    assert float((shift - expected).norm(dim=-1).max()) < (1e-5 if float(root.max()) > 0.9999 else 0.01)


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_ends_and_middle_of_the_chain(seed: int) -> None:
    """1 goes with the skull, 0 with the neck joint, -1 stays; all are at rest in the photo's pose."""
    rig = Rig(open_head(), identity(), SOURCE)
    state = moved(seed)
    rest = proxies(rig, SOURCE)
    assert torch.allclose(rest, rest[:1].expand_as(rest), atol=1e-6), "in the photo's pose all proxies coincide"
    now = Rotation.from_rotvec(state.rotation.numpy()) * Rotation.from_rotvec(SOURCE.rotation.numpy()).inv()
    local = (rest[0] - SOURCE.translation).numpy()
    assert np.allclose(proxy(rig, state, 1.0), now.apply(local) + state.translation.numpy(), atol=1e-5)
    carried = proxy(rig, state, 0.0) - rest[0]
    assert torch.allclose(carried, carried[:1].expand_as(carried), atol=1e-6), "the torso does not turn"
    assert torch.allclose(proxy(rig, state, -1.0), rest[0], atol=1e-6)


def test_the_chain_is_even(rig: Rig) -> None:
    """No seam: neighbours on the chain move almost alike."""
    corners = proxies(rig, moved(3))
    steps = (corners[1:] - corners[:-1]).norm(dim=-1)
    whole = (corners[-1] - corners[0]).norm(dim=-1).max()
    assert float(steps.max()) < 4 * float(whole) / CHAIN_LENGTH


def test_the_torsos_end_of_the_neck_meets_the_proxies(rig: Rig) -> None:
    """What hangs on the torso's proxy moves as the mesh's lower edge does: no gap at the collar."""
    state = moved(5)
    root = open_head().skinning_weights[:, 0]
    lowest = int(root.argmax())
    mesh = (head(rig, state) - head(rig, SOURCE))[lowest]
    chain = (proxy(rig, state, 1 - float(root[lowest])) - proxy(rig, SOURCE, 0.0)).mean(0)
    assert float((mesh - chain).norm()) < 0.03


def test_lashes_go_with_the_lid_and_turn_with_the_skull(rig: Rig) -> None:
    """The small triangles at the lids keep their shape in a blink; their corner is the lid's vertex."""
    state = replace(moved(7), expression=torch.from_numpy(expression(eyeBlinkLeft=1.0, eyeBlinkRight=1.0)))
    vertices = rig.lid_vertices.numpy()
    index = rig.lid_triangle(vertices)
    assert index.dtype == np.int32 and np.array_equal(index, np.arange(len(vertices)) + rig.head_faces + CHAIN_LENGTH)
    corners = rig.pose(state)[rig.faces.long()[index.astype(int)]]
    assert torch.allclose(corners[:, 0], head(rig, state)[rig.lid_vertices])
    turn = torch.from_numpy(Rotation.from_rotvec(state.rotation.numpy()).as_matrix()).float()
    rest = rig.pose(head_state(state.expression.numpy()))[rig.faces.long()[index.astype(int)]]
    assert torch.allclose(corners[:, 1:] - corners[:, :1], (rest[:, 1:] - rest[:, :1]) @ turn.T, atol=1e-6)


def test_positions_on_the_chain_are_clipped(rig: Rig) -> None:
    levels = np.array([[-5.0, -1.0], [0.0, 1.0], [0.3, 7.0]])
    index = rig.proxy_triangle(levels) - rig.head_faces
    assert index.shape == levels.shape and index.dtype == np.int32
    assert index.tolist() == [[0, 0], [CHAIN_LENGTH // 2, CHAIN_LENGTH - 1], [round(0.65 * (CHAIN_LENGTH - 1)), 64]]


def test_an_offset_is_part_of_the_person() -> None:
    """It changes the neutral head and turns with it."""
    offset = torch.zeros_like(open_head().template)
    offset[100] = torch.tensor([0.01, 0.0, 0.0])
    plain, bent = Rig(open_head(), identity(), SOURCE), Rig(open_head(), identity(), SOURCE, offset)
    change = (bent.neutral - plain.neutral)[100]
    assert torch.allclose(change, offset[100], atol=1e-7)
    now = (head(bent, SOURCE) - head(plain, SOURCE))[100]
    assert float(now.norm()) == pytest.approx(0.01, rel=0.1)


def test_a_personal_model_leaves_the_shared_one_alone() -> None:
    before = open_head().template.clone()
    personal = personal_model(open_head(), open_head().template + 1)
    assert torch.equal(open_head().template, before) and not torch.equal(personal.template, before)
    shift = personal.joints() - open_head().joints()
    assert torch.allclose(shift[:, 1:], torch.ones(1, 4, 3), atol=1e-4), "the joints go with the head (the root is 0)"


def test_states_from_anything_array_like() -> None:
    state = HeadState.from_arrays([0.0] * 52, np.zeros(3), (1, 2, 3), np.zeros(6, np.float64))
    names = ("expression", "rotation", "translation", "eyes", "jaw")
    assert all(getattr(state, name).dtype == torch.float32 for name in names)
    assert state.translation.tolist() == [1, 2, 3] and state.jaw.tolist() == [0, 0, 0]
