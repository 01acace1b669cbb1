"""Agreement of lips and sound: SyncNet's distance (LSE-D), confidence (LSE-C) and offset of a sequence.

Frames stream through: a tracker of each sequence keeps five face crops, sixteen embeddings of lips and the sums of
distances for every offset from -15 to +15 frames, whatever the length of the clip.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from fourdface.blocks.syncnet import FRAMES, SIZE, STEPS, load_syncnet, mel_cepstrum
from fourdface.metrics.base import Metric, MetricInfo, mean_of
from fourdface.metrics.picture import Picture, Sample, Sound
from fourdface.metrics.warp import box_to_crop, warp

if TYPE_CHECKING:
    from fourdface.blocks.syncnet import SyncNet

REACH = 15
"""Offsets that are tried, in frames of 1/25 s, to both sides."""
SCALE, DOWN = 1.4, 0.2
"""Side of the face crop over the longer side of the box, and how far its centre lies under the box's, in box sides."""
LipReader = Callable[[np.ndarray], np.ndarray]
SoundReader = Callable[[np.ndarray], np.ndarray]


class Networks:
    """Embeddings of the published network; tests put others in its place."""

    def lips(self, faces: np.ndarray) -> np.ndarray:
        """Five crops uint8 [5,224,224,3], RGB -> [D]."""
        batch = torch.from_numpy(np.ascontiguousarray(faces[..., ::-1].transpose(3, 0, 1, 2))).float()[None]
        with torch.inference_mode():
            return np.asarray(_network().lips(batch)[0].numpy())

    def sound(self, coefficients: np.ndarray) -> np.ndarray:
        """Coefficients [13,20] -> [D]."""
        batch = torch.from_numpy(np.ascontiguousarray(coefficients)).float()[None, None]
        with torch.inference_mode():
            return np.asarray(_network().sound(batch)[0].numpy())


@lru_cache(maxsize=1)
def _network() -> SyncNet:
    return load_syncnet()


def face_crop(picture: Picture) -> np.ndarray | None:
    """The face as SyncNet takes it, uint8 [224,224,3]: a square 1.4 times the box, 0.2 lower; None for no face."""
    box = picture.read("box")
    if box is None:
        return None
    lower = np.asarray(box, np.float64) + [0, DOWN * max(box[2] - box[0], box[3] - box[1])] * 2
    crop = warp(picture.image_u8, box_to_crop(lower, SCALE, SIZE), (SIZE, SIZE))
    return np.clip(np.round(crop), 0, 255).astype(np.uint8)


