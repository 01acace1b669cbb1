"""The source head: ICT-FaceKit light (MIT), its parts, half meshes, feature lines and wanted edge lengths.

Everything here is in the source's unit (about one centimetre) and in its axes: x to the subject's left, y up,
z forward.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, identity, vstack
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from open_head.remesh import Source

# Polygon and vertex ranges of the parts, from the table in ICT-FaceKit's README; the tongue is an island of its uv.
POLYGONS = {
    "face": (0, 9230),
    "head": (9230, 11144),
    "mouth": (11144, 13226),
    "socket_left": (13226, 13630),
    "socket_right": (13630, 14034),
    "gums": (14034, 17006),
    "tongue": (16572, 17006),
}
VERTICES = {
    "face": (0, 9409),
    "narrow_face": (0, 6706),
    "skin": (0, 14062),
    "gums": (14062, 17039),
    "teeth": (17039, 21451),
    "sclera_left": (21451, 22221),
    "sclera_right": (23021, 23791),
}
# First vertex of the teeth on the subject's left, upper then lower, from the front to the second molar, and the end.
TEETH_LEFT = {
    "upper": [
        (18067, 18143),
        (17991, 18067),
        (17895, 17991),
        (17730, 17895),
        (17607, 17730),
        (17416, 17607),
        (17230, 17416),
    ],
    "lower": [
        (20263, 20349),
        (20169, 20263),
        (20079, 20169),
        (19952, 20079),
        (19814, 19952),
        (19602, 19814),
        (19426, 19602),
    ],
}
SEAM, LID, LIP, CUT, PART, RING = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Ict:
    """Neutral [N, 3], triangles [F, 3], their polygon [F], identity [100, N, 3], expressions by name, mirror [N].

    `polygons` [P, 4] are the quads (-1 pads a triangle).
    """

    neutral: np.ndarray
    triangles: np.ndarray
    polygon: np.ndarray
    identity: np.ndarray
    expressions: dict[str, np.ndarray]
    mirror: np.ndarray
    landmarks68: np.ndarray
    polygons: np.ndarray

    def part(self, name: str) -> np.ndarray:
        """Triangles [n, 3] of a part of POLYGONS."""
        first, end = POLYGONS[name]
        return self.triangles[(self.polygon >= first) & (self.polygon < end)]


def load_ict(folder: Path) -> Ict:
    """Read `ict_facekit_light_f16.npz` and `vertex_indices.json`.

    Each quad is split along its shorter diagonal. The mirror permutation is found part by part, since the parts touch.
    """
    data = np.load(folder / "ict_facekit_light_f16.npz", allow_pickle=False)
    neutral, polygons = data["neutral"].astype(np.float64), data["faces"]
    quad = polygons[:, 3] >= 0
    corner = neutral[polygons]
    swap = np.linalg.norm(corner[:, 1] - corner[:, 3], axis=1) < np.linalg.norm(corner[:, 0] - corner[:, 2], axis=1)
    index = np.arange(len(polygons))
    pieces, owner = [], []
    for mask, pattern in (
        (~quad, (0, 1, 2)),
        (quad & ~swap, (0, 1, 2)),
        (quad & ~swap, (0, 2, 3)),
        (quad & swap, (0, 1, 3)),
        (quad & swap, (1, 2, 3)),
    ):
        pieces.append(polygons[mask][:, pattern])
        owner.append(index[mask])
    order = np.argsort(np.concatenate(owner), kind="stable")
    mirror = np.arange(len(neutral))
    flipped = neutral * [-1, 1, 1]
    for first, end in (VERTICES["skin"], VERTICES["gums"], VERTICES["teeth"]):
        mirror[first:end] = first + cKDTree(neutral[first:end]).query(flipped[first:end])[1]
    mirror[21451:23021], mirror[23021:24591] = np.arange(23021, 24591), np.arange(21451, 23021)
    pair = (mirror[mirror] == np.arange(len(mirror)))[:, None]
    neutral = np.where(pair, 0.5 * (neutral + neutral[mirror] * [-1, 1, 1]), neutral)
    landmarks = _landmark_list(folder)
    names = [str(n) for n in data["expression_names"]]
    return Ict(
        neutral,
        np.concatenate(pieces)[order].astype(np.int64),
        np.concatenate(owner)[order],
        data["identity_deltas"].astype(np.float64),
        dict(zip(names, data["expression_deltas"].astype(np.float64), strict=True)),
        mirror,
        landmarks,
        polygons.astype(np.int64),
    )


def _landmark_list(folder: Path) -> np.ndarray:
    """The 68 Multi-PIE vertices [68] from the JSON file."""
    content = json.loads((folder / "vertex_indices.json").read_text())
    return np.array(content["idx_to_landmark_verts"], dtype=np.int64)


def edges_of(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unique edges [E, 2] and how many faces use each [E]."""
    e = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    return np.unique(e, axis=0, return_counts=True)  # type: ignore[return-value]


