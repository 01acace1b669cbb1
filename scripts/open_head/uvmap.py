"""Texture coordinates without overlaps: every chart is a disc, flattened by Floater's mean value weights.

With positive weights and a convex boundary the flattening has no folds (Tutte 1963; Floater, "Mean value coordinates",
CAGD 2003). The skin is one chart, cut along the back of the head and symmetric; eyeballs, sockets, mouth bag, gums and
teeth have charts of their own in a strip at the right.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from open_head import eyeballs
from open_head.assemble import SIDES, Head
from open_head.sources import edges_of

STRIP = 0.80
"""The skin's chart is left of this u."""
FACE_DENSITY = 3.0
"""Texture area for the face's surface over that for the rest of the skin."""
ROUNDS = 12
"""Rounds of the area balancing."""


def boundary_loops(faces: np.ndarray) -> list[list[int]]:
    """Boundary loops in the direction of the faces, longest first."""
    directed = {(int(f[i]), int(f[(i + 1) % 3])) for f in faces for i in range(3)}
    step = {a: b for a, b in directed if (b, a) not in directed}
    loops = []
    while step:
        start = min(step)
        loop, follow = [start], step.pop(start)
        while follow != start:
            loop.append(follow)
            follow = step.pop(follow)
        loops.append(loop)
    return sorted(loops, key=lambda x: (-len(x), x))


def mean_value_weights(points: np.ndarray, faces: np.ndarray) -> csr_matrix:
    """Positive weights [n, n] of each vertex's neighbours."""
    rows, columns, weights = [], [], []
    for k in range(3):
        i, j, m = faces[:, k], faces[:, (k + 1) % 3], faces[:, (k + 2) % 3]
        a, b = points[j] - points[i], points[m] - points[i]
        la, lb = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        angle = np.arctan2(np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(1))
        half = np.tan(0.5 * np.clip(angle, 0.05, np.pi - 0.3))
        rows += [i, i]
        columns += [j, m]
        weights += [half / np.maximum(la, 1e-3), half / np.maximum(lb, 1e-3)]
    shape = (len(points), len(points))
    return csr_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=shape)


def flatten(
    points: np.ndarray,
    faces: np.ndarray,
    border: np.ndarray,
    border_uv: np.ndarray,
    density: np.ndarray | None = None,
    rounds: int = 0,
) -> np.ndarray:
    """Flatten a disc: uv [n, 2] of points [n, 3] with the border vertices [b] held at border_uv [b, 2].

    With `density` [F] the weights are changed for some rounds until each face gets texture in proportion to its area
    times density, as far as that goes (Yoshizawa et al., "A fast and simple stretch-minimizing mesh parametrization",
    SMI 2004). Weights stay positive, so the map stays free of folds.
    """
    n = len(points)
    graph = mean_value_weights(points, faces)
    free = np.ones(n, bool)
    free[border] = False
    uv = np.zeros((n, 2))
    uv[border] = border_uv
    for k in range(rounds + 1):
        total = np.asarray(graph.sum(1)).ravel()
        system = csr_matrix((total[free], (np.arange(free.sum()),) * 2)) - graph[free][:, free]
        uv[free] = spsolve(system.tocsc(), graph[free][:, ~free] @ uv[~free])
        if k < rounds and density is not None:
            graph = graph.multiply(1 / _vertex_stretch(points, faces, uv, density)[None, :] ** 0.6).tocsr()
    return uv


