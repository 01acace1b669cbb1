"""Heads and published networks by name: what the package ships, and what `fourd assets import` brought in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fourdface.assets import load_extras, load_weights
from fourdface.blocks.head_model import HeadModel
from fourdface.priors.genhead.config import SIZES, GenHeadConfig
from fourdface.priors.genhead.generator import GenHead
from fourdface.priors.genhead.head import HeadGeometry

__all__ = ["build_genhead", "genhead_from_state", "head_geometry", "load_genhead"]

FACE_MASK = "deformer.flame_deform.face_mask"
"""Array beside the state dictionary of an imported checkpoint; found again from the state where it is missing."""


def head_geometry(name: str = "open") -> HeadGeometry:
    """The head model of a data set: "open" (embedded), "flame2020" or "flame2023" (imported by the user).

    Raises:
        FourdError: an unknown name, or a FLAME file or its masks are not imported.
    """
    if name in ("flame2020", "flame2023"):
        return HeadGeometry.from_flame(load_weights(name), load_weights("flame-masks"))
    return HeadGeometry.from_head_model(HeadModel.load(name))


def build_genhead(config: GenHeadConfig) -> GenHead:
    """A network of these sizes over the configuration's head model, with random weights."""
    return GenHead(head_geometry(config.head), config)


def genhead_from_state(
    state: Mapping[str, Tensor],
    config: GenHeadConfig = SIZES["paper"],
    face_mask: Tensor | None = None,
) -> GenHead:
    """The network of a state dictionary, with the head model that the state carries.

    Args:
        state: names and shapes of `genhead-ffhq512`, or of `GenHead(...).state_dict()` with these sizes.
        face_mask: vertices of the face and the eyeballs, where known.

    Raises:
        ValueError: the state carries no head model. RuntimeError: names or shapes differ.
    """
    head = HeadGeometry.from_checkpoint(state, face_mask=face_mask)
    network = GenHead(head, config)
    network.load_state_dict(dict(state))
    return network.eval()


def load_genhead(asset: str | Path = "genhead-ffhq512") -> GenHead:
    """The published network from an imported asset, or straight from its file.

    Raises:
        FourdError: the asset is missing or the file is refused.
    """
    return genhead_from_state(load_weights(asset, "genhead"), face_mask=load_extras(asset).get(FACE_MASK))
