"""Put the parts together: vertices, modes, joints, weights, regions, landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix, vstack
from scipy.spatial import cKDTree

from fourdface.blocks.arkit import ARKIT_NAMES
from open_head import eyeballs, eyelids, parts, skeleton
from open_head.sources import Ict
from open_head.tongue import tongue_out

SCALE = 0.01
"""Metres in one source unit."""
SIDES = ("left", "right")
MOUTH_SHIFT = np.array([0.0, 0.0, -0.17])
"""Teeth, gums and tongue are moved back by this (source units): the source's incisors touch the lips."""


@dataclass
class Head:
    """Everything in source units until `arrays` is made.

    weights: [V, N] on the source (zero rows at the eyeballs); spans: part -> slice of vertices.
    """

    ict: Ict
    weights: csr_matrix
    faces: np.ndarray
    mirror: np.ndarray
    spans: dict[str, slice]
    labels: dict[str, np.ndarray]
    eyes: dict[str, eyeballs.EyeFit]
    template: np.ndarray

    def transfer(self, delta: np.ndarray) -> np.ndarray:
        """Displacements [V, 3] of the head for source displacements [N, 3]; the eyeballs follow as spheres."""
        out = self.weights @ delta
        unit, _, _ = eyeballs.unit_eyeball()
        for side in SIDES:
            shift, growth = self.eyes[side].follow(delta)
            out[self.spans[f"eyeball_{side}"]] = shift + growth * unit
        return out

    def mirrored(self, field: np.ndarray) -> np.ndarray:
        """A vertex field [.., V, 3] seen in the mirror."""
        return field[..., self.mirror, :] * np.array([-1.0, 1.0, 1.0])

    def mask(self, *names: str) -> np.ndarray:
        """Union of part spans and labels, bool [V]."""
        out = np.zeros(len(self.template), bool)
        for name in names:
            if name in self.spans:
                out[self.spans[name]] = True
            else:
                out |= self.labels[name]
        return out


def build_pieces(ict: Ict) -> dict[str, parts.Part]:
    """The remeshed parts; nearly all of the build's time."""
    return {"skin": parts.skin(ict), "gums": parts.gums(ict), "teeth": parts.teeth(ict)}


def build_parts(ict: Ict) -> Head:
    """Remesh all parts and join them: skin, gums (with tongue), teeth, left and right eyeball."""
    pieces = build_pieces(ict)
    unit, eye_faces, ring = eyeballs.unit_eyeball()
    empty = csr_matrix((len(unit), len(ict.neutral)))
    eye_mirror = eyeballs.mirror_eyeball()
    spans, weights, faces, mirror, start = {}, [], [], [], 0
    for name, piece in pieces.items():
        spans[name] = slice(start, start + piece.weights.shape[0])
        weights.append(piece.weights)
        faces.append(piece.faces + start)
        mirror.append(piece.mirror + start)
        start = spans[name].stop
    for k, side in enumerate(SIDES):
        spans[f"eyeball_{side}"] = slice(start + k * len(unit), start + (k + 1) * len(unit))
        weights.append(empty)
        own = eye_faces if k == 0 else eye_mirror[eye_faces][:, [0, 2, 1]]
        faces.append(own + start + k * len(unit))
        mirror.append(eye_mirror + start + (1 - k) * len(unit))
    total = start + 2 * len(unit)
    labels = {}
    for name, piece in pieces.items():
        for label, mask in piece.labels.items():
            labels[label] = np.zeros(total, bool)
            labels[label][spans[name]] = mask
    for side in SIDES:
        for label, rings in (("iris", (-1, eyeballs.LIMBUS_RING)), ("pupil", (-1, eyeballs.PUPIL_RING))):
            labels[f"{label}_{side}"] = np.zeros(total, bool)
            labels[f"{label}_{side}"][spans[f"eyeball_{side}"]] = (ring >= rings[0]) & (ring <= rings[1])
    fits = {side: eyeballs.EyeFit(ict, side) for side in SIDES}
    every = vstack(weights).tocsr()
    template = every @ ict.neutral
    for name in ("teeth", "gums"):
        template[spans[name]] += MOUTH_SHIFT
    for side in SIDES:
        template[spans[f"eyeball_{side}"]] = fits[side].center + fits[side].radius * unit
    head = Head(ict, every, np.concatenate(faces), np.concatenate(mirror), spans, labels, fits, template)
    head.template = 0.5 * (template + head.mirrored(template))
    seam = head.mirror == np.arange(total)
    head.template[seam, 0] = 0.0
    for side in SIDES:
        ball = head.template[spans[f"eyeball_{side}"]]
        fits[side].center = ball[[0, -1]].mean(0)  # exactly symmetric now
    head.template = eyelids.Eyelids(head).clear_template()
    return head


