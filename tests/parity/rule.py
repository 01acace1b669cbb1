"""The rule by which weights and inputs of the parity data are made, so that no weights need to be stored.

A value is drawn from its name: `draw(key, shape)` seeds numpy's legacy generator (a frozen stream) with crc32(key).
`fill` names every floating-point entry of a state dict `prefix + key` and sets, by the last word of the key:

    noise_const, const, w_avg        n                        n ~ N(0, 1) of the entry's shape
    running_var, running_mean        1 + 0.1 |n|, 0.1 n
    two or more axes                 n, if the name starts with one of `eqlr` (equalised learning rate: such layers keep
                                     N(0, 1) weights and scale at run time), else n / sqrt(fan-in)
    weight with one axis (norms)     1 + 0.1 n
    anything else (bias, scalars)    0.1 n

Entries that are no floats, `resample_filter`, and names that start with one of `skip` stay as they are.

Prefixes: the networks of Portrait4D use the key of the whole network ("encoder_global.encoder.conv1.weight"), the
discriminator "D.", the motion encoder "pdfgc.", the BFM mapper "mapper.". `eqlr`: GenHead and the discriminator ("",),
the reconstructor ("superresolution.", "decoder."), the others ().

Files of numbers are looked for beside the folder of test data: FOURD_TEST_DATA/../parity.
"""

from __future__ import annotations

import importlib.util
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from support.folders import data_folder

GENHEAD_EQLR = ("",)
PSI_EQLR = ("superresolution.", "decoder.")
UNTOUCHED = ("deformer.",)


def draw(key: str, shape: Sequence[int], kind: str = "normal") -> torch.Tensor:
    """A float32 tensor that depends on the key alone: `normal` N(0, 1), `pm1` uniform in -1..1, `01` in 0..1."""
    source = np.random.RandomState(zlib.crc32(key.encode()))
    count = math.prod(shape)
    low = {"pm1": -1.0, "01": 0.0}
    values = source.standard_normal(count) if kind == "normal" else source.uniform(low[kind], 1, count)
    return torch.from_numpy(values.astype(np.float32).reshape(tuple(shape)))


def fill(
    module: torch.nn.Module,
    prefix: str = "",
    *,
    eqlr: tuple[str, ...] = (),
    skip: tuple[str, ...] = UNTOUCHED,
) -> torch.nn.Module:
    """Set the module's parameters and buffers by the rule, in place; returns the module in eval mode."""
    with torch.no_grad():
        for key, tensor in module.state_dict(keep_vars=True).items():
            name = prefix + key
            if name.startswith(skip) or not tensor.is_floating_point() or key.endswith("resample_filter"):
                continue
            tensor.copy_(_value(name, tensor, eqlr))
    return module.eval()


def _value(name: str, tensor: torch.Tensor, eqlr: tuple[str, ...]) -> torch.Tensor:
    values, leaf = draw(name, tuple(tensor.shape)), name.rpartition(".")[2]
    if leaf in ("noise_const", "const", "w_avg"):
        return values
    if leaf == "running_var":
        return 1 + 0.1 * values.abs()
    if leaf == "running_mean":
        return 0.1 * values
    if tensor.ndim >= 2:
        return values if name.startswith(eqlr) else values / math.sqrt(math.prod(tensor.shape[1:]))
    return 1 + 0.1 * values if leaf == "weight" else 0.1 * values


@contextmanager
def deterministic_sampling() -> Iterator[None]:
    """Replace the draws of stratified samples by their middle: rand_like 0.5, rand (i + 0.5)/n along the last axis."""

    def middle(tensor: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full_like(tensor, 0.5)

    def ramp(*size: Any, device: Any = None, **_: Any) -> torch.Tensor:
        shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
        line = (torch.arange(shape[-1], dtype=torch.float32, device=device) + 0.5) / shape[-1]
        return line.expand(*shape).clone()

    with mock.patch.object(torch, "rand_like", middle), mock.patch.object(torch, "rand", ramp):
        yield


def parity_folder() -> Path:
    """The folder of parity data, beside the folder of test data; skips the test where it is absent."""
    folder = data_folder().parent / "parity"
    if not folder.is_dir():
        pytest.skip(f"no parity data in {folder} (set FOURD_TEST_DATA)")
    return folder


def parity_arrays(name: str, group: str = "portrait4d") -> dict[str, torch.Tensor]:
    """The arrays of one parity file as tensors."""
    with np.load(parity_folder() / group / name, allow_pickle=False) as archive:
        return {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}


def manifest_shapes(name: str, group: str = "portrait4d") -> dict[str, tuple[int, ...]]:
    """Shape by key of a state-dict manifest."""
    content = json.loads((parity_folder() / group / name).read_text(encoding="utf-8"))["state_dict"]
    return {key: tuple(entry["shape"] if isinstance(entry, dict) else entry) for key, entry in content.items()}


def parity_module(name: str, group: str = "portrait4d") -> ModuleType:
    """One Python file of the parity data, loaded by its path."""
    spec = importlib.util.spec_from_file_location(f"parity_{Path(name).stem}", parity_folder() / group / name)
    if spec is None or spec.loader is None:
        pytest.skip(f"{name} of the parity data cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_close(
    actual: torch.Tensor, expected: torch.Tensor, *, relative: float = 1e-4, absolute: float | None = None
) -> None:
    """Compare as the parity data ask: rtol 1e-4 and atol 1e-4 of the largest value, unless said otherwise."""
    limit = 1e-4 * float(expected.abs().max()) if absolute is None else absolute
    torch.testing.assert_close(actual.float(), expected.float(), rtol=relative, atol=limit)
