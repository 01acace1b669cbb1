"""Measure the main job on real data with an independent judge; every figure of docs/quality.md comes from here.

    python scripts/measure_quality.py self  --clips DIR --judge JUDGE.py --judge-python PY --work DIR
    python scripts/measure_quality.py cross --clips DIR --portraits DIR --judge JUDGE.py --judge-python PY --work DIR
    python scripts/measure_quality.py views --multiview DIR --judge JUDGE.py --judge-python PY --work DIR
    python scripts/measure_quality.py table --work DIR

The judge is a program of its own with its own networks and virtual environment: `JUDGE self OUT.mp4 DRIVER.mp4
[--source PHOTO --cross] --every N` prints one JSON line. Results are gathered in WORK/{self,cross,views}.json; what is
there already is not computed again unless --again is given.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

if TYPE_CHECKING:
    from fourdface.methods.splat.avatar import SplatAvatar

CROSS_PORTRAITS = (
    "man_beard_sad.png", "man_curly_bust.jpg", "man_indoor_smile.png", "man_sidelight_dark.jpg",
    "style_cartoon_3d.jpg", "style_painting_smile.jpg", "woman_curly_glasses.jpg", "woman_denim_smile.png",
    "woman_long_hair.jpg", "woman_red_hair_surprised.png",
)  # fmt: skip
CROSS_CLIPS = ("man_neutral_jaw.mp4", "nc_man_expressions.mp4", "woman_expressions.mp4", "woman_glasses_talk.mp4")


def fourd(*arguments: str) -> float:
    """Run a fourd command; returns its seconds."""
    start = time.time()
    program = [sys.executable, "-c", "from fourdface.cli.main import main; main()"]
    subprocess.run([*program, "-q", *arguments], check=True)
    return time.time() - start


def judged(judge: str, python: str, *arguments: str) -> dict[str, float]:
    """Run the judge and read its JSON line."""
    run = subprocess.run([python, judge, *arguments], check=True, capture_output=True, text=True)
    return json.loads(run.stdout.strip().splitlines()[-1])


def first_frame(clip: Path, place: Path) -> Path:
    """Save a clip's first frame as PNG."""
    from fourdface.media.image import encode_png
    from fourdface.media.video import open_video

    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encode_png(next(iter(open_video(clip))).image_u8))
    return place


def load(path: Path) -> dict[str, dict[str, float]]:
    """Results so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def save(path: Path, results: dict[str, dict[str, float]]) -> None:
    """Write results so far."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1))


@click.group()
def cli() -> None:
    """See the module's docstring."""


judge_option = click.option("--judge", required=True, help="The judge's program.")
python_option = click.option("--judge-python", required=True, help="The judge's Python.")
work_option = click.option("--work", type=click.Path(path_type=Path), required=True, help="Scratch folder.")
every_option = click.option("--every", default=5, show_default=True, help="Judge every n-th frame.")
again_option = click.option("--again", is_flag=True, help="Compute everything again.")
only_option = click.option("--only", multiple=True, help="Only names that contain this.")


@cli.command("self")
@click.option("--clips", type=click.Path(exists=True, path_type=Path), required=True)
@judge_option
@python_option
@work_option
@every_option
@again_option
@only_option
def self_command(
    clips: Path, judge: str, judge_python: str, work: Path, every: int, again: bool, only: tuple[str, ...]
) -> None:
    """Source = first frame of each clip, driver = the clip, absolute pose; and the still picture as baseline."""
    results, still = load(work / "self.json"), load(work / "still.json")
    for clip in sorted(clips.glob("*.mp4")):
        name = clip.stem
        if only and not any(part in name for part in only):
            continue
        photo = first_frame(clip, work / "first" / f"{name}.png")
        if name not in still:
            still[name] = judged(judge, judge_python, "static", str(photo), str(clip), "--every", str(every))
            save(work / "still.json", still)
        if name in results and not again:
            continue
        out = work / "self" / f"{name}.mp4"
        out.parent.mkdir(parents=True, exist_ok=True)
        avatar = work / "self" / f"{name}.h5"
        lift_s = fourd("lift", str(photo), "-o", str(avatar), "--overwrite")
        reenact_s = fourd("reenact", str(clip), "--avatar", str(avatar), "-o", str(out), "--overwrite")
        results[name] = judged(judge, judge_python, "self", str(out), str(clip), "--every", str(every))
        results[name] |= {"lift_s": round(lift_s, 1), "reenact_s": round(reenact_s, 1)}
        save(work / "self.json", results)
        click.echo(f"{name}: {results[name]}\n{' ' * len(name)}  still {still[name]}")


