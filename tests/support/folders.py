"""Where the test data lie."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def data_folder() -> Path:
    """Folder of real photos and clips: FOURD_TEST_DATA, by default ../shared/data beside the repository."""
    return Path(os.environ.get("FOURD_TEST_DATA") or ROOT.parent / "shared" / "data")
