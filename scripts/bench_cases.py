"""What the benchmarks of the ops time: one function per op that returns its lines. Used by bench_ops.py, bench_cuda.py.

A new op gets a function `(Setting) -> list[Case]` here, and its name in OPS.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fourdface.blocks.head_model import HeadModel
from fourdface.blocks.rays import camera_rays, constant_limits
from fourdface.ops.antialias import antialias, face_neighbours
from fourdface.ops.bind_gaussians import bind_gaussians
from fourdface.ops.correspondence_warp import View, correspondence_warp
from fourdface.ops.nearest_vertices import nearest_vertices
from fourdface.ops.rasterize_mesh import interpolate, rasterize_mesh
from fourdface.ops.sparse_conv3d import neighbour_map, sparse_conv3d
from fourdface.ops.splat import covariance_from_quaternion_scale, splat, splat_to_u8
from fourdface.ops.surface_field import surface_field
from fourdface.ops.triplane_render import (
    DecoderWeights,
    Rays,
    RaySampling,
    Skipping,
    triplane_prepare,
    triplane_render,
)
from fourdface.ops.triplane_sample import triplane_sample

FOCAL = 1000.0  # pixels, for a picture of 512
DISTANCE = 0.6  # metres from the camera to the middle of the head
Call = Callable[[], object]


@dataclass(frozen=True)
class Setting:
    """Where and how large: the device of all tensors, Gaussians in a scene, width and height of pictures."""

    device: torch.device
    gaussians: int = 100_000
    size: int = 512

    def put(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors on the device."""
        return tuple(t.to(self.device) for t in tensors)


@dataclass(frozen=True)
class Case:
    """One line of a table: an op natively and by its reference (None: not timed).

    goals: milliseconds that a call is meant to stay under, by device type. others: further ways of computing the same,
    by name.
    """

    name: str
    native: Call
    reference: Call | None = None
    goals: dict[str, float] = field(default_factory=dict)
    others: dict[str, Call] = field(default_factory=dict)


def camera(size: int) -> tuple[Tensor, Tensor]:
    """A camera on the z axis that looks at the origin."""
    world_to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    world_to_camera[2, 3] = DISTANCE
    focal = FOCAL * size / 512
    return world_to_camera, torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


def shell(count: int, size: int) -> tuple[Tensor, ...]:
    """Gaussians of every orientation on a sphere of 12 cm, deviations 0.5-3 mm (0.8-5 pixels), opacities 0.1-0.95."""
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(count, 3, generator=draw)
    radius = 0.12 * (1 + 0.02 * torch.randn(count, 1, generator=draw))
    means = radius * direction / direction.norm(dim=1, keepdim=True)
    scales = torch.exp(torch.empty(count, 3).uniform_(math.log(0.0005), math.log(0.003), generator=draw))
    covariances = covariance_from_quaternion_scale(torch.randn(count, 4, generator=draw), scales)
    opacities = torch.empty(count).uniform_(0.1, 0.95, generator=draw)
    return means, covariances, torch.rand(count, 3, generator=draw), opacities, *camera(size)


def photo(count: int, size: int) -> tuple[Tensor, ...]:
    """A photo lifted pixel by pixel: a square grid on a curved front, deviations 0.8-1.6 pixels, opacity 0.95."""
    draw = torch.Generator().manual_seed(0)
    side = math.isqrt(count)
    focal = float(camera(size)[1][0, 0])
    step = 0.8 * size / side
    rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    x, y = ((i.flatten() + 0.5 - side / 2) * step for i in (cols, rows))
    z = DISTANCE + 0.05 * torch.sin(x / 40) * torch.cos(y / 37)
    means = torch.stack([x / focal * z, -y / focal * z, DISTANCE - z], dim=1)
    deviations = (z / focal)[:, None] * torch.empty(side * side, 3).uniform_(0.8, 1.6, generator=draw)
    covariances = covariance_from_quaternion_scale(torch.randn(side * side, 4, generator=draw), deviations)
    colors, opacities = torch.rand(side * side, 3, generator=draw), torch.full((side * side,), 0.95)
    return means, covariances, colors, opacities, *camera(size)


def open_head() -> tuple[Tensor, Tensor]:
    """The head model's mesh, its middle at the origin: vertices [V, 3] metres, faces [F, 3]."""
    head = HeadModel.load()
    middle = (head.template.amin(dim=0) + head.template.amax(dim=0)) / 2
    return head.template - middle, head.faces


def box_points(side: int, box_size: float) -> Tensor:
    """The middles of the cells of a cube about the origin, [1, side³, 3]."""
    line = ((torch.arange(side) + 0.5) / side - 0.5) * box_size
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1).reshape(1, -1, 3)


