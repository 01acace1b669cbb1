"""The files of configs/portrait4d say what the named sizes are."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fourdface.methods.portrait4d.config import SIZES, ReconstructorConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "portrait4d"


@pytest.mark.parametrize("name", SIZES)
def test_file_and_size_agree(name: str) -> None:
    merged = OmegaConf.merge(OmegaConf.structured(ReconstructorConfig), OmegaConf.load(CONFIGS / f"{name}.yaml"))
    values = {
        key: tuple(value) if isinstance(value, list) else value for key, value in OmegaConf.to_container(merged).items()
    }
    assert ReconstructorConfig(**values) == SIZES[name]
