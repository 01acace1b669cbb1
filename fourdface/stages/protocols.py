"""Protocols as yaml files that ship with the package (configs/eval), and the judges that need no download."""

from __future__ import annotations

import dataclasses
import importlib.resources
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..assets import find_asset
from ..blocks.rotation import axis_angle_to_matrix
from ..errors import FourdError
from ..metrics import Picture
from ..metrics.judges import JudgeSet
from ..perception import load_perception
from ..perception.base import Face
from ..perception.geometry import LANDMARK68
from .evaluate import Protocol

CHOICES = {"lengths": ("refuse", "trim"), "sizes": ("refuse", "resize", "keep")}


def configuration(name: str) -> Path:
    """Path of a file of configs/eval."""
    return Path(str(importlib.resources.files("fourdface.configs"))) / "eval" / name


def load_protocol(name: str, file: str | None = None) -> Protocol:
    """The shipped protocol `name`, or that of a yaml file with the same keys; raises FourdError for wrong ones."""
    path = Path(file) if file else configuration(f"{name}.yaml")
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FourdError(f"{path} is no yaml of a protocol: {' '.join(str(error).split())[:200]}") from error
    fields = {field.name: field for field in dataclasses.fields(Protocol)}
    if not isinstance(data, dict) or not set(data) <= set(fields):
        got = ", ".join(map(str, data)) if isinstance(data, dict) else type(data).__name__
        raise FourdError(f"{path} may set {', '.join(fields)}, got {got}")
    defaults = Protocol()
    for key, value in data.items():
        wanted = type(getattr(defaults, key))
        if wanted is tuple and isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            data[key] = tuple(value)
        elif type(value) is not wanted or (key in CHOICES and value not in CHOICES[key]):
            choices = f" ({', '.join(CHOICES[key])})" if key in CHOICES else ""
            raise FourdError(f"{path}: {key} must be {wanted.__name__}{choices}, got {value!r}")
    if data.get("every", 1) < 1:
        raise FourdError(f"{path}: every must be at least 1, got {data['every']}")
    return dataclasses.replace(defaults, **{"name": name, **data})


def embedded_judges() -> JudgeSet:
    """Box, landmarks, pose and coefficients by the embedded perception: no download, but not independent of `fourd`."""
    perception = load_perception("embedded")

    def face(picture: Picture) -> Face | None:
        found = perception.detect(picture.image_u8)
        return perception.analyse(picture.image_u8, found[0].box) if found else None

    def part(picture: Picture, name: str) -> np.ndarray | None:
        seen: Face | None = picture.once("embedded face", lambda: face(picture))
        return None if seen is None else _part(seen, name)

    words = "the embedded perception of fourd (not independent of it)"
    names = {"box": "detector", "landmarks": "landmarks", "pose": "pose", "coefficients": "coefficients"}
    return JudgeSet(
        readers={name: partial(part, name=name) for name in names},
        words={role: words for role in names.values()},
    )


def add_motion(judges: JudgeSet) -> None:
    """Let judges that see landmarks also read PD-FGC's motion embedding [548], where its weights were imported."""
    from ..methods.portrait4d.alignment import motion_crop, motion_matrix
    from ..methods.portrait4d.motion_encoder import MotionEncoder
    from ..methods.portrait4d.weights import MOTION_ASSET, load_motion_encoder

    if find_asset(MOTION_ASSET) is None or not judges.has("landmarks"):
        return
    loaded: list[MotionEncoder] = []

    def read(picture: Picture) -> np.ndarray | None:
        landmarks = picture.read("landmarks")
        if landmarks is None:
            return None
        if not loaded:
            loaded.append(load_motion_encoder()[0])
        crop = motion_crop(2 * picture.image[None] - 1, motion_matrix(landmarks))
        return np.asarray(loaded[0](crop).embedding[0].double().numpy())

    judges.readers["motion"] = read
    judges.words["motion"] = f"PD-FGC (asset {MOTION_ASSET})"


def _part(face: Face, name: str) -> np.ndarray:
    if name == "box":
        points = face.landmarks
        return np.concatenate([points.min(axis=0), points.max(axis=0)]).astype(np.float64)
    if name == "landmarks":
        return face.landmarks[list(LANDMARK68)].astype(np.float64)
    if name == "coefficients":
        return face.coefficients.astype(np.float64)
    return _degrees(face.rotation)


def _degrees(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll [3] in degrees of an axis-angle rotation, R = Ry Rx Rz."""
    import torch

    matrix = axis_angle_to_matrix(torch.from_numpy(rotation)[None].double())[0].numpy()
    pitch = np.arcsin(np.clip(-matrix[1, 2], -1, 1))
    yaw = np.arctan2(matrix[0, 2], matrix[2, 2])
    roll = np.arctan2(matrix[1, 0], matrix[1, 1])
    return np.degrees(np.array([yaw, pitch, roll]))
