"""The engine against the network that it runs: what is kept of the source, frames at once, compiled parts."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from parity.rule import PSI_EQLR, draw, fill

from fourdface.blocks.head_model import HeadModel
from fourdface.methods.portrait4d.compiled import Compiled
from fourdface.methods.portrait4d.engine import Engine, EngineOptions
from fourdface.methods.portrait4d.motion_encoder import MotionEncoder
from fourdface.methods.portrait4d.network import Reconstructor, Source
from fourdface.priors.genhead.camera import frontal_label
from fourdface.priors.genhead.head import HeadGeometry
from support.portraits import SMALLEST

TURNS = torch.tensor([[0.1, 0.3, 0.0], [0.0, -0.2, 0.1], [0.0, 0.0, 0.0]])


@pytest.fixture(scope="module")
def engine() -> Engine:
    network = fill(Reconstructor(SMALLEST, HeadGeometry.from_head_model(HeadModel.load("open"))), eqlr=PSI_EQLR)
    assert isinstance(network, Reconstructor)
    return Engine(network.requires_grad_(False), MotionEncoder().eval())


@pytest.fixture(scope="module")
def source(engine: Engine) -> Source:
    crop_u8 = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return engine.adopt(engine.encode(crop_u8, draw("motion:source", (1, 548))))


def motions(count: int = 3) -> torch.Tensor:
    return draw("motion:driver", (count, 548))


def test_the_detail_features_part_is_kept(engine: Engine, source: Source) -> None:
    """The first convolution of G_T in two halves, and one source for several motions, against one call each."""
    together = engine.planes(source, motions())
    with torch.inference_mode():
        for k, motion in enumerate(motions().split(1)):
            plain = Source(source.tokens, source.size, source.detail, source.background)
            truth = engine.network.planes(plain, motion)[0]
            assert torch.allclose(together[k], truth, atol=1e-5 * float(truth.abs().max()))
    with pytest.raises(ValueError, match="adopted"):
        engine.planes(plain, motions())


def test_frames_at_once_are_those_one_by_one(engine: Engine, source: Source) -> None:
    planes, labels = engine.planes(source, motions()), frontal_label(batch=3)
    labels[1, 3] += 0.2
    together = engine.render_all(planes, source.background, labels, TURNS)
    for k, frame in enumerate(together):
        alone = engine.render(planes[k : k + 1], source.background, labels[k : k + 1], TURNS[k])
        assert np.abs(frame.picture_u8.astype(int) - alone.picture_u8).max() <= 1
        assert np.abs(frame.alpha - alone.alpha).max() < 1e-3
    assert np.abs(together[0].picture_u8.astype(int) - together[1].picture_u8).max() > 2


def test_what_cannot_be_compiled_runs_plainly(
    engine: Engine, source: Source, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(function: Any, **_: Any) -> Any:
        def call(*_: Any) -> torch.Tensor:
            raise RuntimeError("no Triton\nand a long story")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    options = EngineOptions(batch=4, compile=True)
    with caplog.at_level(logging.WARNING, "fourdface"):
        other = Engine(engine.network, engine.motion_encoder, options=options)
        planes = other.planes(source, motions())
        other.render_all(planes, source.background, frontal_label(batch=3))
        other.planes(source, motions())
    assert torch.allclose(planes, engine.planes(source, motions()), atol=1e-4)
    assert len(planes) == 3, "a batch is filled up for the compiler, and cut again"
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and all("(no Triton)" in words for words in said), "once for each of two parts"


def test_results_of_graphs_are_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs write each result to the same memory."""
    memory = torch.zeros(3)
    modes = []

    def graph(function: Any, *, mode: str, dynamic: bool) -> Any:
        modes.append(mode)
        return lambda x: memory.copy_(function(x))

    monkeypatch.setattr(torch, "compile", graph)
    doubled = Compiled(lambda x: 2 * x, "cuda")
    first, second = doubled(torch.ones(3)), doubled(torch.full((3,), 2.0))
    assert first.tolist() == [2, 2, 2] and second.tolist() == [4, 4, 4] and modes == ["reduce-overhead"]


@pytest.mark.slow
def test_compiled_for_this_processor(engine: Engine, source: Source) -> None:
    other = Engine(engine.network, engine.motion_encoder, options=EngineOptions(batch=2, compile=True))
    found, truth = other.planes(source, motions(2)), engine.planes(source, motions(2))
    assert torch.allclose(found, truth, atol=1e-4 * float(truth.abs().max()))
