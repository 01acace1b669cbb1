"""Where assets lie: the embedded ones in the package, the others in one folder of the user's."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fourdface.assets.registry import Asset, get_asset
from fourdface.errors import FourdError

EMBEDDED = Path(__file__).with_name("files")
_PIECE = 1 << 20


def asset_folder() -> Path:
    """The folder of fetched and added assets: $FOURD_ASSETS, else $XDG_CACHE_HOME/fourd, else ~/.cache/fourd."""
    chosen = os.environ.get("FOURD_ASSETS")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fourd"


def place_of(asset: Asset) -> Path:
    """Where the file of an asset belongs, whether it is there or not."""
    return EMBEDDED / asset.file if asset.kind == "embedded" else asset_folder() / asset.id / asset.file


def find_asset(asset_id: str) -> Path | None:
    """The path of an asset that is there, else None; FourdError for an id that does not exist."""
    place = place_of(get_asset(asset_id))
    return place if place.is_file() else None


def asset_path(asset_id: str) -> Path:
    """The path of an asset, for a command that needs it; nothing is ever downloaded here.

    Raises FourdError with the steps to get the asset and the places that were looked in.
    """
    asset = get_asset(asset_id)
    place = place_of(asset)
    if place.is_file():
        return place
    raise FourdError(missing_message(asset))


def missing_message(asset: Asset) -> str:
    """Say what is missing, what to do in numbered steps, and where it was looked for."""
    if asset.kind == "embedded":
        return (
            f"the file {asset.file} ({asset.purpose}) is missing from the installation, looked in {EMBEDDED}; "
            "install fourd again"
        )
    accept = " --accept-licence" if asset.needs_acceptance else ""
    fetch = (f"run `fourd assets fetch {asset.id}{accept}` ({asset.licence})",)
    steps = asset.steps or (fetch if asset.kind == "open" else (f"get its file from {asset.source}", _add(asset)))
    numbered = "; ".join(f"({number}) {step}" for number, step in enumerate(steps, 1))
    chosen = os.environ.get("FOURD_ASSETS")
    setting = "$FOURD_ASSETS" if chosen else "$FOURD_ASSETS is not set"
    return f"{asset.id} ({asset.purpose}) is missing: {numbered}; looked in {place_of(asset)} ({setting})"


def _add(asset: Asset) -> str:
    if asset.converted:
        return f"run `fourd assets import FILE --as {asset.id}`"
    return f"run `fourd assets add {asset.id} {asset.file} --accept-licence`"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file as lower-case hex; raises FourdError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise FourdError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


@contextlib.contextmanager
def locked(asset: Asset) -> Iterator[Path]:
    """Hold the asset's folder for one process at a time, and give the folder; a second one waits.

    The lock is the kernel's, so that a killed process leaves none behind.
    """
    folder = place_of(asset).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FourdError(
            f"cannot write in the asset folder {folder}: {error.strerror}; set FOURD_ASSETS to another"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(handle)
