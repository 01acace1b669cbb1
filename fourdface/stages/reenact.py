"""reenact: avatar + driver -> frames, one at a time, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from ..artifacts import Avatar, Motion
from ..blocks.head_fitting import CAMERA_DISTANCE
from ..blocks.head_model import HeadModel
from ..blocks.retarget import Pose, Retargeter, RetargetOptions
from ..errors import FourdError
from ..methods.splat.avatar import SplatAvatar
from ..methods.splat.rig import HeadState
from ..perception.base import Face, Perception
from ..perception.glimpse import Glimpse, glimpse_of
from ..perception.torso import TorsoMotion, TorsoTracker, torso_in_world
from ..perception.tracking import CALIBRATION_FRAMES, FaceTracker, FrameStatus, HeadTracker, smoothed
from .fit_flame import pack

T = TypeVar("T")
LONGEST_WAIT = 3 * CALIBRATION_FRAMES
"""Frames that are held back at most while the driver's identity is estimated."""


@dataclass(frozen=True)
class DriverOptions:
    """face: "largest" or an index from the left; smoothing, lag: see `smoothed`; missing: hold|skip|fail."""

    face: str | int = "largest"
    smoothing: float = 0.6
    lag: int = 2
    missing: str = "hold"


@dataclass(frozen=True)
class DriverFrame:
    """One frame of a driver: its pose (None while no face was seen yet), time, status, picture where one is kept.

    landmarks [478, 2] pixels as they were seen (None where the face was not, or the driver is a motion); embeddings:
    motion embeddings of single methods, by name, where the driver is a motion that holds them.
    """

    pose: Pose | None
    time: float
    status: FrameStatus
    image_u8: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    embeddings: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class _Seen:
    """What is kept of a frame until it is fitted: all of it but the picture."""

    frame: DriverFrame
    face: Face | None = None
    glimpse: Glimpse | None = None
    torso: TorsoMotion | None = None


@dataclass
class Driver:
    """Poses of a driver in order, with the reference frame and neutral expression once they are known."""

    frames: Iterator[DriverFrame]
    reference: Pose | None = None
    neutral: np.ndarray = field(default_factory=lambda: np.zeros(52, np.float32))


def driver_from_video(
    frames: Iterable[tuple[np.ndarray, float]], size: tuple[int, int], perception: Perception, model: HeadModel,
    options: DriverOptions, keep_images: bool = False,
) -> Driver:  # fmt: skip
    """Track a clip while it is read. frames: (image_u8 [H,W,3], time in seconds); size: (width, height) pixels.

    Identity and neutral expression come from the first `CALIBRATION_FRAMES` good frames, which are held back.
    """
    tracker = FaceTracker(perception, options.face)
    head = HeadTracker(model, size)
    seen = _track(frames, tracker, options, keep_images)
    waiting: list[_Seen] = []
    good: list[Face] = []
    for item in seen:
        waiting.append(item)
        if item.face is not None:
            good.append(item.face)
        if len(good) >= CALIBRATION_FRAMES or (good and len(waiting) >= LONGEST_WAIT):
            break
        if not good and len(waiting) > LONGEST_WAIT:
            break
    if not good and len(waiting) <= LONGEST_WAIT:
        raise FourdError("the driver shows no face in any frame; use a clip with one, or choose another with --face")
    driver = Driver(iter(()))
    if good:
        _calibrate(driver, head, good)
    driver.frames = _fitted(_released(waiting, seen), head, driver, options)
    return driver


def _released(first: list[T], rest: Iterator[T]) -> Iterator[T]:
    """`first`, then `rest`, letting go of each item: itertools.chain would hold all of `first` to the end."""
    first.reverse()
    while first:
        yield first.pop()
    yield from rest


def _calibrate(driver: Driver, head: HeadTracker, good: list[Face]) -> None:
    head.calibrate(good)
    track = head.step(good[0])
    driver.reference = Pose(
        track.expression[0].numpy(), track.rotation[0].numpy(), track.translation[0].numpy(), track.eyes[0].numpy(),
        np.zeros(3, np.float32),
    )  # fmt: skip
    if head.calibration is not None:
        driver.neutral = head.calibration.neutral


