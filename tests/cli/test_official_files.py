"""From files in the official form to a video: import, lift, reenact.

Small: the manifests are made to say the sizes of a tiny network, all else is as a user does it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from parity.rule import PSI_EQLR, fill
from PIL import Image

from fourdface.artifacts import Avatar
from fourdface.assets import load_record, load_registry, load_weights, manifests
from fourdface.blocks.head_model import HeadModel
from fourdface.methods.portrait4d.bfm_to_flame import BfmToFlame
from fourdface.methods.portrait4d.config import SIZES
from fourdface.methods.portrait4d.motion_encoder import MotionEncoder
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.methods.portrait4d.weights import METHODS
from fourdface.priors.genhead.head import HeadGeometry
from support.calling import fourd, good, show, write_clip
from support.checkpoints import module_tree, persistence_pickle
from support.portraits import SMALLEST
from support.scenes import make_photo
from support.seeing import FakePerception, picture

STRUCTURE = "portrait4d-psi"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """Entries of a small Psi with a head model, under the official names."""
    head = HeadGeometry.from_head_model(HeadModel.load("open"))
    return dict(fill(Reconstructor(SMALLEST, head), eqlr=PSI_EQLR).state_dict())


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch, state: dict[str, torch.Tensor]) -> Iterator[None]:
    packed = copy.deepcopy(manifests._packed())
    packed["shapes"][STRUCTURE] = {name: list(value.shape) for name, value in state.items()}
    packed["integers"][STRUCTURE] = [name for name, value in state.items() if not value.is_floating_point()]
    monkeypatch.setattr(manifests, "_packed", lambda: packed)
    monkeypatch.setitem(SIZES, "paper", SMALLEST)
    monkeypatch.setattr("fourdface.perception.load_perception", lambda *_: FakePerception())
    manifests.all_manifests.cache_clear()
    yield
    manifests.all_manifests.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, torch.Tensor]) -> Path:
    """A user's folder: official files, a photo, a clip with sound."""
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path / "assets"))
    tree = module_tree(state, rendering_kwargs={"box_warp": 1.3}, _init_kwargs={"img_resolution": 512})
    for name in ("portrait4d-v2-vfhq512", "portrait4d-genhead512", "portrait4d-static-genhead512"):
        persistence_pickle(tmp_path / f"{name}.pkl", tree)
    torch.save(fill(MotionEncoder(), "pdfgc.").state_dict(), tmp_path / "motion_model.pth")
    torch.save(fill(BfmToFlame(), "mapper.").state_dict(), tmp_path / "model-iter200000.pth")
    Image.fromarray(make_photo(96).image_u8).save(tmp_path / "in.png")
    pictures = [picture(128, 96, 1, yaw=0.1 * k) for k in range(2)]
    write_clip(tmp_path / "drive.mp4", pictures, Fraction(25), sound=True)
    return tmp_path


@pytest.mark.usefixtures("_small")
def test_from_official_files_to_a_video(folder: Path) -> None:
    for name in ("portrait4d-v2-vfhq512.pkl", "motion_model.pth", "model-iter200000.pth"):
        good("assets", "import", folder / name)
    assert load_record("portrait4d-v2-vfhq512")["structure"] == STRUCTURE
    mapper = BfmToFlame()
    mapper.load_state_dict(load_weights("bfm2flame-mapper"))
    assert torch.equal(mapper.maps[0].weight, fill(BfmToFlame(), "mapper.").state_dict()["maps.0.weight"])
    good("lift", folder / "in.png", "--method", "portrait4d-v2", "-o", folder / "a.h5")
    avatar = Avatar.read(folder / "a.h5")
    licences = {entry.asset: entry.commercial_use for entry in avatar.provenance.weights}
    assert licences["portrait4d-v2-vfhq512"] is False and licences["pdfgc-motion"] is False
    good("reenact", folder / "drive.mp4", "--avatar", folder / "a.h5", "-o", folder / "out.mp4")
    shown = show(folder / "out.mp4")
    assert len(shown.frames) == 2 and shown.rate == 25 and shown.size == (SMALLEST.resolution,) * 2
    assert shown.sound_seconds == pytest.approx(show(folder / "drive.mp4").sound_seconds, abs=0.05)
    assert shown.metadata["fourd_method"] == "portrait4d-v2"


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("method", ["portrait4d", "lp3d"])
def test_the_other_reconstructors(folder: Path, method: str) -> None:
    asset = METHODS[method].asset
    if METHODS[method].shipped in load_registry():  # our own small network stands in for the published one
        assert asset in good("lift", folder / "in.png", "--method", method, "-o", folder / "own.h5").err
    else:
        sentence = fourd("lift", folder / "in.png", "--method", method, "-o", folder / "a.h5").sentence()
        assert asset in sentence and "fourd assets import" in sentence
    good("assets", "import", folder / f"{asset}.pkl")
    if METHODS[method].motion_scale:
        sentence = fourd("lift", folder / "in.png", "--method", method, "-o", folder / "a.h5").sentence()
        assert "motion_model.pth" in sentence
        good("assets", "import", folder / "motion_model.pth")
    good("lift", folder / "in.png", "--method", method, "-o", folder / "a.h5")
    good("reenact", folder / "drive.mp4", "--avatar", folder / "a.h5", "-o", folder / "out.mp4")
    assert len(show(folder / "out.mp4").frames) == 2


def test_a_small_network_is_no_official_file(folder: Path) -> None:
    sentence = fourd("assets", "import", folder / "portrait4d-v2-vfhq512.pkl").sentence()
    assert "was refused" in sentence and "no model that fourd knows" in sentence
