"""Wide head turns out of near-frontal pictures: the person becomes a height field, is turned and drawn again.

Few collections hold profiles, and the landmark teacher fails on them. The teacher's depths give the face's relief;
head and hair fall away behind it. Landmarks and rotation of the turned picture follow exactly; the coefficients stay.
(The idea of turning labelled pictures in depth: Zhu et al. 2016, section 4.)
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import distance_transform_edt
from torch.nn import functional
from tqdm import tqdm

from perception.augment import fill_holes, without_person
from perception.label import ShardWriter
from perception.shards import finished_shards

LIMIT = 900
FINE = 4  # samples a pixel along the rows, in which everything moves
SLOPE = 1.1  # how fast the head falls back beyond the face's outline
DEEPEST = 0.75  # of the face's width
TARGET_YAW = (35.0, 88.0)

COLUMNS = (
    "frame_index", "frame_landmarks", "frame_depth", "frame_rotation", "frame_coefficients",
    "scenes", "alpha", "extent", "scene_landmarks", "scene_held_out",
)  # fmt: skip

Array = npt.NDArray[np.float32]


def height_field(landmarks: Array, height: Array, person: npt.NDArray[np.bool_]) -> Array:
    """Height (to the viewer, pixels) of every pixel of `person` [H,W] from that of the landmarks [478]."""
    rows, columns = person.shape
    y, x = np.mgrid[:rows, :columns] + 0.5
    inside = LinearNDInterpolator(landmarks[:468], height[:468])(x, y)
    face = ~np.isnan(inside)
    distance, (near_y, near_x) = distance_transform_edt(~face, return_indices=True)
    width = float(np.ptp(landmarks[:, 0]))
    lowest = float(height.min()) - DEEPEST * width
    top = near_y < landmarks[[70, 300], 1].mean()  # above the brows the skull falls back slowly at first
    under = near_y > landmarks[[61, 291], 1].mean()
    lowest = np.where(under, float(height[:468].mean()) - 0.35 * width, lowest)
    fall = np.where(top, 0.25 * distance + 1.6 * distance**2 / width, SLOPE * distance)
    beyond = inside[near_y, near_x] - fall
    return np.where(face, inside, np.maximum(beyond, lowest)).astype(np.float32)


def turn_scene(
    scene: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8], landmarks: Array, height: Array, angle: float
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], Array]:
    """Scene [H,W,3], matte [H,W], landmarks [478,2] and heights [478] (pixels), radians -> the turned three."""
    person = alpha > 128
    field = height_field(landmarks, height, person)
    colours = torch.from_numpy(scene).permute(2, 0, 1)[None].float() / 255
    matte = torch.from_numpy(alpha)[None, None].float() / 255
    size = (scene.shape[0], scene.shape[1] * FINE)
    fine = functional.interpolate(colours, size=size, mode="bilinear")[0].permute(1, 2, 0).numpy()
    deep = functional.interpolate(torch.from_numpy(field)[None, None], size=size, mode="bilinear")[0, 0].numpy()
    use = (
        functional.interpolate(torch.from_numpy(person)[None, None].float(), size=size, mode="nearest")[0, 0].numpy()
        > 0.5
    )
    rows, columns = np.nonzero(use)
    pivot = float(landmarks[:, 0].mean())
    across, towards = (columns + 0.5) / FINE - pivot, deep[rows, columns]
    new_x = pivot + np.cos(angle) * across + np.sin(angle) * towards
    new_height = -np.sin(angle) * across + np.cos(angle) * towards
    order = np.argsort(new_height)
    target_x, target_y = np.floor(new_x[order]).astype(int), rows[order]
    valid = (target_x >= 0) & (target_x < scene.shape[1])
    canvas, hit = np.zeros(scene.shape, np.float32), np.zeros(scene.shape[:2], np.float32)
    canvas[target_y[valid], target_x[valid]] = fine[rows, columns][order][valid]
    hit[target_y[valid], target_x[valid]] = 1
    drawn = torch.from_numpy(canvas).permute(2, 0, 1)[None], torch.from_numpy(hit)[None, None]
    closed = -functional.max_pool2d(-functional.max_pool2d(drawn[1], 7, 1, 3), 7, 1, 3)
    closed = functional.avg_pool2d(closed, 3, 1, 1)
    filled = fill_holes(drawn[0], drawn[1])
    ground = without_person(colours, matte)
    out = filled * closed + ground * (1 - closed)
    moved = landmarks.copy()
    moved[:, 0] = pivot + np.cos(angle) * (landmarks[:, 0] - pivot) + np.sin(angle) * height
    image = (out[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255).astype(np.uint8)
    return image, (closed[0, 0].numpy() * 255).astype(np.uint8), moved


def _turn_shard(shard: Path, output: Path, random: np.random.Generator) -> int:
    data = {name: np.load(shard / f"{name}.npy") for name in COLUMNS}
    writer = ShardWriter(None)
    choice = random.permutation(len(data["frame_index"]))[:LIMIT]
    for row in tqdm(choice, desc=output.name, disable=None):
        index = int(data["frame_index"][row])
        if data["scene_held_out"][index]:
            continue
        width, height = data["extent"][index]
        landmarks = data["scene_landmarks"][index][0]
        scale = float(np.ptp(landmarks[:, 1]) / np.ptp(data["frame_landmarks"][row][:, 1]))
        rotation = data["frame_rotation"][row]
        yaw = float(np.arcsin(np.clip(-rotation[2, 0], -1, 1)))
        side = np.sign(yaw) if abs(yaw) > 0.08 else random.choice([-1.0, 1.0])
        angle = side * np.radians(random.uniform(*TARGET_YAW)) - yaw
        if side * angle < 0.15:
            continue
        scene, alpha = data["scenes"][index][:height, :width], data["alpha"][index][:height, :width]
        padded = [
            np.pad(a, ((0, 320 - height), (0, 320 - width)) + ((0, 0),) * (a.ndim - 2), mode="edge")
            for a in (scene, alpha)
        ]
        image, matte, moved = turn_scene(padded[0], padded[1], landmarks, -data["frame_depth"][row] * scale, angle)
        cosine, sine = np.cos(angle), np.sin(angle)
        turned = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], np.float32) @ rotation
        face = (moved, data["frame_coefficients"][row], turned, None)
        writer.add_face(image, face, index, False)
        writer.add_scene(image, [face], index, False, matte)
    return writer.write(output)


def turn(work: Path, seed: int = 0) -> None:
    """Write a shard of turned faces for every shard of pictures that has depths."""
    random = np.random.default_rng(seed)
    for shard in finished_shards(work):
        output = work / "shards" / f"turned_{shard.name}"
        usable = shard.name.startswith("pictures_") and (shard / "scenes.npy").exists()
        if not usable or not (shard / "frame_depth.npy").exists() or (output / "done").exists():
            continue
        if output.exists():
            shutil.rmtree(output)
        count = _turn_shard(shard, output, random)
        (output / "source.txt").write_text(f"turned {shard.name}\n")
        tqdm.write(f"{output.name}: {count} faces")
