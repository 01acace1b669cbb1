"""Training samples of Portrait4D out of `views` artifacts: a source, a driver of the same person, and target pictures.

A sample is one moment (a person with a motion) that is to be shown; the source is another moment of the same person.
Pictures are uint8, so that batches stay small; what is drawn at random comes from the generator alone.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from fourdface.artifacts import Views
from fourdface.blocks.arkit import ARKIT_NAMES
from fourdface.errors import FourdError, UsageError
from fourdface.methods.portrait4d.config import coefficient_motion
from fourdface.methods.portrait4d.training_config import DataConfig
from fourdface.priors.genhead.camera import label_from_camera

__all__ = ["Moment", "PortraitViews", "augmented", "mirrored_motion", "person_name", "view_files"]

OPEN_SHARDS = 64
"""`views` files that a process holds open at most: their pictures stay encoded."""
_MIRROR = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))


def mirrored_motion(motion: np.ndarray) -> np.ndarray:
    """The motion [61] of the same face in a mirror: left and right change places, turns about y and z their sign."""
    turn = np.array([1.0, -1.0, -1.0], np.float32)
    eyes = motion[55:61].reshape(2, 3)[::-1] * turn
    return np.concatenate([motion[:52][_partners()], motion[52:55] * turn, eyes.ravel()])


@lru_cache(maxsize=1)
def _partners() -> np.ndarray:
    """Index of each coefficient's mirror image [52]."""
    swapped = []
    for name in ARKIT_NAMES:
        for side, other in (("Left", "Right"), ("Right", "Left")):
            if name.endswith(side):
                name = name.removesuffix(side) + other
                break
        swapped.append(ARKIT_NAMES.index(name))
    return np.array(swapped)


@lru_cache(maxsize=OPEN_SHARDS)
def _opened(path: str) -> Views:
    return Views.read(path)


def view_files(paths: Sequence[str]) -> list[str]:
    """`views` files of paths that are files or folders of them, in order. UsageError where there is none."""
    found: list[str] = []
    for place in map(Path, paths):
        if not place.exists():
            raise UsageError(f"{place} does not exist; give `views` artifacts (`fourd synth-data`) or a folder of them")
        found += sorted(str(file) for file in place.glob("*.h5")) if place.is_dir() else [str(place)]
    if not found:
        raise UsageError(f"there is no .h5 file in {', '.join(paths) or 'no path'}; `fourd synth-data` writes them")
    return found


@dataclass(frozen=True)
class Moment:
    """One motion of one person: rows of a file; `near` are those whose camera stands in front."""

    file: str
    person: tuple[str, int]
    rows: tuple[int, ...]
    near: tuple[int, ...]


def person_name(moment: Moment) -> str:
    """Where the person came from, as the file says."""
    return _opened(moment.file).names[moment.person[1]]