def splat_cases(at: Setting) -> list[Case]:
    """One picture, forward and with gradients; on the CPU also as 8 bit, on a GPU also for 64 cameras at once."""
    cases = []
    for label, made in (("photo", photo), ("shell", shell)):
        scene = at.put(*made(at.gaussians, at.size))
        name = f"splat, {label}, {len(scene[0]):,} Gaussians, {at.size} x {at.size}"

        def draw(backend: str, scene: tuple[Tensor, ...] = scene) -> object:
            return splat(*scene, at.size, at.size, backend=backend)

        def train(backend: str, scene: tuple[Tensor, ...] = scene) -> object:
            leaves = [t.clone().requires_grad_() for t in scene[:4]]
            splat(*leaves, *scene[4:], at.size, at.size, backend=backend).image.square().mean().backward()
            return leaves

        def ways(call: Callable[..., object]) -> tuple[Call, Call, dict[str, Call]]:
            rivals = {"gsplat": partial(call, "gsplat")} if at.device.type == "cuda" else {}
            return partial(call, "native"), partial(call, "reference"), rivals

        native, reference, rivals = ways(draw)
        goals = {"cpu": 12.0, "cuda": 0.33}
        cases.append(Case(name + ", image + alpha + depth", native, reference, goals, rivals))
        if at.device.type == "cpu":
            plate = np.zeros((at.size, at.size, 3), np.uint8)
            finished = partial(splat_to_u8, *scene, plate, backend="native")
            cases.append(Case(name + ", 8 bit", finished, None, {"cpu": 12.0}))
        native, reference, rivals = ways(train)
        cases.append(Case(name + ", forward + backward", native, reference, {"cpu": 100.0}, rivals))
        if at.device.type == "cuda":
            many = (*scene[:4], scene[4].repeat(64, 1, 1), scene[5].repeat(64, 1, 1))
            native, _, rivals = ways(partial(draw, scene=many))
            cases.append(Case(name + ", 64 cameras", native, None, {"cuda": 64 / 15.0}, rivals))
    return cases


def bind_gaussians_cases(at: Setting) -> list[Case]:
    """As many Gaussians as an avatar of the main job has, on the open head."""
    draw = torch.Generator().manual_seed(0)
    vertices, faces = open_head()
    count = 150_000
    triangle = torch.randint(0, len(faces), (count,), generator=draw, dtype=torch.int32).sort().values
    half = torch.randn(count, 3, 3, generator=draw) * 0.2
    local = (half @ half.transpose(1, 2)).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]].contiguous()
    given = at.put(vertices, faces.int(), triangle, torch.rand(count, 3, generator=draw), local)
    call = partial(bind_gaussians, *given, max_trace=1e-5)
    name = f"bind_gaussians, {count:,} on {len(faces):,} triangles"

    def train(backend: str) -> object:
        leaves = [t.clone().requires_grad_() for t in (given[0], *given[3:])]
        out = bind_gaussians(leaves[0], *given[1:3], *leaves[1:], max_trace=1e-5, backend=backend)
        return torch.autograd.grad(out.means.sum() + out.covariances.square().sum(), leaves)

    cases = [Case(name, partial(call, backend="native"), partial(call, backend="reference"), {"cpu": 1.5})]
    cases.append(Case(name + ", forward + backward", partial(train, "native"), partial(train, "reference")))
    return cases if at.device.type == "cpu" else []  # no kernel of its own on a GPU


def rasterize_mesh_cases(at: Setting) -> list[Case]:
    """The open head: face index, barycentrics and depth; with smooth outlines and gradients to the vertices."""
    vertices, faces, *eye = at.put(*open_head(), *camera(at.size))
    links = face_neighbours(faces)
    call = partial(rasterize_mesh, vertices, faces, *eye, at.size, at.size)

    def train(backend: str) -> object:
        leaf = vertices.clone().requires_grad_()
        out = rasterize_mesh(leaf, faces, *eye, at.size, at.size, backend=backend)
        image = interpolate(vertices, faces, out.face_index, out.barycentrics)
        antialias(image, out, leaf, faces, *eye, neighbours=links).square().sum().backward()
        return leaf

    name = f"rasterize_mesh, open head, {len(faces):,} triangles, {at.size} x {at.size}"
    goals = {"cpu": 1000 / 150, "cuda": 0.2}
    return [
        Case(name, partial(call, backend="native"), partial(call, backend="reference"), goals),
        Case(name + ", antialias, backward", partial(train, "native"), partial(train, "reference")),
    ]


def nearest_vertices_cases(at: Setting) -> list[Case]:
    """The points of a grid about a head three times our size, and all samples of a small volume render."""
    vertices = open_head()[0] * 3
    cases = []
    for side in (24, 73):
        points, mesh = at.put(box_points(side, 1.3), vertices[None])
        call = partial(nearest_vertices, points, mesh, 1)
        slow = partial(call, backend="reference") if side == 24 or at.device.type == "cuda" else None
        name = f"nearest_vertices, {side**3:,} points, 1 of {len(vertices):,} vertices"
        cases.append(Case(name, partial(call, backend="native"), slow))
    return cases


