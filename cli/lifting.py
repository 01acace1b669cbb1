"""What `fourd lift` does between its input and its output: read, track, fit, lift."""

from __future__ import annotations

import dataclasses
import json
import logging
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from fourdface.cli.networks import NetworkRequest, open_engine
from fourdface.cli.sources import is_picture, provenance_of
from fourdface.cli.stream import input_file, source_of
from fourdface.errors import FourdError

if TYPE_CHECKING:
    import numpy as np

    from fourdface.artifacts import Avatar, Tracked

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LiftRequest:
    """The options of `fourd lift`, see there."""

    photo: str
    method: str = "splat"
    face: str | int = "largest"
    size: int = 1024
    focal: float | None = None
    mask: str | None = None
    perception: str = "auto"
    network: NetworkRequest = dataclasses.field(default_factory=NetworkRequest)


def lift_file(request: LiftRequest) -> Avatar:
    """Photo, clip (its first frame) or tracked artifact -> avatar."""
    from fourdface.artifacts import Tracked
    from fourdface.blocks.head_model import HeadModel
    from fourdface.stages.fit_flame import FitFlameOptions, fit_flame
    from fourdface.stages.lift import lift

    model = HeadModel.load("open")
    opened = None if request.method == "splat" else open_engine(request.network, request.method)
    with input_file(request.photo, "a photo or a tracked artifact", "give a photo: fourd lift in.jpg") as path:
        if path.is_file() and is_artifact(path):
            tracked = Tracked.read(path, name="standard input" if request.photo == "-" else request.photo)
        else:
            tracked = _track_photo(path, request)
    if not tracked.has_head:
        tracked = fit_flame(tracked, model, tracked.provenance, FitFlameOptions(focal=request.focal))
    provenance = dataclasses.replace(
        tracked.provenance,
        method=request.method,
        synthetic_media=True,
        config_json=json.dumps(dataclasses.asdict(request)),
    )
    if opened is not None:
        from fourdface.cli.portraits import lift_tracked

        return lift_tracked(tracked, opened, provenance)
    avatar, psnr = lift(tracked, model, provenance)
    log.info(
        "lifted %d Gaussians; the photo's own view is reproduced at %.1f dB", len(avatar.tensors["triangle"]), psnr
    )
    return avatar


def is_artifact(path: Path) -> bool:
    """Whether a file's first bytes are an artifact's (the name does not count)."""
    with open(path, "rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _track_photo(path: Path, request: LiftRequest) -> Tracked:
    from fourdface.perception import load_perception
    from fourdface.stages.preprocess import PreprocessOptions, Source, preprocess

    name = "standard input" if request.photo == "-" else Path(request.photo).name
    image_u8 = _read_photo(path, name, request.size)
    height, width = image_u8.shape[:2]
    source = Source([(image_u8, 0.0)], width, height, Fraction(1), name, source_of(path).sha256)
    perception = load_perception(request.perception)
    options = PreprocessOptions(face=request.face, mattes=request.method == "splat", keep_frames=True)
    tracked = preprocess(source, perception, provenance_of(source, "preprocess"), options)
    if request.mask is not None:
        tracked = dataclasses.replace(tracked, matte_blobs=[_read_mask(request.mask, width, height)])
    if tracked.status[0] == 2:
        box = [round(float(v)) for v in tracked.boxes[0]]
        log.warning("%s shows several faces; the one at x %d..%d, y %d..%d is lifted (--face picks another)", name,
                    box[0], box[2], box[1], box[3])  # fmt: skip
    return tracked


def _read_photo(path: Path, name: str, size: int) -> np.ndarray:
    """The photo (or a clip's first frame) as uint8 [H,W,3], its longest side at most `size`."""
    from fourdface.media.image import read_image
    from fourdface.media.resize import resize_longest
    from fourdface.media.sniff import describe_source

    if path.is_dir():
        raise FourdError(f"{name} is a folder; give one photo, or loop over the files in it")
    if not is_picture(path) and "video" in describe_source(path).lower():
        from fourdface.media.video import open_video

        image_u8 = next(iter(open_video(path))).image_u8
    else:
        image_u8 = read_image(path)
    return resize_longest(image_u8, size)


def _read_mask(path: str, width: int, height: int) -> bytes:
    import numpy as np
    from PIL import Image

    from fourdface.media.image import encode_png, read_image

    grey = read_image(Path(path))[..., 0]
    resized = Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR)
    return encode_png(np.asarray(resized))