def shared_edges(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Edges [K, 2] that two triangle lists have in common."""
    a, b = edges_of(first)[0], edges_of(second)[0]
    both, count = np.unique(np.concatenate([a, b]), axis=0, return_counts=True)
    return both[count == 2]


def clip(points: np.ndarray, faces: np.ndarray, value: np.ndarray) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """Cut a mesh where a vertex function is zero and keep the positive side.

    Args:
        points: [N, 3]; faces: [F, 3]; value: [N].

    Returns:
        weights [N + K, N] of the old and the new vertices, faces [G, 3], cut edges [C, 2].
    """
    value = np.where(np.abs(value) < 1e-3, 1e-3, value)
    made: dict[tuple[int, int], int] = {}
    rows: list[tuple[int, int, float]] = []

    def crossing(u: int, v: int) -> int:
        key = (min(u, v), max(u, v))
        if key not in made:
            made[key] = len(points) + len(made)
            rows.append((*key, float(value[key[0]] / (value[key[0]] - value[key[1]]))))
        return made[key]

    kept, cut = [], []
    for f in faces.tolist():
        inside = [value[v] > 0 for v in f]
        if all(inside):
            kept.append(f)
            continue
        if not any(inside):
            continue
        ring: list[int] = []
        fresh: list[int] = []
        for i in range(3):
            u, v = f[i], f[(i + 1) % 3]
            if inside[i]:
                ring.append(u)
            if inside[i] != inside[(i + 1) % 3]:
                fresh.append(crossing(u, v))
                ring.append(fresh[-1])
        kept.extend([ring[0], ring[k], ring[k + 1]] for k in range(1, len(ring) - 1))
        cut.append(sorted(fresh))
    r = np.arange(len(rows)).repeat(2)
    columns = np.array([[a, b] for a, b, _ in rows], dtype=np.int64).reshape(-1)
    values = np.array([[1 - t, t] for _, _, t in rows]).reshape(-1)
    extra = csr_matrix((values, (r, columns)), shape=(len(rows), len(points)))
    return vstack([identity(len(points), format="csr"), extra]).tocsr(), np.array(kept), np.array(cut).reshape(-1, 2)


def compact(weights: csr_matrix, faces: np.ndarray, *others: np.ndarray) -> tuple:
    """Drop unused vertices; `others` are index arrays [K, 2] into the same vertices."""
    used = np.unique(faces)
    new = np.full(weights.shape[0], -1)
    new[used] = np.arange(len(used))
    return weights[used], new[faces], *(new[o] for o in others)


def curvature_size(points: np.ndarray, faces: np.ndarray, tolerance: float) -> np.ndarray:
    """Edge length [N] at which a chord leaves the surface by `tolerance`, from the turn of the normal along edges."""
    normal = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
    vertex = np.zeros_like(points)
    for k in range(3):
        np.add.at(vertex, faces[:, k], normal)
    vertex /= np.maximum(np.linalg.norm(vertex, axis=1, keepdims=True), 1e-20)
    e = edges_of(faces)[0]
    length = np.linalg.norm(points[e[:, 0]] - points[e[:, 1]], axis=1)
    turn = np.arccos(np.clip((vertex[e[:, 0]] * vertex[e[:, 1]]).sum(1), -1, 1)) / np.maximum(length, 1e-6)
    curvature = np.zeros(len(points))
    for k in range(2):
        np.maximum.at(curvature, e[:, k], turn)
    return np.sqrt(8 * tolerance / np.maximum(curvature, 1e-3))


def limit_gradient(points: np.ndarray, faces: np.ndarray, size: np.ndarray, slope: float) -> np.ndarray:
    """Lower `size` [N] until it changes by at most `slope` per unit length along edges."""
    e = edges_of(faces)[0]
    reach = slope * np.linalg.norm(points[e[:, 0]] - points[e[:, 1]], axis=1)
    size = size.copy()
    for _ in range(200):
        before = size.copy()
        np.minimum.at(size, e[:, 0], before[e[:, 1]] + reach)
        np.minimum.at(size, e[:, 1], before[e[:, 0]] + reach)
        if np.allclose(before, size):
            break
    return size


def seam_features(points: np.ndarray, faces: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Boundary edges of a half mesh: SEAM on x = 0, otherwise PART, without those that `known` [K, 3] names."""
    e, count = edges_of(faces)
    boundary = e[count == 1]
    named = {(min(u, v), max(u, v)) for u, v, _ in known.tolist()}
    rows = [
        (u, v, SEAM if abs(points[u, 0]) + abs(points[v, 0]) < 1e-5 else PART)
        for u, v in boundary.tolist()
        if (u, v) not in named
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def quad_rings(polygons: np.ndarray, loop: np.ndarray, keep: tuple[int, ...]) -> np.ndarray:
    """Edges [K, 2] of the loops that run parallel to a vertex loop, `keep` rows away, along the quads' edges."""
    quads = polygons[polygons[:, 3] >= 0]
    e = np.unique(np.sort(np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)]), 1), axis=0)
    row = np.full(polygons.max() + 1, -1)
    row[loop] = 0
    for k in range(max(keep)):
        for i, j in ((0, 1), (1, 0)):
            near = (row[e[:, i]] == k) & (row[e[:, j]] < 0)
            row[e[near, j]] = k + 1
    return e[(row[e[:, 0]] == row[e[:, 1]]) & np.isin(row[e[:, 0]], keep)]


