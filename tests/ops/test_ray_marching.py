"""The steps of the volume renderer by themselves: official numbers for weights, composition and importance samples."""

from __future__ import annotations

import torch
from parity.rule import draw, parity_arrays

from fourdface.ops._ray_marching import (
    Draws,
    Rays,
    RaySampling,
    compose,
    counted_uniform,
    finish,
    importance_distances,
    march_weights,
)


def test_portrait4ds_ray_marcher() -> None:
    numbers = parity_arrays("ray_marcher.npz")
    distances = draw("in:depths", (1, 40, 48, 1), "01").mul(1.3).add(3.5).sort(dim=2).values[..., 0]
    colours, density = draw("in:colors", (1, 40, 48, 32), "01"), draw("in:dens", (1, 40, 48, 1))[..., 0] * 4
    weights = march_weights(distances, density)
    torch.testing.assert_close(weights[..., None], numbers["weights"], atol=1e-5, rtol=0)
    rendered = finish(*compose(distances, weights, colours), distances[..., -1], distances[..., 0], over_batch=True)
    torch.testing.assert_close(rendered.features, numbers["rgb"], atol=1e-5, rtol=0)
    torch.testing.assert_close(rendered.ray_distance, numbers["depth"], atol=1e-5, rtol=0)
    torch.testing.assert_close(rendered.transmittance, numbers["T_bg"], atol=1e-5, rtol=0)
    ends = torch.zeros(1, 40)
    draws = Draws(torch.zeros(1, 40, 48), ((torch.arange(48) + 0.5) / 48).expand(1, 40, 48))
    rays = Rays(torch.zeros(1, 40, 3), torch.zeros(1, 40, 3), ends, ends)
    fine = importance_distances(rays, distances, weights, RaySampling(), draws)
    torch.testing.assert_close(fine[..., None], numbers["importance_depths_det"], atol=1e-4, rtol=0)


def test_the_counter_is_what_it_was() -> None:
    """These numbers are part of the contract: kernels make the same ones, and seeded results stay."""

    def mix(x: int) -> int:
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    seed, rays, samples = 2**63 + 12345, torch.tensor([0, 7, 2**31]), torch.tensor([0, 1, 95])
    got = counted_uniform(seed, rays, samples)
    key = mix(mix(seed % 2**32) ^ (seed >> 32))
    want = [[(mix((mix(r ^ key) + s * 0x9E3779B9) % 2**32) >> 8) / 2**24 for s in (0, 1, 95)] for r in (0, 7, 2**31)]
    assert torch.equal(got, torch.tensor(want))
