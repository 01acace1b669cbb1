"""`fourd lift`, `reenact` and `render` with the networks of Portrait4D: the path, not the beauty, of what they make."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import minimum_filter

from fourdface.artifacts import Avatar, Frames, Motion
from fourdface.cli.sources import embedded_weights
from fourdface.media.image import decode_png
from fourdface.media.video import open_video
from fourdface.methods.portrait4d.config import SIZES
from fourdface.methods.portrait4d.engine import Frame, read_motion
from fourdface.methods.portrait4d.tracking import crops_of
from fourdface.methods.portrait4d.weights import load_motion_encoder
from fourdface.stages.portrait import PortraitPlayer
from support.calling import files, fourd, good, show, write_clip
from support.lifted import avatar_artifact, talking_motion
from support.portraits import SMALLEST, write_weights
from support.scenes import make_photo
from support.seeing import FakePerception, picture

SIDE = SMALLEST.resolution
PHOTO = 144


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourdface.perception.load_perception", lambda *_: FakePerception())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "in.png"
    Image.fromarray(make_photo(PHOTO).image_u8).save(path)
    return path


@pytest.fixture(scope="module")
def avatar(tmp_path_factory: pytest.TempPathFactory, photo: Path, weights: list[str]) -> Path:
    path = tmp_path_factory.mktemp("avatar") / "a.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fourdface.perception.load_perception", lambda *_: FakePerception())
        good("lift", photo, "--method", "portrait4d-v2", *weights, "-o", path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames at 30000/1001 with sound; the head turns, and the third shows nobody."""
    pictures = [picture(128, 96, int(k != 2), yaw=0.1 * k, jaw=0.2 * k) for k in range(4)]
    return write_clip(tmp_path_factory.mktemp("driver") / "drive.mp4", pictures, Fraction(30000, 1001), sound=True)


def stills(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / name)) for name in files(folder)]


def test_a_photo_becomes_an_avatar_of_features(avatar: Path, photo: Path) -> None:
    lifted = Avatar.read(avatar)
    assert lifted.representation == "portrait4d" and lifted.provenance.method == "portrait4d-v2"
    assert (lifted.width, lifted.height) == (SIDE, SIDE)
    shapes = {name: (str(value.dtype), value.shape) for name, value in lifted.tensors.items()}
    half, tokens = SIDE // 2, (SIDE // 16) ** 2
    assert shapes["tokens"] == ("float16", (tokens, SMALLEST.width))
    assert shapes["detail"] == ("float16", (SMALLEST.feature_channels, half, half))
    assert shapes["background"] == ("float16", (SMALLEST.plane_channels, SIDE, SIDE))
    assert np.array_equal(decode_png(lifted.source_blob), np.asarray(Image.open(photo)))
    used = {entry.asset: entry.commercial_use for entry in lifted.provenance.weights}
    assert (
        used["psi.safetensors"] is False and used["motion.safetensors"] is False and lifted.provenance.synthetic_media
    )
    assert lifted.intrinsics[0, 0] == pytest.approx(4.757182 * SIDE, rel=1e-5)


def test_a_clip_drives_it(tmp_path: Path, avatar: Path, clip: Path, weights: list[str]) -> None:
    """As many frames as the driver at its rate with its sound; a frame without a face holds the last."""
    good("reenact", clip, "--avatar", avatar, *weights, "-o", tmp_path / "out.mp4")
    shown, driver = show(tmp_path / "out.mp4"), show(clip)
    assert len(shown.frames) == 4 and shown.rate == driver.rate and shown.size == (SIDE, SIDE)
    assert shown.sound_seconds == pytest.approx(driver.sound_seconds, abs=0.05) and driver.sound_seconds > 0.1
    assert shown.metadata["synthetic_media"] == "true" and shown.metadata["fourd_method"] == "portrait4d-v2"
    assert "in.png" in shown.metadata["comment"] and "drive.mp4" in shown.metadata["comment"]


