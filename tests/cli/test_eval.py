"""`fourd eval`: protocols on small videos, shards that merge, comparisons, and bad input in one sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourdface.artifacts import Report
from fourdface.media.image import encode_png
from fourdface.stages.report_summary import summarise
from support.artifacts import make_frames
from support.calling import files, fourd, good

PIXELS = ("--metrics", "psnr,ssim,l1,flicker_pixels")


def folder_of(place: Path, seed: int, count: int = 4, size: tuple[int, int] = (24, 32), noise: float = 0.0) -> Path:
    """A folder of PNG frames: a smooth picture that moves, with noise."""
    place.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for k in range(count):
        waves = [np.sin((rows * (1 + c) + columns + 3 * k + seed) / 5) for c in range(3)]
        image = 0.5 + 0.4 * np.stack(waves, -1) + noise * generator.standard_normal((*size, 3))
        Image.fromarray(np.uint8(np.clip(image, 0, 1) * 255)).save(place / f"{k:03d}.png")
    return place


@pytest.fixture
def clips(tmp_path) -> Path:
    """Three truths and noisy results of the same names."""
    for k in range(3):
        folder_of(tmp_path / "truth" / f"clip{k}", k)
        folder_of(tmp_path / "ours" / f"clip{k}", k, noise=0.05 * (k + 1))
    rows = [{"name": f"clip{k}", "result": f"ours/clip{k}", "reference": f"truth/clip{k}"} for k in range(3)]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    return tmp_path


def test_pairs_write_all_forms_that_agree(clips):
    good("eval", "pairs", "--manifest", clips / "pairs.json", *PIXELS, "-o", clips / "out")
    assert files(clips / "out") == ["report.csv", "report.h5", "report.html", "report.json", "report.md"]
    data = json.loads((clips / "out" / "report.json").read_text())
    assert data == json.loads(json.dumps(summarise(Report.read(clips / "out" / "report.h5"))))
    total = data["totals"]["result"]["psnr"]
    means = [data["by_sequence"]["result"][f"clip{k}"]["psnr"] for k in range(3)]
    assert means == sorted(means, reverse=True) and total["value"] == pytest.approx(np.mean(means))
    assert total["low"] < total["value"] < total["high"] and total["coverage"] == 1.0
    rows = list(csv.DictReader((clips / "out" / "report.csv").open()))
    assert [row["sequence"] for row in rows] == ["clip0", "clip1", "clip2", "TOTAL"]
    assert float(rows[-1]["psnr"]) == total["value"]
    page = (clips / "out" / "report.html").read_text()
    assert page.count("<polyline") == 4 * 3 and "http" not in page and "left_out" not in page
    assert len(data["frames"]) == 12 and "flicker_pixels" not in data["frames"][0]


def test_again_gives_the_same_bytes(clips):
    for name in ("a", "b"):
        good("eval", "pairs", "--manifest", clips / "pairs.json", *PIXELS, "-o", clips / f"{name}.h5")
    a, b = (summarise(Report.read(clips / f"{name}.h5")) for name in ("a", "b"))
    assert a == b
    for name in ("one", "two"):
        good("eval", "merge", clips / "a.h5", "-o", clips / name, "--overwrite")
    pages = [(clips / name / "report.json").read_bytes() for name in ("one", "two")]
    assert pages[0] == pages[1]


@pytest.mark.parametrize("parts", [2, 3])
def test_shards_merge_into_the_whole(clips, parts):
    call = ("eval", "pairs", "--manifest", clips / "pairs.json", *PIXELS)
    good(*call, "-o", clips / "whole.h5")
    for part in range(parts):
        good(*call, "--shard", f"{part}/{parts}", "-o", clips / f"{part}.h5")
    good("eval", "merge", *(clips / f"{part}.h5" for part in reversed(range(parts))), "-o", clips / "merged.h5")
    whole, merged = (Report.read(clips / f"{name}.h5") for name in ("whole", "merged"))
    assert summarise(whole) == summarise(merged)
    assert list(whole.picture_blobs) == list(merged.picture_blobs)


def test_reports_of_different_runs_do_not_merge(clips):
    call = ("eval", "pairs", "--manifest", clips / "pairs.json")
    good(*call, *PIXELS, "--shard", "0/2", "-o", clips / "a.h5")
    good(*call, "--metrics", "psnr", "--shard", "1/2", "-o", clips / "b.h5")
    good(*call, *PIXELS, "-o", clips / "c.h5")
    done = fourd("eval", "merge", clips / "a.h5", clips / "b.h5", "-o", clips / "m.h5")
    assert "the reports differ in protocol" in done.sentence(2)
    done = fourd("eval", "merge", clips / "a.h5", clips / "c.h5", "-o", clips / "m.h5")
    assert "clip0 is in two of the reports" in done.sentence(2)
    assert not (clips / "m.h5").exists()


def test_self_reenactment_of_foreign_results_with_baselines_and_an_earlier_report(clips):
    truths = [clips / "truth" / f"clip{k}" for k in range(3)]
    call = ("eval", "self-reenact", *truths, *PIXELS, "--every", "1", "--baselines", "still")
    good(*call, "--results", f"ours={clips / 'ours'}", "-o", clips / "first.h5")
    data = summarise(Report.read(clips / "first.h5"))
    assert data["systems"] == ["ours", "still"]
    assert {row["frame"] for row in data["frames"]} == {1, 2, 3}  # the source's own frame is not judged
    assert data["totals"]["ours"]["psnr"]["value"] > data["totals"]["still"]["psnr"]["value"]
    for k in range(3):
        folder_of(clips / "better" / f"clip{k}", k, noise=0.01)
    good(*call, "--results", f"new={clips / 'better'}", "--compare", clips / "first.h5", "-o", clips / "second.h5")
    data = summarise(Report.read(clips / "second.h5"))
    assert data["systems"] == ["new", "still", "first-ours", "first-still"]
    assert data["totals"]["new"]["psnr"]["value"] > data["totals"]["first-ours"]["psnr"]["value"]


def test_generator_measures_sets(clips, monkeypatch):
    done = fourd("eval", "generator", clips / "ours/clip0", clips / "truth/clip0", "-o", clips / "g.h5")
    assert "no metric can be measured" in done.sentence(1) and "needs a network for features" in done.err


def test_frames_artifacts_are_results_too(tmp_path):
    picture = encode_png(np.zeros((8, 8, 3), np.uint8))
    frames = make_frames(frame_blobs=[picture] * 3)
    frames.write(tmp_path / "a.h5")
    good("eval", "pairs", tmp_path / "a.h5", tmp_path / "a.h5", "--metrics", "psnr", "-o", tmp_path / "out.h5")
    assert summarise(Report.read(tmp_path / "out.h5"))["totals"]["result"]["psnr"]["value"] == 100.0


def test_sound_goes_with_the_pictures(tmp_path, monkeypatch):
    """A clip's own sound, else that of the truth; per-sequence values with intervals in the report."""
    from fourdface.cli.evaluating_extras import read_sound
    from fourdface.metrics import sync
    from support.calling import write_clip

    frames = [np.full((48, 64, 3), 10 * k, np.uint8) for k in range(24)]
    loud = write_clip(tmp_path / "loud.mp4", frames, rate=30, sound=True)
    mute = write_clip(tmp_path / "mute.mp4", frames, rate=30)
    sound = read_sound(loud)
    assert sound.frame_rate == 30 and abs(len(sound.samples) - 0.8 * 16000) < 2000 and np.abs(sound.samples).max() > 500
    assert read_sound(mute) is None and read_sound(tmp_path) is None

    class Simple(sync.Networks):
        def lips(self, faces: np.ndarray) -> np.ndarray:
            return np.array([faces.mean() / 255])

        def sound(self, coefficients: np.ndarray) -> np.ndarray:
            return np.array([coefficients.mean()])

    monkeypatch.setattr(sync, "Networks", Simple)
    monkeypatch.setattr(sync, "face_crop", lambda picture: picture.image_u8[:8, :8])
    monkeypatch.setattr("fourdface.metrics.networks.missing_assets", lambda assets, package="": "")
    rows = [{"name": "a", "result": "mute.mp4", "reference": "loud.mp4"},
            {"name": "b", "result": "loud.mp4", "reference": "mute.mp4"},
            {"name": "c", "result": "mute.mp4", "reference": "mute.mp4"}]  # fmt: skip
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    metrics = ("--metrics", "psnr,sync_distance,sync_confidence,sync_offset")
    good("eval", "pairs", "--manifest", tmp_path / "pairs.json", *metrics, "-o", tmp_path / "r.h5")
    data = summarise(Report.read(tmp_path / "r.h5"))
    values = {name: row.get("sync_distance") for name, row in data["by_sequence"]["result"].items()}
    assert values["a"] == pytest.approx(values["b"]) and values["c"] is None
    assert data["totals"]["result"]["sync_distance"]["value"] == pytest.approx(values["a"])


