"""`fourd assets import`: published files become safetensors, whatever wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import data_folder

from fourdface.assets import load_extras, load_record, load_weights
from fourdface.assets.importer import import_file
from fourdface.assets.manifests import manifest
from fourdface.errors import FourdError
from support.calling import files, good
from support.checkpoints import (
    concrete,
    module_tree,
    persistence_pickle,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty asset folder of the test's own."""
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path / "assets"))
    return tmp_path / "assets"


def random_tensors(structure: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(concrete(shape)) for name, shape in manifest(structure).items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


# ------------------------------------------------------------------------------------------------- persistence pickles


@pytest.mark.real
def test_the_persistence_pickle_of_the_official_code_imports(folder: Path) -> None:
    """Read by the project's reader, compared with the numbers that torch itself finds in the file."""
    source = data_folder().parent / "parity" / "portrait4d" / "tiny_persistence_style.pkl"
    if not source.is_file():
        pytest.skip(f"no fixture {source}")
    outcome = good("assets", "import", source)
    place = folder / "osg-decoder" / "weights.safetensors"
    assert outcome.out.decode().strip() == str(place) and "6 tensors, 4257 numbers; imported" in outcome.err
    tensors = safetensors.torch.load_file(place)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == manifest("osg-decoder")
    raw = source.read_bytes()
    for name, tensor in tensors.items():
        assert tensor.numpy().tobytes() in raw, f"the numbers of {name} are not those of the file"
    record = json.loads((folder / "osg-decoder" / "weights.json").read_text())
    assert record["network"] == "G_ema" and record["source"]["name"] == source.name
    assert record["settings"]["init_args"] == [32, {"decoder_lr_mul": 1.0, "decoder_output_dim": 32}]
    assert "nothing changed" in good("assets", "import", source).err
    assert files(place.parent) == [".lock", "weights.json", "weights.safetensors"]


def test_import_then_load(tmp_path: Path) -> None:
    tensors = random_tensors("osg-decoder")
    import_file(persistence_pickle(tmp_path / "x.pkl", module_tree(tensors, _init_kwargs={"a": 1, "f": (2, None)})))
    assert same(load_weights("osg-decoder"), tensors)
    assert same(load_weights("osg-decoder", "osg-decoder"), tensors)
    assert load_record("osg-decoder")["settings"]["init_kwargs"] == {"a": 1, "f": [2, None]}
    assert load_extras("osg-decoder") == {}
    with pytest.raises(FourdError, match=r"does not fit: .* is missing"):
        load_weights("osg-decoder", "bfm2flame")
