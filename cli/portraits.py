"""What `lift`, `reenact` and `render` do for avatars of Portrait4D."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fourdface.cli.networks import OpenedEngine, engine_of
from fourdface.cli.sources import embedded_weights, provenance_of
from fourdface.cli.stream import command_line, progress
from fourdface.cli.writing import FrameInfo, FrameTarget, Item, write_frames
from fourdface.errors import FourdError, UsageError

if TYPE_CHECKING:
    from fourdface.artifacts import Avatar, Provenance, Tracked
    from fourdface.blocks.camera import CameraPose
    from fourdface.cli.driving import OpenedDriver, ReenactRequest
    from fourdface.cli.rendering import RenderRequest
    from fourdface.stages.portrait import PortraitPlayer, Presentation

log = logging.getLogger(__name__)


def lift_tracked(tracked: Tracked, opened: OpenedEngine, provenance: Provenance) -> Avatar:
    """A tracked and fitted photo -> avatar of representation portrait4d."""
    from fourdface.stages.portrait import lift_portrait

    provenance = dataclasses.replace(
        provenance, weights=(*provenance.weights, *opened.weights), seed=opened.engine.options.seed or 0
    )
    avatar = lift_portrait(tracked, opened.engine, provenance)
    size = sum(tensor.nbytes for tensor in avatar.tensors.values()) / 1e6
    log.info("lifted to %.0f MB of features in %s", size, opened.engine.options.precision)
    return avatar


def reenact_portrait(request: ReenactRequest, avatar: Avatar, target: FrameTarget) -> None:
    """The whole of `fourd reenact` for a Portrait4D avatar."""
    from fourdface.cli.driving import open_driver, width_beside
    from fourdface.stages.pipeline import prefetched
    from fourdface.stages.portrait import PortraitPlayer

    if request.expression != "absolute" or request.expression_scale != 1 or request.gaze != "on":
        raise UsageError(
            "Portrait4D is driven by a motion embedding, which has no separate expression and gaze; leave "
            "--expression, --expression-scale and --gaze out"
        )
    opened = engine_of(avatar, request.network)
    player = PortraitPlayer(avatar, opened.engine)
    shown = _presentation(avatar, player, request.background, request.size, request.paste_back, driver=True)
    with open_driver(request, keep_images=True) as driver:
        driver.driver.frames = prefetched(lambda frames=driver.driver.frames: frames, spare_core=False)
        provenance = provenance_of(
            driver.source, avatar.provenance.method, config=json.dumps(dataclasses.asdict(request)), synthetic=True,
            seed=request.network.seed or 0, earlier=(avatar.provenance,),
        )  # fmt: skip
        provenance = dataclasses.replace(provenance, weights=(*embedded_weights(), *opened.weights))
        width, height = shown.shape
        if request.side_by_side:
            width += width_beside(driver.source.width, driver.source.height, height)
        info = FrameInfo(
            width, height, driver.source.rate, provenance, driver.audio,
            variable_rate=driver.source.variable_rate or request.missing == "skip",
        )  # fmt: skip
        items = _reenacted(request, avatar, player, driver, shown)
        count = write_frames(target, progress(items, total=driver.total, label="reenact"), info)
    if count == 0:
        raise FourdError(f"{request.driver}: no frame could be made of it; use a clip that shows a face")


def _reenacted(
    request: ReenactRequest, avatar: Avatar, player: PortraitPlayer, driver: OpenedDriver, shown: Presentation
) -> Iterator[Item]:
    from fourdface.blocks.camera import turned_about
    from fourdface.blocks.retarget import RetargetOptions
    from fourdface.cli.driving import beside
    from fourdface.perception import load_perception
    from fourdface.stages.driver_background import DriverBackground
    from fourdface.stages.portrait import animate_portrait

    rate = driver.source.rate
    # A perception of its own: the driver's is at work in another thread.
    behind = None
    if shown.background == "driver":
        behind = DriverBackground(load_perception(request.perception).matte, shown.size)
    cameras = None
    if request.orbit:
        angles = (
            math.radians(request.orbit) * math.sin(2 * math.pi * float(k / rate) / 4.0) for k in itertools.count()
        )
        cameras = (turned_about(player.camera, player.head_centre, angle) for angle in angles)
    frames = animate_portrait(
        avatar, player, driver.driver, RetargetOptions(request.pose), smooth=request.smoothing > 0, cameras=cameras
    )
    for frame, camera, seen in frames:
        picture = shown.show(frame, None if behind is None else behind.step(seen))
        if request.side_by_side and seen.image_u8 is not None:
            picture = beside(seen.image_u8, picture)
        yield picture, seen.time, camera.world_to_camera, camera.intrinsics


def render_portrait(request: RenderRequest, avatar: Avatar, target: FrameTarget | None) -> None:
    """The whole of `fourd render` for a Portrait4D avatar; without a target, its mesh."""
    from fourdface.stages.portrait import PortraitPlayer

    if request.motion is not None:
        raise UsageError(
            "--motion: a Portrait4D avatar is moved by `fourd reenact CLIP`, or by a motion with its embedding: "
            "`fourd reenact MOTION --orbit 20`"
        )
    if request.neutral:
        raise UsageError("--neutral: a Portrait4D avatar has no rest expression of its own; leave it out")
    opened = engine_of(avatar, request.network)
    player = PortraitPlayer(avatar, opened.engine)
    if target is None:
        _write_mesh(Path(str(request.mesh)), player, overwrite=request.overwrite)
        return
    shown = _presentation(avatar, player, request.background, request.size, request.paste_back)
    rotation = player.rotation if request.head_pose is None else parse_pose(request.head_pose)
    cameras, count = _cameras(request, player)
    rate = Fraction(request.rate)
    provenance = dataclasses.replace(
        avatar.provenance, command=command_line(), config_json=json.dumps(dataclasses.asdict(request)),
        synthetic_media=True, seed=request.network.seed or 0,
    )  # fmt: skip

    def items() -> Iterator[Item]:
        for k, camera in enumerate(cameras):
            frame = player.frame(player.portrait.motion, rotation, camera)
            yield shown.show(frame), float(Fraction(k) / rate), camera.world_to_camera, camera.intrinsics

    write_frames(target, progress(items(), total=count, label="render"), FrameInfo(*shown.shape, rate, provenance))


def _cameras(request: RenderRequest, player: PortraitPlayer) -> tuple[Iterator[CameraPose], int]:
    """The camera of each frame, and their number."""
    from fourdface.blocks.camera import cameras_from_json, orbit_angles, turned_about, turntable_angles

    if request.cameras is not None:
        text = Path(request.cameras).read_text(encoding="utf-8", errors="replace")
        poses = cameras_from_json(text, request.cameras, player.camera.width, player.camera.height)
        if any(pose.width != pose.height for pose in poses):
            raise UsageError(f"{request.cameras}: Portrait4D renders square pictures; give width and height alike")
        return iter(poses), len(poses)
    if request.yaw:
        angles = np.radians([[yaw, 0.0] for yaw in request.yaw])
    elif request.turntable:
        angles = turntable_angles(request.frames)
    else:
        angles = orbit_angles(request.frames, 30.0 if request.orbit is None else request.orbit, request.tilt)
    return (turned_about(player.camera, player.head_centre, float(a), float(b)) for a, b in angles), len(angles)


def _presentation(
    avatar: Avatar, player: PortraitPlayer, background: str, size: int | None, paste: bool, *, driver: bool = False
) -> Presentation:
    from fourdface.cli.driving import background_choice
    from fourdface.media.image import decode_png
    from fourdface.stages.portrait import Presentation

    rule, image = background_choice(background, driver)
    side = size or player.picture_size
    if not paste:
        return Presentation(side + side % 2, rule, image)
    if rule != "keep" or size is not None:
        raise UsageError("--paste-back shows the head in its own photo; leave --size and --background out")
    if avatar.source_blob is None:
        raise UsageError("--paste-back needs the photo, and this avatar holds none; lift the photo again")
    photo = np.ascontiguousarray(decode_png(avatar.source_blob)[..., :3])
    if (photo.shape[1], photo.shape[0]) != player.portrait.crop.source:
        raise FourdError("the avatar's photo has another size than its crop was cut from; lift the photo again")
    return Presentation(side, rule, image, photo, player.portrait.crop)


def parse_pose(text: str) -> np.ndarray:
    """Degrees "YAW,PITCH,ROLL" -> axis-angle [3]; + turns to the subject's left, down, and to its left shoulder."""
    from scipy.spatial.transform import Rotation

    try:
        angles = [float(part) for part in text.split(",")]
    except ValueError:
        angles = []
    if len(angles) != 3 or not all(abs(angle) <= 90 for angle in angles):
        raise UsageError(f"--head-pose is {text!r}, expected YAW,PITCH,ROLL in degrees up to 90, such as 20,0,0")
    return Rotation.from_euler("YXZ", angles, degrees=True).as_rotvec().astype(np.float32)


def _write_mesh(path: Path, player: PortraitPlayer, *, overwrite: bool) -> None:
    from fourdface.artifacts.atomic import replacing
    from fourdface.media.mesh import check_mesh_name, encode_mesh

    kind = check_mesh_name(path)
    with replacing(path, overwrite=overwrite) as temporary:
        Path(temporary).write_bytes(encode_mesh(player.mesh(), kind))
