"""The shipped weights on real pictures: faces found, landmarks placed and followed, silence where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.perception import Face, Perception, load_perception
from fourdface.perception.base import box_overlap
from fourdface.perception.embedded import decode_detections
from fourdface.perception.geometry import IRIS_LEFT, IRIS_RIGHT, head_roll, outer_eye_distance

# The two eyes, nose tip and mouth corners of skimage's astronaut, read off the picture by hand.
ASTRONAUT = {
    "eye right": (203, 101), "eye left": (246.5, 103.5), "nose": (224, 126), "mouth right": (202, 140),
    "mouth left": (246, 140),
}  # fmt: skip
ASTRONAUT_POINTS = {"eye right": 468, "eye left": 473, "nose": 4, "mouth right": 61, "mouth left": 291}


@pytest.fixture(scope="module")
def perception() -> Perception:
    torch.set_num_threads(1)  # small networks: more threads only wait for each other on a busy machine
    return load_perception("embedded")


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return np.ascontiguousarray(skimage.data.astronaut())


@pytest.fixture(scope="module")
def face(perception: Perception, astronaut: np.ndarray) -> Face:
    found = perception.detect(astronaut)
    assert len(found) == 1
    return perception.analyse(astronaut, found[0].box)


def test_landmarks_of_the_astronaut(face: Face) -> None:
    unit = outer_eye_distance(face.landmarks)
    for name, place in ASTRONAUT.items():
        distance = np.linalg.norm(face.landmarks[ASTRONAUT_POINTS[name]] - np.array(place))
        assert distance < 0.07 * unit, name
    assert face.presence > 0.9


def test_she_smiles_with_open_eyes(face: Face) -> None:
    assert face.coefficients[[ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthSmileRight"]]].min() > 0.3
    assert face.coefficients[[ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]].max() < 0.4
    assert face.coefficients.shape == (52,)
    assert face.coefficients.min() >= 0
    assert face.coefficients.max() <= 1


def test_follow_agrees_with_analysis_after_a_shift(perception: Perception, astronaut: np.ndarray, face: Face) -> None:
    moved = np.roll(astronaut, (4, 9), axis=(0, 1))
    followed = perception.follow(moved, face.landmarks)
    error = np.linalg.norm(followed.landmarks - face.landmarks - [9, 4], axis=1).mean()
    assert error < 0.03 * outer_eye_distance(face.landmarks)


def test_follow_finds_the_face_again(perception: Perception, astronaut: np.ndarray, face: Face) -> None:
    followed = perception.follow(astronaut, face.landmarks + np.array([230, 240], np.float32))
    assert box_overlap(followed.box, face.box) > 0.6


@pytest.mark.parametrize("turns", [20, -40])
def test_rolled_heads(perception: Perception, astronaut: np.ndarray, face: Face, turns: int) -> None:
    """Turning the picture turns the landmarks and the head's rotation with it."""
    picture = np.asarray(Image.fromarray(astronaut).rotate(turns, Image.Resampling.BILINEAR, center=(228, 120)))
    found = perception.detect(picture)
    assert found
    turned = perception.analyse(picture, found[0].box)
    assert head_roll(turned.landmarks) - head_roll(face.landmarks) == pytest.approx(-np.radians(turns), abs=0.09)
    matrices = axis_angle_to_matrix(torch.from_numpy(np.stack([face.rotation, turned.rotation]))).numpy()
    expected = np.radians(turns)  # counter-clockwise as seen = positive about the axis to the viewer
    about_view = np.array(
        [[np.cos(expected), -np.sin(expected), 0], [np.sin(expected), np.cos(expected), 0], [0, 0, 1]]
    )
    cosine = (np.trace((about_view @ matrices[0]).T @ matrices[1]) - 1) / 2
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))) < 8


