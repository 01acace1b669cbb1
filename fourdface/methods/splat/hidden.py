"""Layer 2: samples of the head mesh that the photo hides: the far side, closed lids, the mouth's inside, eyeballs."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from ...blocks.arkit import ARKIT_INDEX
from . import appearance
from .hull import THIN_HAIR
from .rig import HeadState
from .scene import (
    INNER,
    Bound,
    Scene,
    beside_person,
    frontmost,
    head_forward,
    metres_per_pixel,
    pixel_of,
    shown,
    triangle_points,
    vertex_normals,
)

LUMINANCE = np.array([0.299, 0.587, 0.114])
SAMPLE_SPREAD = 0.7
"""Deviation of a mesh sample's Gaussian over its spacing."""
HIDDEN_SPACING = 2.5
"""Spacing of mesh samples in pixels of the photo."""
GRAZING = 0.45
"""Cosine below which a surface is seen too obliquely for its pixels alone to cover it from the side."""


def hidden_layer(scene: Scene, labels: np.ndarray, foreground: np.ndarray, hair: np.ndarray) -> Bound:
    """Samples of the head mesh that neither the photo's pixels nor the `hair` [V] (its thickness, metres) cover, in
    triangle coordinates."""
    model = scene.model
    number = _sample_counts(scene)
    triangle = np.repeat(np.arange(len(model.faces)), number)
    within = np.arange(len(triangle)) - np.repeat(np.cumsum(number) - number, number)
    barycentric = triangle_points(within, triangle)
    corners = scene.vertices[scene.faces[triangle]]
    points = (barycentric[..., None] * corners).sum(1)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    covered = frontmost(scene, points, normal, labels, triangle, GRAZING)
    under_hair = (barycentric * hair[scene.faces[triangle]]).sum(1) > THIN_HAIR
    lids = scene.face_regions["eyelids"][triangle]  # always: what shows of them open is far too little when closed
    chosen = (~covered | lids) & ~under_hair & ~beside_person(scene, points)
    triangle, barycentric, points = triangle[chosen], barycentric[chosen], points[chosen]
    colours = _hidden_colours(scene, foreground, triangle, barycentric, points, labels)
    share = SAMPLE_SPREAD**2 / (np.sqrt(3) * number[triangle])
    local_covariance = np.zeros((len(triangle), 6), np.float32)
    local_covariance[:, 0] = local_covariance[:, 3] = share
    local_covariance[:, 1] = -0.5 * share
    local_covariance[:, 5] = 0.02 * share
    local_mean = np.concatenate([barycentric[:, 1:], np.zeros((len(triangle), 1))], 1)
    return Bound(
        triangle.astype(np.int32), local_mean.astype(np.float32), local_covariance, colours.astype(np.float32),
        np.full(len(triangle), 0.95, np.float32), np.full(len(triangle), 1.0, np.float32),
    )  # fmt: skip


def _sample_counts(scene: Scene) -> np.ndarray:
    """Samples [F] for each triangle, from the largest area it takes in the photo or with lids and mouth moved."""
    rig, source = scene.rig, scene.rig.source
    spacing = HIDDEN_SPACING * metres_per_pixel(scene)
    largest = np.zeros(len(scene.model.faces))
    moved = source.expression.clone()
    for name in ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen"):
        moved[ARKIT_INDEX[name]] = 1.0
    for expression in (source.expression, torch.zeros(52), moved):
        state = HeadState(expression, source.rotation, source.translation, source.eyes, source.jaw)
        corners = rig.pose(state).numpy()[scene.model.faces.numpy()]
        area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
        largest = np.maximum(largest, area)
    number = np.clip(np.ceil(largest / spacing**2), 1, 40).astype(int)
    return np.where(scene.face_regions["collar"], 0, number)


