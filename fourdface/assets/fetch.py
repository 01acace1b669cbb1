"""Bring an asset to its place: from its publisher, or from a file of the user's; checked before it gets its name."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fourdface import __version__
from fourdface.assets.cache import locked, missing_message, place_of, sha256_of
from fourdface.assets.licences import require_acceptance
from fourdface.assets.registry import Asset
from fourdface.errors import FourdError, UsageError

TIMEOUT_SECONDS = 30.0
LARGEST_BYTES = 20 << 30  # bound for a file whose size the registry does not state
_PIECE = 1 << 18
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.(?:pth|pt)$")
"""torch's own files end in the first digits of their SHA-256; checked where the registry has no whole one."""
_LOCAL = ("localhost", "127.0.0.1", "::1")
Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and, if known, the bytes in all."""


def fetch_asset(asset: Asset, *, accept_licence: bool = False, progress: Progress | None = None) -> Path:
    """Download an open asset unless it is there, and return its path.

    The bytes go to a temporary file, are compared with the registry's SHA-256 and size, and only then get their name;
    other processes wait. Raises UsageError (wrong class, licence not accepted) and FourdError (offline, network, hash).
    """
    place = place_of(asset)
    if asset.kind == "embedded":
        raise UsageError(f"{asset.id} is part of fourd and needs no fetching")
    if asset.kind == "gated" or asset.url is None:
        raise UsageError(missing_message(asset))
    require_acceptance(asset, accept=accept_licence)
    with locked(asset) as folder:
        if place.is_file():
            return place
        if _offline():
            raise FourdError(f"{asset.id} is missing and fetching is switched off by {_offline()}; unset it to fetch")
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{asset.file}.", suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as target:
                _download(asset, asset.url, target, progress)
            _check(asset, temporary, f"what {asset.url} sent")
            temporary.chmod(0o644)
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
    return place


def add_asset(asset: Asset, file: Path, *, accept_licence: bool = False) -> Path:
    """Copy the user's own file to the place of an asset, after the same checks; returns the new path."""
    if asset.kind == "embedded":
        raise UsageError(f"{asset.id} is part of fourd and cannot be replaced")
    if asset.converted:
        raise UsageError(f"{asset.id} is converted from its publisher's file: run `fourd assets import {file}`")
    if not file.is_file():
        raise FourdError(f"{file} does not exist or is not a file")
    require_acceptance(asset, accept=accept_licence)
    _check(asset, file, str(file))
    place = place_of(asset)
    with locked(asset) as folder:
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{asset.file}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as target, open(file, "rb") as source:
                shutil.copyfileobj(source, target, _PIECE)
            os.chmod(name, 0o644)
            os.replace(name, place)
        except OSError as error:
            raise FourdError(f"cannot copy {file} to {place}: {error.strerror}") from error
        finally:
            Path(name).unlink(missing_ok=True)
    return place


def _offline() -> str:
    """The name of the setting that forbids downloads, or ""."""
    for name in ("FOURD_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() not in ("", "0", "false", "no"):
            return name
    return ""


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse a redirect to an address that fetching would not start from."""
        _require_safe(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_safe(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
        raise FourdError(f"will not fetch from {url}: only https is used")


def _download(asset: Asset, url: str, target: IO[bytes], progress: Progress | None) -> None:
    _require_safe(url)
    request = urllib.request.Request(url, headers={"User-Agent": f"fourd/{__version__}"})
    opener = urllib.request.build_opener(_OnlyHttps())
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            _copy(asset, response, target, progress)
    except urllib.error.HTTPError as error:
        answer = f"the server answered {error.code} {error.reason}"
        raise FourdError(f"cannot fetch {asset.id} from {url}: {answer}") from error
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", None) or error
        text = " ".join(str(cause).split()) or type(error).__name__
        raise FourdError(f"cannot fetch {asset.id} from {url}: {text}; nothing was kept, try again") from error


def _copy(asset: Asset, response: Any, target: IO[bytes], progress: Progress | None) -> None:
    length = response.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else asset.bytes
    limit = asset.bytes if asset.bytes is not None else LARGEST_BYTES
    done = 0
    while piece := response.read(_PIECE):
        done += len(piece)
        if done > limit:
            raise FourdError(f"cannot fetch {asset.id}: {response.url} sent more than the {limit} bytes expected")
        target.write(piece)
        if progress is not None:
            progress(done, total)
    if total is not None and done < total:
        raise FourdError(f"cannot fetch {asset.id}: the connection ended after {done} of {total} bytes; try again")


def _check(asset: Asset, path: Path, words: str) -> None:
    size = path.stat().st_size
    if asset.bytes is not None and size != asset.bytes:
        raise FourdError(f"{words} is not {asset.file}: it has {size} bytes, expected {asset.bytes}")
    named = _HASH_IN_NAME.search(asset.file)
    expected = asset.sha256 or (named and named[1])
    if not expected:
        return
    found = sha256_of(path)
    if not found.startswith(expected):
        raise FourdError(f"{words} is not {asset.file}: its SHA-256 is {found}, expected {expected}")
