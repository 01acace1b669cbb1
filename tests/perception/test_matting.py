"""Guided refinement of mattes and the region that is looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fourdface.perception.matting import (
    MatteModel,
    face_map,
    guided_coefficients,
    matte_region,
    one_person,
    refine_alpha,
)


def test_guided_filter_recovers_a_linear_function_of_the_guide() -> None:
    torch.manual_seed(0)
    guide = torch.rand(1, 3, 40, 50)
    target = 0.2 * guide[:, :1] - 0.5 * guide[:, 1:2] + 0.9 * guide[:, 2:] + 0.1
    slope, base = guided_coefficients(guide, target, 4, 1e-8)
    np.testing.assert_allclose(slope[0, :, 20, 25], [0.2, -0.5, 0.9], atol=1e-3)
    torch.testing.assert_close((slope * guide).sum(1, keepdim=True) + base, target, atol=2e-3, rtol=0)


def test_refinement_moves_a_blurred_edge_to_the_picture_edge() -> None:
    """A coarse matte 2.7 times smaller than the picture ends up as sharp as the picture's own edge."""
    truth = torch.zeros(1, 1, 256, 256)
    truth[:, :, :, 131:] = 1
    picture = (
        truth * torch.tensor([0.8, 0.3, 0.2])[:, None, None]
        + (1 - truth) * torch.tensor([0.1, 0.5, 0.3])[:, None, None]
    )
    coarse = torch.nn.functional.interpolate(truth, size=(96, 96), mode="bilinear", antialias=True)
    blurred = torch.nn.functional.interpolate(coarse, size=(256, 256), mode="bilinear")
    refined = refine_alpha(picture, coarse)
    assert float((refined - truth).abs().mean()) < 0.35 * float((blurred - truth).abs().mean())
    assert float(refined.min()) >= 0
    assert float(refined.max()) <= 1


def test_decided_mattes_stay() -> None:
    picture = torch.rand(1, 3, 90, 70)
    torch.testing.assert_close(refine_alpha(picture, torch.ones(1, 1, 32, 32)), torch.ones(1, 1, 90, 70))
    torch.testing.assert_close(refine_alpha(picture, torch.zeros(1, 1, 32, 32)), torch.zeros(1, 1, 90, 70))


@pytest.mark.parametrize("box", [(10, 10, 40, 50), (-30, -20, 20, 10), (190, 90, 260, 160), (0, 0, 200, 100)])
def test_region_lies_in_the_picture_and_is_not_empty(box: tuple[float, ...]) -> None:
    x0, y0, x1, y1 = matte_region(np.array(box, np.float32), 200, 100)
    assert 0 <= x0 < x1 <= 200
    assert 0 <= y0 < y1 <= 100


def test_face_map_peaks_at_the_face() -> None:
    where = face_map(torch.tensor([[20.0, 10.0, 40.0, 40.0]]), 64, 80)[0, 0]
    row, column = divmod(int(where.argmax()), 80)
    assert abs(row + 0.5 - 25) <= 1
    assert abs(column + 0.5 - 30) <= 1


def test_alpha_outside_the_region_is_zero() -> None:
    class Everywhere(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.full((1, 1, *image.shape[-2:]), 20.0)

    image = np.zeros((400, 600, 3), np.uint8)
    landmarks = np.random.default_rng(0).uniform([100, 100], [120, 120], (478, 2)).astype(np.float32)
    alpha = MatteModel(Everywhere())(image, landmarks)
    assert alpha.shape == (400, 600)
    assert alpha[110, 110] == 1
    assert alpha[350, 550] == 0


def test_one_person_drops_strangers_and_closes_small_holes() -> None:
    alpha = np.zeros((100, 120), np.float32)
    alpha[20:90, 20:60] = 0.9
    alpha[40:44, 30:34] = 0.2  # a small hole
    alpha[60:80, 35:50] = 0.1  # a gap that is real
    alpha[20:90, 90:110] = 0.95  # somebody else
    face = np.zeros_like(alpha, dtype=bool)
    face[25:35, 30:40] = True
    out = one_person(alpha, face)
    assert out[20:90, 90:110].max() == 0
    assert out[40:44, 30:34].min() == 1
    assert out[70, 42] == np.float32(0.1)
    np.testing.assert_array_equal(one_person(alpha, ~(alpha > 0.5)), alpha)
