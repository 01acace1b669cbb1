"""A pytest plugin that hides the native libraries: `-p support.bare_machine`. The environment must hide compilers."""

from __future__ import annotations

import torch

from fourdface.ops import _build, _native

_native.LIBRARY_NAME = _native.CUDA_LIBRARY_NAME = "no-such-library.so"
_build.find_nvcc = lambda: None
torch.cuda.is_available = lambda: False