@pytest.fixture
def bad(tmp_path) -> Path:
    folder_of(tmp_path / "truth", 0)
    folder_of(tmp_path / "short", 0, count=3)
    folder_of(tmp_path / "small", 0, size=(12, 16))
    folder_of(tmp_path / "holes", 0)
    (tmp_path / "holes" / "002.png").write_bytes(b"junk")
    (tmp_path / "empty").mkdir()
    (tmp_path / "words.mp4").write_text("no video")
    (tmp_path / "pairs.yaml").write_text("- {result: short}")
    (tmp_path / "rules.yaml").write_text("speed: 3")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["short", "truth"], 1, "result ends after 3 frames and the truth goes on; give videos of one length"),
        (["truth", "short"], 1, "the truth ends after 3 frames and result goes on"),
        (["small", "truth"], 1, "the result is 16 x 12 pixels and the truth 32 x 24"),
        (["holes", "truth"], 1, "002.png"),
        (["empty", "truth"], 1, "holds no pictures"),
        (["gone", "truth"], 1, "does not exist"),
        (["words.mp4", "truth"], 1, "words.mp4"),
        (["truth"], 2, "TRUTH is missing: the video, folder or frames artifact to compare with"),
        ([], 2, "give RESULT and TRUTH, or --manifest FILE"),
        (["--manifest", "pairs.yaml"], 1, "entry 0 must have result and reference"),
        (["truth", "truth", "--metrics", "beauty"], 2, "there is no metric beauty; there are psnr"),
        (["truth", "truth", "--protocol", "rules.yaml"], 1, "may set name, version"),
        (["truth", "truth", "--judges", "rules.yaml"], 1, "must map roles"),
        (["truth", "truth", "--every", "50"], 0, ""),
        (["truth", "truth", "--metrics", "id"], 1, "no metric can be measured: id: needs a network for identity"),
        (["truth", "truth", "--shard", "1/2"], 2, "has nothing to do: there are 1 sequences"),
    ],
)  # fmt: skip
def test_bad_input(arguments, code, sentence, bad, monkeypatch):
    monkeypatch.chdir(bad)
    metrics = [] if "--metrics" in arguments else ["--metrics", "psnr"]
    done = fourd("eval", "pairs", *arguments, *metrics, "-o", "out.h5")
    if code:
        assert sentence in done.sentence(code)
        assert not (bad / "out.h5").exists()
    else:
        assert done.code == 0


