"""Choosing and loading backends: mediapipe really (where installed), insightface and face-alignment with stand-ins."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fourdface.errors import FourdError, UsageError
from fourdface.perception import BACKENDS, Perception, available_backends, load, load_perception
from fourdface.perception.face_alignment_backend import FaceAlignmentPerception, hub_checkpoint, pull
from fourdface.perception.geometry import LANDMARK68
from fourdface.perception.insightface_backend import InsightFacePerception
from fourdface.perception.networks import DetectorNet, LandmarkNet, MatteNet, fuse

PHOTO = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)


@pytest.fixture
def random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Untrained embedded weights, used by every backend that builds on the embedded one."""
    torch.manual_seed(0)
    state = {}
    for name, kind in (("detector", DetectorNet), ("landmarks", LandmarkNet), ("matte", MatteNet)):
        state.update({f"{name}.{key}": value.half().contiguous() for key, value in fuse(kind()).items()})
    path = tmp_path / "perception.safetensors"
    save_file(state, path)
    monkeypatch.setattr("fourdface.perception.embedded.asset_path", lambda _: path)
    return path


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> types.ModuleType:
    """A stand-in for a package that is not installed."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    for key, value in members.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_every_backend_says_why_it_cannot_run() -> None:
    problems = available_backends()
    assert tuple(problems) == BACKENDS
    for name, problem in problems.items():
        if (
            importlib.util.find_spec({"face-alignment": "face_alignment"}.get(name, name)) is None
            and name != "embedded"
        ):
            assert "pip install" in problem


def test_auto_takes_the_first_that_can_run(monkeypatch: pytest.MonkeyPatch, random_weights: Path) -> None:
    monkeypatch.setattr(
        load, "available_backends", lambda: {name: "no" if name != "embedded" else "" for name in BACKENDS}
    )
    monkeypatch.setattr(load, "_require", lambda backend, path: random_weights)
    perception = load_perception()
    assert perception.name == "embedded"
    assert isinstance(perception, Perception)


def test_unknown_backend_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="mediapipe"):
        load_perception("opencv")


@pytest.mark.parametrize("name", ["mediapipe", "insightface", "face-alignment"])
def test_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FourdError, match=f"pip install {name}"):
        load_perception(name)


@pytest.mark.parametrize("name", ["mediapipe", "insightface", "face-alignment"])
def test_missing_file_is_named(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: importlib.machinery.ModuleSpec("x", None))
    with pytest.raises(FourdError, match="absent"):
        load_perception(name, tmp_path / "absent.bin")
    with pytest.raises(FourdError, match=load.ASSET_IDS[name]):
        load_perception(name)


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_damaged_embedded_weights_are_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(FourdError, match=r"weights\.safetensors"):
        load_perception("embedded", path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"detector.stem.0.conv.weight": torch.zeros(3)}, path)
    with pytest.raises(FourdError, match="version"):
        load_perception("embedded", path)


class FakeDetector:
    """What insightface's model zoo returns for a detector file."""

    def __init__(self) -> None:
        self.prepared: dict[str, object] = {}
        self.seen: np.ndarray | None = None

    def prepare(self, **options: object) -> None:
        self.prepared = options

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, None]:
        self.seen = image
        return np.array([[10, 10, 30, 30, 0.7], [40, 20, 100, 90, 0.9]], dtype=np.float32), None


def test_insightface_boxes_are_sorted_and_fed_with_bgr(monkeypatch: pytest.MonkeyPatch, random_weights: Path) -> None:
    model = FakeDetector()
    install(monkeypatch, "insightface")
    install(monkeypatch, "insightface.model_zoo", get_model=lambda path, providers: model)
    perception = load_perception("insightface", random_weights)
    assert isinstance(perception, Perception)
    found = perception.detect(PHOTO)
    assert [d.score for d in found] == pytest.approx([0.9, 0.7])
    np.testing.assert_array_equal(found[0].box, [40, 20, 100, 90])
    np.testing.assert_array_equal(model.seen, PHOTO[..., ::-1])
    assert model.prepared["ctx_id"] == -1
    assert perception.analyse(PHOTO, found[0].box).landmarks.shape == (478, 2)
    assert perception.follow(PHOTO, perception.analyse(PHOTO, found[0].box).landmarks).coefficients.shape == (52,)


