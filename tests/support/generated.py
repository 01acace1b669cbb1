"""A tiny GenHead of the open head with weights by rule, as `fourd train genhead` would leave it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import torch
from parity.rule import GENHEAD_EQLR, fill
from safetensors.torch import save_file

from fourdface.blocks.head_model import HeadModel
from fourdface.priors.genhead.config import SIZES, GenHeadConfig
from fourdface.priors.genhead.generator import GenHead
from fourdface.priors.genhead.head import HeadGeometry


def write_genhead(place: Path, config: GenHeadConfig = SIZES["tiny"], denser: float = 6.0) -> Path:
    """Write and return weights.safetensors in a folder; `denser`: added to the raw density, so that there is a head."""
    network = GenHead(HeadGeometry.from_head_model(HeadModel.load()), config)
    fill(network, eqlr=GENHEAD_EQLR)
    with torch.no_grad():
        network.decoder.out_sigma.bias.add_(denser)
    path = place / "weights.safetensors"
    state = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    save_file(state, str(path), metadata={"config": json.dumps({"network": dataclasses.asdict(config)})})
    return path