def test_mirrored_picture_mirrors_the_face(perception: Perception, astronaut: np.ndarray, face: Face) -> None:
    mirrored = np.ascontiguousarray(astronaut[:, ::-1])
    other = perception.analyse(mirrored, perception.detect(mirrored)[0].box)
    width = astronaut.shape[1]
    for one, two in ((IRIS_LEFT, IRIS_RIGHT), (IRIS_RIGHT, IRIS_LEFT)):
        there = other.landmarks[list(two)].mean(0)
        here = face.landmarks[list(one)].mean(0)
        assert np.abs(there - [width - here[0], here[1]]).max() < 0.06 * outer_eye_distance(face.landmarks)
    assert other.rotation[1] == pytest.approx(-face.rotation[1], abs=0.12)


def test_two_faces_largest_first(perception: Perception, astronaut: np.ndarray) -> None:
    small = np.asarray(Image.fromarray(astronaut[:300, 80:380]).resize((180, 180)))
    canvas = np.full((512, 760, 3), 90, np.uint8)
    canvas[:, :512] = astronaut
    canvas[200:380, 560:740] = small
    found = perception.detect(canvas)
    assert len(found) == 2
    centres = [(d.box[:2] + d.box[2:]) / 2 for d in found]
    assert centres[0][0] < 400 < centres[1][0]


@pytest.mark.parametrize("name", ["chelsea", "coffee", "brick", "grass", "page", "coins", "text"])
def test_no_face_in_things_and_animals(perception: Perception, name: str) -> None:
    picture = np.asarray(Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("RGB"))
    assert perception.detect(picture) == []


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 900, 3), (64, 64, 3)])
def test_no_face_in_empty_pictures(perception: Perception, shape: tuple[int, int, int]) -> None:
    assert perception.detect(np.zeros(shape, np.uint8)) == []
    assert perception.detect(np.full(shape, 255, np.uint8)) == []


def test_lost_face_has_low_presence(perception: Perception, face: Face, astronaut: np.ndarray) -> None:
    assert perception.follow(np.zeros_like(astronaut), face.landmarks).presence < 0.5


def test_matte_holds_the_person(perception: Perception, astronaut: np.ndarray, face: Face) -> None:
    alpha = perception.matte(astronaut, face.landmarks)
    assert alpha.shape == astronaut.shape[:2]
    assert alpha.dtype == np.float32
    assert alpha[100:160, 200:250].min() > 0.9  # face
    assert alpha[330:420, 180:300].mean() > 0.9  # suit
    assert alpha[10:150, 440:500].mean() < 0.15  # shuttle model and wall


def test_grey_and_dark_pictures(perception: Perception, astronaut: np.ndarray, face: Face) -> None:
    grey = np.repeat(astronaut.mean(axis=2, keepdims=True), 3, axis=2)
    for picture in (grey.astype(np.uint8), (grey * 0.3).astype(np.uint8)):
        found = perception.detect(picture)
        assert found
        assert box_overlap(found[0].box, face.box) > 0.6


def test_wrong_images_are_refused(perception: Perception) -> None:
    with pytest.raises(ValueError, match="uint8"):
        perception.detect(np.zeros((10, 10, 3), np.float32))
    with pytest.raises(ValueError, match="uint8"):
        perception.analyse(np.zeros((10, 10), np.uint8), np.zeros(4, np.float32))


def test_decoding_places_boxes() -> None:
    output = torch.full((5, 24, 24), -8.0)
    output[:, 10, 6] = torch.tensor([3.0, 0.25, -0.25, float(np.log(4)), float(np.log(6))])
    (found,) = decode_detections(output, scale=2.0)
    np.testing.assert_allclose(found.box, np.array([4.75, 7.25, 8.75, 13.25]) * 16, rtol=1e-5)
    assert found.score == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item())


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    ["style_lineart.png", "style_statue_marble.jpg", "woman_wink.jpg", "man_curly_bust.jpg", "woman_yaw_speaking.png"],
)
def test_portraits_left_out_of_training(perception: Perception, test_data: Path, name: str) -> None:
    picture = np.asarray(Image.open(test_data / "portraits" / name).convert("RGB"))
    found = perception.detect(picture)
    assert len(found) == 1
    assert perception.analyse(picture, found[0].box).presence > 0.7
