"""The mesh of a synthetic person: a personal head with hair and collar, and a torso grown from the edge of its neck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from ...blocks.head_model import HeadModel
from .look import Look

INNER_REGIONS = (
    "mouth_bag", "eye_sockets", "gums", "tongue", "teeth_upper", "teeth_lower", "eyeball_left", "eyeball_right",
)  # fmt: skip
COLLAR = 0.004
"""Metres that cloth stands out from the neck."""
# Profile of the torso from the neck's edge downwards: drop below it, half width, half depth and middle along z [m], and
# how far the outline has turned from the neck's into a rounded rectangle.
_PROFILE = np.array([
    (0.000, 0.096, 0.056, -0.008, 0.0), (0.010, 0.120, 0.066, -0.010, 0.5), (0.024, 0.152, 0.078, -0.012, 0.9),
    (0.046, 0.184, 0.088, -0.012, 1.0), (0.082, 0.205, 0.096, -0.010, 1.0), (0.130, 0.214, 0.105, -0.006, 1.0),
    (0.200, 0.216, 0.113, -0.002, 1.0), (0.300, 0.212, 0.118, 0.000, 1.0), (0.420, 0.208, 0.120, 0.000, 1.0),
])  # fmt: skip
_TORSO_RINGS = 28


@dataclass(frozen=True)
class Body:
    """head: model with the person's own neutral as template (its shape basis does nothing); torso [T,3]: vertices that
    do not move with the head; faces [F,3] into head vertices followed by torso vertices; faces_uv [F,3], uv [Vt,2] with
    one more point for all of the torso; hair [V]: signed distance into the hair, metres."""

    head: HeadModel
    torso: torch.Tensor
    faces: torch.Tensor
    faces_uv: torch.Tensor
    uv: torch.Tensor
    hair: np.ndarray


TORSO_UV = (0.01, 0.99)
"""A place in the corner of the texture that the head's chart leaves free."""


def build_body(model: HeadModel, look: Look) -> Body:
    """Grow hair, collar and torso on the identity of `look`."""
    neutral = model.shaped(torch.from_numpy(look.shape)[None])[0]
    points = neutral.double().numpy()
    normals = vertex_normals(neutral, model.faces).double().numpy()
    hair = _hair_depth(model, points, look)
    grown = points + _hair_offset(points, normals, hair, look)
    grown += normals * (COLLAR * _smoothstep(collar_depth(points) / 0.003))[:, None]
    head = personal_head(model, torch.from_numpy(grown.astype(np.float32)))
    torso, faces = _torso(grown, model)
    count = len(model.uv)
    return Body(
        head=head,
        torso=torso,
        faces=torch.cat([model.faces, faces]).int(),
        faces_uv=torch.cat([model.faces_uv, torch.full_like(faces, count)]).int(),
        uv=torch.cat([model.uv, torch.tensor([TORSO_UV])]),
        hair=hair,
    )


def personal_head(model: HeadModel, neutral: torch.Tensor) -> HeadModel:
    """A head model whose template is `neutral` [V,3] and whose one identity mode does nothing."""
    arrays = {name: buffer.numpy() for name, buffer in model.named_buffers() if not name.startswith(("region_", "_"))}
    arrays["template"], arrays["shape_basis"] = neutral.numpy(), np.zeros((1, *neutral.shape), np.float32)
    regions = {name: mask.numpy() for name, mask in model.regions.items()}
    return HeadModel.from_arrays(
        {**arrays, "name": model.name, "expression_names": model.expression_names, "regions": regions}
    )


def vertex_normals(vertices: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    """Unit normals [V,3] of a mesh, faces weighted by area."""
    index = faces.long()
    corners = vertices[index]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = torch.zeros_like(vertices)
    for k in range(3):
        total.index_add_(0, index[:, k], normal)
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-12)


def distance_to(targets: np.ndarray, points: np.ndarray, reach: float = np.inf) -> np.ndarray:
    """Distance [P] from points [P,3] to the nearest of targets [K,3]; infinite beyond `reach`."""
    return np.asarray(cKDTree(targets).query(points, distance_upper_bound=reach)[0])


