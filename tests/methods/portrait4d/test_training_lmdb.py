"""Portrait4D's recipes on the official LMDB layout: folders made here of painted balls in FLAME's world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from fourdface.errors import FourdError, UsageError
from fourdface.methods.portrait4d.config import SIZES
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.methods.portrait4d.perceived_motion import PerceivedMotion
from fourdface.methods.portrait4d.training import _static_view, make
from fourdface.methods.portrait4d.training_config import DataConfig, LossConfig, TrainingConfig
from fourdface.methods.portrait4d.training_data import PortraitViews
from fourdface.methods.portrait4d.training_lmdb import LmdbClips, open_samples
from fourdface.methods.portrait4d.view import FACE_ANCHOR, OPEN_FACE_ANCHOR, OPEN_HEAD, portrait_label
from fourdface.methods.portrait4d.weights import save_reconstructor
from fourdface.priors.genhead.camera import camera_from_label, look_at_label
from fourdface.training import TrainOptions, train
from fourdface.training.data import steps_of_batches
from fourdface.training.recipe import TrainState
from support.balls import draw_ball, write_balls
from support.lmdb_folders import clip_record, picture_record, store

pytest.importorskip("lmdb", reason="the package lmdb is not installed")

SIZE, FRAMES, CLIPS = 64, 5, 6
YAWS = np.array([-0.4, -0.2, 0.1, 0.3, 1.2])
"""Radians of the frames of a clip; the last looks too far to the side to be a source or driver."""
EVERY = DataConfig(held_out=0)
CONFIG = TrainingConfig(
    size="tiny", data=DataConfig(held_out=3), train=TrainOptions(batch=4), lr=2e-3, render_first=16,
    loss=LossConfig(perceptual_network="none", identity=0.0, adversarial=0.0, density_tv=0.0, pseudo=0.0),
)  # fmt: skip
V2 = replace(CONFIG, half_static=False, self_driven=True, motion="perceived", pseudo_driver=0.5)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny` in a size that a test can train."""
    size = replace(SIZES["tiny"], resolution=64, render_size=16, coarse_samples=8, fine_samples=8)
    monkeypatch.setitem(SIZES, "tiny", size)


