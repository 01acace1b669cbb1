"""Export and import of static Gaussians in the .ply layout of the 3D Gaussian Splatting reference viewer.

Layout (Kerbl et al. 2023, as every viewer reads it): float32 properties x y z nx ny nz f_dc_0..2 [f_rest_*] opacity
scale_0..2 rot_0..3, binary little endian; the file holds log scales, logit opacities, quaternions wxyz, and colours as
coefficients of spherical harmonics (colour = 0.5 + C0 * f_dc).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from fourdface.errors import FourdError
from fourdface.media.sniff import describe_bytes

# The constant spherical harmonic, 1 / (2 sqrt(pi)).
SH_C0 = 0.28209479177387814
DEFAULT_FRAME = "right-handed, metres, y up, the neutral head looks along +z, origin at the neck joint"
_FRAME_KEY = "coordinate frame: "
# Logit and log must stay finite; 1e-6 is far below what 8-bit pictures can show, and 0.1 micrometre is nothing.
_MIN_OPACITY = 1e-6
_MIN_SCALE = 1e-7
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2",
    "uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4", "float": "<f4", "float32": "<f4",
    "double": "<f8", "float64": "<f8",
}  # fmt: skip


_REQUIRED = (
    "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity",
    "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip


@dataclass(frozen=True)
class GaussianCloud:
    """Static Gaussians in natural units.

    Attributes:
        means: float32 [N, 3], in the file's frame and unit.
        quaternions: float32 [N, 4] wxyz, unit length.
        scales: float32 [N, 3] standard deviations along the Gaussian's own axes.
        opacities: float32 [N] in 0..1.
        colors: float32 [N, 3] sRGB, seen from anywhere (the constant harmonic).
        harmonics: float32 [N, K, 3] coefficients above the constant one (K = 3, 8, 15), or None.
        frame: words that say the coordinate frame.
    """

    means: np.ndarray
    quaternions: np.ndarray
    scales: np.ndarray
    opacities: np.ndarray
    colors: np.ndarray
    harmonics: np.ndarray | None = None
    frame: str = DEFAULT_FRAME

    def __post_init__(self) -> None:
        """Check shapes; raises ValueError that names the array."""
        count = len(self.means)
        shapes = {"means": (count, 3), "quaternions": (count, 4), "scales": (count, 3), "opacities": (count,)}
        for name, shape in {**shapes, "colors": (count, 3)}.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"GaussianCloud.{name}: expected {list(shape)}, got {list(getattr(self, name).shape)}")
        if self.harmonics is not None and (self.harmonics.shape[0], self.harmonics.shape[2:]) != (count, (3,)):
            raise ValueError(f"GaussianCloud.harmonics: expected [{count},K,3], got {list(self.harmonics.shape)}")


def write_ply(target: str | os.PathLike[str] | IO[bytes], cloud: GaussianCloud, comments: tuple[str, ...] = ()) -> None:
    """Write Gaussians as a 3DGS .ply; a comment line says the coordinate frame, `comments` adds more lines.

    Raises:
        FourdError: the file cannot be written.
    """
    names, columns = _columns(cloud)
    lines = ["ply", "format binary_little_endian 1.0"]
    for comment in (_FRAME_KEY + cloud.frame, *comments):
        # A line break or a non-ASCII letter inside a comment would break the header for other readers.
        lines.append("comment " + " ".join(comment.split()).encode("ascii", "replace").decode())
    lines += [f"element vertex {len(cloud.means)}", *(f"property float {name}" for name in names), "end_header", ""]
    data = "\n".join(lines).encode() + np.ascontiguousarray(np.concatenate(columns, 1), "<f4").tobytes()
    try:
        if isinstance(target, str | os.PathLike):
            Path(target).write_bytes(data)
        else:
            target.write(data)
    except OSError as error:
        raise FourdError(f"cannot write {getattr(target, 'name', target)}: {error.strerror or error}.") from None


def _columns(cloud: GaussianCloud) -> tuple[list[str], list[np.ndarray]]:
    opacities = np.clip(np.asarray(cloud.opacities, np.float64), _MIN_OPACITY, 1 - _MIN_OPACITY)
    quaternions = np.asarray(cloud.quaternions, np.float64)
    norms = np.linalg.norm(quaternions, axis=1, keepdims=True)
    columns: list[tuple[str, np.ndarray]] = [
        ("x y z", cloud.means),
        # Normals are part of the layout and always zero.
        ("nx ny nz", np.zeros_like(cloud.means)),
        ("f_dc_0 f_dc_1 f_dc_2", (np.asarray(cloud.colors, np.float64) - 0.5) / SH_C0),
    ]
    if cloud.harmonics is not None:
        # Channel by channel: all of red, then green, then blue.
        rest = cloud.harmonics.transpose(0, 2, 1).reshape(len(cloud.means), 3 * cloud.harmonics.shape[1])
        columns.append((" ".join(f"f_rest_{index}" for index in range(rest.shape[1])), rest))
    columns += [
        ("opacity", np.log(opacities / (1 - opacities))[:, None]),
        ("scale_0 scale_1 scale_2", np.log(np.maximum(np.asarray(cloud.scales, np.float64), _MIN_SCALE))),
        ("rot_0 rot_1 rot_2 rot_3", np.where(norms > 0, quaternions / np.maximum(norms, 1e-30), [1.0, 0.0, 0.0, 0.0])),
    ]
    return [name for names, _ in columns for name in names.split()], [column for _, column in columns]


def read_ply(source: str | os.PathLike[str] | bytes) -> GaussianCloud:
    """Read a 3DGS .ply (binary little endian; more properties than needed are ignored).

    Raises:
        FourdError: no such file, not a .ply of Gaussians, or cut short; one sentence.
    """
    name = "the .ply data" if isinstance(source, bytes) else os.fspath(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise FourdError(f"cannot read {name}: {error.strerror}.") from None
    end = data.find(b"end_header\n")
    if not data.startswith(b"ply") or end < 0:
        raise FourdError(f"{name} looks like {describe_bytes(data[:512])}: a .ply of Gaussians is wanted.")
    header = data[:end].decode("ascii", "replace").splitlines()
    if "format binary_little_endian 1.0" not in header:
        raise FourdError(f"{name} is not in PLY's binary little-endian format 1.0, the only one that is read.")
    count, dtype = _vertex_layout(header, name)
    body = memoryview(data)[end + len(b"end_header\n") :]
    if len(body) < count * dtype.itemsize:
        raise FourdError(
            f"{name} is cut short: {count} Gaussians need {count * dtype.itemsize} bytes, {len(body)} came."
        )
    frame = next(
        (line.partition(_FRAME_KEY)[2] for line in header if line.startswith("comment " + _FRAME_KEY)), "unknown"
    )
    return _cloud(np.frombuffer(body, dtype, count), frame)


def _vertex_layout(header: list[str], name: str) -> tuple[int, np.dtype]:
    """Count and record type of the element "vertex", which must come first, as in every 3DGS file."""
    count, fields = -1, []
    for words in (line.split() for line in header):
        if words[:1] == ["element"]:
            if count >= 0:
                break
            if len(words) != 3 or words[1] != "vertex" or not words[2].isdigit():
                raise FourdError(
                    f"{name}: the first element must be `vertex` with a count, it is `{' '.join(words[1:])}`."
                )
            count = int(words[2])
        elif words[:1] == ["property"]:
            if len(words) != 3 or words[1] not in _TYPES:
                raise FourdError(f"{name}: property `{' '.join(words[1:])}` does not belong in a .ply of Gaussians.")
            fields.append((words[2], _TYPES[words[1]]))
    missing = [field for field in _REQUIRED if field not in dict(fields)]
    if count < 0 or missing or len(dict(fields)) != len(fields):
        raise FourdError(f"{name} is not a .ply of Gaussians: missing or doubled properties ({', '.join(missing)}).")
    return count, np.dtype(fields)


def _cloud(records: np.ndarray, frame: str) -> GaussianCloud:
    def stack(prefix: str, count: int) -> np.ndarray:
        columns = [records[f"{prefix}{index}"] for index in range(count)]
        return np.stack(columns, 1).astype(np.float64)

    names = records.dtype.names or ()
    rest = sum(name.startswith("f_rest_") for name in names) // 3
    harmonics = stack("f_rest_", 3 * rest).reshape(len(records), 3, rest).transpose(0, 2, 1) if rest else None
    quaternions = stack("rot_", 4)
    norms = np.linalg.norm(quaternions, axis=1, keepdims=True)
    return GaussianCloud(
        means=np.stack([records["x"], records["y"], records["z"]], 1).astype(np.float32),
        quaternions=np.where(norms > 0, quaternions / np.maximum(norms, 1e-30), [1.0, 0.0, 0.0, 0.0]).astype(
            np.float32
        ),
        scales=np.exp(np.clip(stack("scale_", 3), -80, 80)).astype(np.float32),
        opacities=(1 / (1 + np.exp(-np.clip(records["opacity"].astype(np.float64), -80, 80)))).astype(np.float32),
        colors=(0.5 + SH_C0 * stack("f_dc_", 3)).astype(np.float32),
        harmonics=None if harmonics is None else np.ascontiguousarray(harmonics, np.float32),
        frame=frame,
    )