@cli.command("cross")
@click.option("--clips", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--portraits", type=click.Path(exists=True, path_type=Path), required=True)
@judge_option
@python_option
@work_option
@every_option
@again_option
@only_option
def cross_command(
    clips: Path, portraits: Path, judge: str, judge_python: str, work: Path, every: int, again: bool,
    only: tuple[str, ...],
) -> None:  # fmt: skip
    """Ten portraits (two stylised) driven by four clips each, absolute pose and expression."""
    results = load(work / "cross.json")
    for photo in CROSS_PORTRAITS:
        avatar = work / "cross" / f"{Path(photo).stem}.h5"
        avatar.parent.mkdir(parents=True, exist_ok=True)
        if only and not any(part in photo for part in only):
            continue
        fourd("lift", str(portraits / photo), "-o", str(avatar), "--overwrite", "--size", "768")
        for clip in CROSS_CLIPS:
            key = f"{Path(photo).stem}+{Path(clip).stem}"
            if key in results and not again:
                continue
            out = work / "cross" / f"{key}.mp4"
            fourd("reenact", str(clips / clip), "--avatar", str(avatar), "-o", str(out), "--overwrite")
            results[key] = judged(
                judge, judge_python, "self", str(out), str(clips / clip), "--cross", "--source",
                str(portraits / photo), "--every", str(every),
            )  # fmt: skip
            save(work / "cross.json", results)
            click.echo(f"{key}: {results[key]}")


# The judge's own face networks, asked for the identity cosine of pairs of pictures.
_IDENTITY = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("judge", sys.argv[1]); judge = importlib.util.module_from_spec(spec)
spec.loader.exec_module(judge)
def embedding(path):
    image = judge.rgb(path); box = judge.detect(image)
    return None if box is None else judge.embed(image, judge.lm68(image, box))
out = []
for pair in json.load(sys.stdin):
    a, b = (embedding(path) for path in pair)
    out.append(None if a is None or b is None else float(a @ b))
print(json.dumps(out))
"""


def studio_cameras(folder: Path) -> tuple[list[np.ndarray], np.ndarray, list[dict[str, object]]]:
    """world_to_camera [4,4] of each camera (OpenCV axes), intrinsics [3,3], and the file's frames."""
    data = json.loads((folder / "transforms.json").read_text())
    cameras = []
    for frame in data["frames"]:
        to_world = np.asarray(frame["transform_matrix"], float)
        to_world[:3, 1:3] *= -1
        cameras.append(np.linalg.inv(to_world))
    intrinsics = np.array([[data["fl_x"], 0, data["cx"]], [0, data["fl_y"], data["cy"]], [0, 0, 1]])
    return cameras, intrinsics, data["frames"]


def yaw_of(camera: np.ndarray, source: np.ndarray) -> float:
    """Degrees between the viewing directions of two cameras."""
    return float(np.degrees(np.arccos(np.clip(camera[2, :3] @ source[2, :3], -1, 1))))


def moved_cameras(cameras: list[np.ndarray], source: int, own: np.ndarray, scale: float) -> list[np.ndarray]:
    """The studio's cameras in the avatar's world: the source cameras coincide, `scale` is the one free number."""
    out = []
    for camera in cameras:
        relative = camera @ np.linalg.inv(cameras[source])
        relative[:3, 3] *= scale
        out.append(relative @ own)
    return out


@cli.command("views")
@click.option("--multiview", type=click.Path(exists=True, path_type=Path), required=True)
@judge_option
@python_option
@work_option
@again_option
def views_command(multiview: Path, judge: str, judge_python: str, work: Path, again: bool) -> None:
    """Lift the most frontal of a studio's 16 views, render it into the 15 others: silhouette IoU and identity."""
    from PIL import Image

    from fourdface.artifacts import Avatar
    from fourdface.methods.splat.restore import restore_avatar

    results = load(work / "views.json")
    for folder in sorted(multiview.glob("studio_*")):
        if folder.name in results and not again:
            continue
        cameras, intrinsics, frames = studio_cameras(folder)
        forward = np.mean([camera[2, :3] for camera in cameras], axis=0)
        source = int(np.argmax([camera[2, :3] @ forward for camera in cameras]))
        place = work / "views" / folder.name
        place.mkdir(parents=True, exist_ok=True)
        photo = folder / str(frames[source]["file_path"])
        fourd("lift", str(photo), "-o", str(place / "a.h5"), "--overwrite", "--focal", str(intrinsics[0, 0]))
        avatar = restore_avatar(Avatar.read(place / "a.h5"))
        own = avatar.view.world_to_camera.astype(float)
        masks = [np.asarray(Image.open(folder / str(f["fg_mask_path"])).convert("L")) > 127 for f in frames]
        best: tuple[float, list[np.ndarray], float] = (-1.0, [], 1.0)
        for step in (0.05, 0.01):  # the one free number: coarse first, then fine about the best
            middle = best[2]
            scales = np.arange(0.8, 1.35, step) if step == 0.05 else middle + step * np.arange(-4, 5)
            for scale in scales:
                pictures = render_views(avatar, cameras, source, own, intrinsics, masks[0].shape, float(scale))
                score = float(np.mean([iou(p[..., 3] > 127, m) for p, m in zip(pictures, masks, strict=True)]))
                if score > best[0]:
                    best = (score, pictures, float(scale))
        results[folder.name] = view_scores(best[1], masks, cameras, source, folder, frames, judge, judge_python, place)
        results[folder.name]["scale"] = round(best[2], 3)
        save(work / "views.json", results)
        click.echo(f"{folder.name}: {results[folder.name]}")


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def render_views(
    avatar: SplatAvatar, cameras: list[np.ndarray], source: int, own: np.ndarray, intrinsics: np.ndarray,
    shape: tuple[int, int], scale: float,
) -> list[np.ndarray]:  # fmt: skip
    """RGBA pictures [H,W,4] of the avatar from every studio camera, as `fourd render --cameras` makes them."""
    from fourdface.blocks.camera import CameraPose
    from fourdface.stages.render import as_camera, render_one

    height, width = shape
    poses = [CameraPose(c, intrinsics, width, height) for c in moved_cameras(cameras, source, own, scale)]
    return [render_one(avatar, avatar.rig.source, as_camera(pose), None) for pose in poses]


def view_scores(
    pictures: list[np.ndarray], masks: list[np.ndarray], cameras: list[np.ndarray], source: int, folder: Path,
    frames: list[dict[str, object]], judge: str, judge_python: str, place: Path,
) -> dict[str, float]:  # fmt: skip
    """Silhouette IoU over the other views, and identity against the real picture of the same view, by angle."""
    from PIL import Image

    pairs, angles = [], []
    for k, picture in enumerate(pictures):
        alpha = picture[..., 3:] / 255.0
        file = place / f"view_{k:02d}.png"
        Image.fromarray((picture[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)).save(file)
        pairs.append([str(file), str(folder / str(frames[k]["file_path"]))])
        angles.append(yaw_of(cameras[k], cameras[source]))
    run = subprocess.run([judge_python, "-c", _IDENTITY, judge], input=json.dumps(pairs), check=True,
                         capture_output=True, text=True)  # fmt: skip
    cosines = json.loads(run.stdout.strip().splitlines()[-1])
    others = [k for k in range(len(pictures)) if k != source]
    wide = [cosines[k] for k in others if angles[k] > 40 and cosines[k] is not None]
    near = [cosines[k] for k in others if angles[k] <= 40 and cosines[k] is not None]
    return {
        "iou": round(float(np.mean([iou(pictures[k][..., 3] > 127, masks[k]) for k in others])), 4),
        "iou_worst": round(float(min(iou(pictures[k][..., 3] > 127, masks[k]) for k in others)), 4),
        "id_to_40": round(float(np.mean(near)), 4), "id_over_40": round(float(np.mean(wide)), 4),
        "missed": float(sum(cosines[k] is None for k in others)),
    }  # fmt: skip


@cli.command("table")
@work_option
def table_command(work: Path) -> None:
    """Print the results as Markdown, with means."""
    for name in ("self", "still", "cross", "views"):
        results = load(work / f"{name}.json")
        if not results:
            continue
        columns = [key for key in next(iter(results.values())) if key != "frames"]
        click.echo(f"\n| {name} | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
        for key, row in results.items():
            click.echo(f"| {key} | " + " | ".join(f"{row.get(c, float('nan')):g}" for c in columns) + " |")
        mean = [float(np.mean([row[c] for row in results.values() if c in row])) for c in columns]
        click.echo("| **mean** | " + " | ".join(f"{value:.4g}" for value in mean) + " |")


if __name__ == "__main__":
    cli()
