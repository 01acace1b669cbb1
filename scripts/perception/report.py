"""Figures of the embedded backend on persons left out of training, through the same calls that users make."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from tqdm import tqdm

from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.perception import Face, load_perception
from fourdface.perception.base import box_overlap
from fourdface.perception.geometry import (
    EYE_LEFT,
    EYE_RIGHT,
    IRIS_LEFT,
    IRIS_RIGHT,
    LANDMARK68,
    LIPS_INNER,
    LIPS_OUTER,
    landmark_box,
    outer_eye_distance,
)
from perception.faceless import faceless_pictures
from perception.label import CLIPS, PICTURES, read_clip, read_picture
from perception.shards import finished_shards
from perception.split import held_out

GROUPS = {
    "68": LANDMARK68,
    "eyes": EYE_LEFT + EYE_RIGHT,
    "lips": LIPS_OUTER + LIPS_INNER,
    "irises": IRIS_LEFT + IRIS_RIGHT,
}


class Table:
    """Collects values per row and column; prints means."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, row: str, **values: float) -> None:
        """Append values to the cells of a row."""
        for name, value in values.items():
            self._cells[row][name].append(float(value))

    def text(self) -> str:
        """Markdown."""
        names = list(dict.fromkeys(name for row in self._cells.values() for name in row))
        lines = ["| | n | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
        for row, cells in self._cells.items():
            count = max(len(v) for v in cells.values())
            values = [f"{np.mean(cells[name]):.4f}" if cells.get(name) else "" for name in names]
            lines.append(f"| {row} | {count} | " + " | ".join(values) + " |")
        return "\n".join(lines)


def _errors(
    face: Face, truth: npt.NDArray[np.float32], coefficients: npt.NDArray[np.float32], rotation: npt.NDArray[np.float32]
) -> dict[str, float]:
    unit = outer_eye_distance(truth)
    distance = np.linalg.norm(face.landmarks - truth, axis=1) / unit
    guess = axis_angle_to_matrix(torch.from_numpy(face.rotation)[None])[0].numpy()
    cosine = (np.trace(guess.T @ rotation) - 1) / 2
    out = {"landmarks": float(distance.mean())}
    out |= {name: float(distance[list(group)].mean()) for name, group in GROUPS.items()}
    out["coefficients"] = float(np.abs(face.coefficients - coefficients).mean())
    out["degrees"] = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    return out


def _teacher(work: Path, source: Path) -> dict[str, Any]:
    for shard in finished_shards(work):
        if (shard / "source.txt").read_text().strip() == str(source):
            names = ("frame_index", "frame_landmarks", "frame_coefficients", "frame_rotation", "extent", "alpha")
            return {name: np.load(shard / f"{name}.npy") for name in names if (shard / f"{name}.npy").exists()}
    raise FileNotFoundError(f"{source} has no labels in {work}: run the label step with the same path")


def _kind(path: Path, many: bool) -> str:
    if path.stem.startswith("style_"):
        return "stylised"
    return "generated faces" if many else "photos"


def _report_pictures(perception: Any, work: Path, folder: Path, found: Table, errors: Table, mattes: Table) -> None:
    teacher = _teacher(work, folder)
    labels = {int(index): row for row, index in enumerate(teacher.get("frame_index", []))}
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    for index, path in enumerate(tqdm(files, desc=folder.name, disable=None)):
        held = held_out(path.stem, len(files) > 100, path.parts)
        single = "group" not in path.stem and "synthetic_360" not in path.parts
        if not single or (not held and len(files) > 100):
            continue
        image_u8 = read_picture(path)
        detections = perception.detect(image_u8)
        kind = f"{_kind(path, len(files) > 100)}, {'held out' if held else 'trained on'}"
        row = labels.get(index)
        hit = bool(detections)
        face = perception.analyse(image_u8, detections[0].box) if detections else None
        if row is not None and face is not None:
            truth = teacher["frame_landmarks"][row]
            hit = box_overlap(landmark_box(truth), face.box) > 0.5
            if hit:
                errors.add(
                    kind, **_errors(face, truth, teacher["frame_coefficients"][row], teacher["frame_rotation"][row])
                )
        found.add(kind, found=hit, more_than_one=len(detections) > 1)
        if not hit:
            tqdm.write(f"not found: {path.name} ({kind})")
        if face is not None and hit and held and index < len(teacher.get("alpha", [])):
            width, height = teacher["extent"][index]
            _matte_errors(perception, image_u8, face, teacher["alpha"][index][:height, :width], kind, mattes)


def _matte_errors(perception: Any, image_u8: Any, face: Face, truth_u8: Any, kind: str, mattes: Table) -> None:
    alpha = perception.matte(image_u8, face.landmarks)
    size = (truth_u8.shape[1], truth_u8.shape[0])
    small = np.asarray(Image.fromarray((alpha * 255).astype(np.uint8)).resize(size, Image.Resampling.BOX)) / 255
    truth = truth_u8 / 255
    a, b = small > 0.5, truth > 0.5
    mattes.add(kind, iou=(a & b).sum() / max((a | b).sum(), 1), difference=np.abs(small - truth).mean())


def _report_masks(perception: Any, folder: Path, mattes: Table) -> None:
    for path in sorted((folder / "images").iterdir()):
        mask = folder / "fg_masks" / f"{path.stem}.png"
        if not held_out(path.stem, False, path.parts) or not mask.exists():
            continue
        image_u8 = read_picture(path)
        detections = perception.detect(image_u8)
        if detections:
            face = perception.analyse(image_u8, detections[0].box)
            truth = np.asarray(Image.open(mask).convert("L"))
            _matte_errors(perception, image_u8, face, truth, "exact masks, held out", mattes)


def _report_clip(perception: Any, work: Path, path: Path, seconds: float, found: Table, errors: Table) -> None:
    teacher = _teacher(work, path)
    labels = {int(index): row for row, index in enumerate(teacher["frame_index"])}
    kind = f"clip {path.stem}"
    previous: npt.NDArray[np.float32] | None = None
    for index, image_u8 in enumerate(tqdm(read_clip(path), desc=path.stem, disable=None)):
        if index > seconds * 25:
            break
        face = None
        if previous is None:
            detections = perception.detect(image_u8)
            if detections:
                face = perception.analyse(image_u8, detections[0].box)
        else:
            face = perception.follow(image_u8, previous)
        previous = face.landmarks if face is not None and face.presence >= 0.5 else None
        row = labels.get(index)
        if row is None:
            continue
        hit = face is not None and box_overlap(landmark_box(teacher["frame_landmarks"][row]), face.box) > 0.5
        for name in (kind, "all held-out clips"):
            found.add(name, found=hit)
            if hit and face is not None:
                values = _errors(
                    face,
                    teacher["frame_landmarks"][row],
                    teacher["frame_coefficients"][row],
                    teacher["frame_rotation"][row],
                )
                errors.add(name, **values)


def _report_speed(perception: Any, speed: Table) -> None:
    import skimage.data

    photo = np.asarray(skimage.data.astronaut())
    large = np.asarray(Image.fromarray(photo).resize((1920, 1920)))[:1080]
    for name, image_u8 in (("512x512", photo), ("1920x1080", large)):
        image_u8 = np.ascontiguousarray(image_u8)
        detections = perception.detect(image_u8)
        if not detections:
            continue
        face = perception.analyse(image_u8, detections[0].box)
        calls = {
            "detect": lambda i=image_u8: perception.detect(i),
            "follow": lambda i=image_u8, f=face: perception.follow(i, f.landmarks),
            "matte": lambda i=image_u8, f=face: perception.matte(i, f.landmarks),
        }
        for call, run in calls.items():
            run()
            count = 5 if call == "matte" else 20
            began, worked = time.perf_counter(), time.process_time()
            for _ in range(count):
                run()
            wall, busy = (time.perf_counter() - began) / count, (time.process_time() - worked) / count
            speed.add(f"{call} {name}", milliseconds=1e3 * wall, processor_milliseconds=1e3 * busy)


def report(work: Path, images: list[Path], clips: list[Path], masks: list[Path], seconds: float) -> None:
    """Print Markdown tables of the embedded backend's figures."""
    torch.set_num_threads(1)
    perception = load_perception("embedded")
    found, errors, mattes, speed = Table(), Table(), Table(), Table()
    for folder in images:
        _report_pictures(perception, work, folder, found, errors, mattes)
    for folder in masks:
        _report_masks(perception, folder, mattes)
    for folder in clips:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in CLIPS and held_out(path.stem, False):
                _report_clip(perception, work, path, seconds, found, errors)
    false = Table()
    for picture in faceless_pictures(384):
        image_u8 = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
        false.add("things and animals", faces=len(perception.detect(image_u8)))
    _report_speed(perception, speed)
    for title, table in (
        ("Found (share; IoU of boxes > 0.5)", found),
        (
            "Landmarks (mean distance over outer-eye distance), coefficients (mean absolute error), rotation (degrees)",
            errors,
        ),
        ("Matte", mattes),
        ("Faces in pictures without any (trained on)", false),
        ("Speed, 1 thread (wall clock, and processor time: what an idle machine would need)", speed),
    ):
        tqdm.write(f"\n{title}\n\n{table.text()}")
