"""One-Euro filter: steady at rest, close behind when moving, no latency, no memory across a reset."""

from __future__ import annotations

import numpy as np
import pytest

from fourdface.perception.smoothing import OneEuroFilter


def test_first_value_passes_through() -> None:
    value = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(OneEuroFilter()(value, 0.0), value)


def test_rest_is_smoothed() -> None:
    random = np.random.default_rng(0)
    smooth = OneEuroFilter(minimum_cutoff=1.0, speed_weight=0.05)
    out = np.array([smooth(random.normal(0, 1, 40), frame / 25, scale=100) for frame in range(200)])
    assert out[50:].std() < 0.45


def test_fast_motion_lags_less_than_a_fixed_low_pass() -> None:
    positions = [100.0 * frame / 25 for frame in range(50)]
    adaptive, fixed = OneEuroFilter(1.0, 4.0), OneEuroFilter(1.0, 0.0)
    lag = [positions[k] - float(adaptive([positions[k]], k / 25, scale=20)[0]) for k in range(50)]
    lag_fixed = [positions[k] - float(fixed([positions[k]], k / 25, scale=20)[0]) for k in range(50)]
    assert lag[-1] < 0.2 * lag_fixed[-1]


def test_output_of_a_frame_needs_no_later_frame() -> None:
    """Stated latency 0: a step is seen in the very frame in which it happens."""
    smooth = OneEuroFilter()
    for frame in range(10):
        smooth([0.0], frame / 25)
    assert smooth.latency_frames == 0
    assert float(smooth([1.0], 10 / 25)[0]) > 0.25


def test_uneven_times_and_repeated_times() -> None:
    smooth = OneEuroFilter()
    smooth([0.0], 0.0)
    first = smooth([1.0], 0.04)
    again = smooth([5.0], 0.04)
    np.testing.assert_array_equal(first, again)


def test_reset_and_new_shape_start_again() -> None:
    smooth = OneEuroFilter()
    smooth([0.0], 0.0)
    smooth.reset()
    assert float(smooth([9.0], 0.04)[0]) == 9.0
    np.testing.assert_array_equal(smooth([1.0, 2.0], 0.08), [1.0, 2.0])


@pytest.mark.parametrize("bad", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, 0.0)])
def test_bad_parameters_are_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="cut-offs"):
        OneEuroFilter(*bad)
