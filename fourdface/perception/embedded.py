"""The backend that needs no download: three small networks whose weights ship with the package."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from fourdface.assets import asset_path
from fourdface.blocks.rotation import matrix_to_axis_angle
from fourdface.errors import FourdError
from fourdface.perception.base import PRESENCE_THRESHOLD, Detection, Face, box_overlap, box_share, require_image
from fourdface.perception.geometry import (
    CropFrame,
    FloatArray,
    crop_from_box,
    crop_from_landmarks,
    landmark_box,
    rotation_about_view,
)
from fourdface.perception.matting import MatteModel
from fourdface.perception.networks import DETECTOR_STRIDE, LANDMARK_INPUT, DetectorNet, LandmarkNet, MatteNet
from fourdface.perception.sampling import letterbox, sample_crop

DETECTOR_SIZES = (192, 384, 704)
"""Longer sides at which the detector looks; those far beyond the picture's own are left out."""
SHARED = 0.5
"""Of two faces that share more than this of the smaller one, only the better scored is kept."""
SURE_SCORE = 0.75
DOUBTFUL_SCORE = 0.35
SURE_PRESENCE = 0.94
SURE_OVERLAP = 0.52
"""What a doubtful detection must reach in the landmark network: presence, overlap of its box with the landmarks'."""
LEAST_SCORE = 0.37
MIRROR_GAP = 0.062
MIDLINE = (10, 9, 168, 6, 197, 5, 4, 1, 2, 0, 13, 14, 17, 152)
"""Landmarks that are their own mirror images."""
MAX_FACES = 32
SETTLED = 0.06
"""Analysis looks again while the crop still moves by more than this share of its half side (or radians)."""
MAX_PASSES = 4
TURNS = (0.0, math.radians(60), math.radians(-60))

NetworkT = TypeVar("NetworkT", bound=torch.nn.Module)


