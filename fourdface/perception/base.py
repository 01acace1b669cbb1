"""What every perception backend gives: detections, faces, mattes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

PRESENCE_THRESHOLD = 0.5
"""Below this a face is taken for lost."""


@dataclass(frozen=True)
class Detection:
    """Where a face is: `box` [4] float32 pixels (x0, y0, x1, y1) of the dense landmarks' extent, `score` 0..1."""

    box: npt.NDArray[np.float32]
    score: float


@dataclass(frozen=True)
class Face:
    """What a face does.

    box [4] pixels (x0, y0, x1, y1); score 0..1; presence 0..1 (under 0.5: take it as lost); landmarks [478,2] float32
    pixels (x, y), MediaPipe's dense topology; coefficients [52] float32 0..1 in the order of ARKIT_NAMES; rotation [3]
    float32 axis-angle, radians, from the head's axes to camera-aligned ones (x right, y up, z to the viewer).
    """

    box: npt.NDArray[np.float32]
    score: float
    presence: float
    landmarks: npt.NDArray[np.float32]
    coefficients: npt.NDArray[np.float32]
    rotation: npt.NDArray[np.float32]


@runtime_checkable
class Perception(Protocol):
    """A perception backend. Images are uint8 [H,W,3] RGB."""

    name: str

    def detect(self, image_u8: npt.NDArray[np.uint8]) -> list[Detection]:
        """All faces, largest first; empty where there is none."""
        ...

    def analyse(self, image_u8: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> Face:
        """The face in `box`; its presence says whether there is one."""
        ...

    def follow(self, image_u8: npt.NDArray[np.uint8], landmarks_previous: npt.NDArray[np.float32]) -> Face:
        """The same face in the next frame, from the landmarks [478,2] of the last; detects again when it is lost."""
        ...

    def matte(self, image_u8: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Alpha [H,W] in 0..1 of the person (head, hair, body) that has these landmarks."""
        ...


def require_image(image_u8: npt.NDArray[np.uint8]) -> None:
    """Raise ValueError unless `image_u8` is a non-empty uint8 [H,W,3] array."""
    if image_u8.dtype != np.uint8 or image_u8.ndim != 3 or image_u8.shape[2] != 3 or 0 in image_u8.shape:
        raise ValueError(f"image must be uint8 [H,W,3], got {image_u8.dtype} {list(image_u8.shape)}")


def box_share(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Intersection over the smaller of two boxes (x0, y0, x1, y1)."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    common = float(np.clip(high - low, 0, None).prod())
    return common / max(min(float((box[2:] - box[:2]).prod()) for box in (first, second)), 1e-9)


def box_overlap(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    common = float(np.clip(high - low, 0, None).prod())
    areas = float((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod())
    return common / max(areas - common, 1e-9)
