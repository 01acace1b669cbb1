"""Photos as training pictures: crop, fitted head, and a camera that carries the head's whole pose."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from fourdface.artifacts import Provenance, Tracked
from fourdface.blocks.head_model import HeadModel
from fourdface.errors import FourdError
from fourdface.media.image import encode_png
from fourdface.perception.base import Detection, Face
from fourdface.priors.genhead.camera import label_from_camera
from fourdface.priors.genhead.config import SIZES
from fourdface.priors.genhead.training_config import GenHeadTraining
from fourdface.priors.genhead.training_data import camera_yaw
from fourdface.stages.synthesis.pictures import aligned_rows, photo_person, portrait_intrinsics, tracked_person
from fourdface.stages.synthesis.rows import ViewPlan, assemble
from fourdface.stages.train_genhead import ViewsPictures, open_pictures
from fourdface.training.config import load_config

SIZE = 400


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel.load("open")


def face_at(model: HeadModel, yaw: float) -> Face:
    """What perception would say of a mean head that turns by `yaw`, seen by a camera 1.5 m away in front of it."""
    vertices = model(rotation=torch.tensor([[0.0, yaw, 0.0]]))
    points = model.landmarks(vertices)[0].double().numpy()
    depth = 1.5 - points[:, 2]
    focal = 5 * SIZE
    x, y = focal * points[:, 0] / depth + SIZE / 2, -focal * (points[:, 1] - 0.08) / depth + SIZE / 2
    landmarks = np.stack([x, y], 1).astype(np.float32)
    if len(landmarks) == 468:  # the irises, which no head model has: in the middle of the eyes' corners
        corners = [[33, 133], [362, 263]]
        iris = np.repeat([landmarks[c].mean(0) for c in corners], 5, axis=0)
        landmarks = np.concatenate([landmarks, iris]).astype(np.float32)
    box = np.concatenate([landmarks.min(0), landmarks.max(0)])
    return Face(box, 1.0, 1.0, landmarks, np.zeros(52, np.float32), np.zeros(3, np.float32))


class OneFace:
    """A perception that sees `face_at` in every picture."""

    name = "one"

    def __init__(self, face: Face | None) -> None:
        self.face = face

    def detect(self, image_u8: np.ndarray) -> list[Detection]:
        return [] if self.face is None else [Detection(self.face.box, 1.0)]

    def analyse(self, image_u8: np.ndarray, box: np.ndarray) -> Face:
        assert self.face is not None
        return self.face

    def matte(self, image_u8: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return np.ones(image_u8.shape[:2], np.float32)


def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("degrees", [0, -25, 30])
def test_the_camera_carries_the_turn_of_the_head(model: HeadModel, degrees: float) -> None:
    """The upright head of the row, in the row's camera, is where the landmarks lie in the crop."""
    face = face_at(model, math.radians(degrees))
    shape, rows = aligned_rows([photo()], [face], [np.ones((SIZE, SIZE))], model, 128)
    row = rows[0]
    assert row.image_u8.shape == (128, 128, 3) and row.opacity.shape == (128, 128)
    expression = torch.from_numpy(row.state.expression)[None].float()
    points = model.landmarks(model(torch.from_numpy(shape)[None], expression))[0].double().numpy()
    seen = points @ row.world_to_camera[:3, :3].T + row.world_to_camera[:3, 3]
    pixels = (seen / seen[:, 2:]) @ portrait_intrinsics(128).T
    from fourdface.methods.portrait4d.alignment import fit_face, five_points, portrait_crop

    crop = portrait_crop(fit_face(five_points(face.landmarks)), (SIZE, SIZE), 128)
    error = np.linalg.norm(pixels[:468, :2] - crop.to_crop(face.landmarks)[:468], axis=1)
    assert float(np.median(error)) < 1.0
    camera = torch.from_numpy(row.world_to_camera)[None].float()
    label = label_from_camera(camera, torch.from_numpy(row.intrinsics)[None].float(), 128, 128)
    assert camera_yaw(label.numpy())[0] == pytest.approx(-degrees, abs=4)
    assert float(label[0, 16]) == pytest.approx(4.757182, rel=1e-5)


def test_photos_become_views_that_training_opens(model: HeadModel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Through the file, with the mirrored picture as a second motion."""
    person = photo_person(photo(), OneFace(face_at(model, 0.2)), model, 64, mirror=True, name="a.jpg")
    assert [row.motion for row in person.rows] == [0, 1]
    views = assemble([(0, person)], "open", ViewPlan(2, 1, 64), Provenance())
    views.write(tmp_path / "views.h5")
    config = load_config(GenHeadTraining, "tiny", [], recipe="genhead")
    pictures = open_pictures([str(tmp_path)], config)
    assert len(pictures) == 2 and pictures[0]["shape"].shape == (model.shape_count,)
    assert config.network.resolution == SIZES["tiny"].resolution == pictures[1]["image"].shape[-1]


def test_photos_without_a_face_are_refused(model: HeadModel) -> None:
    """The name of the file is in the sentence."""
    with pytest.raises(FourdError, match=r"b\.jpg: no face"):
        photo_person(photo(), OneFace(None), model, 64, name="b.jpg")


def test_a_tracked_clip_gives_frames_of_one_identity(model: HeadModel) -> None:
    """Evenly spread over the frames with a face; the others are left out."""
    faces = [face_at(model, yaw) for yaw in (-0.2, -0.1, 0.0, 0.1, 0.2)]
    tracked = clip(faces, missing=2)
    person = tracked_person(tracked, model, 64, frames=3, name="clip")
    yaws = [math.degrees(math.atan2(*(-row.world_to_camera[:3, :3].T @ row.world_to_camera[:3, 3])[[0, 2]]))
            for row in person.rows]  # fmt: skip
    assert len(yaws) == 3 and yaws == sorted(yaws, reverse=True)
    with pytest.raises(FourdError, match="--keep-frames"):
        import dataclasses

        tracked_person(dataclasses.replace(tracked, matte_blobs=None), model, 64, name="clip")


def clip(faces: list[Face], missing: int) -> Tracked:
    """A tracked artifact of these faces, one frame of which shows none."""
    count = len(faces)
    rate = Fraction(25)
    status = np.zeros(count, np.uint8)
    status[missing] = 1
    return Tracked(
        rate_numerator=rate.numerator, rate_denominator=rate.denominator, width=SIZE, height=SIZE,
        times=np.arange(count) / 25, status=status, boxes=np.stack([f.box for f in faces]).astype(np.float32),
        crop_transforms=np.zeros((count, 2, 3), np.float32), landmarks=np.stack([f.landmarks for f in faces]),
        coefficients=np.stack([f.coefficients for f in faces]), frame_blobs=[encode_png(photo())] * count,
        matte_blobs=[encode_png(np.full((SIZE, SIZE), 255, np.uint8))] * count,
    )  # fmt: skip


def test_views_that_do_not_fit_are_refused(model: HeadModel) -> None:
    """Turned heads, another head model, no opacities."""
    import dataclasses

    person = photo_person(photo(), OneFace(face_at(model, 0.0)), model, 64)
    views = assemble([(0, person)], "open", ViewPlan(1, 1, 64), Provenance())
    turned = np.full((1, 3), 0.2, np.float32)
    for change, words in (
        ({"rotation": turned}, "turned heads"), ({"neck": turned}, "straight necks"),
        ({"opacities": None}, "opacities"),
        ({"head_model": "flame2020"}, "network.head=flame2020"),
    ):  # fmt: skip
        with pytest.raises(FourdError, match=words):
            ViewsPictures(dataclasses.replace(views, **change), "open", "a.h5")
