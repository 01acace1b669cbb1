"""scripts/perception: split, mirrored labels, detector targets, turned pictures; a step of every training, export."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(autouse=True)
def _scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in [n for n in sys.modules if n == "perception" or n.startswith("perception.")]:
        monkeypatch.delitem(sys.modules, name)


def face_shape() -> np.ndarray:
    """A symmetric set of 478 points in crop coordinates with eyes, forehead and chin in their places."""
    from fourdface.perception import geometry

    random = np.random.default_rng(0)
    points = np.zeros((478, 2))
    left = random.uniform([0.05, -0.7], [0.7, 0.7], (239, 2))
    points[:234], points[234:468] = left[:234], left[:234] * [-1, 1]
    points[468:473], points[473:] = left[234:] * [-1, 1], left[234:]
    swap = {geometry.EYE_OUTER_RIGHT: (-0.45, -0.2), geometry.EYE_OUTER_LEFT: (0.45, -0.2)}
    for index, place in (*swap.items(), (geometry.FOREHEAD, (0, -0.78)), (geometry.CHIN, (0, 0.78))):
        points[index] = place
    return points.astype(np.float32)


def write_shard(work: Path, name: str, count: int = 6) -> None:
    """A shard as `label` writes it, of random pictures with a face drawn in the middle."""
    random = np.random.default_rng(1)
    folder = work / "shards" / name
    folder.mkdir(parents=True)
    shape = face_shape()
    scene_points = np.full((count, 4, 478, 2), np.nan, np.float32)
    scene_points[:, 0] = shape * 70 + 150
    alpha = np.zeros((count, 320, 320), np.uint8)
    alpha[:, 60:300, 80:220] = 255
    columns = {
        "crops": random.integers(0, 255, (count, 224, 224, 3), dtype=np.uint8),
        "landmarks": np.repeat(shape[None], count, axis=0) + random.normal(0, 0.01, (count, 478, 2)).astype(np.float32),
        "coefficients": random.uniform(0, 1, (count, 52)).astype(np.float32),
        "rotation": np.repeat(np.eye(3, dtype=np.float32)[None], count, axis=0),
        "held_out": np.arange(count) == 0,
        "group": np.arange(count),
        "scenes": random.integers(0, 255, (count, 320, 320, 3), dtype=np.uint8),
        "alpha": alpha,
        "extent": np.full((count, 2), (320, 300)),
        "scene_landmarks": scene_points,
        "scene_held_out": np.arange(count) == 0,
        "scene_group": np.arange(count),
    }
    for key, value in columns.items():
        np.save(folder / f"{key}.npy", value)
    (folder / "source.txt").write_text(name)
    (folder / "done").write_text("ok")


def test_split_is_by_person() -> None:
    from perception.split import held_out, original

    assert held_out("man_profile_90", False)
    assert held_out("woman_expressions", False)
    assert not held_out("man_beard_sad", False)
    assert held_out("00003_01", False, ("data", "studio_c", "images"))
    names = [f"g{index:05d}" for index in range(2000)]
    assert 0.07 < np.mean([held_out(name, True) for name in names]) < 0.13
    for name in names[:100]:  # renders of a held-out picture are held out with it
        assert held_out(f"{name}_07", True) == held_out(name, True)
    assert original("g00012_07") == "g00012"
    assert original("man_beard_sad") == "man_beard_sad"


def test_mirrored_labels() -> None:
    from perception.shards import mirror_permutation, mirrored_coefficients

    from fourdface.blocks.arkit import ARKIT_INDEX

    shape = face_shape()
    permutation = mirror_permutation(shape[None])
    np.testing.assert_allclose(shape[permutation] * [-1, 1], shape, atol=0.12)
    swap = mirrored_coefficients()
    assert swap[ARKIT_INDEX["eyeBlinkLeft"]] == ARKIT_INDEX["eyeBlinkRight"]
    assert swap[ARKIT_INDEX["mouthLeft"]] == ARKIT_INDEX["mouthRight"]
    assert swap[ARKIT_INDEX["jawOpen"]] == ARKIT_INDEX["jawOpen"]
    np.testing.assert_array_equal(swap[swap], np.arange(52))


def test_detector_targets_decode_to_the_boxes() -> None:
    from perception.detector_train import targets

    from fourdface.perception.embedded import decode_detections

    boxes = torch.tensor([[[22.0, 30.0, 60.0, 90.0], [120.0, 100.0, 140.0, 130.0], [float("nan")] * 4]])
    made = targets(boxes, 24)
    logit = torch.logit(made["heat"][0].clamp(1e-4, 1 - 1e-4))
    found = decode_detections(torch.cat([logit[None], made["box"][0]]), scale=1.0, threshold=0.9)
    places = sorted(d.box.tolist() for d in found)
    np.testing.assert_allclose(places, boxes[0, :2].tolist(), atol=1e-3)


def test_turned_landmarks_follow_the_turned_picture() -> None:
    """A bright dot on a raised nose moves sideways with the landmark on it."""
    from perception.turn import turn_scene

    rows, columns = np.mgrid[:320, :320] + 0.5
    radius = np.hypot(columns - 160, rows - 160)
    alpha = (radius < 80).astype(np.uint8) * 255
    scene = np.full((320, 320, 3), 60, np.uint8)
    scene[alpha > 0] = 120
    scene[np.hypot(columns - 160, rows - 150) < 5] = 255
    random = np.random.default_rng(0)
    direction, distance = random.uniform(0, 2 * np.pi, 478), 70 * np.sqrt(random.uniform(0, 1, 478))
    landmarks = np.stack([160 + distance * np.cos(direction), 160 + distance * np.sin(direction)], 1).astype(np.float32)
    landmarks[0] = (160, 150)
    height = (60 - 0.01 * np.square(landmarks - [160, 160]).sum(1)).astype(np.float32)
    image, matte, moved = turn_scene(scene, alpha, landmarks, height, np.radians(30))
    bright = np.argwhere(image.min(axis=2) > 200)
    assert len(bright) > 10
    np.testing.assert_allclose(bright.mean(0)[::-1] + 0.5, moved[0], atol=3)
    assert moved[0, 0] > 180  # turned to its left, seen moving right
    assert matte[150, int(moved[0, 0])] > 200


def test_fill_holes_continues_the_surroundings() -> None:
    from perception.augment import fill_holes, without_person

    ground = torch.linspace(0, 1, 160).expand(1, 3, 160, 160).clone()
    known = torch.ones(1, 1, 160, 160)
    known[:, :, 60:100, 60:100] = 0
    filled = fill_holes(ground * known, known)
    assert float((filled - ground).abs().max()) < 0.12
    torch.testing.assert_close(filled[:, :, :50], ground[:, :, :50])
    assert without_person(ground, 1 - known).shape == ground.shape


@pytest.mark.parametrize("net", ["landmarks", "detector", "matte"])
def test_one_step_of_training_export_and_resume(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from perception import train as loop
    from perception.export import export

    write_shard(tmp_path, "pictures_made")
    if net == "landmarks":  # its start looks for as many modes as the code has numbers
        from perception.landmark_train import LandmarkTask

        monkeypatch.setattr(LandmarkTask, "figures", lambda self, network: {})
    minutes = 1e-6
    loop.train(net, tmp_path, minutes, 4, 1e-3, 1, False, [])
    first = torch.load(tmp_path / f"{net}.pt", weights_only=True)
    assert first["step"] >= 1
    loop.train(net, tmp_path, minutes, 4, 1e-3, 1, False, [])
    second = torch.load(tmp_path / f"{net}.pt", weights_only=True)
    assert second["step"] > first["step"]
    assert all(bool(torch.isfinite(v).all()) for v in second["network"].values())
    export(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "perception.safetensors").stat().st_size < 8_000_000
