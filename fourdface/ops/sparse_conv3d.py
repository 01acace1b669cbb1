"""Convolution over the active sites of a sparse volume: submanifold (sites stay) and strided, 3 x 3 x 3.

Graham et al., "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks" (2018). Two steps: which site
meets which through each of the 27 weights (`neighbour_map`, once for all layers that share the sites), then a product
of matrices for each weight (`sparse_conv3d`).
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native

__all__ = [
    "NeighbourMap",
    "merge_sites",
    "neighbour_map",
    "neighbour_map_reference",
    "sparse_conv3d",
    "sparse_conv3d_reference",
    "to_dense",
]

TAPS = 27
Shape = tuple[int, int, int]


class NeighbourMap(NamedTuple):
    """Which input site stands under each weight at each output site.

    coordinates [M, 4] int32 (batch, depth, height, width) and shape (D, H, W) of the output; inputs [27, M] int32: the
    index of the input site, -1 where there is none. Weight (i, j, k) has row 9 i + 3 j + k.
    """

    coordinates: Tensor
    shape: Shape
    inputs: Tensor


def merge_sites(coordinates: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Make coordinates [N, 4] unique, in rising order, with the mean of the features [N, C] that share a site.

    Returns [M, 4] (dtype kept) and [M, C]; differentiable in the features.
    """
    _native.check_shape("coordinates", coordinates, ("N", 4))
    _native.check_shape("features", features, (int(coordinates.shape[0]), "C"))
    unique, which, counts = torch.unique(coordinates, dim=0, return_inverse=True, return_counts=True)
    sums = features.new_zeros((len(unique), int(features.shape[1]))).index_add(0, which, features)
    return unique, sums / counts[:, None].to(sums.dtype)


def neighbour_map(coordinates: Tensor, shape: Shape, *, stride: int = 1, backend: str = "auto") -> NeighbourMap:
    """Find the input sites under a 3 x 3 x 3 kernel (padding 1) at every output site.

    Args:
        coordinates: [N, 4] integers (batch, depth, height, width), each site once; any order.
        shape: (D, H, W) of the volume.
        stride: 1 (submanifold: the output's sites are the input's, in the same order) or 2 (a site is active where
            any input lies in its window; sites in rising order; the shape is halved, rounded up).
        backend: "auto" (native on the CPU where available), "reference" or "native".

    Raises:
        ValueError: wrong shapes, a coordinate outside of the volume, or a site given twice.
    """
    _native.check_backend(backend, ("auto", "reference", "native"))
    _check_sites(coordinates, shape, stride)
    native = coordinates.device.type == "cpu" and _native.library() is not None
    if backend == "native" and not native:
        _native.require_library(torch.device("cpu"))
        raise ValueError("backend 'native' maps neighbours on the CPU only: use 'auto' or 'reference'")
    if backend == "reference" or not native:
        return neighbour_map_reference(coordinates, shape, stride=stride)
    return _map_native(coordinates, shape, stride)


def neighbour_map_reference(coordinates: Tensor, shape: Shape, *, stride: int = 1) -> NeighbourMap:
    """Sort the sites' numbers and look each neighbour up; arguments and result as in `neighbour_map`. Any device."""
    sites = coordinates.long()
    numbers, order = torch.sort(_number(sites, shape))
    if bool((numbers[1:] == numbers[:-1]).any()):
        raise ValueError("coordinates hold a site twice: merge them with merge_sites")
    offsets = torch.cartesian_prod(*[torch.arange(3, device=sites.device)] * 3) - 1  # [27, 3]
    out_sites, out_shape = sites, shape
    if stride == 2:
        out_shape = _halved(shape)
        out_sites = _strided_sites(sites, out_shape, offsets)
    wanted = out_sites[None, :, 1:] * stride + offsets[:, None]  # [27, M, 3]
    inside = ((wanted >= 0) & (wanted < wanted.new_tensor(shape))).all(dim=-1)
    batch = out_sites[None, :, :1].expand(TAPS, -1, 1)
    looked_for = _number(torch.cat([batch, wanted], dim=-1), shape)
    if len(numbers) == 0:
        inputs = torch.full_like(looked_for, -1)
    else:
        place = torch.searchsorted(numbers, looked_for).clamp_max(len(numbers) - 1)
        inputs = torch.where(inside & (numbers[place] == looked_for), order[place], -torch.ones_like(place))
    return NeighbourMap(out_sites.to(torch.int32), out_shape, inputs.to(torch.int32))


