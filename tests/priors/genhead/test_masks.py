"""Silhouettes and correspondence maps against the paper's renderer, and masks of the open head."""

from __future__ import annotations

import pytest
import torch
from parity.rule import parity_arrays

from fourdface.blocks.head_model import HeadModel
from fourdface.priors.genhead.camera import frontal_label
from fourdface.priors.genhead.head import HeadGeometry
from fourdface.priors.genhead.masks import correspondence_map, part_masks
from support.heads import parity_pose, synthetic_flame


def test_correspondence_map_numbers() -> None:
    """Half a per cent of pixels may differ at outlines; elsewhere colours and depth are equal."""
    numbers = parity_arrays("mesh_renderer_128.npz")
    colours, mask, depth = correspondence_map(synthetic_flame(), parity_pose(), frontal_label(batch=2), 128)
    assert (mask != numbers["mask"]).float().mean() < 0.005
    both = mask & numbers["mask"]
    difference = (colours - numbers["uv"]).abs().amax(1, keepdim=True)[both]
    assert (difference > 1e-4).float().mean() < 0.005
    assert ((depth - numbers["depth"]).abs()[both] > 1e-4).float().mean() < 0.005


@pytest.fixture(scope="module")
def open_head() -> HeadGeometry:
    return HeadGeometry.from_head_model(HeadModel.load())


def test_masks_of_an_open_mouth(open_head: HeadGeometry) -> None:
    rest = open_head.neutral(2)
    rest.jaw[1, 0] = 0.3
    masks = part_masks(open_head, rest, frontal_label(batch=2), 32, 128)
    assert masks.eyes.shape == masks.mouth.shape == masks.head.shape == (2, 1, 32, 32)
    assert masks.eyes_full.shape == masks.mouth_full.shape == (2, 1, 128, 128)
    assert masks.mouth[1].sum() > 2 * masks.mouth[0].sum()
    for mask in (masks.eyes, masks.mouth, masks.head, masks.eyes_full, masks.mouth_full):
        assert float(mask.min()) >= -1e-6
        assert float(mask.max()) <= 1 + 1e-5
    rows = torch.nonzero(masks.mouth[1, 0] > 0.5)[:, 0].float().mean()
    assert torch.nonzero(masks.eyes[1, 0] > 0.5)[:, 0].float().mean() < rows, "eyes are above the mouth"


def test_closed_eyes_have_no_mask(open_head: HeadGeometry) -> None:
    names = HeadModel.load().expression_names
    blink = torch.zeros(1, len(names))
    blink[0, [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]] = 1
    rest = open_head.neutral()
    label = frontal_label()
    seen = [part_masks(open_head, rest, label, 32, 128, eyelids=lids).eyes.sum() for lids in (None, blink)]
    assert seen[1] < 0.4 * seen[0]
