"""FID's Inception-v3: names of the public file, special blocks written a second time, resizing, regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fourdface.blocks.inception import BlockA, BlockC, BlockE, FidInception, load_inception, resized


def seeded(module: torch.nn.Module) -> torch.nn.Module:
    """Random weights that keep the size of signals, statistics included."""
    generator = torch.Generator().manual_seed(7)
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        random = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            value.copy_(1 + 0.3 * random.abs())
        elif name.endswith("bn.weight"):
            value.copy_(1 + 0.1 * random)
        else:
            value.copy_(random * (1.6 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1 * random)
    return module.eval()


def unit(x, w, name, stride=1, padding=0):
    """Convolution, normalisation with the stored statistics by hand, ReLU."""
    x = F.conv2d(x, w[f"{name}.conv.weight"], stride=stride, padding=padding)
    mean, var, gain, bias = (w[f"{name}.bn.{k}"][:, None, None] for k in
                             ("running_mean", "running_var", "weight", "bias"))  # fmt: skip
    return ((x - mean) / (var + 1e-3).sqrt() * gain + bias).clamp_min(0)


def mean_without_padding(x):
    ones = torch.ones_like(x[:, :1])
    kernel = torch.ones(1, 1, 3, 3)
    total = F.conv2d(x.flatten(0, 1)[:, None], kernel, padding=1).reshape(x.shape)
    return total / F.conv2d(ones, kernel, padding=1)


def test_block_a_a_second_time():
    block, x = seeded(BlockA(6, 5)), torch.rand(2, 6, 9, 7)
    w = block.state_dict()
    five = unit(unit(x, w, "branch5x5_1"), w, "branch5x5_2", padding=2)
    three = unit(unit(unit(x, w, "branch3x3dbl_1"), w, "branch3x3dbl_2", padding=1), w, "branch3x3dbl_3", padding=1)
    want = [unit(x, w, "branch1x1"), five, three, unit(mean_without_padding(x), w, "branch_pool")]
    assert torch.allclose(block(x), torch.cat(want, 1), atol=1e-5)


def test_block_c_a_second_time():
    block, x = seeded(BlockC(4, channels=6)), torch.rand(1, 6, 8, 9)
    w = block.state_dict()
    row, column = (0, 3), (3, 0)
    short = unit(unit(unit(x, w, "branch7x7_1"), w, "branch7x7_2", padding=row), w, "branch7x7_3", padding=column)
    long = unit(x, w, "branch7x7dbl_1")
    for k, padding in ((2, column), (3, row), (4, column), (5, row)):
        long = unit(long, w, f"branch7x7dbl_{k}", padding=padding)
    want = [unit(x, w, "branch1x1"), short, long, unit(mean_without_padding(x), w, "branch_pool")]
    assert torch.allclose(block(x), torch.cat(want, 1), atol=1e-5)


@pytest.mark.parametrize("maximum", [False, True])
def test_block_e_a_second_time(maximum):
    block, x = seeded(BlockE(6, maximum)), torch.rand(1, 6, 5, 4)
    w = block.state_dict()
    three = unit(x, w, "branch3x3_1")
    double = unit(unit(x, w, "branch3x3dbl_1"), w, "branch3x3dbl_2", padding=1)
    parts = [unit(x, w, "branch1x1")]
    for name, source in (("branch3x3_2", three), ("branch3x3dbl_3", double)):
        parts += [unit(source, w, f"{name}a", padding=(0, 1)), unit(source, w, f"{name}b", padding=(1, 0))]
    windows = F.pad(x, (1, 1, 1, 1), value=-torch.inf).unfold(2, 3, 1).unfold(3, 3, 1)
    pooled = windows.amax((-1, -2)) if maximum else mean_without_padding(x)
    parts.append(unit(pooled, w, "branch_pool"))
    assert torch.allclose(block(x), torch.cat(parts, 1), atol=1e-5)


def test_resizing_reads_as_tensorflow_one_did():
    x = torch.arange(4.0).reshape(1, 1, 1, 4).expand(1, 1, 2, 4)
    assert resized(x, 8)[0, 0, 0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]  # the last has no right neighbour
    assert resized(x, 2)[0, 0, 0].tolist() == [0, 2]
    image = np.random.default_rng(0).random((9, 13))
    want = np.empty((5, 5))
    for i in range(5):
        for j in range(5):
            y, x0 = i * 9 / 5, j * 13 / 5
            top, left = int(y), int(x0)
            down, right = min(top + 1, 8), min(left + 1, 12)
            upper = image[top, left] * (1 - x0 + left) + image[top, right] * (x0 - left)
            lower = image[down, left] * (1 - x0 + left) + image[down, right] * (x0 - left)
            want[i, j] = upper * (1 - y + top) + lower * (y - top)
    assert np.allclose(resized(torch.from_numpy(image)[None, None], 5)[0, 0].numpy(), want, atol=1e-12)


def test_the_whole_network():
    network = seeded(FidInception())
    names = list(network.state_dict())
    assert "Conv2d_1a_3x3.conv.weight" in names and "Mixed_7c.branch3x3dbl_3b.bn.running_var" in names
    kept = [value for name, value in network.state_dict().items() if name.endswith(("weight", "bias"))]
    assert sum(value.numel() for value in kept) == 21_785_568  # Inception-v3 without classifiers
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 3, 40, 50), dtype=np.uint8))
    image[0] //= 8
    with torch.inference_mode():
        both, alone = network(image), network(image[1:])
    assert both.shape == (2, 2048) and torch.allclose(both[1:], alone, atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-3)


def test_loads_a_file_with_a_classifier_and_without_counters(tmp_path):
    network = seeded(FidInception())
    weights = {name: value for name, value in network.state_dict().items() if not name.endswith("tracked")}
    torch.save({**weights, "fc.weight": torch.zeros(8, 4)}, tmp_path / "inception.pth")
    again = load_inception(tmp_path / "inception.pth").state_dict()
    assert all(torch.equal(again[name], value) for name, value in weights.items())
