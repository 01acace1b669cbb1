"""A foreign face detector in front of the embedded landmark, coefficient and matte networks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from fourdface.perception.base import PRESENCE_THRESHOLD, Detection, Face, require_image
from fourdface.perception.embedded import EmbeddedPerception
from fourdface.perception.geometry import landmark_box


class HybridPerception(ABC):
    """Subclasses give `_boxes`; everything that follows a box is the embedded backend's."""

    name = "hybrid"

    def __init__(self, embedded: EmbeddedPerception | None = None) -> None:
        self._embedded = embedded or EmbeddedPerception()

    @abstractmethod
    def _boxes(self, image_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Face boxes and scores [n,5] (x0, y0, x1, y1, score) of a uint8 [H,W,3] RGB picture."""

    def detect(self, image_u8: npt.NDArray[np.uint8]) -> list[Detection]:
        """All faces of the foreign detector, largest first."""
        require_image(image_u8)
        rows = np.asarray(self._boxes(image_u8), dtype=np.float32).reshape(-1, 5)
        found = [Detection(row[:4].copy(), float(row[4])) for row in rows]
        return sorted(found, key=lambda d: -float((d.box[2:] - d.box[:2]).prod()))

    def analyse(self, image_u8: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> Face:
        """The face in `box`."""
        return self._refine(image_u8, self._embedded.analyse(image_u8, box))

    def follow(self, image_u8: npt.NDArray[np.uint8], landmarks_previous: npt.NDArray[np.float32]) -> Face:
        """The same face in the next frame; where it is lost, the foreign detector's nearest."""
        face = self._embedded.track(image_u8, landmarks_previous)
        if face.presence < PRESENCE_THRESHOLD:
            place = _middle(landmark_box(landmarks_previous))
            found = self.detect(image_u8)
            if not found:
                return face
            nearest = min(found, key=lambda d: float(np.square(_middle(d.box) - place).sum()))
            return self.analyse(image_u8, nearest.box)
        return self._refine(image_u8, face)

    def matte(self, image_u8: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Alpha [H,W] of the person."""
        return self._embedded.matte(image_u8, landmarks)

    def _refine(self, image_u8: npt.NDArray[np.uint8], face: Face) -> Face:
        """What the foreign package can add to a face: nothing here."""
        return face


def _middle(box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray((box[:2] + box[2:]) / 2, dtype=np.float32)
