"""The native kernels of `splat` as the torch operator `fourd::splat`: arguments, gradient, fake kernels."""

from __future__ import annotations

import ctypes
import logging
from typing import Any

import torch
from torch import Tensor

from fourdface.ops import _native

logger = logging.getLogger(__name__)


class SplatArguments(ctypes.Structure):
    """FourdSplatArgs of cuda/splat.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "means", "covariances", "colors", "opacities", "world_to_camera", "intrinsics", "background",
            "background_u8", "image", "alpha", "depth_z", "image_u8", "scratch",
        )),
        *((name, ctypes.c_int64) for name in ("scratch_bytes", "pair_capacity")),
        ("pair_count", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("count", "color_stride")),
        *((name, ctypes.c_int32) for name in ("cameras", "channels", "width", "height", "antialiased", "threads")),
        ("eps2d", ctypes.c_float),
        ("near_z", ctypes.c_float),
    )  # fmt: skip


class SplatBackwardArguments(ctypes.Structure):
    """FourdSplatBackwardArgs of cuda/splat.h."""

    _fields_ = (
        ("scene", SplatArguments),
        *((name, ctypes.c_void_p) for name in (
            "grad_image", "grad_alpha", "grad_depth_z", "grad_means", "grad_covariances", "grad_colors",
            "grad_opacities", "grad_world_to_camera", "grad_background",
        )),
    )  # fmt: skip


def arguments_of(
    inputs: tuple[Tensor, ...],
    background: Tensor | None,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    antialiased: bool,
) -> SplatArguments:
    """Return the kernel's arguments without outputs; `inputs` (contiguous float32) must live while it runs.

    inputs: means [N, 3], covariances [N, 6], colors [N, D] or [C, N, D], opacities [N], world_to_camera [C, 4, 4],
    intrinsics [C, 3, 3].
    """
    means, _, colors, _, cameras, _ = inputs
    count, channels = int(means.shape[0]), int(colors.shape[-1])
    return SplatArguments(
        *(t.data_ptr() for t in inputs), _native.float_pointer(background), None, None, None, None, None, None,
        0, 0, None, count, count * channels if colors.dim() == 3 else 0, int(cameras.shape[0]), channels, width, height,
        int(antialiased), _native.thread_count(), eps2d, near,
    )  # fmt: skip


@torch.library.custom_op("fourd::splat", mutates_args=(), device_types=("cpu", "cuda"))
def splat_op(
    means: Tensor,
    covariances: Tensor,
    colors: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    background: Tensor | None,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    antialiased: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw for cameras [C, 4, 4]: image [C, H, W, D], alpha [C, H, W], depth_z [C, H, W]; all tensors float32."""
    inputs = _contiguous(means, covariances, colors, opacities, world_to_camera, intrinsics)
    behind = None if background is None else background.contiguous()
    image, alpha, depth_z = _empty(colors, world_to_camera, width, height)
    arguments = arguments_of(inputs, behind, width, height, eps2d, near, antialiased)
    arguments.image, arguments.alpha, arguments.depth_z = image.data_ptr(), alpha.data_ptr(), depth_z.data_ptr()
    _run("splat", arguments, arguments, means.device)
    return image, alpha, depth_z


@splat_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    _, _, colors, _, world_to_camera, _, _, width, height, *_ = arguments
    return _empty(colors, world_to_camera, width, height)


