"""Judges: independent networks that read faces for the metrics, described by a small yaml file.

    detector:  {onnx: ultraface.onnx, size: [240, 320], mean: 127, std: 128, threshold: 0.7}
    landmarks: {onnx: landmark68.onnx, crop: {box: 1.0, size: 112}, output: crop}
    identity:  {onnx: mobilefacenet.onnx, crop: {points: arcface, size: 112}, mean: [...], std: [...], mirror: true}
    pose:      {onnx: [fsanet_a.onnx, fsanet_b.onnx], crop: {box: 1.0, size: 64}, order: bgr, mean: 127.5, std: 128}
    features:  {onnx: squeezenet_taps.onnx, size: [224, 224], order: bgr, mean: [...], taps: 7}
    coefficients: {mediapipe: face_landmarker.task}

Files are looked for beside the yaml file or in a folder of models. An .onnx file is data: nothing in it is executed
but the network's own operations, by onnxruntime. Roles without an entry are simply not there, and metrics that need
them say so.
"""

from __future__ import annotations

import hashlib
import importlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fourdface.errors import FourdError
from fourdface.metrics.picture import Picture
from fourdface.metrics.warp import ARCFACE_POINTS, box_to_crop, similarity, stretched, warp

ROLES = ("detector", "landmarks", "identity", "pose", "coefficients", "emotion", "features")
KEYS = {"onnx", "mediapipe", "size", "mean", "std", "order", "threshold", "crop", "output", "mirror", "taps", "layout"}
Reader = Callable[[Picture], Any]


@dataclass(frozen=True)
class Judge:
    """One network behind a role: where its input comes from and how numbers go in and out."""

    role: str
    files: tuple[Path, ...]
    settings: Mapping[str, Any]
    words: str

    @cached_property
    def sessions(self) -> list[Any]:
        """The networks, loaded at first use."""
        return [_session(file) for file in self.files]

    def run(self, crop: np.ndarray) -> list[list[np.ndarray]]:
        """Outputs of every network for a picture float32 [h,w,3] in 0..255."""
        mean = np.asarray(self.settings.get("mean", 0.0), np.float32)
        std = np.asarray(self.settings.get("std", 1.0), np.float32)
        ordered = crop[..., ::-1] if self.settings.get("order", "rgb") == "bgr" else crop
        value = (ordered - mean) / std
        if self.settings.get("layout", "nchw") == "nchw":
            value = value.transpose(2, 0, 1)
        batch = np.ascontiguousarray(value[None], np.float32)
        return [session.run(None, {session.get_inputs()[0].name: batch}) for session in self.sessions]


@dataclass
class JudgeSet:
    """The judges of one evaluation; `read` is what `Picture` asks."""

    judges: dict[str, Judge] = field(default_factory=dict)
    readers: dict[str, Reader] = field(default_factory=dict)
    """Other ways to read a role (the project's own perception, say)."""
    words: dict[str, str] = field(default_factory=dict)
    """What stands behind each role, for the report."""
    sync: Any = None
    """Reader of lips and sound, shared by the metrics of an evaluation (`sync.SyncReader`)."""

    @property
    def reid_threshold(self) -> float:
        """Largest distance of unit identity embeddings that counts as the same person (identity's `threshold`)."""
        judge = self.judges.get("identity")
        return float(judge.settings.get("threshold", 1.0)) if judge else 1.0

    def has(self, role: str) -> bool:
        """Whether a role can be read."""
        return role in self.words

    def read(self, role: str, picture: Picture) -> Any:
        """The reading of a role: box [4], landmarks [68,2], pose [3] degrees, identity [D] of length 1, coefficients
        [52], emotion [D], features (list of maps); None for no face or no judge."""
        if role in self.readers:
            return self.readers[role](picture)
        known = {"box": "detector"}.get(role, role)
        if known not in self.judges:
            return None
        return _READ[role](self.judges[known], picture)