def sparse_conv3d(
    features: Tensor, neighbours: NeighbourMap, weight: Tensor, bias: Tensor | None = None, *, backend: str = "auto"
) -> Tensor:
    """Convolve the features of active sites.

    Args:
        features: [N, C], one row for each input site. weight: [O, 3, 3, 3, C] (depth, height, width). bias: [O].
        neighbours: of the input's sites, from `neighbour_map` with the wanted stride.
        backend: "auto" (native for float32 on the CPU where available), "reference" or "native" (CPU, CUDA).

    Returns:
        [M, O], one row for each output site: y[m] = bias + sum over the taps t of weight[:, t] features[inputs[t, m]].
        Differentiable in features, weight and bias.

    Raises:
        ValueError: wrong shapes, or a map that points beyond the features.
    """
    _native.check_backend(backend, ("auto", "reference", "native"))
    _native.check_shape("features", features, ("N", "C"))
    _native.check_shape("weight", weight, ("O", 3, 3, 3, int(features.shape[1])))
    _native.check_shape("neighbours.inputs", neighbours.inputs, (TAPS, int(neighbours.coordinates.shape[0])))
    if bias is not None:
        _native.check_shape("bias", bias, (int(weight.shape[0]),))
    single = features.dtype == weight.dtype == torch.float32
    together = features.device == weight.device == neighbours.inputs.device
    if backend == "native":
        if not together:
            raise ValueError("backend 'native' takes tensors on one device: use 'auto' or 'reference'")
        _native.require_library(features.device)
    elif backend == "reference" or not (single and together and features.device.type == "cpu" and _has_library()):
        return sparse_conv3d_reference(features, neighbours, weight, bias)
    out = sparse_conv3d_op(features.float(), neighbours.inputs, weight.float())
    return out if bias is None else out + bias


