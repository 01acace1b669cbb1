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

import click
import numpy as np

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
