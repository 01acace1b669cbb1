"""triplane_render: the native kernel against the reference, both ways, on every instruction set; refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fourdface.ops import _native
from fourdface.ops import triplane_render as module
from fourdface.ops._triplane_render_native import make_settings, prepare_op, render_op
from fourdface.ops.triplane_render import (
    DecoderWeights,
    Draws,
    OffsetGrid,
    Rays,
    RaySampling,
    Rendered,
    Skipping,
    triplane_prepare,
    triplane_render,
    triplane_render_reference,
)

Case = tuple[Tensor, DecoderWeights, Rays]


def make_case(
    rays: int = 33,
    *,
    batch: int = 1,
    channels: int = 5,
    hidden: int = 20,
    outputs: int = 3,
    size: tuple[int, int] = (9, 14),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Case:
    """Random planes and decoder, and rays that enter the unit box near its middle and leave it."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    planes = normal(batch, 3, channels, *size) * 2
    out_weight = normal(1 + outputs, hidden) / hidden**0.5
    out_weight[0] *= 6
    decoder = DecoderWeights(normal(hidden, channels), normal(hidden), out_weight, normal(1 + outputs))
    origins = torch.cat([normal(batch, rays, 2) * 0.1, normal(batch, rays, 1) * 0.05 - 2], dim=-1)
    directions = torch.nn.functional.normalize(
        torch.cat([normal(batch, rays, 2) * 0.15, torch.ones(batch, rays, 1, dtype=dtype)], dim=-1), dim=-1
    )
    near = 1.4 + 0.05 * normal(batch, rays).abs()
    return planes, decoder, Rays(origins, directions, near, near + 1.1)


def assert_same(got: Rendered, want: Rendered, allowed: float = 1e-4) -> None:
    """Compare pictures; distances count by the weight they are a mean of (without any, rounding decides)."""
    got = Rendered(*(t.detach() for t in got))
    got = got._replace(ray_distance=got.ray_distance * got.weight_sum)
    want = want._replace(ray_distance=want.ray_distance * want.weight_sum)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, atol=allowed * max(1.0, float(w.abs().max()) if w.numel() else 0), rtol=0)


def both(case: Case, sampling: RaySampling | None = None, **options: Any) -> None:
    assert_same(
        triplane_render(*case, sampling, **options, backend="native"),
        triplane_render_reference(*case, sampling, **options),
    )


@pytest.mark.parametrize("rays", [0, 1, 31, 32, 33, 64, 257])
def test_numbers_of_rays(native: str, rays: int) -> None:
    both(make_case(rays))


@pytest.mark.parametrize(
    ("channels", "hidden", "outputs", "size"),
    [(1, 1, 1, (1, 1)), (32, 64, 32, (32, 32)), (7, 16, 33, (3, 17)), (33, 100, 47, (16, 5)), (4, 257, 16, (2, 9))],
)
def test_sizes_of_the_field(native: str, channels: int, hidden: int, outputs: int, size: tuple[int, int]) -> None:
    both(make_case(17, channels=channels, hidden=hidden, outputs=outputs, size=size))


@pytest.mark.parametrize(("coarse", "fine"), [(2, 0), (4, 1), (5, 31), (31, 5), (48, 48), (33, 0), (65, 130)])
@pytest.mark.parametrize("placement", ["ends", "centres", "jitter"])
def test_samples(native: str, coarse: int, fine: int, placement: str) -> None:
    both(make_case(9, batch=2), RaySampling(coarse, fine, placement=placement, seed=2**50 + 3))


@pytest.mark.parametrize(
    "options",
    [
        {"axes": "next3d", "box_size": 0.8},
        {"axes": "portrait4d", "box_size": 1.3, "reduce": "sum"},
        {"over_batch": True},
    ],
)
def test_options(native: str, options: dict[str, Any]) -> None:
    both(make_case(40, batch=2), **options)
    both(make_case(40), RaySampling(20, 20, spacing="disparity"), **options)


def test_given_draws_in_any_order(native: str) -> None:
    draw = torch.Generator().manual_seed(4)
    draws = Draws(torch.rand(2, 13, 12, generator=draw), torch.rand(2, 13, 20, generator=draw))
    both(make_case(13, batch=2), RaySampling(12, 20), draws=draws)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 5, 6), (2, 1, 7)])
