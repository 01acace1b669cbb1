"""The shipped open head: form, symmetry, joints, eyelids, gradients, and the class's refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fourdface.blocks.arkit import ARKIT_NAMES
from fourdface.blocks.head_model import HeadModel, decode_open_head
from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.errors import FourdError

MIRROR = torch.tensor([-1.0, 1.0, 1.0])
REGIONS = {
    "face", "scalp", "ears", "neck", "lips", "eyelids", "eyeball_left", "eyeball_right", "iris_left", "iris_right",
    "teeth_upper", "teeth_lower", "tongue", "mouth_bag", "nose", "boundary_neck",
}  # fmt: skip


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load("open")


def expression(head: HeadModel, **values: float) -> torch.Tensor:
    out = torch.zeros(1, head.expression_count)
    for name, value in values.items():
        out[0, head.expression_names.index(name)] = value
    return out


def identities(head: HeadModel, count: int, seed: int = 5) -> torch.Tensor:
    return torch.randn(count, head.shape_count, generator=torch.Generator().manual_seed(seed))


def test_size_and_names(head: HeadModel) -> None:
    assert 5000 <= head.vertex_count <= 9000
    assert 60 <= head.shape_count <= 100
    assert head.expression_names == ARKIT_NAMES
    assert head.name == "open"
    assert set(head.regions) >= REGIONS
    assert all(mask.any() for mask in head.regions.values())
    asset = Path(__file__).parents[2] / "fourdface/assets/files/open_head.safetensors"
    assert asset.stat().st_size <= 6_000_000


def test_every_vertex_is_used_and_faces_are_proper(head: HeadModel) -> None:
    assert len(torch.unique(head.faces)) == head.vertex_count
    corners = head.template[head.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    assert area.min() > 1e-10  # square metres: no degenerate face
    assert len(torch.unique(head.faces.sort(dim=1).values, dim=0)) == len(head.faces)


def test_closed_except_at_the_neck(head: HeadModel) -> None:
    faces = head.faces.numpy()
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() == 2
    hidden_ends = (head.regions["gums"] | head.regions["tongue"]).numpy()  # the gums end inside the mouth bag
    open_edges = unique[count == 1]
    skin_edges = open_edges[~hidden_ends[open_edges].all(1)]
    assert set(skin_edges.ravel()) == set(np.flatnonzero(head.regions["boundary_neck"].numpy()))


def test_neighbouring_faces_agree_in_direction(head: HeadModel) -> None:
    faces = head.faces.numpy()
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed)
    for part in ("teeth_upper", "eyeball_left"):
        mine = torch.from_numpy(faces[head.regions[part].numpy()[faces].all(1)])
        a, b, c = (head.template[mine[:, k]] for k in range(3))
        assert (torch.linalg.cross(a, b) * c).sum() > 0  # positive volume: normals look outwards


def test_exact_symmetry(head: HeadModel) -> None:
    mirror = head.mirror_vertices
    assert torch.equal(mirror[mirror], torch.arange(head.vertex_count))
    torch.testing.assert_close(head.template[mirror] * MIRROR, head.template, atol=1e-7, rtol=0)
    faces = {tuple(sorted(f)) for f in head.faces.tolist()}
    assert {tuple(sorted(f)) for f in mirror[head.faces].tolist()} == faces


def test_expressions_are_symmetric(head: HeadModel) -> None:
    for k, name in enumerate(head.expression_names):
        other = name.replace("Left", "Right") if name.endswith("Left") else name.replace("Right", "Left")
        if not name.endswith(("Left", "Right")):
            other = name
        seen = head.expression_basis[head.expression_names.index(other)][head.mirror_vertices] * MIRROR
        torch.testing.assert_close(seen, head.expression_basis[k], atol=2e-5, rtol=2e-3, msg=name)


def test_expressions_leave_eyeballs_and_upper_teeth(head: HeadModel) -> None:
    still = head.regions["eyeball_left"] | head.regions["eyeball_right"] | head.regions["teeth_upper"]
    assert head.expression_basis[:, still].abs().max() == 0
    assert (head.expression_basis.abs().amax((1, 2)) > 1e-3).all()  # every mode moves something by a millimetre


def test_sizes_of_a_real_head(head: HeadModel) -> None:
    joints = head.joints()[0]
    assert 0.058 < (joints[3] - joints[4]).norm() < 0.067  # distance of the pupils
    assert joints[:2].abs().max() < 1e-4  # root and neck: the origin
    face = head.template[head.regions["face"]]
    assert 0.12 < face[:, 0].max() - face[:, 0].min() < 0.20
    nose = int(head.template[:, 2].argmax())
    assert head.regions["nose"][nose]
    assert joints[3, 0] > 0  # the subject's left is +x


def test_identity_modes_are_unit_normal_coordinates(head: HeadModel) -> None:
    amplitude = head.shape_basis[:, head.regions["face"]].norm(dim=2).mean(1)
    assert amplitude.max() < 0.006
    assert amplitude[:5].mean() > 5 * amplitude[-5:].mean()


def test_weights(head: HeadModel) -> None:
    weights = head.skinning_weights
    torch.testing.assert_close(weights.sum(1), torch.ones(head.vertex_count))
    assert weights.min() >= 0
    assert (weights[head.regions["boundary_neck"], 0] == 1).all()
    assert (weights[head.regions["eyeball_left"], 3] == 1).all()
    assert (weights[head.regions["teeth_lower"], 2] == 1).all()
    assert weights[head.regions["teeth_upper"], 1].min() == 1
    torch.testing.assert_close(head.joint_regressor.sum(1), torch.tensor([0.0, 1, 1, 1, 1]), atol=1e-4, rtol=0)
    edge = torch.cat([head.faces[:, :2], head.faces[:, 1:]])
    skin = ~(head.regions["teeth_lower"] | head.regions["teeth_upper"])
    jump = (weights[edge[:, 0]] - weights[edge[:, 1]]).abs().amax(1)[skin[edge].all(1)]
    assert jump.max() < 0.45  # no skin edge changes its joint abruptly


def test_root_is_a_rigid_motion(head: HeadModel) -> None:
    shape, coefficients = identities(head, 2), torch.rand(2, head.expression_count) * 0.3
    rotation, translation = torch.tensor([[0.2, -0.4, 0.1], [1.0, 0.3, 0.0]]), torch.randn(2, 3)
    rest = head(shape, coefficients)
    moved = head(shape, coefficients, rotation=rotation, translation=translation)
    expected = rest @ axis_angle_to_matrix(rotation).transpose(1, 2) + translation[:, None]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_jaw_opens_the_mouth(head: HeadModel) -> None:
    rest, moved = head.template, head(jaw=torch.tensor([[0.35, 0.0, 0.0]]))[0]
    lips = head.landmarks(moved[None], "68")[0]
    assert (lips[62] - lips[66]).norm() > 0.02  # inner lips, centimetres apart
    still = head.regions["teeth_upper"] | head.regions["eyeball_left"]
    assert (moved - rest)[still].norm(dim=1).max() < 1e-6
    assert (moved - rest)[head.regions["scalp"]].norm(dim=1).max() < 3e-3
    lower = head.regions["teeth_lower"]
    before, after = (torch.cdist(x, x) for x in (rest[lower].double(), moved[lower].double()))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)
    assert ((moved - rest)[lower][:, 1] < -0.008).all()
    assert (moved - rest)[head.regions["tongue"]][:, 1].mean() < -0.005


def test_neck_turns_the_head_and_not_the_collar(head: HeadModel) -> None:
    moved = head(neck=torch.tensor([[0.1, 0.5, 0.0]]))[0]
    collar = head.regions["boundary_neck"]
    torch.testing.assert_close(moved[collar], head.template[collar], atol=1e-7, rtol=0)
    face = head.regions["face"] & (head.template[:, 1] > 0.03)
    before, after = (torch.cdist(x, x) for x in (head.template[face][::9].double(), moved[face][::9].double()))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_eyes_turn_about_their_centres(head: HeadModel, side: str) -> None:
    shape = identities(head, 3)
    eyes = torch.zeros(3, 6)
    eyes[:, 1 if side == "left" else 4] = 0.4
    rest, moved = head(shape), head(shape, eyes=eyes)
    ball = head.regions[f"eyeball_{side}"]
    centre = head.joints(shape)[:, 3 if side == "left" else 4]
    before, after = rest[:, ball] - centre[:, None], moved[:, ball] - centre[:, None]
    torch.testing.assert_close(before.norm(dim=2), after.norm(dim=2), atol=2e-6, rtol=0)
    radius = before.norm(dim=2)
    assert (radius.amax(1) - radius.amin(1)).max() < 2e-5  # still a sphere in every identity
    assert (after[:, 0, 0] > 0.35 * radius[:, 0]).all()  # +y turns the gaze to +x, the subject's left
    others = ~ball
    torch.testing.assert_close(moved[:, others], rest[:, others], atol=1e-6, rtol=0)


@pytest.mark.parametrize("closed", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_lids_stay_outside_the_eyeballs(head: HeadModel, closed: float) -> None:
    shape = torch.cat([torch.zeros(1, head.shape_count), identities(head, 12, seed=21)])
    values = expression(head, eyeBlinkLeft=closed, eyeBlinkRight=closed).expand(len(shape), -1)
    vertices = head(shape, values)
    lid = head.regions["eyelids"]
    faces = head.faces[lid[head.faces].all(1) & ~head.regions["eye_sockets"][head.faces].any(1)]
    grid = torch.tensor([(a, b, 3 - a - b) for a in range(4) for b in range(4 - a)]) / 3
    points = torch.einsum("kc,bfcd->bfkd", grid, vertices[:, faces]).flatten(1, 2)
    for k in (3, 4):
        centre = head.joints(shape)[:, None, k]
        ball = head.regions["eyeball_left" if k == 3 else "eyeball_right"]
        radius = (vertices[:, ball] - centre).norm(dim=2).amax(1)
        clearance = (points - centre).norm(dim=2).amin(1) - radius
        assert clearance.min() > -1e-4, f"{closed}: {clearance}"  # metres


def test_a_blink_hides_the_iris(head: HeadModel) -> None:
    """Seen from the front, lid faces cover the middle of the iris in the mean head and in most identities."""
    shape = torch.cat([torch.zeros(1, head.shape_count), identities(head, 9)])
    vertices = head(shape, expression(head, eyeBlinkLeft=1.0).expand(10, -1))
    pole = int(torch.nonzero(head.regions["eyeball_left"])[0])
    lid = head.regions["eyelids"]
    corners = vertices[:, head.faces[lid[head.faces].all(1)]]
    hidden = []
    for k in range(10):
        a, b, c = (corners[k, :, j, :2] - vertices[k, pole, :2] for j in range(3))
        side = torch.stack([x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0] for x, y in ((a, b), (b, c), (c, a))])
        over = ((side > 0).all(0) | (side < 0).all(0)) & (corners[k, :, :, 2].amax(1) > vertices[k, pole, 2] - 2e-3)
        hidden.append(bool(over.any()))
    assert hidden[0]
    assert sum(hidden) >= 9


def test_landmarks(head: HeadModel) -> None:
    dense, multi = head.landmarks(head.template[None])[0], head.landmarks(head.template[None], "68")[0]
    assert dense.shape == (478, 3)
    assert multi.shape == (68, 3)
    torch.testing.assert_close(head.dense_barycentric.sum(1), torch.ones(478), atol=1e-5, rtol=0)
    torch.testing.assert_close(dense[468] * MIRROR, dense[473], atol=1e-6, rtol=0)
    assert dense[468, 0] < 0 < dense[473, 0]  # first the subject's right iris
    ball = torch.nonzero(head.regions["eyeball_left"])[0, 0]
    torch.testing.assert_close(dense[473], head.template[ball])
    for right, left in ((33, 263), (133, 362), (61, 291), (234, 454)):
        assert (dense[right] * MIRROR - dense[left]).norm() < 1.5e-3
    # Points that both sets have: outer eye corners, nose tip, mouth corners, chin.
    for point, index in ((33, 36), (263, 45), (4, 30), (61, 48), (291, 54), (152, 8)):
        assert (dense[point] - multi[index]).norm() < 0.013
    upper, lower = dense[13], dense[14]
    moved = head.landmarks(head(expression=expression(head, jawOpen=1.0)))[0]
    assert (moved[13] - moved[14]).norm() > (upper - lower).norm() + 0.02  # each on its own lip


def test_subset_equals_the_whole(head: HeadModel) -> None:
    index = torch.tensor([5, 800, 4000, head.vertex_count - 1])
    given = {
        "shape": identities(head, 2),
        "expression": torch.rand(2, head.expression_count),
        "rotation": torch.randn(2, 3) * 0.3,
        "translation": torch.randn(2, 3),
        "neck": torch.randn(2, 3) * 0.2,
        "jaw": torch.randn(2, 3) * 0.1,
        "eyes": torch.randn(2, 6) * 0.2,
    }
    torch.testing.assert_close(head.subset(index)(**given), head(**given)[:, index], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(head.subset(index).shaped(given["shape"]), head.shaped(given["shape"])[:, index])


def test_gradients(head: HeadModel) -> None:
    whole = HeadModel.load().double()
    part = whole.subset(torch.tensor([10, 3000, head.vertex_count - 5]))
    generator = torch.Generator().manual_seed(1)

    def leaf(width: int, scale: float) -> torch.Tensor:
        return (torch.randn(1, width, generator=generator, dtype=torch.float64) * scale).requires_grad_()

    given = (leaf(part.shape_count, 1.0), leaf(part.expression_count, 0.3), leaf(3, 0.3), leaf(3, 0.3), leaf(3, 0.0),
             leaf(3, 0.2), leaf(6, 0.2))  # fmt: skip
    assert torch.autograd.gradcheck(part, given, atol=1e-6)


def test_nothing_given_is_the_mean(head: HeadModel) -> None:
    torch.testing.assert_close(head()[0], head.template)
    torch.testing.assert_close(head.shaped(None)[0], head.template)
    zero = torch.zeros(3, 3)
    torch.testing.assert_close(head(rotation=zero, neck=zero), head.template.expand(3, -1, -1), atol=1e-7, rtol=0)


def test_texture_coordinates(head: HeadModel) -> None:
    assert head.uv.min() >= 0
    assert head.uv.max() <= 1
    a, b, c = (head.uv[head.faces_uv[:, k]] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area != 0).all()


def test_refusals(head: HeadModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape: expected"):
        head(shape=torch.zeros(1, 3))
    with pytest.raises(ValueError, match="batch sizes"):
        head(neck=torch.zeros(2, 3), jaw=torch.zeros(3, 3))
    with pytest.raises(ValueError, match="Landmark kind"):
        head.landmarks(head.template[None], "7")
    with pytest.raises(FourdError, match="Unknown head model"):
        HeadModel.load("flame1999")
    with pytest.raises(FourdError, match="cannot be read"):
        decode_open_head(tmp_path / "absent.safetensors")
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"not a head")
    with pytest.raises(FourdError, match="cannot be read"):
        decode_open_head(bad)
    with pytest.raises(ValueError, match="lack"):
        HeadModel.from_arrays({"template": np.zeros((3, 3))})


def test_arrays_of_another_data_set(head: HeadModel) -> None:
    """Nothing assumes the open head's counts: a tetrahedron with one mode works."""
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    arrays = {
        "template": points, "faces": faces, "shape_basis": np.ones((1, 4, 3), np.float32),
        "expression_basis": np.zeros((2, 4, 3), np.float32), "expression_names": ("a", "b"),
        "joint_regressor": np.full((5, 4), 0.25, np.float32), "skinning_weights": np.eye(4, 5, dtype=np.float32),
        "uv": points[:, :2], "faces_uv": faces, "landmark68_faces": np.zeros(68, int),
        "landmark68_barycentric": np.full((68, 3), 1 / 3, np.float32), "dense_faces": np.zeros(478, int),
        "dense_barycentric": np.full((478, 3), 1 / 3, np.float32), "mirror_vertices": np.arange(4),
        "regions": {"face": np.ones(4, bool)},
    }  # fmt: skip
    model = HeadModel.from_arrays(arrays)
    torch.testing.assert_close(model(shape=torch.full((1, 1), 2.0))[0], torch.from_numpy(points) + 2)
    with pytest.raises(ValueError, match="skinning_weights"):
        HeadModel.from_arrays({**arrays, "skinning_weights": np.eye(4, dtype=np.float32)})
