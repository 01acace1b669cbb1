"""Light for a synthetic person: an environment of directional lights, each with a shadow of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...ops.rasterize_mesh import rasterize_mesh

SHADOW_TEXELS = 192
SHADOW_REACH = 0.26
"""Half the width in metres of what shadow maps see around the head."""
SHADOW_BIAS = 0.003
_FAR = 20.0
BOUNCED = 0.05
"""Light that reaches even a closed corner."""
WRAP = torch.tensor([0.22, 0.10, 0.06])
"""How far red, green and blue light creep around the terminator of skin: a cheap stand-in for scattering."""


@dataclass(frozen=True)
class Light:
    """direction [3]: unit vector towards the light, world; colour [3]: linear; highlights: whether it shows in them."""

    direction: torch.Tensor
    colour: torch.Tensor
    highlights: bool = False


def studio(rng: np.random.Generator) -> list[Light]:
    """A window as key light, a weak fill from the other side, a rim from behind and a dome around."""
    side = float(rng.choice([-1.0, 1.0]))
    warm = rng.uniform(-0.04, 0.08)
    key = np.array([1.0 + warm, 1.0, 0.94 - warm])
    lights = []
    for dx, dy in ((-0.12, 0.1), (0.12, 0.1), (-0.12, -0.1), (0.12, -0.1)):
        lights.append(_light((side * 0.62 + dx, 0.55 + dy, 0.85), 0.46 * key, highlights=True))
    lights.append(_light((-side * 0.85, 0.15, 0.75), 0.30 * np.array([0.92, 0.97, 1.08])))
    lights.append(_light((-side * 0.75, 0.45, -0.60), 0.50 * np.array([1.0, 1.0, 1.0])))
    for k in range(8):  # a dome: evenly spread by the golden angle, brighter above than below
        height = 0.95 - 1.5 * k / 7
        turn = 2.39996 * k
        around = np.sqrt(max(0.0, 1 - height**2))
        colour = 0.16 * (0.6 + 0.4 * height) * np.array([0.97, 1, 1.05])
        lights.append(_light((around * np.sin(turn), height, 0.3 + around * np.cos(turn)), colour))
    return lights


def _light(direction: tuple[float, ...], colour: np.ndarray, highlights: bool = False) -> Light:
    vector = torch.tensor(direction, dtype=torch.float32)
    return Light(vector / vector.norm(), torch.tensor(np.asarray(colour), dtype=torch.float32), highlights)


def irradiance(
    vertices: torch.Tensor, normals: torch.Tensor, faces: torch.Tensor, lights: list[Light], centre: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Light [V,3] that reaches every vertex, and the share [V] of the lights with highlights that it sees."""
    total = torch.full_like(vertices, BOUNCED)
    seen, count = torch.zeros(len(vertices)), 0
    for light in lights:
        visible = visibility(vertices, normals, faces, light.direction, centre)
        cosine = (normals @ light.direction)[:, None]
        wrapped = ((cosine + WRAP) / (1 + WRAP)).clamp_min(0)
        total += wrapped * visible[:, None] * light.colour
        if light.highlights:
            seen, count = seen + visible, count + 1
    return total, seen / max(count, 1)


def visibility(
    vertices: torch.Tensor, normals: torch.Tensor, faces: torch.Tensor, direction: torch.Tensor, centre: torch.Tensor
) -> torch.Tensor:
    """Share [V] in 0..1 of a far light that reaches the vertices: a shadow map, compared at 3x3 texels."""
    world_to_light = _look_from(direction, centre)
    focal = SHADOW_TEXELS / (2 * SHADOW_REACH) * _FAR
    middle = SHADOW_TEXELS / 2
    intrinsics = torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1.0]])
    depth = rasterize_mesh(vertices, faces, world_to_light, intrinsics, SHADOW_TEXELS, SHADOW_TEXELS).depth_z
    depth = torch.where(depth > 0, depth, torch.full_like(depth, 2 * _FAR))
    lifted = vertices + SHADOW_BIAS * normals
    camera = lifted @ world_to_light[:3, :3].T + world_to_light[:3, 3]
    place = (camera[:, :2] / camera[:, 2:] * focal + middle).long()
    lit = torch.zeros(len(vertices))
    for dx in (-1, 0, 1):
        for dy in (-1, 0, 1):
            column, row = (place[:, 0] + dx).clamp(0, SHADOW_TEXELS - 1), (place[:, 1] + dy).clamp(0, SHADOW_TEXELS - 1)
            lit += (camera[:, 2] - SHADOW_BIAS < depth[row, column]).float()
    return lit / 9


def _look_from(direction: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """world_to_camera [4,4] of a camera far away in `direction` that looks at `centre`."""
    forward = -direction
    up = torch.tensor([0.0, 1.0, 0.0]) if abs(float(direction[1])) < 0.95 else torch.tensor([0.0, 0.0, 1.0])
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=0)
    down = torch.linalg.cross(forward, right)
    matrix = torch.eye(4)
    matrix[:3, :3] = torch.stack([right, down, forward])
    matrix[:3, 3] = -matrix[:3, :3] @ (centre + _FAR * direction)
    return matrix


def highlights(
    normals: torch.Tensor, to_eye: torch.Tensor, sharpness: torch.Tensor, lights: list[Light]
) -> torch.Tensor:
    """Blinn-Phong highlights [P,3], normalised so that sharper ones are brighter."""
    total = torch.zeros_like(normals)
    for light in lights:
        if not light.highlights:
            continue
        half = torch.nn.functional.normalize(to_eye + light.direction, dim=-1)
        cosine = (normals * half).sum(-1).clamp_min(0)
        total += (cosine**sharpness * (sharpness + 8) / 100)[:, None] * light.colour
    return total
