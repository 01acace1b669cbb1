"""How points are projected onto three planes: the three conventions of the field, in one table."""

from __future__ import annotations

AXES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "eg3d": ((0, 1, 2), (0, 2, 1), (2, 0, 1)),
    "next3d": ((0, 1, 2), (0, 2, 1), (2, 1, 0)),
    "portrait4d": ((0, 1, 2), (1, 2, 0), (2, 0, 1)),
}
"""Per plane the point's coordinate along the plane's columns, its rows, and across it (layers of a tri-grid).

eg3d is (x,y), (x,z), (z,x) as in EG3D's code, which leaves (y,z) out; next3d, also PanoHead's, has (z,y) there.
"""


def check_axes(axes: str) -> None:
    """Raise ValueError for a name that is not in `AXES`."""
    if axes not in AXES:
        raise ValueError(f"axes must be one of {', '.join(AXES)}, got {axes!r}")


def check_reduce(reduce: str) -> None:
    """Raise ValueError unless `reduce` is "mean" or "sum"."""
    if reduce not in ("mean", "sum"):
        raise ValueError(f"reduce must be mean or sum, got {reduce!r}")


def check_box(box_size: float) -> None:
    """Raise ValueError unless the box has a positive, finite side."""
    if not 0 < box_size < float("inf"):
        raise ValueError(f"box_size must be above 0, got {box_size}")
