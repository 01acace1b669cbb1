"""The sources of `fourd synth-data` that are networks: a GenHead, and a reconstructor that looks at clips."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fourdface.artifacts import Motion, Source, Tracked, Weights, read_any
from fourdface.cli.lifting import is_artifact
from fourdface.cli.networks import NetworkRequest, OpenedEngine, open_engine
from fourdface.cli.sources import embedded_weights, expand_inputs
from fourdface.cli.stream import source_of
from fourdface.cli.synthesising import open_head_weights, plan_of
from fourdface.cli.tracking import TrackRequest, track_one
from fourdface.errors import FourdError, UsageError

if TYPE_CHECKING:
    from fourdface.blocks.head_model import HeadModel
    from fourdface.perception.base import Perception
    from fourdface.stages.synth_data import Synthesizer
    from fourdface.stages.synthesis.rows import Person, ViewPlan

TRACKED = "tracked"
"""Subfolder of the output that keeps what was tracked on the way."""


def open_genhead(checkpoint: str, static: bool, clips: tuple[str, ...], options: dict[str, Any]) -> Synthesizer:
    """A GenHead's people. FourdError where the checkpoint is missing or refused."""
    from fourdface.stages.synthesis.clips import clip_of
    from fourdface.stages.synthesis.genhead import GenHeads, open_network

    if static and options["motions"] != 1:
        options = {**options, "motions": 1}
    table = []
    for path in expand_inputs(clips):
        artifact = read_any(path)
        if not isinstance(artifact, Tracked | Motion):
            raise UsageError(
                f"--clips {path}: {artifact.KIND} artifacts hold no clip; make one with `fourd preprocess --fit`"
            )
        table.append(clip_of(artifact, path.name))
    open_network(checkpoint)
    weights = (*open_head_weights(), _weights_of(checkpoint))
    return GenHeads(checkpoint, static, tuple(table), plan_of(options), options["seed"], weights)


def _weights_of(checkpoint: str) -> Weights:
    """A file of the user's by its name and digest, an asset by what the registry says of it."""
    if Path(checkpoint).is_file():
        source = source_of(Path(checkpoint))
        return Weights(source.name, source.sha256, "given by the user", False)
    from fourdface.assets import get_asset

    asset = get_asset(checkpoint)
    return Weights(asset.id, asset.sha256 or "", asset.licence, asset.commercial_use)


@dataclasses.dataclass(frozen=True)
class VideoClips:
    """Clips seen by a static reconstructor, as a `Synthesizer`; person k is the k-th clip."""

    paths: tuple[Path, ...]
    network: NetworkRequest
    tracked: Path
    perception: str
    plan: ViewPlan
    seed: int
    weights: tuple[Weights, ...]
    kind: str = "video"
    head_model: str = "open"

    @classmethod
    def open(cls, clips: tuple[str, ...], checkpoint: str, perception: str, options: dict[str, Any]) -> VideoClips:
        """List the clips and open the network once, so that what is wrong with it is said at once."""
        if options["neck"]:
            raise UsageError("--neck is for sources that pose heads; clips have the necks they have")
        network = NetworkRequest(weights=checkpoint, precision="fp32", device="cpu")
        opened = _engine(network)
        weights = (*embedded_weights(), *opened.weights)
        folder = Path(options["output"]) / TRACKED
        return cls(tuple(expand_inputs(clips)), network, folder, perception, plan_of(options), options["seed"], weights)

    @property
    def people(self) -> int | None:
        """Number of clips."""
        return len(self.paths)

    def settings(self) -> dict[str, Any]:
        """What tracked the clips, and the network."""
        return {"perception": self.perception, "weights": [entry.sha256 for entry in self.weights]}

    def names(self, numbers: range) -> list[str]:
        """Names of the files."""
        return [self.paths[number].name for number in numbers]

    def person(self, number: int) -> Person:
        """Track one clip and add views to its frames."""
        from fourdface.stages.synthesis.pictures import tracked_person
        from fourdface.stages.synthesis.video import multi_view_person

        path, engine = self.paths[number], _engine(self.network).engine
        perception, model = _tools(self.perception)
        tracked = Tracked.read(path) if is_artifact(path) else self._track(path, perception, model)
        frames = tracked_person(tracked, model, engine.size, frames=self.plan.motions, name=path.name)
        named = dataclasses.replace(frames, name=path.name, sources=(_source(path),))
        return multi_view_person(named, engine, self.plan, self.seed, number)

    def _track(self, path: Path, perception: Perception, model: HeadModel) -> Tracked:
        kept = self.tracked / f"{path.name}.h5"
        if not kept.exists():
            self.tracked.mkdir(parents=True, exist_ok=True)
            request = TrackRequest(mattes=True, keep_frames=True, perception=self.perception)
            track_one(str(path), request, perception, model)[0].write(kept, overwrite=True)
        return Tracked.read(kept)


def _source(path: Path) -> Source:
    if not path.is_file():
        raise FourdError(f"{path} is no file; give clips or tracked artifacts")
    return source_of(path)


@lru_cache(maxsize=1)
def _engine(request: NetworkRequest) -> OpenedEngine:
    """The static reconstructor, loaded once a process."""
    return open_engine(request, "lp3d")


@lru_cache(maxsize=1)
def _tools(perception: str) -> tuple[Perception, HeadModel]:
    """Perception and head model, loaded once a process."""
    from fourdface.blocks.head_model import HeadModel
    from fourdface.perception import load_perception

    return load_perception(perception), HeadModel.load("open")
