"""Every example runs as its first lines say, and leaves what it promises."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from fourdface.artifacts import Avatar
from fourdface.blocks.arkit import ARKIT_NAMES
from fourdface.media.image import encode_png, read_image
from fourdface.media.ply import read_ply
from fourdface.media.resize import resize
from fourdface.media.video import open_video

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))


def example(name: str, *arguments: object, folder: Path, fails: bool = False) -> str:
    """Run examples/NAME*.py in a folder; returns what it printed."""
    script = next(path for path in EXAMPLES if path.name.startswith(name))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode != 0) == fails, done.stderr[-2000:]
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NASA's portrait, small."""
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    path.write_bytes(encode_png(resize(astronaut()[:340, 55:395], 256, 256)))
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What example 02 draws, short and small, with the truth beside it."""
    folder = tmp_path_factory.mktemp("driver")
    words = ("--seconds", 0.6, "--size", 224, "--truth", "truth.npz")
    assert "15 frames with sound" in example("02", "-o", "driver.mp4", *words, folder=folder)
    return folder / "driver.mp4"


@pytest.fixture(scope="session")
def avatar(tmp_path_factory: pytest.TempPathFactory, photo: Path) -> Path:
    """What example 03 lifts."""
    folder = tmp_path_factory.mktemp("orbit")
    example("03", photo, "-o", "orbit.mp4", "--avatar", "a.h5", "--frames", 4, "--size", 192, folder=folder)
    return folder / "a.h5"


def frames_of(path: Path) -> list[np.ndarray]:
    with open_video(path) as reader:
        return [frame.image_u8 for frame in reader]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short_and_say_how_they_are_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert f"python examples/{path.name}" in text.partition('"""\n\nfrom')[0], "no line to copy into a shell"


def test_the_synthetic_clip_has_sound_and_says_what_it_is(clip: Path) -> None:
    with open_video(clip) as reader:
        assert reader.audio is not None and not reader.audio.is_empty()
    from fourdface.media.container import open_container

    with open_container(clip, "clip") as container:
        assert "synthetic" in container.metadata["comment"]
    truth = np.load(clip.with_name("truth.npz"))
    assert truth["landmarks"].shape == (15, 478, 2) and truth["expression"].shape == (15, 52)


def test_the_orbit_turns_the_head(avatar: Path) -> None:
    pictures = frames_of(avatar.with_name("orbit.mp4"))
    assert len(pictures) == 4
    change = np.abs(pictures[1].astype(float) - pictures[3]).mean()  # the two ends of the swing
    assert change > 2 * np.abs(pictures[0].astype(float) - pictures[2]).mean()


def test_the_demo_makes_video_and_sheet(photo: Path, clip: Path, tmp_path: Path) -> None:
    printed = example("01", "--photo", photo, "--drive", clip, folder=tmp_path)
    assert "fourd lift" in printed and "| fourd reenact" in printed
    assert len(frames_of(tmp_path / "out.mp4")) == 15
    assert read_image(tmp_path / "out.png").shape == (512, 2048, 3)
    assert Avatar.read(tmp_path / "demo" / "avatar.h5").provenance.synthetic_media


def test_the_demo_stops_with_the_reason(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "me.jpg").write_bytes(b"")
    message = example("01", "--photo", "me.jpg", "--drive", clip, folder=tmp_path, fails=True)
    assert "me.jpg" in message and "Traceback" not in message and not (tmp_path / "out.png").exists()


def test_numbers_move_the_avatar(avatar: Path, tmp_path: Path) -> None:
    with (tmp_path / "motion.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Timecode", *(name[0].upper() + name[1:] for name in ARKIT_NAMES)])  # as phone apps write them
        writer.writerows(["00:00:01", *(jaw * (name == "jawOpen") for name in ARKIT_NAMES)] for jaw in (0.0, 0.8))
    example("04", avatar, "-o", "a.mp4", "--csv", "motion.csv", "--size", 192, folder=tmp_path)
    closed, opened = frames_of(tmp_path / "a.mp4")
    moved = np.abs(closed.astype(float) - opened).mean(2)
    assert (moved > 30).sum() > 50 and moved[64:120].sum() > 20 * moved[:64].sum(), "mouth and chin should move alone"
    example("04", avatar, "-o", "b.mp4", "--frames", 3, "--size", 128, folder=tmp_path)
    assert len(frames_of(tmp_path / "b.mp4")) == 3


def test_the_ply_holds_the_posed_gaussians(avatar: Path, tmp_path: Path) -> None:
    example("05", avatar, "-o", "rest.ply", folder=tmp_path)
    example("05", avatar, "-o", "open.ply", "--set", "jawOpen=0.9", folder=tmp_path)
    rest, opened = (read_ply(tmp_path / name) for name in ("rest.ply", "open.ply"))
    count = len(Avatar.read(avatar).tensors["triangle"])
    assert len(rest.means) == len(opened.means) == count
    assert rest.scales.max() < 0.1 and np.allclose(np.linalg.norm(rest.quaternions, axis=1), 1, atol=1e-4)
    shift = np.linalg.norm(opened.means - rest.means, axis=1)
    assert 0.003 < shift.max() < 0.08 and np.median(shift) < 0.003
    assert "jawopen" in example("05", avatar, "--set", "jawopen=1", folder=tmp_path, fails=True)


def test_the_table_follows_the_clip(clip: Path, tmp_path: Path) -> None:
    example("06", clip, "-o", "t.csv", folder=tmp_path)
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15 and {"time", "yaw", "jawOpen"} <= set(rows[0])
    assert all(row["status"] == "0" for row in rows), "the synthetic face should be seen in every frame"
    truth = np.degrees(np.load(clip.with_name("truth.npz"))["head"][:, 1])
    yaw = np.array([float(row["yaw"]) for row in rows])
    assert np.abs(yaw - truth).mean() < 6


def test_from_nothing_to_scores_in_one_command(photo: Path, clip: Path, tmp_path: Path) -> None:
    words = [
        "make", "-C", str(ROOT / "examples" / "reproduce"), "from-nothing", f"NOTHING={tmp_path}", f"PHOTO={photo}",
        f"DRIVE={clip}", "PEOPLE=3", "STATIC_STEPS=4", "DRIVEN_STEPS=4", f"PYTHON={sys.executable}",
        f"FOURD={Path(sys.executable).with_name('fourd')}",
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with open_video(tmp_path / "results" / f"{photo.stem}+{clip.stem}.mp4") as made, open_video(clip) as driven:
        assert sum(1 for _ in made) == sum(1 for _ in driven)
    with open(tmp_path / "report" / "report.csv", encoding="utf-8") as file:  # so blurred a head may have no scores
        assert next(csv.DictReader(file))["sequence"] == f"{photo.stem}+{clip.stem}"
    again = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "Nothing to be done" in again.stdout
