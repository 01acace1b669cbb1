"""Adaptive remeshing of a source surface with exact correspondence to it.

Edges shorter than the wanted local length are collapsed, the triangulation is made locally Delaunay, and the vertices
are relaxed along the surface (the incremental scheme of Botsch and Kobbelt, "A remeshing approach to multiresolution
modeling", SGP 2004, without splits, since the source is finer than the result). Each output vertex lies on a source
triangle and is returned as a barycentric combination of its corners, so every morph of the source transfers exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

INTERIOR, FEATURE, CORNER = 0, 1, 2


@dataclass(frozen=True)
class Source:
    """A triangle mesh with the feature edges that a remesh must keep.

    vertices [N, 3]; faces [F, 3]; features [K, 3] (two vertices, label); corners [C] vertices that stay;
    size [N] wanted edge length.
    """

    vertices: np.ndarray
    faces: np.ndarray
    features: np.ndarray
    corners: np.ndarray
    size: np.ndarray


def closest_on_triangles(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Barycentric coordinates [.., 3] of the point of each triangle a, b, c that is nearest to p (all [.., 3])."""
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    det = np.maximum(d00 * d11 - d01 * d01, 1e-20)
    v = (d11 * d20 - d01 * d21) / det
    w = (d00 * d21 - d01 * d20) / det
    inner = np.stack([1 - v - w, v, w], -1)
    best, best_distance = inner, np.where((inner >= 0).all(-1), 0.0, np.inf)

    def edge(origin: np.ndarray, end: np.ndarray, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        step = end - origin
        t = np.clip(((p - origin) * step).sum(-1) / np.maximum((step * step).sum(-1), 1e-20), 0, 1)
        coordinates = np.zeros_like(inner)
        coordinates[..., i], coordinates[..., j] = 1 - t, t
        return coordinates, ((origin + t[..., None] * step - p) ** 2).sum(-1)

    for origin, end, i, j in ((a, b, 0, 1), (b, c, 1, 2), (c, a, 2, 0)):
        coordinates, distance = edge(origin, end, i, j)
        better = distance < best_distance
        best = np.where(better[..., None], coordinates, best)
        best_distance = np.where(better, distance, best_distance)
    return best


class Surface:
    """Nearest points on a triangle mesh among the parts that face the same way as the query's normal."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, normal_scale: float, spacing: float) -> None:
        self.vertices, self.faces, self.scale = vertices, faces, normal_scale
        a, b, c = (vertices[faces[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        self.normals = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
        longest = np.maximum.reduce([np.linalg.norm(x, axis=1) for x in (b - a, c - b, a - c)])
        samples, owners = [], []
        for level in range(1, 9):
            mine = np.flatnonzero(np.clip(np.ceil(longest / spacing), 1, 8) == level)
            for i in range(level + 1):
                for j in range(level + 1 - i):
                    w = (np.array([i, j, level - i - j]) + 1 / 3) / (level + 1)
                    samples.append(w[0] * a[mine] + w[1] * b[mine] + w[2] * c[mine])
                    owners.append(mine)
        self.owner = np.concatenate(owners)
        self.tree = cKDTree(np.hstack([np.concatenate(samples), normal_scale * self.normals[self.owner]]))

    def closest(self, points: np.ndarray, normals: np.ndarray, candidates: int = 16) -> tuple[np.ndarray, np.ndarray]:
        """Face [n] and barycentric [n, 3] of the nearest surface point for points [n, 3] with unit normals [n, 3]."""
        _, index = self.tree.query(np.hstack([points, self.scale * normals]), k=min(candidates, len(self.owner)))
        face = self.owner[index]
        corners = self.vertices[self.faces[face]]
        p = np.broadcast_to(points[:, None], (*corners.shape[:2], 3))
        weights = closest_on_triangles(p, corners[..., 0, :], corners[..., 1, :], corners[..., 2, :])
        distance = np.linalg.norm((weights[..., None] * corners).sum(-2) - p, axis=-1)
        misfit = 1 - (self.normals[face] * normals[:, None]).sum(-1)
        best = np.argmin(distance + 0.15 * self.scale * misfit, 1)
        row = np.arange(len(points))
        return face[row, best], weights[row, best]


class _Mesh:
    """Editable half-open triangle mesh: faces as lists, faces around each vertex as sets."""

    def __init__(self, source: Source) -> None:
        self.p = source.vertices.copy()
        self.size = source.size.copy()
        self.faces: list[list[int] | None] = [list(map(int, f)) for f in source.faces]
        self.around: list[set[int]] = [set() for _ in self.p]
        for k, f in enumerate(source.faces):
            for v in f:
                self.around[v].add(k)
        self.feature: dict[tuple[int, int], int] = {}
        label_of: list[list[int]] = [[] for _ in self.p]
        for u, v, label in source.features:
            self.feature[(min(u, v), max(u, v))] = int(label)
            label_of[u].append(int(label))
            label_of[v].append(int(label))
        self.seam = np.abs(self.p[:, 0]) < 1e-6
        self.kind = np.zeros(len(self.p), int)
        for v, labels in enumerate(label_of):
            if labels:
                self.kind[v] = FEATURE if len(labels) == 2 and labels[0] == labels[1] else CORNER
        self.kind[source.corners] = CORNER
        self.label = np.array([labels[0] if labels else -1 for labels in label_of])

    def neighbours(self, v: int) -> set[int]:
        out = {w for k in self.around[v] for w in self.faces[k]}  # type: ignore[union-attr]
        out.discard(v)
        return out

    def normal(self, f: list[int]) -> np.ndarray:
        a, b, c = self.p[f[0]], self.p[f[1]], self.p[f[2]]
        u, v = b - a, c - a
        return np.array([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])

    def edges(self) -> np.ndarray:
        f = np.array([x for x in self.faces if x is not None])
        e = np.sort(np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]), 1)
        return np.unique(e, axis=0)

    def try_collapse(self, u: int, v: int, stretch: float) -> bool:
        """Remove u, keep v where it is; refused where topology, features, normals or edge lengths would suffer."""
        on_feature = (min(u, v), max(u, v)) in self.feature
        if self.kind[u] == CORNER or (self.kind[u] == FEATURE and not on_feature):
            return False
        shared = self.around[u] & self.around[v]
        ring_u, ring_v = self.neighbours(u), self.neighbours(v)
        if len(ring_u & ring_v) != len(shared) or len(shared) == 0:
            return False
        if any(len(self.neighbours(w)) <= 3 for w in ring_u & ring_v):
            return False  # two triangles over the same three vertices would be left
        if self.kind[u] == FEATURE and any(
            (min(w, v), max(w, v)) in self.feature and (min(w, u), max(w, u)) in self.feature for w in ring_u & ring_v
        ):
            return False  # the last triangle of a closed line
        # An edge that joins two seam vertices across the surface would double when the half is mirrored.
        if self.seam[v] and any(
            self.seam[w] and not (self.seam[u] and (min(u, w), max(u, w)) in self.feature)
            for w in ring_u - ring_v - {v}
        ):
            return False
        limit = stretch * 0.5 * (self.size[u] + self.size[v])
        if any(
            np.linalg.norm(self.p[w] - self.p[v]) > max(limit, np.linalg.norm(self.p[w] - self.p[u]) * 1.02)
            for w in ring_u - ring_v - {v}
        ):
            return False
        for k in self.around[u] - shared:
            f = self.faces[k]
            before, after = self.normal(f), self.normal([v if w == u else w for w in f])
            if before @ after < 0.5 * np.linalg.norm(before) * np.linalg.norm(after) or after @ after < 1e-12:
                return False
        self._collapse(u, v, shared)
        return True

    def _collapse(self, u: int, v: int, shared: set[int]) -> None:
        for k in shared:
            for w in self.faces[k]:
                self.around[w].discard(k)
            self.faces[k] = None
        for k in self.around[u]:
            f = self.faces[k]
            f[f.index(u)] = v
            self.around[v].add(k)
        self.around[u] = set()
        for edge in [e for e in self.feature if u in e]:
            label = self.feature.pop(edge)
            other = edge[0] if edge[1] == u else edge[1]
            if other != v:
                self.feature[(min(other, v), max(other, v))] = label

    def collapse_pass(self, short: float, stretch: float) -> int:
        e = self.edges()
        ratio = np.linalg.norm(self.p[e[:, 0]] - self.p[e[:, 1]], axis=1) / (
            0.5 * (self.size[e[:, 0]] + self.size[e[:, 1]])
        )
        done, touched = 0, set()
        for i in np.argsort(ratio, kind="stable"):
            if ratio[i] > short:
                break
            u, v = int(e[i, 0]), int(e[i, 1])
            if u in touched or v in touched:
                continue
            # The less constrained end goes; between equals the one with the larger wanted size.
            first = (self.kind[u], -self.size[u]) <= (self.kind[v], -self.size[v])
            for x, y in ((u, v), (v, u)) if first else ((v, u), (u, v)):
                if self.try_collapse(x, y, stretch):
                    touched |= {y} | self.neighbours(y)
                    done += 1
                    break
        return done

    def flip_pass(self, surface: Surface | None = None) -> int:
        """Flip edges towards Delaunay and, with a surface, towards the diagonal that lies on it."""
        wing: dict[tuple[int, int], list[int]] = {}
        for k, f in enumerate(self.faces):
            if f is not None:
                for i in range(3):
                    a, b = f[i], f[(i + 1) % 3]
                    wing.setdefault((min(a, b), max(a, b)), []).append(k)
        inner = [(e, pair) for e, pair in sorted(wing.items()) if len(pair) == 2 and e not in self.feature]
        gain = np.zeros(len(inner)) if surface is None else self._surface_gain(inner, surface)
        done, dirty = 0, set()
        for ((u, v), pair), extra in zip(inner, gain, strict=True):
            if pair[0] in dirty or pair[1] in dirty:
                continue
            if self._try_flip(u, v, pair, float(extra)):
                dirty |= set(pair)
                done += 1
        return done

    def _surface_gain(self, inner: list, surface: Surface) -> np.ndarray:
        """How much nearer to the surface the other diagonal's middle is [n]; 3 % of its length counts as a radian."""
        quad = np.array([(*e, *(next(w for w in self.faces[k] if w not in e) for k in pair)) for e, pair in inner])
        normal = np.array([self.normal(self.faces[pair[0]]) + self.normal(self.faces[pair[1]]) for _, pair in inner])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
        error = []
        for i, j in ((0, 1), (2, 3)):
            middle = 0.5 * (self.p[quad[:, i]] + self.p[quad[:, j]])
            face, bary = surface.closest(middle, normal)
            error.append(
                np.linalg.norm((bary[..., None] * surface.vertices[surface.faces[face]]).sum(1) - middle, axis=1)
            )
        length = np.linalg.norm(self.p[quad[:, 0]] - self.p[quad[:, 1]], axis=1)
        return np.clip((error[0] - error[1]) / (0.03 * length), -2, 2)

    def _try_flip(self, u: int, v: int, pair: list[int], gain: float) -> bool:
        f, g = self.faces[pair[0]], self.faces[pair[1]]
        if f[(f.index(u) + 1) % 3] != v:
            f, g = g, f
        a, b = next(w for w in f if w not in (u, v)), next(w for w in g if w not in (u, v))
        if len(self.neighbours(u)) <= 3 or len(self.neighbours(v)) <= 3:
            return False
        if b in self.neighbours(a) or (self.seam[a] and self.seam[b]):
            return False

        def angle(o: int) -> float:
            x, y = self.p[u] - self.p[o], self.p[v] - self.p[o]
            return float(np.arctan2(np.linalg.norm(np.cross(x, y)), x @ y))

        if angle(a) + angle(b) + gain <= np.pi + 0.02:
            return False
        n1, n2 = self.normal(f), self.normal(g)
        mean = n1 + n2
        m1, m2 = self.normal([a, b, v]), self.normal([b, a, u])
        for m in (m1, m2):
            if m @ mean < 0.7 * np.linalg.norm(m) * np.linalg.norm(mean):
                return False
        if gain <= 0 and n1 @ n2 < 0.6 * np.linalg.norm(n1) * np.linalg.norm(n2):
            return False
        k, m = pair
        for w in (u, v):
            self.around[w].discard(k)
            self.around[w].discard(m)
        self.faces[k], self.faces[m] = [a, u, b], [b, v, a]
        if self.normal(self.faces[k]) @ mean < 0:
            self.faces[k], self.faces[m] = [a, b, u], [b, a, v]
        for i in (k, m):
            for w in self.faces[i]:
                self.around[w].add(i)
        return True


def _project_features(mesh: _Mesh, source: Source, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest point of the own source polyline for feature vertices: source edge [n, 2] and weights [n, 2]."""
    edge, weight = np.zeros((len(live), 2), int), np.zeros((len(live), 2))
    for label in np.unique(mesh.label[live]):
        mine = np.flatnonzero(mesh.label[live] == label)
        segments = source.features[source.features[:, 2] == label][:, :2]
        a, b = source.vertices[segments[:, 0]], source.vertices[segments[:, 1]]
        p = mesh.p[live[mine]][:, None]
        t = np.clip(((p - a) * (b - a)).sum(-1) / np.maximum(((b - a) ** 2).sum(-1), 1e-20), 0, 1)
        best = np.argmin(((a + t[..., None] * (b - a) - p) ** 2).sum(-1), 1)
        row = np.arange(len(mine))
        edge[mine] = segments[best]
        weight[mine] = np.stack([1 - t[row, best], t[row, best]], 1)
    return edge, weight


def _vertex_normals(p: np.ndarray, f: np.ndarray) -> np.ndarray:
    n = np.cross(p[f[:, 1]] - p[f[:, 0]], p[f[:, 2]] - p[f[:, 0]])
    out = np.zeros_like(p)
    for k in range(3):
        np.add.at(out, f[:, k], n)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-20)


def _relax(mesh: _Mesh, source: Source, surface: Surface, step: float) -> tuple[np.ndarray, ...]:
    """Move vertices to the size-weighted centre of their ring, within the surface or the feature line; hosts."""
    f = np.array([x for x in mesh.faces if x is not None])
    p = mesh.p
    area = np.linalg.norm(np.cross(p[f[:, 1]] - p[f[:, 0]], p[f[:, 2]] - p[f[:, 0]]), axis=1)
    weight = area / mesh.size[f].mean(1) ** 2
    total, mass = np.zeros_like(p), np.zeros(len(p))
    for k in range(3):
        np.add.at(total, f[:, k], weight[:, None] * p[f].mean(1))
        np.add.at(mass, f[:, k], weight)
    normal = _vertex_normals(p, f)
    live = np.unique(f)
    inner = live[mesh.kind[live] == INTERIOR]
    move = total[inner] / mass[inner, None] - p[inner]
    move -= (move * normal[inner]).sum(1, keepdims=True) * normal[inner]
    p[inner] += step * move
    feature = live[mesh.kind[live] == FEATURE]
    near: dict[int, list[int]] = {int(v): [] for v in feature}
    for u, v in mesh.feature:
        for x, y in ((u, v), (v, u)):
            if x in near:
                near[x].append(y)
    if len(feature):
        p[feature] += step * (np.stack([p[near[int(v)]].mean(0) for v in feature]) - p[feature])
    face, bary = surface.closest(p[inner], normal[inner])
    p[inner] = (bary[..., None] * source.vertices[source.faces[face]]).sum(1)
    edge, along = _project_features(mesh, source, feature)
    p[feature] = (along[..., None] * source.vertices[edge]).sum(1)
    return inner, face, bary, feature, edge, along, live


def remesh(
    source: Source, *, short: float = 0.8, stretch: float = 1.35, rounds: int = 12
) -> tuple[csr_matrix, np.ndarray]:
    """Remesh a source.

    Args:
        source: the surface, its features and wanted edge lengths.
        short: edges below this part of the wanted length are collapsed. stretch: no collapse makes longer edges.
        rounds: of collapse, flip and relax.

    Returns:
        weights [n, N] (rows sum to one: new vertices from source vertices), faces [m, 3].
    """
    mesh = _Mesh(source)
    scale = float(np.median(source.size))
    surface = Surface(source.vertices, source.faces, normal_scale=2.0 * scale, spacing=0.3 * scale)
    for k in range(rounds):
        while mesh.collapse_pass(short * min(1.0, 0.5 + 0.5 * (k + 1) / (0.6 * rounds)), stretch):
            pass
        last = k >= rounds - 3
        for _ in range(4):
            if not mesh.flip_pass(surface if last else None):
                break
        hosts = _relax(mesh, source, surface, 0.6)
    inner, face, bary, feature, edge, along, live = hosts
    new = np.full(len(mesh.p), -1)
    new[live] = np.arange(len(live))
    corner = live[mesh.kind[live] == CORNER]
    rows = np.concatenate([np.repeat(new[inner], 3), np.repeat(new[feature], 2), new[corner]])
    columns = np.concatenate([source.faces[face].ravel(), edge.ravel(), corner])
    values = np.concatenate([bary.ravel(), along.ravel(), np.ones(len(corner))])
    weights = csr_matrix((values, (rows, columns)), shape=(len(live), len(source.vertices)))
    faces = new[np.array([x for x in mesh.faces if x is not None])]
    fixed = (mesh.kind[live] == CORNER) | mesh.seam[live]
    return unfold(weights, faces, source.vertices, mesh.size[live], fixed), faces


def unfold(
    weights: csr_matrix, faces: np.ndarray, vertices: np.ndarray, size: np.ndarray, fixed: np.ndarray
) -> csr_matrix:
    """Move vertices of collapsed triangles to the middle of their neighbours (two may have met in a narrow fold)."""
    for _ in range(8):
        p = weights @ vertices
        area = 0.5 * np.linalg.norm(np.cross(p[faces[:, 1]] - p[faces[:, 0]], p[faces[:, 2]] - p[faces[:, 0]]), axis=1)
        bad = np.setdiff1d(faces[area < 0.02 * size[faces].mean(1) ** 2], np.flatnonzero(fixed))
        if not len(bad):
            break
        rows = weights.tolil()
        for v in bad:
            ring = np.setdiff1d(faces[(faces == v).any(1)], [v])
            rows[v] = weights[ring].mean(0)
        weights = rows.tocsr()
    return weights
