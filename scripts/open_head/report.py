"""Measure a built head against its source and against itself."""

from __future__ import annotations

import numpy as np
import torch

from fourdface.blocks.head_model import HeadModel
from open_head import checks
from open_head.assemble import SCALE, source_expressions
from open_head.parts import neck_plane
from open_head.remesh import Surface
from open_head.skeleton import NECK_JOINT
from open_head.sources import VERTICES, Ict


def point_distance(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Distance [n] of points [n, 3] with normals looked up by themselves to a mesh."""
    surface = Surface(vertices, faces, normal_scale=1e-9, spacing=0.4)
    face, bary = surface.closest(points, np.zeros_like(points), 24)
    return np.linalg.norm((bary[..., None] * vertices[faces[face]]).sum(1) - points, axis=1)


class Comparison:
    """The built head and its source in the same units and place."""

    def __init__(self, ict: Ict, model: HeadModel) -> None:
        self.ict, self.model = ict, model
        regions = {k: v.numpy() for k, v in model.regions.items()}
        hidden = regions["mouth_bag"] | regions["eye_sockets"]
        skin = ~(
            hidden
            | regions["eyeball_left"]
            | regions["eyeball_right"]
            | regions["teeth_upper"]
            | regions["teeth_lower"]
            | regions["gums"]
            | regions["tongue"]
        )
        faces = model.faces.numpy()
        self.faces = faces[skin[faces].all(1)]
        self.face_region = regions["face"]
        self.skin = skin
        above = neck_plane(ict.neutral) > 0.5
        index = np.arange(len(ict.neutral))
        visible = (index < VERTICES["skin"][1]) & ~np.isin(
            index,
            np.setdiff1d(
                np.concatenate([ict.part(n).ravel() for n in ("mouth", "socket_left", "socket_right")]),
                np.concatenate([ict.part(n).ravel() for n in ("face", "head")]),
            ),
        )
        self.source_head = visible & above
        self.source_face = self.source_head & (index < VERTICES["narrow_face"][1])
        self.source_triangles = np.concatenate([ict.part("face"), ict.part("head")])

    def to_source(self, vertices: np.ndarray) -> np.ndarray:
        """Metres around the neck joint to source units."""
        return vertices / SCALE + NECK_JOINT

    def identity_errors(self, count: int = 20, seed: int = 7) -> tuple[np.ndarray, np.ndarray]:
        """Mean surface distances [count] in millimetres for the face and the whole head, both directions averaged.

        Coefficients of the source are drawn from a standard normal; ours come from least squares on points of our
        surface that are known on the source: its nearest points on the mean head.
        """
        generator = np.random.default_rng(seed)
        mean = self.to_source(self.model.template.double().numpy())
        basis = self.model.shape_basis.double().numpy()
        surface = Surface(mean, self.faces, normal_scale=1e-9, spacing=0.4)
        chosen = np.flatnonzero(self.source_head)
        face, bary = surface.closest(self.ict.neutral[chosen], np.zeros((len(chosen), 3)), 24)
        corners = self.faces[face]
        modes = np.einsum("nk,snkd->snd", bary, basis[:, corners]).reshape(len(basis), -1) / SCALE
        gram = modes @ modes.T + 0.0025 * np.eye(len(basis))
        errors = []
        for _ in range(count):
            delta = np.tensordot(generator.standard_normal(len(self.ict.identity)), self.ict.identity, 1)
            wanted = delta[chosen].reshape(-1)
            coefficients = np.linalg.solve(gram, modes @ wanted)
            ours = self.to_source(self.model.template.double().numpy() + np.tensordot(coefficients, basis, 1))
            errors.append(self._both_ways(ours, self.ict.neutral + delta))
        face_error, head_error = np.array(errors).T * 10
        return face_error, head_error

    def _both_ways(self, ours: np.ndarray, source: np.ndarray) -> tuple[float, float]:
        to_source = np.full(len(ours), np.nan)
        mine = np.unique(self.faces)
        to_source[mine] = point_distance(ours[mine], source, self.source_triangles)
        to_ours = np.full(len(source), np.nan)
        to_ours[self.source_head] = point_distance(source[self.source_head], ours, self.faces)
        return (
            0.5 * (np.nanmean(to_source[self.face_region]) + to_ours[self.source_face].mean()),
            0.5 * (np.nanmean(to_source) + to_ours[self.source_head].mean()),
        )

    def expression_errors(self) -> dict[str, float]:
        """Mean difference in millimetres of each mode's displacement from the source's, over the source's face."""
        mean = self.to_source(self.model.template.double().numpy())
        opened = (
            mean
            + 0.5 / SCALE * self.model.expression_basis[self.model.expression_names.index("jawOpen")].double().numpy()
        )
        pose = self.ict.neutral + 0.5 * self.ict.expressions["jawOpen"]
        surface = Surface(opened, self.faces, normal_scale=1e-9, spacing=0.3)
        chosen = np.flatnonzero(self.source_face)
        face, bary = surface.closest(pose[chosen], np.zeros((len(chosen), 3)), 24)
        out = {}
        for name, field in source_expressions(self.ict, self.model.expression_names).items():
            if field is not None:
                mode = self.model.expression_basis[self.model.expression_names.index(name)].double().numpy() / SCALE
                ours = (bary[..., None] * mode[self.faces[face]]).sum(1)
                out[name] = float(np.linalg.norm(ours - field[chosen], axis=1).mean() * 10)
        return out


def lines(ict: Ict, model: HeadModel) -> list[str]:
    """The report as lines of text."""
    comparison = Comparison(ict, model)
    face, head = comparison.identity_errors()
    modes = comparison.expression_errors()
    worst = sorted(modes.items(), key=lambda x: -x[1])[:5]
    generator = torch.Generator().manual_seed(3)
    shapes = [None, *torch.randn(20, model.shape_count, generator=generator)]
    out = [
        f"{model.vertex_count} vertices, {len(model.faces)} faces, {model.shape_count} identity modes",
        f"20 random source identities: face mean {face.mean():.3f} mm (worst {face.max():.3f}), "
        f"whole head mean {head.mean():.3f} mm (worst {head.max():.3f})",
        f"expression fields: mean {np.mean(list(modes.values())):.3f} mm, worst "
        + ", ".join(f"{n} {v:.3f}" for n, v in worst),
    ]
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        clear = [
            min(
                checks.lid_clearance(model, checks.evaluate(model, s, eyeBlinkLeft=t, eyeBlinkRight=t), side)
                for side in ("left", "right")
            )
            for s in shapes
        ]
        out.append(f"blink {t:.2f}: lids clear of the eyeballs by at least {min(clear) * 1000:.2f} mm in 21 identities")
    for t in np.linspace(0, 1, 6):
        deep = [checks.lips_in_teeth(model, checks.evaluate(model, s, jawOpen=float(t))) for s in shapes]
        most, mean = max(deep) * 1000, np.mean(deep) * 1000
        out.append(f"jawOpen {t:.1f}: lips enter the teeth by at most {most:.2f} mm, on average {mean:.2f} mm")
    return out
