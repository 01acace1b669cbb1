"""Head geometries for tests of Portrait4D's family."""

from __future__ import annotations

import torch
from parity.rule import draw, parity_module

from fourdface.priors.genhead.head import HeadGeometry, HeadPose


def synthetic_flame() -> HeadGeometry:
    """A head of FLAME's size that is no FLAME, as the parity data use it; coarse mesh and neighbours are derived."""
    model, masks = parity_module("synthetic_flame.py").build()
    return HeadGeometry.from_flame(model, masks)


def parity_pose() -> HeadPose:
    """The two poses of the parity data."""
    pose = draw("in:pose", (2, 6)) * torch.tensor([0.3, 0.3, 0.3, 0.2, 0.02, 0.02])
    return HeadPose.from_flame(draw("in:shape", (2, 300)), draw("in:exp", (2, 100)), pose, draw("in:eye", (2, 6)) * 0.2)
