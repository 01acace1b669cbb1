"""evaluate: systems and truths, frame by frame -> report; reports -> one report."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..artifacts import Provenance, Report
from ..errors import FourdError
from ..media.image import encode_png
from ..media.resize import resize
from ..metrics import Cost, Metric, PairMetric, Picture, Sample, Sound
from ..metrics.base import Key
from ..metrics.face import turn
from ..metrics.judges import JudgeSet

FrameStream = Callable[[], Iterator[np.ndarray]]
"""Opens a sequence of pictures uint8 [H,W,3] or [H,W,4] (straight alpha) from its first frame."""
SHOWN = ("feature_distance", "nme", "pose", "aed")
"""Metrics whose worst frames are kept as pictures, as far as they are measured."""
WORST, THUMB = 3, 144


@dataclass(frozen=True)
class Protocol:
    """Fixed rules of an evaluation; two reports are comparable where these are equal.

    every: frame step; skip_first: leave out frame 0 (the source of self-reenactment); lengths: refuse | trim, where a
    result and its truth differ in length; sizes: refuse | resize (the result to
    the truth's size) | keep (nothing compares pixels).
    """

    name: str = "pairs"
    version: int = 1
    every: int = 1
    skip_first: bool = False
    lengths: str = "refuse"
    sizes: str = "resize"
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """One sequence: the systems' results, the truth (None for cross-reenactment and the like), the source photo."""

    name: str
    results: dict[str, FrameStream]
    reference: FrameStream | None = None
    source_u8: np.ndarray | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    angle: float | None = None
    """Degrees between the views of source and result, for tables by angle; None: the turn of the head in each frame."""
    sounds: dict[str, Sound] = field(default_factory=dict)
    """Sound of each system's result, for SyncNet."""
    costs: dict[str, Cost] = field(default_factory=dict)
    """What each system's result took to make."""


@dataclass
class _Worst:
    """The worst frames of a metric as small pictures."""

    sign: float
    heap: list[tuple[float, str, int, bytes]] = field(default_factory=list)

    def offer(self, value: float, sample: Sample) -> None:
        badness = self.sign * value
        if len(self.heap) < WORST or (badness, sample.sequence) > self.heap[0][:2]:
            heapq.heappush(self.heap, (badness, sample.sequence, sample.frame, _thumbnail(sample)))
            if len(self.heap) > WORST:
                heapq.heappop(self.heap)


def evaluate(
    clips: Iterable[Clip], factories: Sequence[Callable[[], Metric]], judges: JudgeSet, protocol: Protocol,
    provenance: Provenance, left_out: dict[str, str] | None = None,
) -> Report:  # fmt: skip
    """Measure every system on every clip, reading all videos once, frame by frame.

    Raises FourdError where a video ends early, sizes differ and the protocol refuses that, or nothing could be judged.
    """
    tables: dict[str, list[Metric]] = {}
    worst: dict[tuple[str, str], _Worst] = {}
    sequences: list[dict[str, Any]] = []
    angles: dict[Key, float | None] = {}

    def frames() -> Iterator[list[Sample]]:
        for clip in clips:
            for system in clip.results:
                tables.setdefault(system, [make() for make in factories])
            empty = True
            for samples in _frames(clip, judges, protocol):
                empty = False
                yield samples
            if empty:
                raise FourdError(f"{clip.name}: no frame to judge (the protocol takes every {protocol.every}th)")
            sequences.append({"name": clip.name, "hashes": dict(sorted(clip.hashes.items()))})

    for samples in _looked_at(frames(), tables):
        for sample in samples:
            for metric in tables[sample.system]:
                metric.update(sample)
                _keep_worst(worst, metric, sample)
            angles[sample.sequence, sample.frame] = turn(sample)
    if not sequences:
        raise FourdError("there is no sequence to evaluate")
    return _report(tables, worst, sequences, angles, judges, protocol, provenance, left_out or {})


def _looked_at(frames: Iterator[list[Sample]], tables: dict[str, list[Metric]]) -> Iterator[list[Sample]]:
    """The frames in their order, after the metrics have looked at them: as many at a time as torch has threads.

    Each frame is read by one thread, so that values do not depend on the number of threads.
    """

    def look(samples: list[Sample]) -> list[Sample]:
        for sample in samples:
            for metric in tables[sample.system]:
                metric.look(sample)
            turn(sample)
        return samples

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for samples in itertools.islice(frames, 1):
            yield look(samples)  # networks load here, once
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting: deque[Future[list[Sample]]] = deque()
            for samples in frames:
                waiting.append(pool.submit(look, samples))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)


def _frames(clip: Clip, judges: JudgeSet, protocol: Protocol) -> Iterator[list[Sample]]:
    """The judged frames of a clip, each for all systems; one reading of the truth serves all."""
    source = None if clip.source_u8 is None else Picture(clip.source_u8, judges)
    streams = {name: opened() for name, opened in clip.results.items()}
    truth = clip.reference() if clip.reference is not None else None
    index = -1
    while True:
        index += 1
        taken = index % protocol.every == 0 and not (index == 0 and protocol.skip_first)
        pictures = {name: next(stream, None) for name, stream in streams.items()}
        reference_u8 = None if truth is None else next(truth, None)
        if _ended(clip, protocol, pictures, reference_u8, truth is not None, index):
            return
        if not taken:
            continue
        reference = None if reference_u8 is None else _picture(reference_u8, judges)
        samples = []
        for system, image in pictures.items():
            if image is not None:
                prediction = _picture(_sized(image, reference, clip, protocol), judges)
                sample = Sample(
                    clip.name, index, prediction, reference, source, cost=clip.costs.get(system), angle=clip.angle,
                    system=system, sound=clip.sounds.get(system),
                )  # fmt: skip
                samples.append(sample)
        yield samples