def test_frames_are_lossless_repeatable_and_move(tmp_path: Path, avatar: Path, clip: Path, weights: list[str]) -> None:
    for name, batch in (("one.h5", 1), ("two.h5", 3)):
        call = ("reenact", clip, "--avatar", avatar, *weights, "--precision", "fp32", "--batch", batch)
        good(*call, "-o", tmp_path / name)
    one, two = Frames.read(tmp_path / "one.h5"), Frames.read(tmp_path / "two.h5")
    assert len(one.times) == len(two.times) == 4
    for a, b in zip(one.frame_blobs, two.frame_blobs, strict=True):  # up to the rounding of the driver's fit
        assert np.abs(decode_png(a).astype(float) - decode_png(b)).mean() < 0.2
    first, last = (decode_png(one.frame_blobs[k]).astype(float) for k in (0, 3))
    assert np.abs(first - last).mean() > 0.5
    held, before = (decode_png(one.frame_blobs[k]) for k in (2, 1))
    assert np.abs(held.astype(float) - before).mean() < 0.2
    names = [entry.asset for entry in one.provenance.weights]
    assert "psi.safetensors" in names and one.provenance.method == "portrait4d-v2"


def test_paste_back_changes_the_crop_alone(tmp_path: Path, avatar: Path, clip: Path, weights: list[str]) -> None:
    good("reenact", clip, "--avatar", avatar, *weights, "--paste-back", "--side-by-side", "-o", tmp_path / "out")
    pictures = stills(tmp_path / "out")
    assert pictures[0].shape == (PHOTO, PHOTO + round(128 * PHOTO / 96), 3)
    pasted, truth = pictures[0][:, -PHOTO:].astype(int), make_photo(PHOTO).image_u8.astype(int)
    changed = np.abs(pasted - truth).max(-1) > 3
    assert changed[40:100, 40:100].mean() > 0.5
    left, top, side = _crop(avatar)
    outside = np.ones_like(changed)
    outside[max(top, 0) : top + side, max(left, 0) : left + side] = False
    assert not changed[outside].any()


