from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourdface.errors import FourdError
from fourdface.media.ply import GaussianCloud, read_ply, write_ply


def cloud(count: int, harmonics: int = 0, seed: int = 0) -> GaussianCloud:
    rng = np.random.default_rng(seed)
    quaternions = rng.normal(size=(count, 4))
    return GaussianCloud(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        quaternions=(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).astype(np.float32),
        scales=np.exp(rng.uniform(-9, 1, (count, 3))).astype(np.float32),
        opacities=rng.uniform(0.01, 0.99, count).astype(np.float32),
        colors=rng.uniform(0, 1, (count, 3)).astype(np.float32),
        harmonics=rng.normal(size=(count, harmonics, 3)).astype(np.float32) if harmonics else None,
    )


def encoded(*args, **kwargs) -> bytes:
    buffer = io.BytesIO()
    write_ply(buffer, *args, **kwargs)
    return buffer.getvalue()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.sampled_from([0, 3, 8, 15]), st.integers(0, 99))
def test_round_trip(count, harmonics, seed):
    want = cloud(count, harmonics, seed)
    got = read_ply(encoded(want))
    for name in ("means", "quaternions", "scales", "opacities", "colors"):
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=2e-5, atol=1e-6)
    if harmonics:
        np.testing.assert_array_equal(got.harmonics, want.harmonics)
    else:
        assert got.harmonics is None
    assert got.frame == want.frame


def test_layout_is_the_viewers(tmp_path):
    path = tmp_path / "a.ply"
    one = GaussianCloud(
        means=np.float32([[1, 2, 3]]),
        quaternions=np.float32([[2, 0, 0, 0]]),
        scales=np.float32([[1, np.e, np.e**2]]),
        opacities=np.float32([0.5]),
        colors=np.float32([[0.5, 0.5 + 0.28209479, 0.5]]),
        harmonics=np.arange(9, dtype=np.float32).reshape(1, 3, 3),
        frame="turned\nby hand ü",
    )
    write_ply(path, one, comments=("synthetic media made by fourd",))
    header, _, body = path.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert lines[2:5] == [
        "comment coordinate frame: turned by hand ?",
        "comment synthetic media made by fourd",
        "element vertex 1",
    ]
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"] + [f"f_rest_{k}" for k in range(9)]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert lines[5:] == [f"property float {name}" for name in names]
    values = np.frombuffer(body, "<f4")
    np.testing.assert_allclose(values[:9], [1, 2, 3, 0, 0, 0, 0, 1, 0], atol=1e-6)
    np.testing.assert_array_equal(values[9:18], [0, 3, 6, 1, 4, 7, 2, 5, 8])  # red, then green, then blue
    np.testing.assert_allclose(values[18:], [0, 0, 1, 2, 1, 0, 0, 0], atol=1e-6)


def test_extremes_stay_finite():
    extreme = cloud(3)
    extreme.opacities[:] = (0, 1, 0.5)
    extreme.scales[0] = 0
    extreme.quaternions[1] = 0
    body = encoded(extreme).partition(b"end_header\n")[2]
    assert np.isfinite(np.frombuffer(body, "<f4")).all()
    assert read_ply(encoded(extreme)).quaternions[1].tolist() == [1, 0, 0, 0]


def test_wrong_shapes_name_the_array():
    good = cloud(4)
    with pytest.raises(ValueError, match=r"GaussianCloud.scales: expected \[4, 3\], got \[3, 3\]"):
        GaussianCloud(good.means, good.quaternions, good.scales[:3], good.opacities, good.colors)
    with pytest.raises(ValueError, match="harmonics"):
        GaussianCloud(good.means, good.quaternions, good.scales, good.opacities, good.colors, np.zeros((4, 9)))


def test_bad_files_are_one_sentence(tmp_path):
    good = encoded(cloud(10))
    cases = {
        b"": "an empty file",
        b"some text": "plain text",
        good[:-1]: "cut short",
        good.replace(b"binary_little_endian", b"ascii"): "little-endian",
        good.replace(b"float opacity", b"float opaquely"): "opacity",
        good.replace(b"property float x\n", b"property list uchar int x\n"): "does not belong",
        good.replace(b"element vertex", b"element face"): "first element",
    }
    for data, words in cases.items():
        with pytest.raises(FourdError) as error:
            read_ply(data)
        assert words in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(FourdError, match="cannot read"):
        read_ply(tmp_path / "missing.ply")
    with pytest.raises(FourdError, match="cannot write"):
        write_ply(tmp_path / "no" / "a.ply", cloud(1))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_fuzzed_files(data):
    raw = bytearray(encoded(cloud(3, 3)))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_ply(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except FourdError as error:
        assert "\n" not in str(error)
