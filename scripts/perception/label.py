"""Teacher labels for folders of pictures and clips, cached as one shard (a folder of .npy files) per source.

A shard holds
  crops      [n,224,224,3] uint8   the face, CROP_SPAN times the nominal crop, eyes level
  landmarks  [n,478,2] float32     nominal crop coordinates (-1..1 = the nominal crop)
  coefficients [n,52], rotation [n,3,3] (in the crop's axes), held_out [n] bool, group [n] int (picture or clip)
  scenes     [m,320,320,3] uint8, alpha [m,320,320] uint8, extent [m,2] (valid width, height), scene_face [m] int
  scene_landmarks [m,478,2] float32 scene pixels (NaN where the teacher saw no face)
  frame_landmarks, frame_coefficients, frame_rotation, frame_depth, frame_index   every labelled frame in source pixels
No torch here: the teachers may live in an environment of their own.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from tqdm import tqdm

from fourdface.perception.geometry import CropFrame, crop_from_landmarks, rotation_about_view
from perception.split import held_out, original
from perception.teacher import LandmarkTeacher, MatteTeacher, TeacherFace

CROP_SIZE = 224
CROP_SPAN = 1.75
SCENE_SIZE = 320
CLIP_STRIDE = 2
SCENE_STRIDE = 12
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
CLIPS = {".mp4", ".mov", ".mkv", ".webm", ".avi"}


def warp_crop(image_u8: npt.NDArray[np.uint8], frame: CropFrame, size: int, span: float) -> npt.NDArray[np.uint8]:
    """The square `span` times `frame` as [size,size,3], mirrored borders replaced by the edge colour."""
    axes = frame.axes() * span
    step = 2.0 / size
    origin = frame.center + axes @ np.array([-1.0, -1.0], dtype=np.float32)
    coefficients = (axes[0, 0] * step, axes[0, 1] * step, origin[0], axes[1, 0] * step, axes[1, 1] * step, origin[1])
    source = Image.fromarray(image_u8)
    scale = frame.half * span * step
    if scale > 1.5:  # shrink first: the sampler has no low-pass of its own
        factor = 1.0 / scale
        smaller = (max(1, round(source.width * factor)), max(1, round(source.height * factor)))
        ratio = (smaller[0] / source.width, smaller[1] / source.height)
        source = source.resize(smaller, Image.Resampling.BOX)
        coefficients = tuple(c * ratio[0] for c in coefficients[:3]) + tuple(c * ratio[1] for c in coefficients[3:])
    margin = max(8, int(np.hypot(*source.size) * 0.1))
    return np.asarray(_pad_edges(source, margin, coefficients, size))


def _pad_edges(source: Image.Image, margin: int, coefficients: tuple[float, ...], size: int) -> Image.Image:
    padded = Image.fromarray(np.pad(np.asarray(source), ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    a, b, c, d, e, f = coefficients
    return padded.transform(
        (size, size), Image.Transform.AFFINE, (a, b, c + margin, d, e, f + margin), Image.Resampling.BILINEAR
    )


def read_picture(path: Path) -> npt.NDArray[np.uint8]:
    """An RGB picture, upright; transparency over grey."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode in ("RGBA", "LA", "PA", "P"):
        rgba = picture.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (128, 128, 128, 255))
        picture = Image.alpha_composite(ground, rgba)
    return np.asarray(picture.convert("RGB"))


