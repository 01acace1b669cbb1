"""MediaPipe's face landmarker (Apache-2.0) behind the perception interface; mattes come from the embedded network."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fourdface.blocks.arkit import ARKIT_NAMES
from fourdface.blocks.rotation import matrix_to_axis_angle
from fourdface.errors import FourdError
from fourdface.perception.base import Detection, Face, box_overlap, require_image
from fourdface.perception.geometry import COEFFICIENT_COUNT, LANDMARK_COUNT, landmark_box

MAX_FACES = 8
SURROUNDINGS = 1.0
"""A face is looked for in its box grown by this share of its longer side on each side."""


class MediaPipePerception:
    """Runs the `.task` file `task_file` with the installed mediapipe package, picture by picture (no smoothing)."""

    name = "mediapipe"

    def __init__(self, task_file: Path) -> None:
        try:
            import mediapipe
        except ImportError as error:
            raise FourdError(
                "Perception backend mediapipe needs the package mediapipe: pip install mediapipe."
            ) from error
        self._mediapipe = mediapipe
        vision = mediapipe.tasks.vision
        options = vision.FaceLandmarkerOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(task_file)),
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
            num_faces=MAX_FACES,
        )
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise FourdError(
                f"{task_file} is not a face landmarker that mediapipe can open ({reason}): fetch it again."
            ) from error
        weakref.finalize(self, self._landmarker.close)  # at exit mediapipe closes itself too late
        self._matte: Any = None

    def detect(self, image_u8: npt.NDArray[np.uint8]) -> list[Detection]:
        """All faces, largest first. MediaPipe's landmarker gives no scores: found faces score 1."""
        require_image(image_u8)
        return [Detection(face.box, face.score) for face in self._faces(image_u8, (0, 0))]

    def analyse(self, image_u8: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> Face:
        """The face in `box`: looked for round the box, then in the whole picture; presence 0 if there is none."""
        require_image(image_u8)
        for region in (self._surroundings(image_u8, box), (0, 0, image_u8.shape[1], image_u8.shape[0])):
            x0, y0, x1, y1 = region
            faces = self._faces(image_u8[y0:y1, x0:x1], (x0, y0))
            if faces:
                best = max(faces, key=lambda face: box_overlap(face.box, box))
                if box_overlap(best.box, box) > 0.1:
                    return best
        x, y = (box[:2] + box[2:]) / 2
        nowhere = np.full((LANDMARK_COUNT, 2), (x, y), dtype=np.float32)
        return Face(box, 0.0, 0.0, nowhere, np.zeros(COEFFICIENT_COUNT, np.float32), np.zeros(3, np.float32))

    def follow(self, image_u8: npt.NDArray[np.uint8], landmarks_previous: npt.NDArray[np.float32]) -> Face:
        """The same face in the next frame, or the largest one where it is lost."""
        face = self.analyse(image_u8, landmark_box(landmarks_previous))
        if face.presence > 0:
            return face
        faces = self._faces(image_u8, (0, 0))
        return faces[0] if faces else face

    def matte(self, image_u8: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Alpha [H,W] of the person, from the embedded network."""
        if self._matte is None:
            from fourdface.perception.embedded import EmbeddedPerception

            self._matte = EmbeddedPerception()
        alpha: npt.NDArray[np.float32] = self._matte.matte(image_u8, landmarks)
        return alpha

    @staticmethod
    def _surroundings(image_u8: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> tuple[int, int, int, int]:
        height, width = image_u8.shape[:2]
        margin = float((box[2:] - box[:2]).max()) * SURROUNDINGS
        x0, y0 = (int(np.clip(v - margin, 0, limit - 1)) for v, limit in zip(box[:2], (width, height), strict=True))
        x1, y1 = (
            int(np.clip(v + margin, low + 1, limit))
            for v, low, limit in zip(box[2:], (x0, y0), (width, height), strict=True)
        )
        return x0, y0, x1, y1

    def _faces(self, image_u8: npt.NDArray[np.uint8], origin: tuple[int, int]) -> list[Face]:
        """All faces of a picture whose top left corner lies at `origin` of the whole one, largest first."""
        height, width = image_u8.shape[:2]
        picture = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image_u8)
        )
        result = self._landmarker.detect(picture)
        faces = []
        for points, shapes, matrix in zip(
            result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True
        ):
            landmarks = np.array(
                [(p.x * width + origin[0], p.y * height + origin[1]) for p in points], dtype=np.float32
            )
            scores = {shape.category_name: shape.score for shape in shapes}
            coefficients = np.array([scores.get(name, 0.0) for name in ARKIT_NAMES], dtype=np.float32)
            box = landmark_box(landmarks)
            faces.append(Face(box, 1.0, 1.0, landmarks, coefficients, _rotation(np.asarray(matrix))))
        return sorted(faces, key=lambda face: -float((face.box[2:] - face.box[:2]).prod()))


def _rotation(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Axis-angle [3] of MediaPipe's 4x4 face pose (axes like ours: x right, y up, z to the viewer)."""
    left, _, right = np.linalg.svd(matrix[:3, :3].astype(np.float64))
    turn = torch.from_numpy((left @ right).astype(np.float32))
    return matrix_to_axis_angle(turn).numpy().astype(np.float32)
