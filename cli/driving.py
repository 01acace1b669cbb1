"""What `fourd reenact` does between its input and its output: open, track while reading, move, write."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from fourdface.cli.networks import NetworkRequest, refuse_network
from fourdface.cli.sources import open_source, provenance_of
from fourdface.cli.stream import input_file, progress, read_artifact, source_of
from fourdface.cli.writing import FrameInfo, FrameTarget, Item, write_frames
from fourdface.errors import FourdError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from fourdface.artifacts import Avatar, Motion
    from fourdface.media.audio import AudioTrack
    from fourdface.methods.splat.avatar import SplatAvatar
    from fourdface.stages.preprocess import Source
    from fourdface.stages.reenact import Driver, DriverOptions
    from fourdface.stages.render import Canvas

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ReenactRequest:
    """The options of `fourd reenact`, see there."""

    driver: str
    avatar: str = "-"
    pose: str = "absolute"
    expression: str = "absolute"
    expression_scale: float = 1.0
    gaze: str = "on"
    orbit: float = 0.0
    side_by_side: bool = False
    missing: str = "hold"
    face: str | int = "largest"
    background: str = "keep"
    size: int | None = None
    smoothing: float = 0.6
    audio: str = "on"
    perception: str = "auto"
    paste_back: bool = False
    network: NetworkRequest = dataclasses.field(default_factory=NetworkRequest)


@dataclasses.dataclass
class OpenedDriver:
    """A driver, ready to be read."""

    driver: Driver
    source: Source
    audio: AudioTrack | None
    total: int | None


def reenact_file(request: ReenactRequest, target: FrameTarget) -> None:
    """Run the whole command; raises FourdError or UsageError in one sentence."""
    from fourdface.artifacts import Avatar
    from fourdface.methods.splat.restore import restore_avatar
    from fourdface.stages.pipeline import prefetched
    from fourdface.stages.render import make_canvas

    if request.side_by_side and request.background == "transparent":
        raise UsageError("--side-by-side shows the driver opaque; give another --background, or leave one of them out")
    avatar = read_artifact(Avatar, request.avatar, option="--avatar")
    if avatar.representation == "portrait4d":
        from fourdface.cli.portraits import reenact_portrait

        reenact_portrait(request, avatar, target)
        return
    refuse_network(request.network, paste_back=request.paste_back)
    splat = restore_avatar(avatar)
    canvas = make_canvas(splat, *background_choice(request.background), request.size)
    with open_driver(request) as opened:
        opened.driver.frames = prefetched(lambda frames=opened.driver.frames: frames)
        provenance = provenance_of(
            opened.source, "splat", config=json.dumps(dataclasses.asdict(request)), synthetic=True,
            earlier=(avatar.provenance,),
        )  # fmt: skip
        width = canvas.width
        if request.side_by_side:
            width += width_beside(opened.source.width, opened.source.height, canvas.height)
        info = FrameInfo(
            width, canvas.height, opened.source.rate, provenance, opened.audio,
            variable_rate=opened.source.variable_rate or request.missing == "skip",
        )  # fmt: skip
        items = _items(request, avatar, splat, opened, canvas)
        shown = progress(items, total=opened.total, label="reenact")
        count = write_frames(target, shown, info)
    if count == 0:
        raise FourdError(f"{request.driver}: no frame could be made of it; use a clip that shows a face")


def background_choice(argument: str, driver: bool = False) -> tuple[str, np.ndarray | None]:
    """--background as (rule, picture): keep, white, transparent, driver, or image with uint8 [H,W,3].

    UsageError for `driver` where there is none that could be shown.
    """
    if argument == "driver" and not driver:
        raise UsageError(
            "--background driver is for `fourd reenact` with avatars of Portrait4D; use keep, white, transparent or a "
            "picture (./driver for a file of that name)"
        )
    if argument in ("keep", "white", "transparent", "driver"):
        return argument, None
    from fourdface.media.image import read_image

    return "image", read_image(Path(argument))


@contextlib.contextmanager
def open_driver(request: ReenactRequest, keep_images: bool = False) -> Iterator[OpenedDriver]:
    """The driver of a request, tracked while it is read; `keep_images` hands its pictures on."""
    from fourdface.stages.preprocess import Source
    from fourdface.stages.reenact import DriverOptions, driver_from_motion

    options = DriverOptions(face=request.face, smoothing=request.smoothing, missing=request.missing)
    with input_file(request.driver, "a driver (video, folder of pictures or motion artifact)") as path:
        if path.is_file() and _is_artifact(path):
            from fourdface.artifacts import Motion

            for option, asked in (
                ("--side-by-side", request.side_by_side),
                ("--background driver", request.background == "driver"),
            ):
                if asked:
                    raise UsageError(f"{option} needs pictures of the driver, and a motion has none; give the clip")
            name = "standard input" if request.driver == "-" else path.name
            motion = Motion.read(path, name=name)
            source = Source([], motion.width, motion.height, motion.rate, name, source_of(path).sha256)
            yield OpenedDriver(
                driver_from_motion(motion, options), source, _motion_audio(motion, request), len(motion.times)
            )
            return
        with open_source(str(path)) as (source, audio):
            if request.driver == "-":
                source = dataclasses.replace(source, name="standard input")
            driver = _track(source, request, options, keep_images or request.side_by_side)
            yield OpenedDriver(driver, source, audio if request.audio == "on" else None, None)


def _track(source: Source, request: ReenactRequest, options: DriverOptions, keep_images: bool) -> Driver:
    from fourdface.blocks.head_model import HeadModel
    from fourdface.perception import load_perception
    from fourdface.stages.reenact import driver_from_video

    return driver_from_video(
        source.frames, (source.width, source.height), load_perception(request.perception), HeadModel.load("open"),
        options, keep_images=keep_images,
    )  # fmt: skip


def _motion_audio(motion: Motion, request: ReenactRequest) -> AudioTrack | None:
    from fourdface.media.audio import AudioTrack

    if motion.audio is None or request.audio == "off":
        return None
    return AudioTrack.from_bytes(motion.audio)


def _is_artifact(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _items(
    request: ReenactRequest, avatar: Avatar, splat: SplatAvatar, opened: OpenedDriver, canvas: Canvas
) -> Iterator[Item]:
    import numpy as np

    from fourdface.blocks.camera import turned_about
    from fourdface.blocks.retarget import RetargetOptions
    from fourdface.stages.reenact import animate
    from fourdface.stages.render import as_camera, as_pose, head_centre, render_one, source_camera

    options = RetargetOptions(request.pose, request.expression, request.expression_scale, request.gaze == "on")
    base = source_camera(splat, canvas)
    centre = head_centre(splat)
    rate = opened.source.rate
    for k, (state, frame) in enumerate(animate(avatar, splat, opened.driver, options)):
        camera = base
        if request.orbit:
            angle = np.radians(request.orbit) * np.sin(2 * np.pi * float(k / rate) / 4.0)  # one sweep in four seconds
            camera = as_camera(turned_about(as_pose(base), centre, float(angle)))
        picture = render_one(splat, state, camera, canvas.background_u8)
        if request.side_by_side and frame.image_u8 is not None:
            picture = beside(frame.image_u8, picture)
        yield picture, frame.time, camera.world_to_camera.numpy(), camera.intrinsics.numpy()


def beside(driver_u8: np.ndarray, picture_u8: np.ndarray) -> np.ndarray:
    """The driver's picture, scaled to the height of the result, to the left of it: uint8 [H, W, 3]."""
    import numpy as np

    from fourdface.media.resize import resize

    (height, width), target = driver_u8.shape[:2], picture_u8.shape[0]
    return np.concatenate([resize(driver_u8, width_beside(width, height, target), target), picture_u8[..., :3]], 1)


def width_beside(width: int, height: int, target_height: int) -> int:
    """Width of the driver's picture when scaled to the height of the result."""
    return max(2, round(width * target_height / height))
