"""Beyond the picture's edges the person goes on, and a torso that moves leaves no gap."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from fourdface.methods.splat.edge import edge_layer
from fourdface.methods.splat.lift import body_of
from fourdface.methods.splat.scene import Scene, make_scene
from support.lifted import lifted_photo
from support.scenes import make_photo


def scene(matte: np.ndarray | None = None) -> Scene:
    photo = make_photo()
    return make_scene(photo.image, photo.matte if matte is None else matte, photo.view, photo.rig.model, photo.rig)


def test_what_the_lower_edge_cuts_goes_on_below_it() -> None:
    made = scene()
    layer = edge_layer(made, body_of(made)[0], made.image)
    assert layer is not None
    pixels, _ = made.view.project(layer.means)
    size = made.view.height
    assert (pixels[:, 1] > size - 1).all() and pixels[:, 1].max() < 1.25 * size
    shirt = layer.colours[pixels[:, 1] < 1.06 * size]
    np.testing.assert_allclose(np.median(shirt, axis=0), [0.2, 0.25, 0.6], atol=0.05)


def test_a_person_who_touches_no_edge_has_none() -> None:
    matte = make_photo().matte.copy()
    matte[-4:] = 0
    made = scene(matte)
    assert edge_layer(made, body_of(made)[0], made.image) is None


def test_a_torso_that_rises_leaves_no_gap() -> None:
    """Tracked shoulders that rise by two centimetres: the lower edge stays covered."""
    _, avatar, _ = lifted_photo()
    state = dataclasses.replace(avatar.rig.source, torso=torch.tensor([0.0, 0, 0, 0, 0.02, 0]))
    alpha = avatar.render(state).alpha.numpy()
    size = len(alpha)
    assert alpha[-2:, size // 2 - 20 : size // 2 + 20].min() > 0.9
