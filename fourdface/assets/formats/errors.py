"""What the readers raise, and the limits they share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class FormatError(ValueError):
    """A file that is damaged, hostile or of another kind; the text completes the sentence "FILE was refused: ..."."""


MOST_OPCODES = 500_000
"""Pickle opcodes of one file, nested pickles included. The largest known checkpoint needs a quarter of it."""
MOST_TENSORS = 20_000
MOST_DIMENSIONS = 8


class Budget:
    """Opcodes that a file may still use; shared by all pickles in it."""

    def __init__(self, opcodes: int = MOST_OPCODES) -> None:
        self.left = opcodes

    def spend(self, opcodes: int) -> None:
        """Take opcodes off; raises FormatError when none are left."""
        self.left -= opcodes
        if self.left < 0:
            raise FormatError(f"its pickle has more than {MOST_OPCODES} instructions, far more than any model needs")


@contextlib.contextmanager
def damage_refused() -> Iterator[None]:
    """Turn what damaged content may raise inside of a reader into FormatError; a last net, no test falls into it."""
    try:
        yield
    except FormatError:
        raise
    except (ValueError, TypeError, ArithmeticError, LookupError, RecursionError, MemoryError, BufferError) as error:
        raise FormatError(f"it is damaged ({type(error).__name__} while reading it)") from error