class EmbeddedPerception:
    """Detector, landmark network and matte network on the CPU (or any torch device's default: they are small)."""

    name = "embedded"

    def __init__(self, weights: Path | None = None) -> None:
        path = Path(weights) if weights is not None else asset_path("perception")
        try:
            state = {name: value.float() for name, value in load_file(path).items()}
        except (SafetensorError, OSError) as error:
            raise FourdError(f"{path} does not hold perception weights (.safetensors expected): {error}.") from error
        self._detector = _load(DetectorNet(fused=True), state, "detector.")
        self._landmarks = _load(LandmarkNet(fused=True), state, "landmarks.")
        self._matte = MatteModel(_load(MatteNet(fused=True), state, "matte."))

    def detect(self, image_u8: npt.NDArray[np.uint8]) -> list[Detection]:
        """All faces, largest first. Doubtful ones are kept only where the landmark network confirms a face."""
        require_image(image_u8)
        confirmed = [d for candidate in self._candidates(image_u8) if (d := self._confirm(image_u8, candidate))]
        found: list[Detection] = []
        for detection in sorted(confirmed, key=lambda d: -d.score):
            if all(box_share(detection.box, other.box) < SHARED for other in found):
                found.append(detection)
        return sorted(found, key=lambda d: -float((d.box[2:] - d.box[:2]).prod()))

    def _confirm(self, image_u8: npt.NDArray[np.uint8], candidate: Detection) -> Detection | None:
        """The candidate with the landmarks' box and a score that counts their agreement, or None for no face."""
        sure = candidate.score >= SURE_SCORE
        # a doubtful one is not worth the search over turns
        face = self.analyse(image_u8, candidate.box) if sure else self._settle(image_u8, crop_from_box(candidate.box))
        if face.presence < (PRESENCE_THRESHOLD if sure else SURE_PRESENCE):
            return None
        if box_overlap(face.box, candidate.box) < (0.2 if sure else SURE_OVERLAP):
            return None
        gap = self._mirror_gap(image_u8, face.landmarks)
        score = candidate.score * face.presence * (1 - 4 * gap)
        return Detection(face.box, score) if gap <= MIRROR_GAP and score >= LEAST_SCORE else None

    def _mirror_gap(self, image_u8: npt.NDArray[np.uint8], landmarks: FloatArray) -> float:
        """How far the midline lies apart (in half crops) when the crop is read directly and as its mirror image.

        The networks agree with themselves to 0.01-0.05 on faces; on cloth or crockery they make up a face, another one
        in the mirror.
        """
        frame = _crop_or_none(landmarks)
        if frame is None:
            return 1.0
        with torch.inference_mode():
            crop = sample_crop(image_u8, frame, LANDMARK_INPUT)
            both = torch.cat([crop, crop.flip(-1)]).contiguous(memory_format=torch.channels_last)
            points = self._landmarks(both)["landmarks"][:, list(MIDLINE)]
        return float((points[0] - points[1] * torch.tensor([-1.0, 1.0])).norm(dim=1).mean())

    def _candidates(self, image_u8: npt.NDArray[np.uint8]) -> list[Detection]:
        """Peaks of the detector at all sizes over the doubtful score, best first, overlapping ones dropped."""
        peaks: list[Detection] = []
        with torch.inference_mode():
            for size in DETECTOR_SIZES:
                if size > max(DETECTOR_SIZES[0], 1.2 * max(image_u8.shape[:2])):
                    break
                picture, scale = letterbox(image_u8, size)
                output = self._detector(picture.contiguous(memory_format=torch.channels_last))[0]
                peaks += decode_detections(output, scale)
        peaks.sort(key=lambda d: -d.score)
        kept: list[Detection] = []
        for peak in peaks[: 4 * MAX_FACES]:
            if all(box_overlap(peak.box, other.box) < 0.4 for other in kept):
                kept.append(peak)
        return kept[:MAX_FACES]

    def analyse(self, image_u8: npt.NDArray[np.uint8], box: npt.NDArray[np.float32]) -> Face:
        """The face in `box` (x0, y0, x1, y1): repeated crops until the crop fits the landmarks it gives."""
        require_image(image_u8)
        best: Face | None = None
        for turn in TURNS:
            face = self._settle(image_u8, crop_from_box(box, turn))
            if best is None or face.presence > best.presence:
                best = face
            if best.presence >= PRESENCE_THRESHOLD:
                break
        if best is None:
            raise ValueError("no turn was tried")
        return best

    def _settle(self, image_u8: npt.NDArray[np.uint8], frame: CropFrame) -> Face:
        face = self._look(image_u8, frame)
        for _ in range(MAX_PASSES - 1):
            following = _crop_or_none(face.landmarks)
            if following is None or face.presence < 0.1:
                break
            moved = float(np.abs(following.center - frame.center).max()) / frame.half
            change = max(moved, abs(math.log(following.half / frame.half)), abs(_wrap(following.angle - frame.angle)))
            if change < SETTLED:
                break
            frame, face = following, self._look(image_u8, following)
        return face

    def follow(self, image_u8: npt.NDArray[np.uint8], landmarks_previous: npt.NDArray[np.float32]) -> Face:
        """The same face in the next frame; when it is lost, the detection nearest to where it was.

        With no face anywhere the presence of the returned face is under 0.5.
        """
        face = self.track(image_u8, landmarks_previous)
        if face.presence >= PRESENCE_THRESHOLD:
            return face
        old = landmark_box(landmarks_previous)
        place = (old[:2] + old[2:]) / 2
        found = self.detect(image_u8)
        if not found:
            return face
        nearest = min(found, key=lambda d: float(np.square((d.box[:2] + d.box[2:]) / 2 - place).sum()))
        return self.analyse(image_u8, nearest.box)

    def track(self, image_u8: npt.NDArray[np.uint8], landmarks_previous: npt.NDArray[np.float32]) -> Face:
        """One pass on the crop of the previous landmarks [478,2], with no fall-back to detection."""
        require_image(image_u8)
        return self._look(image_u8, crop_from_landmarks(landmarks_previous))

    def matte(self, image_u8: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Alpha [H,W] of the person with these landmarks."""
        require_image(image_u8)
        return self._matte(image_u8, landmarks)

    def _look(self, image_u8: npt.NDArray[np.uint8], frame: CropFrame) -> Face:
        """One pass of the landmark network."""
        with torch.inference_mode():
            crop = sample_crop(image_u8, frame, LANDMARK_INPUT)
            out = self._landmarks(crop.contiguous(memory_format=torch.channels_last))
            turned = torch.from_numpy(rotation_about_view(frame.angle)) @ out["rotation"][0]
            rotation = matrix_to_axis_angle(turned).numpy().astype(np.float32)
            coefficients = torch.sigmoid(out["coefficients"][0]).numpy()
            presence = float(torch.sigmoid(out["presence"][0]))
            landmarks = frame.to_image(out["landmarks"][0].numpy())
        return Face(landmark_box(landmarks), presence, presence, landmarks, coefficients, rotation)


def decode_detections(output: Tensor, scale: float, threshold: float = DOUBTFUL_SCORE) -> list[Detection]:
    """Detector maps [5,h,w] -> detections at the peaks of the score, boxes in picture pixels (`scale` each)."""
    score = torch.sigmoid(output[0])
    peak = functional.max_pool2d(score[None, None], 3, 1, 1)[0, 0]
    rows, columns = torch.nonzero((score >= peak) & (score > threshold), as_tuple=True)
    values = output[1:, rows, columns].T
    centre = torch.stack([columns, rows], dim=1) + 0.5 + values[:, :2]
    half = values[:, 2:].clamp(-3, 6).exp() / 2
    boxes = (torch.cat([centre - half, centre + half], dim=1) * (DETECTOR_STRIDE * scale)).numpy().astype(np.float32)
    return [Detection(box, float(value)) for box, value in zip(boxes, score[rows, columns], strict=True)]


def _load(network: NetworkT, state: dict[str, Tensor], prefix: str) -> NetworkT:
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    try:
        network.load_state_dict(part)
    except RuntimeError as error:
        raise FourdError(
            f"The perception weights do not fit this version of fourd ({prefix}*): reinstall fourd."
        ) from error
    network.eval()
    for parameter in network.parameters():
        if parameter.ndim == 4:  # convolutions run on interleaved channels
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _crop_or_none(landmarks: FloatArray) -> CropFrame | None:
    try:
        return crop_from_landmarks(landmarks)
    except ValueError:
        return None


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi
