"""The synthetic person: what a seed fixes, what the picture shows, what the voice and the lips do."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.blocks.head_model import HeadModel
from fourdface.media.audio import AudioTrack
from fourdface.priors.synthetic_person import PersonState, SyntheticPerson, perform, speech, write_wav
from fourdface.priors.synthetic_person.body import signed_distance, vertex_normals
from fourdface.priors.synthetic_person.shading import visibility

SIZE = 160


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel.load("open")


@pytest.fixture(scope="module")
def person(model: HeadModel) -> SyntheticPerson:
    return SyntheticPerson(1, model, texture_size=256)


def expression(**values: float) -> np.ndarray:
    row = np.zeros(52, np.float32)
    for name, value in values.items():
        row[ARKIT_INDEX[name]] = value
    return row


def box(points: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns around points [K,2] in pixels."""
    low, high = np.floor(points.min(0)).astype(int) - margin, np.ceil(points.max(0)).astype(int) + margin
    return slice(low[1], high[1] + 1), slice(low[0], high[0] + 1)


def test_a_seed_is_a_person(model: HeadModel, person: SyntheticPerson) -> None:
    again, other = (SyntheticPerson(seed, model, texture_size=256) for seed in (1, 2))
    state = PersonState(expression(jawOpen=0.3))
    picture = person.render(state, SIZE, oversampling=1)
    assert np.array_equal(picture, again.render(state, SIZE, oversampling=1))
    assert np.abs(picture.astype(float) - other.render(state, SIZE, oversampling=1)).mean() > 5
    assert np.abs(person.look.shape).max() <= 1


def test_the_head_is_closed_and_larger_with_hair(model: HeadModel, person: SyntheticPerson) -> None:
    bald = model.shaped(torch.from_numpy(person.look.shape)[None])[0]
    grown = person.body.head.template
    scalp, face = model.regions["scalp"], model.regions["lips"]
    assert (grown - bald).norm(dim=-1)[scalp].max() > 0.005
    assert torch.equal(grown[face], bald[face])
    edges = torch.cat([person.body.faces[:, [0, 1]], person.body.faces[:, [1, 2]], person.body.faces[:, [2, 0]]])
    neck = torch.from_numpy(np.flatnonzero(model.regions["boundary_neck"].numpy()))
    torso = len(grown)
    joined = torch.isin(edges[:, 0], neck) & (edges[:, 1] >= torso)
    assert len(edges[joined, 0].unique()) == len(neck), "every vertex of the neck's edge should carry the torso"


def test_the_torso_stays_when_the_head_turns(person: SyntheticPerson) -> None:
    rest = person.vertices(PersonState())
    turned = person.vertices(PersonState(head=np.array([0, 0.4, 0], np.float32)))
    count = person.body.head.vertex_count
    assert torch.equal(rest[count:], turned[count:])
    assert (rest[:count] - turned[:count]).norm(dim=-1).max() > 0.03


def test_landmarks_are_where_the_features_are_drawn(person: SyntheticPerson) -> None:
    state = PersonState()
    picture = person.render(state, SIZE).astype(float)
    points = person.landmarks(state, SIZE)
    assert points[468, 0] < points[473, 0], "the subject's right eye is on the left of the picture"
    iris, cheek = (picture[tuple(np.floor(points[k][::-1]).astype(int))] for k in (468, 50))
    assert iris.mean() < 0.6 * cheek.mean()
    lips = picture[tuple(np.floor(points[17][::-1] - [2, 0]).astype(int))]
    assert lips[1] / lips[0] < cheek[1] / cheek[0], "lips are redder than cheeks"


def test_mouth_and_lids_move(person: SyntheticPerson) -> None:
    rest = person.render(PersonState(), SIZE).astype(float)
    points = person.landmarks(PersonState(), SIZE)
    blink = person.render(PersonState(expression(eyeBlinkLeft=1.0)), SIZE).astype(float)
    change = np.abs(blink - rest).mean(2)
    left, right = (change[box(points[list(eye)])].mean() for eye in ((473, 263, 362), (468, 33, 133)))
    assert left > 8 * right, "only the subject's left eye closes"
    opened = person.render(PersonState(expression(jawOpen=0.6)), SIZE).astype(float)
    mouth = box(points[[13, 14, 81, 311]], 1)
    assert opened[mouth].min() < 0.6 * rest[mouth].min(), "the open mouth is dark"


def test_gaze_moves_the_irises_only(person: SyntheticPerson) -> None:
    points = [person.landmarks(PersonState(eyes=np.array(2 * [0, a, 0], np.float32)), 512) for a in (0.0, 0.3)]
    shift = points[1] - points[0]
    assert shift[[468, 473], 0].min() > 2, "eyes that turn to the subject's left go right in the picture"
    assert np.abs(shift[:468]).max() < 1e-3