def _hidden_colours(
    scene: Scene, foreground: np.ndarray, triangle: np.ndarray, barycentric: np.ndarray, points: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Colours [N,3] of mesh samples: mirror image and harmonic fill for skin, own colours inside mouth and eyes."""
    base, seen = _vertex_colours(scene, foreground, labels)
    faces = scene.model.faces.numpy()
    blend = lambda field: (barycentric[..., None] * field[faces[triangle]]).sum(1)  # noqa: E731
    colours = blend(base)
    mirror = scene.model.mirror_vertices.numpy()
    mirrored_points = (barycentric[..., None] * scene.vertices[mirror[faces[triangle]]]).sum(1)
    pixels, _ = scene.view.project(mirrored_points)
    mirrored_seen = seen[mirror[faces[triangle]]].min(1) > 0.5
    lids = scene.face_regions["eyelids"][triangle]
    use = mirrored_seen & _skin_faces(scene)[triangle] & ~lids
    if use.any():
        # the mirror image gives the detail, the harmonic field its colour
        smooth = foreground_smooth(foreground, scene.matte)
        detail = appearance.sample_image(foreground, pixels[use]) - appearance.sample_image(smooth, pixels[use])
        colours[use] = colours[use] + detail
    inner = np.any([scene.face_regions[name] for name in INNER], axis=0)[triangle]
    direct = shown(scene, points) & ~inner & ~lids
    if direct.any():
        colours[direct] = appearance.sample_image(foreground, scene.view.project(points[direct])[0])
    for side in ("left", "right"):
        mask = scene.face_regions[f"eyeball_{side}"][triangle]
        if mask.any():
            colours[mask] = _eyeball_colours(scene, foreground, labels, side, points[mask])
    return np.clip(colours, 0, 1)


def foreground_smooth(foreground: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Low-pass of the person's colours [H,W,3] that does not mix in the background."""
    sigma = 0.012 * max(matte.shape)
    weight = ndimage.gaussian_filter(matte.astype(np.float32), sigma)[..., None]
    mixed = np.stack([ndimage.gaussian_filter(foreground[..., c] * matte, sigma) for c in range(3)], -1)
    return mixed / np.maximum(weight, 1e-3)


def _skin_faces(scene: Scene) -> np.ndarray:
    return ~np.any([scene.face_regions[name] for name in INNER], axis=0)


def _vertex_colours(scene: Scene, foreground: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low-frequency colours [V,3] of the head mesh, and which vertices the photo shows [V] (0 or 1)."""
    model = scene.model
    count = len(model.template)
    vertices, faces = scene.vertices[:count], model.faces.numpy()
    normal = vertex_normals(vertices, faces)
    any_face = np.zeros(count, int)
    any_face[faces.reshape(-1)] = np.repeat(np.arange(len(faces)), 3)
    seen = frontmost(scene, vertices, normal, labels, any_face, 0.3)
    pixels, _ = scene.view.project(vertices)
    row, column, _, _ = pixel_of(scene, vertices)
    seen &= scene.matte[row, column] > 0.9
    inner = np.any([model.regions[name].numpy() for name in INNER], axis=0)
    smooth = foreground_smooth(foreground, scene.matte)
    colours = appearance.sample_image(smooth, pixels)
    usual = np.median(colours[seen & model.regions["face"].numpy()], axis=0) if seen.any() else np.full(3, 0.6)
    lids = model.regions["eyelids"].numpy()  # their low frequencies hold lashes and iris: take the skin around them
    known = seen & ~inner & ~lids
    mirror = model.mirror_vertices.numpy()
    laplacian = appearance.graph_laplacian(faces, count)
    mirrored = ~known & known[mirror] & ~inner & ~lids
    offset = np.zeros((count, 3))
    both = known & known[mirror]
    offset[both] = colours[both] - colours[mirror][both]
    offset = appearance.harmonic_fill(laplacian, offset, both) if both.any() else offset
    colours[mirrored] = colours[mirror][mirrored] + offset[mirrored]
    colours = appearance.harmonic_fill(laplacian, colours, known | mirrored)
    colours = _lid_skin(colours, lids, usual)
    light = float(np.mean(colours[known] @ [0.299, 0.587, 0.114])) if known.any() else appearance.FAIR_FACE
    lips = model.regions["lips"].numpy()
    rest = scene.rig.neutral.numpy()
    depth_inside = np.percentile(rest[lips, 2], 80) - 0.012 - rest[:, 2]
    teeth = _visible_teeth(scene, foreground, labels)
    interior = appearance.interior_colours(
        {k: v.numpy() for k, v in model.regions.items()}, light, depth_inside, normal @ head_forward(scene), teeth
    )
    own = ~np.isnan(interior[:, 0])
    colours[own] = interior[own]
    return np.clip(colours, 0, 1), seen.astype(float)


def _lid_skin(colours: np.ndarray, lids: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Colours [V,3] with the lids' skin no darker than a shaded version of the face's: the shadow around an open eye
    is not the colour of the lid that closes it."""
    floor = 0.78 * usual
    lack = np.clip(1 - (colours @ LUMINANCE) / float(floor @ LUMINANCE), 0, 1)[:, None]
    return np.where(lids[:, None], (1 - lack) * colours + lack * floor, colours)


def _visible_teeth(scene: Scene, foreground: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Typical colour [3] of teeth that the photo shows, None where it shows (almost) none."""
    teeth = scene.face_regions["teeth_upper"] | scene.face_regions["teeth_lower"]
    mask = (labels >= 0) & teeth[np.maximum(labels, 0)]
    if mask.sum() < 40:
        return None
    colours = foreground[mask]
    bright = colours.sum(1)
    return np.median(colours[bright >= np.quantile(bright, 0.6)], axis=0)


def _eyeball_colours(
    scene: Scene, foreground: np.ndarray, labels: np.ndarray, side: str, points: np.ndarray
) -> np.ndarray:
    """Colours of eyeball points from the photo's own iris and sclera, by angle from the gaze axis."""
    on = (labels >= 0) & scene.face_regions[f"eyeball_{side}"][np.maximum(labels, 0)]
    centre, axis = _eye_axis(scene, side)
    light = appearance.FAIR_FACE
    default = np.array([[0.06, 0.05, 0.05]] * 4 + [[0.25, 0.18, 0.13]] * 6 + [[0.78, 0.74, 0.72]] * 14) * light
    rows, columns = np.nonzero(on)
    profile = default.copy()
    bins = np.linspace(0, np.radians(72), 25)
    if len(rows) > 12:
        seen = scene.view.unproject(columns + 0.5, rows + 0.5, scene.mesh_depth[rows, columns].astype(float))
        which = np.digitize(_angle(seen - centre, axis), bins) - 1
        known = np.zeros(24, bool)
        for k in range(24):
            if (which == k).sum() >= 3:
                profile[k] = np.median(foreground[rows[which == k], columns[which == k]], 0)
                known[k] = True
        index = np.arange(24)
        for c in range(3):
            profile[:, c] = np.interp(index, index[known], profile[known, c]) if known.any() else profile[:, c]
    where = np.clip(_angle(points - centre, axis), 0, bins[-1] - 1e-3)
    middle = 0.5 * (bins[1:] + bins[:-1])
    return np.stack([np.interp(where, middle, profile[:, c]) for c in range(3)], -1)


def _eye_axis(scene: Scene, side: str) -> tuple[np.ndarray, np.ndarray]:
    count = len(scene.model.template)
    iris = scene.vertices[:count][scene.model.regions[f"iris_{side}"].numpy()].mean(0)
    joint = scene.rig.joints[3 if side == "left" else 4].numpy()
    centre = scene.rig.source_rotation.numpy() @ joint + scene.rig.source.translation.numpy()
    axis = iris - centre
    return centre, axis / np.linalg.norm(axis)


def _angle(directions: np.ndarray, axis: np.ndarray) -> np.ndarray:
    unit = directions / np.maximum(np.linalg.norm(directions, axis=-1, keepdims=True), 1e-9)
    return np.arccos(np.clip(unit @ axis, -1, 1))