def moments(person: int, yaws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, opacities and labels [N, 437] of a ball whose colour is its person's: blue says which frame it is."""
    yaw = torch.from_numpy(yaws).float()[:, None]
    still = torch.zeros_like(yaw)
    cameras = look_at_label(yaw, still, still, torch.zeros(len(yaws), 3), still + 4.0)
    images, opacities = [], []
    for k, (world_to_camera, intrinsics) in enumerate(zip(*camera_from_label(cameras, SIZE, SIZE), strict=True)):
        colour = np.array([0.3 + 0.1 * person, 0.5, 0.0])
        picture, opacity, _ = draw_ball(world_to_camera.numpy(), intrinsics.numpy(), SIZE, colour, 0.0)
        picture[..., 2] = k / 10
        images.append(np.round(picture * 255).astype(np.uint8))
        opacities.append(np.round(opacity * 255).astype(np.uint8))
    labels = np.random.default_rng(person).normal(size=(len(yaws), 437)).astype(np.float32)
    labels[:, :25] = cameras.numpy()
    return np.stack(images), np.stack(opacities), labels


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> str:
    records = [clip_record(*moments(person, YAWS)) for person in range(CLIPS)]
    return str(store(tmp_path_factory.mktemp("lmdb") / f"VFHQ_{SIZE}_{CLIPS}", records))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    parts = [moments(person, YAWS[person % 3 :][:1]) for person in range(CLIPS)]
    records = [picture_record(*(values[0] for values in part)) for part in parts]
    return str(store(tmp_path_factory.mktemp("lmdb") / f"FFHQ_{SIZE}_{CLIPS}", records))


def draw(samples: LmdbClips | PortraitViews, index: int, seed: int = 0) -> dict[str, Tensor]:
    return samples.draw(index, torch.Generator().manual_seed(seed))


def frame_of(image_u8: Tensor) -> int:
    return round(float(image_u8[2].median()) / 25.5)


def seen_at(label: Tensor, point: tuple[float, ...]) -> Tensor:
    """Where a point of the label's world is seen, 0..1 of the picture."""
    world_to_camera, intrinsics = camera_from_label(label[None], 1, 1)
    place = intrinsics[0] @ (world_to_camera[0, :3, :3] @ torch.tensor(point) / 3 + world_to_camera[0, :3, 3])
    return place[:2] / place[2]


def test_a_sample_is_two_frames_of_one_clip(clips: str) -> None:
    samples = LmdbClips([clips], SIZE, replace(EVERY, targets=2))
    assert len(samples) == CLIPS
    pairs = set()
    for index in (0, 5):
        pictures, opacities, labels = moments(index, YAWS)
        for seed in range(12):
            sample = draw(samples, index, seed)
            source, driver = frame_of(sample["source"]), frame_of(sample["driver"])
            pairs.add((source, driver))
            assert torch.equal(sample["source"], torch.from_numpy(pictures[source]).permute(2, 0, 1))
            for target, opacity, label in zip(sample["targets"], sample["opacities"], sample["labels"], strict=True):
                assert torch.equal(target, sample["driver"]) and torch.equal(label, sample["driver_label"])
                assert torch.equal(opacity[0], torch.from_numpy(opacities[driver]))
            for name, frame in (("source_label", source), ("driver_label", driver)):
                before = torch.from_numpy(labels[frame, :25])
                point = (0.2, -0.1, 0.3)
                there = tuple(a + b for a, b in zip(point, OPEN_HEAD, strict=True))
                assert torch.allclose(seen_at(sample[name], there), seen_at(before, point), atol=1e-5)
                assert torch.equal(sample[name][16:], before[16:])
            assert sample["known"].tolist() == [0, 1, 0] and int(sample["person"]) == index
    assert len(pairs) > 6 and all(a != b and 4 not in (a, b) for a, b in pairs)
    assert draw(LmdbClips([clips], SIZE, EVERY, self_driven=True), 0)["targets"].shape == (1, 3, SIZE, SIZE)


def test_cameras_stand_about_the_open_head(tmp_path: Path) -> None:
    """FLAME's published camera sees the open head's face in the middle, where the motion's crop looks for it."""
    pictures, opacities, labels = moments(0, YAWS[:2])
    labels[:, :25] = portrait_label(torch.tensor([[0.0, 0, 0], [0.1, 0.5, 0.0]]), FACE_ANCHOR).numpy()
    samples = LmdbClips([str(store(tmp_path / "V", [clip_record(pictures, opacities, labels)]))], SIZE, EVERY)
    sample = draw(samples, 0)
    straight = sample["source_label" if frame_of(sample["source"]) == 0 else "driver_label"]
    assert torch.allclose(seen_at(straight, OPEN_FACE_ANCHOR), torch.tensor([0.5, 0.5]), atol=1e-4)
    centre, half = PerceivedMotion()._crops(straight[None])
    assert centre.abs().max() < 0.15 and 0.4 < float(half) < 0.9
    flame, _ = PerceivedMotion()._crops(torch.from_numpy(labels[:1, :25]))
    assert flame[0, 1].abs() > 0.3  # in its own world the crop would miss the face


def test_a_photo_is_source_driver_and_target(photos: str) -> None:
    samples = LmdbClips([photos], 32, replace(EVERY, mirror=1.0, colour=0.2))
    plain = draw(LmdbClips([photos], 32, EVERY), 4)
    assert torch.equal(plain["source"], plain["driver"]) and torch.equal(plain["source"], plain["targets"][0])
    assert plain["source"].shape == (3, 32, 32) and len(samples) == CLIPS
    seen = draw(samples, 4)
    assert torch.equal(seen["opacities"], plain["opacities"].flip(-1))
    assert not torch.equal(seen["driver"], plain["driver"].flip(-1))
    assert torch.allclose(seen["driver_label"][3], -plain["driver_label"][3])


def test_held_out_records_are_never_trained_on(clips: str, photos: str) -> None:
    rule = DataConfig(held_out=3)
    trained, held = (LmdbClips([clips, photos], SIZE, rule, held_out=which) for which in (False, True))
    reds = [{int(s[k]["driver"][0].max()) for k in range(len(s))} for s in (trained, held)]
    assert (len(trained), len(held)) == (8, 4) and not reds[0] & reds[1]
    few = LmdbClips([clips, photos], SIZE, replace(rule, people=5))
    rest = open_samples([photos, clips], SIZE, rule, without=few)
    assert isinstance(rest, LmdbClips) and (len(few), len(rest)) == (5, 3)
    assert set(few.records) | set(rest.records) == set(trained.records)
    with pytest.raises(FourdError, match=r"VFHQ.* left to train on"):
        LmdbClips([clips], SIZE, DataConfig(held_out=1))


def test_samples_do_not_depend_on_workers(clips: str) -> None:
    samples = LmdbClips([clips], SIZE, replace(EVERY, mirror=0.5, colour=0.1))
    held_out = LmdbClips([clips], SIZE, DataConfig(held_out=3), held_out=True)  # one file, opened twice in a process
    draw(held_out, 0)
    one, two = (steps_of_batches(samples, 1, 4, 1, workers=count) for count in (0, 2))
    for _ in range(3):
        a, b = next(one)[0], next(two)[0]
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_true_motion_and_mixtures_are_refused(clips: str, tmp_path: Path) -> None:
    cpu, views = torch.device("cpu"), tmp_path / "balls.h5"
    write_balls(views, people=4)
    with pytest.raises(UsageError, match=r"motion=truth .*VFHQ.* --set motion=perceived"):
        make(replace(V2, motion="truth"), [clips], cpu)
    with pytest.raises(UsageError, match=r"VFHQ.* give one kind"):
        open_samples([clips, str(views)], SIZE, EVERY)
    assert isinstance(open_samples([str(views)], SIZE, EVERY), PortraitViews)
    with pytest.raises(UsageError, match=r"teacher .*VFHQ.* leave teacher out"):
        open_samples([clips], SIZE, EVERY, made_by="0" * 64)


def test_photos_join_views_as_their_static_half(photos: str, tmp_path: Path) -> None:
    """v1 with a static half of LMDB photos: the motion of the others is still the data's own."""
    write_balls(tmp_path / "balls.h5", people=4)
    data = DataConfig(held_out=3, static=(photos,), targets=2)
    recipe, samples = make(replace(CONFIG, data=data), [str(tmp_path / "balls.h5")], torch.device("cpu"))
    batch = next(steps_of_batches(samples, 0, 4, 1))[0]
    assert batch["depths"].shape == batch["static_depths"].shape == (4, 2, 32, 32)
    state = TrainState(0, 4, 100, torch.device("cpu"))
    state.begin("main")
    assert all(torch.isfinite(value) for value in recipe.step("main", batch, state).values())


def test_a_published_psi_3d_sees_its_own_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cameras about the open head become FLAME's again for a network that brings FLAME along."""
    network, seen = Reconstructor(CONFIG.network), []
    monkeypatch.setattr(network, "forward", lambda *args, **_: seen.append(args[3]))
    label = portrait_label(torch.zeros(1, 3), OPEN_FACE_ANCHOR)
    for expressions in (52, 100):
        monkeypatch.setattr(
            network, "deformer", SimpleNamespace(flame_deform=SimpleNamespace(expression_count=expressions))
        )
        _static_view(network, torch.zeros(1, 3, 64, 64), label, 16)
    assert torch.equal(seen[0], label)
    assert torch.allclose(seen[1], portrait_label(torch.zeros(1, 3), FACE_ANCHOR), atol=1e-6)


def test_a_few_steps_of_v2_lower_the_loss(clips: str, tmp_path: Path) -> None:
    """From a new Psi_3d; scores and grids of held-out clips are made with the perceived motion."""
    torch.manual_seed(0)
    cpu, place = torch.device("cpu"), str(tmp_path / "psi.safetensors")
    still, _ = make(replace(CONFIG, static=True), [clips], cpu)
    save_reconstructor(still.psi, Path(place))
    options = TrainOptions(batch=2, steps=6, log_every=6, image_every=6, score_every=6)
    recipe, samples = make(replace(V2, initial=place, synthesizer=place, train=options), [clips], cpu)
    batch, state = next(steps_of_batches(samples, 1, 2, 1))[0], TrainState(0, 2, 6, cpu)

    def loss() -> float:
        state.begin("main")
        found = recipe.step("main", batch, state)
        assert not found["depth"].any()
        return float(sum(value.detach() for value in found.values()))

    before = loss()
    train(recipe, samples, options, tmp_path / "run")
    after = loss()
    assert after < 0.85 * before, (before, after)
    assert list((tmp_path / "run" / "images").iterdir())
    names = {line.split(",")[2] for line in (tmp_path / "run" / "scalars.csv").read_text().splitlines()}
    assert {"score/psnr", "score/source", "score/mean-picture"} <= names and "score/depth" not in names


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """Also by a worker, and not before it is read."""
    good, (pictures, opacities, labels) = clip_record(*moments(0, YAWS[:2])), moments(1, YAWS[:2])
    bad = {
        "cut": good[:-10],
        "labels": clip_record(pictures, opacities, labels[:, :400]),
        "pixels": clip_record(pictures[:, :-1], opacities, labels),
        "nan": clip_record(pictures, opacities, labels * np.nan),
    }
    for name, record in bad.items():
        samples = LmdbClips([str(store(tmp_path / name, [good, record]))], SIZE, EVERY)
        draw(samples, 0)
        with pytest.raises(FourdError, match=f"{name}: record 1"):
            draw(samples, 1)
    samples = LmdbClips([str(store(tmp_path / "missing", [good], b"2"))], SIZE, EVERY)
    with pytest.raises(FourdError, match="missing has no record 00000001"):
        next(steps_of_batches(samples, 0, 2, 1, workers=1))
    with pytest.raises(FourdError, match="num_samples"):
        LmdbClips([str(store(tmp_path / "count", [good], b"99999999999"))], SIZE, EVERY)
