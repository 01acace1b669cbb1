"""face-alignment's 2DFAN (68 points) beside the embedded networks: its points pull the dense ones into place."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fourdface.errors import FourdError
from fourdface.perception.base import Face
from fourdface.perception.geometry import LANDMARK68, landmark_box, outer_eye_distance
from fourdface.perception.hybrid import HybridPerception

INNER = slice(17, 68)
"""The jaw line of the 68 points slides along the face with yaw and is left out."""
REACH = 0.25
"""Distance, in outer-eye distances, over which a moved point draws its neighbours along."""
HUB_NAME = "2DFAN4-cd938726ad.zip"


class FaceAlignmentPerception(HybridPerception):
    """Loads the 2DFAN4 file with the installed face_alignment package; nothing is downloaded.

    The package looks its landmark network up by name in torch's hub folder; the file is put there first. Faces are
    found by the embedded detector, so the package's own detector (and its download) is never asked for.
    """

    name = "face-alignment"

    def __init__(self, network_file: Path) -> None:
        super().__init__()
        try:
            import face_alignment
        except ImportError as error:
            raise FourdError(
                "Perception backend face-alignment needs the package face-alignment: pip install face-alignment."
            ) from error
        place = hub_checkpoint()
        if not place.exists():
            if not Path(network_file).exists():
                raise FourdError(
                    f"There is no face-alignment network at {network_file}: put {HUB_NAME} there or in {place.parent}."
                )
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(network_file, place)
        try:
            self._model = face_alignment.FaceAlignment(
                face_alignment.LandmarksType.TWO_D, device="cpu", face_detector="folder", flip_input=False
            )
        except Exception as error:  # unpickling and hub errors of many classes
            raise FourdError(f"face-alignment cannot open {place}: {str(error).splitlines()[0]}") from error

    def _boxes(self, image_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        found = self._embedded.detect(image_u8)
        rows = [np.append(d.box, np.float32(d.score)) for d in found]
        return np.asarray(rows, dtype=np.float32).reshape(-1, 5)

    def _refine(self, image_u8: npt.NDArray[np.uint8], face: Face) -> Face:
        if face.presence < 0.5:
            return face
        box = [*(float(v) for v in face.box), 1.0]
        points = self._model.get_landmarks_from_image(image_u8, detected_faces=[box])
        if not points:
            return face
        landmarks = pull(face.landmarks, np.asarray(points[0], dtype=np.float32)[:, :2])
        return dataclasses.replace(face, landmarks=landmarks, box=landmark_box(landmarks))


def hub_checkpoint() -> Path:
    """Where face_alignment expects its landmark network (torch.hub's folder; TORCH_HOME moves it)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("TORCH_HOME", cache / "torch")) / "hub" / "checkpoints" / HUB_NAME


def pull(landmarks: npt.NDArray[np.float32], points68: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Dense landmarks [478,2] moved smoothly so that their inner classic points come to those of `points68` [68,2].

    Each landmark moves by the mean of the classic points' displacements, weighted by a Gaussian of their distance.
    """
    anchors = landmarks[list(LANDMARK68)][INNER]
    moves = points68[INNER] - anchors
    reach = REACH * max(outer_eye_distance(landmarks), 1e-3)
    weights = np.exp(-np.square(landmarks[:, None] - anchors[None]).sum(axis=2) / (2 * reach**2)) + 1e-6
    shift = (weights @ moves) / weights.sum(axis=1, keepdims=True)
    return (landmarks + shift).astype(np.float32)