def test_a_face_that_is_not_found_is_said(bad, monkeypatch):
    """A detector that fails in silence leaves no number behind, and a sentence."""
    monkeypatch.chdir(bad)
    done = fourd("eval", "pairs", "small", "truth", "--sizes", "resize", "--metrics", "psnr,nme", "-o", "out.h5")
    assert done.code == 0
    assert "result: not every frame could be measured (no face was found, say): nme in 0% of them" in done.err
    total = summarise(Report.read(bad / "out.h5"))["totals"]["result"]
    assert total["nme"] == {"value": None, "low": None, "high": None, "coverage": 0.0} and total["psnr"]["value"] > 0


def test_trimming_is_possible_and_recorded(bad, monkeypatch):
    monkeypatch.chdir(bad)
    good("eval", "pairs", "short", "truth", "--metrics", "psnr", "--lengths", "trim", "-o", "out.h5")
    data = summarise(Report.read(bad / "out.h5"))
    assert len(data["frames"]) == 3 and data["protocol"]["lengths"] == "trim"


def test_nothing_to_judge(bad, monkeypatch):
    monkeypatch.chdir(bad)
    assert "nothing to judge" in fourd("eval", "self-reenact", "truth", "-o", "out.h5").sentence(2)
    done = fourd("eval", "self-reenact", "truth", "--results", "a=gone", "-o", "out.h5")
    assert "gone is no folder; expected NAME=FOLDER" in done.sentence(1)
    done = fourd("eval", "self-reenact", "truth", "--results", "a=small", "-o", "out.h5")
    assert "has no result for truth; expected truth.mp4" in done.sentence(1)
    assert "give NAME.h5 for the report alone" in fourd("eval", "pairs", "truth", "truth", "-o", "out.pdf").sentence(2)


