"""From a driver's head to another person's: what is taken over absolutely, what relative to a reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from .arkit import ARKIT_NAMES

FACE_CENTRE = np.array([0.0, 0.075, 0.10])
"""Metres from the neck joint to the middle of the face, in the head's axes."""
GAZE_MODES = np.array([name.startswith("eyeLook") for name in ARKIT_NAMES])


@dataclass(frozen=True)
class Pose:
    """Parameters of one head: expression [52], rotation [3], translation [3] (of the model's origin, the neck joint,
    about which the head turns), eyes [6], jaw [3]; torso [6]: its rotation and translation about the neck joint since
    the reference frame (axis-angle; metres, world axes), None where nothing was seen of it."""

    expression: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    eyes: np.ndarray
    jaw: np.ndarray
    torso: np.ndarray | None = None


@dataclass(frozen=True)
class RetargetOptions:
    """pose: absolute|relative|none; expression: absolute|relative; scale: factor of the expression; gaze: on/off."""

    pose: str = "absolute"
    expression: str = "absolute"
    expression_scale: float = 1.0
    gaze: bool = True


class Retargeter:
    """Maps driver poses to a source person.

    `source`: the person's pose in the photo; `reference`: the driver's first good frame; `neutral` [52]: the
    driver's resting coefficients. Positions are always relative to the driver's reference: whoever stands at the
    side of the photo stays there. Depth changes by ratio, because focal lengths are only known up to a factor.
    `camera_distance`: metres from world origin to the camera.
    """

    def __init__(
        self, source: Pose, reference: Pose, neutral: np.ndarray, options: RetargetOptions, camera_distance: float
    ) -> None:
        for name, allowed in (("pose", ("absolute", "relative", "none")), ("expression", ("absolute", "relative"))):
            if getattr(options, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(options, name)!r}")
        self.source, self.reference, self.neutral, self.options = source, reference, neutral, options
        self._distance = camera_distance
        self._correction = self._start_correction()

    def __call__(self, driver: Pose) -> Pose:
        """The source person's pose for one frame of the driver."""
        expression = self._expression(driver)
        eyes = driver.eyes if self.options.gaze else self.source.eyes
        if self.options.pose == "none":
            return Pose(expression, self.source.rotation, self.source.translation, eyes, driver.jaw)
        now = Rotation.from_rotvec(driver.rotation)
        translation = self._translation(driver)
        if self.options.pose == "relative":
            base = Rotation.from_rotvec(self.reference.rotation).inv()
            now = now * base * Rotation.from_rotvec(self.source.rotation)
        else:
            now = self._towards_camera(translation) * self._towards_camera(driver.translation).inv() * now
        return Pose(expression, now.as_rotvec(), translation, eyes, driver.jaw, self._torso(driver))

    def _torso(self, driver: Pose) -> np.ndarray | None:
        """The source's torso moves as the driver's has since the reference; depth changes by ratio here too."""
        if driver.torso is None:
            return None
        start = self._distance - self.reference.translation[2]
        ratio = (start - driver.torso[5]) / max(start, 1e-3)
        depth = (self._distance - self.source.translation[2]) * (1 - float(np.clip(ratio, 0.6, 1.6)))
        return np.array([*driver.torso[:5], depth])

    def _towards_camera(self, translation: np.ndarray) -> Rotation:
        """The smallest turn from the world's z axis to the ray from the head to the camera.

        How a head is seen depends on its rotation against that ray: a driver who faces the camera from the middle of
        the picture is, in a photo with the face high up, one who faces the camera from there.
        """
        ray = np.array([0.0, 0.0, self._distance]) - np.asarray(translation, float) - FACE_CENTRE
        ray /= max(float(np.linalg.norm(ray)), 1e-9)
        axis = np.cross([0.0, 0.0, 1.0], ray)
        sine = float(np.linalg.norm(axis))
        if sine < 1e-9:
            return Rotation.identity()
        return Rotation.from_rotvec(axis / sine * float(np.arctan2(sine, ray[2])))

    def _expression(self, driver: Pose) -> np.ndarray:
        scale = self.options.expression_scale
        if self.options.expression == "relative":
            expression = self.source.expression + scale * (driver.expression - self.neutral)
        elif scale != 1.0:
            expression = self.neutral + scale * (driver.expression - self.neutral)
        else:
            expression = driver.expression
        if not self.options.gaze:
            expression = np.where(GAZE_MODES, self.source.expression, expression)
        return np.clip(expression, 0.0, 1.0)

    def _translation(self, driver: Pose) -> np.ndarray:
        """Where the source's neck joint goes: its own place, moved as the driver's moved since the reference."""
        start, now, own = self.reference.translation, driver.translation, self.source.translation
        ratio = (self._distance - now[2]) / max(self._distance - start[2], 1e-3)
        depth = (self._distance - own[2]) * float(np.clip(ratio, 0.4, 2.5))
        # metres across the picture are the same for any assumed focal length
        place = np.array([own[0] + now[0] - start[0], own[1] + now[1] - start[1], self._distance - depth])
        return place + self._correction

    def _start_correction(self) -> np.ndarray:
        """Where photo and driver start almost alike, what differs is the fits' error: then the face keeps its place
        in the picture, and not the neck. Where they truly differ, the neck stays and the face turns about it."""
        if self.options.pose != "absolute":
            return np.zeros(3)
        own = Rotation.from_rotvec(self.source.rotation)
        seen = self._towards_camera(self.reference.translation).inv() * Rotation.from_rotvec(self.reference.rotation)
        start = self._towards_camera(self.source.translation) * seen
        angle = np.degrees((own.inv() * start).magnitude())
        share = float(np.clip(1 - (angle - 6) / 8, 0, 1))
        return share * (own.apply(FACE_CENTRE) - start.apply(FACE_CENTRE)) * [1.0, 1.0, 0.0]
