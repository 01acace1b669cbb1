"""Pictures for GenHead's adversarial training: any source of aligned pictures with cameras and fitted heads.

A source tells pictures, opacities, cameras and poses by row; `fourdface/stages/train_genhead.py` makes one of `views`
artifacts, `lmdb.py` one of the official data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fourdface.errors import FourdError
from fourdface.priors.genhead.head import HeadPose
from fourdface.priors.genhead.training_config import GenHeadData

__all__ = ["PictureRow", "PictureSource", "Pictures", "camera_yaw", "pose_of", "repeated_rows"]


@dataclass(frozen=True)
class PictureRow:
    """One picture: image_u8 [H, W, 3], opacity_u8 [H, W] of the person, label [25] of the camera that carries the whole
    pose of the head (c_compose), shape [S], expression [E], jaw [3], eyes [6]; float32."""

    image_u8: np.ndarray
    opacity_u8: np.ndarray
    label: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    jaw: np.ndarray
    eyes: np.ndarray


class PictureSource(Protocol):
    """Rows of pictures; labels [N, 25] are known without reading pictures."""

    labels: np.ndarray

    def __len__(self) -> int: ...

    def row(self, index: int) -> PictureRow:
        """Read one row."""
        ...


def camera_yaw(labels: np.ndarray) -> np.ndarray:
    """Degrees [N] by which cameras of labels [N, 25] stand to the side of the head (its left is positive)."""
    position = labels[:, [3, 11]]  # x and z of the camera's place in the matrix of 4 x 4
    return np.degrees(np.arctan2(position[:, 0], position[:, 1]))


def repeated_rows(labels: np.ndarray, options: GenHeadData) -> np.ndarray:
    """Indices [M >= N] of rows, those of cameras to the side more often (EG3D's rebalancing of FFHQ by yaw)."""
    count = np.ones(len(labels), np.int64)
    if options.rebalance_degrees > 0:
        steps = np.floor(np.abs(camera_yaw(labels)) / options.rebalance_degrees).astype(np.int64)
        count = np.minimum(1 + steps, max(1, options.rebalance_most))
    return np.repeat(np.arange(len(labels)), count)


class Pictures:
    """The samples of a run, from one or more sources, at `size` pixels.

    A sample holds image [3, size, size] and silhouette [1, size, size] uint8, label [25], shape, expression, jaw, eyes.
    """

    def __init__(self, sources: Sequence[PictureSource], size: int, options: GenHeadData = GenHeadData()) -> None:  # noqa: B008 (frozen)
        self.size, self.zoom = size, options.zoom
        self._sources = list(sources)
        self._rows = [(k, int(i)) for k, source in enumerate(sources) for i in repeated_rows(source.labels, options)]
        if not self._rows:
            raise FourdError("the training data holds no picture")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One sample; see the class. Raises FourdError for a picture that cannot be read."""
        source, place = self._rows[index]
        row = self._sources[source].row(place)
        image = np.array(_sized(Image.fromarray(row.image_u8), self.size, self.zoom)).transpose(2, 0, 1)
        opacity = np.array(_sized(Image.fromarray(row.opacity_u8), self.size, self.zoom))[None]
        sample = {"image": torch.from_numpy(image.copy()), "silhouette": torch.from_numpy(opacity)}
        for name in ("label", "shape", "expression", "jaw", "eyes"):
            sample[name] = torch.from_numpy(np.array(getattr(row, name), np.float32))
        sample["label"] = _zoomed(sample["label"], self.zoom)
        return sample

    def spread(self, count: int) -> dict[str, Tensor]:
        """At most `count` samples, evenly spread over all, stacked: for grids and scores."""
        places = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        samples = [self[int(i)] for i in places]
        return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}

    def most_frontal(self) -> Tensor:
        """Label [25] of the camera that looks at its head most straight from the front (grids are seen from it)."""
        labels = np.concatenate([source.labels for source in self._sources])
        turn = labels[:, [0, 5, 10]].sum(axis=1)  # trace of the rotation: 3 where camera and head share their axes
        return _zoomed(torch.from_numpy(labels[int(turn.argmax())].astype(np.float32)), self.zoom)


def pose_of(batch: dict[str, Tensor]) -> HeadPose:
    """The heads of a batch of samples; the neck is straight, its turn is in the camera."""
    neck = torch.zeros_like(batch["jaw"])
    return HeadPose(batch["shape"], batch["expression"], neck, batch["jaw"], batch["eyes"])


def turned(label: Tensor, yaw: Tensor) -> Tensor:
    """The camera of a label [25], moved about the head's vertical axis by each yaw [N] (radians): [N, 25]."""
    cos, sin, zero, one = yaw.cos(), yaw.sin(), torch.zeros_like(yaw), torch.ones_like(yaw)
    rows = [torch.stack(row, -1) for row in ((cos, zero, sin), (zero, one, zero), (-sin, zero, cos))]
    rotation = torch.stack(rows, 1)  # [N, 3, 3]
    matrix = label[:16].reshape(4, 4).repeat(len(yaw), 1, 1)
    matrix[:, :3] = rotation @ matrix[:, :3]
    return torch.cat([matrix.flatten(1), label[16:].expand(len(yaw), -1)], dim=1)


def _zoomed(label: Tensor, zoom: float) -> Tensor:
    """The camera [25] whose picture is the middle of that of `label`, 1 / zoom of its side."""
    out = label.clone()
    out[[16, 20]] *= zoom
    out[[18, 21]] = (out[[18, 21]] - 0.5) * zoom + 0.5  # principal point
    return out


def _sized(image: Image.Image, size: int, zoom: float) -> Image.Image:
    """The middle (1 / zoom) of a square picture at another size. Raises FourdError for one that is not square."""
    if image.width != image.height:
        raise FourdError(f"training pictures must be square, got {image.width} x {image.height}: align them first")
    if image.width == size and zoom == 1:
        return image
    margin = image.width * (1 - 1 / zoom) / 2
    box = (margin, margin, image.width - margin, image.height - margin)
    smaller = size < image.width / zoom
    return image.resize((size, size), Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC, box=box)
