"""The parts of the open head: skin with eye sockets and mouth bag, eyeballs, teeth, gums and tongue.

Each part is a `Part`: rows of weights on the vertices of the source, so that the neutral and every morph follow by one
sparse product. Skin and gums are remeshed on the subject's left half and mirrored; teeth one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_matrix, vstack

from open_head.remesh import Source, remesh
from open_head.sources import (
    CUT,
    LID,
    LIP,
    POLYGONS,
    RING,
    TEETH_LEFT,
    Ict,
    clip,
    compact,
    crease_edges,
    curvature_size,
    edges_of,
    limit_gradient,
    make_source,
    quad_rings,
    shared_edges,
)


@dataclass
class Part:
    """weights [n, N] on source vertices; faces [m, 3]; mirror [n]; labels: name -> bool [n]."""

    weights: csr_matrix
    faces: np.ndarray
    mirror: np.ndarray
    labels: dict[str, np.ndarray] = field(default_factory=dict)


def mirrored(weights: csr_matrix, permutation: np.ndarray) -> csr_matrix:
    """Weights [n, N] of the mirrored points: columns sent through the source's mirror permutation."""
    w = weights.tocoo()
    return csr_matrix((w.data, (w.row, permutation[w.col])), shape=w.shape)


def whole_from_half(ict: Ict, weights: csr_matrix, faces: np.ndarray, labels: dict[str, np.ndarray]) -> Part:
    """Both halves from the left one; vertices on x = 0 are shared."""
    x = weights @ ict.neutral[:, 0]
    seam = np.abs(x) < 1e-5
    other = np.where(seam, np.arange(len(x)), -1)
    other[~seam] = len(x) + np.arange((~seam).sum())
    every = vstack([weights, mirrored(weights[~seam], ict.mirror)]).tocsr()
    mirror = np.concatenate([other, np.flatnonzero(~seam)])
    both = np.concatenate([faces, other[faces][:, [0, 2, 1]]])
    full = {}
    for name, mask in labels.items():
        if name.endswith("_left"):
            full[name] = np.concatenate([mask, np.zeros((~seam).sum(), bool)])
            full[name[:-5] + "_right"] = full[name][mirror]
        else:
            full[name] = np.concatenate([mask, mask[~seam]])
    return Part(every, both, mirror, full)


def symmetric(ict: Ict, field: np.ndarray) -> np.ndarray:
    """The symmetric part of a source displacement [N, 3]."""
    return 0.5 * (field + field[ict.mirror] * [-1, 1, 1])


def neck_plane(points: np.ndarray) -> np.ndarray:
    """Signed distance [N] above the plane where the neck is cut: a collar, lower in front than behind."""
    front, back = np.array([-14.3, 3.0]), np.array([-11.2, -9.0])  # (y, z)
    along = (front - back) / np.linalg.norm(front - back)
    normal = np.array([along[1], -along[0]])  # in (y, z), up
    return (points[:, 1:] - back) @ normal


