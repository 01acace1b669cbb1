"""One person's pictures with their truth, and how the pictures of several people become a `Views` artifact."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from ...artifacts import Provenance, Source, Views
from ...media.image import encode_png
from .expressions import HeadMotion

JPEG_QUALITY = 95


@dataclass(frozen=True)
class ViewPlan:
    """How many motions of a person, cameras of a motion, pixels a side; neck: probability that it is bent."""

    motions: int = 4
    views: int = 6
    size: int = 128
    neck: float = 0.0


@dataclass(frozen=True)
class ViewRow:
    """One picture: image_u8 [H,W,3] over the background, opacity [H,W] in 0..1, depth_z [H,W] metres (0 = nothing; None
    where it is not known), world_to_camera [4,4], intrinsics [3,3]; numbers of motion, view, and of the background
    among the person's (-1: none)."""

    motion: int
    view: int
    image_u8: np.ndarray
    opacity: np.ndarray
    depth_z: np.ndarray | None
    world_to_camera: np.ndarray
    intrinsics: np.ndarray
    state: HeadMotion
    background: int = 0


@dataclass(frozen=True)
class Person:
    """Everything rendered of one person. name: where it came from; shape [S]; backgrounds: uint8 [H,W,3] each; latent
    [D]: what a generator made the person of, where one did."""

    name: str
    shape: np.ndarray
    rows: Sequence[ViewRow]
    backgrounds: Sequence[np.ndarray]
    sources: tuple[Source, ...] = field(default_factory=tuple)
    latent: np.ndarray | None = None


def encode_jpeg(image_u8: np.ndarray, quality: int = JPEG_QUALITY) -> bytes:
    """JPEG of uint8 [H,W,3] with full colour resolution."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_u8)).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def half_depth(depth_z: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Depth at half size [H/2,W/2] float16: the mean over the opaque pixels of every two by two, 0 where none is."""
    height, width = (2 * (n // 2) for n in depth_z.shape)
    solid = ((opacity > 0.5) & (depth_z > 0))[:height, :width].astype(np.float64)
    blocks = (height // 2, 2, width // 2, 2)
    count = solid.reshape(blocks).sum((1, 3))
    total = (depth_z[:height, :width] * solid).reshape(blocks).sum((1, 3))
    return (total / np.maximum(count, 1)).astype(np.float16)


def assemble(people: Sequence[tuple[int, Person]], head_model: str, plan: ViewPlan, provenance: Provenance) -> Views:
    """The artifact of people with their numbers (ascending); row k of number i is row `i * motions * views + k`."""
    rows_each = plan.motions * plan.views
    rows = [(number, k, row) for number, person in people for k, row in enumerate(person.rows)]
    first = np.cumsum([0, *(len(person.backgrounds) for _, person in people)])
    offsets = {number: int(first[k]) for k, (number, _) in enumerate(people)}
    shapes = {number: person.shape for number, person in people}
    latents = [person.latent for _, person in people if person.latent is not None]
    whole = [(row.depth_z, row.opacity) for _, _, row in rows]

    def stacked(values: list[np.ndarray], *shape: int) -> np.ndarray:
        return np.asarray(values, np.float32).reshape(len(rows), *shape)

    def numbers(values: list[int]) -> np.ndarray:
        return np.asarray(values, np.int64)

    zeros = np.zeros((len(rows), 3), np.float32)
    expression = stacked([row.state.expression for *_, row in rows], 52)
    return Views(
        provenance=provenance, width=plan.size, height=plan.size, head_model=head_model,
        images=[encode_jpeg(row.image_u8) for *_, row in rows],
        opacities=[encode_png(np.round(np.clip(row.opacity, 0, 1) * 255).astype(np.uint8)) for *_, row in rows],
        depths=np.stack([half_depth(depth, alpha) for depth, alpha in whole if depth is not None])
        if rows and all(depth is not None for depth, _ in whole) else None,
        backgrounds=[encode_jpeg(picture) for _, person in people for picture in person.backgrounds],
        background_index=numbers([row.background + offsets[n] if row.background >= 0 else -1 for n, _, row in rows]),
        index=numbers([n * rows_each + k for n, k, _ in rows]), identity=numbers([n for n, *_ in rows]),
        motion=numbers([row.motion for *_, row in rows]), view=numbers([row.view for *_, row in rows]),
        identity_name=[person.name.encode() for _, person in people],
        latents=np.asarray(latents, np.float32) if people and len(latents) == len(people) else None,
        shape=stacked([shapes[n] for n, *_ in rows], -1) if rows else np.zeros((0, 0), np.float32),
        expression=expression, coefficients=expression.copy(), rotation=zeros, translation=zeros.copy(),
        neck=stacked([row.state.neck for *_, row in rows], 3), jaw=stacked([row.state.jaw for *_, row in rows], 3),
        eyes=stacked([row.state.eyes for *_, row in rows], 6),
        intrinsics=stacked([row.intrinsics for *_, row in rows], 3, 3),
        world_to_camera=stacked([row.world_to_camera for *_, row in rows], 4, 4),
    )  # fmt: skip