def crease_edges(points: np.ndarray, polygons: np.ndarray, degrees: float, least: int) -> np.ndarray:
    """Quad edges [K, 2] where the surface bends by more than `degrees`, in lines of at least `least` edges."""
    quads = polygons[polygons[:, 3] >= 0]
    normal = np.cross(points[quads[:, 2]] - points[quads[:, 0]], points[quads[:, 3]] - points[quads[:, 1]])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
    e = np.sort(np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)]), 1)
    order = np.lexsort((e[:, 1], e[:, 0]))
    e, owner = e[order], np.tile(np.arange(len(quads)), 4)[order]
    pair = np.flatnonzero((e[1:] == e[:-1]).all(1))
    bend = (normal[owner[pair]] * normal[owner[pair + 1]]).sum(1) < np.cos(np.deg2rad(degrees))
    edges = e[pair[bend]]
    graph = csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(points),) * 2)
    _, group = connected_components(graph, directed=False)
    return edges[np.bincount(group[edges[:, 0]], minlength=group.max() + 1)[group[edges[:, 0]]] >= least]


def split_chains(features: np.ndarray, corners: np.ndarray, count: int) -> np.ndarray:
    """Relabel feature edges [K, 3] so that each chain between corners has a label of its own.

    Chains break at `corners`, at vertices with other than two feature edges, and where the given label changes.
    """
    labels: list[list[int]] = [[] for _ in range(count)]
    for u, v, label in features.tolist():
        labels[u].append(label)
        labels[v].append(label)
    stop = np.array([len(x) != 2 or x[0] != x[1] for x in labels])
    stop[corners] = True
    row, column = [], []
    for k, (u, v, _) in enumerate(features.tolist()):
        for w in (u, v):
            if not stop[w]:
                row.append(k)
                column.append(w)
    k, n = len(features), count
    graph = csr_matrix((np.ones(len(row)), (row, column)), shape=(k, n))
    _, chain = connected_components(graph @ graph.T, directed=False)
    return np.concatenate([features[:, :2], chain[:, None]], 1)


def make_source(
    points: np.ndarray, faces: np.ndarray, features: np.ndarray, corners: np.ndarray, size: np.ndarray
) -> Source:
    """A remesh source with its boundary edges added to the features."""
    rest = seam_features(points, faces, features)
    every = np.concatenate([features.reshape(-1, 3), rest])
    degree: list[set[int]] = [set() for _ in points]
    for u, v, label in every.tolist():
        degree[u].add(label)
        degree[v].add(label)
    mixed = np.array([k for k, x in enumerate(degree) if len(x) > 1], dtype=np.int64)
    corners = np.unique(np.concatenate([corners, mixed]).astype(np.int64))
    return Source(points, faces, split_chains(every, corners, len(points)), corners, size)