class PortraitViews:
    """Samples for the recipes; `held_out` takes the people that the others leave aside.

    Args:
        files: see `view_files`. size: side of the pictures in pixels. self_driven: the target is the driving picture.
        without: people of another set that shall not be in this one (keys of its `of_person`).
        made_by: SHA-256 of the GenHead that made the people, where samples are to tell how to make them again.
    """

    def __init__(
        self, files: Sequence[str], size: int, config: DataConfig, *, held_out: bool = False, self_driven: bool = False,
        without: Collection[tuple[str, int]] = (), made_by: str = "",
    ) -> None:  # fmt: skip
        self.size, self.config, self.self_driven = size, config, self_driven
        self.without, self.made_by = without, made_by
        self.moments: list[Moment] = []
        self.of_person: dict[tuple[str, int], list[int]] = {}
        for file in files:
            self._index(file, held_out)
        if not self.moments:
            kept = "kept for scores" if held_out else "left to train on"
            raise FourdError(f"no person in {', '.join(map(str, files))} is {kept}; give more data, or data.held_out=0")

    def _index(self, file: str, held_out: bool) -> None:
        views, rule = _opened(file), self.config
        if self.made_by:
            _require_latents(views, file, self.made_by)
        front = -views.world_to_camera[:, 2, 2] >= np.cos(np.radians(rule.largest_yaw))
        keys = np.stack([views.identity, views.motion], 1)
        for identity, motion in np.unique(keys, axis=0).tolist():
            if (rule.held_out > 0 and identity % rule.held_out == 0) != held_out:
                continue
            person = (str(Path(file).parent), identity)
            if person in self.without:
                continue
            if person not in self.of_person and 0 < rule.people <= len(self.of_person):
                continue
            rows = np.flatnonzero((keys == [identity, motion]).all(1)).tolist()
            near = tuple(row for row in rows if front[row]) or tuple(rows)
            self.of_person.setdefault(person, []).append(len(self.moments))
            self.moments.append(Moment(file, person, tuple(rows), near))

    def __len__(self) -> int:
        return len(self.moments)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """The sample of a moment with everything else drawn from a seed that is its index."""
        return self.draw(index, torch.Generator().manual_seed(index))

    def draw(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """A sample. S is the size, V the number of targets, h x w the depths' own size.

        source, driver, background uint8 [3,S,S]; source_motion, motion [61]; source_label, driver_label [25]; targets
        uint8 [V,3,S,S], opacities uint8 [V,1,S,S], depths [V,h,w] metres (0: nothing), labels [V,25]; known
        [3]: whether background, opacity and depth are the truth; person: number of the person in this set. With
        `made_by`: latent [D] and head [S+64] (shape, expression, neck, jaw, eyes) of the moment.
        """
        rng = np.random.default_rng(int(torch.randint(1 << 62, (), generator=generator)))
        moment = self.moments[index]
        mates = [k for k in self.of_person[moment.person] if k != index] or [index]
        other = self.moments[int(rng.choice(mates))]
        driver = int(rng.choice(moment.near))
        targets = [driver] if self.self_driven else _chosen(rng, moment.rows, driver, self.config.targets)
        return self.sample(other, int(rng.choice(other.near)), moment, driver, targets, rng)

    def sample(
        self, other: Moment, source: int, moment: Moment, driver: int, targets: Sequence[int],
        rng: np.random.Generator | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """See `draw`: the sample of given rows; `rng` None leaves colours and sides as they are."""
        views = _opened(moment.file)
        behind = int(views.background_index[driver])
        background = None if behind < 0 else views.backgrounds[behind]
        depths = views.depths
        sample = {
            "source": self._picture(_opened(other.file).images[source]),
            "source_motion": _motion(_opened(other.file), source), "source_label": _label(_opened(other.file), source),
            "driver": self._picture(views.images[driver]), "motion": _motion(views, driver),
            "driver_label": _label(views, driver),
            "background": self._blank(3) if background is None else self._picture(background),
            "targets": torch.stack([self._picture(views.images[row]) for row in targets]),
            "opacities": torch.stack([
                self._blank(1) if views.opacities is None else self._picture(views.opacities[row], grey=True)
                for row in targets
            ]),
            "depths": torch.zeros(len(targets), 1, 1) if depths is None
            else torch.from_numpy(np.asarray(depths[list(targets)], np.float32)),
            "labels": torch.stack([_label(views, row) for row in targets]),
            "known": torch.tensor([background is not None, views.opacities is not None, depths is not None]).float(),
            "person": torch.tensor(list(self.of_person).index(moment.person)),
        }  # fmt: skip
        if self.made_by:
            sample |= {"latent": _latent(views, driver), "head": _head(views, driver)}
        return sample if rng is None else augmented(sample, self.config, rng)

    def of_people(self, count: int) -> list[int]:
        """Index of one sample of each of at most `count` people."""
        return [moments[-1] for moments in list(self.of_person.values())[:count]]

    def _blank(self, channels: int) -> Tensor:
        return torch.zeros(channels, self.size, self.size, dtype=torch.uint8)

    def _picture(self, blob: bytes, *, grey: bool = False) -> Tensor:
        """uint8 [3 or 1, S, S]. FourdError for bytes that are no picture."""
        try:
            with Image.open(io.BytesIO(bytes(blob)), formats=("JPEG", "PNG")) as file:
                image = file.convert("L" if grey else "RGB")
                if image.size != (self.size, self.size):
                    image = image.resize((self.size, self.size), Image.Resampling.LANCZOS, reducing_gap=2.0)
                values = np.array(image)
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise FourdError(f"a picture of the views cannot be read: {error}") from error
        return torch.from_numpy(values[None] if grey else values.transpose(2, 0, 1).copy())


def _chosen(rng: np.random.Generator, rows: Sequence[int], driver: int, count: int) -> list[int]:
    """`count` rows, other than the driver's own while there are such."""
    others = [row for row in rows if row != driver] or list(rows)
    order = [int(row) for row in rng.permutation(others)]
    return (order * (1 + count // len(order)))[:count]


def _motion(views: Views, row: int) -> Tensor:
    return torch.from_numpy(coefficient_motion(views.expression[row], views.jaw[row], views.eyes[row]))


def _latent(views: Views, row: int) -> Tensor:
    latent = views.latent(row)
    if latent is None:
        raise ValueError("these views keep no latents")
    return torch.from_numpy(latent)


def _head(views: Views, row: int) -> Tensor:
    parts = (views.shape, views.expression, views.neck, views.jaw, views.eyes)
    return torch.from_numpy(np.concatenate([part[row] for part in parts]))


def _require_latents(views: Views, file: str, made_by: str) -> None:
    """FourdError where the file's people cannot be made again by the network of this SHA-256."""
    if views.latents is None:
        raise FourdError(
            f"{file} keeps no latents, so that the teacher cannot make its people again; give views of "
            "`fourd synth-data genhead` (older ones made anew), or leave teacher out"
        )
    if not any(entry.sha256 == made_by for entry in views.provenance.weights):
        names = ", ".join(f"{entry.asset} {entry.sha256[:12]}" for entry in views.provenance.weights) or "nothing named"
        raise FourdError(
            f"{file} was made by another network ({names}) than the teacher ({made_by[:12]}); give as teacher the "
            "checkpoint that made the views"
        )


def _label(views: Views, row: int) -> Tensor:
    matrix = torch.from_numpy(views.world_to_camera[row])[None]
    intrinsics = torch.from_numpy(views.intrinsics[row])[None]
    return label_from_camera(matrix, intrinsics, views.width, views.height)[0]


def augmented(sample: dict[str, Tensor], config: DataConfig, rng: np.random.Generator) -> dict[str, Tensor]:
    """A sample (see `PortraitViews.draw`) in a mirror or not, and in other colours, as the configuration says."""
    if rng.random() < config.mirror:
        sample = _mirrored(sample)
    return sample if config.colour == 0 else _coloured(sample, config.colour, rng)


def _mirrored(sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """The whole sample in a mirror: pictures, motions and cameras."""
    out = dict(sample)
    for name in ("source", "driver", "background", "targets", "opacities", "depths"):
        out[name] = sample[name].flip(-1)
    for name in ("source_motion", "motion"):
        out[name] = torch.from_numpy(mirrored_motion(sample[name].numpy()))
    for name in ("source_label", "driver_label", "labels"):
        label = sample[name].clone()
        matrix = label[..., :16].unflatten(-1, (4, 4))
        label[..., :16] = (_MIRROR @ matrix @ _MIRROR).flatten(-2)
        label[..., 18] = 1 - label[..., 18]
        out[name] = label
    return out


def _coloured(sample: dict[str, Tensor], spread: float, rng: np.random.Generator) -> dict[str, Tensor]:
    """Gain and gamma per channel, the same for all pictures: other skins and lights than the few people's own."""
    gamma = np.exp(rng.normal(0, spread, (1, 1)) + rng.normal(0, spread / 4, (3, 1)))
    gain = np.exp(rng.normal(0, spread / 2, (1, 1)) + rng.normal(0, spread / 4, (3, 1)))
    levels = np.clip(255 * gain * (np.arange(256) / 255) ** gamma, 0, 255).round().astype(np.uint8)
    table = torch.from_numpy(levels)
    out = dict(sample)
    for name in ("source", "driver", "background", "targets"):
        channels = [table[k][sample[name][..., k, :, :].long()] for k in range(3)]
        out[name] = torch.stack(channels, dim=-3)
    return out
