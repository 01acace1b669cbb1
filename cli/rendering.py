"""What `fourd render` does between its input and its output."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from fourdface.cli.driving import background_choice
from fourdface.cli.networks import NetworkRequest, refuse_network
from fourdface.cli.stream import command_line, progress, read_artifact
from fourdface.cli.writing import FrameInfo, FrameTarget, Item, write_frames
from fourdface.errors import UsageError

if TYPE_CHECKING:
    from fourdface.artifacts import Avatar
    from fourdface.media.audio import AudioTrack
    from fourdface.methods.splat.avatar import Camera, SplatAvatar
    from fourdface.methods.splat.rig import HeadState
    from fourdface.stages.render import Canvas


@dataclasses.dataclass(frozen=True)
class RenderRequest:
    """The options of `fourd render`, see there."""

    avatar: str = "-"
    orbit: float | None = None
    tilt: float = 0.0
    turntable: bool = False
    yaw: tuple[float, ...] = ()
    cameras: str | None = None
    motion: str | None = None
    frames: int = 75
    rate: int = 25
    neutral: bool = False
    background: str = "keep"
    size: int | None = None
    head_pose: str | None = None
    paste_back: bool = False
    mesh: str | None = None
    overwrite: bool = False
    network: NetworkRequest = dataclasses.field(default_factory=NetworkRequest)


def render_file(request: RenderRequest, target: FrameTarget | None) -> None:
    """Run the whole command; raises FourdError or UsageError in one sentence."""
    from fourdface.artifacts import Avatar
    from fourdface.methods.splat.restore import restore_avatar
    from fourdface.stages.render import make_canvas, render_one

    paths = [name for name in ("turntable", "yaw", "cameras") if getattr(request, name)]
    paths += ["orbit"] if request.orbit is not None else []
    if len(paths) > 1:
        raise UsageError(f"--{' and --'.join(paths)} each say where the camera goes; give one of them")
    avatar = read_artifact(Avatar, request.avatar)
    if avatar.representation == "portrait4d":
        from fourdface.cli.portraits import render_portrait

        render_portrait(request, avatar, target)
        return
    refuse_network(
        request.network, head_pose=request.head_pose, paste_back=request.paste_back, mesh=request.mesh is not None
    )
    if target is None:
        raise ValueError("frames need a target")
    splat = restore_avatar(avatar)
    canvas = make_canvas(splat, *background_choice(request.background), request.size)
    states, rate, audio, moving = _states(request, avatar, splat)
    cameras, count = _cameras(request, splat, canvas, moving)
    first = next(cameras)
    provenance = dataclasses.replace(
        avatar.provenance, command=command_line(), config_json=json.dumps(dataclasses.asdict(request)),
        synthetic_media=True,
    )  # fmt: skip

    def items() -> Iterator[Item]:
        for k, (state, camera) in enumerate(zip(states, itertools.chain([first], cameras), strict=False)):
            picture = render_one(splat, state, camera, canvas.background_u8)
            yield picture, float(Fraction(k) / rate), camera.world_to_camera.numpy(), camera.intrinsics.numpy()

    info = FrameInfo(first.width, first.height, rate, provenance, audio)
    write_frames(target, progress(items(), total=count, label="render"), info)


def _states(
    request: RenderRequest, avatar: Avatar, splat: SplatAvatar
) -> tuple[Iterator[HeadState], Fraction, AudioTrack | None, int | None]:
    """States, frame rate, sound and, for a motion, the number of frames."""
    import torch

    if request.motion is None:
        state = splat.rig.source
        if request.neutral:
            state = dataclasses.replace(state, expression=torch.zeros_like(state.expression), eyes=torch.zeros(6))
        return itertools.repeat(state), Fraction(request.rate), None, None
    from fourdface.artifacts import Motion
    from fourdface.blocks.retarget import RetargetOptions
    from fourdface.media.audio import AudioTrack
    from fourdface.stages.reenact import DriverOptions, animate, driver_from_motion

    motion = Motion.read(request.motion)
    driver = driver_from_motion(motion, DriverOptions())
    states = (state for state, _ in animate(avatar, splat, driver, RetargetOptions()))
    audio = AudioTrack.from_bytes(motion.audio) if motion.audio is not None else None
    return states, motion.rate, audio, len(motion.times)


def _cameras(
    request: RenderRequest, splat: SplatAvatar, canvas: Canvas, moving: int | None
) -> tuple[Iterator[Camera], int]:
    """The camera of each frame, and their number."""
    from fourdface.blocks.camera import cameras_from_json, turned_about
    from fourdface.stages.render import as_camera, as_pose, head_centre, orbit_path, source_camera, turntable_path

    base = source_camera(splat, canvas)
    count = moving or request.frames
    if request.cameras is not None:
        text = Path(request.cameras).read_text(encoding="utf-8", errors="replace")
        poses = cameras_from_json(text, request.cameras, canvas.width, canvas.height)
        if len({(pose.width, pose.height) for pose in poses}) > 1:
            raise UsageError(f"{request.cameras}: the cameras differ in size; give them one width and height")
        return (as_camera(pose) for pose in poses), len(poses)
    if request.yaw:
        import math

        centre = head_centre(splat)
        turned = [turned_about(as_pose(base), centre, math.radians(yaw)) for yaw in request.yaw]
        return (as_camera(pose) for pose in turned), len(turned)
    if request.turntable:
        return turntable_path(splat, canvas, count), count
    if moving is not None and request.orbit is None:
        return itertools.repeat(base), count
    return orbit_path(splat, canvas, count, 30.0 if request.orbit is None else request.orbit, request.tilt), count
