"""Samples out of `views`: who stands beside whom, mirrors, colours, and people that are held out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.errors import FourdError, UsageError
from fourdface.methods.portrait4d.training_config import DataConfig
from fourdface.methods.portrait4d.training_data import PortraitViews, mirrored_motion, view_files
from support.balls import write_balls


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("views") / "balls.h5"
    write_balls(path, people=5)
    return str(path)


def draw(samples: PortraitViews, index: int, seed: int = 0) -> dict[str, torch.Tensor]:
    return samples.draw(index, torch.Generator().manual_seed(seed))


def test_source_and_target_are_two_moments_of_one_person(data: str) -> None:
    samples = PortraitViews([data], 64, DataConfig(targets=2, held_out=0))
    assert len(samples) == 10
    for index in range(10):
        sample = draw(samples, index)
        assert sample["targets"].shape == (2, 3, 64, 64) and sample["depths"].shape == (2, 32, 32)
        assert not torch.equal(sample["source_motion"], sample["motion"])
        assert not any(torch.equal(target, sample["driver"]) for target in sample["targets"])
        assert int(sample["person"]) == index // 2 and sample["known"].tolist() == [1, 1, 1]
    assert torch.equal(draw(samples, 3)["source"], draw(samples, 3)["source"])


def test_held_out_people_are_never_trained_on(data: str) -> None:
    rule = DataConfig(held_out=2)  # persons are numbered from 1
    names = [{m.person[1] for m in PortraitViews([data], 64, rule, held_out=held).moments} for held in (False, True)]
    assert names == [{1, 3, 5}, {2, 4}]
    assert {m.person[1] for m in PortraitViews([data], 64, DataConfig(held_out=2, people=2)).moments} == {1, 3}
    with pytest.raises(FourdError, match="kept for scores"):
        PortraitViews([data], 64, DataConfig(held_out=100), held_out=True)


def test_mirror_turns_pictures_motion_and_camera(data: str) -> None:
    plain = draw(PortraitViews([data], 64, DataConfig(held_out=0)), 1)
    seen = draw(PortraitViews([data], 64, DataConfig(held_out=0, mirror=1.0)), 1)
    assert torch.equal(seen["source"], plain["source"].flip(-1))
    # the ball's own geometry is its mirror image: what the mirrored camera sees of it is the mirrored depth
    camera, other = seen["labels"][0, :16].reshape(4, 4), plain["labels"][0, :16].reshape(4, 4)
    assert torch.allclose(torch.linalg.det(camera[:3, :3]), torch.tensor(1.0), atol=1e-5)
    assert torch.allclose(camera[:3, 3], other[:3, 3] * torch.tensor([-1.0, 1, 1]))


def test_mirrored_motion_swaps_sides_and_is_its_own_inverse() -> None:
    motion = np.random.default_rng(0).normal(size=61).astype(np.float32)
    seen = mirrored_motion(motion)
    assert seen[ARKIT_INDEX["eyeBlinkLeft"]] == motion[ARKIT_INDEX["eyeBlinkRight"]]
    assert seen[ARKIT_INDEX["jawOpen"]] == motion[ARKIT_INDEX["jawOpen"]]
    assert seen[55] == motion[58] and seen[56] == -motion[59]  # the other eye: up and down stay, sides turn
    assert np.array_equal(mirrored_motion(seen), motion)


def test_colours_change_alike_in_all_pictures(data: str) -> None:
    samples = PortraitViews([data], 64, DataConfig(held_out=0, colour=0.3))
    plain, seen = draw(PortraitViews([data], 64, DataConfig(held_out=0)), 0), draw(samples, 0)
    assert not torch.equal(plain["source"], seen["source"])
    corner = [seen[name][..., :, 0, 0].reshape(-1, 3)[0] for name in ("source", "driver", "background", "targets")]
    assert all(torch.equal(corner[0], other) for other in corner)  # the background's colour
    assert torch.equal(plain["opacities"], seen["opacities"])


def test_photos_without_truth(tmp_path: Path) -> None:
    path = tmp_path / "photos.h5"
    write_balls(path, people=2, motions=1, views=1, opacities=None, depths=None, background_index=np.full(2, -1))
    sample = draw(PortraitViews([str(path)], 32, DataConfig(held_out=0, targets=2)), 0)
    assert sample["known"].tolist() == [0, 0, 0] and sample["targets"].shape == (2, 3, 32, 32)
    assert torch.equal(sample["source"], sample["driver"])


def test_paths(data: str, tmp_path: Path) -> None:
    assert view_files([str(Path(data).parent)]) == [data]
    for paths in ([], [str(tmp_path)]):
        with pytest.raises(UsageError, match=r"there is no \.h5 file"):
            view_files(paths)
    with pytest.raises(UsageError, match="does not exist"):
        view_files([str(tmp_path / "none")])
