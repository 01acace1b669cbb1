"""lift, reenact and render for Portrait4D's avatars: photo -> features, driver -> frames, cameras -> frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..artifacts import Avatar, Provenance, Tracked
from ..blocks.camera import CameraPose
from ..blocks.head_fitting import CAMERA_DISTANCE
from ..blocks.retarget import Retargeter, RetargetOptions
from ..errors import FourdError, UsageError
from ..media.image import decode_png
from ..media.mesh import Mesh
from ..media.resize import fill_frame, resize
from ..methods.portrait4d.alignment import PortraitCrop
from ..methods.portrait4d.avatar import PortraitAvatar, pack_source, restore_portrait
from ..methods.portrait4d.engine import Engine, Frame
from ..methods.portrait4d.motion_encoder import EMBEDDING
from ..methods.portrait4d.surface import extract_surface
from ..methods.portrait4d.tracking import CropTracker, crops_of
from ..methods.portrait4d.view import camera_of_label, label_of_camera, portrait_label
from ..priors.genhead.camera import WORLD_SCALE
from .lift import require_face
from .reenact import Driver, DriverFrame, source_pose


def lift_portrait(tracked: Tracked, engine: Engine, provenance: Provenance, frame: int = 0) -> Avatar:
    """One frame of a fitted `tracked` artifact that holds its picture -> avatar of representation portrait4d."""
    head = tracked.head()
    require_face(tracked, frame)
    if tracked.frame_blobs is None or not tracked.frame_blobs[frame]:
        raise FourdError("the tracked artifact holds no picture for this frame; run `fourd preprocess --keep-frames`")
    image_u8 = decode_png(tracked.frame_blobs[frame])[..., :3]
    crops = crops_of(tracked.landmarks[frame], (tracked.width, tracked.height), engine.size)
    crop_u8 = crops.portrait.apply(np.ascontiguousarray(image_u8))
    if engine.by_coefficients:
        motion = engine.coefficients(head.expression[frame], head.jaw[frame], head.eyes[frame])
    else:
        motion = engine.motion(crop_u8, crops.motion)
    portrait = PortraitAvatar(engine.encode(crop_u8, motion), motion, crops.portrait)
    tensors, axes, units = pack_source(portrait)
    rotation = head.rotation[frame]
    label = portrait_label(torch.from_numpy(rotation).float()[None], engine.face_anchor)
    camera = camera_of_label(label, engine.size)
    return Avatar(
        provenance=provenance, representation="portrait4d", head_model=head.head_model, width=engine.size,
        height=engine.size, shape=head.shape, expression=head.expression[frame], rotation=rotation,
        translation=head.translation[frame], neck=head.neck[frame], jaw=head.jaw[frame], eyes=head.eyes[frame],
        intrinsics=camera.intrinsics.astype(np.float32), world_to_camera=camera.world_to_camera.astype(np.float32),
        coefficients=tracked.coefficients[frame], source_blob=tracked.frame_blobs[frame], tensors=tensors,
        tensor_axes=axes, tensor_units=units,
    )  # fmt: skip


class PortraitPlayer:
    """An avatar opened for an engine: frames of given motions, head rotations and cameras."""

    def __init__(self, avatar: Avatar, engine: Engine) -> None:
        self.engine = engine
        self.portrait = restore_portrait(avatar, engine.network.config, engine.options.device)
        self.source = engine.adopt(self.portrait.source)
        self.rotation = np.asarray(avatar.rotation, np.float32)
        self.camera = CameraPose(
            avatar.world_to_camera.astype(np.float64), avatar.intrinsics.astype(np.float64), avatar.width, avatar.height
        )
        self._planes: tuple[Tensor, Tensor] | None = None

    def frame(self, motion: Tensor, rotation: np.ndarray, camera: CameraPose | None = None) -> Frame:
        """One frame; planes are kept while the motion stays the same tensor. rotation [3]: of the head, radians."""
        return self.frames([motion], [rotation], [camera or self.camera])[0]

    def frames(
        self, motions: Sequence[Tensor], rotations: Sequence[np.ndarray], cameras: Sequence[CameraPose]
    ) -> list[Frame]:
        """Several frames at once, see `frame`; planes of equal motions are made once."""
        labels = torch.cat([label_of_camera(camera) for camera in cameras])
        turned = torch.from_numpy(np.stack([np.asarray(rotation, np.float32) for rotation in rotations]))
        return self.engine.render_all(self._planes_of(motions), self.source.background, labels, turned)

    @property
    def head_centre(self) -> np.ndarray:
        """Point [3] in metres about which cameras turn: the middle of the straight face."""
        return np.array(self.engine.face_anchor) / WORLD_SCALE

    @property
    def picture_size(self) -> int:
        """Side of the pictures in pixels, before they are resized."""
        size = self.engine.options.render_size or 0
        config = self.engine.network.config
        return size if size > config.resolution // config.enlargement else self.engine.size

    def mesh(self) -> Mesh:
        """The surface of the head with the photo's expression, see `extract_surface`."""
        return Mesh(*extract_surface(self.engine.network, self.planes(self.portrait.motion)))

    def planes(self, motion: Tensor) -> Tensor:
        """Tri-planes of a motion [1, 548]; made once for the same tensor."""
        return self._planes_of([motion])

    def _planes_of(self, motions: Sequence[Tensor]) -> Tensor:
        known = [] if self._planes is None else [self._planes]
        distinct = {id(motion): motion for motion in motions}
        fresh = [motion for motion in distinct.values() if all(motion is not old for old, _ in known)]
        if fresh:
            known += zip(fresh, self.engine.planes(self.source, torch.cat(fresh)).split(1), strict=True)
        found = [next(planes for old, planes in known if old is motion) for motion in motions]
        self._planes = (motions[-1], found[-1])
        return found[0] if len(found) == 1 else torch.cat(found)


