"""Pictures of the open head for the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from fourdface.blocks.head_model import HeadModel
from open_head.colors import SKIN, add_brows, face_colors, vertex_colors
from open_head.raster import render

COMPANY = {"mouthClose": 1.0, "tongueOut": 0.3}
"""jawOpen in the pictures of these modes: mouthClose shuts the lips over an open jaw and has no meaning alone."""


class Photographer:
    """Renders of one head model."""

    def __init__(self, model: HeadModel) -> None:
        """Args: model: the head."""
        self.model = model
        self.faces = model.faces.numpy()
        regions = {k: v.numpy() for k, v in model.regions.items()}
        with torch.no_grad():
            marks = model.landmarks(model.template[None], "68")[0].double().numpy()
        smooth = add_brows(
            vertex_colors(regions, model.vertex_count), model.template.double().numpy(), marks, scale=1.0
        )
        hard = face_colors(regions, self.faces, model.vertex_count)
        skin = regions["face"][self.faces].all(1) & ~regions["lips"][self.faces].all(1)
        bare = np.minimum(smooth, SKIN)
        bare[regions["lips"]] = SKIN
        self.colors = np.where(skin[:, None, None], bare[self.faces], hard[:, None])

    def shoot(self, size: int, *, yaw: float = 0.0, close: bool = False, **pose: Any) -> np.ndarray:
        """Picture [size, size, 3] u8; `pose` goes to the model's forward; `close` shows the face only."""
        with torch.no_grad():
            vertices = self.model(**pose)[0].double().numpy()
        center, extent = ((0.0, 0.062, 0.09), 0.19) if close else ((0.0, 0.05, 0.03), 0.33)
        return render(
            vertices, self.faces, self.colors, size=size, yaw=yaw, center=center, extent=extent, supersample=3
        )[0]


def grid(pictures: list[np.ndarray], columns: int, names: list[str] | None = None) -> Image.Image:
    """Pictures of one size in rows, each with its name below its top edge."""
    size = pictures[0].shape[0]
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * size, rows * size), "white")
    draw = ImageDraw.Draw(sheet)
    for k, picture in enumerate(pictures):
        corner = (k % columns * size, k // columns * size)
        sheet.paste(Image.fromarray(picture), corner)
        if names:
            draw.text((corner[0] + 4, corner[1] + 2), names[k], fill=(40, 40, 40))
    return sheet


def save(sheet: Image.Image, path: Path) -> None:
    """Write a small PNG (a palette of 200 colours)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(200, dither=Image.Dither.NONE).save(path, optimize=True)


def identities(model: HeadModel, path: Path, size: int = 170) -> None:
    """The mean head and 17 random identities, each from the front and from the side."""
    camera = Photographer(model)
    generator = torch.Generator().manual_seed(0)
    pictures = []
    for k in range(18):
        shape = torch.randn(1, model.shape_count, generator=generator) * (k > 0)
        pictures += [camera.shoot(size, shape=shape), camera.shoot(size, shape=shape, yaw=1.1)]
    save(grid(pictures, 6), path)


def expressions(model: HeadModel, path: Path, size: int = 150) -> None:
    """All expression modes at 1."""
    camera = Photographer(model)
    pictures, names = [], []
    for k, name in enumerate(model.expression_names):
        expression = torch.zeros(1, model.expression_count)
        expression[0, k] = 1.0
        if name in COMPANY:
            expression[0, model.expression_names.index("jawOpen")] = COMPANY[name]
        yaw = 0.6 if name in ("jawForward", "tongueOut") else 0.0
        pictures.append(camera.shoot(size, expression=expression, close=True, yaw=yaw))
        names.append(f"{name} + jawOpen" if name in COMPANY else name)
    save(grid(pictures, 8, names), path)


def poses(model: HeadModel, path: Path, size: int = 190) -> None:
    """Neck, jaw and eyes turned by their joints."""
    camera = Photographer(model)

    def row(*values: float) -> torch.Tensor:
        return torch.tensor([values])

    shots: list[tuple[str, dict[str, Any]]] = [
        ("neck left 0.6", {"neck": row(0, 0.6, 0)}),
        ("neck down 0.4", {"neck": row(0.4, 0, 0), "yaw": 1.2}),
        ("neck up 0.4", {"neck": row(-0.4, 0, 0), "yaw": 1.2}),
        ("neck roll 0.4", {"neck": row(0, 0, 0.4)}),
        ("jaw 0.15", {"jaw": row(0.15, 0, 0), "close": True}),
        ("jaw 0.35", {"jaw": row(0.35, 0, 0), "close": True}),
        ("jaw 0.35", {"jaw": row(0.35, 0, 0), "yaw": 1.2}),
        ("eyes left 0.4", {"eyes": row(0, 0.4, 0, 0, 0.4, 0), "close": True}),
    ]
    save(grid([camera.shoot(size, **kw) for _, kw in shots], 4, [name for name, _ in shots]), path)


def texture(model: HeadModel, path: Path, size: int = 900) -> None:
    """The texture layout."""
    sheet = Image.new("L", (size, size), 255)
    draw = ImageDraw.Draw(sheet)
    corners = model.uv.numpy()[model.faces_uv.numpy()] * [size, -size] + [0, size]
    for triangle in corners:
        draw.line([*map(tuple, triangle), tuple(triangle[0])], fill=70)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(8).save(path, optimize=True)


def write_all(model: HeadModel, folder: Path) -> None:
    """All sheets as open_head_*.png."""
    for name, make in (
        ("identities", identities),
        ("expressions", expressions),
        ("poses", poses),
        ("uv", texture),
    ):
        make(model, folder / f"open_head_{name}.png")
