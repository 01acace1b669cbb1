from __future__ import annotations

import numpy as np
import pytest

from fourdface.media.hdr import HLG, PQ, compress_highlights, map_to_srgb, primaries_matrix, to_linear


def test_pq_decodes_the_standard_values():
    # BT.2408 table: 100 cd/m2 is 50.8 %, 203 is 58.1 %, 1000 is 75.2 %, 10000 is 100 % of the signal.
    nits = to_linear(np.array([[0, 0, 0], [0.508] * 3, [0.581] * 3, [0.752] * 3, [1, 1, 1]]), PQ)[:, 0] * 203
    np.testing.assert_allclose(nits, [0, 100, 203, 1000, 10000], rtol=0.01, atol=1e-6)


def test_hlg_decodes_the_standard_values():
    # BT.2408: reference white (203 cd/m2 on a 1000 cd/m2 display) is 75 % of the signal.
    nits = to_linear(np.array([[0, 0, 0], [0.75] * 3, [1, 1, 1]]), HLG)[:, 1] * 203
    np.testing.assert_allclose(nits, [0, 203, 1000], rtol=0.01, atol=1e-6)


def test_matrix_of_bt2020_is_that_of_bt2087():
    want = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    np.testing.assert_allclose(primaries_matrix(9), want, atol=2e-4)
    np.testing.assert_allclose(primaries_matrix(1), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(primaries_matrix(12) @ np.ones(3), np.ones(3), atol=1e-9)


def test_highlights_are_compressed_smoothly():
    light = np.linspace(0, 6, 4000)[:, None] * np.array([1.0, 0.5, 0.25])
    mapped = compress_highlights(light)
    np.testing.assert_allclose(mapped[light[:, 0] <= 0.6], light[light[:, 0] <= 0.6])
    assert mapped.max() <= 1 + 1e-9
    assert (np.diff(mapped[:, 0]) > -1e-9).all()
    np.testing.assert_allclose(mapped[1:, 1] / mapped[1:, 0], 0.5)  # hue stays


def test_sdr_wide_gamut_keeps_greys():
    grey = np.linspace(0, 1, 9)[:, None].repeat(3, 1)
    np.testing.assert_allclose(map_to_srgb(grey, 1, 12), grey, atol=1e-6)
    # A P3 colour gets more saturated numbers in sRGB.
    assert map_to_srgb(np.array([[0.8, 0.4, 0.4]]), 1, 12)[0, 0] > 0.8


@pytest.mark.parametrize("curve", [PQ, HLG])
def test_white_and_black(curve):
    mapped = map_to_srgb(np.array([[0.0] * 3, [1.0] * 3]), curve, 9)
    np.testing.assert_allclose(mapped, [[0] * 3, [1] * 3], atol=1e-3)