def test_the_drivers_background(
    tmp_path: Path, avatar: Path, clip: Path, weights: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the head lets through, the driver's picture stands instead of the photo's background."""
    whole = PortraitPlayer.frames
    seen = np.arange(SIDE)[None].repeat(SIDE, 0) >= SIDE // 2

    def right_half(player: PortraitPlayer, *given: Any) -> list[Frame]:
        return [replace(frame, alpha=seen.astype(np.float32)) for frame in whole(player, *given)]

    monkeypatch.setattr(PortraitPlayer, "frames", right_half)
    call = ("reenact", clip, "--avatar", avatar, *weights)
    for background in ("keep", "driver"):
        good(*call, "--background", background, "-o", tmp_path / background)
    own, driver = (np.stack(stills(tmp_path / name)).astype(int) for name in ("keep", "driver"))
    assert own.shape == driver.shape == (4, SIDE, SIDE, 3)
    assert np.abs(driver - own)[:, seen].max() <= 1 and np.abs(driver - own)[:, ~seen].mean() > 10
    first = next(iter(open_video(clip))).image_u8
    window = crops_of(FakePerception().faces(first)[0].landmarks, (128, 96), SIDE).portrait
    clear = window.apply(np.round(255 * FakePerception().matte(first, None)[..., None]).astype(np.uint8).repeat(3, 2))
    free = ~seen & (minimum_filter(clear[..., 0] == 0, 9))
    assert free.any() and np.abs(driver[0] - window.apply(first))[free].max() <= 1


def test_where_there_is_no_drivers_background(tmp_path: Path, avatar: Path, clip: Path, weights: list[str]) -> None:
    avatar_artifact().write(tmp_path / "g.h5")
    talking_motion().write(tmp_path / "m.h5")
    place = ("--background", "driver", "-o", tmp_path / "o")
    assert "driver" in fourd("reenact", clip, "--avatar", tmp_path / "g.h5", *place).sentence(2)
    assert "driver" in fourd("render", avatar, *weights, *place).sentence(2)
    assert "a motion has none" in fourd("reenact", tmp_path / "m.h5", "--avatar", avatar, *weights, *place).sentence(2)


def _crop(avatar: Path) -> tuple[int, int, int]:
    """The crop in pixels of the photo, rounded outwards: left, top, side."""
    width, _, scaled, _, left, top, size = (int(v) for v in Avatar.read(avatar).tensors["crop"])
    factor = width / scaled
    return int(np.floor(left * factor)), int(np.floor(top * factor)), int(np.ceil(size * factor)) + 1


def test_render_from_sides_and_with_a_turned_neck(tmp_path: Path, avatar: Path, weights: list[str]) -> None:
    good("render", avatar, *weights, "--yaw", 0, "--yaw", 30, "-o", tmp_path / "a")
    front, side = stills(tmp_path / "a")
    good("render", avatar, *weights, "--yaw", 0, "--head-pose", "30,0,0", "-o", tmp_path / "b")
    turned = stills(tmp_path / "b")[0]
    assert front.shape == (SIDE, SIDE, 3)
    assert np.abs(front.astype(float) - side).mean() > 1 and np.abs(front.astype(float) - turned).mean() > 1
    good("render", avatar, *weights, "--frames", 3, "--size", 100, "-o", tmp_path / "o.mp4")
    assert len(show(tmp_path / "o.mp4").frames) == 3 and show(tmp_path / "o.mp4").size == (100, 100)


def test_large_renders_transparency_and_seeds(tmp_path: Path, avatar: Path, weights: list[str]) -> None:
    call = ("render", avatar, *weights, "--yaw", 0, "--render-size", 128)
    good(*call, "--background", "transparent", "-o", tmp_path / "a")
    assert stills(tmp_path / "a")[0].shape == (128, 128, 4)
    for name, seed in (("b", 1), ("c", 1), ("d", 2)):
        good(*call, "--seed", seed, "-o", tmp_path / name)
    one, same, other = (stills(tmp_path / name)[0] for name in "bcd")
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    good("render", avatar, *weights, "--yaw", 0, "--background", "white", "-o", tmp_path / "w")


@pytest.mark.parametrize("suffix", ["ply", "obj", "glb"])
def test_mesh(tmp_path: Path, avatar: Path, weights: list[str], suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourdface.methods.portrait4d.surface.RESOLUTION", 40)
    place = tmp_path / f"head.{suffix}"
    assert good("render", avatar, *weights, "--mesh", place).out == b""
    assert place.read_bytes().startswith({"ply": b"ply\n", "obj": b"# right", "glb": b"glTF"}[suffix])
    assert place.stat().st_size > 10000
    assert "--overwrite" in fourd("render", avatar, *weights, "--mesh", place).sentence(2)


def test_static_lifting_needs_no_motion_encoder(tmp_path: Path, photo: Path, clip: Path, weights: list[str]) -> None:
    alone = weights[:2]
    good("lift", photo, "--method", "lp3d", *alone, "-o", tmp_path / "a.h5")
    good("reenact", clip, "--avatar", tmp_path / "a.h5", *alone, "-o", tmp_path / "out.h5")
    assert Frames.read(tmp_path / "out.h5").provenance.method == "lp3d"


def test_missing_weights_say_what_to_do(photo: Path, tmp_path: Path) -> None:
    sentence = fourd("lift", photo, "--method", "portrait4d", "-o", tmp_path / "a.h5").sentence()
    assert "fourd assets import" in sentence and "portrait4d-genhead512" in sentence
    assert not files(tmp_path)


def test_settings_that_ask_for_too_much_allocate_nothing(tmp_path: Path, photo: Path) -> None:
    """A small file that calls itself a network of terabytes."""
    import torch
    from safetensors.torch import save_file

    settings = json.dumps({"width": 65536, "motion_tokens": 65536})
    save_file({"w_avg": torch.zeros(512)}, str(tmp_path / "w.safetensors"), metadata={"fourd_reconstructor": settings})
    outcome = fourd("lift", photo, "--method", "lp3d", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "a.h5")
    assert "does not fit" in outcome.sentence()


def test_weights_of_another_network_are_refused(
    photo: Path, tmp_path: Path, avatar: Path, clip: Path, weights: list[str]
) -> None:
    _, psi, _, motion = weights
    call = ("lift", photo, "--method", "portrait4d-v2", "-o", tmp_path / "a.h5")
    assert "does not fit" in fourd(*call, "--weights", motion, "--motion-weights", motion).sentence()
    assert "does not fit" in fourd(*call, "--weights", psi, "--motion-weights", psi).sentence()
    assert "--weights FILE" in fourd("reenact", clip, "--avatar", avatar, "-o", tmp_path / "o.mp4").sentence(2)
    other = write_weights(tmp_path, replace(SIZES["tiny"], motion=548, motion_encoder="pdfgc"))
    sentence = fourd("reenact", clip, "--avatar", avatar, *other, "-o", tmp_path / "o.mp4").sentence()
    assert "--weights" in sentence


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--expression", "relative"), "motion embedding"),
        (("--paste-back", "--size", "100"), "--paste-back"),
        (("--paste-back", "--background", "driver"), "--paste-back"),
        (("--paste-back", "--background", "white"), "--paste-back"),
        (("--precision", "fp16", "--device", "cpu"), "fp16"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, avatar: Path, clip: Path, weights: list[str], arguments: tuple[str, ...], words: str
) -> None:
    outcome = fourd("reenact", clip, "--avatar", avatar, *weights, *arguments, "-o", tmp_path / "o.mp4")
    assert words in outcome.sentence(2)


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "100,0,0", ""])
def test_impossible_head_poses(tmp_path: Path, avatar: Path, weights: list[str], text: str) -> None:
    outcome = fourd("render", avatar, *weights, "--yaw", 0, "--head-pose", text, "-o", tmp_path / "o")
    assert "YAW,PITCH,ROLL" in outcome.sentence(2)


def test_a_motion_of_numbers_does_not_drive_it(tmp_path: Path, avatar: Path, weights: list[str]) -> None:
    talking_motion().write(tmp_path / "m.h5")
    outcome = fourd("reenact", tmp_path / "m.h5", "--avatar", avatar, *weights, "-o", tmp_path / "o.mp4")
    assert "pdfgc" in outcome.sentence(2)


def test_coefficients_drive_a_network_that_was_trained_on_them(tmp_path: Path, photo: Path) -> None:
    """Without PD-FGC; the face moves with the numbers alone, and Psi_3d of the same weights does not."""
    config = replace(SMALLEST, motion=61, motion_encoder="coefficients")
    weights = write_weights(tmp_path, config)[:2]
    motion = replace(talking_motion(3), rotation=np.zeros((3, 3), np.float32))
    motion.write(tmp_path / "m.h5")
    moved = {}
    for method in ("portrait4d-v2", "lp3d"):
        good("lift", photo, "--method", method, *weights, "-o", tmp_path / f"{method}.h5")
        assert Avatar.read(tmp_path / f"{method}.h5").tensors["motion"].shape == (61,)
        out = tmp_path / f"{method}-out.h5"
        good("reenact", tmp_path / "m.h5", "--avatar", tmp_path / f"{method}.h5", *weights, "-o", out)
        pictures = [decode_png(blob).astype(float) for blob in Frames.read(out).frame_blobs]
        moved[method] = np.abs(pictures[0] - pictures[-1]).mean()
    assert moved["lp3d"] < 1e-6 < moved["portrait4d-v2"]


def test_a_driver_is_encoded_once(
    tmp_path: Path, avatar: Path, clip: Path, weights: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A motion with its embedding and sound drives like the clip that it was made of."""
    monkeypatch.setattr("fourdface.stages.motion_embedding.CROP_SIZE", SIDE)
    good("preprocess", clip, "--keep-frames", "-o", tmp_path / "t.h5")
    fit = ("fit-flame", tmp_path / "t.h5", "--motion", "--embedding", "pdfgc", *weights[2:])
    good(*fit, "--sound", clip, "-o", tmp_path / "m.h5")
    motion = Motion.read(tmp_path / "m.h5")
    embedding = motion.embeddings["pdfgc"]
    assert embedding.shape == (4, 548) and embedding.dtype == np.float32
    assert np.array_equal(embedding[1], embedding[2]), "the third frame shows nobody"
    first = next(iter(open_video(clip))).image_u8
    crops = crops_of(FakePerception().faces(first)[0].landmarks, (128, 96), SIDE)
    truth = read_motion(load_motion_encoder(weights[3])[0], crops.portrait.apply(first), crops.motion, "cpu")
    assert np.abs(embedding[0] - truth.numpy()).max() < 1e-5 < 1e-4 < np.abs(embedding[3] - embedding[0]).max()
    assert "motion.safetensors" in [entry.asset for entry in motion.provenance.weights]
    for name, driver in (("clip", clip), ("motion", tmp_path / "m.h5")):
        good("reenact", driver, "--avatar", avatar, *weights, "--pose", "none", "-o", tmp_path / f"{name}.h5")
    pair = (Frames.read(tmp_path / f"{name}.h5").frame_blobs for name in ("clip", "motion"))
    for one, other in zip(*pair, strict=True):
        assert np.abs(decode_png(one).astype(float) - decode_png(other)).max() <= 1
    good("reenact", tmp_path / "m.h5", "--avatar", avatar, *weights, "-o", tmp_path / "out.mp4")
    assert show(tmp_path / "out.mp4").sound_seconds == pytest.approx(show(clip).sound_seconds, abs=0.05)


def test_embeddings_that_cannot_be_made_or_used(tmp_path: Path, avatar: Path, clip: Path, weights: list[str]) -> None:
    good("preprocess", clip, "-o", tmp_path / "t.h5")
    fit = ("fit-flame", tmp_path / "t.h5", "-o", tmp_path / "m.h5", "--embedding", "pdfgc")
    assert "--motion" in fourd(*fit).sentence(2)
    assert "--keep-frames" in fourd(*fit, "--motion", *weights[2:]).sentence(2)
    assert "motion_model.pth" in fourd(*fit, "--motion").sentence()
    replace(talking_motion(), embeddings={"pdfgc": np.zeros((6, 9), np.float32)}).write(tmp_path / "short.h5")
    outcome = fourd("reenact", tmp_path / "short.h5", "--avatar", avatar, *weights, "-o", tmp_path / "o.mp4")
    assert "548" in outcome.sentence(2)


def test_network_options_are_not_for_gaussians(tmp_path: Path, clip: Path, weights: list[str]) -> None:
    avatar_artifact().write(tmp_path / "g.h5")
    for arguments in (weights[:2], ["--paste-back"], ["--seed", 1], ["--render-size", 64]):
        outcome = fourd("reenact", clip, "--avatar", tmp_path / "g.h5", *arguments, "-o", tmp_path / "o.mp4")
        assert "Portrait4D" in outcome.sentence(2)
    assert "Portrait4D" in fourd("render", tmp_path / "g.h5", "--mesh", tmp_path / "m.ply").sentence(2)


def test_an_evaluation_runs_weights_of_ones_own(photo: Path, clip: Path, tmp_path: Path) -> None:
    numbers = replace(SMALLEST, motion=61, motion_encoder="coefficients")
    own = write_weights(tmp_path, numbers)[:2]
    call = ("eval", "cross-reenact", clip, "--photos", photo,
            "--metrics", "flicker_pixels", "--every", 1, *own, "--work", tmp_path / "w")
    good(*call, "--method", "portrait4d-v2", "-o", tmp_path / "one.h5")
    folder = next((tmp_path / "w").iterdir())
    assert folder.name.startswith("portrait4d-v2-") and (folder / "in+drive.h5").exists()
    sentence = fourd(*call, "--method", "portrait4d-v2", "--method", "splat", "-o", tmp_path / "two.h5").sentence(2)
    assert "one --method" in sentence and not (tmp_path / "two.h5").exists()


def test_a_fresh_machine_lifts_with_the_shipped_weights(photo: Path, tmp_path: Path) -> None:
    good("lift", photo, "--method", "lp3d", "-o", tmp_path / "a.h5")
    used = {entry.asset: entry.commercial_use for entry in Avatar.read(tmp_path / "a.h5").provenance.weights}
    assert used["portrait4d-static-tiny"] is False and used["open-head"] is True
    good("render", tmp_path / "a.h5", "--yaw", -30, "--yaw", 0, "--yaw", 30, "-o", tmp_path / "views")
    left, front, right = (image.astype(float) for image in stills(tmp_path / "views"))
    assert front.std() > 20 and np.abs(left - right).mean() > 5


def test_avatars_of_gaussians_do_not_name_networks_they_do_not_use() -> None:
    assert {entry.asset for entry in embedded_weights()} == {"open-head", "perception"}
