"""Training samples of Portrait4D out of the official LMDB folders, read-only: VFHQ's clips and FFHQ's pictures.

Source and driver are two frames of a clip and the target is the driving frame (v2 section 3.3); a picture of FFHQ is
all three. The labels' cameras carry the whole rotation of the head, so that the neck is straight, as in `views`. They
stand about FLAME's neck joint and are moved by `OPEN_HEAD` here, so that these samples, `views` and networks that were
trained on either share one world. The segmentation is the opacity; background and depth are unknown, and so is the
motion: the labels hold FLAME's coefficients, not the 52.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fourdface.errors import FourdError, UsageError
from fourdface.media.resize import resize
from fourdface.methods.portrait4d.config import COEFFICIENT_MOTION
from fourdface.methods.portrait4d.training_config import DataConfig, TrainingConfig
from fourdface.methods.portrait4d.training_data import PortraitViews, augmented, view_files
from fourdface.methods.portrait4d.view import OPEN_HEAD, moved_label
from fourdface.priors.genhead.lmdb_data import LmdbRecords, is_lmdb

__all__ = ["LmdbClips", "open_samples", "require_perceived"]


class LmdbClips:
    """Samples for the recipes, one to a record; every `held_out`-th record is kept for scores (see `PortraitViews`).

    Args:
        paths: folders in the layout of `priors.genhead.lmdb_data`. size, self_driven: see `PortraitViews`; where it
            is not self-driven, the driving frame is given `data.targets` times, as it is all there is.
        without: records of another set that shall not be in this one (its `records`).
    """

    def __init__(
        self, paths: Sequence[str], size: int, config: DataConfig, *, held_out: bool = False, self_driven: bool = False,
        without: Collection[tuple[Path, int]] = (),
    ) -> None:  # fmt: skip
        self.size, self.config, self.targets = size, config, 1 if self_driven else config.targets
        self.folders = [LmdbRecords(folder) for folder in paths]
        counts = [len(folder) for folder in self.folders]
        rows = np.stack([np.repeat(np.arange(len(counts)), counts), np.concatenate([np.arange(n) for n in counts])], 1)
        kept = (rows[:, 1] % config.held_out == 0) if config.held_out else np.zeros(len(rows), bool)
        self.rows = rows[kept == held_out]
        if without:
            self.rows = self.rows[[record not in without for record in self.records]]
        self.rows = self.rows[: config.people or None]
        if not len(self.rows):
            use = "kept for scores" if held_out else "left to train on"
            raise FourdError(f"no record in {', '.join(paths)} is {use}; give more data, or data.held_out=0")

    @property
    def records(self) -> list[tuple[Path, int]]:
        """Folder and number of each sample's record."""
        places = [records.folder.resolve() for records in self.folders]
        return [(places[folder], number) for folder, number in self.rows.tolist()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The sample of a record with the frames drawn from a seed that is its index."""
        return self.draw(index, torch.Generator().manual_seed(index))

    def of_people(self, count: int) -> list[int]:
        """Index of one sample of each of at most `count` records."""
        return list(range(min(count, len(self))))

    def draw(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A sample as in `PortraitViews.draw`; motions are zero and depths [V, 1, 1]. FourdError: damaged record."""
        rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
        folder, number = self.rows[index].tolist()
        with self.folders[folder].record(number) as record:
            labels = record.labels()[:, :25]
            near = np.flatnonzero(labels[:, 10] >= np.cos(np.radians(self.config.largest_yaw)))
            near = near if len(near) else np.arange(len(labels))
            source, driver = rng.choice(near, 2, replace=len(near) == 1).tolist()
            pictures = {frame: record.picture(frame) for frame in {source, driver}}
        label = moved_label(torch.from_numpy(labels), OPEN_HEAD)
        image, opacity = (self._resized(values) for values in pictures[driver])
        sample = {
            "source": self._resized(pictures[source][0]), "source_label": label[source],
            "driver": image, "driver_label": label[driver],
            "source_motion": torch.zeros(COEFFICIENT_MOTION), "motion": torch.zeros(COEFFICIENT_MOTION),
            "background": torch.zeros_like(image),
            "targets": image.expand(self.targets, -1, -1, -1), "opacities": opacity.expand(self.targets, -1, -1, -1),
            "depths": torch.zeros(self.targets, 1, 1), "labels": label[driver].expand(self.targets, -1),
            "known": torch.tensor([0.0, 1.0, 0.0]), "person": torch.tensor(index),
        }  # fmt: skip
        return augmented(sample, self.config, rng)

    def _resized(self, values: np.ndarray) -> Tensor:
        """uint8 [H, W] or [H, W, 3] -> [1 or 3, S, S]."""
        values = resize(values, self.size, self.size)
        return torch.from_numpy(np.array(values[None] if values.ndim == 2 else values.transpose(2, 0, 1)))


def open_samples(
    paths: Sequence[str], size: int, config: DataConfig, *, held_out: bool = False, self_driven: bool = False,
    without: PortraitViews | LmdbClips | None = None, made_by: str = "",
) -> PortraitViews | LmdbClips:  # fmt: skip
    """The samples of paths that are all LMDB folders or all `views`, without the people of another set; made_by: see
    `PortraitViews`. UsageError for a mixture, and for LMDB people who are to be made again."""
    kinds = {is_lmdb(path) for path in paths}
    if len(kinds) > 1:
        raise UsageError(
            f"{', '.join(paths)} are LMDB folders and `views`; give one kind as --data (data.static may be the other)"
        )
    if kinds == {True} and made_by:
        raise UsageError(f"the teacher cannot make the people of {paths[0]} again, who were filmed; leave teacher out")
    if kinds == {True}:
        taken = set(without.records) if isinstance(without, LmdbClips) else ()
        return LmdbClips(paths, size, config, held_out=held_out, self_driven=self_driven, without=taken)
    people = without.of_person if isinstance(without, PortraitViews) else ()
    return PortraitViews(
        view_files(paths), size, config, held_out=held_out, self_driven=self_driven, without=people, made_by=made_by
    )


def require_perceived(paths: Sequence[str], config: TrainingConfig) -> None:
    """UsageError where a network that is driven would take its motion from LMDB labels."""
    found = [path for path in paths if is_lmdb(path)]
    if found and config.motion == "truth" and not config.static:
        raise UsageError(
            f"motion=truth does not go with {found[0]}, as labels of LMDB data hold FLAME's coefficients and the "
            "network moves by the 52; give --set motion=perceived, which reads them in the pictures"
        )
