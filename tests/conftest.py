"""What all tests share: the folder of real test data, markers that skip with a reason, and synthetic artifacts."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.folders import data_folder

os.environ.setdefault("OMP_NUM_THREADS", "2")
# a shell's background job ignores Ctrl-C and hands that down to the processes that tests start and interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, saying why, test by test."""
    cuda_reason: str | None = None
    for item in items:
        if item.get_closest_marker("real") and not data_folder().is_dir():
            item.add_marker(pytest.mark.skip(reason=f"no test data in {data_folder()} (set FOURD_TEST_DATA)"))
        if item.get_closest_marker("cuda"):
            cuda_reason = _no_cuda_reason() if cuda_reason is None else cuda_reason
            if cuda_reason:
                item.add_marker(pytest.mark.skip(reason=cuda_reason))


def _no_cuda_reason() -> str:
    import torch

    return "" if torch.cuda.is_available() else "no NVIDIA GPU"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real photos and clips; skips where it is absent (mark such tests `real`)."""
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder} (set FOURD_TEST_DATA)")
    return folder


@pytest.fixture(autouse=True)
def _own_asset_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's asset folder, and none reaches the network for assets."""
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path_factory.getbasetemp() / "assets"))
    monkeypatch.delenv("FOURD_REGISTRY", raising=False)
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
