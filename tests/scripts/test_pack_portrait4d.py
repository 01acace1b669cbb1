"""A packed network is half as large, and the same to half precision; an asset of it is taken without --weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from parity.rule import PSI_EQLR, fill

from fourdface.errors import FourdError
from fourdface.methods.portrait4d import weights
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.methods.portrait4d.weights import default_weights, load_reconstructor, save_reconstructor
from support.portraits import SMALLEST

SCRIPT = Path(__file__).parents[2] / "scripts" / "pack_portrait4d.py"


def load_script() -> object:
    spec = importlib.util.spec_from_file_location("pack_portrait4d", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_half_the_size_and_the_same_network(tmp_path: Path) -> None:
    network = fill(Reconstructor(SMALLEST), eqlr=PSI_EQLR)
    save_reconstructor(network, tmp_path / "whole.safetensors")
    size = load_script().pack(tmp_path / "whole.safetensors", tmp_path / "half.safetensors")  # type: ignore[attr-defined]
    assert size < 0.55 * (tmp_path / "whole.safetensors").stat().st_size
    packed, _ = load_reconstructor(tmp_path / "half.safetensors")
    assert packed.config == SMALLEST
    for name, value in network.state_dict().items():
        assert torch.allclose(packed.state_dict()[name], value, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        network.decoder.out_rgb.bias.fill_(1e6)
    save_reconstructor(network, tmp_path / "wild.safetensors")
    with pytest.raises(FourdError, match="half precision"):
        load_script().pack(tmp_path / "wild.safetensors", tmp_path / "no.safetensors")  # type: ignore[attr-defined]


def test_own_weights_stand_in_for_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_weights("portrait4d") == "portrait4d-genhead512"
    own = weights.METHODS["lp3d"].shipped
    monkeypatch.setattr(weights, "load_registry", lambda: {own: SimpleNamespace()})
    monkeypatch.setattr(weights, "find_asset", lambda _: None)
    assert default_weights("lp3d") == own
    monkeypatch.setattr(weights, "find_asset", lambda _: Path("there"))
    assert default_weights("lp3d") == "portrait4d-static-genhead512"