@torch.library.custom_op("fourd::splat_backward", mutates_args=(), device_types=("cpu", "cuda"))
def splat_backward_op(
    tensors: list[Tensor],
    background: Tensor | None,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    antialiased: bool,
    grad_image: Tensor,
    grad_alpha: Tensor,
    grad_depth_z: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of means, covariances, colors, opacities, world_to_camera and background.

    tensors: the six inputs of `splat_op`, then its alpha and depth_z. Without a background its gradient is empty.
    """
    inputs, behind = _contiguous(*tensors[:6]), None if background is None else background.contiguous()
    forward = [t.contiguous() for t in tensors[6:]]
    upstream = [t.contiguous() for t in (grad_image, grad_alpha, grad_depth_z)]
    found = tuple(torch.zeros_like(t) for t in (*inputs[:5], _background_like(background, inputs[0])))
    scene = arguments_of(inputs, behind, width, height, eps2d, near, antialiased)
    scene.alpha, scene.depth_z = (t.data_ptr() for t in forward)
    arguments = SplatBackwardArguments(
        scene, *(t.data_ptr() for t in upstream), *(t.data_ptr() for t in found[:5]),
        None if background is None else found[5].data_ptr(),
    )  # fmt: skip
    _run("splat_backward", arguments, arguments.scene, inputs[0].device)
    return found  # type: ignore[return-value]  # six of them


@splat_backward_op.register_fake
def _(
    tensors: list[Tensor], background: Tensor | None, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = (*tensors[:5], _background_like(background, tensors[0]))
    return tuple(torch.zeros_like(t, memory_format=torch.contiguous_format) for t in like)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.numbers = inputs[7:]
    ctx.has_background = inputs[6] is not None
    ctx.save_for_backward(*inputs[:6], output[1], output[2], *([inputs[6]] if ctx.has_background else []))


def _backward(ctx: Any, grad_image: Tensor, grad_alpha: Tensor, grad_depth_z: Tensor) -> tuple[Any, ...]:
    saved = list(ctx.saved_tensors)
    background = saved.pop() if ctx.has_background else None
    means, covariances, colors, opacities, cameras, behind = splat_backward_op(
        saved, background, *ctx.numbers, grad_image, grad_alpha, grad_depth_z
    )
    behind = behind if ctx.has_background else None
    return (means, covariances, colors, opacities, cameras, None, behind, *([None] * len(ctx.numbers)))


splat_op.register_autograd(_backward, setup_context=_setup_context)


class _Room:
    """How many pairs of tile and Gaussian the GPU's buffers hold, learnt from the pictures drawn so far.

    The number depends on the data and is known on the device only. The first picture of a size waits for it; later ones
    take what has arrived by then, with a quarter to spare, so that nothing waits.
    """

    def __init__(self, count: int, tiles: int) -> None:
        self.pairs = max(4 * count, 4 * tiles, 1024)
        self.known = False
        self.arriving: tuple[torch.cuda.Event, Tensor] | None = None

    def look(self) -> None:
        """Take the last count if it has arrived."""
        if self.arriving is not None and self.arriving[0].query():
            wanted = int(self.arriving[1][0])
            self.arriving = None
            if wanted > self.pairs:
                logger.warning("splat: the farthest %d pairs were left out of a picture", wanted - self.pairs)
            self.grow(wanted)

    def grow(self, wanted: int) -> None:
        """Make room for a quarter more than `wanted`."""
        self.pairs = max(self.pairs, wanted + wanted // 4)

    def send(self, count: Tensor) -> None:
        """Let the count arrive in its own time."""
        if self.arriving is None:
            there = torch.empty(1, dtype=torch.int64, pin_memory=True).copy_(count, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
            self.arriving = (event, there)


_rooms: dict[tuple[Any, ...], _Room] = {}


def _run(op: str, arguments: ctypes.Structure, scene: SplatArguments, device: torch.device) -> None:
    """Run a kernel; on CUDA with scratch memory from torch, again where the room for pairs was too small."""
    if device.type != "cuda":
        _native.run(op, arguments, device)
        return
    library = _native.require_library(device)
    size_of = library.fourd_splat_scratch_cuda
    size_of.restype = ctypes.c_int64
    tiles = scene.cameras * ((scene.width + 15) // 16) * ((scene.height + 15) // 16)
    key = (device, scene.count, scene.cameras, scene.width, scene.height)
    room = _rooms.setdefault(key, _Room(scene.count * scene.cameras, tiles))
    capturing = torch.cuda.is_current_stream_capturing()
    if not capturing:
        room.look()
    while True:
        scene.pair_capacity = room.pairs
        scene.scratch_bytes = size_of(ctypes.byref(scene), int(op == "splat_backward"))
        if scene.scratch_bytes < 0:
            raise ValueError(f"{op}: too many Gaussians, cameras or pixels for the CUDA kernel")
        memory = torch.empty(max(scene.scratch_bytes, 1), dtype=torch.uint8, device=device)
        count = torch.zeros(1, dtype=torch.int64, device=device)
        scene.scratch, scene.pair_count = memory.data_ptr(), count.data_ptr()
        _native.run(op, arguments, device)
        if capturing:
            return
        if room.known or op != "splat":
            room.send(count)
            return
        room.known = int(count) <= room.pairs  # waits, once for each size
        room.grow(int(count))
        if room.known:
            return


def _contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in tensors)


def _empty(colors: Tensor, cameras: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (cameras.shape[0], height, width)
    return colors.new_empty((*shape, colors.shape[-1])), colors.new_empty(shape), colors.new_empty(shape)


def _background_like(background: Tensor | None, means: Tensor) -> Tensor:
    return means.new_empty(0) if background is None else background
