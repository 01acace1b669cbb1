"""Find, load, call and describe the native libraries (CPU and CUDA); shape checks and pointers for the ops.

The libraries are plain C over raw pointers, so they know nothing of torch or Python. Each is looked for beside this
file (built by setup.py), then in the user's cache, where it is built on first use if a compiler is there. Without it
every op runs on its torch reference. FOURD_NATIVE=0 switches the CPU library off and FOURD_CUDA=0 the CUDA one; a
path instead of 0 takes that library (such as a sanitizer build).
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from fourdface.ops._build import (
    CPU,
    CUDA,
    CUDA_LIBRARY_NAME,
    LIBRARY_NAME,
    BuildError,
    Target,
    build_cuda_library,
    build_library,
    source_hash,
)

logger = logging.getLogger(__name__)

BAD_INDEX = 2
CUDA_FAILED = 4
_STATUS_TEXT = {
    1: "out of memory",
    BAD_INDEX: "an index is out of range",
    3: "an argument is out of range",
    CUDA_FAILED: "the GPU reported an error",
}


@dataclass(frozen=True)
class _Loaded:
    """The outcome of looking for the library, once per process."""

    library: ctypes.CDLL | None
    path: Path | None
    reason: str  # why there is no library, or where it came from


class NativeUnavailable(ValueError):
    """`backend="native"` was asked for and the library is not there."""


def library() -> ctypes.CDLL | None:
    """Return the loaded CPU library, or None when it is switched off or cannot be had."""
    return _load().library


def cuda_library() -> ctypes.CDLL | None:
    """Return the loaded CUDA library, or None when there is no GPU, it is switched off or cannot be had."""
    return _load_cuda().library


@torch.compiler.assume_constant_result
def usable(device: torch.device) -> bool:
    """Say whether native kernels are there for tensors on `device` (cpu or cuda); torch.compile asks once."""
    found = cuda_library() if device.type == "cuda" else library() if device.type == "cpu" else None
    return found is not None


def require_library(device: torch.device | None = None) -> ctypes.CDLL:
    """Return the library for `device` (the CPU without one); raises NativeUnavailable with the reason."""
    on_cuda = device is not None and device.type == "cuda"
    loaded = _load_cuda() if on_cuda else _load()
    if loaded.library is None:
        kind = "CUDA" if on_cuda else "CPU"
        raise NativeUnavailable(
            f"the native {kind} kernels are not available: {loaded.reason}; use backend='reference'"
        )
    return loaded.library


def run(op: str, arguments: ctypes.Structure, device: torch.device) -> None:
    """Call a kernel on the device where its tensors are.

    `arguments` is the structure of cuda/OP.h. On the CPU that is `fourd_OP(arguments)`; on CUDA
    `fourd_OP_cuda(arguments, stream)` on torch's current stream, which returns before the work is done. Raises
    NativeUnavailable, MemoryError, ValueError (bad index or argument) or RuntimeError (the GPU).
    """
    lib = require_library(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
            code = lib[f"fourd_{op}_cuda"](ctypes.byref(arguments), stream)
    else:
        code = lib[f"fourd_{op}"](ctypes.byref(arguments))
    check_status(code, op)


def status() -> dict[str, object]:
    """Say what the CPU library is and why, for `fourd doctor`: built, path, instruction_set, threads, reason."""
    loaded = _load()
    lib = loaded.library
    return {
        "built": lib is not None,
        "path": str(loaded.path) if loaded.path else None,
        "instruction_set": lib.fourd_instruction_set().decode() if lib else None,
        "threads": thread_count() if lib else 0,
        "reason": loaded.reason,
    }


def cuda_status() -> dict[str, object]:
    """Say what the CUDA library is and why, for `fourd doctor`: built, path, reason.

    Without a GPU nothing is loaded: `built` then says whether the file is there for a machine that has one.
    """
    loaded = _load_cuda()
    installed = Path(__file__).with_name(CUDA_LIBRARY_NAME)
    path = loaded.path or (installed if installed.is_file() else None)
    return {
        "used": loaded.library is not None,
        "built": path is not None,
        "path": str(path) if path else None,
        "reason": loaded.reason,
    }


def thread_count() -> int:
    """Return the number of threads for native ops: torch's own setting, so `torch.set_num_threads` rules both."""
    return torch.get_num_threads()


