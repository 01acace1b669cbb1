"""FLAME as a head model, against the layer that equals the published code; its file is a synthetic one."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity.rule import parity_module

from fourdface.blocks.flame_head import flame_arrays
from fourdface.blocks.head_fitting import HeadFitter
from fourdface.blocks.head_model import HeadModel
from fourdface.errors import FourdError
from fourdface.priors.genhead.head import HeadPose
from support.calling import good
from support.heads import synthetic_flame


@pytest.fixture(scope="module")
def content() -> tuple[dict[str, Any], dict[str, Any]]:
    model, masks = parity_module("synthetic_flame.py").build()
    return model, masks


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: tuple[dict[str, Any], ...]) -> HeadModel:
    """The head after the commands that a user gives."""
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path / "assets"))
    for name, value in zip(("generic_model.pkl", "FLAME_masks.pkl"), content, strict=True):
        (tmp_path / name).write_bytes(pickle.dumps(value))
        good("assets", "import", tmp_path / name)
    return HeadModel.load("flame2020")


def pose(batch: int = 2) -> HeadPose:
    generator = torch.Generator().manual_seed(3)
    sizes, scales = (300, 100, 3, 3, 6), (1.0, 1.0, 0.4, 0.2, 0.2)
    return HeadPose(
        *(torch.randn(batch, n, generator=generator) * scale for n, scale in zip(sizes, scales, strict=True))
    )


def test_an_imported_flame_moves_as_flame_does(imported: HeadModel) -> None:
    """Vertices of all parameters, at a third of the layer's size and with the mean head's neck joint at the origin."""
    given, layer = pose(), synthetic_flame()
    # With the expression at rest: the published layer takes joints from shape and expression, the paper and this
    # project from the shape alone, which is a tenth of a millimetre here.
    for still, atol in ((given.without_expression(), 1e-6), (given, 2e-4)):
        truth = layer.vertices(still) / 3
        found = imported(still.shape, still.expression, neck=still.neck, jaw=still.jaw, eyes=still.eyes)
        assert torch.allclose(found, truth, atol=atol), (found - truth).abs().max()
    bare = HeadModel.from_arrays({**_arrays(imported), "pose_basis": np.zeros((36, 5023, 3), np.float32)})
    without = bare(given.shape, given.expression, neck=given.neck, jaw=given.jaw, eyes=given.eyes)
    assert (without - truth).abs().max() > 3e-4, "the correctives matter"


def _arrays(head: HeadModel) -> dict[str, Any]:
    names = ("template", "faces", "shape_basis", "expression_basis", "joint_regressor", "skinning_weights")
    return {"expression_names": head.expression_names, "regions": {}, **{key: getattr(head, key) for key in names}}


def test_interface(imported: HeadModel, content: tuple[dict[str, Any], ...]) -> None:
    model, masks = content
    assert imported.name == "flame2020" and imported.vertex_count == 5023
    assert (imported.shape_count, imported.expression_count) == (300, 100)
    assert imported.joints()[0, 1].abs().max() < 1e-6, "metres, origin at the neck"
    assert np.allclose(np.ptp(imported.template.numpy(), 0), np.ptp(model["v_template"], 0), atol=1e-6)
    regions = {name: torch.nonzero(mask)[:, 0].tolist() for name, mask in imported.regions.items()}
    assert regions["eyeball_left"] == sorted(masks["left_eyeball"].tolist())
    assert regions["lips"] == sorted(masks["lips"].tolist()) and "left_eyeball" not in regions
    some = torch.tensor([5, 4000, 17])
    given = pose()
    arguments = {"shape": given.shape, "expression": given.expression, "neck": given.neck, "jaw": given.jaw}
    assert torch.allclose(imported.subset(some)(**arguments), imported(**arguments)[:, some], atol=1e-6)


def test_what_flame_lacks_is_said(imported: HeadModel) -> None:
    for call in (lambda: imported.uv, lambda: imported.landmarks(imported()), lambda: imported.mirror_vertices):
        with pytest.raises(FourdError, match=r"flame2020 has no .*; use the head model open"):
            call()
    assert not imported.has("landmark68_faces") and imported.has("pose_basis")
    with pytest.raises(FourdError, match="no mapping from the 52 ARKit coefficients"):
        HeadFitter(imported, (64, 64))
    HeadModel.load("open").require_arkit()


def test_landmarks_come_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: tuple[dict[str, Any], ...]
) -> None:
    """68 of the 70 points that a checkpoint of Portrait4D embeds, where they lie as a face's do."""
    from safetensors.numpy import save_file

    import fourdface.blocks.flame_head as module

    model = content[0]
    corners, places = model["v_template"][model["f"]].mean(1), np.zeros((68, 3))
    places[:36], places[33] = (0, 0.02, 0.1), (0, 0.0, 0.12)
    places[36:42], places[42:48], places[48:] = (-0.03, 0.03, 0.09), (0.03, 0.03, 0.09), (0, -0.05, 0.09)
    nearest = np.linalg.norm(corners[None] - places[:, None], axis=-1).argmin(1)
    place = tmp_path / "weights.safetensors"
    monkeypatch.setattr(module, "place_of", lambda _: place)

    def embedded(order: np.ndarray) -> object:
        faces = np.concatenate([order, [0, 0]]).astype(np.int64)
        save_file(
            {
                module._LAYER + "faces_tensor": model["f"], module._LAYER + "full_lmk_faces_idx": faces[None],
                module._LAYER + "full_lmk_bary_coords": np.full((1, 70, 3), 1 / 3, np.float32),
            },
            str(place),
        )  # fmt: skip
        return module._landmarks(model)

    found = embedded(nearest)
    assert isinstance(found, tuple)
    head = HeadModel.from_arrays(flame_arrays(model, landmarks68=found))
    points = head.landmarks(head(), "68")[0]
    assert points.shape == (68, 3) and torch.allclose(points, head.template[head.faces[nearest]].mean(1), atol=1e-6)
    assert embedded(nearest[::-1].copy()) is None


def test_a_flame_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path))
    with pytest.raises(FourdError, match=r"fourd assets import generic_model\.pkl"):
        HeadModel.load("flame2020")
    with pytest.raises(FourdError, match="available: open, flame2020, flame2023"):
        HeadModel.load("smpl")
