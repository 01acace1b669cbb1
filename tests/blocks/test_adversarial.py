"""Losses, gradient penalty, blur and schedules of adversarial training."""

from __future__ import annotations

import math

import pytest
import torch

from fourdface.blocks.adversarial import (
    blurred,
    discriminator_loss,
    generator_loss,
    linear_schedule,
    partly_rolled,
    r1_penalty,
)


def test_losses_by_hand() -> None:
    """-log of the sigmoid, written out."""

    def log_sigmoid(x: float) -> float:
        return math.log(1 / (1 + math.exp(-x)))

    real, fake = torch.tensor([[2.0], [-1.0]]), torch.tensor([[0.5], [3.0]])
    expected = -(log_sigmoid(0.5) + log_sigmoid(3.0)) / 2
    assert float(generator_loss(fake)) == pytest.approx(expected, rel=1e-6)
    expected = -(log_sigmoid(2.0) + log_sigmoid(-1.0)) / 2 - (log_sigmoid(-0.5) + log_sigmoid(-3.0)) / 2
    assert float(discriminator_loss(real, fake)) == pytest.approx(expected, rel=1e-6)


def test_losses_of_extreme_logits_are_finite() -> None:
    """Where a sigmoid underflows the loss is linear, and so is its gradient."""
    fake = torch.tensor([[-500.0]], requires_grad=True)
    loss = generator_loss(fake)
    loss.backward()
    assert float(loss) == 500 and fake.grad is not None and float(fake.grad) == -1


def test_r1_of_a_quadratic_by_hand() -> None:
    """D = |x|^2 + 3 sum y: the gradients are 2 x and 3."""
    x = torch.tensor([[1.0, 2.0], [0.0, -1.0]], requires_grad=True)
    y = torch.zeros(2, 4, requires_grad=True)
    logits = (x.square().sum(1) + 3 * y.sum(1))[:, None]
    squares = ((4 * 5) + (4 * 1)) / 2
    assert float(r1_penalty(logits, [x, y], [1.0, 10.0])) == pytest.approx(0.5 * squares + 5 * 9 * 4)


def test_r1_agrees_with_finite_differences_and_its_gradient_too() -> None:
    """First derivatives by differences of the logits; the penalty's own gradient by differences of the penalty."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Softplus(), torch.nn.Linear(7, 1)).double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)

    def penalty() -> torch.Tensor:
        return r1_penalty(net(x), [x], [2.0])

    step, total = 1e-5, 0.0
    for i in range(3):
        for k in range(5):
            moved = x.detach().repeat(2, 1, 1)
            moved[0, i, k] += step
            moved[1, i, k] -= step
            with torch.no_grad():
                slope = (net(moved[0]) - net(moved[1])).sum() / (2 * step)
            total += float(slope) ** 2
    value = penalty()
    assert float(value) == pytest.approx(total / 3, rel=1e-6)  # gamma / 2 = 1, mean over three samples
    value.backward()
    weight = net[0].weight
    assert isinstance(weight, torch.nn.Parameter) and weight.grad is not None
    analytic = float(weight.grad[2, 3])
    with torch.no_grad():
        weight[2, 3] += step
    up = float(penalty())
    with torch.no_grad():
        weight[2, 3] -= 2 * step
    assert analytic == pytest.approx((up - float(penalty())) / (2 * step), rel=1e-5)


def test_r1_refuses_inputs_without_gradient() -> None:
    """A forgotten requires_grad_() would otherwise be a penalty of nothing."""
    x = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(ValueError, match="require no gradient"):
        r1_penalty(x.sum(1), [x, torch.ones(2, 3)], [1.0, 1.0])
    with pytest.raises(ValueError, match="one weight per input"):
        r1_penalty(x.sum(1), [x], [1.0, 1.0])


@pytest.mark.parametrize("size", [1, 31, 32, 33])
def test_blur_keeps_a_plain_picture_and_the_mean_of_an_impulse(size: int) -> None:
    """Weights sum to one, borders included."""
    plain = torch.full((2, 3, size, size), 0.3)
    torch.testing.assert_close(blurred(plain, 2.0), plain)
    assert blurred(plain, 0.3) is plain and blurred(plain, 0.0) is plain


def test_blur_of_an_impulse_is_the_filter() -> None:
    """2^-(x / sigma)^2: half of the middle at a distance of sigma."""
    image = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    image[0, 0, 20, 20] = 1
    out = blurred(image, 4.0)[0, 0]
    assert float(out[20, 24] / out[20, 20]) == pytest.approx(0.5)
    assert float(out[12, 20] / out[20, 20]) == pytest.approx(2**-4)
    assert float(out.sum()) == pytest.approx(1) and float(out[20, 33]) == 0


def test_schedule_at_its_ends() -> None:
    """Start before and at the beginning, the middle in the middle, the end from there on."""
    values = [linear_schedule(n, 10.0, 0.0, 200, begin=50) for n in (0, 50, 150, 250, 10_000)]
    assert values == [10.0, 10.0, 5.0, 0.0, 0.0]
    assert linear_schedule(5, 1.0, 0.5, 0) == 0.5


def test_rolled_labels() -> None:
    """Never, always, and one by one."""
    labels, draws = torch.arange(8.0).reshape(4, 2), torch.tensor([0.1, 0.9, 0.2, 0.3])
    assert torch.equal(partly_rolled(labels, draws, 0.0), labels)
    assert torch.equal(partly_rolled(labels, draws, 1.0), labels.roll(1, 0))
    assert partly_rolled(labels, draws, 0.25)[:, 0].tolist() == [6, 2, 2, 6]
