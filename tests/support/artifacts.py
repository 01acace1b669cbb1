"""Small synthetic artifacts of every kind, the same for the same seed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fourdface.artifacts import Artifact, Avatar, Frames, Motion, Provenance, Report, Source, Tracked, Views, Weights

PROVENANCE = Provenance(
    command="fourd lift 'my photo.jpg'",
    config_json='{"size": 512}',
    seed=7,
    sources=(Source("my photo.jpg", "0" * 64),),
    weights=(Weights("open-head", "1" * 64, "Apache-2.0", True),),
    method="splat",
    synthetic_media=True,
)


class _Numbers:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def __call__(self, *shape: int, dtype: str = "f4") -> np.ndarray:
        return self.random.standard_normal(shape).astype(dtype)


def _timing(count: int) -> dict[str, Any]:
    return {
        "rate_numerator": 30000,
        "rate_denominator": 1001,
        "times": np.arange(count) * 1001 / 30000,
    }


def _head(numbers: _Numbers, *axes: int) -> dict[str, np.ndarray]:
    return {
        "expression": numbers(*axes, 52),
        "rotation": numbers(*axes, 3),
        "translation": numbers(*axes, 3),
        "neck": numbers(*axes, 3),
        "jaw": numbers(*axes, 3),
        "eyes": numbers(*axes, 6),
        "intrinsics": numbers(3, 3),
        "world_to_camera": numbers(4, 4),
    }


def make_tracked(count: int = 3, seed: int = 0, *, head: bool = True, **changes: Any) -> Tracked:
    """A clip of `count` frames, fitted unless `head` is False."""
    numbers = _Numbers(seed)
    values: dict[str, Any] = {
        **_timing(count),
        "width": 64,
        "height": 48,
        "status": np.arange(count, dtype="u1") % 4,
        "boxes": numbers(count, 4),
        "crop_transforms": numbers(count, 2, 3),
        "landmarks": numbers(count, 478, 2),
        "coefficients": numbers(count, 52),
        "frame_blobs": [bytes(numbers.random.bytes(20 * index)) for index in range(count)],
        "matte_blobs": [b"matte"] * count,
        "provenance": PROVENANCE,
    }
    if head:
        values |= {"head_model": "open", "shape": numbers(5), "fit_residual": numbers(count), **_head(numbers, count)}
    return Tracked(**(values | changes))


def make_motion(count: int = 3, seed: int = 0, **changes: Any) -> Motion:
    """A motion of `count` time steps with sound and one embedding."""
    numbers = _Numbers(seed)
    values: dict[str, Any] = {
        **_timing(count),
        "width": 64,
        "height": 48,
        "status": np.zeros(count, "u1"),
        **_head(numbers, count),
        "neutral_expression": numbers(52),
        "head_model": "open",
        "audio": b"\x1aE\xdf\xa3 sound",
        "embeddings": {"pd-fgc": numbers(count, 7)},
        "provenance": PROVENANCE,
    }
    return Motion(**(values | changes))


def make_avatar(count: int = 11, seed: int = 0, **changes: Any) -> Avatar:
    """An avatar of `count` Gaussians."""
    numbers = _Numbers(seed)
    values: dict[str, Any] = {
        "representation": "gaussians",
        "head_model": "open",
        "width": 64,
        "height": 48,
        "shape": numbers(5),
        **_head(numbers),
        "coefficients": numbers(52),
        "background_blob": b"\x89PNG background",
        "source_blob": None,
        "tensors": {"color": numbers(count, 3, dtype="f2"), "triangle": np.arange(count, dtype="i4")},
        "tensor_axes": {"color": "N,3"},
        "tensor_units": {"color": "0..1"},
        "provenance": PROVENANCE,
    }
    return Avatar(**(values | changes))


def make_frames(count: int = 3, seed: int = 0, **changes: Any) -> Frames:
    """`count` rendered frames with depth."""
    numbers = _Numbers(seed)
    values: dict[str, Any] = {
        **_timing(count),
        "frame_blobs": [b"\x89PNG %d" % index for index in range(count)],
        "intrinsics": numbers(count, 3, 3),
        "world_to_camera": numbers(count, 4, 4),
        "depth": np.abs(numbers(count, 4, 6, dtype="f2")),
        "provenance": PROVENANCE,
    }
    return Frames(**(values | changes))


def make_report(count: int = 3, seed: int = 0, **changes: Any) -> Report:
    """`count` judged frames of one system and one metric."""
    manifest = {
        "protocol": {"name": "pairs"}, "judges": {}, "left_out": {}, "systems": ["ours"], "captions": [],
        "metrics": [{"name": "psnr", "direction": "higher", "network": ""}],
        "sequences": [{"name": "clip", "hashes": {}}],
    }  # fmt: skip
    values: dict[str, Any] = {
        "manifest_json": json.dumps(manifest),
        "row_system": np.zeros(count, np.int32),
        "row_sequence": np.zeros(count, np.int32),
        "row_frame": np.arange(count),
        "values": np.random.default_rng(seed).random((count, 1)),
        "measured": np.ones((count, 1), np.uint8),
        "picture_blobs": [b"\x89PNG"],
        "provenance": PROVENANCE,
    }
    return Report(**(values | changes))


def make_views(count: int = 3, seed: int = 0, **changes: Any) -> Views:
    """`count` pictures: of two people, with two cameras for each motion."""
    numbers = _Numbers(seed)
    rows = np.arange(count)
    people = len(np.unique(rows // 2))
    head = _head(numbers, count) | {"intrinsics": numbers(count, 3, 3), "world_to_camera": numbers(count, 4, 4)}
    values: dict[str, Any] = {
        "width": 8,
        "height": 6,
        "head_model": "open",
        "images": [b"\x89PNG %d" % index for index in range(count)],
        "opacities": [b"\x89PNG"] * count,
        "depths": np.abs(numbers(count, 3, 4, dtype="f2")),
        "backgrounds": [b"\x89PNG background"],
        "background_index": rows % 2 - 1,
        "index": 100 + rows,
        "identity": 7 + rows // 2,
        "motion": np.zeros(count, np.int64),
        "view": rows % 2,
        "identity_name": [b"photo %d.jpg" % k for k in range(people)],
        "shape": numbers(count, 5),
        "coefficients": numbers(count, 52),
        **head,
        "embeddings": {"pd-fgc": numbers(count, 7)},
        "latents": numbers(people, 4),
        "provenance": PROVENANCE,
    }
    return Views(**(values | changes))


MAKERS: dict[str, Any] = {
    "tracked": make_tracked,
    "motion": make_motion,
    "avatar": make_avatar,
    "frames": make_frames,
    "report": make_report,
    "views": make_views,
}


def assert_same(a: Artifact, b: Artifact) -> None:
    """Fail unless two artifacts hold the same, bit for bit."""
    from fourdface.artifacts._schema import specs

    assert type(a) is type(b)
    assert a.provenance == b.provenance
    for name, spec in specs(a):
        left, right = getattr(a, name), getattr(b, name)
        if spec.kind == "mapping":
            assert left.keys() == right.keys()
            pairs = [(left[key], right[key]) for key in left]
        else:
            by_row = spec.by_row and left is not None and right is not None
            pairs = [(np.asarray(left), np.asarray(right)) if by_row else (left, right)]
        for one, other in pairs:
            if isinstance(one, np.ndarray):
                assert one.dtype == other.dtype and one.shape == other.shape, name
                assert one.tobytes() == other.tobytes(), name
            elif spec.kind == "blobs" and one is not None:
                assert list(one) == list(other), name
            else:
                assert one == other, name
