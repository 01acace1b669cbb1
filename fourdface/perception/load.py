"""Which perception backend to use: the best that is installed, or the one asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fourdface.errors import FourdError, UsageError
from fourdface.perception.base import Perception

BACKENDS = ("mediapipe", "insightface", "face-alignment", "embedded")
"""Best first; `auto` takes the first that can run."""

_MODULES = {"mediapipe": "mediapipe", "insightface": "insightface", "face-alignment": "face_alignment"}
ASSET_IDS = {
    "mediapipe": "mediapipe-face-landmarker",
    "insightface": "insightface-detector",
    "face-alignment": "face-alignment-2dfan4",
    "embedded": "perception",
}


def available_backends() -> dict[str, str]:
    """Each backend's name -> "" where it can run, else why it cannot (for `fourd doctor`). Imports none of them."""
    out = {}
    for name in BACKENDS:
        try:
            _require(name, None)
            out[name] = ""
        except FourdError as error:
            out[name] = str(error)
    return out


def load_perception(backend: str = "auto", path: Path | None = None) -> Perception:
    """The backend by name, or the best available with "auto".

    `path`: the backend's own file (MediaPipe's .task, insightface's detector .onnx, face-alignment's 2DFAN4 .zip or
    the embedded .safetensors) where it is not in the asset folder. Raises UsageError for an unknown name and FourdError
    where a named backend cannot run.
    """
    if backend == "auto":
        usable = [name for name, problem in available_backends().items() if not problem]
        backend, path = usable[0] if usable else "embedded", None
    if backend not in BACKENDS:
        raise UsageError(f"Unknown perception backend {backend!r}: use auto, {', '.join(BACKENDS)}.")
    file = _require(backend, path)
    if backend == "embedded":
        from fourdface.perception.embedded import EmbeddedPerception

        return EmbeddedPerception(file)
    if backend == "mediapipe":
        from fourdface.perception.mediapipe_backend import MediaPipePerception

        return MediaPipePerception(file)
    if backend == "insightface":
        from fourdface.perception.insightface_backend import InsightFacePerception

        return InsightFacePerception(file)
    from fourdface.perception.face_alignment_backend import FaceAlignmentPerception

    return FaceAlignmentPerception(file)


def _require(backend: str, path: Path | None) -> Path:
    """The file of a backend; FourdError where its package or its file is missing."""
    module = _MODULES.get(backend)
    if module is not None and importlib.util.find_spec(module) is None:
        package = module.replace("_", "-")
        raise FourdError(f"Perception backend {backend} needs the package {package}: pip install {package}.")
    if path is None:
        from fourdface.assets import asset_path

        path = asset_path(ASSET_IDS[backend])
    if not Path(path).exists():
        raise FourdError(f"Perception backend {backend}: there is no file {path}.")
    return Path(path)
