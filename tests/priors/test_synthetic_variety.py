"""People of any kind: what a generator fixes, that no two are alike, that extras go with the head, light and truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.blocks.head_model import HeadModel
from fourdface.priors.synthetic_person.person import PersonState
from fourdface.priors.synthetic_person.portrait import PortraitPerson
from fourdface.priors.synthetic_person.variety import cloth_colour, random_lights, random_style

SIZE = 48
CAMERA = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0.07], [0, 0, -1, 1.45], [0, 0, 0, 1]])
INTRINSICS = np.array([[4.75 * SIZE, 0, SIZE / 2], [0, 4.75 * SIZE, SIZE / 2], [0, 0, 1]])


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel.load("open")


def person(model: HeadModel, number: int) -> PortraitPerson:
    return PortraitPerson(np.random.default_rng([0, number]), model, texture_size=96)


def someone(model: HeadModel, wanted: str) -> PortraitPerson:
    """The first person who wears glasses, or long hair."""
    for number in range(200):
        style = random_style(np.random.default_rng([0, number]), model.shape_count)
        if style.glasses is not None if wanted == "glasses" else style.long_hair > 0:
            return person(model, number)
    raise AssertionError(wanted)


def test_the_generator_is_the_person(model: HeadModel) -> None:
    first, again, other = (person(model, k) for k in (3, 3, 4))
    pictures = [p.view(p.lit(PersonState()), CAMERA, INTRINSICS, SIZE)[0] for p in (first, again, other)]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0] - pictures[2]).mean() > 0.02


def test_no_two_of_many_styles_are_alike() -> None:
    drawn = [random_style(np.random.default_rng([7, k]), 10) for k in range(2000)]
    assert len({style.look.shape.tobytes() for style in drawn}) == 2000
    glasses, long, beards = (
        np.mean([test(style) for style in drawn])
        for test in (lambda s: s.glasses is not None, lambda s: s.long_hair > 0, lambda s: s.look.beard > 0)
    )
    assert 0.15 < glasses < 0.3 and 0.2 < long < 0.35 and 0.15 < beards < 0.4
    assert all(style.look.skin.min() >= 0 and style.look.skin.max() <= 1 for style in drawn)


def test_lights_come_from_in_front_and_are_neither_dark_nor_blinding() -> None:
    for k in range(50):
        lights = random_lights(np.random.default_rng(k))
        assert all(abs(float(light.direction.norm()) - 1) < 1e-5 for light in lights)
        front = sum(float(light.colour.mean() * light.direction[2].clamp_min(0)) for light in lights)
        assert 0.4 < front < 1.6


def test_opacity_and_depth_are_those_of_the_head(model: HeadModel) -> None:
    someone_ = person(model, 3)
    lit = someone_.lit(PersonState())
    colour, alpha, depth = someone_.view(lit, CAMERA, INTRINSICS, SIZE)
    assert alpha[0, 0] == 0 and depth[0, 0] == 0 and colour[0, 0].max() == 0
    middle = alpha[SIZE // 2, SIZE // 2], depth[SIZE // 2, SIZE // 2]
    assert middle[0] == 1 and 1.45 - 0.16 < middle[1] < 1.45 - 0.05, "the face is some 10 cm before the neck joint"
    assert (depth[alpha > 0.5] > 1).all() and colour.max() <= 1
    assert (colour <= alpha[..., None] + 1e-6).all(), "colours are premultiplied"


def test_glasses_turn_with_the_head_and_stand_before_the_eyes(model: HeadModel) -> None:
    wearer = someone(model, "glasses")
    count = wearer.body.head.vertex_count + len(wearer.body.torso)
    rest = wearer.vertices(PersonState())
    turned = wearer.vertices(PersonState(head=np.array([0, 0.4, 0], np.float32)))
    ends = [wearer.body.head.landmarks(v[None, : wearer.body.head.vertex_count])[0, 168] for v in (rest, turned)]
    near = [(v[count:] - end).norm(dim=-1).min() for v, end in zip((rest, turned), ends, strict=True)]
    assert abs(float(near[0] - near[1])) < 1e-3 and near[0] < 0.02
    assert rest[count:, 2].max() > ends[0][2]


def test_hanging_hair_stays_on_the_shoulders_below_and_on_the_head_above(model: HeadModel) -> None:
    wearer = someone(model, "hair")
    count = wearer.body.head.vertex_count + len(wearer.body.torso)
    rest = wearer.vertices(PersonState())[count:]
    moved = (wearer.vertices(PersonState(head=np.array([0, 0.3, 0], np.float32)))[count:] - rest).norm(dim=-1)
    assert moved[rest[:, 1] > rest[:, 1].max() - 0.01].min() > 0.005
    assert moved[rest[:, 1] < rest[:, 1].min() + 0.005].max() < 0.02


def test_expressions_show(model: HeadModel) -> None:
    someone_ = person(model, 3)
    expression = np.zeros(52, np.float32)
    expression[ARKIT_INDEX["jawOpen"]] = 0.8
    shown = [
        someone_.view(someone_.lit(state), CAMERA, INTRINSICS, SIZE)[0]
        for state in (PersonState(), PersonState(expression))
    ]
    change = np.abs(shown[0] - shown[1]).sum(2)
    assert change[SIZE // 2 :].sum() > 4 * change[: SIZE // 3].sum() > 0 or change[: SIZE // 3].sum() == 0


@pytest.mark.parametrize("pattern", range(5))
def test_cloth_has_the_two_colours(pattern: int) -> None:
    from dataclasses import replace

    style = replace(random_style(np.random.default_rng(0), 4), pattern=pattern, pattern_size=0.02)
    points = torch.from_numpy(np.random.default_rng(1).uniform(-0.2, 0.2, (500, 3))).float()
    colours = cloth_colour(style, points)
    low, high = (style.cloth**2.2).min(0), (style.cloth**2.2).max(0)
    assert (colours.numpy() >= low - 1e-5).all() and (colours.numpy() <= high + 1e-5).all()
    assert (len(colours.unique(dim=0)) > 1) == (pattern != 0)
