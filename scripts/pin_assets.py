"""Write size and SHA-256 of the embedded asset files into fourdface/assets/registry.yaml, after one was built anew.

Usage: python scripts/pin_assets.py [--check]    (--check writes nothing; exit code 1 if a pin is out of date)
"""

from __future__ import annotations

import re
import sys

from fourdface.assets import load_registry, place_of, sha256_of
from fourdface.assets.cache import EMBEDDED

REGISTRY = EMBEDDED.parent / "registry.yaml"


def pinned(text: str) -> str:
    """The registry with the pins of every embedded file that is there; comments and order stay as they are."""
    for asset in load_registry().values():
        place = place_of(asset)
        if asset.kind != "embedded" or not place.is_file():
            continue
        for key, value in (("bytes", place.stat().st_size), ("sha256", sha256_of(place))):
            pattern = rf"(^{re.escape(asset.id)}:\n(?:  .*\n)*?  {key}: ).*$"
            text = re.sub(pattern, rf"\g<1>{value}", text, flags=re.MULTILINE)
    return text


def main(arguments: list[str]) -> int:
    """Write the pins, or with --check say whether they are right."""
    old = REGISTRY.read_text(encoding="utf-8")
    new = pinned(old)
    if old == new:
        return 0
    if "--check" in arguments:
        print("registry.yaml does not fit the embedded files; run scripts/pin_assets.py", file=sys.stderr)
        return 1
    REGISTRY.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
