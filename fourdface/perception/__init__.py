"""Faces in pictures: detection, landmarks, coefficients, gaze, matte; one interface, several backends."""

from fourdface.perception.base import PRESENCE_THRESHOLD, Detection, Face, Perception
from fourdface.perception.load import BACKENDS, available_backends, load_perception

__all__ = [
    "BACKENDS",
    "PRESENCE_THRESHOLD",
    "Detection",
    "Face",
    "Perception",
    "available_backends",
    "load_perception",
]