def source_expressions(ict: Ict, names: tuple[str, ...]) -> dict[str, np.ndarray | None]:
    """The source's displacement [N, 3] for each ARKit name: split pairs are merged; None where it has none."""
    out: dict[str, np.ndarray | None] = {}
    for name in names:
        source = (
            name.replace("Left", "_L").replace("Right", "_R") if name[-4:] == "Left" or name[-5:] == "Right" else name
        )
        if name in ict.expressions:
            out[name] = ict.expressions[name]
        elif source in ict.expressions:
            out[name] = ict.expressions[source]
        elif f"{name}_L" in ict.expressions:
            out[name] = ict.expressions[f"{name}_L"] + ict.expressions[f"{name}_R"]
        else:
            out[name] = None
    return out


def partner(name: str) -> str:
    """The name of the mirrored expression."""
    if name.endswith("Left"):
        return name[:-4] + "Right"
    return name[:-5] + "Left" if name.endswith("Right") else name


def expression_modes(head: Head, names: tuple[str, ...]) -> np.ndarray:
    """Modes [E, V, 3] in source units, symmetric: each is the mean of itself and its mirrored partner.

    Eyeballs stay where they are (they turn by joints), upper teeth too.
    """
    fields = {n: None if d is None else head.transfer(d) for n, d in source_expressions(head.ict, names).items()}
    modes = np.zeros((len(names), len(head.template), 3))
    for k, name in enumerate(names):
        field, other = fields[name], fields[partner(name)]
        if field is not None and other is not None:
            modes[k] = 0.5 * (field + head.mirrored(other))
    modes[:, head.mask("eyeball_left", "eyeball_right", "teeth_upper")] = 0.0
    modes[names.index("tongueOut")] = tongue_out(head.template, head.labels["tongue"])
    lids = eyelids.Eyelids(head)
    for side in SIDES:
        k = names.index(f"eyeBlink{side.capitalize()}")
        modes[k] = lids.close_blink(modes[k], side)
    return modes


def clear_lids(head: Head, expression: np.ndarray, identity: np.ndarray, samples: int = 64) -> np.ndarray:
    """Expression modes [E, V, 3] with the lids kept outside the eyeballs in random identities too (fixed seed)."""
    generator = np.random.default_rng(11)
    coefficients = np.concatenate([np.zeros((1, len(identity))), generator.standard_normal((samples, len(identity)))])
    lids = eyelids.Eyelids(head)
    cleared = np.stack([lids.clear_expression(mode, identity, coefficients) for mode in expression])
    order = [ARKIT_NAMES.index(partner(n)) for n in ARKIT_NAMES]
    return 0.5 * (cleared + head.mirrored(cleared[order]))


