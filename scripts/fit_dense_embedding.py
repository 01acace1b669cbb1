"""Find MediaPipe's 468 face points on the open head: render it, detect, cast the points back, average.

    python scripts/fit_dense_embedding.py render WORK
    python scripts/open_head/detect.py WORK face_landmarker_v2_with_blendshapes.task      # needs mediapipe
    python scripts/fit_dense_embedding.py solve WORK DATA/headmodel/mediapipe_canonical/canonical_face_model.obj

`solve` writes scripts/open_head/dense_embedding.json, which the build reads; so the build itself needs no mediapipe.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import torch
from open_head.assemble import SCALE
from open_head.colors import add_brows, vertex_colors
from open_head.raster import render, vertex_normals
from open_head.skeleton import NECK_JOINT
from PIL import Image
from scipy.spatial import cKDTree

from fourdface.blocks.head_model import HeadModel, decode_open_head

TARGET = Path(__file__).parent / "open_head" / "dense_embedding.json"
SIZE, SUPERSAMPLE = 320, 2
VIEWS = ((0.0, 0.0), (-0.26, 0.05), (0.26, -0.05), (-0.5, 0.0), (0.5, 0.0), (0.0, 0.2), (0.0, -0.2))


def load(path: Path | None) -> HeadModel:
    """The shipped head, or the one in a file."""
    return HeadModel.load() if path is None else HeadModel(decode_open_head(path))


def picture(model: HeadModel, index: int, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One render: image_u8, face map and barycentrics at the supersampled size, posed vertices."""
    generator = torch.Generator().manual_seed(1000 + index)
    shape = torch.randn(1, model.shape_count, generator=generator) * (0.8 if index else 0.0)
    expression = torch.zeros(1, model.expression_count)
    amount = float(torch.rand(1, generator=generator))
    if index % 2:  # an open mouth tells the lips apart
        expression[0, model.expression_names.index("jawOpen")] = 0.15 + 0.25 * amount
    with torch.no_grad():
        vertices = model(shape, expression)[0].double().numpy()
        landmarks = model.landmarks(model.template[None], "68")[0].double().numpy()
    regions = {k: v.numpy() for k, v in model.regions.items()}
    colors = add_brows(vertex_colors(regions, model.vertex_count), model.template.double().numpy(), landmarks, 1.0)
    colors *= 0.75 + 0.25 * float(torch.rand(1, generator=generator))
    yaw, pitch = VIEWS[view]
    image, face, bary = render(
        vertices,
        model.faces.numpy(),
        colors,
        size=SIZE,
        yaw=yaw,
        pitch=pitch,
        center=(0.0, 0.05, 0.05),
        extent=0.36,
        background=0.75,
        supersample=SUPERSAMPLE,
    )
    return image, face, bary, vertices


@click.group()
def main() -> None:
    """Find MediaPipe's points on the open head."""


@main.command("render")
@click.argument("work", type=click.Path(file_okay=False, path_type=Path))
@click.option("--head", type=click.Path(exists=True, path_type=Path), help="Head file instead of the shipped one.")
@click.option("--identities", default=24, show_default=True)
def render_all(work: Path, head: Path | None, identities: int) -> None:
    """Write pictures and their face maps."""
    model = load(head)
    work.mkdir(parents=True, exist_ok=True)
    for index in range(identities):
        for view in range(len(VIEWS)):
            image, face, bary, _ = picture(model, index, view)
            stem = work / f"{index:03d}_{view}"
            Image.fromarray(image).save(stem.with_suffix(".png"))
            np.savez_compressed(stem.with_suffix(".npz"), face=face.astype(np.int32), bary=bary.astype(np.float16))


def mirror_pairs(canonical: Path) -> np.ndarray:
    """The mirrored point of each of the 468 points, from the canonical face's geometry."""
    points = np.array(
        [[float(x) for x in line.split()[1:4]] for line in canonical.read_text().splitlines() if line.startswith("v ")]
    )[:468]
    return cKDTree(points).query(points * [-1, 1, 1])[1]


def hits(model: HeadModel, work: Path, name: str, points: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, ...]:
    """Where the points of one picture meet the mean head: positions [468, 3], weights [468], lower-lip votes [468]."""
    data = np.load(work / name.replace(".png", ".npz"))
    face, bary = data["face"], data["bary"].astype(np.float64)
    faces = model.faces.numpy()
    good = (face >= 0) & visible[face]
    rows, columns = np.nonzero(good)
    distance, nearest = cKDTree(np.stack([columns, rows], 1) + 0.5).query(points[:468, :2] * SUPERSAMPLE)
    r, c = rows[nearest], columns[nearest]
    chosen, weights = faces[face[r, c]], bary[r, c]
    template = model.template.double().numpy()
    jaw = model.skinning_weights[:, 2].double().numpy()
    normals = vertex_normals(template, faces)
    view = int(name[4])
    yaw = VIEWS[view][0]
    position = (template[chosen] * weights[..., None]).sum(1)
    facing = (normals[chosen] * weights[..., None]).sum(1) @ np.array([-np.sin(yaw), 0, np.cos(yaw)])
    strength = np.clip(facing, 0, None) ** 2 * np.exp(-((distance / 4) ** 2))
    return position, strength, (jaw[chosen] * weights).sum(1)


@main.command("solve")
@click.argument("work", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("canonical", type=click.Path(exists=True, path_type=Path))
@click.option("--head", type=click.Path(exists=True, path_type=Path), help="Head file instead of the shipped one.")
def solve(work: Path, canonical: Path, head: Path | None) -> None:
    """Average the hits, make them symmetric and write the JSON file."""
    model = load(head)
    regions = {k: v.numpy() for k, v in model.regions.items()}
    hidden = np.zeros(model.vertex_count, bool)
    for key in (
        "mouth_bag",
        "eye_sockets",
        "eyeball_left",
        "eyeball_right",
        "teeth_upper",
        "teeth_lower",
        "gums",
        "tongue",
    ):
        hidden |= regions[key]
    visible = ~hidden[model.faces.numpy()].any(1)
    found = {k: np.array(v) for k, v in json.loads((work / "landmarks.json").read_text()).items()}
    total, mass, votes = np.zeros((468, 3)), np.zeros(468), np.zeros(468)
    for name, points in sorted(found.items()):
        position, strength, jaw = hits(model, work, name, points, visible)
        total += strength[:, None] * position
        mass += strength
        if int(name[:3]) % 2:
            votes += strength * (jaw - 0.5)
    mean = total / mass[:, None]
    pair = mirror_pairs(canonical)
    mean = 0.5 * (mean + mean[pair] * [-1, 1, 1])
    lower = (votes + votes[pair]) > 0
    points = mean / SCALE + NECK_JOINT
    TARGET.write_text(json.dumps({"points": np.round(points, 4).tolist(), "lower": lower.astype(int).tolist()}))
    click.echo(f"{len(found)} pictures with a face; {lower.sum()} points below the mouth's line")


if __name__ == "__main__":
    main()