def source_directory() -> Path | None:
    """Return the folder of the C++ sources (the package fourdface.cuda, or cuda/ of a checkout), or None."""
    try:
        spec = importlib.util.find_spec("fourdface.cuda")
    except (ImportError, ValueError):
        spec = None
    places = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    places.append(Path(__file__).resolve().parents[2] / "cuda")
    return next((p for p in places if (p / "splat_cpu.cpp").is_file()), None)


def cache_directory() -> Path:
    """Return the folder of libraries built on first use: $XDG_CACHE_HOME/fourd/native or ~/.cache/fourd/native."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "fourd" / "native"


@lru_cache(maxsize=1)
def _load() -> _Loaded:
    loaded = _chosen("FOURD_NATIVE", CPU, Path(__file__).with_name(LIBRARY_NAME))
    if loaded.library is None and os.environ.get("FOURD_NATIVE") != "0":  # asked for: no warning
        logger.warning("native CPU kernels not available (%s): using the slower torch reference", loaded.reason)
    return loaded


@lru_cache(maxsize=1)
def _load_cuda() -> _Loaded:
    if not torch.cuda.is_available():
        return _Loaded(None, None, "torch sees no CUDA device")
    loaded = _chosen("FOURD_CUDA", CUDA, Path(__file__).with_name(CUDA_LIBRARY_NAME))
    if loaded.library is None and os.environ.get("FOURD_CUDA") != "0":  # asked for: no warning
        logger.warning("native CUDA kernels not available (%s): using the slower torch reference", loaded.reason)
    return loaded


def _chosen(variable: str, target: Target, installed: Path) -> _Loaded:
    """Load what the environment asks for: nothing (0), a file, or the installed library."""
    choice = os.environ.get(variable, "1")
    if choice == "0":
        return _Loaded(None, None, f"switched off by {variable}=0")
    if choice in ("", "1"):
        return _find_or_build(target, installed)
    library, problem = _open(Path(choice), None)
    return _Loaded(library, Path(choice) if library else None, problem or f"named by {variable}")


def _find_or_build(target: Target, installed: Path) -> _Loaded:
    folder = source_directory()
    try:
        wanted = source_hash(folder, target) if folder else None
    except (BuildError, OSError) as error:
        return _Loaded(None, None, str(error))
    library, problem = _open(installed, wanted)
    if library is not None:
        return _Loaded(library, installed, "built at install")
    if folder is None or wanted is None:
        return _Loaded(None, None, f"{problem}, and the sources are not installed")
    cached = cache_directory() / f"{Path(target.library).stem}-{wanted}.so"
    library, _ = _open(cached, wanted)
    if library is not None:
        return _Loaded(library, cached, "built on first use")
    try:
        if target is CUDA:  # for this machine's device only: seconds instead of minutes
            major, minor = torch.cuda.get_device_capability()
            build_cuda_library(cached, folder, (10 * major + minor,))
        else:
            build_library(cached, folder)
    except (BuildError, OSError) as error:
        return _Loaded(None, None, str(error))
    library, problem = _open(cached, wanted)
    return _Loaded(library, cached if library else None, "built on first use" if library else problem)


def _open(path: Path, wanted: str | None) -> tuple[ctypes.CDLL | None, str]:
    """Load the library if it is there and, when the sources are known, was built from them."""
    if not path.is_file():
        return None, f"{path} does not exist"
    try:
        lib = ctypes.CDLL(str(path))
        lib.fourd_source_hash.restype = ctypes.c_char_p
        found = lib.fourd_source_hash().decode()
        if hasattr(lib, "fourd_instruction_set"):
            lib.fourd_instruction_set.restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        return None, f"{path} does not load: {error}"
    if wanted is not None and found != wanted:
        return None, f"{path} was built from other sources"
    return lib, ""


def check_status(code: int, op: str) -> None:
    """Raise for a status code of a native op: MemoryError or ValueError."""
    if code == 0:
        return
    message = f"{op}: {_STATUS_TEXT.get(code, f'native error {code}')}"
    if code == CUDA_FAILED:
        raise RuntimeError(message)
    raise MemoryError(message) if code == 1 else ValueError(message)


def check_shape(name: str, tensor: torch.Tensor, shape: tuple[int | str, ...]) -> None:
    """Raise ValueError unless `tensor` has `shape`; strings stand for free sizes ("means must be [N, 3]")."""
    fits = tensor.dim() == len(shape) and all(
        isinstance(want, str) or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if fits:
        return
    wanted = ", ".join(str(s) for s in shape)
    got = ", ".join(str(s) for s in tensor.shape)
    raise ValueError(f"{name} must be [{wanted}], got [{got}]")


def check_camera(world_to_camera: torch.Tensor, intrinsics: torch.Tensor, width: int, height: int, near: float) -> None:
    """Raise ValueError unless the camera is [4, 4] and [3, 3] without skew and the other numbers are positive."""
    check_shape("world_to_camera", world_to_camera, (4, 4))
    check_shape("intrinsics", intrinsics, (3, 3))
    if width < 1 or height < 1:
        raise ValueError(f"width and height must be at least 1, got {width} x {height}")
    if not near > 0:
        raise ValueError(f"near must be above 0, got {near}")
    if intrinsics.is_cuda or torch.compiler.is_compiling():  # the look would wait for the GPU, or break the graph
        return
    if float(intrinsics[0, 1].detach()) != 0.0:
        raise ValueError(f"intrinsics must have no skew, got {float(intrinsics[0, 1].detach())} at [0, 1]")


def check_backend(backend: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `backend` is one of `allowed`."""
    if backend not in allowed:
        raise ValueError(f"backend must be one of {', '.join(allowed)}, got {backend!r}")


