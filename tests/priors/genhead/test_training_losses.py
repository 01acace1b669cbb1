"""GenHead's losses on densities, against cases that can be worked out."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fourdface.blocks.volume_renderer import RaySampling
from fourdface.priors.genhead.camera import frontal_label
from fourdface.priors.genhead.config import SIZES
from fourdface.priors.genhead.generator import GenHead, GenHeadPictures
from fourdface.priors.genhead.load import build_genhead
from fourdface.priors.genhead.training_config import GenHeadLosses
from fourdface.priors.genhead.training_losses import density_variation, distortion, part_losses

LOSS = GenHeadLosses(head_density=1.0, distortion=1.0, transmittance=1.0)


@pytest.fixture(scope="module")
def network() -> GenHead:
    torch.manual_seed(0)
    return build_genhead(dataclasses.replace(SIZES["tiny"], coarse_samples=6, fine_samples=0))


@pytest.fixture(scope="module")
def pictures(network: GenHead) -> GenHeadPictures:
    """Two heads with their mouths open, the second nearer."""
    pose = network.head.neutral(2)
    jaw = pose.jaw.clone()
    jaw[:, 0] = 0.3
    pose = dataclasses.replace(pose, jaw=jaw)
    label = torch.cat([frontal_label((0, 0.2, 4.5)), frontal_label((0, 0.2, 3.5))])
    with torch.no_grad():
        planes = network.planes(torch.randn(2, 64), pose.shape, label)
        behind = network.background_features(torch.randn(2, 64))
        sampling = RaySampling(6, 0, placement="centres")
        return network.render(planes, behind, pose, label, sampling=sampling, keep_samples=True)


def test_distortion_is_the_sum_over_all_pairs() -> None:
    """The running sums against the double loop of the paper's equation 15."""
    torch.manual_seed(0)
    distances = torch.rand(3, 9, dtype=torch.float64).cumsum(-1)
    weights = torch.rand(3, 8, dtype=torch.float64)
    middle, length = (distances[:, 1:] + distances[:, :-1]) / 2, distances.diff()
    expected = torch.zeros(3, dtype=torch.float64)
    for i in range(8):
        for j in range(8):
            expected += weights[:, i] * weights[:, j] * (middle[:, i] - middle[:, j]).abs()
        expected += weights[:, i] ** 2 * length[:, i] / 3
    torch.testing.assert_close(distortion(distances, weights), expected)
    assert torch.autograd.gradcheck(distortion, (distances, weights.requires_grad_()))


def test_distortion_of_one_thin_surface_is_next_to_nothing() -> None:
    """All weight in one short interval."""
    distances = torch.tensor([0.0, 0.5, 0.501, 1.0])
    assert float(distortion(distances, torch.tensor([0.0, 1.0, 0.0]))) == pytest.approx(0.001 / 3, rel=1e-3)
    assert float(distortion(distances, torch.tensor([0.5, 0.0, 0.5]))) > 0.2


def test_part_losses_agree_with_a_loop_over_rays(network: GenHead, pictures: GenHeadPictures) -> None:
    """Every ray by itself, with its own call of the field."""
    kept = pictures.samples
    assert kept is not None
    eyes, mouth = kept.field.eyes, kept.field.mouth
    assert float(mouth.amax(dim=1).min()) > 0.2, "the mouths should be open"
    found = part_losses(pictures, LOSS)
    rays, count = eyes.numel(), eyes.shape[1]
    density, in_eyes = kept.field.head_density(
        kept.rays.origins[:, :, None] + kept.samples.distances[..., None] * kept.rays.directions[:, :, None]
    )
    total = dict.fromkeys(found, 0.0)
    for b in range(2):
        for r in range(count):
            soft = torch.log1p(density[b, r].exp())
            unit = (kept.samples.distances[b, r] - kept.rays.near[b, r]) / (kept.rays.far - kept.rays.near)[b, r]
            spread = float(distortion(unit, kept.samples.weights[b, r]))
            hole = float(pictures.transmittance.flatten(1)[b, r])
            for name, mask in (("eyes", eyes), ("mouth", mouth)):
                m = float(mask[b, r])
                where = in_eyes[b, r] if name == "eyes" else torch.ones_like(soft)
                total[f"{name}_head_density"] += m * float((soft * where).mean()) / rays
                total[f"{name}_distortion"] += m * spread / rays
                total[f"{name}_transmittance"] += m * hole / rays
    for name, value in found.items():
        assert float(value) == pytest.approx(total[name], rel=1e-4, abs=1e-9), name


def test_part_losses_need_samples(pictures: GenHeadPictures) -> None:
    """A sentence instead of an attribute error."""
    with pytest.raises(ValueError, match="keep_samples"):
        part_losses(dataclasses.replace(pictures, samples=None), LOSS)


def test_density_variation(network: GenHead) -> None:
    """Nothing for flat planes, something for others, and a gradient that reaches the planes."""
    points = torch.rand(2, 30, 3) * 2 - 1
    steps = 0.05 * torch.randn(2, 30, 3)
    inside = points.clamp(-0.8, 0.8)  # beyond the planes features are zero, and the density jumps there
    torch.nn.init.normal_(network.decoder.out_sigma.weight)
    flat = torch.ones(2, 6, 16, 32, 32)
    assert float(density_variation(network, flat, inside, steps.clamp(-0.1, 0.1))) == pytest.approx(0, abs=1e-5)
    planes = torch.randn(2, 6, 16, 32, 32, requires_grad=True)
    density_variation(network, planes, inside, steps).backward()
    assert planes.grad is not None and float(planes.grad.abs().amax(dim=(0, 2, 3, 4)).min()) > 0