def surface_field_cases(at: Setting) -> list[Case]:
    """The same points against triangles, with the published rule for small ones."""
    vertices, faces = open_head()
    cases = []
    for side in (12, 24, 73):
        given = at.put(box_points(side, 1.3), vertices[None] * 3, faces)
        call = partial(surface_field, *given, min_triangle_area=5e-3)
        slow = partial(call, backend="reference") if side == 12 else None
        name = f"surface_field, {side**3:,} points, {len(faces):,} triangles"
        cases.append(Case(name, partial(call, backend="native"), slow))
    return cases


def radiance_head(at: Setting) -> tuple[Tensor, DecoderWeights]:
    """Planes [1, 3, 32, 256, 256] (axes next3d, unit box) and a decoder 32-64-33: a rough, opaque egg in empty space.

    The first channel sums to an ellipsoid, the others are noise that the decoder makes colours of.
    """
    draw = torch.Generator().manual_seed(0)
    planes = torch.nn.functional.interpolate(
        torch.randn(3, 32, 48, 48, generator=draw), size=(256, 256), mode="bicubic"
    )
    rough = torch.nn.functional.interpolate(torch.randn(3, 1, 32, 32, generator=draw), size=(256, 256), mode="bicubic")
    line = (torch.arange(256) + 0.5) / 256 - 0.5
    planes[:, 0] = 0.18 * rough[:, 0]
    planes[0, 0] += 3 * (2.5 - (line / 0.20)[None] ** 2 - (line / 0.27)[:, None] ** 2)
    planes[1, 0] += 3 * (1.5 - (line / 0.25)[:, None] ** 2)
    first, bias = torch.randn(64, 32, generator=draw) / 8, torch.zeros(64)
    second, second_bias = torch.randn(33, 64, generator=draw) / 3, torch.zeros(33)
    first[:, 0], first[0], first[0, 0], bias[0] = 0, 0, 20, -60
    second[0], second[1:, 0], second[0, 0], second_bias[0] = 0, 0, 30, -10
    return at.put(planes[None])[0], DecoderWeights(*at.put(first, bias, second, second_bias))


def radiance_rays(at: Setting, side: int) -> Rays:
    """Rays of EG3D's camera, 0.3 rad to the side: focal length 4.26 pictures, distance 2.7."""
    world_to_camera = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]])
    turn = torch.eye(4)
    turn[0, 0] = turn[2, 2] = math.cos(0.3)
    turn[0, 2], turn[2, 0] = math.sin(0.3), -math.sin(0.3)
    focal = 4.2647 * side
    intrinsics = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
    origins, directions = camera_rays((world_to_camera @ turn)[None], intrinsics[None], side, side)
    return Rays(*at.put(origins.contiguous(), directions, *constant_limits(origins, 2.25, 3.3)))


def triplane_sample_cases(at: Setting) -> list[Case]:
    """Features of all samples of a render of 64 x 64 rays."""
    planes, _ = radiance_head(at)
    rays, along = radiance_rays(at, 64), at.put(torch.linspace(2.25, 3.3, 96)[:, None])[0]
    points = (rays.origins[:, :, None] + along * rays.directions[:, :, None]).flatten(1, 2)

    def train(backend: str) -> object:
        leaves = planes.clone().requires_grad_(), points.clone().requires_grad_()
        return torch.autograd.grad(triplane_sample(*leaves, backend=backend).square().sum(), leaves)

    call = partial(triplane_sample, planes, points)
    name = f"triplane_sample, {points.shape[1]:,} points, 3 x 32 x 256 x 256"
    return [
        Case(name, partial(call, backend="native"), partial(call, backend="reference")),
        Case(name + ", forward + backward", partial(train, "native"), partial(train, "reference")),
    ]