@pytest.mark.real
def test_the_whole_way_on_a_real_clip(test_data, tmp_path):
    """Lift, reenact without loss, judge with the embedded networks, beside both baselines."""
    from fourdface.media.video import open_video
    from support.calling import write_clip

    video = open_video(test_data / "driving" / "woman_extreme.mp4")
    frames = [frame.image_u8[::2, ::2] for frame, _ in zip(video, range(9), strict=False)]
    height, width = (size // 2 * 2 for size in frames[0].shape[:2])
    clip = write_clip(tmp_path / "clip.mp4", [np.ascontiguousarray(f[:height, :width]) for f in frames])
    call = ("eval", "self-reenact", clip, "--method", "splat", "--every", "4", "--work", tmp_path / "w")
    good(*call, "-o", tmp_path / "out")
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["systems"] == ["splat", "still", "similarity"]
    assert data["totals"]["splat"]["nme"]["value"] < 0.1 and data["totals"]["splat"]["nme"]["coverage"] == 1.0
    assert set(data["left_out"]) >= {"id", "csim", "feature_distance", "aed_f", "flicker_pixels"}
    assert len(data["captions"]) > 0 and (tmp_path / "w" / "splat" / "clip.h5").is_file()
    (tmp_path / "w" / "splat" / "clip.cost.json").write_text('{"seconds": ')
    again = fourd(*call, "--metrics", "seconds,psnr", "-o", tmp_path / "again")
    assert "clip.cost.json is damaged" in again.sentence(1) and not (tmp_path / "again").exists()


def studio(place: Path, views: int = 3) -> Path:
    """A calibrated subject: cameras on an arc, a white disc as its mask."""
    (place / "images").mkdir(parents=True)
    rows, columns = np.mgrid[:24, :20]
    frames = []
    for k in range(views):
        angle = 0.4 * (k - 1)
        matrix = np.eye(4)
        matrix[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        matrix[:3, 3] = matrix[:3, 2]  # OpenGL: the camera looks along -z, so it stands on +z
        mask = np.uint8(255 * ((rows - 12) ** 2 + (columns - 10 + k) ** 2 < 49))
        Image.fromarray(np.uint8(np.stack([mask // 2, mask, mask], -1))).save(place / "images" / f"{k}.png")
        Image.fromarray(mask).save(place / "images" / f"{k}_mask.png")
        frames.append({"file_path": f"images/{k}.png", "fg_mask_path": f"images/{k}_mask.png",
                       "transform_matrix": matrix.tolist()})  # fmt: skip
    data = {"fl_x": 30.0, "fl_y": 30.0, "cx": 10.0, "cy": 12.0, "w": 20, "h": 24, "frames": frames}
    (place / "transforms.json").write_text(json.dumps(data))
    return place


def test_novel_views_of_foreign_results(tmp_path):
    folder = studio(tmp_path / "subject")
    place = tmp_path / "theirs" / "subject-01"
    place.mkdir(parents=True)
    for k in range(3):
        image = np.asarray(Image.open(folder / "images" / f"{k}.png"))
        mask = np.asarray(Image.open(folder / "images" / f"{k}_mask.png"))
        Image.fromarray(np.dstack([image, np.roll(mask, 3 * (k == 2), axis=1)])).save(place / f"{k}.png")
    call = ("eval", "novel-view", folder, "--results", f"theirs={tmp_path / 'theirs'}")
    good(*call, "--metrics", "silhouette_iou,psnr", "-o", tmp_path / "out.h5")
    data = summarise(Report.read(tmp_path / "out.h5"))
    found = {name: row["silhouette_iou"] for name, row in data["by_sequence"]["theirs"].items()}
    assert found["subject 01>00"] == 1.0 and 0.4 < found["subject 01>02"] < 0.8 and len(found) == 2
    assert list(data["by_angle"]["theirs"]) == ["15-30"]  # 0.4 radians
    for name in ("silhouette_iou", "psnr"):
        assert data["by_angle"]["theirs"]["15-30"][name] == data["totals"]["theirs"][name]["value"]
    good(*call, "--inputs", "frontal", "--metrics", "psnr", "-o", tmp_path / "page")
    assert "By angle" in (tmp_path / "page" / "report.html").read_text()
    (place / "2.png").unlink()
    assert "theirs has 2 views of subject-01 and the subject 3" in fourd(*call, "-o", tmp_path / "o.h5").sentence(1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": []}, "must hold two or more finite 4x4 matrices"),
        ({"fl_x": "far"}, "does not hold calibrated views"),
        ({"frames": None}, "does not hold calibrated views"),
        ({"outside": "../../secret.png"}, "which lies outside of its folder"),
    ],
)
def test_wrong_calibrations(change, sentence, tmp_path):
    folder = studio(tmp_path / "subject")
    data = json.loads((folder / "transforms.json").read_text())
    if "outside" in change:
        data["frames"][0]["file_path"] = change["outside"]
    else:
        data |= change
    (folder / "transforms.json").write_text(json.dumps(data))
    done = fourd("eval", "novel-view", folder, "--results", f"a={tmp_path}", "-o", tmp_path / "o.h5")
    assert sentence in done.sentence(1)
