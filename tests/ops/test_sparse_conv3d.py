"""sparse_conv3d: reference against torch's dense convolution, native kernels against the reference, refusals."""

from __future__ import annotations

import pytest
import torch

from fourdface.ops import _native
from fourdface.ops.sparse_conv3d import (
    merge_sites,
    neighbour_map,
    neighbour_map_reference,
    sparse_conv3d,
    sparse_conv3d_op,
    sparse_conv3d_reference,
    to_dense,
)

SHAPE = (9, 6, 11)


def sites(count, shape=SHAPE, batch=2, seed=0):
    """`count` different sites in random order."""
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.randperm(batch * shape[0] * shape[1] * shape[2], generator=draw)[:count]
    parts = []
    for size in reversed(shape):
        parts.append(numbers % size)
        numbers = numbers // size
    return torch.stack([numbers, *reversed(parts)], dim=1)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 33, 400])
def test_equal_to_a_dense_convolution(backend, stride, count):
    where = sites(count)
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(count, 5, generator=draw)
    weight, bias = torch.randn(7, 3, 3, 3, 5, generator=draw), torch.randn(7, generator=draw)
    found = neighbour_map(where, SHAPE, stride=stride, backend=backend)
    got = sparse_conv3d(features, found, weight, bias, backend=backend)
    dense = to_dense(features.double(), where, SHAPE, 2)
    kernel = weight.double().permute(0, 4, 1, 2, 3)
    want = torch.nn.functional.conv3d(dense, kernel, bias.double(), stride=stride, padding=1)
    assert found.shape == tuple(want.shape[2:]) and got.shape == (len(found.coordinates), 7)
    b, d, h, w = found.coordinates.long().unbind(1)
    torch.testing.assert_close(got.double(), want[b, :, d, h, w], atol=1e-4, rtol=1e-5)
    occupied = torch.nn.functional.max_pool3d(to_dense(torch.ones(count, 1), where, SHAPE, 2), 3, 2, 1)
    active = to_dense(torch.ones(len(got), 1), found.coordinates, found.shape, 2)
    assert torch.equal(active, occupied if stride == 2 else to_dense(torch.ones(count, 1), where, SHAPE, 2))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 257])
@pytest.mark.parametrize("channels", [(1, 1), (16, 16), (5, 33), (33, 5)])
def test_native_equals_reference(native, stride, count, channels):
    where = sites(count)
    found = neighbour_map(where.to(torch.int32), SHAPE, stride=stride, backend="native")
    want = neighbour_map_reference(where, SHAPE, stride=stride)
    assert torch.equal(found.coordinates, want.coordinates.to(torch.int32)) and found.shape == want.shape
    assert torch.equal(found.inputs, want.inputs)
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(count, channels[0], generator=draw, requires_grad=True)
    weight = torch.randn(channels[1], 3, 3, 3, channels[0], generator=draw, requires_grad=True)
    upstream = torch.randn(len(found.coordinates), channels[1], generator=draw)
    results = []
    for convolve in (sparse_conv3d, sparse_conv3d_reference):
        out = convolve(features, found, weight)
        results.append((out, *torch.autograd.grad(out, (features, weight), upstream)))
    for got, expected in zip(*results, strict=True):
        scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(got, expected, atol=1e-5 * max(scale, 1.0), rtol=0)


def test_gradients_of_the_reference():
    found = neighbour_map_reference(sites(20, (3, 3, 4), 1), (3, 3, 4), stride=2)
    inputs = (torch.randn(20, 2).double(), torch.randn(3, 3, 3, 3, 2).double(), torch.randn(3).double())
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda f, w, b: sparse_conv3d_reference(f, found, w, b), inputs)


def test_same_bits_for_any_number_of_threads(needs_native, threads):
    where = sites(3000, (20, 20, 20))
    features = torch.randn(3000, 16, requires_grad=True)
    weight = torch.randn(32, 3, 3, 3, 16, requires_grad=True)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        found = neighbour_map(where, (20, 20, 20), stride=2, backend="native")
        out = sparse_conv3d(features, found, weight, backend="native")
        results.append((found.inputs, out, *torch.autograd.grad(out.square().sum(), (features, weight))))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_not_a_number_stays_with_its_neighbours(backend):
    where = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 5, 5, 5]])
    features = torch.tensor([[float("nan")], [1.0], [1.0]])
    found = neighbour_map(where, SHAPE, backend=backend)
    out = sparse_conv3d(features, found, torch.ones(1, 3, 3, 3, 1), backend=backend)
    assert out.isnan().squeeze(1).tolist() == [True, True, False]


