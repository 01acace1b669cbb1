"""The multi-view protocols of `fourd eval`: calibrated subjects (novel-view) and views round a photo (static-360)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fourdface.cli.evaluating import Options, Session, _hashes, _picture, _result, frame_stream
from fourdface.cli.sources import expand_inputs
from fourdface.cli.stream import Output, write_artifact
from fourdface.errors import FourdError

if TYPE_CHECKING:
    from fourdface.artifacts import Avatar
    from fourdface.blocks.calibration import CalibratedViews
    from fourdface.stages.evaluate import Clip, FrameStream

SCALES = (0.8, 1.3)
"""Range of sizes of the avatar's world that are tried: one photo does not tell how large the person is."""
COARSE, FINE = 0.05, 0.01
"""Steps over the range, then around the best one: 1 % of size moves the silhouettes' overlap by up to 0.04."""


def run_views(subjects: tuple[str, ...], inputs: str, options: Options) -> None:
    """`fourd eval novel-view`."""
    from fourdface.blocks.calibration import read_views

    with Session("novel-view", options) as session:
        session.require_systems()
        clips = []
        for folder in session.mine([Path(subject) for subject in subjects], key=lambda path: path.name):
            views = read_views(folder / "transforms.json")
            sources = range(len(views.files)) if inputs == "all" else [views.most_frontal()]
            for source in sources:
                made = _clips(session, folder, views, source)
                clips += made if inputs == "all" else made[:source] + made[source + 1 :]  # others than the photo's own
        session.finish(clips)


def _clips(session: Session, folder: Path, views: CalibratedViews, source: int) -> list[Clip]:
    """One sequence a pair of input and output view, so that a report holds the score matrix."""
    from fourdface.stages.evaluate import Clip

    name = f"{folder.name}-{source:02d}"
    truths = [_truth(folder, views, k) for k in range(len(views.files))]
    rendered = {label: _pictures(_result(place, name)) for label, place in session.folders()}
    for method in session.options.get("method", ()):
        rendered[method] = _rendered(session, method, folder, views, source, truths)
    for label, pictures in rendered.items():
        if len(pictures) != len(truths):
            raise FourdError(
                f"{label} has {len(pictures)} views of {name} and the subject {len(truths)}; give one for every camera"
            )
    photo = folder / views.files[source]
    angles = views.angles_from(source)
    clips = []
    for k, truth in enumerate(truths):
        results: dict[str, FrameStream] = {
            label: (lambda picture=pictures[k]: iter([picture])) for label, pictures in rendered.items()
        }
        hashes = _hashes(source=str(photo), reference=str(folder / views.files[k]))
        clips.append(
            Clip(f"{folder.name} {source:02d}>{k:02d}", results, lambda truth=truth: iter([truth]),
                 _picture(str(photo)), hashes, float(angles[k]))
        )  # fmt: skip
    return clips


def _truth(folder: Path, views: CalibratedViews, index: int) -> np.ndarray:
    """A view [H,W,4] with its mask as alpha."""
    from fourdface.media.image import read_image

    image = read_image(folder / views.files[index])
    mask = views.masks[index]
    alpha = read_image(folder / mask)[..., :1] if mask else np.full_like(image[..., :1], 255)
    return np.concatenate([image, alpha], axis=-1)


def _pictures(path: Path) -> list[np.ndarray]:
    return list(frame_stream(path)())


def _rendered(
    session: Session, method: str, folder: Path, views: CalibratedViews, source: int, truths: list[np.ndarray]
) -> list[np.ndarray]:
    """Lift one view and render it into all, at the one scale whose silhouettes fit best."""
    from fourdface.artifacts import Avatar
    from fourdface.cli.lifting import lift_file
    from fourdface.metrics.image import silhouette_iou

    place = session.place(method) / f"{folder.name}-{source:02d}.h5"
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        request = session.lifting(folder / views.files[source], method, float(views.intrinsics[0, 0]))
        write_artifact(lift_file(request), Output(place))
    avatar = Avatar.read(place)
    masks = [truth[..., 3] > 127 for truth in truths]
    scores: dict[float, float] = {}

    def best_of(scales: np.ndarray) -> float:
        for scale in scales.round(2).tolist():
            if scale not in scores:
                pictures = _render(session, avatar, place, views, source, scale)
                pairs = zip(pictures, masks, strict=True)
                scores[scale] = float(np.mean([silhouette_iou(p[..., 3] > 127, mask) for p, mask in pairs]))
        return max(scores, key=lambda scale: scores[scale])

    middle = best_of(np.arange(SCALES[0], SCALES[1] + COARSE / 2, COARSE))
    finest = best_of(np.arange(middle - COARSE + FINE, middle + COARSE - FINE / 2, FINE))
    return _render(session, avatar, place, views, source, finest)


def _render(
    session: Session, avatar: Avatar, place: Path, views: CalibratedViews, source: int, scale: float
) -> list[np.ndarray]:
    from fourdface.artifacts import Frames
    from fourdface.cli.rendering import RenderRequest, render_file
    from fourdface.cli.writing import FrameTarget
    from fourdface.media.image import decode_png

    own = np.asarray(avatar.world_to_camera, np.float64)
    cameras = [
        {"world_to_camera": camera.tolist(), "intrinsics": views.intrinsics.tolist(), "width": views.width,
         "height": views.height}
        for camera in views.relative_to(source, own, scale)
    ]  # fmt: skip
    listed = place.with_suffix(".cameras.json")
    listed.write_text(json.dumps(cameras))
    frames = place.with_suffix(".views.h5")
    request = RenderRequest(str(place), cameras=str(listed), background="transparent", network=session.network)
    render_file(request, FrameTarget("h5", Output(frames, overwrite=True), None, True))
    return [decode_png(blob) for blob in Frames.read(frames).frame_blobs]


def run_static(photos: tuple[str, ...], views: int, options: Options) -> None:
    """`fourd eval static-360`."""
    from fourdface.stages.evaluate import Clip

    with Session("static-360", options) as session:
        session.require_systems()
        clips = []
        for photo in session.mine(expand_inputs(photos), key=lambda path: path.stem):
            results = {label: frame_stream(_result(folder, photo.stem)) for label, folder in session.folders()}
            for method in session.options.get("method", ()):
                results[method] = frame_stream(_turned(session, method, photo, views))
            clips.append(Clip(photo.stem, results, None, _picture(str(photo)), _hashes(source=str(photo))))
        session.finish(clips)


def _turned(session: Session, method: str, photo: Path, views: int) -> Path:
    """One turn round the avatar of a photo."""
    from fourdface.cli.lifting import lift_file
    from fourdface.cli.rendering import RenderRequest, render_file
    from fourdface.cli.writing import FrameTarget

    avatar = session.place(method) / "avatars" / f"{photo.stem}.h5"
    frames = session.place(method) / f"{photo.stem}-{views}.h5"
    avatar.parent.mkdir(parents=True, exist_ok=True)
    if not avatar.exists():
        write_artifact(lift_file(session.lifting(photo, method)), Output(avatar))
    if not frames.exists():
        request = RenderRequest(str(avatar), turntable=True, frames=views, background="white", network=session.network)
        render_file(request, FrameTarget("h5", Output(frames), None, False))
    return frames
