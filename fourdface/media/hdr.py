"""Map high dynamic range and wide-gamut video (PQ, HLG, BT.2020, Display P3: what phones record) to sRGB.

The mapping is a function of three numbers, so it is tabulated once (33 x 33 x 33) and applied by libavfilter's `lut3d`.
Sources: ITU-R BT.2100-2 (PQ and HLG curves, HLG system gamma 1.2 at 1000 cd/m2), BT.2408 (reference white 203 cd/m2).
"""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from av import VideoFrame as AvFrame
from av.filter import Graph

PQ, HLG = 16, 18
HDR_CURVES = (PQ, HLG)
# (x, y) of red, green, blue by the number in the stream; the white point is D65 in all of them (DCI's is taken as D65).
_PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
WIDE_PRIMARIES = (9, 11, 12)
_WHITE = (0.3127, 0.3290)
_REFERENCE_WHITE = 203.0  # cd/m2 that become 1.0
_PEAK = 1000.0  # cd/m2 that become the brightest white; phones master to about this
# Below this share of white nothing changes, above it highlights are compressed: skin lies below.
_KNEE = 0.6
_POINTS = 33


def to_linear(signal: np.ndarray, curve: int) -> np.ndarray:
    """Decode R'G'B' [..., 3] in 0..1 to display light, 1 = reference white; curves but PQ and HLG count as sRGB's."""
    if curve == PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        return 10000 / _REFERENCE_WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    if curve == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
        return _PEAK / _REFERENCE_WHITE * scene * np.maximum(luminance, 1e-12)[..., None] ** 0.2
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def primaries_matrix(source: int) -> np.ndarray:
    """float64 [3, 3] that takes linear RGB columns of primaries `source` (number of the stream) to BT.709's."""

    def to_xyz(number: int) -> np.ndarray:
        xyz = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in _PRIMARIES[number]]).T
        white = np.array([_WHITE[0] / _WHITE[1], 1.0, (1 - sum(_WHITE)) / _WHITE[1]])
        return xyz * np.linalg.solve(xyz, white)

    return np.linalg.solve(to_xyz(1), to_xyz(source if source in _PRIMARIES else 1))


def compress_highlights(linear: np.ndarray) -> np.ndarray:
    """Bring light [..., 3] up to the peak into 0..1: unchanged below the knee, then an extended Reinhard curve.

    All three channels are scaled by what their largest needs, so that hues stay.
    """
    largest = np.maximum(linear.max(-1, keepdims=True), 1e-9)
    over = np.maximum(largest - _KNEE, 0) / (1 - _KNEE)
    top = (_PEAK / _REFERENCE_WHITE - _KNEE) / (1 - _KNEE)
    over = np.minimum(over, top)
    mapped = np.where(largest > _KNEE, _KNEE + (1 - _KNEE) * over * (1 + over / top**2) / (1 + over), largest)
    return linear * (mapped / largest)


def map_to_srgb(signal: np.ndarray, curve: int, primaries: int) -> np.ndarray:
    """Map R'G'B' [..., 3] in 0..1 to sRGB in 0..1; `curve` and `primaries` are the numbers in the stream."""
    linear = np.maximum(to_linear(signal, curve) @ primaries_matrix(primaries).T, 0)
    if curve in HDR_CURVES:
        linear = compress_highlights(linear)
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


class HdrMapper:
    """Applies :func:`map_to_srgb` to frames of one size in 16-bit RGB (format rgb48le)."""

    def __init__(self, width: int, height: int, curve: int, primaries: int) -> None:
        """Tabulate the mapping (a tenth of a second)."""
        axis = np.linspace(0, 1, _POINTS)
        # The .cube format counts red fastest.
        blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
        table = map_to_srgb(np.stack([red, green, blue], -1).reshape(-1, 3), curve, primaries)
        rows = "\n".join(f"{r:.5f} {g:.5f} {b:.5f}" for r, g, b in table.tolist())
        self._graph = Graph()
        with tempfile.TemporaryDirectory(prefix="fourd-hdr-") as folder:
            path = Path(folder) / "map.cube"
            path.write_text(f"LUT_3D_SIZE {_POINTS}\n{rows}\n")
            source = self._graph.add_buffer(
                width=width, height=height, format=AvFrame(1, 1, "rgb48le").format, time_base=Fraction(1, 90000)
            )
            # Inside a filter's arguments a colon (as in C:) must be escaped.
            name = path.as_posix().replace(":", "\\:")
            table_filter = self._graph.add("lut3d", f"file={name}:interp=tetrahedral")
            pixels, sink = self._graph.add("format", "rgb24"), self._graph.add("buffersink")
            source.link_to(table_filter)
            table_filter.link_to(pixels)
            pixels.link_to(sink)
            self._graph.configure()

    def __call__(self, frame: AvFrame) -> np.ndarray:
        """Map one rgb48le frame to uint8 [H, W, 3]."""
        self._graph.vpush(frame)
        return self._graph.vpull().to_ndarray()
