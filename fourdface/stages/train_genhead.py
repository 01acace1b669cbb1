"""The recipe `genhead` with its data: views artifacts, or folders in the official LMDB layout."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fourdface.artifacts import Views
from fourdface.errors import FourdError, UsageError
from fourdface.priors.genhead.camera import label_from_camera
from fourdface.priors.genhead.lmdb_data import LmdbPictures, is_lmdb
from fourdface.priors.genhead.training import GenHeadRecipe
from fourdface.priors.genhead.training_config import GenHeadTraining
from fourdface.priors.genhead.training_data import PictureRow, Pictures, PictureSource
from fourdface.training import RecipeFactory

__all__ = ["FACTORY", "ViewsPictures", "open_pictures"]


class ViewsPictures:
    """The rows of a `views` artifact as training pictures (see `PictureSource`).

    Raises FourdError for an artifact with turned heads, turned necks, without opacities, or of another head model.
    """

    def __init__(self, views: Views, head_model: str, name: str) -> None:
        if views.head_model != head_model:
            raise FourdError(
                f"{name} holds heads of the model {views.head_model!r} and the network poses {head_model!r}: "
                f"give --set network.head={views.head_model}, or other data"
            )
        if views.opacities is None:
            raise FourdError(f"{name} holds no opacities, which the discriminator needs as silhouettes; make it anew")
        if np.abs(views.rotation).max(initial=0) > 1e-4 or np.abs(views.neck).max(initial=0) > 1e-4:
            raise FourdError(
                f"{name} holds turned heads; GenHead wants the whole turn in the camera and straight necks"
            )
        self._views, self._opacities = views, views.opacities
        cameras = torch.from_numpy(views.world_to_camera.copy())
        moved = torch.eye(4).repeat(len(views), 1, 1)
        moved[:, :3, 3] = torch.from_numpy(views.translation.copy())
        intrinsics = torch.from_numpy(views.intrinsics.copy())
        self.labels = label_from_camera(cameras @ moved, intrinsics, views.width, views.height).numpy()

    def __len__(self) -> int:
        return len(self._views)

    def row(self, index: int) -> PictureRow:
        """Decode one picture."""
        views = self._views
        with Image.open(io.BytesIO(views.images[index])) as file:
            image = np.asarray(file.convert("RGB"))
        with Image.open(io.BytesIO(self._opacities[index])) as file:
            opacity = np.asarray(file.convert("L"))
        return PictureRow(
            image, opacity, self.labels[index], views.shape[index], views.expression[index], views.jaw[index],
            views.eyes[index],
        )  # fmt: skip


def open_pictures(paths: Sequence[str], config: GenHeadTraining) -> Pictures:
    """The training pictures of all data paths. Raises UsageError where there is none, FourdError for wrong data."""
    if not paths:
        raise UsageError("genhead needs pictures: give --data FOLDER of `fourd synth-data pictures`")
    sources: list[PictureSource] = []
    for path in map(Path, paths):
        if is_lmdb(path):
            sources.append(LmdbPictures(path))
            continue
        files = sorted(path.glob("*.h5")) if path.is_dir() else [path]
        if not files:
            raise FourdError(f"{path} holds no views artifact (*.h5): run `fourd synth-data pictures {path} -o OUT`")
        sources += [ViewsPictures(Views.read(file), config.network.head, str(file)) for file in files]
    return Pictures(sources, config.network.resolution, config.data)


def make(config: GenHeadTraining, paths: Sequence[str], device: torch.device) -> tuple[GenHeadRecipe, Pictures]:
    """The recipe and its samples."""
    pictures = open_pictures(paths, config)
    return GenHeadRecipe(config, pictures, device), pictures


FACTORY = RecipeFactory(GenHeadTraining, make)
