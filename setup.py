"""Build of fourd: the Python packages and the native kernels, which link no torch and may be absent.

The command line lives in cli/ and the kernels in cuda/; they are installed as `fourdface.cli` and `fourdface.cuda`, so
that no top-level package called `cli` or `cuda` ever lands in a user's environment.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from setuptools import Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

CORE = [
    "torch>=2.6",
    "numpy>=1.26",
    "scipy>=1.11",
    "pillow>=10.0",
    "click>=8.1",
    "h5py>=3.10",
    "av>=17.1",
    "tqdm>=4.66",
    "safetensors>=0.4",
    "omegaconf>=2.3",
    "pyyaml>=6.0",
    "scikit-image>=0.22",
]
EXTRAS = {
    "perception": ["mediapipe>=0.10.14", "onnxruntime>=1.17", "insightface>=0.7.3", "face-alignment>=1.4"],
    "gpu": ["gsplat>=1.5"],
    "diffusion": ["diffusers>=0.30", "transformers>=4.44", "accelerate>=0.33"],
    "metrics": ["onnxruntime>=1.17"],
    "view": ["viser>=1.0"],
    "train": ["tensorboard>=2.14", "submitit>=1.5", "lmdb>=1.4"],
    "dev": [
        "pytest>=8.0",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "onnxruntime>=1.17",
        "torchmetrics>=1.4",
        "tensorboard>=2.14",
        "submitit>=1.5",
        "lmdb>=1.4",
        "ruff>=0.6",
        "mypy>=1.11",
        "types-tqdm",
        "scipy-stubs; python_version >= '3.11'",
        "types-PyYAML",
        "setuptools>=77",
        "wheel",
    ],
}


def version() -> str:
    """The version that fourdface states, read without importing it (its dependencies may not be there yet)."""
    text = (ROOT / "fourdface" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        raise RuntimeError("fourdface/__init__.py states no __version__")
    return match.group(1)


def native_build() -> ModuleType:
    """The build script of the kernels, loaded by its path: importing fourdface would need torch."""
    spec = importlib.util.spec_from_file_location("fourd_native_build", ROOT / "fourdface" / "ops" / "_build.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("fourdface/ops/_build.py is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildWithKernels(build_py):
    """Build the native kernels beside the Python files; without a compiler everything runs on the torch reference."""

    def run(self) -> None:
        """Copy the Python files, then compile into the built package (in place for an editable install)."""
        super().run()
        if os.environ.get("FOURD_NATIVE", "1") == "0":
            return
        build = native_build()
        base = ROOT if self.editable_mode else Path(self.build_lib)
        folder = base / "fourdface" / "ops"
        self._attempt("CPU", build.build_library, folder / build.LIBRARY_NAME)
        if os.environ.get("FOURD_CUDA", "1") != "0" and build.find_nvcc() is not None:
            self._attempt("CUDA", build.build_cuda_library, folder / build.CUDA_LIBRARY_NAME)

    def _attempt(self, kind: str, builder: Callable[[Path, Path], None], library: Path) -> None:
        """Build one library; a failure is a warning, never the end of an installation."""
        try:
            builder(library, ROOT / "cuda")
        except Exception as error:
            self.warn(
                f"the native {kind} kernels were not built ({error}): fourd runs without them, see `fourd doctor`"
            )


class WithMachineCode(Distribution):
    """A distribution for one platform, although setuptools knows of no extension module."""

    def has_ext_modules(self) -> bool:
        """Install below platlib and name the platform in the wheel."""
        return True


class PlatformWheel(bdist_wheel):
    """Any Python 3, but one platform: the kernels link no Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of the wheel's name."""
        return "py3", "none", super().get_tag()[2]


setup(
    name="fourd",
    version=version(),
    description="One portrait photo becomes a 4D head, on a plain CPU",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Graphics :: 3D Rendering",
    ],
    packages=[
        *find_packages(include=["fourdface", "fourdface.*"]),
        *("fourdface.cli", "fourdface.configs", "fourdface.cuda"),
    ],
    package_dir={
        "fourdface": "fourdface",
        "fourdface.cli": "cli",
        "fourdface.configs": "configs",
        "fourdface.cuda": "cuda",
    },
    package_data={
        "fourdface": ["py.typed"],
        "fourdface.assets": ["registry.yaml", "files/*"],
        "fourdface.configs": ["*/*.yaml"],
        "fourdface.cuda": ["*.h", "*.inl", "*.cpp", "*.cu", "*.cuh"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["fourd = fourdface.cli.main:main"]},
    distclass=WithMachineCode,
    cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel},
    zip_safe=False,
)
