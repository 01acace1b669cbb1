"""pictures: photos, or tracked photos and clips -> `views` of one camera each, as adversarial training wants them.

Each face is cropped as Portrait4D crops (`methods/portrait4d/alignment.py`), the head model is fitted to it in the
camera that the crop stands for (12 degrees), and the head's whole turn and place go into that camera (section 3.1:
"c_compose"). So the head of every row stands upright at the origin.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from fourdface.artifacts import Provenance, Views
from fourdface.blocks.head_fitting import HeadFitter, tracking_world_to_camera
from fourdface.blocks.head_model import HeadModel
from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.errors import FourdError
from fourdface.media.image import encode_png
from fourdface.methods.portrait4d.alignment import fit_face, five_points, portrait_crop
from fourdface.perception.base import Face, Perception
from fourdface.priors.genhead.camera import FOCAL

__all__ = ["AlignedRow", "align_person", "align_photo", "pictures_to_views", "portrait_intrinsics"]


@dataclass(frozen=True)
class AlignedRow:
    """One aligned picture. image_u8 [R, R, 3], alpha_u8 [R, R], head parameters as in `Views`, residual of the fit."""

    image_u8: np.ndarray
    alpha_u8: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    eyes: np.ndarray
    coefficients: np.ndarray
    world_to_camera: np.ndarray
    residual: float


def portrait_intrinsics(size: int) -> np.ndarray:
    """Camera matrix [3, 3] in pixels of Portrait4D's crop: 12 degrees across, the principal point in the middle."""
    focal = FOCAL * size
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], np.float32)


def align_photo(
    image_u8: np.ndarray, perception: Perception, model: HeadModel, size: int, name: str = "the picture"
) -> AlignedRow:
    """The largest face of a photo [H, W, 3] as a row of `size` pixels. Raises FourdError where there is no face."""
    found = perception.detect(image_u8)
    if not found:
        raise FourdError(f"{name}: no face found; use pictures that show a face at least 32 pixels wide")
    face = perception.analyse(image_u8, found[0].box)
    matte = perception.matte(image_u8, face.landmarks)
    return align_person([image_u8], [face], [np.round(255 * matte).astype(np.uint8)], model, size)[0]


def align_person(
    images: Iterable[np.ndarray], faces: list[Face], mattes: Iterable[np.ndarray], model: HeadModel, size: int
) -> list[AlignedRow]:
    """Rows of T frames of one person, with one identity for all of them.

    Args:
        images: T pictures uint8 [H, W, 3], all of one size. faces: what perception says of them. mattes: uint8 [H, W].
        model: the head model. size: of the rows' pictures in pixels.
    """
    pictures, alphas, crops = [], [], []
    for image, face, matte in zip(images, faces, mattes, strict=True):
        source = (image.shape[1], image.shape[0])
        crop = portrait_crop(fit_face(five_points(face.landmarks)), source, size)
        crops.append(crop)
        pictures.append(crop.apply(image))
        alphas.append(crop.apply(np.repeat(matte[..., None], 3, axis=2))[..., 0])
    landmarks = np.stack([crop.to_crop(face.landmarks) for crop, face in zip(crops, faces, strict=True)])
    coefficients = np.stack([face.coefficients for face in faces])
    fitter = HeadFitter(model, (size, size))
    track = fitter.fit(torch.from_numpy(landmarks), torch.from_numpy(coefficients), focal=FOCAL * size)
    head_to_world = torch.eye(4, dtype=torch.float64).repeat(len(faces), 1, 1)
    head_to_world[:, :3, :3] = axis_angle_to_matrix(track.rotation.double())
    head_to_world[:, :3, 3] = track.translation
    cameras = (torch.from_numpy(tracking_world_to_camera()) @ head_to_world).float().numpy()
    return [
        AlignedRow(
            pictures[k], alphas[k], _f4(track.shape), _f4(track.expression[k]), _f4(track.eyes[k]),
            coefficients[k].astype(np.float32), cameras[k], float(track.residual[k]),
        )
        for k in range(len(faces))
    ]  # fmt: skip


def _f4(values: torch.Tensor) -> np.ndarray:
    return values.numpy().astype(np.float32)


def pictures_to_views(people: Sequence[tuple[str, list[AlignedRow]]], head_model: str, provenance: Provenance) -> Views:
    """Rows of people (name, their frames) as a `views` artifact without depth: a frame is a motion with one view.

    Raises FourdError where there is no row.
    """
    rows = [row for _, person in people for row in person]
    if not rows:
        raise FourdError("no picture shows a face that can be aligned; give photos of single persons")
    size, count = rows[0].image_u8.shape[0], len(rows)
    motions = np.concatenate([np.arange(len(person)) for _, person in people])
    zeros = np.zeros((count, 3), np.float32)
    return Views(
        provenance=provenance, width=size, height=size, head_model=head_model,
        images=[_jpeg(row.image_u8) for row in rows], backgrounds=[],
        background_index=np.full(count, -1, np.int64), index=np.arange(count, dtype=np.int64),
        identity=np.repeat(np.arange(len(people)), [len(person) for _, person in people]).astype(np.int64),
        motion=motions.astype(np.int64), view=np.zeros(count, np.int64),
        identity_name=[name.encode() for name, _ in people], shape=np.stack([row.shape for row in rows]),
        expression=np.stack([row.expression for row in rows]), rotation=zeros, translation=zeros.copy(),
        neck=zeros.copy(), jaw=zeros.copy(), eyes=np.stack([row.eyes for row in rows]),
        coefficients=np.stack([row.coefficients for row in rows]),
        intrinsics=np.repeat(portrait_intrinsics(size)[None], count, axis=0),
        world_to_camera=np.stack([row.world_to_camera for row in rows]),
        opacities=[encode_png(row.alpha_u8) for row in rows],
    )  # fmt: skip


def _jpeg(image_u8: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image_u8).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()