def test_insightface_refuses_files_of_another_kind(monkeypatch: pytest.MonkeyPatch, random_weights: Path) -> None:
    install(monkeypatch, "insightface")
    install(monkeypatch, "insightface.model_zoo", get_model=lambda path, providers: object())
    with pytest.raises(FourdError, match="not a face detector"):
        InsightFacePerception(random_weights)

    def broken(path: str, providers: list[str]) -> None:
        raise RuntimeError("protobuf parsing failed\nmore")

    install(monkeypatch, "insightface.model_zoo", get_model=broken)
    with pytest.raises(FourdError, match=r"protobuf parsing failed$"):
        InsightFacePerception(random_weights)


class FakeAlignment:
    """Stands in for face_alignment.FaceAlignment: 68 points in a row across the box."""

    def __init__(self, kind: object, **options: object) -> None:
        self.options = options

    def get_landmarks_from_image(self, image: np.ndarray, detected_faces: list[list[float]]) -> list[np.ndarray]:
        x0, y0, x1, y1, _ = detected_faces[0]
        return [np.stack([np.linspace(x0, x1, 68), np.full(68, (y0 + y1) / 2)], axis=1)]


def test_face_alignment_is_given_its_file_and_never_downloads(
    monkeypatch: pytest.MonkeyPatch, random_weights: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub home"))
    kinds = types.SimpleNamespace(TWO_D=1)
    install(monkeypatch, "face_alignment", FaceAlignment=FakeAlignment, LandmarksType=kinds)
    source = tmp_path / "fan.zip"
    source.write_bytes(b"network")
    perception = FaceAlignmentPerception(source)
    assert hub_checkpoint().read_bytes() == b"network"
    assert perception._model.options["face_detector"] == "folder"
    face = perception.analyse(PHOTO, np.array([40, 20, 100, 90], np.float32))
    assert face.landmarks.shape == (478, 2)
    assert np.isfinite(face.landmarks).all()


def test_face_alignment_without_its_file(monkeypatch: pytest.MonkeyPatch, random_weights: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    install(monkeypatch, "face_alignment", FaceAlignment=FakeAlignment, LandmarksType=types.SimpleNamespace(TWO_D=1))
    with pytest.raises(FourdError, match="2DFAN4"):
        FaceAlignmentPerception(tmp_path / "absent.zip")


def test_pull_moves_dense_landmarks_with_the_classic_ones() -> None:
    random = np.random.default_rng(0)
    dense = random.uniform(0, 200, (478, 2)).astype(np.float32)
    dense[33], dense[263] = (40, 80), (140, 80)
    same = pull(dense, dense[list(LANDMARK68)])
    np.testing.assert_allclose(same, dense, atol=1e-3)
    shifted = pull(dense, dense[list(LANDMARK68)] + np.array([5, -3], np.float32))
    np.testing.assert_allclose(shifted - dense, np.broadcast_to([5, -3], dense.shape), atol=1e-2)


@pytest.mark.real
def test_mediapipe_with_its_real_file(test_data: Path, random_weights: Path) -> None:
    pytest.importorskip("mediapipe", reason="mediapipe is not installed (extra `perception`)")
    from skimage.data import astronaut, coffee

    task = test_data / "models" / "face_landmarker_v2_with_blendshapes.task"
    perception = load_perception("mediapipe", task)
    assert isinstance(perception, Perception)
    image = np.ascontiguousarray(astronaut())
    found = perception.detect(image)
    assert len(found) == 1
    face = perception.analyse(image, found[0].box)
    assert face.landmarks.shape == (478, 2)
    assert 0.3 < face.coefficients[43:45].mean() <= 1  # she smiles
    followed = perception.follow(np.roll(image, 6, axis=1), face.landmarks)
    np.testing.assert_allclose(followed.landmarks - face.landmarks, np.broadcast_to([6, 0], (478, 2)), atol=3)
    assert perception.detect(np.ascontiguousarray(coffee())) == []
    assert perception.follow(np.zeros_like(image), face.landmarks).presence == 0
    assert perception.matte(image, face.landmarks).shape == image.shape[:2]
    broken = random_weights.with_suffix(".task")
    broken.write_bytes(b"no task file")
    with pytest.raises(FourdError, match="not a face landmarker"):
        load_perception("mediapipe", broken)