def test_light_is_blocked_by_what_stands_before_it() -> None:
    low = torch.tensor([[-0.1, 0.0, -0.1], [0.1, 0.0, -0.1], [0.1, 0.0, 0.1], [-0.1, 0.0, 0.1], [0.0, 0.0, 0.0]])
    high = torch.tensor([[-0.03, 0.1, -0.03], [0.03, 0.1, -0.03], [0.03, 0.1, 0.03], [-0.03, 0.1, 0.03]])
    faces = torch.tensor([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4], [5, 6, 7], [5, 7, 8]], dtype=torch.int32)
    vertices = torch.cat([low, high])
    normals = torch.tensor([0.0, 1.0, 0.0]).expand(len(vertices), 3)
    up, slanted = torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.8, 0.6, 0.0])
    lit = visibility(vertices, normals, faces, up, torch.zeros(3))
    assert lit[4] == 0 and lit[0] == 1 and lit[5:].min() == 1
    assert visibility(vertices, normals, faces, slanted, torch.zeros(3))[4] == 1


def test_normals_of_a_square_point_up() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]])
    normals = vertex_normals(vertices, torch.tensor([[0, 1, 2], [2, 1, 3]]))
    assert torch.allclose(normals, torch.tensor([0.0, 1.0, 0.0]).expand(4, 3))


def test_signed_distance() -> None:
    points = np.arange(6.0)[:, None] * [1.0, 0, 0]
    inside, outside = np.array([1, 1, 1, 0, 0, 0], bool), np.array([0, 0, 0, 1, 1, 0], bool)
    assert signed_distance(points, inside, outside).tolist() == [3, 2, 1, -1, -2, -1]


def test_a_performance_is_repeatable_and_within_limits() -> None:
    first, again, other = perform(3, 2.0, 25), perform(3, 2.0, 25), perform(4, 2.0, 25)
    assert len(first) == 50 and first.rate == Fraction(25)
    for name in ("expression", "head", "eyes", "sway", "sound"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
        assert not np.array_equal(getattr(first, name), getattr(other, name)), name
    assert first.expression.min() >= 0 and first.expression.max() <= 1
    assert np.abs(np.degrees(first.head)).max() < 30 and len(list(first.states())) == 50
    assert len(first.sound) == 2 * speech.SAMPLE_RATE and 0.3 < np.abs(first.sound).max() <= 1


def test_blinks_happen_and_end() -> None:
    lids = perform(0, 8.0, 50).expression[:, ARKIT_INDEX["eyeBlinkLeft"]]
    closed = np.flatnonzero((lids[1:] > 0.8) & (lids[:-1] <= 0.8))
    assert 2 <= len(closed) <= 8 and np.median(lids) < 0.15


@pytest.mark.parametrize("bad", [{"seconds": 0.0}, {"rate": 0}, {"text": "HELLO"}, {"text": ""}])
def test_wrong_arguments_are_named(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"positive|phonemes"):
        perform(0, **{"seconds": 1.0, **bad})


def test_lips_close_for_m_and_open_for_a() -> None:
    spoken = speech.utter("_ AA M AA _", np.random.default_rng(0), 1.0)
    middle = 0.5 * (spoken.starts + spoken.ends) - 0.03  # lips run ahead of the sound
    rows = speech.visemes(spoken, middle)
    jaw, press = rows[:, ARKIT_INDEX["jawOpen"]], rows[:, ARKIT_INDEX["mouthPressLeft"]]
    assert jaw[1] > 0.4 and jaw[3] > 0.4 and jaw[2] < 0.5 * jaw[1]
    assert press[2] > 0.25 and press[1] < 0.5 * press[2]
    assert np.allclose(press, rows[:, ARKIT_INDEX["mouthPressRight"]])


def test_vowels_have_their_formants_and_s_is_noise() -> None:
    def spectrum(name: str) -> tuple[np.ndarray, np.ndarray]:
        sound = speech.synthesise(speech.utter(name, np.random.default_rng(0), 0.5), np.random.default_rng(0), 110.0)
        middle = sound[len(sound) // 4 : -len(sound) // 4]
        power = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) ** 2
        return np.fft.rfftfreq(len(middle), 1 / speech.SAMPLE_RATE), power

    frequency, ah = spectrum("AA")
    _, ee = spectrum("IY")
    _, ss = spectrum("S")

    def share(power: np.ndarray, low: float, high: float) -> float:
        return float(power[(frequency > low) & (frequency < high)].sum() / power.sum())

    assert share(ah, 600, 1250) > 0.5 > share(ee, 600, 1250)
    assert share(ee, 2000, 3300) > 3 * share(ah, 2000, 3300)
    assert share(ss, 4000, 12000) > 0.8 > share(ah, 4000, 12000)


def test_the_voice_can_be_heard_in_a_file(tmp_path: Path) -> None:
    write_wav(tmp_path / "voice.wav", perform(0, 1.0, 25).sound)
    track = AudioTrack.from_file(tmp_path / "voice.wav")
    assert (track.sample_rate, track.channels) == (speech.SAMPLE_RATE, 1)
    heard = np.concatenate([frame.to_ndarray().ravel() for frame, _ in track.frames()])
    assert len(heard) == speech.SAMPLE_RATE and heard.astype(float).std() > 500
