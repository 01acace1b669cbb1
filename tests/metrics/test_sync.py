"""Lips and sound: the search finds a planted offset, the network fits its file, the cepstrum its definition."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from fourdface.blocks.syncnet import RATE, SyncNet, load_syncnet, mel_cepstrum
from fourdface.metrics import Picture, Sample, Sound
from fourdface.metrics.judges import JudgeSet
from fourdface.metrics.sync import REACH, Networks, SyncMetric, SyncReader, Tracker, face_crop

LEVELS = np.random.default_rng(0).uniform(0.05, 1.0, 400)
"""How far the mouth is open in each twenty-fifth of a second, and how loud it sounds."""


class Loudness(Networks):
    """Embeddings that planted clips agree in: the mean brightness of the crops, the mean loudness of the sound."""

    def lips(self, faces: np.ndarray) -> np.ndarray:
        return np.array([np.log(faces[:, 100, 100, 0].astype(float) + 1).mean() * 2])

    def sound(self, coefficients: np.ndarray) -> np.ndarray:
        return np.array([coefficients[0].mean()])


def sound_of(count: int, late: int = 0, rate: Fraction = Fraction(25)) -> Sound:
    """Noise whose power follows LEVELS, `late` frames after the picture."""
    levels = np.roll(LEVELS, late)[:count]
    loud = np.repeat(np.sqrt(levels), RATE // 25)
    noise = np.random.default_rng(1).standard_normal(loud.size)
    return Sound((loud * noise * 1000).astype(np.int16), rate)


def crop_of(frame: int, rate: Fraction = Fraction(25)) -> np.ndarray:
    return np.full((224, 224, 3), round(255 * LEVELS[round(frame * 25 / rate)]), np.uint8)


class Centred(Loudness):
    """Both embeddings with their means taken away, so that distance is disagreement alone."""

    def lips(self, faces: np.ndarray) -> np.ndarray:
        return super().lips(faces) / 2 - np.log(256 * LEVELS).mean()

    def sound(self, coefficients: np.ndarray) -> np.ndarray:
        return super().sound(coefficients) - np.mean(mel_cepstrum(sound_of(200).samples)[0])


@pytest.mark.parametrize("late", [-9, -1, 0, 4, 15])
def test_a_planted_offset_is_found(late):
    tracker = Tracker(sound_of(150, late), Centred())
    for frame in range(150):
        tracker.add(frame, crop_of(frame))
    distance, confidence, offset = tracker.scores()
    assert offset == late and confidence > 0.05 and distance >= 0
    assert tracker.scores() == (distance, confidence, offset)  # asking changes nothing


@pytest.mark.parametrize("rate", [Fraction(50), Fraction(30000, 1001), Fraction(25, 2)])
def test_other_frame_rates_are_carried_to_25(rate):
    tracker = Tracker(sound_of(150, 3, rate), Centred())
    for frame in range(int(150 * rate / 25) - 1):
        tracker.add(frame, crop_of(frame, rate))
    assert tracker.scores()[2] == pytest.approx(3, abs=1)


def test_memory_does_not_grow_and_short_or_faceless_clips_have_no_value():
    tracker = Tracker(sound_of(200), Loudness())
    for frame in range(200):
        tracker.add(frame, crop_of(frame))
    assert len(tracker._lips) <= REACH and len(tracker._crops) == 5 and len(tracker._sounds) <= 3 * REACH
    for frames, crop in ((4, crop_of(0)), (50, None)):
        tracker = Tracker(sound_of(50), Loudness())
        for frame in range(frames):
            tracker.add(frame, crop)
        assert all(math.isnan(value) for value in tracker.scores())
    silent = Tracker(Sound(np.zeros(0, np.int16), Fraction(25)), Loudness())
    for frame in range(30):
        silent.add(frame, crop_of(frame))
    assert math.isnan(silent.scores()[0])


def sample(sequence: str, frame: int, sound: Sound | None, system: str = "a") -> Sample:
    judges = JudgeSet(readers={"box": lambda picture: np.array([8.0, 8.0, 40.0, 40.0])}, words={"detector": "a box"})
    level = round(255 * LEVELS[frame])
    picture = Picture(np.full((48, 48, 3), level, np.uint8), judges)
    return Sample(sequence, frame, picture, system=system, sound=sound)


def test_metrics_share_a_reader_keep_their_state_and_merge():
    reader = SyncReader(Centred())
    metrics = [SyncMetric(name, reader) for name in ("sync_distance", "sync_confidence", "sync_offset")]
    sounds = {"x": sound_of(60, 2), "y": sound_of(60, -4), "mute": None}
    for name, sound in sounds.items():
        for frame in range(60):
            for metric in metrics:
                metric.update(sample(name, frame, sound))
    offsets = metrics[2].sequence_values()
    assert (offsets["x"], offsets["y"]) == (2, 4) and math.isnan(offsets["mute"])
    assert metrics[2].compute() == 3 and metrics[1].compute() > 0
    again, other = SyncMetric("sync_offset"), SyncMetric("sync_offset")
    again.load_state(metrics[2].state())
    assert again.compute() == 3
    other.load_state({"names": np.frombuffer(b"z", np.uint8), "values": np.array([9.0])})
    again.merge(other)
    assert again.compute() == 5
    with pytest.raises(ValueError, match="z is in both parts"):
        again.merge(other)
    with pytest.raises(ValueError, match="cannot merge"):
        again.merge(metrics[0])


def test_the_crop_is_a_larger_square_a_little_lower():
    image = np.zeros((100, 100, 3), np.uint8)
    image[50 + 4, 50] = 255
    judges = JudgeSet(readers={"box": lambda picture: np.array([40.0, 40.0, 60.0, 60.0])}, words={"detector": "a box"})
    crop = face_crop(Picture(image, judges))
    assert crop.shape == (224, 224, 3)
    place = np.unravel_index(int(crop[..., 0].argmax()), (224, 224))
    assert abs(place[0] - 112) <= 4 and abs(place[1] - 112) <= 4


def seeded() -> SyncNet:
    network = SyncNet()
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not name.endswith("running_var"):
            spread = (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
            value.copy_(spread * torch.randn(value.shape, generator=generator))
    return network.eval()


def test_the_network_has_the_names_of_the_public_file(tmp_path):
    network = seeded()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    wanted = {
        "netcnnaud.0.weight": (64, 1, 3, 3), "netcnnaud.4.weight": (192, 64, 3, 3),
        "netcnnaud.8.weight": (384, 192, 3, 3),
        "netcnnaud.18.weight": (512, 256, 5, 4), "netcnnlip.0.weight": (96, 3, 5, 7, 7),
        "netcnnlip.4.weight": (256, 96, 1, 5, 5), "netcnnlip.18.weight": (512, 256, 1, 6, 6),
        "netfcaud.0.weight": (512, 512), "netfclip.3.weight": (1024, 512), "netcnnlip.15.running_mean": (256,),
    }  # fmt: skip
    assert {name: shapes[name] for name in wanted} == wanted
    torch.save({name: v for name, v in network.state_dict().items() if "tracked" not in name}, tmp_path / "s.model")
    again = load_syncnet(tmp_path / "s.model")
    sound = torch.randn(2, 1, 13, 20)
    with torch.inference_mode():
        assert again.lips(torch.zeros(1, 3, 5, 224, 224)).shape == (1, 1024)
        assert torch.equal(again.sound(sound), network.sound(sound)) and again.sound(sound).shape == (2, 1024)


def second_cepstrum(samples: np.ndarray) -> np.ndarray:
    """The same by loops over windows, filters and cosines."""
    signal = [float(samples[0])] + [samples[k] - 0.97 * samples[k - 1] for k in range(1, len(samples))]
    rows = []
    for start in range(0, len(signal), 160):
        if start > 0 and start + 240 >= len(signal):  # the windows before it reach the end
            break
        window = (signal[start : start + 400] + [0.0] * 400)[:400]
        power = np.abs(np.fft.fft(window, 512)[:257]) ** 2 / 512
        edges = [700 * (10 ** (m * 2595 * math.log10(1 + 8000 / 700) / 27 / 2595) - 1) for m in range(28)]
        bins = [math.floor(513 * edge / 16000) for edge in edges]
        bands = []
        for a, b, c in zip(bins, bins[1:], bins[2:], strict=False):
            bands.append(sum(power[k] * ((k - a) / (b - a) if k < b else (c - k) / (c - b)) for k in range(a, c)))
        row = []
        for n in range(13):
            total = sum(math.log(bands[k]) * math.cos(math.pi * n * (2 * k + 1) / 52) for k in range(26))
            row.append(total * math.sqrt((1 if n == 0 else 2) / 26) * (1 + 11 * math.sin(math.pi * n / 22)))
        rows.append([math.log(power.sum()), *row[1:]])
    return np.array(rows).T


@pytest.mark.parametrize("length", [100, 400, 401, 560, 561, 2000])
def test_the_cepstrum_by_its_definition(length):
    samples = np.random.default_rng(length).integers(-3000, 3000, length).astype(float)
    ours = mel_cepstrum(samples)
    assert ours.shape == (13, 1 + max(0, math.ceil((length - 400) / 160)))
    assert np.allclose(ours, second_cepstrum(samples)[:, : ours.shape[1]], atol=1e-8)
    assert mel_cepstrum(np.zeros(0)).shape == (13, 0) and np.isfinite(mel_cepstrum(np.zeros(800))).all()


def test_the_cepstrum_equals_python_speech_features():
    other = pytest.importorskip("python_speech_features", reason="python_speech_features is not installed")
    samples = np.random.default_rng(5).integers(-3000, 3000, 5000).astype(np.int16)
    assert np.allclose(mel_cepstrum(samples), other.mfcc(samples, 16000).T, atol=1e-6)