def animate_portrait(
    avatar: Avatar, player: PortraitPlayer, driver: Driver, options: RetargetOptions, *, smooth: bool = True,
    cameras: Iterator[CameraPose] | None = None,
) -> Iterator[tuple[Frame, CameraPose, DriverFrame]]:  # fmt: skip
    """Frames of the avatar, with their cameras, for every frame of the driver; until a face is seen the photo's own.

    smooth: steady crops, see `CropTracker`. cameras: one a frame, None for the photo's. As many frames are made at once
    as the engine's `batch` says.
    """
    crops = CropTracker(player.engine.size, smooth)
    motion, rotation = player.portrait.motion, player.rotation
    retarget: Retargeter | None = None
    waiting: list[tuple[Tensor, np.ndarray, CameraPose, DriverFrame]] = []
    for frame in driver.frames:
        if not player.engine.by_coefficients:
            motion = _motion(player.engine, frame, crops, motion)
        if frame.pose is not None:
            if retarget is None:
                reference = driver.reference or frame.pose
                retarget = Retargeter(source_pose(avatar), reference, driver.neutral, options, CAMERA_DISTANCE)
            pose = retarget(frame.pose)
            rotation = np.asarray(pose.rotation, np.float32)
            if player.engine.by_coefficients and player.engine.motion_scale:
                motion = player.engine.coefficients(pose.expression, pose.jaw, pose.eyes)
        waiting.append((motion, rotation, player.camera if cameras is None else next(cameras), frame))
        if len(waiting) >= player.engine.options.batch:
            yield from _shown(player, waiting)
            waiting = []
    if waiting:
        yield from _shown(player, waiting)


def _shown(
    player: PortraitPlayer, waiting: list[tuple[Tensor, np.ndarray, CameraPose, DriverFrame]]
) -> Iterator[tuple[Frame, CameraPose, DriverFrame]]:
    motions, rotations, cameras, frames = zip(*waiting, strict=True)
    return zip(player.frames(motions, rotations, cameras), cameras, frames, strict=True)


def _motion(engine: Engine, frame: DriverFrame, crops: CropTracker, last: Tensor) -> Tensor:
    """The driver's motion embedding [1, 548]; the last one where no face is seen."""
    if engine.motion_scale == 0:
        return last
    if frame.image_u8 is None:
        return last if frame.pose is None else _embedded(engine, frame)
    if frame.landmarks is None:
        crops.reset()
        return last
    height, width = frame.image_u8.shape[:2]
    found = crops.step(frame.landmarks, (width, height), frame.time)
    return engine.motion(found.portrait.apply(frame.image_u8), found.motion)


