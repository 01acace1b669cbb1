"""The surface of a density that is known: a ball."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fourdface.errors import FourdError
from fourdface.methods.portrait4d.config import SIZES
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.methods.portrait4d.surface import extract_surface
from fourdface.priors.genhead.camera import WORLD_SCALE


@pytest.fixture(scope="module")
def network() -> Reconstructor:
    return Reconstructor(replace(SIZES["tiny"], resolution=64)).eval()


def test_a_ball(network: Reconstructor, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a field in place of the planes: radius 0.4, red to the left and green to the right of its middle."""

    def ball(self: object, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        density = 25 + 100 * (0.4 - points.norm(dim=-1))
        colours = torch.zeros(*points.shape[:-1], 16)
        colours[..., 0], colours[..., 1] = (points[..., 0] > 0).float(), (points[..., 0] <= 0).float()
        return density, colours

    monkeypatch.setattr("fourdface.methods.portrait4d.surface.TriplaneField.__call__", ball)
    vertices, faces, colours = extract_surface(network, torch.zeros(1, 3, 16, 32, 32), 48)
    assert np.allclose(np.linalg.norm(vertices, axis=1), 0.4 / WORLD_SCALE, atol=2e-3)
    assert np.allclose(colours[:, 0], vertices[:, 0] > 0, atol=0.01)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((normals * corners.mean(1)).sum(1) > 0).mean() > 0.99, "faces are counter-clockwise from outside"


def test_without_a_surface_there_is_no_mesh(network: Reconstructor) -> None:
    with pytest.raises(FourdError, match="no surface"):
        extract_surface(network, torch.zeros(1, 3, 16, 32, 32), 16)
