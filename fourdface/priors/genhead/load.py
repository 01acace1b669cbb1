"""Heads and published networks by name: what the package ships, and what `fourd assets import` brought in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fourdface.assets import load_extras, load_weights
from fourdface.blocks.head_model import HeadModel
from fourdface.errors import FourdError
from fourdface.priors.genhead.config import SIZES, GenHeadConfig
from fourdface.priors.genhead.generator import GenHead
from fourdface.priors.genhead.head import HeadGeometry

__all__ = ["build_genhead", "genhead_from_state", "head_geometry", "load_genhead", "load_trained"]

FACE_MASK = "deformer.flame_deform.face_mask"
"""Array beside the state dictionary of an imported checkpoint; found again from the state where it is missing."""
_TOLD = "backbone.mapping.embed.weight"
_BASES = "deformer.flame_deform.flame_model.shapedirs"


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
    label, bases = state.get(_TOLD), state.get(_BASES)
    if label is None or bases is None:
        raise ValueError("the checkpoint is not of a GenHead: it has no mapping network or carries no head model")
    expressions = bases.shape[2] - (label.shape[1] - 25)  # the mapping network is told camera and identity
    head = HeadGeometry.from_checkpoint(state, expression_count=expressions, face_mask=face_mask)
    network = GenHead(head, config)
    network.load_state_dict(dict(state))
    return network.eval()


def load_genhead(asset: str | Path = "genhead-ffhq512") -> GenHead:
    """The published network from an imported asset, or straight from its file.

    Raises:
        FourdError: the asset is missing or the file is refused.
    """
    return genhead_from_state(load_weights(asset, "genhead"), face_mask=load_extras(asset).get(FACE_MASK))


def load_trained(path: str | Path) -> GenHead:
    """The averaged generator of a run of `fourd train genhead`, from its weights.safetensors.

    Raises FourdError for a file that is damaged or of another network.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            settings = json.loads((file.metadata() or {})["config"])["network"]
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        known = {field.name: field for field in fields(GenHeadConfig)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items() if k in known}
        return genhead_from_state(state, GenHeadConfig(**values))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FourdError(f"{path} holds no trained GenHead ({_short(error)}): give RUN/weights.safetensors") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
