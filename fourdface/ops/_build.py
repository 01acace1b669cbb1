"""Compile the CPU kernels of `cuda/` into one shared library.

Only the standard library is imported here: setup.py runs this file while neither torch nor the package is installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = ("dispatch_cpu.cpp", "parallel_cpu.cpp", "splat_cpu.cpp", "bind_gaussians_cpu.cpp", "rasterize_mesh_cpu.cpp")
LIBRARY_NAME = "libfourd_cpu.so"

# No -march: the vector paths carry their own instruction set and are chosen at run time. libstdc++ goes in
# statically, so that a library built on a new system loads on an older one; compilers without a static one get a
# second try.
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-math-errno",
)
STATIC_RUNTIME = ("-static-libstdc++", "-static-libgcc")


class BuildError(Exception):
    """The library could not be built; the message says why."""


def source_hash(directory: Path) -> str:
    """Return 16 hex digits of the sources and flags; raises BuildError when a source is missing."""
    digest = hashlib.sha256(" ".join((*FLAGS, *STATIC_RUNTIME)).encode())
    missing = [name for name in SOURCES if not (directory / name).is_file()]
    if missing:
        raise BuildError(f"the source {missing[0]} is missing in {directory}")
    for path in sorted(p for p in directory.iterdir() if p.suffix in {".h", ".inl", ".cpp"}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def find_compiler() -> str | None:
    """Return the path of the C++ compiler ($CXX, else c++, g++, clang++), or None."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


def build_library(output: Path, directory: Path, extra_flags: tuple[str, ...] = ()) -> None:
    """Compile the sources in `directory` to the shared library `output` (atomically); raises BuildError."""
    compiler = find_compiler()
    if compiler is None:
        raise BuildError("no C++ compiler was found (c++, g++ or clang++; set CXX to name one)")
    define = f'-DFOURD_SOURCE_HASH="{source_hash(directory)}"'
    sources = [str(directory / name) for name in SOURCES]
    problem = ""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as folder:
        built = Path(folder) / output.name
        for choice in (STATIC_RUNTIME, ()):
            command = [compiler, *FLAGS, *choice, *extra_flags, define, "-o", str(built), *sources]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise BuildError(f"{compiler} did not run: {error}") from error
            if done.returncode == 0:
                os.replace(built, output)
                return
            problem = problem or _first_error(done.stderr)
    raise BuildError(f"{compiler} failed: {problem}")


def _first_error(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no message"])[0][:300]
