"""validate(): each mistake is named, all of them at once, and nothing invalid is ever written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourdface.errors import FourdError, UsageError
from support.artifacts import MAKERS, make_avatar, make_frames, make_motion, make_tracked, make_views


@pytest.mark.parametrize("kind", MAKERS)
def test_good_ones_pass(kind: str) -> None:
    MAKERS[kind]().validate()


def zeros(*shape: int, dtype: str = "f4") -> np.ndarray:
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("make", "change", "sentence"),
    [
        (make_tracked, {"landmarks": zeros(3, 468, 2)}, "landmarks must have shape [T,478,2], got [3, 468, 2]"),
        (make_tracked, {"landmarks": zeros(3, 478, 2, dtype="f8")}, "landmarks must be float32, got float64"),
        (make_tracked, {"boxes": zeros(4, 4)}, "boxes has T = 4, but times has T = 3"),
        (make_tracked, {"boxes": [[0, 0, 1, 1]]}, "boxes must be a numpy array, got list"),
        (make_tracked, {"boxes": np.full((3, 4), np.nan, "f4")}, "boxes holds NaN or infinity"),
        (make_tracked, {"times": np.array([0.0, 2.0, 1.0])}, "times run backwards"),
        (make_tracked, {"status": np.array([0, 4, 0], "u1")}, "status holds 4, expected 0 to 3"),
        (make_tracked, {"rate_denominator": 0}, "rate_denominator must be at least 1, got 0"),
        (make_tracked, {"width": 1.5}, "width must be a whole number, got 1.5"),
        (make_tracked, {"frame_blobs": [b"", b""]}, "frame_blobs has T = 2, but times has T = 3"),
        (make_tracked, {"frame_blobs": ["", "", ""]}, "frame_blobs must hold bytes only"),
        (make_tracked, {"jaw": None, "eyes": None}, "missing: head/jaw, head/eyes"),
        (make_tracked, {"source_path": "a\0b"}, "source_path holds a NUL character"),
        (make_motion, {"audio": "text"}, "audio must be bytes, got str"),
        (make_motion, {"embeddings": {"../up": zeros(3, 1)}}, "embeddings holds the name '../up'"),
        (make_motion, {"embeddings": {"a": zeros(2, 1)}}, "embeddings/a has T = 2, but times has T = 3"),
        (make_motion, {"embeddings": {"a": zeros(3, 1, dtype="f8")}}, "embeddings/a must be float32, got float64"),
        (make_avatar, {"representation": "cloud"}, "representation is 'cloud', expected one of gaussians"),
        (make_avatar, {"tensors": {"a": np.array(["x"])}}, "tensors/a must be a numpy array of numbers"),
        (make_avatar, {"tensors": {"a": np.array([True])}}, "tensors/a must be a numpy array of numbers, got bool"),
        (make_views, {"background_index": np.array([0, 1, -1])}, "background_index points outside of the 1 backgr"),
        (make_views, {"identity_name": [b"one"], "latents": None}, "identity_name has 1 names for 2 people"),
        (make_views, {"latents": zeros(3, 4)}, "latents has I = 3, but identity_name has I = 2"),
        (make_views, {"index": np.array([1, 1, 2])}, "index does not ascend"),
        (make_views, {"view": np.array([1, 0, 0])}, "the rows are not grouped by identity, motion and view"),
        (make_views, {"shape": zeros(2, 5)}, "shape has N = 2, but images has N = 3"),
        (make_views, {"depths": zeros(3, 3, 4)}, "depths must be float16, got float32"),
        (make_frames, {"depth": zeros(3, 4, dtype="f2")}, "depth must have shape [T,H,W], got [3, 4]"),
    ],
)
def test_each_mistake_is_named_and_not_written(make: Any, change: dict, sentence: str, tmp_path: Path) -> None:
    artifact = make(**change)
    with pytest.raises(FourdError) as caught:
        artifact.validate()
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FourdError):
        artifact.write(tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_the_head_is_whole_or_not_there() -> None:
    tracked = make_tracked()
    head = tracked.head()
    assert head.head_model == "open" and head.rotation is tracked.rotation and tracked.has_head
    with pytest.raises(UsageError, match="run `fourd fit-flame` on it first"):
        make_tracked(head=False).head()


def test_all_mistakes_come_in_one_error() -> None:
    with pytest.raises(FourdError) as caught:
        make_motion(width=0, jaw=zeros(2, 3), audio="x").validate()
    message = str(caught.value)
    assert all(word in message for word in ("width", "jaw", "audio")) and message.count(";") == 2


def test_views_may_lack_what_only_a_renderer_knows(tmp_path: Path) -> None:
    views = make_views(opacities=None, depths=None, latents=None, embeddings={})
    views.write(tmp_path / "v.h5")
    back = type(views).read(tmp_path / "v.h5")
    assert back.depths is None and back.names == {7: "photo 0.jpg", 8: "photo 1.jpg"} and len(back) == 3
    assert back.latent(0) is None


def test_latents_are_the_persons() -> None:
    views = make_views(5)
    assert views.latents is not None and views.latents.shape == (3, 4)
    assert [views.latents.tolist().index(views.latent(row).tolist()) for row in range(5)] == [0, 0, 1, 1, 2]