def identity_modes(head: Head, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Orthogonal modes [count, V, 3] (source units, one standard deviation) and the share of variance they hold.

    The source's coefficients are standard normal, so its 100 modes themselves are the covariance's square root; the
    inner product weighs vertices by area, and the face four times.
    """
    lids = eyelids.Eyelids(head)
    fields = np.stack([lids.follow_eyeballs(head.transfer(d)) for d in head.ict.identity])
    area = vertex_area(head.template, head.faces)
    weight = np.sqrt(area * np.where(head.labels["ict_narrow"], 4.0, 1.0) * np.where(head.mask("skin"), 1.0, 0.25))
    flat = (fields * weight[None, :, None]).reshape(len(fields), -1)
    _, values, rotation = np.linalg.svd(flat @ flat.T)
    sign = np.sign(rotation[np.arange(len(rotation)), np.abs(rotation).argmax(1)])
    modes = np.einsum("ks,svc->kvc", rotation[:count] * sign[:count, None], fields)
    return modes, values[:count].sum() / values.sum()


def vertex_area(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """A third of the area of the triangles around each vertex [V]."""
    normal = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
    out = np.zeros(len(points))
    for k in range(3):
        np.add.at(out, faces[:, k], np.linalg.norm(normal, axis=1) / 6)
    return out


def skinning(head: Head, jaw_open: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Weights [V, 5], regressor [5, V] (root row zero), joints [5, 3] in source units, and jawOpen's angle."""
    p = head.template
    lower = head.labels["teeth_lower"]
    axis, angle = skeleton.fit_jaw_axis(p[lower], p[lower] + jaw_open[lower])
    jaw = skeleton.jaw_weight(p, jaw_open, axis, angle)
    jaw[lower] = 1.0
    rigid = lower | head.mask("teeth_upper", "eyeball_left", "eyeball_right")
    jaw[head.mask("teeth_upper", "eyeball_left", "eyeball_right")] = 0.0
    hold = rigid | head.labels["lip_rim"]
    jaw = skeleton.smooth(jaw, head.faces, len(p), hold, 6)
    jaw[jaw < 0.01] = 0
    # Along the neck, from the collar to the underside of the jaw; behind, to the skull's base.
    height = parts.neck_plane(p)
    reach = np.interp(p[:, 2], [-7.0, 3.0], [6.5, 5.0])
    up = skeleton.smoothstep(height / reach)
    up[head.mask("gums", "teeth", "eyeball_left", "eyeball_right", "bag", "socket_left", "socket_right")] = 1.0
    up[head.labels["boundary_neck"]] = 0.0
    weights = np.zeros((len(p), 5))
    weights[:, 0] = 1 - up
    weights[:, 2] = up * jaw
    for k, side in enumerate(SIDES):
        weights[head.spans[f"eyeball_{side}"], 3 + k] = 1.0
    weights[:, 1] = 1 - weights.sum(1)
    weights = 0.5 * (weights + weights[head.mirror][:, [0, 1, 2, 4, 3]])
    joints = np.stack(
        [
            skeleton.NECK_JOINT,
            skeleton.NECK_JOINT,
            axis,
            *(p[head.spans[f"eyeball_{side}"]][[0, -1]].mean(0) for side in SIDES),
        ]
    )
    neck_ring = head.mask("skin") & (np.abs(p[:, 1] - skeleton.NECK_JOINT[1]) < 2.0) & (np.abs(p[:, 2] + 1.3) < 6.5)
    hinge = (
        head.mask("skin")
        & ~head.labels["bag"]
        & (np.linalg.norm(p[:, 1:] - axis[1:], axis=1) < 2.5)
        & (np.abs(p[:, 0]) > 4)
    )
    regress = np.zeros((5, len(p)))
    regress[1] = skeleton.regressor(p, neck_ring, joints[1])
    regress[2] = skeleton.regressor(p, hinge, joints[2])
    for k, side in enumerate(SIDES):
        ball = np.zeros(len(p), bool)
        ball[head.spans[f"eyeball_{side}"]] = True
        regress[3 + k] = skeleton.regressor(p, ball, joints[3 + k])
    return weights, regress, joints, angle


def regions(head: Head) -> dict[str, np.ndarray]:
    """Bool masks [V] by name."""
    p, skin = head.template, head.mask("skin")
    hidden = head.mask("bag", "socket_left", "socket_right")
    visible = skin & ~hidden
    lid = np.minimum(*(cKDTree(p[head.labels[f"lid_rim_{s}"]]).query(p)[0] for s in SIDES))
    lip = cKDTree(p[head.labels["lip_rim"]]).query(p)[0]
    face = visible & head.labels["ict_narrow"]
    ears = visible & (np.abs(p[:, 0]) > 6.9) & (p[:, 1] > -3.2) & (p[:, 1] < 5.0) & (p[:, 2] < 3.2) & (p[:, 2] > -3.5)
    ears &= ~face
    below = skin & ~hidden & (parts.neck_plane(p) < np.interp(p[:, 2], [-7.0, 3.0], [6.5, 5.0]))
    nose = visible & (np.abs(p[:, 0]) < 2.1) & (p[:, 1] < 3.0) & (p[:, 1] > -1.6) & (p[:, 2] > 9.6)
    red = np.asarray(head.ict.neutral[head.ict.landmarks68[48:60]])  # the outer lip line, counted round the mouth
    lips = visible & (lip < 1.5) & (p[:, 2] > 8.5) & inside_polygon(p[:, :2], red[:, :2])
    out = {
        "face": face,
        "ears": ears,
        "neck": below & ~face,
        "lips": lips | head.labels["lip_rim"],
        "eyelids": visible & (lid < 0.75),
        "nose": nose & (lip > 0.85),
    }
    out["scalp"] = visible & ~face & ~ears & ~out["neck"] & ~(head.labels["ict_face"] & (p[:, 1] < 6.0) & (p[:, 2] > 2))
    out |= {
        "mouth_bag": head.labels["bag"],
        "eye_sockets": head.mask("socket_left", "socket_right"),
        "boundary_neck": head.labels["boundary_neck"],
        "teeth_upper": head.labels["teeth_upper"],
        "teeth_lower": head.labels["teeth_lower"],
        "tongue": head.labels["tongue"],
        "gums": head.mask("gums") & ~head.labels["tongue"],
    }
    for side in SIDES:
        out[f"eyeball_{side}"] = head.mask(f"eyeball_{side}")
        out[f"iris_{side}"] = head.labels[f"iris_{side}"]
        out[f"pupil_{side}"] = head.labels[f"pupil_{side}"]
    for name in list(out):
        if not name.endswith(SIDES):
            out[name] = out[name] | out[name][head.mirror]
    return out


def inside_polygon(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points [n, 2] lie inside a closed polygon [k, 2] (even-odd rule)."""
    inside = np.zeros(len(points), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y0 > points[:, 1]) != (y1 > points[:, 1])
        at = x0 + (points[:, 1] - y0) / (y1 - y0 if y1 != y0 else 1e-12) * (x1 - x0)
        inside ^= crosses & (points[:, 0] < at)
    return inside


def attach(head: Head, points: np.ndarray, part: str = "skin") -> tuple[np.ndarray, np.ndarray]:
    """Faces [K] and barycentrics [K, 3] of the points of a part that are nearest to given points [K, 3]."""
    from open_head.remesh import closest_on_triangles

    span = head.spans[part]
    mine = np.flatnonzero((head.faces >= span.start).all(1) & (head.faces < span.stop).all(1))
    corners = head.template[head.faces[mine]]
    _, near = cKDTree(corners.mean(1)).query(points, k=min(40, len(mine)))
    c = corners[near]
    p = np.broadcast_to(points[:, None], (*c.shape[:2], 3))
    weights = closest_on_triangles(p, c[..., 0, :], c[..., 1, :], c[..., 2, :])
    best = np.linalg.norm((weights[..., None] * c).sum(-2) - p, axis=-1).argmin(1)
    row = np.arange(len(points))
    return mine[near[row, best]], weights[row, best]
