"""Photos, and tracked photos and clips, as people of one camera each: what adversarial training learns from.

Each face is cropped as Portrait4D crops (`methods/portrait4d/alignment.py`), the head model is fitted to it in the
camera that the crop stands for (12 degrees), and the head's whole turn and place go into that camera (Portrait4D,
section 3.1; its labels "c_compose"). So the head of every row stands upright at the origin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fourdface.artifacts import Tracked
from fourdface.blocks.head_fitting import HeadFitter, tracking_world_to_camera
from fourdface.blocks.head_model import HeadModel
from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.errors import FourdError
from fourdface.media.image import decode_png, read_image
from fourdface.methods.portrait4d.alignment import fit_face, five_points, portrait_crop
from fourdface.perception.base import Face, Perception
from fourdface.priors.genhead.camera import FOCAL
from fourdface.stages.fit_flame import faces_of
from fourdface.stages.synthesis.expressions import HeadMotion
from fourdface.stages.synthesis.rows import Person, ViewRow

__all__ = ["aligned_rows", "photo_person", "portrait_intrinsics", "tracked_person"]


def portrait_intrinsics(size: int) -> np.ndarray:
    """Camera matrix [3, 3] in pixels of Portrait4D's crop: 12 degrees across, the principal point in the middle."""
    focal = FOCAL * size
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def photo_person(
    image_u8: np.ndarray, perception: Perception, model: HeadModel, size: int, *, mirror: bool = False, name: str = ""
) -> Person:
    """The largest face of a photo [H, W, 3] as a person of one row of `size` pixels.

    mirror: add the mirrored photo as a second motion, looked at and fitted anew (a mirrored face is no simple function
    of the head model's coefficients). Raises FourdError where there is no face.
    """
    pictures = [image_u8, np.ascontiguousarray(image_u8[:, ::-1])] if mirror else [image_u8]
    rows: list[ViewRow] = []
    shape = np.zeros(0, np.float32)
    for k, picture in enumerate(pictures):
        found = perception.detect(picture)
        if not found:
            raise FourdError(f"{name or 'the picture'}: no face found; give photos with a face at least 32 pixels wide")
        face = perception.analyse(picture, found[0].box)
        matte = perception.matte(picture, face.landmarks)
        shape, made = aligned_rows([picture], [face], [matte], model, size, first_motion=k)
        rows += made
    return Person(name, shape, rows, [])


def tracked_person(tracked: Tracked, model: HeadModel, size: int, *, frames: int = 1, name: str = "") -> Person:
    """Up to `frames` frames, evenly spread, of a tracked artifact that keeps frames and mattes; one identity for all.

    Raises FourdError where it holds no frame with a face, or was made without `--keep-frames --mattes`.
    """
    blobs, mattes = tracked.frame_blobs, tracked.matte_blobs
    if blobs is None or mattes is None:
        raise FourdError(f"{name}: holds no frames and mattes; run `fourd preprocess --keep-frames --mattes` on it")
    faces = faces_of(tracked)
    usable = [k for k, face in enumerate(faces) if face is not None and blobs[k] and mattes[k]]
    if not usable:
        raise FourdError(f"{name}: holds no frame with a face")
    chosen = [usable[int(i)] for i in np.unique(np.linspace(0, len(usable) - 1, min(frames, len(usable))).astype(int))]
    images = [read_image(blobs[k]) for k in chosen]
    alphas = [decode_png(mattes[k]).astype(np.float32) / 255 for k in chosen]
    known = [face for k in chosen if (face := faces[k]) is not None]
    shape, rows = aligned_rows(images, known, alphas, model, size)
    return Person(name, shape, rows, [])


def aligned_rows(
    images: Sequence[np.ndarray], faces: Sequence[Face], mattes: Sequence[np.ndarray], model: HeadModel, size: int,
    *, first_motion: int = 0,
) -> tuple[np.ndarray, list[ViewRow]]:  # fmt: skip
    """Identity [S] and rows of T frames of one person.

    Args:
        images: T pictures uint8 [H, W, 3]. faces: what perception says of them. mattes: [H, W] in 0..1.
        model: the head model. size: of the rows' pictures in pixels.
    """
    crops = [portrait_crop(fit_face(five_points(f.landmarks)), (i.shape[1], i.shape[0]), size)
             for i, f in zip(images, faces, strict=True)]  # fmt: skip
    landmarks = np.stack([crop.to_crop(face.landmarks) for crop, face in zip(crops, faces, strict=True)])
    coefficients = np.stack([face.coefficients for face in faces])
    fitter = HeadFitter(model, (size, size))
    track = fitter.fit(torch.from_numpy(landmarks), torch.from_numpy(coefficients), focal=FOCAL * size)
    head_to_world = torch.eye(4, dtype=torch.float64).repeat(len(faces), 1, 1)
    head_to_world[:, :3, :3] = axis_angle_to_matrix(track.rotation.double())
    head_to_world[:, :3, 3] = track.translation
    cameras = (torch.from_numpy(tracking_world_to_camera()) @ head_to_world).numpy()
    rows = []
    for k, (image, matte, crop) in enumerate(zip(images, mattes, crops, strict=True)):
        matte_u8 = np.repeat(np.round(255 * matte).astype(np.uint8)[..., None], 3, axis=2)
        state = HeadMotion(track.expression[k].numpy(), track.eyes[k].numpy())
        rows.append(
            ViewRow(
                first_motion + k, 0, crop.apply(image), crop.apply(matte_u8)[..., 0] / np.float32(255), None,
                cameras[k], portrait_intrinsics(size), state, background=-1,
            )
        )  # fmt: skip
    return track.shape.numpy().astype(np.float32), rows
