"""A synthetic person in front of a camera: `SyntheticPerson(seed).render(state)`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ...blocks.head_model import HeadModel
from ...ops.rasterize_mesh import interpolate, rasterize_mesh
from .body import build_body, vertex_normals
from .look import random_look
from .shading import highlights, irradiance, studio
from .texture import paint_texture

CAMERA_DISTANCE = 1.1
"""Metres from the neck to the camera."""
VISIBLE_HEIGHT = 0.44
"""Metres that the picture shows at the neck."""
LOOK_AT = 0.065
"""Height in metres above the neck joint that the camera looks at."""


@dataclass(frozen=True)
class PersonState:
    """One moment: expression [52] (ARKit order), head [3] turn of the head on the neck and eyes [6] (left, right),
    axis-angle radians; sway [3]: where the whole body is, metres."""

    expression: np.ndarray = field(default_factory=lambda: np.zeros(52, np.float32))
    head: np.ndarray = field(default_factory=lambda: np.zeros(3, np.float32))
    eyes: np.ndarray = field(default_factory=lambda: np.zeros(6, np.float32))
    sway: np.ndarray = field(default_factory=lambda: np.zeros(3, np.float32))


class SyntheticPerson:
    """Identity, colours, hair, clothes, backdrop and light, all from `seed`."""

    def __init__(self, seed: int = 0, model: HeadModel | None = None, texture_size: int = 1024) -> None:
        """Grow and paint the person; `model` is the open head unless given. Takes some seconds."""
        model = model or HeadModel.load("open")
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.look = random_look(rng, model.shape_count)
        self.body = build_body(model, self.look)
        self.texture = paint_texture(model, self.body, self.look, rng, texture_size)
        self.lights = studio(rng)
        layers = np.concatenate(
            [self.texture.albedo, self.texture.gloss[..., None], self.texture.sharpness[..., None]], -1
        )
        self._layers = torch.from_numpy(np.ascontiguousarray(layers.transpose(2, 0, 1)))[None]

    def camera(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """world_to_camera [4,4] and intrinsics [3,3] of a square picture of `size` pixels."""
        world_to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
        world_to_camera[1:3, 3] = torch.tensor([LOOK_AT, CAMERA_DISTANCE])
        focal = size / VISIBLE_HEIGHT * CAMERA_DISTANCE
        return world_to_camera, torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])

    def vertices(self, state: PersonState) -> torch.Tensor:
        """Vertices [V+T,3] in the world: head, then torso."""

        def row(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.asarray(values, np.float32))[None]

        sway = row(state.sway)
        head = self.body.head(expression=row(state.expression), neck=row(state.head), eyes=row(state.eyes),
                              translation=sway)  # fmt: skip
        return torch.cat([head[0], self.body.torso + sway])

    def landmarks(self, state: PersonState, size: int) -> np.ndarray:
        """Where the 478 dense landmarks are in the picture: [478,2] pixels."""
        world_to_camera, intrinsics = self.camera(size)
        points = self.body.head.landmarks(self.vertices(state)[None, : self.body.head.vertex_count])[0]
        camera = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
        return ((camera @ intrinsics.T)[:, :2] / camera[:, 2:]).numpy()

    def render(self, state: PersonState, size: int = 512, oversampling: int = 2) -> np.ndarray:
        """Picture uint8 [size,size,3]; every pixel is the mean of oversampling^2 samples."""
        with torch.inference_mode():
            picture = self._shaded(self.vertices(state), size * oversampling)
            encoded = exposed(picture) ** (1 / 2.2)
            small = torch.nn.functional.avg_pool2d(encoded.permute(2, 0, 1)[None], oversampling)[0].permute(1, 2, 0)
            return (small * 255).round().to(torch.uint8).numpy()

    def _shaded(self, vertices: torch.Tensor, size: int) -> torch.Tensor:
        """Linear picture [size,size,3] over the backdrop."""
        faces = self.body.faces
        world_to_camera, intrinsics = self.camera(size)
        normals = vertex_normals(vertices, faces)
        centre = vertices[: self.body.head.vertex_count].mean(0)
        light, seen = irradiance(vertices, normals, faces, self.lights, centre)
        raster = rasterize_mesh(vertices, faces, world_to_camera, intrinsics, size, size)
        attributes = torch.cat([light, normals, seen[:, None]], 1)
        pixels = interpolate(attributes, faces, raster.face_index, raster.barycentrics)
        uv = interpolate(self.body.uv, self.body.faces_uv, raster.face_index, raster.barycentrics)
        picture = self._backdrop(size)
        covered = raster.face_index >= 0
        picture[covered] = self._surface(pixels[covered], self._texels(uv[covered]))
        return picture

    def _texels(self, uv: torch.Tensor) -> torch.Tensor:
        """Albedo, gloss and sharpness [P,5] at uv [P,2], bilinear."""
        grid = (2 * uv - 1)[None, None]
        return torch.nn.functional.grid_sample(self._layers, grid, align_corners=False)[0, :, 0].T

    def _surface(self, pixels: torch.Tensor, texels: torch.Tensor) -> torch.Tensor:
        light, seen = pixels[:, :3], pixels[:, 6:]
        normals = torch.nn.functional.normalize(pixels[:, 3:6], dim=-1)
        to_eye = torch.tensor([0.0, 0.0, 1.0])  # the camera is far enough for one direction
        seen = 0.25 + 0.75 * seen  # wet eyes reflect even under the lids
        shine = highlights(normals, to_eye, texels[:, 4], self.lights) * seen
        fresnel = 0.04 + 0.30 * (1 - normals[:, 2:].clamp(0, 1)) ** 5
        return texels[:, :3] * light + texels[:, 3:4] * fresnel / 0.04 * 0.10 * shine

    def _backdrop(self, size: int) -> torch.Tensor:
        """A wall, brighter behind the head than at the edges: linear [size,size,3]."""
        axis = (torch.arange(size) + 0.5) / size
        rows, columns = torch.meshgrid(axis, axis, indexing="ij")
        distance = ((columns - 0.55) ** 2 + (rows - 0.35) ** 2).sqrt()
        fall = 1.15 - 0.75 * distance
        colour = torch.from_numpy(self.look.backdrop.astype(np.float32)) ** 2.2
        return fall[..., None] * colour


def exposed(linear: torch.Tensor) -> torch.Tensor:
    """Bring light to 0..1 as film does: proportional in the shadows, highlights roll off."""
    return (linear * (1 + 0.12 * linear) / (1 + 0.55 * linear)).clamp(0, 1)
