"""The source `pictures` of `fourd synth-data`: real photos, aligned and fitted, instead of rendered ones."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fourdface.artifacts import Tracked, Weights
from fourdface.cli.lifting import is_artifact
from fourdface.cli.sources import embedded_weights, is_picture
from fourdface.cli.stream import source_of
from fourdface.errors import FourdError

if TYPE_CHECKING:
    from fourdface.blocks.head_model import HeadModel
    from fourdface.perception.base import Perception
    from fourdface.stages.synthesis.rows import Person, ViewPlan


@dataclasses.dataclass(frozen=True)
class PictureFolder:
    """Photos and tracked artifacts of a folder and its subfolders as a `Synthesizer`; person k is the k-th by name."""

    root: Path
    paths: tuple[Path, ...]
    perception: str
    mirror: bool
    plan: ViewPlan
    weights: tuple[Weights, ...]
    kind: str = "pictures"
    head_model: str = "open"

    @classmethod
    def open(cls, folder: str, options: dict[str, Any]) -> PictureFolder:
        """List a folder with all below it; raises FourdError where it holds neither photos nor tracked artifacts."""
        from fourdface.media.image import natural_key
        from fourdface.stages.synthesis.rows import ViewPlan

        place = Path(folder)
        if not place.is_dir():
            raise FourdError(f"{place} is no folder; a folder of photos or tracked artifacts is wanted")
        found = [path for path in place.rglob("*") if path.is_file() and not path.name.startswith(".")]
        paths = sorted((path for path in found if is_artifact(path) or is_picture(path)), key=natural_key)
        if not paths:
            raise FourdError(f"{place} holds no photo and no tracked artifact (`fourd preprocess`)")
        plan = ViewPlan(max(options["frames"], 2 if options["mirror"] else 1), 1, options["size"])
        return cls(place, tuple(paths), options["perception"], options["mirror"], plan, embedded_weights())

    @property
    def people(self) -> int | None:
        """Number of files."""
        return len(self.paths)

    def settings(self) -> dict[str, Any]:
        """What the rows depend on beside the plan."""
        return {"perception": self.perception, "mirror": self.mirror}

    def names(self, numbers: range) -> list[str]:
        """Paths of the files below the folder."""
        return [str(self.paths[number].relative_to(self.root)) for number in numbers]

    def person(self, number: int) -> Person:
        """Align and fit one file."""
        from fourdface.media.image import read_image
        from fourdface.stages.synthesis.pictures import photo_person, tracked_person

        path = self.paths[number]
        perception, model = _tools(self.perception, self.head_model)
        name = str(path.relative_to(self.root))
        if is_artifact(path):
            made = tracked_person(Tracked.read(path), model, self.plan.size, frames=self.plan.motions, name=name)
        else:
            made = photo_person(read_image(path), perception, model, self.plan.size, mirror=self.mirror, name=name)
        return dataclasses.replace(made, sources=(source_of(path),))


@lru_cache(maxsize=1)
def _tools(perception: str, head_model: str) -> tuple[Perception, HeadModel]:
    """Perception and head model, loaded once a process."""
    from fourdface.blocks.head_model import HeadModel
    from fourdface.perception import load_perception

    return load_perception(perception), HeadModel.load(head_model)
