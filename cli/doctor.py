"""`fourd doctor`: what this installation can do, which backend is used and why."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from typing import Any

import click

from fourdface import __version__
from fourdface.assets import asset_folder, load_registry
from fourdface.assets.verify import verify_asset
from fourdface.cli.options import json_option
from fourdface.cli.stream import echo_json

PACKAGES = (
    *("torch", "numpy", "scipy", "pillow", "click", "h5py"),
    *("av", "tqdm", "safetensors", "omegaconf", "PyYAML", "scikit-image"),
)
OPTIONAL_PACKAGES = (
    *("mediapipe", "insightface", "face-alignment", "gsplat"),
    *("diffusers", "onnxruntime", "viser"),
)


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check this installation: exit code 0 if the main job can run, 1 if something that it needs is missing."""
    report = examine()
    if as_json:
        echo_json(report)
    else:
        _print(report)
    if report["problems"]:
        ctx.exit(1)


def examine() -> dict[str, Any]:
    """Look at everything and return plain data; `problems` lists what the main job lacks, one sentence each."""
    problems: list[str] = []
    packages = {name: _version(name) for name in PACKAGES}
    problems += [f"the package {name} is missing: pip install {name}" for name, found in packages.items() if not found]
    assets = [_asset_row(asset_id, problems) for asset_id in load_registry()]
    return {
        "fourd": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "optional_packages": {name: _version(name) for name in OPTIONAL_PACKAGES},
        "compute": _compute(problems),
        "native": _guarded("fourdface.ops._native", "status", problems),
        "native_cuda": _guarded("fourdface.ops._native", "cuda_status", problems),
        "perception": _perception(problems),
        "gaussians": _gaussians(),
        "asset_folder": str(asset_folder()),
        "assets": assets,
        "problems": problems,
    }


def _version(name: str) -> str:
    """The installed version of a distribution, "" if there is none; nothing is imported."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _compute(problems: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"cpus": os.cpu_count(), "usable_cpus": _usable_cpus()}
    try:
        import torch
    except Exception as error:  # a broken torch fails in many ways, and doctor is who must say so
        problems.append(f"torch does not load: {' '.join(str(error).split())[:200]}")
        return {**row, "torch": None}
    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name(0) if cuda else None
    return {**row, "torch": torch.__version__, "torch_threads": torch.get_num_threads(), "cuda": cuda, "gpu": name}


def _usable_cpus() -> int:
    """CPUs that this process may run on: in a container or a batch job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _guarded(module: str, function: str, problems: list[str]) -> dict[str, Any]:
    """Ask a part of fourd for its state; if it cannot even be imported, that is the state."""
    try:
        return dict(getattr(importlib.import_module(module), function)())
    except Exception as error:
        sentence = f"{module} does not work: {' '.join(str(error).split())[:200]}"
        problems.append(sentence)
        return {"reason": sentence}


def _perception(problems: list[str]) -> dict[str, Any]:
    backends = _guarded("fourdface.perception", "available_backends", problems)
    used = next((name for name, why in backends.items() if not why), None)
    if used is None:
        problems.append("no perception backend can run: install fourd again")
    return {"used": used, "backends": {name: why or "available" for name, why in backends.items()}}


def _gaussians() -> dict[str, Any]:
    """Which renderer of Gaussians is used, best first: gsplat on CUDA, our CPU kernel, the torch reference."""
    try:
        import torch

        cuda = torch.cuda.is_available()
        native = bool(importlib.import_module("fourdface.ops._native").status()["built"])
    except Exception as error:
        return {"used": None, "backends": {"reference": " ".join(str(error).split())[:200]}}
    gsplat = "needs the package gsplat: pip install gsplat" if not _version("gsplat") else "needs an NVIDIA GPU"
    if cuda and _version("gsplat"):
        gsplat = "available"
    backends = {"gsplat": gsplat, "native": "available" if native else "the CPU library is not built"}
    backends["reference"] = "available (slow)"
    used = next(name for name, why in backends.items() if why.startswith("available"))
    return {"used": used, "backends": backends}


def _asset_row(asset_id: str, problems: list[str]) -> dict[str, Any]:
    verdict = verify_asset(load_registry()[asset_id])
    if verdict.asset.kind == "embedded" and verdict.state in ("missing", "damaged"):
        problems.append(f"the file {verdict.asset.file} is {verdict.state}: install fourd again")
    return {"id": asset_id, "class": verdict.asset.kind, "state": verdict.state, "detail": verdict.detail}


def _print(report: dict[str, Any]) -> None:
    compute, native = report["compute"], report["native"]
    click.echo(f"fourd {report['fourd']}, Python {report['python']}, {report['platform']}")
    click.echo(f"torch       {compute['torch']}, {compute.get('torch_threads')} threads, {compute['usable_cpus']} CPUs")
    click.echo(f"GPU         {compute.get('gpu') or 'none'}")
    built = f"{native.get('instruction_set')}, {native.get('reason')}" if native.get("built") else native.get("reason")
    click.echo(f"native CPU  {'yes' if native.get('built') else 'no'}: {built}")
    cuda = report["native_cuda"]
    state = "used" if cuda.get("used") else "built, not used" if cuda.get("built") else "no"
    click.echo(f"native CUDA {state}: {cuda.get('reason')}")
    for part in ("gaussians", "perception"):
        click.echo(f"{part:<11} {report[part]['used']}")
        for name, why in report[part]["backends"].items():
            click.echo(f"  {name:<16} {why}")
    click.echo(f"assets      in {report['asset_folder']}")
    for row in report["assets"]:
        click.echo(f"  {row['id']:<28} {row['class']:<9} {row['state']}")
    missing = [name for name, found in report["optional_packages"].items() if not found]
    click.echo(f"optional packages not installed: {', '.join(missing) or 'none'}")
    for problem in report["problems"]:
        click.echo(f"PROBLEM: {problem}")
    if not report["problems"]:
        click.echo("Everything for the main job is here.")
