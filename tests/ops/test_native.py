"""The native library: found, built, refused when stale, absent without harm; threads, forks and several callers."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from fourdface.ops import _build, _native
from fourdface.ops.splat import splat

DRAW = """
import json, logging, sys, torch
logging.basicConfig(stream=sys.stderr, format="%(message)s")
from fourdface.ops import _native
from fourdface.ops.splat import splat
torch.manual_seed(0)
one = torch.tensor([[0.01, 0, 0, 0.01, 0, 0.01]])
out = splat(torch.tensor([[0.0, 0, 1]]), one, torch.ones(1, 3), torch.ones(1), torch.eye(4),
            torch.tensor([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]), 16, 16)
out = splat(torch.tensor([[0.0, 0, 1]]), one, torch.ones(1, 3), torch.ones(1), torch.eye(4),
            torch.tensor([[20.0, 0, 8], [0, 20, 8], [0, 0, 1]]), 16, 16)
print(json.dumps({"sum": float(out.alpha.sum()), **_native.status()}))
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    full = {**os.environ, "FOURD_NATIVE": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=full, timeout=120, check=False
    )


def has_compiler() -> bool:
    return _build.find_compiler() is not None


def test_status_says_what_is_used(needs_native):
    status = _native.status()
    assert status["built"] is True and Path(str(status["path"])).is_file()
    assert status["instruction_set"] in ("plain", "avx2", "avx512")
    assert status["threads"] == torch.get_num_threads()
    assert status["reason"] in ("built at install", "built on first use")


def test_switched_off_draws_with_the_reference_and_says_so_once():
    done = run_python(DRAW, FOURD_NATIVE="0")
    assert done.returncode == 0, done.stderr
    assert '"built": false' in done.stdout and "switched off by FOURD_NATIVE=0" in done.stdout
    assert done.stderr.strip() == ""  # asked for, so no warning