def test_double_precision_and_views(needs_native):
    where = sites(50)
    found = neighbour_map(where, SHAPE)
    features, weight = torch.randn(50, 4).double(), torch.randn(3, 3, 3, 3, 4).double()
    out = sparse_conv3d(features, found, weight)
    assert out.dtype == torch.float64  # the reference: precision is kept
    strided = features.float().T.contiguous().T
    assert not strided.is_contiguous()
    torch.testing.assert_close(sparse_conv3d(strided, found, weight.float()), out.float(), atol=1e-5, rtol=1e-5)


def test_merging_takes_the_mean():
    where = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 2], [0, 1, 1, 1]], dtype=torch.int32)
    unique, features = merge_sites(where, torch.tensor([[1.0], [5.0], [3.0]]))
    assert unique.tolist() == [[0, 0, 0, 2], [0, 1, 1, 1]] and features.tolist() == [[5.0], [2.0]]


def test_operator_is_well_formed(needs_native):
    found = neighbour_map(sites(30), SHAPE, stride=2)
    features, weight = torch.randn(30, 3, requires_grad=True), torch.randn(4, 3, 3, 3, 3, requires_grad=True)
    torch.library.opcheck(sparse_conv3d_op, (features, found.inputs, weight))


def test_without_the_library_the_reference_runs(monkeypatch):
    found = neighbour_map(sites(30), SHAPE)
    want = sparse_conv3d(torch.ones(30, 3), found, torch.ones(4, 3, 3, 3, 3))
    monkeypatch.setattr(_native, "library", lambda: None)
    assert torch.equal(neighbour_map(sites(30), SHAPE).inputs, found.inputs)
    torch.testing.assert_close(sparse_conv3d(torch.ones(30, 3), found, torch.ones(4, 3, 3, 3, 3)), want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coordinates": torch.zeros(2, 3, dtype=torch.int32)}, r"coordinates must be \[N, 4\], got \[2, 3\]"),
        ({"coordinates": torch.zeros(2, 4)}, "coordinates must be int32 or int64, got float32"),
        ({"coordinates": torch.zeros(2, 4, dtype=torch.int32)}, "a site twice"),
        ({"coordinates": torch.tensor([[0, 0, 6, 0]])}, r"height coordinates must be 0\.\.5, got 6\.\.6"),
        ({"coordinates": torch.tensor([[-1, 0, 0, 0]])}, "batch coordinates must be"),
        ({"stride": 3}, "stride must be 1 or 2, got 3"),
        ({"shape": (0, 1, 1)}, "three sizes of at least 1"),
        ({"shape": (2048, 1024, 1024)}, "fewer than 2\\^31 sites"),
    ],
)
def test_refusals(backend, change, message):
    with pytest.raises(ValueError, match=message):
        neighbour_map(**({"coordinates": sites(4), "shape": SHAPE} | change), backend=backend)


def test_a_map_beyond_the_features_is_refused(backend):
    found = neighbour_map(sites(30), SHAPE)
    with pytest.raises(ValueError, match=r"out of range|must hold indices"):
        sparse_conv3d(torch.zeros(29, 3), found, torch.zeros(4, 3, 3, 3, 3), backend=backend)
    with pytest.raises(ValueError, match=r"weight must be \[O, 3, 3, 3, 2\]"):
        sparse_conv3d(torch.zeros(30, 2), found, torch.zeros(4, 3, 3, 3, 3), backend=backend)


@pytest.mark.cuda
@pytest.mark.parametrize("stride", [1, 2])
def test_cuda_kernel_equals_the_reference(stride):
    found = neighbour_map(sites(400), SHAPE, stride=stride)
    there = found._replace(coordinates=found.coordinates.cuda(), inputs=found.inputs.cuda())
    on_gpu = neighbour_map(sites(400).cuda(), SHAPE, stride=stride)
    assert torch.equal(on_gpu.inputs.cpu(), found.inputs)
    features, weight = torch.randn(400, 33, requires_grad=True), torch.randn(70, 3, 3, 3, 33, requires_grad=True)
    want = sparse_conv3d_reference(features, found, weight)
    got = sparse_conv3d(features.cuda(), there, weight.cuda(), backend="native")
    pairs = zip(
        (got, *torch.autograd.grad(got.square().sum(), (features, weight))),
        (want, *torch.autograd.grad(want.square().sum(), (features, weight))),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a.cpu(), b, atol=1e-4 * float(b.detach().abs().max()), rtol=0)
