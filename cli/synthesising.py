"""What `fourd synth-data` does between its input and its output: shards, workers, what is complete already."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fourdface.artifacts import Avatar, Provenance, Views, Weights
from fourdface.cli.lifting import LiftRequest, is_artifact, lift_file
from fourdface.cli.sources import embedded_weights, is_picture
from fourdface.cli.stream import progress_bar, source_of
from fourdface.errors import FourdError, UsageError

if TYPE_CHECKING:
    from fourdface.stages.synth_data import Synthesizer
    from fourdface.stages.synthesis.rows import Person, ViewPlan

log = logging.getLogger(__name__)

LIFTED = "avatars"
"""Subfolder of the output that keeps what was lifted on the way."""


def plan_of(options: dict[str, Any]) -> ViewPlan:
    """The plan that the common options ask for."""
    from fourdface.stages.synthesis.rows import ViewPlan

    return ViewPlan(**{field.name: options[field.name] for field in dataclasses.fields(ViewPlan)})


def open_heads(options: dict[str, Any]) -> Synthesizer:
    """People of the open head."""
    from fourdface.stages.synthesis.open_head import OpenHeads

    return OpenHeads(plan_of(options), options["seed"], open_head_weights())


def open_head_weights() -> tuple[Weights, ...]:
    """What people of the open head are made from, for their provenance."""
    return tuple(entry for entry in embedded_weights() if entry.asset == "open-head")


@dataclasses.dataclass(frozen=True)
class AvatarFolder:
    """Splat avatars, and photos that become some, as a `Synthesizer`; person k is the k-th file by name."""

    paths: tuple[Path, ...]
    lifted: Path
    perception: str
    plan: ViewPlan
    seed: int
    weights: tuple[Weights, ...]
    kind: str = "avatars"
    head_model: str = "open"

    @classmethod
    def open(cls, folder: str, perception: str, options: dict[str, Any]) -> AvatarFolder:
        """List a folder; raises UsageError for a file, FourdError where there are neither avatars nor photos."""
        from fourdface.media.image import natural_key

        place = Path(folder)
        if place.is_file():
            raise UsageError(f"{place} is a file, and a folder of avatars or photos is wanted; give its folder")
        if not place.is_dir():
            raise FourdError(f"{place} does not exist; a folder of avatars (`fourd lift`) or photos is wanted")
        found = [entry for entry in place.iterdir() if entry.is_file() and not entry.name.startswith(".")]
        paths = sorted((path for path in found if is_artifact(path) or is_picture(path)), key=natural_key)
        if not paths:
            raise FourdError(f"{place} holds no avatar and no photo; make avatars with `fourd lift`")
        lifted = Path(options["output"]) / LIFTED
        return cls(tuple(paths), lifted, perception, plan_of(options), options["seed"], embedded_weights())

    @property
    def people(self) -> int | None:
        """Number of files."""
        return len(self.paths)

    def settings(self) -> dict[str, Any]:
        """Nothing but the files and the seed."""
        return {"perception": self.perception}

    def names(self, numbers: range) -> list[str]:
        """Names of the files."""
        return [self.paths[number].name for number in numbers]

    def person(self, number: int) -> Person:
        """Read or lift one file and render it."""
        from fourdface.stages.synthesis.avatars import avatar_person

        path = self.paths[number]
        avatar = Avatar.read(path) if is_artifact(path) else self._lift(path)
        if avatar.head_model != self.head_model:
            raise FourdError(f"{path.name} is on the head model {avatar.head_model}, and the open one is wanted")
        return avatar_person(avatar, path.name, source_of(path), self.plan, self.seed, number)

    def _lift(self, path: Path) -> Avatar:
        kept = self.lifted / f"{path.name}.h5"
        if not kept.exists():
            self.lifted.mkdir(parents=True, exist_ok=True)
            lift_file(LiftRequest(str(path), perception=self.perception)).write(kept, overwrite=True)
        return Avatar.read(kept)


def run(synthesizer: Synthesizer, options: dict[str, Any]) -> int:
    """Make the shards of this part that are not there yet; returns the exit code: 1 where a person failed."""
    from fourdface.stages.synth_data import shards_of

    folder = Path(options["output"])
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder} is a file, and a folder for the shards is wanted; name another place")
    _check_sheet(options["sheet"])
    people = _how_many(synthesizer, options["count"])
    shards = shards_of(people, options["per_shard"], options["shard"] or (0, 1))
    if not shards:
        raise UsageError(
            f"this part has nothing to do: {people} people make {-(-people // options['per_shard'])} shards"
        )
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for number, members in shards:
        place = folder / f"views-{number:05d}.h5"
        provenance = _provenance(synthesizer, members, options["seed"])
        if options["overwrite"] or not _is_complete(place, provenance):
            jobs.append(Job(place, members, provenance))
    if len(jobs) < len(shards):
        log.info("%d of %d shards are complete already", len(shards) - len(jobs), len(shards))
    failed = _make_all(synthesizer, jobs, options["workers"])
    if jobs and not any(job.place.exists() for job in jobs):
        raise FourdError(failed[0])
    made = [place for number, _ in shards if (place := folder / f"views-{number:05d}.h5").exists()]
    if options["sheet"] and made:
        _write_sheet(made[0], Path(options["sheet"]))
    for text in failed:
        log.warning("left out: %s", text)
    return 1 if failed else 0


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to be made."""

    place: Path
    members: range
    provenance: Provenance


