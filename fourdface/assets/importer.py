"""`fourd assets import`: convert a foreign weight file once into safetensors and JSON in the asset folder.

Nothing in the file is executed (see `formats.safe_pickle`); the result holds the numbers, where they came from and
under which licence.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fourdface import __version__
from fourdface.assets.cache import locked, place_of, sha256_of
from fourdface.assets.formats.arrays import Array
from fourdface.assets.formats.errors import FormatError
from fourdface.assets.formats.opening import open_weights
from fourdface.assets.formats.safetensors_files import require_finite, write_safetensors
from fourdface.assets.licences import require_acceptance
from fourdface.assets.recognise import Recognised, recognise
from fourdface.assets.registry import Asset, get_asset, load_registry
from fourdface.errors import FourdError

RECORD = "weights.json"
DISCRIMINATOR = "discriminator.safetensors"


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did: the asset, its file, and whether anything was written."""

    asset: Asset
    place: Path
    written: bool
    tensors: int
    numbers: int


def import_file(
    path: Path, *, as_id: str | None = None, overwrite: bool = False, accept_licence: bool = False
) -> Imported:
    """Recognise a foreign weight file and convert it into its place in the asset folder.

    Importing the same file again changes nothing. Raises FourdError, and writes nothing, for a file that is unknown,
    damaged or hostile, that fits several assets where `as_id` does not say which, or where another file was imported
    before and `overwrite` is not set; UsageError where the publisher's own file is kept and its licence not accepted.
    """
    try:
        found = recognise(open_weights(path))
        require_finite({**found.tensors, **found.extras})
        require_finite(found.discriminator.tensors if found.discriminator else {})
    except FormatError as error:
        raise FourdError(f"{path} was refused: {error}") from error
    asset = choose_asset(found.structure, path.name, as_id)
    require_acceptance(asset, accept=accept_licence)
    place = place_of(asset)
    source = {"name": path.name, "sha256": sha256_of(path), "bytes": path.stat().st_size}
    if asset.sha256 is not None and asset.sha256 != source["sha256"]:
        raise FourdError(f"{path} is not {asset.file}: its SHA-256 is {source['sha256']}, expected {asset.sha256}")
    numbers = sum(math.prod(array.shape) for array in found.tensors.values())
    with locked(asset) as folder:
        old = read_record(folder)
        if place.is_file() and old is not None and old.get("source", {}).get("sha256") == source["sha256"]:
            return Imported(asset, place, False, len(found.tensors), numbers)
        if place.exists() and not overwrite:
            before = f" from {old['source']['name']}" if old and isinstance(old.get("source"), dict) else ""
            raise FourdError(f"{asset.id} was imported before{before} ({place}); --overwrite replaces it")
        try:
            _write(asset, folder, path, found, source)
        except OSError as error:
            raise FourdError(f"cannot write in {folder}: {error.strerror or error}") from error
    return Imported(asset, place, True, len(found.tensors), numbers)


def choose_asset(structure: str, file_name: str, as_id: str | None) -> Asset:
    """The asset that a file of this structure is; several have the same structure and differ in the file's name."""
    fitting = [asset for asset in load_registry().values() if asset.structure == structure]
    names = ", ".join(asset.id for asset in fitting)
    if as_id is not None:
        wanted = get_asset(as_id)
        if wanted not in fitting:
            raise FourdError(f"{file_name} has the structure {structure}, which fits {names or 'nothing'}, not {as_id}")
        return wanted
    if not fitting:
        raise FourdError(f"{file_name} has the structure {structure}, and no asset of the registry has it")
    if len(fitting) == 1:
        return fitting[0]
    name = file_name.lower()
    scores = [max((len(hint) for hint in asset.hints if hint in name), default=0) for asset in fitting]
    chosen = [asset for asset, score in zip(fitting, scores, strict=True) if score == max(scores)]
    if max(scores) == 0 or len(chosen) > 1:
        raise FourdError(f"{file_name} has the structure {structure}, which {names} share: say which with --as ID")
    return chosen[0]


def read_record(folder: Path) -> dict[str, Any] | None:
    """The JSON beside imported weights, None where there is none that reads."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _write(asset: Asset, folder: Path, path: Path, found: Recognised, source: dict[str, Any]) -> None:
    """Write all files under temporary names, then give them their names, the record last."""
    with contextlib.ExitStack() as stack:
        weights, weights_file = stack.enter_context(_temporary(folder, asset.file))
        if asset.file.endswith(".safetensors"):
            digest = write_safetensors(weights_file, {**found.tensors, **found.extras}, _metadata(asset, source))
        else:
            with open(path, "rb") as original:
                shutil.copyfileobj(original, weights_file, 1 << 20)
            digest = source["sha256"]
        _finish(weights_file)
        record = _record(asset, found, source, digest)
        second: Path | None = None
        if found.discriminator is not None:
            second, second_file = stack.enter_context(_temporary(folder, DISCRIMINATOR))
            content = found.discriminator
            digest = write_safetensors(second_file, content.tensors, _metadata(asset, source))
            _finish(second_file)
            record["discriminator"] = {
                "file": DISCRIMINATOR,
                "file_sha256": digest,
                "structure": content.structure,
                "settings": content.settings,
            }
        note, note_file = stack.enter_context(_temporary(folder, RECORD))
        note_file.write(json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n")
        _finish(note_file)
        os.replace(weights, folder / asset.file)
        if second is not None:
            os.replace(second, folder / DISCRIMINATOR)
        else:
            (folder / DISCRIMINATOR).unlink(missing_ok=True)
        os.replace(note, folder / RECORD)


@contextlib.contextmanager
def _temporary(folder: Path, name: str) -> Iterator[tuple[Path, IO[bytes]]]:
    """A file that is gone at the end unless it was renamed."""
    handle, place = tempfile.mkstemp(dir=folder, prefix=f".{name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            yield Path(place), file
    finally:
        Path(place).unlink(missing_ok=True)


def _finish(file: IO[bytes]) -> None:
    file.flush()
    os.fchmod(file.fileno(), 0o644)
    os.fsync(file.fileno())


def _metadata(asset: Asset, source: dict[str, Any]) -> dict[str, str]:
    return {
        "fourd_asset": asset.id,
        "licence": asset.licence,
        "commercial_use": json.dumps(asset.commercial_use),
        "source": source["name"],
        "source_sha256": source["sha256"],
    }


def _record(asset: Asset, found: Recognised, source: dict[str, Any], digest: str) -> dict[str, Any]:
    def shape(array: Array) -> list[int]:
        return list(array.shape)

    return {
        "asset": asset.id,
        "purpose": asset.purpose,
        "file": asset.file,
        "file_sha256": digest,
        "source": source,
        "licence": asset.licence,
        "commercial_use": asset.commercial_use,
        "publisher": asset.source,
        "structure": found.structure,
        "network": found.network,
        "tensors": len(found.tensors),
        "numbers": sum(math.prod(array.shape) for array in found.tensors.values()),
        "extras": {name: shape(array) for name, array in found.extras.items()},
        "settings": found.settings,
        "discriminator": None,
        "left_out": list(found.left_out),
        "fourd_version": __version__,
    }
