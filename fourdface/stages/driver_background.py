"""What stands behind the driver, as a background for another head: the pictures without whom the matte covers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from ..methods.portrait4d.alignment import PortraitCrop
from ..methods.portrait4d.tracking import crops_of
from ..methods.splat.plate import MARGIN, fill_smoothly
from .reenact import DriverFrame

__all__ = ["DriverBackground"]

Matte = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Picture uint8 [H, W, 3] and landmarks [478, 2] -> the person's alpha [H, W] in 0..1."""
PERSON = 0.02
"""Alpha from which a pixel is taken for the person."""


class DriverBackground:
    """Backgrounds uint8 [size, size, 3] of a driver's frames, in the window in which its first face was aligned.

    The window stays still, as the camera of the result does. Behind the person stands what was last seen there while
    the person was elsewhere, and what was never seen is filled smoothly from around; both mean a camera that rests.
    """

    def __init__(self, matte: Matte, size: int) -> None:
        self._matte, self._size = matte, size
        self._window: PortraitCrop | None = None
        self._seen = np.zeros((size, size, 3), np.float32)
        self._known = np.zeros((size, size), bool)
        self._last: np.ndarray | None = None

    def step(self, frame: DriverFrame) -> np.ndarray | None:
        """The background of one frame; the last one where no face is seen, None until the first."""
        if frame.image_u8 is None or frame.landmarks is None:
            return self._last
        height, width = frame.image_u8.shape[:2]
        if self._window is None:
            self._window = crops_of(frame.landmarks, (width, height), self._size).portrait
        alpha_u8 = np.round(self._matte(frame.image_u8, frame.landmarks) * 255).astype(np.uint8)
        picture = self._window.apply(frame.image_u8).astype(np.float32)
        alpha = self._window.apply(np.repeat(alpha_u8[..., None], 3, 2))[..., 0] / np.float32(255)
        self._last = np.round(self._without(picture, alpha)).astype(np.uint8)
        return self._last

    def _without(self, picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        """The picture [S, S, 3] with what is in or near the matte [S, S] replaced."""
        margin = max(2.0, MARGIN * self._size)
        person = alpha > PERSON
        distance = ndimage.distance_transform_edt(~person) if person.any() else np.full(alpha.shape, np.inf)
        free = distance > margin
        self._seen[free] = picture[free]
        self._known |= free
        if not self._known.any():
            return np.broadcast_to(picture.mean((0, 1)), picture.shape)
        filled = np.where(self._known[..., None], self._seen, fill_smoothly(self._seen, self._known))
        share = np.clip((distance - 1) / margin, 0, 1)[..., None]
        return np.clip(share * picture + (1 - share) * filled, 0, 255)