def sparse_conv3d_reference(
    features: Tensor, neighbours: NeighbourMap, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Gather, multiply, scatter, one weight at a time; arguments and result as in `sparse_conv3d`. Any device."""
    inputs, out_channels = neighbours.inputs, int(weight.shape[0])
    _native.check_indices("neighbours.inputs", inputs + 1, int(features.shape[0]) + 1)
    taps = weight.reshape(out_channels, TAPS, int(features.shape[1]))
    out = features.new_zeros((int(inputs.shape[1]), out_channels))
    for tap in range(TAPS):
        there = torch.nonzero(inputs[tap] >= 0).squeeze(1)
        out = out.index_add(0, there, features[inputs[tap, there].long()] @ taps[:, tap].T)
    return out if bias is None else out + bias


def to_dense(features: Tensor, coordinates: Tensor, shape: Shape, batch: int) -> Tensor:
    """Return the volume [batch, C, D, H, W] with features [N, C] at coordinates [N, 4] and zero elsewhere."""
    _native.check_shape("coordinates", coordinates, ("N", 4))
    _native.check_shape("features", features, (int(coordinates.shape[0]), "C"))
    dense = features.new_zeros((batch * shape[0] * shape[1] * shape[2], int(features.shape[1])))
    dense = dense.index_copy(0, _number(coordinates.long(), shape), features)
    return dense.reshape(batch, *shape, -1).permute(0, 4, 1, 2, 3).contiguous()


def _number(sites: Tensor, shape: Shape) -> Tensor:
    """Return one number for each site [..., 4]: its place in a dense volume [B, D, H, W]."""
    b, d, h, w = sites.unbind(-1)
    return ((b * shape[0] + d) * shape[1] + h) * shape[2] + w


def _halved(shape: Shape) -> Shape:
    return ((shape[0] + 1) // 2, (shape[1] + 1) // 2, (shape[2] + 1) // 2)


def _strided_sites(sites: Tensor, out_shape: Shape, offsets: Tensor) -> Tensor:
    """Return the sites [M, 4] of stride 2 in rising order: o is active where an input lies at 2 o + offset."""
    twice = sites[None, :, 1:] - offsets[:, None]  # [27, N, 3]: 2 o, where it is even
    half = torch.div(twice, 2, rounding_mode="floor")
    fits = ((twice == 2 * half) & (half >= 0) & (half < half.new_tensor(out_shape))).all(dim=-1)
    found = torch.cat([sites[None, :, :1].expand(TAPS, -1, 1), half], dim=-1)[fits]
    numbers = torch.unique(_number(found, out_shape))
    parts = []
    for size in reversed(out_shape):
        parts.append(numbers % size)
        numbers = torch.div(numbers, size, rounding_mode="floor")
    return torch.stack([numbers, *reversed(parts)], dim=-1)


def _check_sites(coordinates: Tensor, shape: Shape, stride: int) -> None:
    _native.check_shape("coordinates", coordinates, ("N", 4))
    _native.check_integer("coordinates", coordinates)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be three sizes of at least 1 (D, H, W), got {tuple(shape)}")
    if shape[0] * shape[1] * shape[2] >= 2**31:
        raise ValueError(f"shape must hold fewer than 2^31 sites, got {tuple(shape)}")
    if stride not in (1, 2):
        raise ValueError(f"stride must be 1 or 2, got {stride}")
    if coordinates.numel() == 0 or coordinates.is_cuda:  # on a GPU the look would wait for it
        return
    low, high = (t.tolist() for t in torch.aminmax(coordinates, dim=0))
    limits = (2**31 // (shape[0] * shape[1] * shape[2]), *shape)
    for name, lowest, highest, limit in zip(("batch", "depth", "height", "width"), low, high, limits, strict=True):
        if lowest < 0 or highest >= limit:
            raise ValueError(f"{name} coordinates must be 0..{limit - 1}, got {lowest}..{highest}")


@torch.compiler.assume_constant_result
def _has_library() -> bool:
    return _native.library() is not None


class _MapArguments(ctypes.Structure):
    """FourdNeighbourArgs of cuda/sparse_conv3d.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("coordinates", "out_coordinates", "inputs")),
        *((name, ctypes.c_int64) for name in ("count", "out_count")),
        *((name, ctypes.c_int32) for name in ("batch", "depth", "height", "width", "stride", "threads")),
    )