def _distance_to(points: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    return cKDTree(seeds).query(points)[0]


def _skin_size(
    points: np.ndarray, faces: np.ndarray, where: dict[str, np.ndarray], stretched: np.ndarray
) -> np.ndarray:
    """Wanted edge length [N]: short at lids, lips, nostrils and ears, long on skull, neck and hidden surfaces."""
    bent = curvature_size(points, faces, 0.02)
    narrow = where["narrow"]
    size = np.where(narrow, 0.62, np.where(where["face"], 1.1, 1.7))
    floor = np.where(narrow, 0.36, 0.7)
    ear = (np.abs(points[:, 0]) > 6.8) & (points[:, 1] > -3) & (points[:, 1] < 5) & (points[:, 2] < 3.5)
    floor[ear], size[ear] = 0.46, 0.8
    size = np.clip(bent, floor, size)
    lid, lip = _distance_to(points, points[where["lid"]]), _distance_to(points, points[where["lip"]])
    size = np.minimum(size, 0.23 + 0.30 * np.maximum(lid - 0.3, 0))
    size = np.minimum(size, 0.26 + 0.22 * np.maximum(lip - 0.7, 0))
    size = limit_gradient(points, faces, size, 0.35)
    hidden = where["socket"] | where["mouth"]
    depth = np.where(where["socket"], lid, lip)
    inner = np.where(
        where["socket"], 0.22 + 0.5 * np.maximum(depth - 0.2, 0), 0.26 + 0.45 * np.maximum(depth - 0.25, 0)
    )
    size = np.where(hidden, np.minimum(inner, np.where(where["socket"], 0.8, 1.3)), size)
    # Where the mouth's corners open, short edges become long ones.
    return np.where(lip < 1.5, size / np.clip(stretched / 1.2, 1.0, 2.6), size)


def stretch(ict: Ict, weights: csr_matrix, faces: np.ndarray) -> np.ndarray:
    """By how much the expressions lengthen the edges around each vertex [N] (weights of the vertices on the source)."""
    e = edges_of(faces)[0]
    points = weights @ ict.neutral
    rest = np.linalg.norm(points[e[:, 0]] - points[e[:, 1]], axis=1)
    most = np.ones(len(e))
    for name in (
        "jawOpen",
        "mouthFunnel",
        "mouthSmile_L",
        "mouthStretch_L",
        "mouthUpperUp_L",
        "mouthLowerDown_L",
        "mouthLeft",
        "mouthRight",
        "mouthPucker",
    ):
        moved = points + weights @ ict.expressions[name]
        most = np.maximum(most, np.linalg.norm(moved[e[:, 0]] - moved[e[:, 1]], axis=1) / np.maximum(rest, 0.03))
    out = np.ones(len(points))
    for k in range(2):
        np.maximum.at(out, e[:, k], most)
    return out


def feature_lines(ict: Ict, lid: np.ndarray, lip: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """Source edges [K, 2] besides the rims that the skin keeps: rows along lids and lips, creases of ears and nostrils.

    The rows of the lids are the two edges of the margin and the start of the lid's skin; those of the lips end within
    the red. Only edges that are still in the half (`faces` over `count` vertices) are given.
    """
    first = slice(*POLYGONS["face"])
    outer = ict.polygons[first]
    p = ict.neutral
    rings = [
        quad_rings(outer, lid.ravel(), (1, 4, 7)),
        quad_rings(outer, lip.ravel(), (2, 5, 9)),
        quad_rings(ict.polygons[slice(*POLYGONS["socket_left"])], lid.ravel(), (1,)),
        quad_rings(ict.polygons[slice(*POLYGONS["mouth"])], lip.ravel(), (2,)),
    ]
    crease = crease_edges(p, ict.polygons[: POLYGONS["head"][1]], 30.0, 4)
    middle = p[crease].mean(1)
    clear = (_distance_to(middle, p[lid.ravel()]) > 0.8) & (_distance_to(middle, p[lip.ravel()]) > 1.2)
    every = np.concatenate([*rings, crease[clear]])
    seam = (np.abs(p[every, 0]) < 1e-5).all(1)
    present = {tuple(x) for x in edges_of(faces)[0].tolist()}
    taken = {tuple(x) for x in np.sort(np.concatenate([lid, lip]), 1).tolist()}
    unique = np.unique(np.sort(every[~seam], 1), axis=0)
    return np.array([x for x in unique.tolist() if tuple(x) in present and tuple(x) not in taken], dtype=np.int64)


def skin(ict: Ict) -> Part:
    """The closed skin: face, head, neck to the collar, eye sockets and mouth bag."""
    names = ("face", "head", "mouth", "socket_left", "socket_right")
    tri = {n: ict.part(n) for n in names}
    half = {n: t[ict.neutral[t][..., 0].mean(1) > 0] for n, t in tri.items()}
    faces = np.concatenate([half[n] for n in names])
    weights, faces, cut = clip(ict.neutral, faces, neck_plane(ict.neutral))
    lid = shared_edges(half["face"], half["socket_left"])
    lip = shared_edges(half["face"], half["mouth"])
    lines = feature_lines(ict, lid, lip, faces, weights.shape[0])
    weights, faces, cut, lid, lip, lines = compact(weights, faces, cut, lid, lip, lines)
    points = weights @ ict.neutral
    columns = np.abs(weights)

    def mask(vertices: np.ndarray) -> np.ndarray:
        chosen = np.zeros(len(ict.neutral))
        chosen[vertices] = 1
        return np.asarray(columns @ chosen > 0.5)

    where = {
        "narrow": mask(np.arange(6706)),
        "face": mask(np.arange(9409)),
        "lid": np.unique(lid),
        "lip": np.unique(lip),
        "socket": mask(np.setdiff1d(tri["socket_left"], tri["face"])),
        "mouth": mask(np.setdiff1d(tri["mouth"], tri["face"])),
    }
    features = np.concatenate(
        [np.c_[e, np.full(len(e), n)] for e, n in ((lid, LID), (lip, LIP), (cut, CUT), (lines, RING))]
    )
    eye, mouth = where["lid"], where["lip"]
    corners = np.array(
        [eye[np.argmin(points[eye, 0])], eye[np.argmax(points[eye, 0])], mouth[np.argmax(points[mouth, 0])]]
    )
    size = _skin_size(points, faces, where, stretch(ict, weights, faces))
    # With the mouth shut an edge could join the lips; so the remeshing sees it open. Weights do not depend on the pose.
    opened = points + 0.5 * (weights @ symmetric(ict, ict.expressions["jawOpen"]))
    source = make_source(opened, faces, features, corners, size)
    new, new_faces = remesh(source)
    seed = np.zeros((len(points), 6))
    for k, v in enumerate((np.unique(lid), np.unique(lip), np.unique(cut))):
        seed[v, k] = 1
    on = np.asarray(new @ seed > 0.999)
    part_of = np.stack([where["socket"], where["mouth"], where["face"], where["narrow"]], 1).astype(float)
    soft = np.asarray(new @ part_of)
    labels = {
        "lid_rim_left": on[:, 0],
        "lip_rim": on[:, 1],
        "boundary_neck": on[:, 2],
        "socket_left": (soft[:, 0] > 1e-6) & ~on[:, 0],
        "bag": (soft[:, 1] > 1e-6) & ~on[:, 1],
        "ict_face": soft[:, 2] > 0.5,
        "ict_narrow": soft[:, 3] > 0.5,
    }
    return whole_from_half(ict, (new @ weights).tocsr(), new_faces, labels)


def gums(ict: Ict) -> Part:
    """Gums and tongue, one open surface inside the mouth."""
    tri = ict.part("gums")
    half = tri[ict.neutral[tri][..., 0].mean(1) > 0]
    from scipy.sparse import identity

    weights, faces = compact(identity(len(ict.neutral), format="csr"), half)
    points = weights @ ict.neutral
    is_tongue = (
        (np.abs(points[:, 0]) < 2.15)
        & (points[:, 1] < -1.9)
        & (points[:, 1] > -4.9)
        & (points[:, 2] < 9.6)
        & (points[:, 2] > 1.0)
    )
    front = np.clip((points[:, 2] - 3.0) / 6.0, 0, 1)
    size = np.where(is_tongue, 0.75 - 0.2 * front, 1.0 - 0.42 * front)
    size = limit_gradient(points, faces, size, 0.4)
    source = make_source(points, faces, np.zeros((0, 3), np.int64), np.zeros(0, np.int64), size)
    new, new_faces = remesh(source)
    tongue = np.zeros(len(ict.neutral))
    tongue[ict.part("tongue")] = 1
    final = (new @ weights).tocsr()
    return whole_from_half(ict, final, new_faces, {"tongue": final @ tongue > 0.999})


def _close_holes(weights: csr_matrix, faces: np.ndarray) -> tuple[csr_matrix, np.ndarray]:
    """Close each boundary loop by a fan around its centre."""
    count = edges_of(faces)[1]
    if not (count == 1).any():
        return weights, faces
    directed = {(int(f[i]), int(f[(i + 1) % 3])) for f in faces for i in range(3)}
    step = {b: a for a, b in directed if (b, a) not in directed}  # walk against the faces' direction
    while step:  # a molar has one hole for each root
        start = min(step)
        loop, follow = [start], step.pop(start)
        while follow != start:
            loop.append(follow)
            follow = step.pop(follow)
        centre = csr_matrix(weights[loop].mean(0))
        fan = [[loop[i], loop[(i + 1) % len(loop)], weights.shape[0]] for i in range(len(loop))]
        weights, faces = vstack([weights, centre]).tocsr(), np.concatenate([faces, np.array(fan)])
    return weights, faces


def tooth(ict: Ict, first: int, end: int, upper: bool, size: float) -> tuple[csr_matrix, np.ndarray]:
    """One tooth without its root, closed: weights, faces."""
    mine = ((ict.triangles >= first) & (ict.triangles < end)).all(1)
    faces, p = ict.triangles[mine], ict.neutral
    y = p[first:end, 1]
    crown = 1.35 if upper else 1.2
    value = (y.min() + crown) - p[:, 1] if upper else p[:, 1] - (y.max() - crown)
    weights, faces, _ = clip(p, faces, value)
    weights, faces = compact(weights, faces)
    weights, faces = _close_holes(weights, faces)
    points = weights @ p
    source = Source(points, faces, np.zeros((0, 3), np.int64), np.zeros(0, np.int64), np.full(len(points), size))
    new, faces = remesh(source, rounds=8)
    return (new @ weights).tocsr(), faces


def teeth(ict: Ict) -> Part:
    """Both rows without the third molars."""
    all_weights, all_faces, upper_mask, start = [], [], [], 0
    for row, ranges in TEETH_LEFT.items():
        for k, (first, end) in enumerate(ranges):
            weights, faces = tooth(ict, first, end, row == "upper", (0.21, 0.23, 0.25, 0.34, 0.36, 0.42, 0.44)[k])
            all_weights.append(weights)
            all_faces.append(faces + start)
            upper_mask.append(np.full(weights.shape[0], row == "upper"))
            start += weights.shape[0]
    weights, faces, upper = vstack(all_weights).tocsr(), np.concatenate(all_faces), np.concatenate(upper_mask)
    n = weights.shape[0]
    mirror = np.concatenate([n + np.arange(n), np.arange(n)])
    every = vstack([weights, mirrored(weights, ict.mirror)]).tocsr()
    both = np.concatenate([upper, upper])
    return Part(
        every, np.concatenate([faces, faces[:, [0, 2, 1]] + n]), mirror, {"teeth_upper": both, "teeth_lower": ~both}
    )