def load_judges(path: Path, models: Path | None = None) -> JudgeSet:
    """Read a yaml of judges; raises FourdError for a file that is missing or says something unknown."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FourdError(f"{path} is no yaml of judges: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(data, dict) or not set(data) <= set(ROLES):
        raise FourdError(f"{path} must map roles ({', '.join(ROLES)}) to networks, got {_names(data)}")
    out = JudgeSet()
    for role, settings in data.items():
        if not isinstance(settings, dict) or not set(settings) <= KEYS:
            raise FourdError(f"{path}: {role} may have {', '.join(sorted(KEYS))}, got {_names(settings)}")
        names = settings.get("mediapipe") or settings.get("onnx")
        files = tuple(_find(str(name), path, models) for name in (names if isinstance(names, list) else [names]))
        prints = ", ".join(f"{file.name} (sha256 {_digest(file)[:12]})" for file in files)
        out.judges[role] = Judge(role, files, settings, prints)
        out.words[role] = prints
    return out


def _names(data: Any) -> str:
    return ", ".join(map(str, data)) if isinstance(data, dict) else type(data).__name__


def _find(name: str, yaml_path: Path, models: Path | None) -> Path:
    folders = [folder for folder in (models, yaml_path.parent) if folder is not None]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    places = " and ".join(str(folder) for folder in folders)
    raise FourdError(f"{yaml_path} names the network {name}, which is not in {places}; --models says where it is")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _session(file: Path) -> Any:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise FourdError(f"{file.name} needs the package onnxruntime: pip install 'fourd[metrics]'") from error
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()  # the one setting of threads holds here too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise FourdError(f"{file} does not load as an ONNX network: {' '.join(str(error).split())[:200]}") from error


def _crop(judge: Judge, picture: Picture) -> tuple[np.ndarray, np.ndarray] | None:
    """The network's input [h,w,3] and the matrix [2,3] that made it, or None for no face."""
    spec = judge.settings.get("crop")
    if spec is None:
        height, width = judge.settings["size"]
        scale = np.diag([width / picture.image_u8.shape[1], height / picture.image_u8.shape[0]])
        return stretched(picture.image_u8, (height, width)), np.hstack([scale, np.zeros((2, 1))])
    size = int(spec["size"])
    if spec.get("points") == "arcface":
        landmarks = picture.read("landmarks")
        if landmarks is None:
            return None
        matrix = similarity(five_points(landmarks), ARCFACE_POINTS * size / 112)
    else:
        box = picture.read("box")
        if box is None:
            return None
        matrix = box_to_crop(np.asarray(box, np.float64), float(spec.get("box", 1.0)), size)
    return warp(picture.image_u8, matrix, (size, size)), matrix


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose tip and mouth corners [5,2] of the 68 points [68,2]."""
    rows = [landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30], landmarks[48], landmarks[54]]
    return np.stack(rows).astype(np.float64)


def _read_box(judge: Judge, picture: Picture) -> np.ndarray | None:
    """The best box (score times the root of its area) [4] in pixels, or None."""
    found = _crop(judge, picture)
    if found is None:
        return None
    scores, boxes = judge.run(found[0])[0][:2]
    height, width = picture.image_u8.shape[:2]
    score, box = scores[0, :, 1], boxes[0] * [width, height, width, height]
    keep = score > float(judge.settings.get("threshold", 0.7))
    if not keep.any():
        return None
    score, box = score[keep], box[keep]
    area = np.clip(box[:, 2] - box[:, 0], 0, None) * np.clip(box[:, 3] - box[:, 1], 0, None)
    return np.asarray(box[np.argmax(score * np.sqrt(area))], np.float64)


def _read_landmarks(judge: Judge, picture: Picture) -> np.ndarray | None:
    found = _crop(judge, picture)
    if found is None:
        return None
    crop, matrix = found
    points = judge.run(crop)[0][0].reshape(68, 2).astype(np.float64) * crop.shape[0]
    return np.asarray((points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T)


def _read_vector(judge: Judge, picture: Picture) -> np.ndarray | None:
    """Mean of the networks' first outputs, flattened; with `mirror` the mirrored crop is added, and the sum normed."""
    found = _crop(judge, picture)
    if found is None:
        return None
    value = np.mean([out[0].reshape(-1) for out in judge.run(found[0])], axis=0)
    if judge.settings.get("mirror"):
        value = value + np.mean([out[0].reshape(-1) for out in judge.run(found[0][:, ::-1])], axis=0)
        value = value / np.linalg.norm(value)
    return np.asarray(value, np.float64)


def _read_features(judge: Judge, picture: Picture) -> list[np.ndarray]:
    found = _crop(judge, picture)
    if found is None:
        return []
    return [np.asarray(tap) for tap in judge.run(found[0])[0][: int(judge.settings.get("taps", 1))]]


def _read_coefficients(judge: Judge, picture: Picture) -> np.ndarray | None:
    """The 52 coefficients of MediaPipe's face landmarker, its own order without the first (neutral)."""
    if "mediapipe" not in judge.settings:
        return _read_vector(judge, picture)
    landmarker = _landmarker(judge.files[0])
    mediapipe = importlib.import_module("mediapipe")
    image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture.image_u8))
    with _LOCK:
        found = landmarker.detect(image)
    if not found.face_blendshapes:
        return None
    scores = [category.score for category in found.face_blendshapes[0]]
    return np.asarray(scores[1:] if len(scores) == 53 else scores, np.float64)


_LANDMARKERS: dict[Path, Any] = {}
_LOCK = threading.Lock()
"""MediaPipe's landmarker takes one picture at a time."""


def _landmarker(file: Path) -> Any:
    if file not in _LANDMARKERS:
        try:
            tasks = importlib.import_module("mediapipe.tasks.python")
            vision = importlib.import_module("mediapipe.tasks.python.vision")
        except ImportError as error:
            raise FourdError(f"{file.name} needs the package mediapipe: pip install 'fourd[perception]'") from error
        base = tasks.BaseOptions(model_asset_path=str(file))
        options = vision.FaceLandmarkerOptions(base_options=base, output_face_blendshapes=True)
        _LANDMARKERS[file] = vision.FaceLandmarker.create_from_options(options)
    return _LANDMARKERS[file]


def release() -> None:
    """Close what judges hold open; to be called before Python goes down, when MediaPipe's own finaliser fails."""
    while _LANDMARKERS:
        _LANDMARKERS.popitem()[1].close()


_READ: dict[str, Callable[[Judge, Picture], Any]] = {
    "box": _read_box,
    "landmarks": _read_landmarks,
    "identity": _read_vector,
    "pose": _read_vector,
    "coefficients": _read_coefficients,
    "emotion": _read_vector,
    "features": _read_features,
}