def test_without_compiler_and_library_the_reference_draws(tmp_path):
    hidden = "from fourdface.ops import _native; _native.LIBRARY_NAME = 'nothing-of-the-name.so'\n" + DRAW
    done = run_python(hidden, PATH=str(tmp_path), CXX="", XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert '"built": false' in done.stdout
    warnings = [line for line in done.stderr.splitlines() if "native CPU kernels not available" in line]
    assert len(warnings) == 1 and "no C++ compiler was found" in warnings[0]
    both = [float(d.stdout.split('"sum": ')[1].split(",")[0]) for d in (done, run_python(DRAW))]
    assert both[0] == pytest.approx(both[1], rel=1e-5)


def test_first_use_builds_into_the_cache(tmp_path):
    if not has_compiler():
        pytest.skip("no C++ compiler")
    hidden = "from fourdface.ops import _native; _native.LIBRARY_NAME = 'libother.so'\n" + DRAW
    done = run_python(hidden, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    built = list((tmp_path / "fourd" / "native").iterdir())
    assert [p.suffix for p in built] == [".so"]  # nothing half-made is left beside it
    assert '"reason": "built on first use"' in done.stdout and str(built[0]) in done.stdout


def test_unwritable_cache_is_no_disaster(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    hidden = "from fourdface.ops import _native; _native.LIBRARY_NAME = 'libother.so'\n" + DRAW
    done = run_python(hidden, XDG_CACHE_HOME=str(blocked))
    assert done.returncode == 0, done.stderr
    assert '"built": false' in done.stdout


def test_library_of_other_sources_is_not_used(needs_native):
    path = Path(str(_native.status()["path"]))
    library, problem = _native._open(path, "0123456789abcdef")
    assert library is None and "was built from other sources" in problem
    library, problem = _native._open(path, None)
    assert isinstance(library, ctypes.CDLL) and problem == ""


def test_file_that_is_no_library(tmp_path):
    path = tmp_path / "lib.so"
    path.write_bytes(b"junk")
    library, problem = _native._open(path, None)
    assert library is None and "does not load" in problem


def test_compiler_error_is_one_line(tmp_path):
    if not has_compiler():
        pytest.skip("no C++ compiler")
    for name in ("dispatch_cpu.cpp", "other_cpu.cpp"):
        (tmp_path / name).write_text("this is not C++\n")
    with pytest.raises(_build.BuildError, match=r"failed: .*error") as caught:
        _build.build_library(tmp_path / "out" / "lib.so", tmp_path)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_source_is_named(tmp_path):
    with pytest.raises(_build.BuildError, match=r"dispatch_cpu\.cpp is missing"):
        _build.source_hash(tmp_path)


def test_hash_follows_headers(tmp_path):
    (tmp_path / "dispatch_cpu.cpp").write_text("")
    before = _build.source_hash(tmp_path)
    (tmp_path / "common.h").write_text("// new")
    assert _build.source_hash(tmp_path) != before


def test_several_python_threads_at_once(scene, needs_native, threads):
    threads(2)
    scenes = [scene(3000, 80, 60, seed=s) for s in range(4)]
    want = [splat(**s, backend="native").image for s in scenes]
    wrong: list[int] = []

    def work(i):
        for _ in range(20):
            if not torch.equal(splat(**scenes[i], backend="native").image, want[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers) and wrong == []


def test_forked_child_draws_too(needs_native):
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    done = run_python(
        "import os, sys, torch\n"
        "from fourdface.ops import _native\n"
        "from fourdface.ops.bind_gaussians import bind_gaussians\n"
        "_native.thread_count = lambda: 2\n"
        "n = 20000\n"
        "mesh = torch.rand(30, 3), torch.randint(0, 30, (40, 3)).int()\n"
        "args = (*mesh, torch.randint(0, 40, (n,)).int(), torch.rand(n, 3), torch.rand(n, 6))\n"
        "want = bind_gaussians(*args, backend='native').means.sum().item()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    for _ in range(5):\n"
        "        got = bind_gaussians(*args, backend='native').means\n"
        "    os._exit(0 if abs(got.numpy().sum() - want) < 1 else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert done.returncode == 0, done.stderr


def test_checks_speak_plainly():
    with pytest.raises(ValueError, match=r"^x must be \[N, 3\], got \[2, 4\]$"):
        _native.check_shape("x", torch.zeros(2, 4), ("N", 3))
    with pytest.raises(ValueError, match=r"^x must be \[4, 4\], got \[4\]$"):
        _native.check_shape("x", torch.zeros(4), (4, 4))
    with pytest.raises(MemoryError, match="splat: out of memory"):
        _native.check_status(1, "splat")
    with pytest.raises(ValueError, match="splat: an argument is out of range"):
        _native.check_status(3, "splat")


def test_a_bare_machine_fails_no_test(tmp_path):
    """No compiler, no library, no cache, no GPU: what needs a kernel is skipped with a reason, the rest passes."""
    tests = Path(__file__).resolve().parents[1]
    chosen = "(refusals or against or native_equals_reference) and not against_renders"
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-p", "support.bare_machine"]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("FOURD_NATIVE", "FOURD_CUDA"))},
        "PATH": str(tmp_path),
        "CXX": "",
        "CUDA_HOME": "",
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": str(tests),
    }
    done = subprocess.run(
        [*command, "-k", chosen, f"--ignore={__file__}", str(tests / "ops")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "no native library: no C++ compiler was found" in done.stdout  # they were hidden indeed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_cuda_library_compiles(tmp_path):
    if _build.find_nvcc() is None:
        pytest.skip("no nvcc")
    path = tmp_path / "lib.so"
    _build.build_cuda_library(path, Path(str(_native.source_directory())), (80,))
    library = ctypes.CDLL(str(path))  # loads without a GPU: the CUDA runtime is in it
    library.fourd_source_hash.restype = ctypes.c_char_p
    wanted = _build.source_hash(Path(str(_native.source_directory())), _build.CUDA)
    assert library.fourd_source_hash().decode() == wanted
    for source in _build.sources(Path(str(_native.source_directory())), _build.CUDA):
        if source.name != _build.CUDA.hash_source:
            assert hasattr(library, f"fourd_{source.stem}_cuda"), source.name