def test_warp(native: str, shape: tuple[int, int, int]) -> None:
    draw = torch.Generator().manual_seed(5)
    both(make_case(20, batch=2), warp=OffsetGrid(torch.randn(2, 3, *shape, generator=draw) * 0.1, 0.9))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_planes_of_half_precision(needs_native: None, dtype: torch.dtype) -> None:
    planes, decoder, rays = make_case(20)
    planes = planes.to(dtype).requires_grad_()
    got = triplane_render(planes, decoder, rays, backend="native")
    assert_same(got, triplane_render_reference(planes.float(), decoder, rays))
    got.features.sum().backward()
    assert planes.grad is not None and planes.grad.dtype == dtype


def test_tensors_that_are_not_contiguous(needs_native: None) -> None:
    planes, decoder, rays = make_case(20)
    turned = planes.transpose(3, 4).contiguous().transpose(3, 4)
    strided = Rays(*(torch.stack([t, t], dim=-1)[..., 0] for t in rays))
    assert not turned.is_contiguous() and not strided.origins.is_contiguous()
    got = triplane_render(turned, decoder, strided, backend="native")
    assert_same(got, triplane_render(planes, decoder, rays, backend="native"), 0.0)


def gradients(case: Case, backend: str, sampling: RaySampling, **options: Any) -> list[Tensor]:
    planes, decoder, rays = case
    leaves = [t.detach().clone().requires_grad_() for t in (planes, *decoder)]
    out = triplane_render(leaves[0], DecoderWeights(*leaves[1:]), rays, sampling, **options, backend=backend)
    draw = torch.Generator().manual_seed(9)
    out = out._replace(ray_distance=out.ray_distance * out.weight_sum)
    loss = sum((t * torch.randn(t.shape, generator=draw).to(t)).sum() for t in out)
    assert isinstance(loss, Tensor)
    return list(torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize(
    ("shape", "sampling", "options"),
    [
        ({"rays": 33}, RaySampling(), {}),
        ({"rays": 100, "batch": 2, "size": (12, 7)}, RaySampling(9, 0), {"axes": "portrait4d", "reduce": "sum"}),
        (
            {"rays": 7, "channels": 32, "hidden": 64, "outputs": 32, "size": (33, 20)},
            RaySampling(placement="jitter"),
            {},
        ),
        ({"rays": 600, "channels": 18, "hidden": 17, "outputs": 1}, RaySampling(5, 4), {"axes": "next3d"}),
        ({"rays": 1, "size": (1, 1)}, RaySampling(2, 0), {}),
    ],
)
def test_gradients_equal_the_references(
    native: str, shape: dict[str, Any], sampling: RaySampling, options: dict[str, Any]
) -> None:
    case = make_case(**shape)
    got = gradients(case, "native", sampling, **options)
    for g, w in zip(got, gradients(case, "reference", sampling, **options), strict=True):
        torch.testing.assert_close(g, w, atol=1e-6 + 2e-4 * float(w.abs().max()), rtol=0)


def test_gradients_with_a_warp(needs_native: None) -> None:
    draw = torch.Generator().manual_seed(5)
    warp = OffsetGrid(torch.randn(1, 3, 4, 5, 6, generator=draw) * 0.1, 0.9)
    case = make_case(30)
    got = gradients(case, "native", RaySampling(), warp=warp)
    for g, w in zip(got, gradients(case, "reference", RaySampling(), warp=warp), strict=True):
        torch.testing.assert_close(g, w, atol=1e-6 + 2e-4 * float(w.abs().max()), rtol=0)


def test_reference_gradients_in_double() -> None:
    planes, decoder, rays = make_case(2, channels=2, hidden=3, outputs=2, size=(3, 4), dtype=torch.float64)
    inputs = tuple(t.requires_grad_() for t in (planes, *decoder))

    def render(*leaves: Tensor) -> tuple[Tensor, ...]:  # coarse only: importance samples are constants by definition
        return tuple(triplane_render_reference(leaves[0], DecoderWeights(*leaves[1:]), rays, RaySampling(6, 0)))

    assert torch.autograd.gradcheck(render, inputs)


def test_bits_do_not_depend_on_threads(native: str, threads: Any) -> None:
    case = make_case(400, channels=8, hidden=32, outputs=8, size=(20, 20))
    skip = Skipping(32)
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(
            [
                *triplane_render(*case, backend="native"),
                *triplane_render(*case, skip=skip, backend="native"),
                *gradients(case, "native", RaySampling(12, 12)),
            ]
        )
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_bad_ray_is_nan_alone(native: str) -> None:
    planes, decoder, rays = make_case(20)
    for name in ("origins", "near"):
        spoiled = getattr(rays, name).clone()
        spoiled[0, 7] = math.inf if name == "near" else math.nan
        for skip in (None, Skipping(32)):
            got = triplane_render(planes, decoder, rays._replace(**{name: spoiled}), skip=skip, backend="native")
            assert all(bool(t[0, 7].isnan().all()) and int(t.isnan().any(-1).sum()) == 1 for t in got)


def test_nan_in_the_planes_shows(native: str) -> None:
    planes, decoder, rays = make_case(20)
    planes[0, 0, 0] = math.nan
    got = triplane_render(planes, decoder, rays, backend="native")
    assert bool(got.features.isnan().all()) and bool(got.weight_sum.isnan().all())


def head_case(side: int = 48) -> Case:
    """A dense egg with a rough surface and coloured inside, in empty space, seen by a narrow camera."""
    draw, size = torch.Generator().manual_seed(0), 64
    planes = torch.nn.functional.interpolate(torch.randn(3, 32, 16, 16, generator=draw), (size, size), mode="bicubic")
    at = (torch.arange(size) + 0.5) / size - 0.5
    planes[0, 0] = 3 * (2.5 - (at / 0.2)[None] ** 2 - (at / 0.27)[:, None] ** 2) + 0.1 * planes[0, 0]
    planes[1, 0] = 3 * (1.5 - (at / 0.25)[:, None].expand(size, size) ** 2)
    planes[2, 0] = 0
    first = torch.randn(64, 32, generator=draw) / 8
    first[:, 0], first[0] = 0, 0
    first[0, 0] = 20
    bias, second, out_bias = torch.zeros(64), torch.randn(33, 64, generator=draw) / 3, torch.zeros(33)
    bias[0], out_bias[0] = -60, -10
    second[0], second[1:, 0] = 0, 0
    second[0, 0] = 30
    line = (torch.arange(side) + 0.5) / side - 0.5
    x, y = line[None].expand(side, side), line[:, None].expand(side, side)
    directions = torch.nn.functional.normalize(torch.stack([x / 4.26, y / 4.26, torch.ones_like(x)], -1), dim=-1)
    origins = torch.tensor([0.0, 0.0, -2.7]).expand(1, side * side, 3)
    near = torch.full((1, side * side), 2.2)
    return planes[None], DecoderWeights(first, bias, second, out_bias), Rays(
        origins, directions.reshape(1, -1, 3), near, near + 1.0
    )  # fmt: skip


@pytest.mark.parametrize("skip", [Skipping(), Skipping(0), Skipping(32, 0.3, 1e-2)])
def test_skipping_keeps_the_picture(native: str, skip: Skipping) -> None:
    case = head_case()
    exact = triplane_render(*case, axes="next3d", backend="native")
    fast = triplane_render(*case, axes="next3d", skip=skip, backend="native")
    assert 0.2 < float((exact.weight_sum > 0.5).float().mean()) < 0.8
    assert float((fast.features - exact.features).square().mean()) < 10**-4.5
    assert float((fast.weight_sum - exact.weight_sum).abs().max()) < 0.02
    seen = exact.weight_sum > 0.5
    assert float((fast.ray_distance - exact.ray_distance)[seen].abs().max()) < 0.01


def test_prepared_planes_give_the_same_picture(native: str) -> None:
    planes, decoder, rays = head_case(16)
    for skip in (None, Skipping()):
        ready = triplane_prepare(planes, decoder, axes="next3d", skip=skip)
        want = triplane_render(planes, decoder, rays, axes="next3d", skip=skip, backend="native")
        assert all(torch.equal(a, b) for a, b in zip(ready.render(rays), want, strict=True))


def test_prepared_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "usable", lambda device: False)
    planes, decoder, rays = make_case(8)
    want = triplane_render_reference(planes, decoder, rays)
    assert all(torch.equal(a, b) for a, b in zip(triplane_prepare(planes, decoder).render(rays), want, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(triplane_render(planes, decoder, rays), want, strict=True))


def test_custom_ops_are_well_formed(needs_native: None) -> None:
    planes, decoder, rays = make_case(5)
    settings = make_settings(RaySampling(6, 4), "eg3d", 1.0, "mean", 1.0, (0, 0.0, 0.0))
    leaves = [t.clone().requires_grad_() for t in (planes, *decoder)]
    nothing: list[Tensor | None] = [None, None, None]
    torch.library.opcheck(render_op, (*leaves, list(rays), nothing, [], settings.integers, settings.floats))
    torch.library.opcheck(prepare_op, (planes, *decoder, settings.integers, settings.floats))


@pytest.mark.parametrize("engine", ["eager", "aot_eager"])
def test_compiles_as_one_graph(needs_native: None, engine: str) -> None:
    planes, decoder, rays = make_case(5)
    planes = planes.requires_grad_()

    def render(values: Tensor) -> Tensor:
        return triplane_render(values * 1.5, decoder, rays, RaySampling(6, 4)).features.square().sum()

    torch._dynamo.reset()
    want = torch.autograd.grad(render(planes), planes)[0]
    got = torch.autograd.grad(torch.compile(render, fullgraph=True, backend=engine)(planes), planes)[0]
    torch.testing.assert_close(got, want)


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [{}, {"channels": 32, "hidden": 64, "outputs": 32, "size": (64, 64), "rays": 300}])
def test_cuda_equals_the_reference(shape: dict[str, Any]) -> None:
    planes, decoder, rays = make_case(**shape)
    moved = planes.cuda(), DecoderWeights(*(t.cuda() for t in decoder)), Rays(*(t.cuda() for t in rays))
    sampling = RaySampling(placement="jitter", seed=5)
    got = triplane_render(*moved, sampling, backend="native")
    assert_same(Rendered(*(t.cpu() for t in got)), triplane_render_reference(planes, decoder, rays, sampling))
    found = gradients(moved, "native", sampling)
    for g, w in zip(found, gradients((planes, decoder, rays), "reference", sampling), strict=True):
        torch.testing.assert_close(g.cpu(), w, atol=5e-4 * float(w.abs().max()), rtol=0)