def _ended(
    clip: Clip, protocol: Protocol, pictures: dict[str, np.ndarray | None], reference: np.ndarray | None,
    has_truth: bool, index: int,
) -> bool:  # fmt: skip
    """Whether the clip is over; raises FourdError where only some of the videos are and the protocol refuses that."""
    ends = {name: image is None for name, image in pictures.items()}
    if has_truth:
        ends["the truth"] = reference is None
    if not any(ends.values()):
        return False
    if not all(ends.values()) and protocol.lengths == "refuse":
        short = ", ".join(name for name, over in ends.items() if over)
        longer = ", ".join(name for name, over in ends.items() if not over)
        raise FourdError(
            f"{clip.name}: {short} ends after {index} frames and {longer} goes on; give videos of one length, or "
            "--lengths trim to judge what both have"
        )
    return True


def _picture(image_u8: np.ndarray, judges: JudgeSet) -> Picture:
    if image_u8.shape[-1] == 4:
        alpha = image_u8[..., 3].astype(np.float32) / 255
        colour = image_u8[..., :3] * alpha[..., None] + 255 * (1 - alpha[..., None])
        return Picture(np.round(colour).astype(np.uint8), judges, alpha)
    return Picture(np.ascontiguousarray(image_u8), judges)


def _sized(image_u8: np.ndarray, reference: Picture | None, clip: Clip, protocol: Protocol) -> np.ndarray:
    """The result in the truth's size, or an error where the protocol wants equal sizes."""
    if protocol.sizes == "keep" or reference is None or image_u8.shape[:2] == reference.image_u8.shape[:2]:
        return image_u8
    height, width = reference.image_u8.shape[:2]
    if protocol.sizes == "refuse":
        raise FourdError(
            f"{clip.name}: the result is {image_u8.shape[1]} x {image_u8.shape[0]} pixels and the truth {width} x "
            f"{height}; give one size, or --sizes resize"
        )
    return resize(image_u8, width, height)


def _keep_worst(worst: dict[tuple[str, str], _Worst], metric: Metric, sample: Sample) -> None:
    if metric.info.name not in SHOWN or not isinstance(metric, PairMetric):
        return
    value = metric.value_of(sample)
    if np.isfinite(value):
        sign = 1.0 if metric.info.direction == "lower" else -1.0
        worst.setdefault((sample.system, metric.info.name), _Worst(sign)).offer(value, sample)


def _thumbnail(sample: Sample) -> bytes:
    """Source, truth and result side by side as PNG, `THUMB` pixels high."""
    shown = [picture for picture in (sample.source, sample.reference, sample.prediction) if picture is not None]
    small = [resize(p.image_u8, max(2, round(p.image_u8.shape[1] * THUMB / p.image_u8.shape[0])), THUMB) for p in shown]
    return encode_png(np.concatenate(small, axis=1))


def _report(
    tables: dict[str, list[Metric]], worst: dict[tuple[str, str], _Worst], sequences: list[dict[str, Any]],
    angles: dict[Key, float | None], judges: JudgeSet, protocol: Protocol, provenance: Provenance,
    left_out: dict[str, str],
) -> Report:  # fmt: skip
    systems = list(tables)
    names = [entry["name"] for entry in sequences]
    metrics = next(iter(tables.values()))
    rows: dict[tuple[int, int, int], dict[int, float]] = {}
    states: dict[str, np.ndarray] = {}
    for system, table in tables.items():
        for column, metric in enumerate(table):
            for (name, frame), value in metric.frame_values().items():
                rows.setdefault((systems.index(system), names.index(name), frame), {})[column] = value
            states |= {f"{system}.{metric.info.name}.{key}": value for key, value in metric.state().items()}
    keys = sorted(rows)
    values = np.full((len(keys), len(metrics)), np.nan)
    for row, key in enumerate(keys):
        for column, value in rows[key].items():
            values[row, column] = value
    measured = np.isfinite(values)
    columns = np.asarray(keys, np.int64).reshape(-1, 3)
    turns = [-1.0 if (a := angles[names[sequence], frame]) is None else a for _, sequence, frame in keys]
    kept = sorted(worst.items(), key=lambda item: (systems.index(item[0][0]), item[0][1]))
    pictures = [(system, name, *entry[1:]) for (system, name), w in kept for entry in sorted(w.heap, reverse=True)]
    manifest = {
        "protocol": dataclasses.asdict(protocol),
        "judges": dict(sorted(judges.words.items())),
        "metrics": [dataclasses.asdict(metric.info) for metric in metrics],
        "left_out": left_out,
        "systems": systems,
        "sequences": sequences,
        "captions": [{"system": s, "metric": m, "sequence": q, "frame": f} for s, m, q, f, _ in pictures],
    }
    return Report(
        provenance=provenance, manifest_json=json.dumps(manifest, ensure_ascii=False),
        row_system=columns[:, 0].astype(np.int32), row_sequence=columns[:, 1].astype(np.int32),
        row_frame=columns[:, 2].copy(), row_angle=np.array(turns, np.float64),
        values=np.where(measured, values, 0.0), measured=measured.astype(np.uint8),
        picture_blobs=[picture[-1] for picture in pictures], states=states,
    )  # fmt: skip