class Tracker:
    """Distances of one sequence's lips to its sound, by offset."""

    def __init__(self, sound: Sound, networks: Networks) -> None:
        self._networks = networks
        self._rate = sound.frame_rate
        self._coefficients = mel_cepstrum(sound.samples)
        self._windows = max(0, (self._coefficients.shape[1] - STEPS) // 4 + 1)
        self._crops: deque[np.ndarray | None] = deque(maxlen=FRAMES)
        self._lips: deque[tuple[int, np.ndarray | None]] = deque()
        self._sounds: dict[int, np.ndarray] = {}
        self._ticks = 0
        self.sums = np.zeros(2 * REACH + 1)
        self.count = 0

    def add(self, frame: int, crop: np.ndarray | None) -> None:
        """Take the next frame; it stands for every 25th of a second that it is nearest to."""
        while math.floor(self._ticks * self._rate / 25 + 0.5) <= frame:
            self._crops.append(crop)
            self._ticks += 1
            if len(self._crops) == FRAMES:
                faces = [face for face in self._crops if face is not None]
                read = self._networks.lips(np.stack(faces)) if len(faces) == FRAMES else None
                self._lips.append((self._ticks - FRAMES, read))
            if len(self._lips) > REACH:
                self._measure(*self._lips.popleft(), self._ticks - FRAMES)

    def scores(self) -> tuple[float, float, float]:
        """LSE-D, LSE-C and offset in frames (+: the sound is late); NaN where lips or sound are missing."""
        sums, count = self.sums.copy(), self.count
        for number, read in self._lips:  # the last ones, against what sound there is
            self._measure(number, read, self._ticks - FRAMES)
        means = self.sums / max(1, self.count)
        found = self.count
        self.sums, self.count = sums, count
        if not found:
            return math.nan, math.nan, math.nan
        best = int(np.argmin(means))
        return float(means[best]), float(np.median(means) - means[best]), float(best - REACH)

    def _measure(self, number: int, lips: np.ndarray | None, last: int) -> None:
        """Distances of one window of lips; sound beyond either end counts as zeros, as in the authors' program."""
        if lips is None or number >= self._windows:
            return
        for shift in range(-REACH, REACH + 1):
            sound = self._sound(number + shift, last, lips)
            self.sums[shift + REACH] += float(np.linalg.norm(lips - sound + 1e-6))
        self.count += 1
        self._sounds = {k: value for k, value in self._sounds.items() if k >= number - REACH}

    def _sound(self, number: int, last: int, like: np.ndarray) -> np.ndarray:
        if not 0 <= number <= min(last, self._windows - 1):
            return np.zeros_like(like)
        if number not in self._sounds:
            self._sounds[number] = self._networks.sound(self._coefficients[:, 4 * number : 4 * number + STEPS])
        return self._sounds[number]


class SyncReader:
    """The trackers of an evaluation, shared by the metrics that read them."""

    def __init__(self, networks: Networks | None = None) -> None:
        self._networks = networks or Networks()
        self._trackers: dict[tuple[str, str], Tracker] = {}
        self._latest: dict[tuple[str, str], int] = {}

    def take(self, sample: Sample) -> Tracker | None:
        """The tracker of a sample's system and sequence, with its frame in; None where there is no sound."""
        if sample.sound is None:
            return None
        key = (sample.system, sample.sequence)
        if key not in self._trackers:
            self._trackers[key] = Tracker(sample.sound, self._networks)
        if self._latest.get(key) != sample.frame:
            self._latest[key] = sample.frame
            self._trackers[key].add(sample.frame, face_crop(sample.prediction))
        return self._trackers[key]


_KINDS = {
    "sync_distance": ("SyncNet distance (LSE-D)", "features", "lower", "min over offsets of mean |lips - sound|"),
    "sync_confidence": ("SyncNet confidence (LSE-C)", "features", "higher", "median - min over offsets of mean |.|"),
    "sync_offset": ("SyncNet offset", "frames of 1/25 s, absolute", "lower", "|offset with the least mean distance|"),
}


class SyncMetric(Metric):
    """One of `sync_distance`, `sync_confidence`, `sync_offset`: one value a sequence."""

    def __init__(self, name: str, reader: SyncReader | None = None) -> None:
        title, unit, direction, formula = _KINDS[name]
        self.info = MetricInfo(
            name, title, unit, "lower" if direction == "lower" else "higher", formula + ", offsets -15..15",
            "Chung and Zisserman 2016; LSE of Prajwal et al. 2020", "asset syncnet",
            "1.4 times the face's box, 0.2 lower, 224 pixels", "sequences without sound or faces are left out",
        )  # fmt: skip
        self._reader = reader or SyncReader()
        self._trackers: dict[str, Tracker | None] = {}
        self._known: dict[str, float] = {}

    def update(self, sample: Sample) -> None:
        """Take one frame."""
        self._trackers[sample.sequence] = self._reader.take(sample)

    def sequence_values(self) -> dict[str, float]:
        """Value of each sequence."""
        column = list(_KINDS).index(self.info.name)
        values = dict(self._known)
        for name, tracker in self._trackers.items():
            values[name] = math.nan if tracker is None else abs(tracker.scores()[column])
        return dict(sorted(values.items()))

    def compute(self) -> float:
        """Mean over sequences."""
        return mean_of(list(self.sequence_values().values()))

    def merge(self, other: Metric) -> None:
        """Union of the sequences; raises ValueError for one that both have."""
        self._require_same(other)
        mine, theirs = self.sequence_values(), other.sequence_values()
        both = mine.keys() & theirs.keys()
        if both:
            raise ValueError(f"{self.info.name}: {min(both)} is in both parts")
        self._known.update(theirs)

    def state(self) -> dict[str, np.ndarray]:
        """Names and values of the sequences that have one."""
        values = {name: value for name, value in self.sequence_values().items() if math.isfinite(value)}
        names = "\n".join(values).encode()
        return {"names": np.frombuffer(names, np.uint8), "values": np.array(list(values.values()), np.float64)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        names = bytes(np.asarray(state["names"], np.uint8)).decode()
        self._known = dict(zip(names.split("\n") if names else [], map(float, state["values"]), strict=True))
