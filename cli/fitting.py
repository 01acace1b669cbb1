"""What `fourd fit-flame` does between its input and its output."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from fourdface.cli.sources import open_source
from fourdface.cli.stream import command_line, progress_bar, read_artifact
from fourdface.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from fourdface.artifacts import Motion, Tracked


@dataclasses.dataclass(frozen=True)
class FitRequest:
    """The options of `fourd fit-flame`, see there."""

    tracked: str = "-"
    motion: bool = False
    head: str = "open"
    focal: float | None = None
    smoothing: float = 0.6
    embedding: str | None = None
    motion_weights: str | None = None
    device: str = "auto"
    sound: str | None = None


def fit_file(request: FitRequest) -> Tracked | Motion:
    """Tracked artifact -> the same with the head fitted, or its motion."""
    from fourdface.artifacts import Tracked
    from fourdface.blocks.head_model import HeadModel
    from fourdface.stages.fit_flame import FitFlameOptions, fit_flame, to_motion

    for name in ("embedding", "sound"):
        if getattr(request, name) is not None and not request.motion:
            raise UsageError(f"--{name} is held by motions; give --motion too")
    source = read_artifact(Tracked, request.tracked)
    provenance = dataclasses.replace(source.provenance, command=command_line())
    options = FitFlameOptions(focal=request.focal, smoothing=request.smoothing)
    fitted = fit_flame(source, HeadModel.load(request.head), provenance, options)
    if not request.motion:
        return fitted
    motion = to_motion(fitted, provenance, _sound(request.sound))
    return motion if request.embedding is None else _embedded(motion, source, request)


def _sound(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open_source(path) as (_, track):
        if track is None:
            raise UsageError(f"--sound: {path} holds no sound; leave it out")
        return track.to_bytes()


def _embedded(motion: Motion, tracked: Tracked, request: FitRequest) -> Motion:
    """The motion with the embedding that Portrait4D's encoder reads from the pictures."""
    from fourdface.artifacts import Weights
    from fourdface.cli.networks import device_of
    from fourdface.methods.portrait4d.engine import read_motion
    from fourdface.methods.portrait4d.motion_encoder import EMBEDDING
    from fourdface.methods.portrait4d.weights import MOTION_ASSET, load_motion_encoder
    from fourdface.stages.motion_embedding import embed_motion

    device = device_of(request.device)
    encoder, origin = load_motion_encoder(request.motion_weights or MOTION_ASSET)
    encoder.to(device)
    with progress_bar("encode", total=len(tracked.times)) as bar:

        def encode(crop_u8: np.ndarray, matrix: np.ndarray) -> np.ndarray:
            bar.update()
            return read_motion(encoder, crop_u8, matrix, device)[0].cpu().numpy()

        embedded = embed_motion(motion, tracked, EMBEDDING, encode, smooth=request.smoothing > 0)
    used = Weights(origin.asset, origin.sha256, origin.licence, origin.commercial_use)
    weights = (*motion.provenance.weights, used)
    return dataclasses.replace(embedded, provenance=dataclasses.replace(motion.provenance, weights=weights))
