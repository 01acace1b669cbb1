"""A perception that reads what it should see from a picture's upper left corner: fast, exact, and as blind as told.

The corner survives H.264 and resizing. Red: how many faces (0, 1 or 2); green: yaw; blue: how far the jaw is open.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.perception.base import Detection, Face

LARGEST_YAW = 0.8


def corner_colour(faces: int = 1, yaw: float = 0.0, jaw: float = 0.0) -> tuple[int, int, int]:
    """The 8-bit colour that says: so many faces, turned by `yaw` radians, jawOpen = `jaw`."""
    return (20 + 100 * faces, round(128 + 100 * yaw / LARGEST_YAW), round(20 + 200 * jaw))


def picture(width: int = 96, height: int = 96, faces: int = 1, yaw: float = 0.0, jaw: float = 0.0) -> np.ndarray:
    """A grey picture [H,W,3] uint8 that `FakePerception` sees as told."""
    out = np.full((height, width, 3), 90, np.uint8)
    side = min(width, height) // 8
    out[:side, :side] = corner_colour(faces, yaw, jaw)
    return out


def read_corner(image_u8: np.ndarray) -> tuple[int, float, float]:
    """Inverse of `corner_colour`: faces, yaw, jaw."""
    side = max(1, min(image_u8.shape[:2]) // 8)
    inner = slice(side // 4, max(side - side // 4, 1))
    red, green, blue = image_u8[inner, inner].reshape(-1, 3).mean(0)
    faces = int(np.clip(np.rint((red - 20) / 100), 0, 2))
    jaw = float(np.clip(np.round((blue - 20) / 200, 2), 0, 1))
    return faces, round((float(green) - 128) / 100 * LARGEST_YAW, 3), jaw if jaw > 0.03 else 0.0


@lru_cache(maxsize=512)
def _landmarks(width: int, height: int, yaw: float, jaw: float) -> np.ndarray:
    from support.scenes import dense_landmarks, expression, head_state, photo_view

    size = min(width, height)
    points = dense_landmarks(head_state(expression(jawOpen=jaw), (0.0, yaw, 0.0)), photo_view(size))
    return points + np.array([(width - size) / 2, (height - size) / 2], np.float32)


class FakePerception:
    """See the module. Two faces stand side by side, the right one is larger."""

    name = "fake"

    def __init__(self) -> None:
        self.calls = {"detect": 0, "analyse": 0, "follow": 0, "matte": 0}

    def faces(self, image_u8: np.ndarray) -> list[Face]:
        """All faces, largest first."""
        count, yaw, jaw = read_corner(image_u8)
        height, width = image_u8.shape[:2]
        points = _landmarks(width, height, yaw, jaw)
        if count == 2:
            points_of = lambda scale, place: points * scale + np.array([place * width, 0.2 * height], np.float32)  # noqa: E731
            return [_face(points_of(0.5, 0.5), yaw, jaw), _face(points_of(0.4, 0.0), yaw, jaw)]
        return [_face(points, yaw, jaw)] if count else []

    def detect(self, image_u8: np.ndarray) -> list[Detection]:
        """Boxes of the faces."""
        self.calls["detect"] += 1
        return [Detection(face.box, face.score) for face in self.faces(image_u8)]

    def analyse(self, image_u8: np.ndarray, box: np.ndarray) -> Face:
        """The face nearest to the box."""
        self.calls["analyse"] += 1
        return _nearest(self.faces(image_u8), (box[:2] + box[2:]) / 2)

    def follow(self, image_u8: np.ndarray, landmarks_previous: np.ndarray) -> Face:
        """The face nearest to the landmarks."""
        self.calls["follow"] += 1
        low, high = landmarks_previous.min(0), landmarks_previous.max(0)
        return _nearest(self.faces(image_u8), (low + high) / 2)

    def matte(self, image_u8: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The synthetic photo's own matte, scaled."""
        from PIL import Image

        from support.scenes import make_photo

        self.calls["matte"] += 1
        matte = Image.fromarray(np.round(make_photo().matte * 255).astype(np.uint8))
        return np.asarray(matte.resize(image_u8.shape[1::-1], Image.Resampling.BILINEAR), np.float32) / 255


def _face(points: np.ndarray, yaw: float, jaw: float, presence: float = 1.0) -> Face:
    coefficients = np.zeros(52, np.float32)
    coefficients[ARKIT_INDEX["jawOpen"]] = jaw
    box = np.concatenate([points.min(0), points.max(0)]).astype(np.float32)
    return Face(box, 0.9, presence, points, coefficients, np.array([0, yaw, 0], np.float32))


def _nearest(faces: list[Face], centre: np.ndarray) -> Face:
    if not faces:
        return _face(np.zeros((478, 2), np.float32), 0.0, 0.0, presence=0.0)
    return min(faces, key=lambda face: float(np.hypot(*((face.box[:2] + face.box[2:]) / 2 - centre))))


def main() -> None:
    """Run `fourd` with this perception: `python -m support.seeing lift ...`."""
    import fourdface.perception
    from fourdface.cli.main import main as fourd

    fourdface.perception.load_perception = lambda *_: FakePerception()
    fourd()


if __name__ == "__main__":
    main()
