"""Networks and heads by name, and the configurations of configs/genhead."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from parity.rule import GENHEAD_EQLR, draw, fill

from fourdface.errors import FourdError
from fourdface.priors.genhead.camera import frontal_label
from fourdface.priors.genhead.config import SIZES, GenHeadConfig
from fourdface.priors.genhead.generator import GenHead
from fourdface.priors.genhead.load import build_genhead, genhead_from_state, head_geometry, load_genhead
from support.heads import synthetic_flame

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "genhead"


@pytest.mark.parametrize("name", sorted(SIZES))
def test_files_hold_the_named_sizes(name: str) -> None:
    """Only differences from the defaults, and the same as `SIZES`."""
    given = OmegaConf.load(CONFIGS / f"{name}.yaml")
    merged = OmegaConf.merge(OmegaConf.structured(GenHeadConfig), given)
    values = OmegaConf.to_container(merged)
    assert isinstance(values, dict)
    values["superresolution"] = tuple(values["superresolution"])
    assert GenHeadConfig(**values) == SIZES[name]  # type: ignore[misc]
    defaults = dataclasses.asdict(GenHeadConfig())
    assert all(values[key] != defaults[key] for key in given)


@torch.no_grad()
def test_a_state_dictionary_is_enough() -> None:
    """Network and head come back from the state, and the picture is the same."""
    config = dataclasses.replace(SIZES["tiny"], head="flame2020")
    network = GenHead(synthetic_flame(), config)
    fill(network, eqlr=GENHEAD_EQLR)
    again = genhead_from_state(network.state_dict(), config)
    z, pose, label = draw("z", (1, config.z_dim)), network.head.neutral(), frontal_label()
    assert torch.equal(again(z, pose, label).image, network(z, pose, label).image)
    assert torch.equal(again.head.face_mask, network.head.face_mask)


def test_open_head_by_name() -> None:
    network = build_genhead(SIZES["tiny"])
    assert network.head.expression_count == 52
    assert head_geometry("open").shape_count == network.head.shape_count


@pytest.mark.parametrize("name", ["flame2020", "flame2023"])
def test_gated_heads_say_how_to_get_them(name: str) -> None:
    with pytest.raises(FourdError, match=name):
        head_geometry(name)


def test_missing_checkpoint_says_how_to_get_it() -> None:
    with pytest.raises(FourdError, match="genhead-ffhq512"):
        load_genhead()
    with pytest.raises(FourdError, match="Unknown head model"):
        head_geometry("nobody")