def triplane_render_cases(at: Setting) -> list[Case]:
    """A head of 3 x 32 x 256 x 256 texels with 48 + 48 samples: exactly, with gradients, and skipping."""
    planes, decoder = radiance_head(at)
    rays, skip = radiance_rays(at, 128), Skipping()
    call = partial(triplane_render, planes, decoder, rays, RaySampling(48, 48), axes="next3d")
    exact, fast = call(backend="native").features, call(skip=skip, backend="native").features
    decibels = -10 * math.log10(float((exact - fast).square().mean()))

    def train(backend: str) -> object:
        leaves = [t.clone().requires_grad_() for t in (planes, *decoder)]
        out = triplane_render(leaves[0], DecoderWeights(*leaves[1:]), rays, axes="next3d", backend=backend)
        return torch.autograd.grad(out.features.square().mean(), leaves)

    name = "triplane_render, 128 x 128 rays"
    slow, skipped = partial(call, backend="reference"), f"{name}, skipping ({decibels:.1f} dB to exact)"
    ready = triplane_prepare(planes, decoder, axes="next3d", skip=skip)
    cases = [
        Case(name + ", exact", partial(call, backend="native"), slow, {"cuda": 0.5}),
        Case(name + ", forward + backward", partial(train, "native"), partial(train, "reference")),
        Case(skipped + ", planes prepared once", partial(ready.render, rays), slow, {"cpu": 1000 / 30}),
        Case(skipped + ", new planes", partial(call, skip=skip, backend="native"), slow),
    ]
    if at.device.type == "cuda":
        large = partial(triplane_render, planes, decoder, radiance_rays(at, 512), axes="next3d", backend="native")
        cases.append(Case("triplane_render, 512 x 512 rays, exact", large, None, {"cuda": 5.0}))
    return cases


def correspondence_warp_cases(at: Setting) -> list[Case]:
    """A picture carried 15 degrees around a wavy surface."""
    world_to_camera, intrinsics = camera(at.size)
    turn = torch.tensor(math.radians(15))
    around = torch.eye(4)
    around[0, 0], around[0, 2], around[2, 0], around[2, 2] = turn.cos(), turn.sin(), -turn.sin(), turn.cos()
    views = [View(*at.put(m[None], intrinsics[None])) for m in (world_to_camera, world_to_camera @ around)]
    rows, cols = torch.meshgrid(torch.arange(at.size), torch.arange(at.size), indexing="ij")
    depth = DISTANCE + 0.05 * torch.sin(cols / 40) * torch.cos(rows / 37)
    image, depth = at.put(torch.rand(1, 3, at.size, at.size), depth[None])

    def train(backend: str) -> object:
        leaf = image.clone().requires_grad_()
        out = correspondence_warp(leaf, depth, *views, at.size, at.size, backend=backend)
        return torch.autograd.grad(out.image.square().mean(), leaf)

    call = partial(correspondence_warp, image, depth, *views, at.size, at.size)
    name = f"correspondence_warp, {at.size} x {at.size}"
    return [
        Case(name, partial(call, backend="native"), partial(call, backend="reference")),
        Case(name + ", forward + backward", partial(train, "native"), partial(train, "reference")),
    ]


def sparse_conv3d_cases(at: Setting) -> list[Case]:
    """The surface of an ellipsoid in the volume that a head model's vertices take up at 5 mm, 112 x 160 x 108."""
    draw = torch.Generator().manual_seed(0)
    shape = (112, 160, 108)
    direction = torch.nn.functional.normalize(torch.randn(20000, 3, generator=draw), dim=1)
    sites = (direction * torch.tensor([22.0, 32.0, 22.0]) + torch.tensor([56.0, 80.0, 54.0])).long()
    (sites,) = at.put(torch.unique(torch.cat([torch.zeros_like(sites[:, :1]), sites], dim=1), dim=0))
    cases = []
    if at.device.type == "cpu":  # on a GPU torch makes the map
        for stride in (1, 2):
            call = partial(neighbour_map, sites, shape, stride=stride)
            name = f"neighbour_map, {len(sites):,} sites, stride {stride}"
            cases.append(Case(name, partial(call, backend="native"), partial(call, backend="reference")))
    same = neighbour_map(sites, shape)
    for channels in (16, 64):
        features, weight = at.put(
            torch.randn(len(sites), channels, generator=draw), torch.randn(channels, 3, 3, 3, channels, generator=draw)
        )
        call = partial(sparse_conv3d, features, same, weight)

        def train(backend: str, features: Tensor = features, weight: Tensor = weight) -> object:
            leaves = features.clone().requires_grad_(), weight.clone().requires_grad_()
            return torch.autograd.grad(sparse_conv3d(leaves[0], same, leaves[1], backend=backend).sum(), leaves)

        name = f"sparse_conv3d, {len(sites):,} sites, {channels} to {channels} channels"
        cases.append(Case(name, partial(call, backend="native"), partial(call, backend="reference")))
        cases.append(Case(name + ", forward + backward", partial(train, "native"), partial(train, "reference")))
    return cases


OPS: dict[str, Callable[[Setting], list[Case]]] = {
    "splat": splat_cases,
    "bind_gaussians": bind_gaussians_cases,
    "rasterize_mesh": rasterize_mesh_cases,
    "nearest_vertices": nearest_vertices_cases,
    "surface_field": surface_field_cases,
    "triplane_sample": triplane_sample_cases,
    "triplane_render": triplane_render_cases,
    "correspondence_warp": correspondence_warp_cases,
    "sparse_conv3d": sparse_conv3d_cases,
}
