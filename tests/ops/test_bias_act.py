"""bias_act against StyleGAN2's own numbers, its definition, and finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from parity.rule import parity_arrays

from fourdface.ops.bias_act import ACTIVATIONS, bias_act, bias_act_reference


def test_stylegan2_numbers() -> None:
    numbers = parity_arrays("stylegan2_ops_fixture.npz", "eg3d_gen3d_coherent3d")
    out = bias_act(numbers["x"], numbers["b"], activation="lrelu")
    torch.testing.assert_close(out, numbers["bias_act_lrelu"], rtol=0, atol=1e-5)
    limit = float(numbers["bias_act_lrelu_clamp"].abs().max())
    out = bias_act(numbers["x"], numbers["b"], activation="lrelu", clamp=limit)
    torch.testing.assert_close(out, numbers["bias_act_lrelu_clamp"], rtol=0, atol=1e-5)


def test_definition() -> None:
    x, bias = torch.linspace(-3, 3, 24).reshape(2, 4, 3), torch.tensor([0.5, -1.0, 0.0, 2.0])
    shifted = x + bias[:, None]
    expected = torch.where(shifted > 0, shifted, 0.3 * shifted) * 2
    torch.testing.assert_close(bias_act(x, bias, activation="lrelu", slope=0.3, gain=2), expected)
    torch.testing.assert_close(bias_act(x, bias, activation="relu"), shifted.clamp_min(0) * math.sqrt(2))
    torch.testing.assert_close(bias_act(x, torch.ones(3), dim=2, clamp=1.5), (x + 1).clamp(-1.5, 1.5))
    torch.testing.assert_close(bias_act(x), x)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_gradients_twice(activation: str) -> None:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, generator=draw, dtype=torch.float64, requires_grad=True)

    def op(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return bias_act(a, b, activation=activation, clamp=1.3)

    assert torch.autograd.gradcheck(op, (x, bias))
    assert torch.autograd.gradgradcheck(op, (x, bias))


def test_shapes_that_are_awkward() -> None:
    assert bias_act(torch.zeros(0, 3), torch.zeros(3), activation="lrelu").shape == (0, 3)
    x = torch.randn(33, 257).T
    torch.testing.assert_close(bias_act(x, torch.arange(33.0), dim=1), x + torch.arange(33.0))
    assert torch.isnan(bias_act(torch.tensor([[torch.nan]]), clamp=1.0, activation="lrelu")).all()
    half = bias_act(torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(3), backend="reference")
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation": "gelu"}, "activation must be one of"),
        ({"bias": torch.zeros(4)}, "bias must be"),
        ({"clamp": -1.0}, "clamp must not be negative"),
        ({"backend": "native"}, "backend must be"),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bias_act(**{"x": torch.zeros(2, 3), **change})  # type: ignore[arg-type]


def test_without_gradient_nothing_changes() -> None:
    """The way in place gives the same numbers and leaves its input alone."""
    x, bias = torch.randn(3, 5, 7), torch.randn(5)
    kept = x.clone()
    for clamp in (None, 0.7):
        out = bias_act(x, bias, activation="lrelu", clamp=clamp)
        assert torch.equal(out, bias_act_reference(x, bias, activation="lrelu", clamp=clamp))
        assert torch.equal(x, kept)
    zero = bias_act(x, torch.zeros(5), activation="lrelu", gain=1.0)
    assert torch.equal(zero, torch.where(x > 0, x, 0.2 * x))
    with pytest.raises(ValueError, match="clamp must not be negative"):
        bias_act(x, bias, activation="lrelu", clamp=-1.0)


def test_reference_is_the_op() -> None:
    x = torch.randn(2, 3, 5)
    assert torch.equal(bias_act(x, activation="swish"), bias_act_reference(x, activation="swish"))