class _Arguments(ctypes.Structure):
    """FourdSparseConvArgs of cuda/sparse_conv3d.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("features", "inputs", "weight", "out")),
        *((name, ctypes.c_int64) for name in ("count", "out_count")),
        *((name, ctypes.c_int32) for name in ("channels", "out_channels", "threads")),
    )


class _BackwardArguments(ctypes.Structure):
    """FourdSparseConvBackwardArgs of cuda/sparse_conv3d.h."""

    _fields_ = (
        ("forward", _Arguments),
        *((name, ctypes.c_void_p) for name in (
            "grad_out", "weight_transposed", "grad_features", "grad_weight", "outputs",
        )),
        ("padded_channels", ctypes.c_int32),
    )  # fmt: skip


def _map_native(coordinates: Tensor, shape: Shape, stride: int) -> NeighbourMap:
    sites = _native.contiguous_int(coordinates)
    count = len(sites)
    room = count if stride == 1 else 8 * count
    out_sites = sites if stride == 1 else torch.empty((room, 4), dtype=torch.int32)
    inputs = torch.empty(TAPS * room, dtype=torch.int32)
    batch = int(sites[:, 0].max()) + 1 if count else 0
    arguments = _MapArguments(
        sites.data_ptr(), out_sites.data_ptr(), inputs.data_ptr(), count, 0, batch, *shape, stride,
        _native.thread_count(),
    )  # fmt: skip
    code = _native.require_library().fourd_neighbour_map(ctypes.byref(arguments))
    if code == _native.BAD_INDEX:  # the coordinates have been checked
        raise ValueError("coordinates hold a site twice: merge them with merge_sites")
    _native.check_status(code, "neighbour_map")
    found = int(arguments.out_count)
    inputs = inputs[: TAPS * found].clone() if found < room else inputs
    out_sites = out_sites[:found].clone() if found < room else out_sites
    return NeighbourMap(out_sites, shape if stride == 1 else _halved(shape), inputs.reshape(TAPS, found))


@torch.library.custom_op("fourd::sparse_conv3d", mutates_args=(), device_types=("cpu", "cuda"))
def sparse_conv3d_op(features: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """The native kernel: features [N, C], inputs [27, M] int32, weight [O, 3, 3, 3, C] -> [M, O], all float32."""
    arguments, out, _keep = _arguments(features, inputs, weight)
    _native.run("sparse_conv3d", arguments, features.device)
    return out[:, : weight.shape[0]].clone() if out.shape[1] > weight.shape[0] else out


@sparse_conv3d_op.register_fake
def _(features: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    return features.new_empty((inputs.shape[1], weight.shape[0]))


@torch.library.custom_op("fourd::sparse_conv3d_backward", mutates_args=(), device_types=("cpu", "cuda"))
def sparse_conv3d_backward_op(
    features: Tensor, inputs: Tensor, weight: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients [N, C] and [O, 3, 3, 3, C] of the op above."""
    arguments, out, _keep = _arguments(features, inputs, weight)
    channels, out_channels = int(features.shape[1]), int(weight.shape[0])
    padded_in, padded_out = _up_to_16(channels), int(out.shape[1])
    transposed = features.new_zeros((TAPS, padded_out, padded_in))
    transposed[:, :out_channels, :channels] = weight.reshape(out_channels, TAPS, channels).transpose(0, 1)
    upstream = torch.nn.functional.pad(grad_out, (0, padded_out - out_channels)).contiguous()
    grad_features = features.new_empty((int(features.shape[0]), padded_in))
    grad_weight = features.new_empty((TAPS, channels, padded_out))
    turned = inputs.new_empty((TAPS, int(features.shape[0]))) if features.is_cuda else None
    backward = _BackwardArguments(
        arguments, upstream.data_ptr(), transposed.data_ptr(), grad_features.data_ptr(), grad_weight.data_ptr(),
        _native.float_pointer(turned), padded_in,
    )  # fmt: skip
    _native.run("sparse_conv3d_backward", backward, features.device)
    by_weight = grad_weight[:, :, :out_channels].permute(2, 0, 1).reshape(weight.shape).contiguous()
    return grad_features[:, :channels].contiguous(), by_weight


@sparse_conv3d_backward_op.register_fake
def _(features: Tensor, inputs: Tensor, weight: Tensor, grad_out: Tensor) -> tuple[Tensor, Tensor]:
    return features.new_empty(features.shape), weight.new_empty(weight.shape)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor, None, Tensor]:
    by_features, by_weight = sparse_conv3d_backward_op(*ctx.saved_tensors, grad_out)
    return by_features, None, by_weight


sparse_conv3d_op.register_autograd(_backward, setup_context=_setup_context)


def _arguments(features: Tensor, inputs: Tensor, weight: Tensor) -> tuple[_Arguments, Tensor, tuple[Tensor, ...]]:
    """Return the kernel's arguments, the output [M, O up to a multiple of 16], and what must live while it runs."""
    channels, out_channels = int(features.shape[1]), int(weight.shape[0])
    padded = _up_to_16(out_channels)
    taps = features.new_zeros((TAPS, channels, padded))
    taps[:, :, :out_channels] = weight.reshape(out_channels, TAPS, channels).permute(1, 2, 0)
    rows, indices = features.contiguous(), inputs.contiguous()
    out = features.new_empty((int(inputs.shape[1]), padded))
    arguments = _Arguments(
        rows.data_ptr(), indices.data_ptr(), taps.data_ptr(), out.data_ptr(), int(features.shape[0]),
        int(inputs.shape[1]), channels, padded, _native.thread_count(),
    )  # fmt: skip
    return arguments, out, (rows, indices, taps)


def _up_to_16(channels: int) -> int:
    return max(16, (channels + 15) // 16 * 16)
