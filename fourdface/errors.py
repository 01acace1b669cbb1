"""The two errors that a user sees as one sentence (DESIGN.md section 4)."""

from __future__ import annotations


class FourdError(Exception):
    """A failure at run time (no face, bad file, disk full): exit code 1."""

    exit_code = 1


class UsageError(FourdError):
    """A call that cannot work as given (wrong kind, missing option): exit code 2."""

    exit_code = 2
