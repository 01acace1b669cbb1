"""SparseConvNet against the published network's numbers."""

from __future__ import annotations

import pytest
import torch
from parity.rule import parity_arrays

from fourdface.blocks.sparse_conv import SparseConvNet, SparseVolume
from fourdface.ops import _native


@pytest.mark.parametrize("native", [False, True])
def test_equals_the_published_network(native, monkeypatch):
    arrays = parity_arrays("morphable_blocks_fixture.npz", "eg3d_gen3d_coherent3d")
    if not native:
        monkeypatch.setattr(_native, "library", lambda: None)
    elif _native.library() is None:
        pytest.skip(f"no native library: {_native.status()['reason']}")
    net = SparseConvNet().eval()
    net.load_state_dict({k.removeprefix("sp."): v for k, v in arrays.items() if k.startswith("sp.")})
    shape = tuple(int(s) for s in arrays["sp_shape"])
    with torch.no_grad():
        out = net(SparseVolume(arrays["sp_feats"], arrays["sp_coords"], shape))
    dense = out.dense(1)
    active = SparseVolume(torch.ones(len(out.features), 1), out.coordinates, out.shape).dense(1)
    assert torch.equal(active.bool(), arrays["sp_ref_mask_out"].bool())
    for key in ("sp_ref_out", "sp_dense_out_spconv_cpu"):
        torch.testing.assert_close(dense, arrays[key].float(), atol=1e-5, rtol=0)


def test_trains():
    net = SparseConvNet((4, 6, 8))
    where = torch.unique(torch.randint(0, 12, (200, 3), generator=torch.Generator().manual_seed(0)), dim=0)
    where = torch.cat([torch.zeros(len(where), 1, dtype=torch.long), where], dim=1)
    features = torch.randn(len(where), 4, requires_grad=True)
    out = net(SparseVolume(features, where, (12, 12, 12)))
    assert out.shape == (3, 3, 3) and out.features.shape[1] == 8
    out.features.square().sum().backward()
    assert all(bool(p.grad.abs().sum() > 0) for p in net.parameters()) and bool(features.grad.abs().sum() > 0)
