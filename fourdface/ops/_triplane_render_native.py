"""The fused renderer as torch custom ops (`fourd::triplane_render` and its backward), over cuda/triplane_render.h."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native
from fourdface.ops._ray_marching import PLACEMENTS, RaySampling, seed_key
from fourdface.ops._triplane_axes import AXES

_POINTERS = (
    "planes", "hidden_weight", "hidden_bias", "out_weight", "out_bias", "origins", "directions", "near_distance",
    "far_distance", "offsets", "draw_coarse", "draw_fine", "packed", "occupancy", "features", "distance_sum",
    "weight_sum", "grad_features", "grad_distance_sum", "grad_weight_sum", "grad_planes", "grad_hidden_weight",
    "grad_hidden_bias", "grad_out_weight", "grad_out_bias", "scratch",
)  # fmt: skip


class _Arguments(ctypes.Structure):
    """FourdTriplaneRenderArgs of cuda/triplane_render.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("rays", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in (
            "batch", "channels", "height", "width", "hidden", "outputs", "coarse", "fine", "placement", "disparity",
        )),
        ("axes", ctypes.c_int32 * 6),
        *((name, ctypes.c_int32) for name in ("warp_depth", "warp_height", "warp_width", "occupancy_size")),
        ("seed_key", ctypes.c_uint32),
        ("threads", ctypes.c_int32),
        ("prepared", ctypes.c_int32),
        *((name, ctypes.c_float) for name in (
            "plane_scale", "box_size", "warp_size", "min_transmittance", "empty_density",
        )),
    )  # fmt: skip


class Settings(NamedTuple):
    """The numbers of a call that are no tensors, in the flat form that custom ops take.

    integers: coarse, fine, placement, disparity, six of axes, occupancy cells a side, key of the seed.
    floats: plane_scale, box_size, warp_size, min_transmittance, empty_density.
    """

    integers: list[int]
    floats: list[float]


def make_settings(
    sampling: RaySampling, axes: str, box_size: float, reduce: str, warp_size: float, skip: tuple[int, float, float]
) -> Settings:
    """Flatten the options; `skip` is occupancy cells a side, empty_density and min_transmittance (0, 0, 0 for none)."""
    orders = [coordinate for order in AXES[axes] for coordinate in order[:2]]
    integers = [
        sampling.coarse, sampling.fine, PLACEMENTS.index(sampling.placement), int(sampling.spacing == "disparity"),
        *orders, skip[0], seed_key(sampling.seed),
    ]  # fmt: skip
    return Settings(integers, [1.0 / 3.0 if reduce == "mean" else 1.0, box_size, warp_size, skip[2], skip[1]])


def _arguments(tensors: dict[str, Tensor | None], settings: Settings) -> _Arguments:
    """Fill the structure; the shapes come from the tensors themselves, which must be contiguous float32."""
    planes, out_weight, offsets = tensors["planes"], tensors["out_weight"], tensors.get("offsets")
    if planes is None or out_weight is None:
        raise ValueError("planes and out_weight are needed")
    arguments = _Arguments(**{name: t.data_ptr() for name, t in tensors.items() if t is not None})
    origins = tensors.get("origins")
    arguments.rays = 0 if origins is None else int(origins.shape[1])
    arguments.batch, _, arguments.channels, arguments.height, arguments.width = planes.shape
    arguments.hidden, arguments.outputs = int(out_weight.shape[1]), int(out_weight.shape[0]) - 1
    arguments.coarse, arguments.fine, arguments.placement, arguments.disparity = settings.integers[:4]
    arguments.axes = (ctypes.c_int32 * 6)(*settings.integers[4:10])
    arguments.occupancy_size, arguments.seed_key = settings.integers[10:12]
    if offsets is not None:
        arguments.warp_depth, arguments.warp_height, arguments.warp_width = offsets.shape[2:]
    arguments.plane_scale, arguments.box_size, arguments.warp_size = settings.floats[:3]
    arguments.min_transmittance, arguments.empty_density = settings.floats[3:5]
    arguments.threads = _native.thread_count()
    return arguments


