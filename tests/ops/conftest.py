"""Scenes and backends that the tests of the ops share."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fourdface.ops import _build, _native
from fourdface.ops.splat import covariance_from_quaternion_scale

INSTRUCTION_SETS = {"plain": 0, "avx2": 1, "avx512": 2}
SceneMaker = Callable[..., dict[str, Any]]


@pytest.fixture(params=["plain", "avx2", "avx512"])
def native(request: pytest.FixtureRequest) -> Iterator[str]:
    """The native library limited to each instruction set in turn; skips the sets that this machine lacks."""
    library = _native.library()
    if library is None:
        pytest.skip(f"no native library: {_native.status()['reason']}")
    best = library.fourd_instruction_set().decode()
    if INSTRUCTION_SETS[request.param] > INSTRUCTION_SETS[best]:
        pytest.skip(f"this CPU has no {request.param}")
    library.fourd_limit_instruction_set(INSTRUCTION_SETS[request.param])
    yield request.param
    library.fourd_limit_instruction_set(INSTRUCTION_SETS["avx512"])


@pytest.fixture
def needs_native() -> None:
    """Skips where there is no native library."""
    if _native.library() is None:
        pytest.skip(f"no native library: {_native.status()['reason']}")


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest) -> str:
    """Both ways of computing an op; skips the native one where there is no library."""
    if request.param == "native":
        request.getfixturevalue("needs_native")
    return str(request.param)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ctypes.CDLL]:
    """Build cuda/NAME.cu for the CPU; skips where there is no compiler that can."""
    compiler, sources = _build.find_compiler(), _native.source_directory()
    built: dict[str, ctypes.CDLL] = {}

    def build(name: str) -> ctypes.CDLL:
        if compiler is None or sources is None:
            pytest.skip("no C++ compiler or no sources")
        if name not in built:
            out = tmp_path_factory.mktemp("emulated") / f"{name}.so"
            flags = ("-std=c++17", "-O1", "-fPIC", "-shared", "-w", "-U_FORTIFY_SOURCE", "-x", "c++")
            folders = ("-I", str(Path(__file__).parent / "emulated_cuda"), "-I", str(sources))
            command = [compiler, *flags, *folders, str(sources / f"{name}.cu"), "-o", str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            built[name] = ctypes.CDLL(str(out))
        return built[name]

    return build


def camera(width: int, height: int, focal: float = 80.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A camera on the z axis at 0.6 m that looks at the origin, slightly turned, with unequal focal lengths."""
    angle = torch.tensor(0.2)
    turn = torch.eye(4)
    turn[0, 0], turn[0, 2], turn[2, 0], turn[2, 2] = angle.cos(), angle.sin(), -angle.sin(), angle.cos()
    look = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    look[2, 3] = 0.6
    intrinsics = torch.tensor([[focal, 0, width / 2 + 0.3], [0, focal * 1.1, height / 2 - 0.2], [0, 0, 1.0]])
    return look @ turn, intrinsics


def make_scene(
    count: int,
    width: int = 33,
    height: int = 21,
    *,
    channels: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    spread: float = 0.08,
    size: float = 0.012,
) -> dict[str, Any]:
    """Random Gaussians around the origin and a camera, as keyword arguments of `splat`."""
    draw = torch.Generator().manual_seed(seed)
    quaternions = torch.randn(count, 4, generator=draw)
    scales = size * torch.exp(torch.randn(count, 3, generator=draw) * 0.6)
    world_to_camera, intrinsics = camera(width, height)
    scene: dict[str, Any] = {
        "means": torch.randn(count, 3, generator=draw) * spread,
        "covariances": covariance_from_quaternion_scale(quaternions, scales),
        "colors": torch.rand(count, channels, generator=draw),
        "opacities": torch.rand(count, generator=draw) * 0.98 + 0.01,
        "world_to_camera": world_to_camera,
        "intrinsics": intrinsics,
    }
    scene = {key: value.to(dtype) for key, value in scene.items()}
    return scene | {"width": width, "height": height}


@pytest.fixture
def scene() -> SceneMaker:
    """`make_scene`, for tests."""
    return make_scene


@pytest.fixture
def make_camera() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """`camera`, for tests."""
    return camera