def changed(case: Case, **change: Any) -> Case:
    planes, decoder, rays = case
    return (
        change.get("planes", planes),
        decoder._replace(**{k: v for k, v in change.items() if k in DecoderWeights._fields}),
        rays._replace(**{k: v for k, v in change.items() if k in Rays._fields}),
    )


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"planes": torch.zeros(1, 3, 5, 4)}, {}, "planes must be"),
        ({"planes": torch.zeros(1, 3, 5, 0, 4)}, {}, "at least one"),
        ({"hidden_weight": torch.zeros(20, 6)}, {}, r"decoder.hidden_weight must be \[H, 5\]"),
        ({"out_weight": torch.zeros(4, 21)}, {}, r"decoder.out_weight must be \[1\+K, 20\]"),
        ({"out_bias": torch.zeros(3)}, {}, r"decoder.out_bias must be \[4\]"),
        ({"far": torch.zeros(1, 2)}, {}, r"far must be \[1, 4\]"),
        ({}, {"warp": OffsetGrid(torch.zeros(1, 2, 3, 3, 3), 1.0)}, "warp offsets must be"),
        ({}, {"axes": "yz"}, "axes must be one of"),
        ({}, {"backend": "cuda"}, "backend must be one of"),
    ],
)
def test_refusals(change: dict[str, Tensor], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        triplane_render(*changed(make_case(4), **change), **options)


def test_native_says_what_it_cannot(needs_native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    planes, decoder, rays = make_case(4)
    moving = rays._replace(near=rays.near.clone().requires_grad_())
    with pytest.raises(ValueError, match="without gradients of rays"):
        triplane_render(planes, decoder, moving, backend="native")
    with pytest.raises(ValueError, match="float32"):
        triplane_render(planes.double(), decoder, rays, backend="native")
    assert triplane_render(planes, decoder, moving).features.requires_grad
    monkeypatch.setattr(module._native, "library", lambda: None)
    assert _native.usable(torch.device("cpu")) is False
    for bad in ({"cells": 40}, {"min_transmittance": 0.0}, {"empty_density": 0.0}):
        with pytest.raises(ValueError, match=r"cells|empty_density"):
            Skipping(**bad)  # type: ignore[arg-type]
