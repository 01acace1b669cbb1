"""What adversarial training is made of: losses, gradient penalty, blur of what is judged, schedules, swapped labels.

Schedules are functions of the number of pictures seen, so that they do not depend on the size of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad, softplus

__all__ = ["blurred", "discriminator_loss", "generator_loss", "linear_schedule", "partly_rolled", "r1_penalty"]


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating loss of a generator: the mean of -log sigmoid(logits) (Goodfellow et al., 2014). Scalar."""
    return softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Logistic loss of a discriminator: mean -log sigmoid(real) + mean -log(1 - sigmoid(fake)). Scalar."""
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()


def r1_penalty(logits: Tensor, inputs: Sequence[Tensor], gammas: Sequence[float]) -> Tensor:
    """R1 on several inputs: the sum over inputs of gamma / 2 times the squared gradient, averaged over the batch.

    Mescheder et al., "Which training methods for GANs do actually converge?" (ICML 2018), equation 9; a weight of its
    own per input is GenHead's (picture and render 1, correspondence map 10, silhouette 1).

    Args:
        logits: [B, 1] of real samples, not yet back-propagated. inputs: tensors [B, ...] they were computed from, which
            require gradients. gammas: one weight per input.

    Returns:
        A scalar that can be back-propagated into the discriminator (a second derivative).

    Raises:
        ValueError: numbers of inputs and weights differ, or an input requires no gradient.
    """
    if len(inputs) != len(gammas):
        raise ValueError(f"r1_penalty needs one weight per input, got {len(inputs)} inputs and {len(gammas)} weights")
    if still := [i for i, x in enumerate(inputs) if not x.requires_grad]:
        raise ValueError(f"inputs {still} of r1_penalty require no gradient: call requires_grad_() before judging them")
    gradients = torch.autograd.grad(logits.sum(), list(inputs), create_graph=True)
    squares = [x.to(torch.promote_types(x.dtype, torch.float32)).square().flatten(1).sum(1) for x in gradients]
    return torch.stack([gamma / 2 * square.mean() for gamma, square in zip(gammas, squares, strict=True)]).sum()


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Filter [B, C, H, W] with 2^-(x / sigma)^2, cut at three sigma; borders repeat. A sigma under 1/3 changes nothing.

    The discriminator sees blurred pictures at first, so that coarse shape is learned before detail (EG3D, Chan et al.,
    CVPR 2022, supplement 1). sigma in pixels, in EG3D's sense: where the filter falls to one half.
    """
    reach = math.floor(3 * sigma)
    if reach <= 0:
        return image
    line = (torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device) / sigma).square().neg().exp2()
    line = (line / line.sum()).expand(image.shape[1], 1, 1, -1)
    wide = pad(image, (reach, reach, reach, reach), mode="replicate")
    across = conv2d(wide, line, groups=image.shape[1])
    return conv2d(across, line.transpose(2, 3), groups=image.shape[1])


def linear_schedule(images: int, start: float, end: float, over: int, begin: int = 0) -> float:
    """A value that goes from `start` to `end` while pictures `begin`..`begin + over` are seen, and stays there."""
    if over <= 0:
        return end if images >= begin else start
    return start + (end - start) * min(max((images - begin) / over, 0.0), 1.0)


def partly_rolled(labels: Tensor, draws: Tensor, probability: float) -> Tensor:
    """Labels [B, L], each that of the sample before it in the batch where its draw (uniform, [B]) is below probability.

    The generator's mapping network gets these, so that identity does not depend on the camera it is seen from (EG3D,
    section 4.3, "generator pose conditioning").
    """
    return torch.where(draws[:, None] < probability, labels.roll(1, dims=0), labels)
