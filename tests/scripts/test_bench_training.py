"""The costs of training: counts against closed forms, and both tables at the smallest scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import conv2d, conv_transpose2d, grid_sample, linear

from fourdface.blocks.adversarial import r1_penalty
from fourdface.ops.triplane_sample import triplane_sample

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import bench_training

    return bench_training


def of_gradients(bench: Any, call: Any) -> int:
    """Operations of `call` and of its backward pass."""
    with bench.Counter() as counter:
        call().sum().backward()
    return counter.total


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=True)


def test_a_linear_layer(bench: Any) -> None:
    x, weight = randn(5, 7), randn(11, 7)
    assert of_gradients(bench, lambda: linear(x, weight)) == 3 * 2 * 5 * 7 * 11
    with bench.Counter() as counter:
        linear(x.detach(), weight.detach())
    assert counter.counts == {"products": 2 * 5 * 7 * 11}


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolutions(bench: Any, groups: int) -> None:
    x, weight = randn(2, 6, 9, 8), randn(12, 6 // groups, 3, 3)
    once = 2 * (2 * 12 * 5 * 4) * (6 // groups * 9)  # of every number of the result: inputs it is summed from
    assert of_gradients(bench, lambda: conv2d(x, weight, stride=2, padding=1, groups=groups)) == 3 * once
    assert of_gradients(bench, lambda: conv2d(x.detach(), weight, stride=2, padding=1, groups=groups)) == 2 * once


def test_transposed_convolution(bench: Any) -> None:
    x, weight = randn(2, 6, 5, 4), randn(6, 3, 2, 2)
    once = 2 * (2 * 6 * 5 * 4) * (3 * 4)  # of every number of the input: results it is added to
    assert of_gradients(bench, lambda: conv_transpose2d(x, weight, stride=2)) == 3 * once


def test_second_derivatives_of_r1(bench: Any) -> None:
    """A convolution W x, squared: its gradient by x is W^T g, whose own go to W, to g, and so to W and x again."""
    x, weight = randn(1, 4, 8, 8), randn(5, 4, 3, 3)
    once = 2 * (5 * 8 * 8) * (4 * 9)
    with bench.Counter() as counter:
        logits = conv2d(x, weight, padding=1).square().mean((1, 2, 3))[:, None]
        penalty = r1_penalty(logits, [x], [1.0])
        forward = counter.total
        penalty.backward()
    assert forward == 2 * once
    assert counter.total - forward == 4 * once


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_lookups(bench: Any, backend: str) -> None:
    """Four texels, a product and a sum each, for every point, plane and channel; the same to spread gradients."""
    planes, points = randn(2, 3, 4, 8, 8), torch.rand(2, 33, 3) - 0.5
    with bench.Counter() as counter:
        features = triplane_sample(planes, points, backend=backend)
        forward = counter.total
        features.sum().backward()
    once = 8 * 3 * 4 * 2 * 33
    assert forward == once and counter.counts == {"lookups": 2 * once}


def test_lookup_of_points_that_move(bench: Any) -> None:
    picture, grid = randn(1, 4, 8, 8), (torch.rand(1, 5, 6, 2) - 0.5).requires_grad_()
    assert of_gradients(bench, lambda: grid_sample(picture, grid, align_corners=False)) == (1 + 1 + 2) * 8 * 4 * 30


def test_attention(bench: Any) -> None:
    from torch.nn.functional import scaled_dot_product_attention

    query, key, value = (torch.randn(2, 3, n, 16) for n in (33, 31, 31))
    expected = 2 * 2 * (2 * 3 * 33 * 31 * 16)
    for device in ("cpu", "meta"):
        with bench.Counter() as counter:
            scaled_dot_product_attention(query.to(device), key.to(device), value.to(device))
        assert counter.total == expected, device


def test_parts_of_a_run(bench: Any) -> None:
    from fourdface.training.config import load_config

    for recipe in bench.RECIPES:
        config = load_config(bench.find_recipe(recipe).config, "paper", (), recipe=recipe)
        parts = bench.sections(config)
        assert sum(share for _, share in parts) == pytest.approx(1)
        if recipe == "portrait4d-static":  # of 15 million: before one, growing till two, and after
            assert [images for images, _ in parts] == [500_000, 1_500_000, 8_500_000]


def test_what_a_picture_costs(bench: Any, tmp_path: Path) -> None:
    """The phases in their proportions; counting without content gives what computing gives."""
    data = bench.make_views(tmp_path, 32, people=1, motions=2, views=2)

    cases = [bench.Case("portrait4d-static", "tiny", (data,), str(tmp_path), device=device)
             for device in ("meta", "cpu")]  # fmt: skip
    (images, empty), (_, computed) = (bench.picture_costs(case) for case in cases)
    run = bench.configured(cases[0]).train
    assert images == run.steps * run.batch and list(empty) == ["main", "density"]
    ratio = sum(computed["density"].values()) / sum(empty["density"].values())
    assert ratio == pytest.approx(1, abs=0.02)
    often = bench.picture_costs(replace(cases[0], overrides=("loss.density_every=4",)))[1]
    assert often["density"] == pytest.approx({kind: 4 * value for kind, value in empty["density"].items()})
    assert often["main"] == empty["main"]


@pytest.mark.parametrize("recipe", ["genhead", "portrait4d-v2"])
def test_tables(bench: Any, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["throughput", "--recipe", recipe, "--batch", "2", "--steps", "1", "--warm", "0", "--threads", "1"])
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    assert row[:2] == [f"`{recipe}`", "2"]
    rate, milliseconds, memory = map(float, row[2:])
    assert rate == pytest.approx(2000 / milliseconds, rel=0.05) and 100 < memory < 4000
    bench.main(["cost", "--recipe", recipe, "--size", "tiny", "--utilisation", "0.5"])
    work, *_, hours = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert ("r1" in work) == (recipe == "genhead") and ("pseudo" in work) == (recipe == "portrait4d-v2")
    assert len(hours.strip("|").split("|")) == 1 + len(bench.PEAKS)
