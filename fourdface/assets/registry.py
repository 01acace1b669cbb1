"""The list of assets: registry.yaml in the package, and the user's own entries in the file FOURD_REGISTRY."""

from __future__ import annotations

import dataclasses
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from fourdface.errors import FourdError

CLASSES = ("embedded", "open", "gated")
_ID = re.compile(r"[a-z0-9][a-z0-9.\-]{0,63}")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where there is one: seven times faster, and every command that needs an asset reads the list."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Asset:
    """One model file: what it is for, how it is recognised, under what terms it is used and where it comes from."""

    id: str
    kind: str
    """``embedded`` (shipped with fourd), ``open`` (fetched from its publisher) or ``gated`` (the user brings it)."""
    purpose: str
    file: str
    licence: str
    commercial_use: bool
    source: str
    sha256: str | None = None
    bytes: int | None = None
    url: str | None = None
    steps: tuple[str, ...] = ()
    structure: str | None = None
    """Set for what `fourd assets import` converts: the structure by which a file is recognised (manifests.py)."""
    hints: tuple[str, ...] = ()
    """Parts of file names that tell assets of the same structure apart."""

    @property
    def converted(self) -> bool:
        """Whether the file in the asset folder was written by `fourd assets import`, and is not the publisher's."""
        return self.structure is not None and self.file.endswith(".safetensors")

    @property
    def needs_acceptance(self) -> bool:
        """Whether the licence must be accepted once: everything gated, and everything not free for any use.

        Not for what is imported: the user brings the file, and its licence is shown and stays with it.
        """
        return (self.kind == "gated" and not self.converted) or (self.kind == "open" and not self.commercial_use)


def load_registry() -> dict[str, Asset]:
    """All assets by id, in the order of the file; raises FourdError for a registry of the user that does not read."""
    assets = dict(_packaged())
    extra = os.environ.get("FOURD_REGISTRY")
    if extra:
        assets.update(read_registry(Path(extra)))
    return assets


def get_asset(asset_id: str) -> Asset:
    """One asset; a wrong id raises FourdError that lists the known ones."""
    assets = load_registry()
    if asset_id not in assets:
        raise FourdError(f"there is no asset {asset_id!r}; the known ones are {', '.join(assets)}")
    return assets[asset_id]


def read_registry(path: Path) -> dict[str, Asset]:
    """Read a registry file; every mistake is one FourdError that names the entry."""
    try:
        entries = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FourdError(f"cannot read the asset registry {path}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(entries, dict):
        raise FourdError(f"the asset registry {path} must map asset ids to entries")
    return {asset_id: _parse(asset_id, entry, path) for asset_id, entry in entries.items()}


@lru_cache(maxsize=1)
def _packaged() -> dict[str, Asset]:
    return read_registry(Path(__file__).with_name("registry.yaml"))


def _parse(asset_id: Any, entry: Any, path: Path) -> Asset:
    where = f"asset {asset_id!r} in {path}"
    if not isinstance(asset_id, str) or _ID.fullmatch(asset_id) is None or not isinstance(entry, dict):
        raise FourdError(f"{where} is not an entry: ids are small letters, digits, - and .")
    values = {("kind" if key == "class" else key): value for key, value in entry.items()}
    for key in ("steps", "hints"):
        values[key] = tuple(values.get(key) or ())
    try:
        asset = Asset(id=asset_id, **values)
    except TypeError as error:
        raise FourdError(f"{where} is wrong: {str(error).replace('Asset.__init__() ', '')}") from error
    problem = _problem(asset)
    if problem:
        raise FourdError(f"{where} is wrong: {problem}")
    return asset


def _problem(asset: Asset) -> str | None:
    texts = {name: getattr(asset, name) for name in ("purpose", "file", "licence", "source")}
    wrong = [name for name, value in texts.items() if not isinstance(value, str) or not value]
    if wrong:
        return f"{', '.join(wrong)} must be text"
    if asset.kind not in CLASSES:
        return f"class is {asset.kind!r}, expected one of {', '.join(CLASSES)}"
    if Path(asset.file).name != asset.file:
        return f"file is {asset.file!r}, expected a plain file name"
    if not isinstance(asset.commercial_use, bool):
        return "commercial_use must be true or false"
    if asset.sha256 is not None and _SHA256.fullmatch(str(asset.sha256)) is None:
        return "sha256 must be 64 hexadecimal digits or null"
    if asset.bytes is not None and (not isinstance(asset.bytes, int) or asset.bytes < 0):
        return "bytes must be a whole number or null"
    if not all(isinstance(hint, str) for hint in asset.hints):
        return "hints must be text"
    if asset.structure is not None and (asset.kind != "gated" or not isinstance(asset.structure, str)):
        return "only a gated asset has a structure, and it is text"
    if (asset.kind == "open") != isinstance(asset.url, str):
        return "an open asset has a url, and no other has one"
    return None
