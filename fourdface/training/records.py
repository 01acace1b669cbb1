"""What a run tells while it goes on: scalars.csv, PNG grids, TensorBoard where it is installed, progress with ETA."""

from __future__ import annotations

import csv
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fourdface.artifacts.atomic import replacing
from fourdface.media.image import encode_png
from fourdface.training.config import TrainOptions
from fourdface.training.recipe import TrainState

logger = logging.getLogger(__name__)

SCALARS = "scalars.csv"
IMAGES = "images"
COLUMNS = ("step", "images", "name", "value")
COLUMNS_OF_GRID = 8


class Records:
    """The log of one run. Rank 0 writes; other ranks only count. Rows after the step of a continued run are dropped."""

    def __init__(self, run_dir: Path, options: TrainOptions, state: TrainState) -> None:
        self.run_dir, self.options, self.state = run_dir, options, state
        self.writes = state.rank == 0
        self._sums: dict[str, tuple[float, int]] = {}
        self._since = (time.monotonic(), state.step)
        self._board: Any = None
        self._bar: Any = None

    def __enter__(self) -> Records:
        if self.writes:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            _cut_after(self.run_dir / SCALARS, self.state.step)
            self._board = _tensorboard(self.run_dir, self.state.step)
            self._bar = tqdm(
                total=self.options.steps, initial=self.state.step, unit="step", disable=None, dynamic_ncols=True
            )
            self._started = (time.monotonic(), self.state.step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()

    def add(self, phase: str, values: Mapping[str, float]) -> None:
        """Add scalars of one update to the means of the present line (values that are not finite are left out)."""
        for name, value in values.items():
            if math.isfinite(value):
                total, count = self._sums.get(f"{phase}/{name}", (0.0, 0))
                self._sums[f"{phase}/{name}"] = (total + value, count + 1)

    def step(self, log_every: int) -> None:
        """A step is done: move the bar, and write a line when it is due."""
        if not self.writes:
            self._sums = {}
            return
        self._bar.update(1)
        if not log_every or (self.state.step % log_every and self.state.step != self.options.steps):
            return
        values = {name: total / count for name, (total, count) in self._sums.items() if count}
        now, steps = time.monotonic(), self.state.step - self._since[1]
        values["images_per_second"] = steps * self.options.batch / max(1e-9, now - self._since[0])
        values["skipped"] = float(self.state.skipped)
        self._since, self._sums = (now, self.state.step), {}
        self._scalars(values)
        self._progress(values)

    def scores(self, values: Mapping[str, float]) -> None:
        """Write measures as score/NAME."""
        if self.writes and values:
            self._scalars({f"score/{name}": float(value) for name, value in values.items()})
            logger.info("step %d: %s", self.state.step, ", ".join(f"{name} {v:.4g}" for name, v in values.items()))

    def images(self, grids: Mapping[str, Tensor]) -> None:
        """Write each stack of pictures [K,3,H,W] in 0..1 as one PNG grid, and to TensorBoard."""
        for name, pictures in grids.items() if self.writes else ():
            picture_u8 = grid(pictures)
            folder = self.run_dir / IMAGES
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(folder / f"{name}-{self.state.step:09d}.png", overwrite=True) as path:
                path.write_bytes(encode_png(picture_u8))
            if self._board is not None:
                self._board.add_image(name, picture_u8, self.state.step, dataformats="HWC")

    def _scalars(self, values: Mapping[str, float]) -> None:
        path = self.run_dir / SCALARS
        new = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            for name, value in values.items():
                writer.writerow([self.state.step, self.state.images, name, f"{value:.9g}"])
                if self._board is not None:
                    self._board.add_scalar(name, value, self.state.step)

    def _progress(self, values: Mapping[str, float]) -> None:
        """Losses on the bar; without a terminal, a line of the log with the time that is left."""
        shown = {key: v for key, v in values.items() if not key.endswith(("gradient_norm", "skipped", "per_second"))}
        losses = ", ".join(f"{name} {value:.4g}" for name, value in list(shown.items())[:6])
        if not self._bar.disable:
            self._bar.set_postfix_str(losses)
            return
        elapsed, steps = time.monotonic() - self._started[0], self.state.step - self._started[1]
        left = tqdm.format_interval(elapsed / max(1, steps) * (self.options.steps - self.state.step))
        speed = f"{values['images_per_second']:.3g} images/s"
        logger.info("step %d/%d, %s, %s left: %s", self.state.step, self.options.steps, speed, left, losses)


def grid(pictures: Tensor) -> np.ndarray:
    """Pictures [K,3,H,W] in 0..1 as one [H',W',3] uint8, up to 8 in a row."""
    count, _, height, width = pictures.shape
    columns = min(COLUMNS_OF_GRID, max(1, count))
    rows = -(-count // columns)
    cells = torch.ones(rows * columns, 3, height, width)
    cells[:count] = torch.nan_to_num(pictures.detach().float().cpu()).clamp(0, 1)
    cells = cells.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2)
    return (cells.reshape(rows * height, columns * width, 3) * 255).round().to(torch.uint8).numpy()


def read_scalars(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a run: name -> (step, value) in order."""
    found: dict[str, list[tuple[int, float]]] = {}
    with open(run_dir / SCALARS, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
    return found


def _cut_after(path: Path, step: int) -> None:
    """Drop the rows of steps that a continued run makes again, and a last row that was half written."""
    if not path.exists():
        return
    with open(path, newline="", encoding="utf-8") as file:
        whole = [row for row in csv.reader(file) if len(row) == len(COLUMNS) and row[0].isdigit()]
    rows = [row for row in whole if int(row[0]) <= step]
    with replacing(path, overwrite=True) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def _tensorboard(run_dir: Path, step: int) -> Any:
    """A TensorBoard writer, or None where the package is not installed (said once)."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("tensorboard is not installed: scalars go to %s, grids to %s alone", SCALARS, f"{IMAGES}/")
        return None
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)  # type: ignore[no-untyped-call]