def float_pointer(tensor: torch.Tensor | None) -> int | None:
    """Return the address of a contiguous float32 CPU tensor (None stays None)."""
    return None if tensor is None else tensor.data_ptr()


def contiguous_float(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as contiguous float32 on the CPU without history; no copy when it already is."""
    return tensor.detach().to(device="cpu", dtype=torch.float32).contiguous()


def contiguous_int(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as contiguous int32 on the CPU; no copy when it already is."""
    return tensor.detach().to(device="cpu", dtype=torch.int32).contiguous()


def int32(tensor: torch.Tensor) -> torch.Tensor:
    """Return the indices as contiguous int32 where they are.

    On the CPU by numpy, in this thread: torch would wake its pool for some ten thousand numbers, which on a busy
    machine costs more than the kernels that read them.
    """
    if tensor.dtype == torch.int32 or tensor.device.type != "cpu":
        return tensor.to(torch.int32).contiguous()
    return torch.from_numpy(np.ascontiguousarray(tensor.detach().numpy(), dtype=np.int32))


def check_integer(name: str, tensor: torch.Tensor) -> None:
    """Raise ValueError unless the tensor is int32 or int64."""
    if tensor.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"{name} must be int32 or int64, got {str(tensor.dtype).removeprefix('torch.')}")


def check_indices(name: str, indices: torch.Tensor, size: int) -> None:
    """Raise ValueError unless the values are in 0..size-1 (not looked at on a GPU or in torch.compile)."""
    if torch.compiler.is_compiling() or indices.numel() == 0 or indices.is_cuda:
        return
    low, high = (int(v) for v in torch.aminmax(indices))
    if low < 0 or high >= size:
        raise ValueError(f"{name} must hold indices 0..{size - 1}, got {low}..{high}")
