"""Checks of a field's meaning, each answering None or what is wrong ("holds a number below 0")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def positive(value: int) -> str | None:
    """A size or rate is at least 1."""
    return None if value >= 1 else f"must be at least 1, got {value}"


def ascending(value: np.ndarray) -> str | None:
    """Times never run backwards."""
    return "run backwards" if (np.diff(value) < 0).any() else None


def status(value: np.ndarray) -> str | None:
    """A frame's status is one of the four known numbers."""
    return f"holds {int(value.max())}, expected 0 to 3" if value.size and value.max() > 3 else None


def one_of(names: Sequence[str]) -> Callable[[Any], str | None]:
    """Make a check that a text is one of the given names."""

    def check(value: Any) -> str | None:
        return None if value in names else f"is {value!r}, expected one of {', '.join(names)}"

    return check
