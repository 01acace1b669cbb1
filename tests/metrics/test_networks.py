"""Metrics by public networks: left out with the command that gets them, and right numbers with random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fourdface.assets import get_asset, place_of
from fourdface.blocks.inception import FidInception
from fourdface.blocks.perceptual import Lpips
from fourdface.metrics import Picture, Sample, networks
from fourdface.metrics.judges import JudgeSet
from fourdface.metrics.registry import METRICS, build_metrics
from fourdface.metrics.sets import frechet_distance

BY_ASSET = [name for name, entry in METRICS.items() if entry.assets]


class Boxed(JudgeSet):
    """Judges that see a face where they are told to."""

    def __init__(self) -> None:
        super().__init__(
            readers={"box": lambda picture: np.array([40.0, 40.0, 80.0, 90.0])}, words={"detector": "a box"}
        )


@pytest.fixture
def assets(tmp_path, monkeypatch) -> Path:
    """Random weights in the places of the published ones."""
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path))
    torch.manual_seed(0)
    model = Lpips("alex")
    weights = {name: value.abs() if name.startswith("lin") else value for name, value in model.state_dict().items()}
    for name in ("alexnet-imagenet", "lpips-alex"):
        put(name, weights)
    networks._lpips.cache_clear()
    yield tmp_path
    networks._lpips.cache_clear()


def put(name: str, state: dict[str, torch.Tensor]) -> None:
    """Weights as the file of an asset."""
    place = place_of(get_asset(name))
    place.parent.mkdir(parents=True)
    torch.save(state, place)


def picture(seed: int, alpha: np.ndarray | None = None) -> Picture:
    generator = np.random.default_rng(seed)
    return Picture(generator.integers(0, 256, (128, 128, 3), dtype=np.uint8), Boxed(), alpha)


def value(name: str, sample: Sample) -> float:
    metric = METRICS[name].make(Boxed())
    metric.update(sample)
    return metric.compute()


@pytest.mark.parametrize("name", BY_ASSET)
def test_a_metric_without_its_network_names_the_commands(name):
    made, left_out = build_metrics((name,), Boxed())
    assert not made
    for asset in METRICS[name].assets:
        assert f"`fourd assets fetch {asset}" in left_out[name]


def test_a_licence_that_must_be_accepted_is_in_the_command():
    assert networks.missing_assets(("syncnet",)).endswith("`fourd assets fetch syncnet --accept-licence`")
    assert "`pip install no_such_package`" in networks.missing_assets((), "no_such_package")


def test_lpips_over_crops_equals_the_block(assets):
    a, b = picture(0), picture(1)
    model = networks._lpips("alex")
    assert value("lpips", Sample("s", 0, a, b)) == pytest.approx(float(model(a.image[None], b.image[None])), rel=1e-5)
    cut = (slice(None), slice(40 - 16, 90 + 16), slice(40 - 16, 80 + 16))  # a third of 50 around the box
    want = float(model(a.image[cut][None], b.image[cut][None]))
    assert value("lpips_face", Sample("s", 0, a, b)) == pytest.approx(want, rel=1e-5)
    cut = (slice(None), slice(40 - 35, 90 + 15), slice(40 - 25, 80 + 25))
    want = float(model(a.image[cut][None], b.image[cut][None]))
    assert value("lpips_h", Sample("s", 0, a, b)) == pytest.approx(want, rel=1e-5)


def test_the_head_alone_counts_where_there_is_a_matte(assets):
    alpha = np.zeros((128, 128), np.float32)
    alpha[30:100, 30:100] = 1
    truth = picture(1, alpha)
    mixed = picture(0).image_u8.copy()
    mixed[30:100, 30:100] = truth.image_u8[30:100, 30:100]
    result = Picture(mixed, Boxed())
    assert value("lpips_h", Sample("s", 0, result, truth)) == 0 < value("lpips", Sample("s", 0, result, truth))


def test_the_truth_is_read_once_for_all_systems(assets, monkeypatch):
    model = networks._lpips("alex")
    calls = []
    read = model.read
    monkeypatch.setattr(model, "read", lambda image: calls.append(1) or read(image))
    truth = picture(1)
    for seed in (2, 3, 4):
        value("lpips", Sample("s", 0, picture(seed), truth))
    assert len(calls) == 4


def test_fid_is_the_distance_of_the_networks_features(tmp_path, monkeypatch):
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path))
    put("inception-fid", FidInception().state_dict())
    networks._inception.cache_clear()
    whole = networks.inception_features
    monkeypatch.setattr(networks, "inception_features", lambda p: whole(p)[:24])  # 2048 take a while
    metric = METRICS["fid"].make(Boxed())
    rows = {"fake": [], "real": []}
    for k in range(2):
        sample = Sample("s", k, picture(k), picture(10 + k))
        metric.update(sample)
        rows["fake"].append(networks.inception_features(sample.prediction))
        rows["real"].append(networks.inception_features(sample.reference))
    (a, b) = (np.stack(rows[side]) for side in ("fake", "real"))
    want = frechet_distance(a.mean(0), np.cov(a.T), b.mean(0), np.cov(b.T))
    networks._inception.cache_clear()
    assert metric.compute() == pytest.approx(want, rel=1e-6, abs=1e-8)


def test_small_crops_are_left_out_and_counted(assets):
    tiny = Picture(np.zeros((20, 20, 3), np.uint8), Boxed())
    metric = METRICS["lpips"].make(Boxed())
    metric.update(Sample("s", 0, tiny, tiny))
    assert np.isnan(metric.value_of(Sample("s", 0, tiny, tiny)))


@pytest.mark.parametrize(("height", "width"), [(224, 224), (300, 224), (224, 401), (60, 50)])
def test_clip_takes_the_middle_square(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0] = np.linspace(0, 255, width)[None]
    out = networks.clip_input(image)
    assert out.shape == (1, 3, 224, 224) and out.dtype == torch.float32
    red = out[0, 0] * networks.CLIP_STD[0] + networks.CLIP_MEAN[0]
    assert float(red.mean()) == pytest.approx(0.5, abs=0.01)


def test_clip_similarity_with_an_untrained_network(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    monkeypatch.setattr(networks, "CLIP_CONFIG", {**sizes, "projection_dim": 16})
    network = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**networks.CLIP_CONFIG))
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path))
    put("clip-vit-b32", {**network.state_dict(), "text_model.final_layer_norm.bias": torch.zeros(3)})
    networks._clip.cache_clear()
    try:
        photo, result = picture(0), picture(1)
        network.eval().requires_grad_(False)
        wanted = [network(networks.clip_input(p.image_u8)).image_embeds[0] for p in (photo, result)]
        want = float(torch.nn.functional.cosine_similarity(*wanted, dim=0))
        assert value("clip_i", Sample("s", 0, result, None, photo)) == pytest.approx(want, abs=1e-5)
        assert value("clip", Sample("s", 0, result, photo)) == pytest.approx(want, abs=1e-5)
        assert value("clip", Sample("s", 0, photo, photo)) == pytest.approx(1, abs=1e-6)
    finally:
        networks._clip.cache_clear()
