"""Seeds that are functions of what they are for, so that nothing random needs to be stored in a checkpoint."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch


def seed_of(*parts: Any) -> int:
    """A 63-bit seed from numbers and words; equal parts give equal seeds on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed the generators of torch (all devices), numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries that a recipe calls may use it
    random.seed(seed)