def _how_many(synthesizer: Synthesizer, count: int | None) -> int:
    there = synthesizer.people
    if there is None:
        if count is None:
            raise UsageError(f"{synthesizer.kind} has people without end; say how many with --count N")
        return count
    if count is not None and count > there:
        raise UsageError(f"--count is {count}, and there are {there} people")
    return count or there


def _provenance(synthesizer: Synthesizer, members: range, seed: int) -> Provenance:
    """What a shard is made of: the same for any number of parts and workers."""
    config = {
        "source": synthesizer.kind, **dataclasses.asdict(synthesizer.plan), **synthesizer.settings(),
        "people": [members.start, members.stop], "names": synthesizer.names(members),
    }  # fmt: skip
    return Provenance(
        command=f"fourd synth-data {synthesizer.kind}", config_json=json.dumps(config, ensure_ascii=False), seed=seed,
        weights=synthesizer.weights, method=synthesizer.kind,
        synthetic_media=synthesizer.kind != "pictures",
    )  # fmt: skip


def _is_complete(place: Path, wanted: Provenance) -> bool:
    """Whether a shard is there as it would be made; one that has only the first of its people is to be made again.

    Raises UsageError where it was made otherwise.
    """
    if not place.exists():
        return False
    try:
        there = Views.read(place).provenance
    except FourdError as error:
        raise UsageError(f"{error}; give --overwrite, or another folder") from error
    old, new = json.loads(there.config_json), json.loads(wanted.config_json)
    if (there.seed, old) == (wanted.seed, new):
        return True
    grown = {"people": old.get("people"), "names": old.get("names")}
    begins = new["names"][: len(old.get("names", []))] == old.get("names")
    if there.seed == wanted.seed and begins and {**new, **grown} == old and old["people"][0] == new["people"][0]:
        return False
    raise UsageError(f"{place} was made with other settings or files; give --overwrite, or another folder")


def _make_all(synthesizer: Synthesizer, jobs: list[Job], workers: int) -> list[str]:
    """Make the shards, in this process or in several; returns what went wrong with single people."""
    plan = synthesizer.plan
    total = sum(len(job.members) for job in jobs) * plan.motions * plan.views
    failed: list[str] = []
    with progress_bar("synth-data", total=total, unit="image") as bar:
        if workers == 1 or len(jobs) <= 1:
            for job in jobs:
                failed += _make(synthesizer, job, bar.update)
            return failed
        with _pool(min(workers, len(jobs))) as pool:
            futures = {pool.submit(_make, synthesizer, job, None): job for job in jobs}
            for future in as_completed(futures):
                failed += future.result()
                bar.update(len(futures[future].members) * plan.motions * plan.views)
    return failed


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each; what is not begun is dropped on an error."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _make(synthesizer: Synthesizer, job: Job, done: Callable[[int], None] | None) -> list[str]:
    from fourdface.stages.synth_data import make_shard

    try:
        views, failed = make_shard(synthesizer, job.members, job.provenance, done)
    except FourdError as error:  # other shards may still have people
        return [f"{job.place.name}: {error}"]
    views.write(job.place, overwrite=True)
    return list(failed.values())


def _check_sheet(sheet: str | None) -> None:
    if sheet is None:
        return
    if Path(sheet).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"--sheet {sheet}: cannot tell what to write; use NAME.png or NAME.jpg")
    if not Path(sheet).absolute().parent.is_dir():
        raise FourdError(f"cannot write {sheet}: the folder {Path(sheet).absolute().parent} does not exist")


def _write_sheet(shard: Path, sheet: Path) -> None:
    from fourdface.artifacts.atomic import replacing
    from fourdface.media.image import encode_png
    from fourdface.stages.synthesis.rows import encode_jpeg
    from fourdface.stages.synthesis.sheet import contact_sheet

    picture = contact_sheet(Views.read(shard))
    data = encode_png(picture) if sheet.suffix.lower() == ".png" else encode_jpeg(picture, 88)
    with replacing(sheet, overwrite=True) as temporary:
        temporary.write_bytes(data)
