"""Features of points in a tri-plane: bilinear lookups in three axis-aligned planes, averaged or summed.

Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks" (EG3D, 2022), section 4.1; with layers per
plane it is the tri-grid of An et al., "PanoHead" (2023), section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fourdface.ops import _native
from fourdface.ops._triplane_axes import AXES, check_axes, check_box, check_reduce
from fourdface.ops._triplane_sample_native import sample_op

__all__ = ["AXES", "triplane_sample", "triplane_sample_reference"]


def triplane_sample(
    planes: Tensor,
    points: Tensor,
    *,
    axes: str = "eg3d",
    box_size: float = 1.0,
    reduce: str = "mean",
    backend: str = "auto",
) -> Tensor:
    """Look up the features of points.

    Args:
        planes: [B, 3, C, H, W], or [B, 3, C, D, H, W] for a tri-grid of D layers (trilinear).
        points: [B, N, 3], in the units of `box_size`.
        axes: "eg3d", "next3d" or "portrait4d": which coordinates each plane takes (`AXES`).
        box_size: side of the cube around the origin that the planes cover: a plane's outer texel edges lie at
            +-box_size/2 (align_corners False); outside is zero.
        reduce: "mean" or "sum" over the planes.
        backend: "auto" (native for float32), "reference" or "native".

    Returns:
        features [B, N, C]; differentiable (once, natively) in planes and points. A point that is not finite gives NaN.

    Raises:
        ValueError: wrong shapes, an unknown option, or a backend that is not available here.
    """
    _check(planes, points, axes, box_size, reduce)
    _native.check_backend(backend, ("auto", "reference", "native"))
    fits = planes.dtype == points.dtype == torch.float32 and planes.device == points.device
    if backend == "native":
        if not kernel_there(points.device):
            _native.require_library(points.device)
        if not fits:
            raise ValueError("backend 'native' takes float32 planes and points on one device: use 'auto'")
    if backend == "native" or (backend == "auto" and fits and kernel_there(points.device)):
        return sample_op(planes, points, axes, box_size, 1.0 / 3.0 if reduce == "mean" else 1.0)
    return triplane_sample_reference(planes, points, axes=axes, box_size=box_size, reduce=reduce)


@torch.compiler.assume_constant_result
def kernel_there(device: torch.device) -> bool:
    """As `_native.usable`, and nothing that a compiler looks into."""
    return _native.usable(device)


def triplane_sample_reference(
    planes: Tensor, points: Tensor, *, axes: str = "eg3d", box_size: float = 1.0, reduce: str = "mean"
) -> Tensor:
    """Look up the features of points; as `triplane_sample`, in plain torch on any device and in any precision."""
    _check(planes, points, axes, box_size, reduce)
    scaled = points * (2.0 / box_size)
    total: Tensor | None = None
    for plane, order in zip(planes.unbind(1), AXES[axes], strict=True):
        at = scaled[..., list(order[: planes.dim() - 3])].to(plane.dtype)
        grid = at[:, :, None] if planes.dim() == 5 else at[:, :, None, None]
        found = torch.nn.functional.grid_sample(plane, grid, padding_mode="zeros", align_corners=False)
        found = found.flatten(2)  # [B, C, N]
        total = found if total is None else total + found
    if total is None:
        raise ValueError("planes must be [B, 3, C, H, W], got no plane")
    features = total.transpose(1, 2)
    features = features / 3.0 if reduce == "mean" else features
    return torch.where(torch.isfinite(points).all(-1, keepdim=True), features, torch.full_like(features, float("nan")))


def _check(planes: Tensor, points: Tensor, axes: str, box_size: float, reduce: str) -> None:
    wanted: tuple[int | str, ...] = ("B", 3, "C", "H", "W") if planes.dim() != 6 else ("B", 3, "C", "D", "H", "W")
    _native.check_shape("planes", planes, wanted)
    _native.check_shape("points", points, (int(planes.shape[0]), "N", 3))
    if min(planes.shape[2:]) < 1:
        raise ValueError(f"planes must have at least one channel and texel, got {list(planes.shape)}")
    check_axes(axes)
    check_reduce(reduce)
    check_box(box_size)
