"""People who do not exist, painted and dressed on the open head: no photo and no network is behind them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ...artifacts import Weights
from ...blocks.head_model import HeadModel
from ...methods.portrait4d.alignment import FIVE_DENSE_POINTS, portrait_camera
from ...priors.synthetic_person.person import PersonState
from ...priors.synthetic_person.portrait import PortraitPerson
from .backdrops import draw_backdrop
from .cameras import intrinsics_of, portrait_rotation, random_camera
from .expressions import draw_motion
from .rows import Person, ViewPlan, ViewRow

TEXELS = 384
"""Side of a person's texture: enough for an iris at 256 pixels."""


@lru_cache(maxsize=1)
def _model() -> HeadModel:
    return HeadModel.load("open")


@dataclass(frozen=True)
class OpenHeads:
    """A `Synthesizer`: person k is drawn from (seed, k), a motion and a view from their numbers after it."""

    plan: ViewPlan
    seed: int
    weights: tuple[Weights, ...]
    kind: str = "open-head"
    head_model: str = "open"

    @property
    def people(self) -> int | None:
        """Without end."""
        return None

    def settings(self) -> dict[str, Any]:
        """Nothing but plan and seed."""
        return {}

    def names(self, numbers: range) -> list[str]:
        """Seed and number say it all."""
        return []

    def person(self, number: int) -> Person:
        """Grow, paint, light and render person `number`."""
        rng = np.random.default_rng([self.seed, number])
        person = PortraitPerson(rng, _model(), TEXELS)
        background = draw_backdrop(rng, self.plan.size)
        rows = [row for k in range(self.plan.motions) for row in self._motion(person, background, number, k)]
        return Person(f"open-head seed {self.seed} person {number}", person.style.look.shape, rows, [background])

    def _motion(self, person: PortraitPerson, background: np.ndarray, number: int, k: int) -> list[ViewRow]:
        """All views of one motion; the first half, rounded up, are portraits."""
        size = self.plan.size
        motion = draw_motion(np.random.default_rng([self.seed, number, k]), self.plan.neck)
        lit = person.lit(PersonState(motion.expression, motion.neck, motion.eyes))
        five = person.five_points(lit.vertices, FIVE_DENSE_POINTS)
        rows = []
        for v in range(self.plan.views):
            rng = np.random.default_rng([self.seed, number, k, v])
            portrait = v < (self.plan.views + 1) // 2
            camera = portrait_camera(five, portrait_rotation(rng), rng) if portrait else random_camera(rng)
            colour, alpha, depth = person.view(lit, camera, intrinsics_of(size), size)
            over = np.clip(colour + (1 - alpha[..., None]) * background / 255.0, 0, 1)
            image_u8 = np.round(over * 255).astype(np.uint8)
            rows.append(ViewRow(k, v, image_u8, alpha, depth, camera, intrinsics_of(size), motion))
        return rows