def read_clip(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    """Frames of a clip, RGB."""
    import av

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


class ShardWriter:
    """Collects labelled faces and scenes of one source and writes them as .npy files."""

    def __init__(self, matte: MatteTeacher | None) -> None:
        self._matte = matte
        self._columns: dict[str, list[Any]] = {}

    def _put(self, **values: Any) -> None:
        for name, value in values.items():
            self._columns.setdefault(name, []).append(value)

    def add_frame(self, index: int, face: TeacherFace) -> None:
        """Keep the teacher's numbers of one frame in source pixels."""
        self._put(
            frame_index=index,
            frame_landmarks=face[0],
            frame_coefficients=face[1],
            frame_rotation=face[2],
            frame_depth=face[3],
        )

    def add_face(self, image_u8: npt.NDArray[np.uint8], face: TeacherFace, group: int, held: bool) -> None:
        """Keep one face as a training crop."""
        landmarks, coefficients, rotation, _ = face
        frame = crop_from_landmarks(landmarks)
        if frame.half < 14:
            return
        self._put(
            crops=warp_crop(image_u8, frame, CROP_SIZE, CROP_SPAN),
            landmarks=frame.to_crop(landmarks),
            coefficients=coefficients,
            rotation=rotation_about_view(frame.angle).T @ rotation,
            held_out=held,
            group=group,
        )

    def add_scene(
        self,
        image_u8: npt.NDArray[np.uint8],
        faces: list[TeacherFace],
        group: int,
        held: bool,
        known: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Keep a small copy of the whole picture with its matte (the teacher's, or `known` [H,W])."""
        height, width = image_u8.shape[:2]
        scale = SCENE_SIZE / max(width, height)
        extent = (max(1, round(width * scale)), max(1, round(height * scale)))
        scene = np.zeros((SCENE_SIZE, SCENE_SIZE, 3), np.uint8)
        resized = Image.fromarray(image_u8).resize(
            extent, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
        )
        scene[: extent[1], : extent[0]] = np.asarray(resized)
        alpha = np.zeros((SCENE_SIZE, SCENE_SIZE), np.uint8)
        if known is not None:
            alpha[: extent[1], : extent[0]] = np.asarray(Image.fromarray(known).resize(extent))
        elif self._matte is not None:
            alpha[: extent[1], : extent[0]] = self._matte(image_u8, extent)
        points = np.full((4, 478, 2), np.nan, np.float32)
        for slot, face in enumerate(faces[:4]):
            points[slot] = face[0] * np.array([extent[0] / width, extent[1] / height], np.float32)
        self._put(
            scenes=scene, alpha=alpha, extent=extent, scene_landmarks=points, scene_held_out=held, scene_group=group
        )

    def write(self, folder: Path) -> int:
        """Write all columns; returns the number of faces."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in self._columns.items():
            np.save(folder / f"{name}.npy", np.asarray(values))
        (folder / "done").write_text("ok\n")
        return len(self._columns.get("crops", []))


def label_pictures(
    folder: Path, landmarker: LandmarkTeacher, matte: MatteTeacher | None, writer: ShardWriter
) -> list[str]:
    """Label every picture under `folder`; returns their names, the index is the group."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    hashed = len(files) > 100
    names = []
    for group, path in enumerate(tqdm(files, desc=folder.name, disable=None)):
        image_u8 = read_picture(path)
        faces = landmarker(image_u8)
        held = held_out(path.stem, hashed, path.parts)
        names.append(path.name)
        for face in faces:
            writer.add_face(image_u8, face, group, held)
        variant = hashed and original(path.stem) != path.stem
        if not variant:  # renders teach the landmarks; detector and matte learn from pictures
            writer.add_scene(image_u8, faces, group, held)
        if faces:
            writer.add_frame(group, faces[0])
    return names


def label_clip(path: Path, landmarker: LandmarkTeacher, matte: MatteTeacher | None, writer: ShardWriter) -> list[str]:
    """Label every frame of a clip; every second becomes a crop, every twelfth a scene."""
    held = held_out(path.stem, False)
    for index, image_u8 in enumerate(tqdm(read_clip(path), desc=path.stem, disable=None)):
        faces = landmarker(image_u8)
        if not faces:
            continue
        writer.add_frame(index, faces[0])
        if index % CLIP_STRIDE == 0:
            writer.add_face(image_u8, faces[0], 0, held)
        if index % SCENE_STRIDE == 0:
            writer.add_scene(image_u8, faces, 0, held)
    return [path.name]


def _shard_name(source: Path) -> str:
    if source.is_file():
        return f"clip_{source.stem}"
    listing = "\n".join(
        sorted(f"{p.name}:{p.stat().st_size}" for p in source.rglob("*") if p.suffix.lower() in PICTURES)
    )
    return f"pictures_{_folder_name(source)}_{zlib.crc32(listing.encode()):08x}"


def _folder_name(source: Path) -> str:
    return f"{source.parent.name}-{source.name}"


def label(images: list[Path], clips: list[Path], work: Path, task_file: Path, matte_file: Path | None) -> None:
    """Label all sources that have no finished shard yet (a folder whose listing changed gets a new shard)."""
    landmarker = LandmarkTeacher(task_file)
    matte = MatteTeacher(matte_file) if matte_file else None
    sources = [(folder, label_pictures) for folder in images]
    sources += [(p, label_clip) for folder in clips for p in sorted(folder.iterdir()) if p.suffix.lower() in CLIPS]
    for source, work_on in sources:
        shard = work / "shards" / _shard_name(source)
        if (shard / "done").exists():
            continue
        for stale in (work / "shards").glob(f"pictures_{_folder_name(source)}_*"):
            (stale / "done").unlink(missing_ok=True)  # the folder has grown: the new shard replaces the old one
        writer = ShardWriter(matte)
        names = work_on(source, landmarker, matte, writer)
        shard.mkdir(parents=True, exist_ok=True)
        (shard / "names.txt").write_text("\n".join(names) + "\n")
        (shard / "source.txt").write_text(f"{source}\n")
        count = writer.write(shard)
        tqdm.write(f"{shard.name}: {count} faces")
