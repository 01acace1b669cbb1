"""Run the op tests with the native CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

    python scripts/sanitize_ops.py [PYTEST_ARGUMENT ...]        (make sanitize)

Builds the library once more with both sanitizers into a temporary folder and lets the tests take it (FOURD_NATIVE). Any
report ends the run. Needs g++ or clang++ with its sanitizer libraries. Leaks are not looked for: Python keeps memory
to its end by design.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fourdface.ops import _build

ROOT = Path(__file__).resolve().parents[1]
FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# Tests of the loader itself choose their own library, and torch.compile is not what is looked at here.
LEFT_OUT = "not part_of_torch and not fullgraph and not compile and not well_formed and not gradients_of_the_reference"


def runtime(compiler: str, name: str) -> str | None:
    """The path of a sanitizer's shared library, or None if the compiler has none."""
    done = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    found = Path(done.stdout.strip())
    return str(found) if found.is_absolute() and found.is_file() else None


def find_runtimes(compiler: str) -> tuple[list[str], tuple[str, ...]]:
    """The libraries to load before Python, and flags that this compiler needs besides."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    if "clang" in version:
        found = runtime(compiler, "libclang_rt.asan-x86_64.so") or runtime(compiler, "libclang_rt.asan.so")
        return [found] if found else [], ("-shared-libasan",)
    names = ("libasan.so", "libubsan.so", "libstdc++.so")  # the last so that exceptions find their way
    return [path for name in names if (path := runtime(compiler, name))], ()


def main() -> int:
    """Build, test, and return pytest's exit code."""
    compiler = _build.find_compiler()
    if compiler is None:
        return fail("no C++ compiler was found (c++, g++ or clang++; set CXX to name one)")
    preload, more = find_runtimes(compiler)
    if not preload:
        return fail(f"{compiler} has no sanitizer libraries: install libasan and libubsan, or set CXX to another one")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libfourd_sanitized.so"
        try:
            _build.build_library(library, ROOT / "cuda", (*FLAGS, *more))
        except _build.BuildError as error:
            return fail(f"the sanitized library was not built: {error}")
        environment = {
            **os.environ,
            "FOURD_NATIVE": str(library),
            "LD_PRELOAD": " ".join(preload),
            "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1",
            "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        }
        tests = ["tests/ops", "--ignore=tests/ops/test_native.py", "-k", LEFT_OUT, "-m", "not cuda and not slow"]
        command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        return subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, env=environment, check=False).returncode


def fail(sentence: str) -> int:
    """Say why nothing ran."""
    sys.stderr.write(f"sanitize: {sentence}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
