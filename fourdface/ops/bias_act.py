"""Bias, activation, gain and clamp in one step, as StyleGAN2's layers use them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from fourdface.ops import _native

__all__ = ["ACTIVATIONS", "bias_act", "bias_act_reference"]


class Activation(NamedTuple):
    """A function of (x, slope), and the gain that keeps the variance of normal inputs roughly at 1."""

    function: Callable[[Tensor, float], Tensor]
    gain: float


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x, _: x, 1.0),
    "relu": Activation(lambda x, _: functional.relu(x), math.sqrt(2)),
    "lrelu": Activation(functional.leaky_relu, math.sqrt(2)),
    "tanh": Activation(lambda x, _: torch.tanh(x), 1.0),
    "sigmoid": Activation(lambda x, _: torch.sigmoid(x), 1.0),
    "softplus": Activation(lambda x, _: functional.softplus(x), 1.0),
    "swish": Activation(lambda x, _: functional.silu(x), math.sqrt(2)),
}


def bias_act(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    dim: int = 1,
    activation: str = "linear",
    slope: float = 0.2,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Return clamp(gain activation(x + bias)).

    Args:
        x: any shape. bias: [x.shape[dim]], converted to x's type, or None. dim: the axis of the bias.
        activation: one of `ACTIVATIONS`. slope: of "lrelu" below zero. gain: None is the activation's own.
        clamp: largest absolute value of the result, >= 0; None does not clamp.
        backend: "auto" or "reference"; both are torch (docs/methods/genhead.md says why).

    Returns:
        x's shape, differentiable twice.

    Raises:
        ValueError: an unknown activation, a bias of the wrong length, or a negative clamp.
    """
    _native.check_backend(backend, ("auto", "reference"))
    _check(x, bias, dim, activation, clamp)
    wants_gradient = torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad))
    if backend == "reference" or activation != "lrelu" or bias is None or wants_gradient:
        return bias_act_reference(x, bias, dim=dim, activation=activation, slope=slope, gain=gain, clamp=clamp)
    # In place on the sum: pages of new memory are what this costs on a CPU.
    out = bias_act_reference(x, bias, dim=dim)
    functional.leaky_relu_(out, slope).mul_(ACTIVATIONS[activation].gain if gain is None else gain)
    return out if clamp is None else out.clamp_(-clamp, clamp)


def bias_act_reference(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    dim: int = 1,
    activation: str = "linear",
    slope: float = 0.2,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Compute step by step; arguments and result as in `bias_act`."""
    _check(x, bias, dim, activation, clamp)
    if bias is not None:
        shape = [1] * x.ndim
        shape[dim] = -1
        x = x + bias.to(x.dtype).reshape(shape)
    function, own_gain = ACTIVATIONS[activation]
    x = function(x, slope)
    factor = own_gain if gain is None else gain
    if factor != 1:
        x = x * factor
    return x if clamp is None else x.clamp(-clamp, clamp)


def _check(x: Tensor, bias: Tensor | None, dim: int, activation: str, clamp: float | None) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp must not be negative, got {clamp}")
    if bias is not None:
        _native.check_shape("bias", bias, (int(x.shape[dim]),))
