"""A synthetic person of any kind, seen from any camera: what a motion needs is worked out once for all its views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...blocks.head_model import HeadModel
from ...ops.rasterize_mesh import interpolate, rasterize_mesh
from .body import build_body, vertex_normals
from .extras import build_extras
from .person import PersonState, exposed
from .shading import highlights, irradiance
from .texture import paint_texture
from .variety import cloth_colour, random_lights, random_style


@dataclass(frozen=True)
class Lit:
    """One motion of a person under its lights: vertices [V,3] and what pixels take from them, attributes [V,14]: light,
    normal, how much of the highlights' lights is seen, place at rest, colour, and kind (0 head, 1 cloth, 2 extras)."""

    vertices: torch.Tensor
    attributes: torch.Tensor


class PortraitPerson:
    """Identity, style and lights, drawn from one generator; the head stands at the origin and looks along +z."""

    def __init__(self, rng: np.random.Generator, model: HeadModel, texture_size: int = 384) -> None:
        """Grow and paint the person: about a third of a second."""
        self.style = random_style(rng, model.shape_count)
        self.body = build_body(model, self.style.look)
        texture = paint_texture(model, self.body, self.style.look, rng, texture_size)
        layers = np.concatenate([texture.albedo, texture.gloss[..., None], texture.sharpness[..., None]], -1)
        self._layers = torch.from_numpy(np.ascontiguousarray(layers.transpose(2, 0, 1)))[None]
        self.lights = random_lights(rng)
        joints = self.body.head.joints()[0]
        self._joints = joints
        extras = build_extras(model, self.body.head.template.double().numpy(), joints.double().numpy(), self.style, rng)
        self._extras = torch.from_numpy(extras.vertices).float()
        self._skull = torch.from_numpy(extras.skull).float()[:, None]
        self._arrange(extras.faces, extras.colours)

    def _arrange(self, extra_faces: np.ndarray, extra_colours: np.ndarray) -> None:
        """Join head, torso and extras: faces, faces_uv, what does not change with the pose."""
        head, torso = self.body.head.template, self.body.torso
        count = len(head) + len(torso)
        added = torch.from_numpy(extra_faces + count).int()
        self.faces = torch.cat([self.body.faces, added]).contiguous()
        corner = len(self.body.uv) - 1
        self.faces_uv = torch.cat([self.body.faces_uv, torch.full_like(added, corner)]).contiguous()
        rest = torch.cat([head, torso, self._extras])
        colours = torch.zeros_like(rest)
        colours[count:] = torch.from_numpy(extra_colours).float() ** 2.2
        kind = torch.zeros(len(rest), 1)
        kind[len(head) : count], kind[count:] = 1, 2
        self._constant = torch.cat([rest, colours, kind], 1)

    def vertices(self, state: PersonState) -> torch.Tensor:
        """Vertices [V,3] of head, torso and extras; `state.head` turns the neck."""

        def row(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.asarray(values, np.float32))[None]

        head = self.body.head(expression=row(state.expression), neck=row(state.head), eyes=row(state.eyes))[0]
        turn = self.body.head.joint_transforms(self._joints[None], None, None, row(state.head), None, None)[0, 1]
        turned = self._extras @ turn[:, :3].T + turn[:, 3]
        return torch.cat([head, self.body.torso, torch.lerp(self._extras, turned, self._skull)])

    def five_points(self, vertices: torch.Tensor, indices: tuple[int, ...]) -> np.ndarray:
        """Dense landmarks [K,3] by their indices, metres."""
        points = self.body.head.landmarks(vertices[None, : self.body.head.vertex_count])[0]
        return np.asarray(points[list(indices)].double().numpy())

    def lit(self, state: PersonState) -> Lit:
        """Pose and light the person."""
        with torch.inference_mode():
            vertices = self.vertices(state)
            normals = vertex_normals(vertices, self.faces)
            centre = vertices[: self.body.head.vertex_count].mean(0)
            light, seen = irradiance(vertices, normals, self.faces, self.lights, centre)
            return Lit(vertices, torch.cat([light, normals, seen[:, None], self._constant], 1))

    def view(
        self, lit: Lit, world_to_camera: np.ndarray, intrinsics: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Premultiplied sRGB [size,size,3], opacity [size,size] and depth_z [size,size] metres (0 = nothing).

        Every pixel is the mean of two by two samples; intrinsics [3,3] are for `size` pixels.
        """
        with torch.inference_mode():
            large = torch.from_numpy(np.diag([2.0, 2.0, 1.0]) @ intrinsics).float()
            camera = torch.from_numpy(world_to_camera).float()
            raster = rasterize_mesh(lit.vertices, self.faces, camera, large, 2 * size, 2 * size)
            covered = raster.face_index >= 0
            faces, weights = raster.face_index[covered][None], raster.barycentrics[covered][None]
            pixels = interpolate(lit.attributes, self.faces, faces, weights)[0]
            uv = interpolate(self.body.uv, self.faces_uv, faces, weights)[0]
            position = -camera[:3, :3].T @ camera[:3, 3]
            layers = torch.zeros(2 * size, 2 * size, 5)
            colour = exposed(self._surface(pixels, uv, position)) ** (1 / 2.2)
            layers[covered] = torch.cat([colour, torch.ones(len(colour), 1), raster.depth_z[covered][:, None]], 1)
            small = torch.nn.functional.avg_pool2d(layers.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0).numpy()
        return small[..., :3], small[..., 3], small[..., 4] / np.maximum(small[..., 3], 0.25)

    def _surface(self, pixels: torch.Tensor, uv: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Light [P,3] that pixels send to a camera at `position` [3]."""
        light, seen, rest, colour, kind = (
            pixels[:, :3],
            pixels[:, 6:7],
            pixels[:, 7:10],
            pixels[:, 10:13],
            pixels[:, 13:],
        )
        texels = torch.nn.functional.grid_sample(self._layers, (2 * uv - 1)[None, None], align_corners=False)[0, :, 0].T
        to_eye = torch.nn.functional.normalize(position - rest, dim=-1)
        normals = torch.nn.functional.normalize(pixels[:, 3:6], dim=-1)
        facing = (normals * to_eye).sum(-1, keepdim=True)
        albedo = torch.where(kind < 0.5, texels[:, :3], torch.where(kind < 1.5, cloth_colour(self.style, rest), colour))
        gloss = torch.where(kind < 0.5, texels[:, 3:4], torch.where(kind < 1.5, 0.02, 0.4))
        sharpness = torch.where(kind[:, 0] < 0.5, texels[:, 4], 14.0)
        shine = highlights(normals * facing.sign(), to_eye, sharpness, self.lights) * (0.25 + 0.75 * seen)
        fresnel = 0.04 + 0.30 * (1 - facing.clamp(0, 1)) ** 5
        return albedo * light + gloss * fresnel / 0.04 * 0.10 * shine