def _track(
    frames: Iterable[tuple[np.ndarray, float]], tracker: FaceTracker, options: DriverOptions, keep_images: bool
) -> Iterator[_Seen]:
    torso: TorsoTracker | None = None
    across = 0.0
    for index, (image_u8, time) in enumerate(frames):
        face, status = tracker.step(image_u8)
        if face is None and options.missing == "fail":
            raise FourdError(f"frame {index} ({time:.2f} s) of the driver shows no face; use --missing hold or skip")
        landmarks = None if face is None else face.landmarks
        frame = DriverFrame(None, time, status, image_u8 if keep_images else None, landmarks)
        if face is None:
            yield _Seen(frame)
            continue
        across = across or float(np.ptp(face.landmarks, axis=0).max())
        glimpse = glimpse_of(image_u8, across)
        if torso is None:
            torso = TorsoTracker(glimpse, tracker.perception.matte(image_u8, face.landmarks), face.landmarks)
        yield _Seen(frame, face, glimpse, torso.step(glimpse) if torso.usable else None)


def _fitted(items: Iterable[_Seen], head: HeadTracker, driver: Driver, options: DriverOptions) -> Iterator[DriverFrame]:
    """Fit, smooth and, where the face is missing, hold the last pose."""
    notes: list[DriverFrame] = []

    def rows() -> Iterator[np.ndarray | None]:
        for item in items:
            notes.append(item.frame)
            if item.face is not None and head.calibration is None:
                _calibrate(driver, head, [item.face])
            yield None if item.face is None else _row(item, head, driver)

    values = smoothed(rows(), options.smoothing, options.lag) if options.smoothing > 0 else rows()
    last: Pose | None = None
    for row in values:
        frame = notes.pop(0)
        if row is None and options.missing == "skip":
            continue
        if row is not None:
            torso = row[65:71] if len(row) > 65 else None
            last = Pose(row[:52], row[52:55], row[55:58], row[58:64], np.zeros(3, np.float32), torso)
        yield replace(frame, pose=last)


def _row(item: _Seen, head: HeadTracker, driver: Driver) -> np.ndarray:
    """One frame's parameters as a vector: `pack`, and the torso's motion [6] where there is one to see."""
    if item.face is None or head.calibration is None or driver.reference is None:
        raise ValueError("a frame's parameters need a face and a calibration")
    row = pack(head.step(item.face, item.glimpse))
    if item.torso is None:
        return row
    neck = driver.reference.translation
    return np.concatenate([row, torso_in_world(item.torso, neck, head.calibration.focal, head.fitter.size)])


def driver_from_motion(motion: Motion, options: DriverOptions) -> Driver:
    """Poses of a motion artifact."""
    good = np.flatnonzero(motion.status != FrameStatus.MISSING)
    if not len(good):
        raise FourdError("the motion holds no frame with a face; fit it to a clip that shows one")

    def pose(k: int) -> Pose:
        return Pose(motion.expression[k], motion.rotation[k], motion.translation[k], motion.eyes[k], motion.jaw[k])

    def frames() -> Iterator[DriverFrame]:
        last = None
        for k, time in enumerate(motion.times):
            status = FrameStatus(int(motion.status[k]))
            if status is FrameStatus.MISSING and options.missing == "fail":
                raise FourdError(f"frame {k} ({time:.2f} s) of the motion has no face; use --missing hold or skip")
            if status is FrameStatus.MISSING and options.missing == "skip":
                continue
            last = last if status is FrameStatus.MISSING else pose(k)
            embeddings = {name: values[k] for name, values in motion.embeddings.items()}
            yield DriverFrame(last, float(time), status, embeddings=embeddings)

    return Driver(frames(), pose(int(good[0])), motion.neutral_expression)


def source_pose(avatar: Avatar) -> Pose:
    """The avatar's pose in its photo."""
    return Pose(avatar.expression, avatar.rotation, avatar.translation, avatar.eyes, avatar.jaw)


def to_state(pose: Pose) -> HeadState:
    """A pose as the rig takes it."""
    return HeadState.from_arrays(
        pose.expression, pose.rotation, pose.translation, pose.eyes, pose.jaw, pose.torso
    )  # fmt: skip


def animate(avatar: Avatar, splat: SplatAvatar, driver: Driver, options: RetargetOptions) -> Iterator[
    tuple[HeadState, DriverFrame]
]:  # fmt: skip
    """States of the avatar for every frame of the driver; until a face is seen the photo's own pose."""
    own = source_pose(avatar)
    retarget: Retargeter | None = None
    for frame in driver.frames:
        if frame.pose is None:
            yield splat.rig.source, frame
            continue
        if retarget is None:
            reference = driver.reference or frame.pose
            retarget = Retargeter(own, reference, driver.neutral, options, CAMERA_DISTANCE)
        yield to_state(retarget(frame.pose)), frame
