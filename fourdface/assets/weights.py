"""Imported weights as torch tensors, in the names of the manifests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fourdface.assets.cache import asset_path, place_of
from fourdface.assets.formats.arrays import Array
from fourdface.assets.formats.errors import FormatError, damage_refused
from fourdface.assets.formats.modules import dictionary_tensors
from fourdface.assets.formats.opening import open_weights
from fourdface.assets.importer import DISCRIMINATOR, read_record
from fourdface.assets.manifests import Manifest, all_manifests, compare, describe
from fourdface.assets.recognise import Recognised, recognise
from fourdface.assets.registry import get_asset
from fourdface.errors import FourdError

if TYPE_CHECKING:
    from torch import Tensor


def load_weights(
    asset: str | Path, expected: str | Manifest | None = None, *, discriminator: bool = False
) -> dict[str, Tensor]:
    """State dictionary of an imported asset, or of a weight file in any format that `fourd assets import` reads.

    Args:
        asset: an asset's id, or the path of a file (a str counts as a path where such a file exists). Assets that are
            kept as their publisher's file are read like that file.
        expected: a manifest's name (`manifests.all_manifests`) or tensor name -> shape (None for any length). Without
            it, the structure that the asset was recognised as. A file may hold more than such a table names.
        discriminator: load the discriminator that came with the generator instead.

    Returns:
        Exactly the expected names, ready for `load_state_dict(strict=True)`; the numbers are copies on the CPU, in the
        precision of the file.

    Raises:
        FourdError: missing asset, refused file, or names and shapes that differ; the sentence names the first.
    """
    arrays, structure, words = _read(asset, discriminator, isinstance(expected, Mapping))
    wanted = structure if expected is None else expected
    names = _manifest(wanted) if isinstance(wanted, str) else wanted
    if names is None:
        return {name: _tensor(array) for name, array in arrays.items()}
    known = {name: array for name, array in arrays.items() if name in names}
    shapes = {name: array.shape for name, array in known.items()}
    difference = compare(shapes, names)
    if not difference.none:
        raise FourdError(f"{words} does not fit: {describe(difference, shapes, names)}")
    return {name: _tensor(array) for name, array in known.items()}


def load_extras(asset: str | Path) -> dict[str, Tensor]:
    """Arrays that came with an asset and are no part of its state dictionary (FLAME's masks, for example), by name."""
    arrays, structure, _ = _read(asset, False)
    names = _manifest(structure) or arrays
    return {name: _tensor(array) for name, array in arrays.items() if name not in names}


def load_record(asset_id: str) -> dict[str, Any]:
    """The record of an import: source, licence, structure, settings (constructor arguments); FourdError if missing."""
    place = asset_path(asset_id)
    record = read_record(place.parent)
    if record is None:
        raise FourdError(f"the record of {asset_id} beside {place} is missing or damaged; import its file again")
    return record


def _manifest(structure: str) -> Mapping[str, tuple[int | None, ...]] | None:
    return all_manifests().get(structure)


def _read(asset: str | Path, discriminator: bool, any_names: bool = False) -> tuple[dict[str, Array], str, str]:
    """Arrays, structure ("" where unknown) and the words that name the source."""
    if isinstance(asset, str) and not Path(asset).is_file() and not get_asset(asset).converted:
        asset = asset_path(asset)
    if isinstance(asset, Path) or Path(asset).is_file():
        found = _opened(Path(asset), any_names)
        if isinstance(found, dict):
            return found, "", str(asset)
        chosen = found.discriminator if discriminator else found
        if chosen is None:
            raise FourdError(f"{asset} holds no discriminator that fourd knows")
        return {**chosen.tensors, **chosen.extras}, chosen.structure, str(asset)
    place = asset_path(asset)
    record = load_record(asset)
    structure = record.get("structure", "")
    if discriminator:
        entry = record.get("discriminator")
        if not isinstance(entry, dict):
            raise FourdError(f"{asset} came without a discriminator: {record['source']['name']} held none that fits")
        place, structure = place_of(get_asset(asset)).with_name(DISCRIMINATOR), entry["structure"]
    arrays = _opened(place)
    return (arrays if isinstance(arrays, dict) else arrays.tensors), structure, asset


def _opened(path: Path, any_names: bool = False) -> dict[str, Array] | Recognised:
    """Named arrays of a safetensors file as they are; of any other file what it was recognised as.

    With `any_names` a plain state dictionary is taken as it is too.
    """
    try:
        opened = open_weights(path)
        if any_names and opened.root is not None:
            with damage_refused():
                found = dictionary_tensors(opened.root, opened.tensors)
            if found:
                return found
        return opened.arrays if opened.kind == "safetensors" and opened.arrays is not None else recognise(opened)
    except FormatError as error:
        raise FourdError(f"{path} was refused: {error}") from error


def _tensor(array: Array) -> Tensor:
    import torch

    tensor = torch.from_numpy(np.array(array.data, order="C"))
    return tensor.view(torch.bfloat16) if array.code == "BF16" else tensor