def _vertex_stretch(points: np.ndarray, faces: np.ndarray, uv: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Square root of wanted over present texture area around each vertex [n], relative to the mean."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    wanted = np.linalg.norm(np.cross(b - a, c - a), axis=1) * density
    a, b, c = (uv[faces[:, k]] for k in range(3))
    present = np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    top, bottom = np.zeros(len(points)), np.zeros(len(points))
    for k in range(3):
        np.add.at(top, faces[:, k], wanted)
        np.add.at(bottom, faces[:, k], present)
    ratio = np.sqrt(top / np.maximum(bottom, 1e-12) * (bottom.sum() / top.sum()))
    return np.clip(ratio, 0.2, 5)


def disc(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Flatten a disc to the unit circle by the length of its border; uv [n, 2] in [0, 1]."""
    loop = np.array(boundary_loops(faces)[0])
    length = np.linalg.norm(points[np.roll(loop, -1)] - points[loop], axis=1)
    centre = points[loop].mean(0)
    start = int(np.argmin(np.abs(points[loop, 0]) - 1e3 * (points[loop, 1] < centre[1])))  # bottom middle
    angle = 2 * np.pi * (np.cumsum(length) - length) / length.sum()
    angle = angle - angle[start] - np.pi / 2
    return 0.5 + 0.5 * flatten(points, faces, loop, np.stack([np.cos(angle), np.sin(angle)], 1))


class Atlas:
    """Charts collected into one texture: uv [Vt, 2] and the corners of each face."""

    def __init__(self, face_count: int) -> None:
        self.uv: list[np.ndarray] = []
        self.count = 0
        self.faces = np.full((face_count, 3), -1)

    def add(
        self, face_rows: np.ndarray, faces: np.ndarray, uv: np.ndarray, box: tuple[float, float, float, float]
    ) -> None:
        """A chart: `faces` index its own uv [n, 2] in [0, 1], put into box (u, v, width, height)."""
        self.faces[face_rows] = faces + self.count
        self.uv.append(np.array(box[:2]) + uv * np.array(box[2:]))
        self.count += len(uv)


def local(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Used vertices [n] and faces in terms of them."""
    used, inverse = np.unique(faces, return_inverse=True)
    return used, inverse.reshape(-1, 3)


def _fill(points: np.ndarray, faces: np.ndarray, loop: list[int], centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Close a hole (its loop runs along the faces' direction) or a bay by a fan around an added vertex."""
    n = len(points)
    fan = [[loop[k + 1], loop[k], n] for k in range(len(loop) - 1)]
    return np.concatenate([points, centre[None]]), np.concatenate([faces, np.array(fan)])


def skin_chart(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flatten the skin, given by its left half (x >= 0, with the holes of eye and mouth), cut along the back.

    Returns:
        uv [n, 2] of the left half's vertices (u >= 0; the other half is its mirror image), and which are on the front
        seam [n]; the back seam, from the crown to the nape, is the cut.
    """
    n = len(points)
    border = boundary_loops(faces)[0]
    seam = np.abs(points[:, 0]) < 1e-6
    collar = [k for k, v in enumerate(border) if not seam[v] and points[v, 1] < -6]
    border = border[collar[0] :] + border[: collar[0]]
    crown = min((v for v in border if seam[v]), key=lambda v: (-(points[v, 1] + 0.25 * points[v, 2]), v))
    k = border.index(crown)
    back = border[k:] if points[border[-1], 2] < 0 else border[: k + 1]
    back_seam = [v for v in back if seam[v]]
    one = seam.copy()
    one[back_seam] = False
    one[crown] = True
    twin = np.where(one, np.arange(n), n + np.cumsum(~one) - 1)
    whole = np.concatenate([points, points[~one] * [-1, 1, 1]])
    mesh = np.concatenate([faces, twin[faces][:, [0, 2, 1]]])
    used, mesh = local(mesh)
    whole = whole[used]
    loops = boundary_loops(mesh)
    outer, holes = loops[0], loops[1:]
    filled, closed = whole, mesh
    for loop in holes:
        filled, closed = _fill(filled, closed, [*loop, loop[0]], whole[loop].mean(0) - [0, 0, 1.2])
    start = outer.index(int(np.searchsorted(used, crown)))
    outer = outer[start:] + outer[:start]
    length = np.linalg.norm(whole[np.roll(outer, -1)] - whole[outer], axis=1)
    angle = 2 * np.pi * (np.cumsum(length) - length) / length.sum()
    ellipse = np.stack([-0.41 * np.sin(angle), 0.5 + 0.5 * np.cos(angle)], 1)
    height = whole[mesh].mean(1)
    ramp = (
        np.clip((height[:, 2] - 1.0) / 5, 0, 1)
        * np.clip((height[:, 1] + 11) / 3, 0, 1)
        * np.clip((13 - height[:, 1]) / 4, 0, 1)
    )
    density = np.concatenate([1 + (FACE_DENSITY - 1) * ramp, np.full(len(closed) - len(mesh), 0.3)])
    uv = flatten(filled, closed, np.array(outer), ellipse, density, ROUNDS)[: len(whole)]
    every = np.zeros((used.max() + 1, 2))
    every[used] = uv
    left, right = every[:n], every[twin]
    side = np.sign(left[~one, 0].sum())
    return np.where(one[:, None], left * [0, 1], 0.5 * (left + right * [-1, 1])) * [side, 1], one


def _add_skin(atlas: Atlas, head: Head, rows: np.ndarray) -> None:
    left = rows[head.template[head.faces[rows]][..., 0].mean(1) > 0]
    used, faces = local(head.faces[left])
    uv, one = skin_chart(head.template[used], faces)
    size = 0.97 * min(0.5 * STRIP / uv[:, 0].max(), 1.0)
    low = 0.5 - 0.5 * size
    flat = np.stack([0.5 * STRIP + size * uv[:, 0], low + size * uv[:, 1]], 1)
    # The mirrored half shares the uv vertices of the front seam.
    index = np.where(one, np.arange(len(used)) + atlas.count, atlas.count + len(used) + np.cumsum(~one) - 1)
    by_vertex = dict(zip(used.tolist(), index.tolist(), strict=True))
    atlas.add(left, faces, flat, (0, 0, 1, 1))
    right = np.setdiff1d(rows, left)
    corner = np.vectorize(by_vertex.__getitem__)(head.mirror[head.faces[right]])
    atlas.add(right, corner - atlas.count, (flat * [-1, 1] + [STRIP, 0])[~one], (0, 0, 1, 1))


def _add_disc(atlas: Atlas, head: Head, rows: np.ndarray, box: tuple[float, float, float, float]) -> None:
    used, faces = local(head.faces[rows])
    atlas.add(rows, faces, disc(head.template[used], faces), box)


def _add_eyeball(atlas: Atlas, head: Head, side: str, box: tuple[float, float, float, float]) -> None:
    start = head.spans[f"eyeball_{side}"].start
    unit, _, ring = eyeballs.unit_eyeball()
    rows = np.flatnonzero((head.faces >= start).all(1) & (head.faces < start + len(unit)).all(1))
    faces = head.faces[rows] - start
    radius = np.concatenate([[0], np.array(eyeballs.RINGS) / 180, [1.0]])[ring + 1] ** 0.7
    angle = np.arctan2(unit[:, 1], unit[:, 0])
    uv = 0.5 + 0.5 * np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    back = len(unit) - 1
    extra = []
    for row in np.flatnonzero((faces == back).any(1)):  # the back pole has a corner of its own in each face
        rim = uv[faces[row][faces[row] != back]].mean(0) - 0.5
        faces[row][faces[row] == back] = len(uv) + len(extra)
        extra.append(0.5 + 0.5 * rim / np.linalg.norm(rim))
    atlas.add(rows, faces, np.concatenate([uv, np.array(extra)]), box)


def _add_teeth(atlas: Atlas, head: Head, box: tuple[float, float, float, float]) -> None:
    """Each tooth is a crown without the ring around its root's middle, and that ring."""
    span = head.spans["teeth"]
    rows = np.flatnonzero((head.faces >= span.start).all(1) & (head.faces < span.stop).all(1))
    used, faces = local(head.faces[rows])
    e, _ = edges_of(faces)
    count, group = connected_components(
        csr_matrix((np.ones(len(e)), (e[:, 0], e[:, 1])), shape=(len(used),) * 2), False
    )
    side = int(np.ceil(np.sqrt(count)))
    cell = np.array(box[2:]) / side
    for k in range(count):
        mine = rows[group[faces[:, 0]] == k]
        vertices = np.unique(head.faces[mine])
        y = head.template[vertices, 1] * np.where(head.labels["teeth_upper"][vertices[0]], 1, -1)
        root = vertices[np.argmax(y)]
        cap = (head.faces[mine] == root).any(1)
        u, v = box[0] + (k % side) * cell[0], box[1] + (k // side) * cell[1]
        _add_disc(atlas, head, mine[~cap], (u, v, 0.68 * cell[0], 0.95 * cell[1]))
        _add_disc(atlas, head, mine[cap], (u + 0.72 * cell[0], v, 0.24 * cell[0], 0.3 * cell[1]))


def layout(head: Head) -> tuple[np.ndarray, np.ndarray]:
    """uv [Vt, 2] in [0, 1] (v up) and faces_uv [F, 3] for the faces in their order."""
    atlas = Atlas(len(head.faces))
    inside = {name: head.mask(name)[head.faces].any(1) for name in ("socket_left", "socket_right", "bag")}
    skin = head.mask("skin")[head.faces].all(1)
    hidden = inside["socket_left"] | inside["socket_right"] | inside["bag"]
    _add_skin(atlas, head, np.flatnonzero(skin & ~hidden))
    width = 1 - STRIP
    edge = 0.92 * width
    _add_disc(atlas, head, np.flatnonzero(inside["bag"]), (STRIP, 0.0, edge, edge))
    gums = head.mask("gums")[head.faces].all(1)
    left = head.template[head.faces][..., 0].mean(1) > 0
    for k, half in enumerate((gums & ~left, gums & left)):
        _add_disc(atlas, head, np.flatnonzero(half), (STRIP + 0.5 * k * width, width, 0.46 * width, edge))
    for k, side in enumerate(SIDES):
        _add_eyeball(atlas, head, side, (STRIP, (2 + k) * width, edge, edge))
        _add_disc(
            atlas,
            head,
            np.flatnonzero(inside[f"socket_{side}"]),
            (STRIP + 0.5 * k * width, 4.55 * width, 0.45 * width, 0.42 * width),
        )
    _add_teeth(atlas, head, (STRIP, 4 * width, edge, 0.52 * width))
    return np.concatenate(atlas.uv), atlas.faces