def _embedded(engine: Engine, frame: DriverFrame) -> Tensor:
    """The embedding that a motion artifact holds for this frame."""
    if EMBEDDING not in frame.embeddings:
        raise UsageError(
            f"the motion holds no {EMBEDDING} embedding, which this avatar is driven by; give the clip itself, or make "
            f"the motion with `fourd fit-flame --motion --embedding {EMBEDDING}`"
        )
    values = np.asarray(frame.embeddings[EMBEDDING], np.float32)
    wanted = engine.network.config.motion
    if values.shape != (wanted,) or not np.isfinite(values).all():
        raise UsageError(
            f"the motion's {EMBEDDING} embedding is {values.shape}; {wanted} finite numbers are wanted; make it anew"
        )
    return torch.from_numpy(values)[None].to(engine.options.device)


@dataclass(frozen=True)
class Presentation:
    """How frames are shown: `size` pixels (the crop), or pasted back into `photo_u8` where that is given.

    background: keep | white | transparent | driver | image (then `image_u8` stands behind the person).
    """

    size: int
    background: str = "keep"
    image_u8: np.ndarray | None = None
    photo_u8: np.ndarray | None = None
    crop: PortraitCrop | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height of the pictures."""
        if self.photo_u8 is not None:
            return self.photo_u8.shape[1], self.photo_u8.shape[0]
        return self.size, self.size

    def show(self, frame: Frame, behind_u8: np.ndarray | None = None) -> np.ndarray:
        """uint8 [H, W, 3], or [H, W, 4] with straight alpha for a transparent background.

        behind_u8: the driver's background of this frame, where that is wanted and known.
        """
        picture = self._before_background(frame, behind_u8)
        if self.photo_u8 is not None and self.crop is not None:
            return paste_back(self.photo_u8, picture, self.crop)
        return np.ascontiguousarray(resize(picture, self.size, self.size))

    def _before_background(self, frame: Frame, behind_u8: np.ndarray | None) -> np.ndarray:
        if self.background == "keep" or (self.background == "driver" and behind_u8 is None):
            return frame.picture_u8
        alpha = frame.alpha[..., None]
        if self.background == "transparent":
            return np.concatenate([frame.picture_u8, np.round(alpha * 255).astype(np.uint8)], -1)
        side = frame.picture_u8.shape[0]
        if self.background == "white":
            behind = np.full_like(frame.picture_u8, 255)
        elif behind_u8 is not None:
            behind = resize(behind_u8, side, side)
        elif self.image_u8 is not None:
            behind = fill_frame(self.image_u8, side, side)
        else:
            raise ValueError("background 'image' needs image_u8")
        return np.round(frame.picture_u8 * alpha + behind * (1 - alpha)).astype(np.uint8)


FEATHER = 0.08
"""Part of the crop's side over which a pasted picture fades into the photo."""


def paste_back(photo_u8: np.ndarray, picture_u8: np.ndarray, crop: PortraitCrop) -> np.ndarray:
    """Put a crop uint8 [S, S, 3] back to where it was cut from uint8 [H, W, 3]; its border fades into the photo."""
    height, width = photo_u8.shape[:2]
    matrix = crop.matrix()
    scale, shift = np.diag(matrix[:, :2]), matrix[:, 2]
    first = np.maximum(np.ceil(-shift / scale), 0).astype(int)
    last = np.minimum(np.floor((crop.size - shift) / scale), [width, height]).astype(int)
    if (last <= first).any():
        return photo_u8.copy()
    inside = np.concatenate([first * scale + shift, last * scale + shift]) * (picture_u8.shape[0] / crop.size)
    left, top, right, bottom = np.clip(inside, 0, picture_u8.shape[0]).tolist()
    box = (left, top, right, bottom)
    size = (int(last[0] - first[0]), int(last[1] - first[1]))
    colours = _resized(picture_u8, size, box)
    weight = _resized(_fade(picture_u8.shape[0]), size, box)[..., None].astype(np.float32) / 255
    result = photo_u8.copy()
    region = result[first[1] : last[1], first[0] : last[0]]
    region[:] = np.round(region * (1 - weight) + colours * weight).astype(np.uint8)
    return result


def _resized(image_u8: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image_u8).resize(size, Image.Resampling.LANCZOS, box=box))


def _fade(side: int) -> np.ndarray:
    """Weights uint8 [side, side]: 255 within, falling to 0 at the border on a smooth ramp."""
    distance = np.minimum(np.arange(side) + 0.5, side - 0.5 - np.arange(side)) / (FEATHER * side)
    ramp = np.clip(distance, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    return np.round(np.minimum(ramp[:, None], ramp) * 255).astype(np.uint8)
