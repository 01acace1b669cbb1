"""From the avatar's file back to the same pictures; files that do not fit are refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fourdface.artifacts import Avatar
from fourdface.errors import FourdError, UsageError
from fourdface.media.image import encode_png
from fourdface.methods.splat.restore import restore_avatar
from support.lifted import avatar_artifact, lifted_photo
from support.scenes import expression, head_state

MOVED = head_state(expression(jawOpen=0.6, eyeBlinkLeft=0.8), (0.1, 0.4, 0.0))


def test_a_file_gives_the_same_pictures(tmp_path: Path) -> None:
    original = avatar_artifact()
    original.write(tmp_path / "a.h5")
    first, again = restore_avatar(original), restore_avatar(Avatar.read(tmp_path / "a.h5"))
    for state in (first.rig.source, MOVED):
        assert np.array_equal(first.render_u8(state, first.plate_u8), again.render_u8(state, again.plate_u8))


def test_storing_costs_nothing_that_can_be_seen() -> None:
    """Colours are stored as float16. Two lifts may differ by rounding at single pixels on a triangle's edge."""
    restored, fresh = restore_avatar(avatar_artifact()), lifted_photo(144)[1]
    assert len(restored) == len(fresh)
    for state in (fresh.rig.source, MOVED):
        a, b = restored.render_u8(state, restored.plate_u8), fresh.render_u8(state, fresh.plate_u8)
        difference = np.abs(a.astype(int) - b)
        assert np.percentile(difference, 99.9) <= 3 and difference.mean() < 0.1


def test_without_a_plate_the_background_is_white() -> None:
    assert (restore_avatar(replace(avatar_artifact(), background_blob=None)).plate_u8 == 255).all()


def test_other_representations_are_another_commands() -> None:
    with pytest.raises(UsageError, match="triplane"):
        restore_avatar(replace(avatar_artifact(), representation="triplane"))


def without(name: str) -> Avatar:
    kept = {key: value for key, value in avatar_artifact().tensors.items() if key != name}
    return replace(avatar_artifact(), tensors=kept)


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Avatar:
    avatar = avatar_artifact()
    return replace(avatar, tensors={**avatar.tensors, name: change(avatar.tensors[name].copy())})


def out_of_range(value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(triangle: np.ndarray) -> np.ndarray:
        triangle[7] = value
        return triangle

    return change


DAMAGED: dict[str, tuple[str, Callable[[], Avatar]]] = {
    "no colours": ("lacks the tensors colour", lambda: without("colour")),
    "fewer means": ("local_mean", lambda: changed("local_mean", lambda a: a[:-1])),
    "two-dimensional means": ("local_mean", lambda: changed("local_mean", lambda a: a[:, :2])),
    "grey colours": ("colour", lambda: changed("colour", lambda a: a[:, 0])),
    "full covariances": ("local_covariance", lambda: changed("local_covariance", lambda a: np.tile(a, (1, 2))[:, :9])),
    "triangle too large": ("triangles reach", lambda: changed("triangle", out_of_range(10**7))),
    "triangle negative": ("triangles", lambda: changed("triangle", out_of_range(-1))),
    "offset of another head": ("head_offset", lambda: changed("head_offset", lambda a: a[:-5])),
    "identity of another head": ("identity coefficients", lambda: replace(avatar_artifact(), shape=np.zeros(7, "f4"))),
    "unknown head": ("Unknown head model", lambda: replace(avatar_artifact(), head_model="giraffe")),
    "plate of another size": (
        "background", lambda: replace(avatar_artifact(), background_blob=encode_png(np.zeros((9, 9, 3), np.uint8)))
    ),
    "plate with alpha": (
        "background", lambda: replace(avatar_artifact(), background_blob=encode_png(np.zeros((144, 144, 4), np.uint8)))
    ),
    "plate that is no picture": ("PNG", lambda: replace(avatar_artifact(), background_blob=b"no picture")),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_avatars(name: str) -> None:
    words, make = DAMAGED[name]
    with pytest.raises(FourdError, match=words) as caught:
        restore_avatar(make())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
