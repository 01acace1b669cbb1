"""synth-data: numbered people -> shards of `Views`, the same rows however the work is divided."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Protocol

from ..artifacts import Provenance, Views, Weights
from ..errors import FourdError
from .synthesis.rows import Person, ViewPlan, assemble

__all__ = ["Synthesizer", "make_shard", "shards_of"]


class Synthesizer(Protocol):
    """A source of people. `person` depends on its settings and on the number alone, never on what was asked before."""

    @property
    def kind(self) -> str:
        """The source's name, as in the command."""

    @property
    def head_model(self) -> str:
        """Id of the head model that the head parameters refer to."""

    @property
    def plan(self) -> ViewPlan:
        """How many motions and views, of which size."""

    @property
    def people(self) -> int | None:
        """How many there are; None: without end."""

    @property
    def weights(self) -> tuple[Weights, ...]:
        """What shaped the pictures."""

    def settings(self) -> dict[str, Any]:
        """Everything that the pictures depend on but the plan and the names, as plain data."""

    def names(self, numbers: range) -> list[str]:
        """What tells these people from others of the same settings (file names); [] where the settings say it all."""

    def person(self, number: int) -> Person:
        """All pictures of person `number`; raises FourdError where there is none to show."""


def shards_of(people: int, per_shard: int, part: tuple[int, int] = (0, 1)) -> list[tuple[int, range]]:
    """Number and people of every shard that part (index, count) of the work makes, out of `people` in all."""
    index, count = part
    shards = [
        (k, range(k * per_shard, min((k + 1) * per_shard, people)))
        for k in range((people + per_shard - 1) // per_shard)
    ]
    return shards[index::count]


def make_shard(
    synthesizer: Synthesizer, numbers: Iterable[int], provenance: Provenance,
    done: Callable[[int], None] | None = None,
) -> tuple[Views, dict[int, str]]:  # fmt: skip
    """Render some people; also returns number -> reason for those that could not be. done: is told of every picture.

    Raises FourdError where not one person could be rendered.
    """
    people: list[tuple[int, Person]] = []
    failed: dict[int, str] = {}
    for number in numbers:
        try:
            person = synthesizer.person(number)
        except FourdError as error:
            failed[number] = str(error)
            continue
        people.append((number, person))
        if done is not None:
            done(len(person.rows))
    if not people:
        first = next(iter(failed.values()), "no people were asked for")
        raise FourdError(f"not one of {len(failed)} people could be rendered; the first: {first}")
    sources = dict.fromkeys([*provenance.sources, *(source for _, person in people for source in person.sources)])
    made = replace(provenance, sources=tuple(sources), synthetic_media=synthesizer.kind != "pictures")
    plan = synthesizer.plan
    return assemble(people, synthesizer.head_model, plan, made), failed
