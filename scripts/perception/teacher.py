"""Teachers: MediaPipe's face landmarker and blendshape network, and a portrait segmentation network.

Needs `pip install mediapipe ai-edge-litert`; no torch here, so labels may be made in an environment of their own.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Landmarks that MediaPipe's blendshape network reads (its model card and graph name them).
BLENDSHAPE_LANDMARKS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153, 154,
    155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263,
    267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317,
    318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385,
    386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476,
    477,
)  # fmt: skip


TeacherFace = tuple[Any, Any, Any, Any]


class LandmarkTeacher:
    """MediaPipe FaceLandmarker on single pictures."""

    def __init__(self, task_file: Path, faces: int = 4) -> None:
        import mediapipe

        self._mediapipe = mediapipe
        vision = mediapipe.tasks.vision
        options = vision.FaceLandmarkerOptions(
            base_options=mediapipe.tasks.BaseOptions(model_asset_path=str(task_file)),
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
            num_faces=faces,
            min_face_detection_confidence=0.4,
        )
        self._landmarker = vision.FaceLandmarker.create_from_options(options)

    def __call__(self, image_u8: npt.NDArray[np.uint8]) -> list[TeacherFace]:
        """Picture [H,W,3] -> largest first: landmarks [478,2] px, coefficients [52], rotation [3,3], depth [478] px."""
        height, width = image_u8.shape[:2]
        picture = self._mediapipe.Image(
            image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image_u8)
        )
        result = self._landmarker.detect(picture)
        faces = []
        for points, shapes, matrix in zip(
            result.face_landmarks, result.face_blendshapes, result.facial_transformation_matrixes, strict=True
        ):
            landmarks = np.array([[p.x * width, p.y * height] for p in points], dtype=np.float32)
            coefficients = np.zeros(52, dtype=np.float32)
            coefficients[:51] = [s.score for s in shapes[1:52]]
            scaled = np.asarray(matrix, dtype=np.float64)[:3, :3]
            u, _, v = np.linalg.svd(scaled)
            depth = np.array([p.z * width for p in points], dtype=np.float32)  # away from the viewer, pixels
            faces.append((landmarks, coefficients, (u @ v).astype(np.float32), depth))
        faces.sort(key=lambda face: -float(np.ptp(face[0], axis=0).max()))
        return faces


class TfliteModel:
    """A tflite network with one input and one output."""

    def __init__(self, source: Path | bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._net = (
            Interpreter(model_content=source) if isinstance(source, bytes) else Interpreter(model_path=str(source))
        )
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._output = self._net.get_output_details()[0]["index"]

    def __call__(self, value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """One forward pass."""
        self._net.set_tensor(self._input, value)
        self._net.invoke()
        return np.array(self._net.get_tensor(self._output))


class BlendshapeTeacher:
    """MediaPipe's blendshape network alone: landmarks in, coefficients out, for landmarks that were moved."""

    def __init__(self, task_file: Path) -> None:
        with zipfile.ZipFile(task_file) as archive:
            self._net = TfliteModel(archive.read("face_blendshapes.tflite"))

    def __call__(self, landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Landmarks [478,2] in pixels -> coefficients [52] (tongueOut 0)."""
        scores = self._net(landmarks[None, list(BLENDSHAPE_LANDMARKS)].astype(np.float32)).reshape(-1)
        coefficients = np.zeros(52, dtype=np.float32)
        coefficients[:51] = scores[1:52]
        return coefficients


class MatteTeacher:
    """A 256x256 portrait segmentation network (tflite; two logits, channel 1 = person), mean with a mirrored pass."""

    SIZE = 256

    def __init__(self, model_file: Path) -> None:
        self._net = TfliteModel(model_file)

    def _run(self, image_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        from PIL import Image

        size = self.SIZE
        small = np.asarray(Image.fromarray(image_u8).resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)
        both = small / 127.5 - 1
        direct = self._net(both[None])[0]
        mirrored = self._net(np.ascontiguousarray(both[None, :, ::-1]))[0, :, ::-1]
        logits = (direct + mirrored) * 0.5
        return 1 / (1 + np.exp(logits[..., 0] - logits[..., 1]))

    def __call__(self, image_u8: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Picture [H,W,3] -> alpha uint8 at `size` (width, height)."""
        from PIL import Image

        alpha = Image.fromarray((self._run(image_u8) * 255).astype(np.uint8))
        return np.asarray(alpha.resize(size, Image.Resampling.BILINEAR))
