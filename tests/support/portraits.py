"""Weights of Portrait4D that are made by the rule: the pictures are noise, everything about them is what counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from parity.rule import PSI_EQLR, fill

from fourdface.methods.portrait4d.config import SIZES, ReconstructorConfig
from fourdface.methods.portrait4d.motion_encoder import MotionEncoder
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.methods.portrait4d.weights import save_reconstructor

SMALLEST = replace(
    SIZES["tiny"], motion=548, motion_encoder="pdfgc", resolution=64, render_size=16, coarse_samples=8, fine_samples=8
)


def write_weights(folder: Path, config: ReconstructorConfig = SMALLEST) -> list[str]:
    """Write both networks and return the options that name them."""
    from safetensors.torch import save_file

    network = fill(Reconstructor(config), eqlr=PSI_EQLR)
    with torch.no_grad():
        network.decoder.out_sigma.weight.mul_(40)  # dense and varied enough for a surface
        network.decoder.out_sigma.bias.sub_(26)
    save_reconstructor(network, folder / "psi.safetensors")
    state = fill(MotionEncoder(), "pdfgc.").state_dict()
    save_file({key: value.contiguous() for key, value in state.items()}, str(folder / "motion.safetensors"))
    return ["--weights", str(folder / "psi.safetensors"), "--motion-weights", str(folder / "motion.safetensors")]
