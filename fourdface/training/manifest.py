"""run.json: what was run with what, enough to run it again."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fourdface import __version__
from fourdface.artifacts.atomic import replacing
from fourdface.errors import FourdError, UsageError
from fourdface.training.config import differences, lasting

FILE = "run.json"


def describe(
    recipe: str, argv: Sequence[str], config: Mapping[str, Any], data: Sequence[str], assets: Mapping[str, str]
) -> dict[str, Any]:
    """The content of run.json: argv, resolved configuration, seed, data (name, bytes), versions, git hash, assets."""
    import numpy as np
    import torch

    return {
        "recipe": recipe,
        "argv": list(argv),
        "config": dict(config),
        "seed": config.get("train", {}).get("seed"),
        "data": [{"path": path, "bytes": _size(Path(path))} for path in data],
        "versions": {
            "fourd": __version__, "torch": torch.__version__, "numpy": np.__version__,
            "python": platform.python_version(), "platform": platform.platform(),
        },
        "git": git_hash(),
        "assets": dict(assets),
    }  # fmt: skip


def write(run_dir: Path, content: Mapping[str, Any]) -> None:
    """Write RUN_DIR/run.json whole."""
    with replacing(run_dir / FILE, overwrite=True) as path:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def check_same_run(run_dir: Path, recipe: str, config: Mapping[str, Any]) -> None:
    """Refuse to continue another run: raises UsageError that names what differs and --fresh."""
    path = run_dir / FILE
    if not path.exists():
        return
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        old_recipe, old_config = old["recipe"], dict(old["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FourdError(f"{path} cannot be read ({error}); give --fresh to start anew in this folder") from error
    if old_recipe != recipe:
        raise UsageError(f"{run_dir} holds a run of {old_recipe}; choose another folder, or give --fresh to replace it")
    changed = differences(lasting(old_config), lasting(json.loads(json.dumps(config))))
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UsageError(
            f"{run_dir} holds a run with another configuration: {', '.join(changed[:3])}{more}; give the same, another "
            "folder, or --fresh to replace it"
        )


def git_hash() -> str:
    """The commit of the checkout this package runs from, "+" after it where files differ; "" for an installed one."""
    here = Path(__file__).resolve().parent
    try:
        if Path(_git(here, "rev-parse", "--show-toplevel")) != here.parents[1]:  # installed inside another repository
            return ""
        head = _git(here, "rev-parse", "HEAD")
        return head + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *words: str) -> str:
    result = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    return result.stdout.strip()


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