def signed_distance(points: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Distance [V] into a region of vertices: positive within `inside` [V], negative within `outside` [V].

    Vertices in neither get a large negative value.
    """
    depth = np.full(len(points), -1.0)
    depth[inside] = distance_to(points[outside], points[inside])
    depth[outside] = -distance_to(points[inside], points[outside])
    return depth


def _hair_depth(model: HeadModel, points: np.ndarray, look: Look) -> np.ndarray:
    """Signed distance [V] into the hair: the scalp, down to the ears at the sides, cut short at the nape."""
    regions = {name: mask.numpy() for name, mask in model.regions.items()}
    outer = ~np.any([regions[name] for name in INNER_REGIONS], axis=0)  # some skin belongs to no region
    scalp, ears = regions["scalp"] & ~regions["ears"], points[regions["ears"]]
    depth = signed_distance(points, scalp, outer & ~scalp)
    sideways = np.abs(ears[:, 0])
    helix = ears[sideways > np.quantile(sideways, 0.6), 1].max()  # the ear's region goes up further than the ear
    above, behind = points[:, 1] - (helix + 0.001), ears[:, 2].max() + 0.010 - points[:, 2]
    nape = points[:, 1] - (ears[:, 1].min() - 0.012)
    depth = np.where(outer, np.minimum(np.maximum(depth, np.minimum(above, behind)), nape), -1.0)
    depth = _smoothed(model.faces.numpy(), depth, outer, rounds=4)
    forehead = _smoothstep((points[:, 1] - 0.09) / 0.04) * _smoothstep((points[:, 2] - 0.02) / 0.05)
    aside = np.minimum(np.square((points[:, 0] - look.parting) / 0.05), 2.0)
    return depth - (look.hairline + look.temples * aside) * forehead


def _smoothed(faces: np.ndarray, values: np.ndarray, where: np.ndarray, rounds: int) -> np.ndarray:
    """Average values [V] with their neighbours among `where`."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = edges[where[edges].all(1)]
    edges = np.concatenate([edges, edges[:, ::-1]])
    count = np.maximum(np.bincount(edges[:, 0], minlength=len(values)), 1)
    for _ in range(rounds):
        mean = np.bincount(edges[:, 0], values[edges[:, 1]], minlength=len(values)) / count
        values = np.where(where, 0.5 * values + 0.5 * mean, values)
    return values


def _hair_offset(points: np.ndarray, normals: np.ndarray, depth: np.ndarray, look: Look) -> np.ndarray:
    """Hair stands off the scalp [V,3], more on the top than on the sides, and rises smoothly from the hairline."""
    height = _smoothstep((points[:, 1] - 0.08) / 0.11)
    length = look.hair_length * (0.22 + 0.78 * height)
    length = length * (1 + 0.25 * np.sin(60 * points[:, 0] + 9 * look.hair_length / 0.02) * height)
    return normals * (length * _smoothstep(depth / (0.040 - 0.018 * height)))[:, None]


def collar_depth(points: np.ndarray) -> np.ndarray:
    """Depth [...] of points [...,3] below the neckline of a shirt, which is lower at the throat than at the nape."""
    return np.interp(points[..., 2], [-0.06, 0.05], [-0.050, -0.072]) - points[..., 1]


def _torso(points: np.ndarray, model: HeadModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices [T,3] and faces [F,3] of shoulders and chest; the first ring of faces hangs on the neck's edge."""
    edge = np.flatnonzero(model.regions["boundary_neck"].numpy())
    middle = points[edge].mean(0)
    angle = np.arctan2(points[edge, 2] - middle[2], points[edge, 0] - middle[0])
    edge, angle = edge[np.argsort(angle)], np.sort(angle)
    x, z = (np.sign(wave) * np.abs(wave) ** 0.8 for wave in (np.cos(angle), np.sin(angle)))  # shoulders are square
    knots = np.linspace(0, 1, len(_PROFILE))
    profile = PchipInterpolator(knots, _PROFILE)(np.linspace(0, 1, _TORSO_RINGS)[1:])
    rings = []
    for drop, width, depth, along, turned in profile:
        height = (1 - turned) * points[edge, 1] + turned * middle[1] - drop
        outline = np.stack([width * x, height, along + depth * z], -1)
        near = points[edge] - [0, drop, 0]
        rings.append((1 - turned) * near + turned * outline)
    count, n = len(points), len(edge)
    index = np.concatenate([edge[None], count + np.arange(len(rings) * n).reshape(-1, n)])
    upper, lower = index[:-1], index[1:]
    following_upper, following_lower = np.roll(upper, -1, 1), np.roll(lower, -1, 1)
    faces = np.concatenate([
        np.stack([upper, following_upper, lower], -1).reshape(-1, 3),
        np.stack([following_upper, following_lower, lower], -1).reshape(-1, 3),
    ])  # fmt: skip
    return torch.from_numpy(np.concatenate(rings).astype(np.float32)), torch.from_numpy(faces)


def _smoothstep(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
