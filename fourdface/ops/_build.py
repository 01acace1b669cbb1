"""Compile the kernels of `cuda/`: one shared library for the CPU (any C++17 compiler), one for CUDA (nvcc).

Sources are found by name: `NAME_cpu.cpp` goes into the CPU library, `NAME.cu` into the CUDA one. Only the standard
library is imported here: setup.py runs this file while neither torch nor the package is installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

LIBRARY_NAME = "libfourd_cpu.so"
CUDA_LIBRARY_NAME = "libfourd_cuda.so"

# No -march: the vector paths carry their own instruction set and are chosen at run time. libstdc++ goes in
# statically, so that a library built on a new system loads on an older one; compilers without a static one get a
# second try.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno")
STATIC_RUNTIME = ("-static-libstdc++", "-static-libgcc")

# Turing to Hopper as machine code and PTX of the newest for what comes later; the CUDA runtime goes in statically, so
# the library needs no toolkit where it runs and does not care which one torch brings.
CUDA_ARCHITECTURES = (75, 80, 86, 89, 90)
CUDA_FLAGS = (
    *("-std=c++17", "-O3", "-cudart", "static", "-lineinfo"),
    *("-Xcompiler", "-fPIC,-fvisibility=hidden"),
)


class BuildError(Exception):
    """The library could not be built; the message says why."""


class Target(NamedTuple):
    """One of the two libraries: the file's name, the ending of its sources, the source that carries the hash."""

    library: str
    ending: str
    hash_source: str
    flags: tuple[str, ...]


CPU = Target(LIBRARY_NAME, "_cpu.cpp", "dispatch_cpu.cpp", (*FLAGS, *STATIC_RUNTIME))
CUDA = Target(CUDA_LIBRARY_NAME, ".cu", "dispatch.cu", CUDA_FLAGS)


def sources(directory: Path, target: Target = CPU) -> list[Path]:
    """Return the sources of a target in the order of their names; raises BuildError when there are none."""
    found = sorted(path for path in directory.glob(f"*{target.ending}"))
    if not (directory / target.hash_source).is_file():
        raise BuildError(f"the source {target.hash_source} is missing in {directory}")
    return found


def source_hash(directory: Path, target: Target = CPU) -> str:
    """Return 16 hex digits of the sources and flags; raises BuildError when a source is missing."""
    digest = hashlib.sha256(" ".join(target.flags).encode())
    wanted = {path.name for path in sources(directory, target)}
    headers = {path.name for path in directory.iterdir() if path.suffix in {".h", ".inl", ".cuh"}}
    for name in sorted(wanted | headers):
        digest.update(name.encode() + b"\0" + (directory / name).read_bytes())
    return digest.hexdigest()[:16]


def find_compiler() -> str | None:
    """Return the path of the C++ compiler ($CXX, else c++, g++, clang++), or None."""
    return _first_program(os.environ.get("CXX", ""), "c++", "g++", "clang++")


def find_nvcc() -> str | None:
    """Return the path of nvcc ($CUDA_HOME/bin/nvcc, else on the PATH, else /usr/local/cuda), or None."""
    home = os.environ.get("CUDA_HOME", "")
    return _first_program(str(Path(home) / "bin" / "nvcc") if home else "", "nvcc", "/usr/local/cuda/bin/nvcc")


def build_library(output: Path, directory: Path, extra_flags: tuple[str, ...] = ()) -> None:
    """Compile the CPU sources in `directory` to the shared library `output` (atomically); raises BuildError.

    `extra_flags` go to the compiler and the linker.
    """
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("no C++ compiler was found (c++, g++ or clang++; set CXX to name one)")
    problem: BuildError | None = None
    for runtime in (STATIC_RUNTIME, ()):
        try:
            link = [*runtime, "-shared", "-pthread", *extra_flags]
            _build(output, directory, CPU, [compiler, *FLAGS, *extra_flags], link)
            return
        except BuildError as error:
            problem = problem or error
    raise problem or BuildError("no way to link was tried")


def build_cuda_library(
    output: Path,
    directory: Path,
    architectures: tuple[int, ...] = CUDA_ARCHITECTURES,
    extra_flags: tuple[str, ...] = (),
) -> None:
    """Compile the CUDA sources to `output` (atomically) as machine code for `architectures`, and PTX of the last.

    `architectures` are compute capabilities times ten, rising; a device newer than the last one compiles the PTX when
    the library is loaded. Raises BuildError when nvcc is missing or fails.
    """
    compiler = find_nvcc()
    if compiler is None:
        raise BuildError("nvcc was not found (install the CUDA toolkit or set CUDA_HOME)")
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    codes.append(f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")
    _build(output, directory, CUDA, [compiler, *CUDA_FLAGS, *codes, *extra_flags], ["-shared", "-cudart", "static"])


def _build(output: Path, directory: Path, target: Target, compiler: list[str], link: list[str]) -> None:
    """Compile every source on its own (as many at once as there are CPUs), link, and put the file in its place."""
    files = sources(directory, target)
    define = f'-DFOURD_SOURCE_HASH="{source_hash(directory, target)}"'
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as folder:
        objects = [Path(folder) / f"{path.stem}.o" for path in files]

        def compile_one(source: Path, built: Path) -> None:
            extra = [define] if source.name == target.hash_source else []  # others stay the same for a compiler cache
            _run([*compiler, *extra, "-c", str(source), "-o", str(built)])

        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            for job in [pool.submit(compile_one, *pair) for pair in zip(files, objects, strict=True)]:
                job.result()
        library = Path(folder) / output.name
        _run([compiler[0], *link, "-o", str(library), *map(str, objects)])
        os.replace(library, output)


def _run(command: list[str]) -> None:
    """Run a compiler; raises BuildError with its first error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} did not run: {error}") from error
    if done.returncode != 0:
        raise BuildError(f"{command[0]} failed: {_first_error(done.stderr or done.stdout)}")


def _first_program(*names: str) -> str | None:
    return next((found for name in names if name and (found := shutil.which(name))), None)


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no message"])[0][:300]