def _ready(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().float().contiguous()


def packed_shape(planes: Tensor, hidden: int) -> tuple[int, int, int, int, int]:
    """Return the shape of the packed texels: [B, 3, H + 2, W + 2, hidden units rounded up to 16]."""
    batch, _, _, height, width = planes.shape
    return batch, 3, height + 2, width + 2, (hidden + 15) // 16 * 16


_INPUTS = (
    "planes", "hidden_weight", "hidden_bias", "out_weight", "out_bias", "origins", "directions", "near_distance",
    "far_distance", "offsets", "draw_coarse", "draw_fine",
)  # fmt: skip


def _inputs(*tensors: Tensor | None) -> dict[str, Tensor | None]:
    return {name: _ready(tensor) for name, tensor in zip(_INPUTS, tensors, strict=False)}


@torch.library.custom_op("fourd::triplane_render", mutates_args=(), device_types=("cpu", "cuda"))
def render_op(
    planes: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    rays: list[Tensor],
    extra: list[Tensor | None],
    prepared: list[Tensor],
    integers: list[int],
    floats: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features [B, R, K], the sum of weight times distance and of the weights [B, R].

    rays: origins, directions, near, far. extra: offsets, coarse and fine draws, each or None. prepared: packed texels
    and occupancy of `prepare_op`, or empty.
    """
    tensors = _inputs(planes, hidden_weight, hidden_bias, out_weight, out_bias, *rays, *extra)
    batch, count = rays[0].shape[:2]
    features = planes.new_empty((batch, count, out_weight.shape[0] - 1), dtype=torch.float32)
    distance_sum, weight_sum = features.new_empty((batch, count)), features.new_empty((batch, count))
    tensors |= {"features": features, "distance_sum": distance_sum, "weight_sum": weight_sum}
    if prepared:
        tensors |= {"packed": prepared[0], "occupancy": prepared[1] if prepared[1].numel() else None}
    if planes.is_cuda:
        tensors |= _cuda_scratch(planes, out_weight, 0 if prepared else integers[10], made=bool(prepared))
    arguments = _arguments(tensors, Settings(integers, floats))
    arguments.prepared = int(bool(prepared))
    _native.run("triplane_render", arguments, planes.device)
    return features, distance_sum, weight_sum


@render_op.register_fake
def _(
    planes: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, out_weight: Tensor, out_bias: Tensor,
    rays: list[Tensor], extra: list[Tensor | None], prepared: list[Tensor], integers: list[int], floats: list[float],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, count = rays[0].shape[:2]
    features = planes.new_empty((batch, count, out_weight.shape[0] - 1), dtype=torch.float32)
    return features, features.new_empty((batch, count)), features.new_empty((batch, count))


@torch.library.custom_op("fourd::triplane_render_backward", mutates_args=(), device_types=("cpu", "cuda"))
def render_backward_op(
    gradients: list[Tensor],
    planes: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    rays: list[Tensor],
    extra: list[Tensor | None],
    integers: list[int],
    floats: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of planes, hidden_weight, hidden_bias, out_weight, out_bias from those of the outputs."""
    tensors = _inputs(planes, hidden_weight, hidden_bias, out_weight, out_bias, *rays, *extra)
    names = ("features", "distance_sum", "weight_sum")
    tensors |= {f"grad_{name}": _ready(g) for name, g in zip(names, gradients, strict=True)}
    inputs = (planes, hidden_weight, hidden_bias, out_weight, out_bias)
    results = [torch.empty(t.shape, dtype=torch.float32, device=t.device) for t in inputs]
    tensors |= {f"grad_{name}": t for name, t in zip(_INPUTS, results, strict=False)}
    if planes.is_cuda:
        tensors |= _cuda_scratch(planes, out_weight, 0)
        tensors["scratch"] = torch.empty_like(_given(tensors["packed"]))
    _native.run("triplane_render_backward", _arguments(tensors, Settings(integers, floats)), planes.device)
    found = [r.to(t.dtype) for r, t in zip(results, inputs, strict=True)]
    return found[0], found[1], found[2], found[3], found[4]


@render_backward_op.register_fake
def _(
    gradients: list[Tensor], planes: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, out_weight: Tensor,
    out_bias: Tensor, rays: list[Tensor], extra: list[Tensor | None], integers: list[int], floats: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    inputs = (planes, hidden_weight, hidden_bias, out_weight, out_bias)
    found = [torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in inputs]
    return found[0], found[1], found[2], found[3], found[4]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    decoder_and_planes, rays, extra, ctx.integers, ctx.floats = inputs[:5], inputs[5], inputs[6], inputs[8], inputs[9]
    ctx.prepared = len(inputs[7])
    ctx.save_for_backward(*decoder_and_planes, *rays, *extra)


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
    saved = ctx.saved_tensors
    floats = [*ctx.floats[:3], 0.0, 0.0]  # exactly, whatever the forward pass left out
    integers = [*ctx.integers[:10], 0, ctx.integers[11]]
    found = render_backward_op(list(gradients), *saved[:5], list(saved[5:9]), list(saved[9:12]), integers, floats)
    return *found, [None] * 4, None, [None] * ctx.prepared, None, None


render_op.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("fourd::triplane_prepare", mutates_args=(), device_types=("cpu", "cuda"))
def prepare_op(
    planes: Tensor,
    hidden_weight: Tensor,
    hidden_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    integers: list[int],
    floats: list[float],
) -> tuple[Tensor, Tensor]:
    """Return packed texels and the occupancy [B, G, G, G / 32] (32 cells an int32; G may be 0). No gradients."""
    tensors = _inputs(planes, hidden_weight, hidden_bias, out_weight, out_bias)
    packed = planes.new_empty(packed_shape(planes, int(out_weight.shape[1])), dtype=torch.float32)
    cells = integers[10]
    occupancy = planes.new_empty((planes.shape[0], cells, cells, cells // 32), dtype=torch.int32)
    tensors |= {"packed": packed, "occupancy": occupancy if cells else None}
    if planes.is_cuda and cells:
        tensors["scratch"] = planes.new_empty((planes.shape[0], cells, cells, cells), dtype=torch.uint8)
    _native.run("triplane_prepare", _arguments(tensors, Settings(integers, floats)), planes.device)
    return packed, occupancy


@prepare_op.register_fake
def _(
    planes: Tensor, hidden_weight: Tensor, hidden_bias: Tensor, out_weight: Tensor, out_bias: Tensor,
    integers: list[int], floats: list[float],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    cells = integers[10]
    packed = planes.new_empty(packed_shape(planes, int(out_weight.shape[1])), dtype=torch.float32)
    return packed, planes.new_empty((planes.shape[0], cells, cells, cells // 32), dtype=torch.int32)


def _given(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise ValueError("a tensor is missing")
    return tensor


def _cuda_scratch(planes: Tensor, out_weight: Tensor, cells: int, *, made: bool = False) -> dict[str, Tensor | None]:
    """Return what CUDA kernels write to beside the results: they allocate nothing themselves."""
    if made:
        return {}
    found: dict[str, Tensor | None] = {
        "packed": planes.new_empty(packed_shape(planes, int(out_weight.shape[1])), dtype=torch.float32)
    }
    if cells:
        found["occupancy"] = planes.new_empty((planes.shape[0], cells, cells, cells // 32), dtype=torch.int32)
        found["scratch"] = planes.new_empty((planes.shape[0], cells, cells, cells), dtype=torch.uint8)
    return found
