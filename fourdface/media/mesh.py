"""Triangle meshes with vertex colours as .ply, .obj or .glb: one file, nothing beside it.

Binary PLY (Turk, 1994), Wavefront OBJ with colours after the coordinates (as MeshLab and Blender read them), and binary
glTF 2.0 (Khronos) with the colours in linear light, as that format wants them.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fourdface.errors import UsageError

__all__ = ["SUFFIXES", "Mesh", "check_mesh_name", "encode_mesh"]

SUFFIXES = (".ply", ".obj", ".glb")
_FLOAT, _UINT, _ARRAY, _ELEMENTS = 5126, 5125, 34962, 34963
"""Numbers that glTF gives component types and buffer targets."""


@dataclass(frozen=True)
class Mesh:
    """vertices [N, 3] (metres, y up), faces [M, 3] counter-clockwise from outside, colours [N, 3] sRGB in 0..1."""

    vertices: np.ndarray
    faces: np.ndarray
    colours: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.vertices)
        if self.vertices.shape != (count, 3) or self.colours.shape != (count, 3) or self.faces.shape[1:] != (3,):
            raise ValueError("a mesh needs vertices [N, 3], faces [M, 3] and colours [N, 3]")
        if self.faces.size and not 0 <= self.faces.min() <= self.faces.max() < count:
            raise ValueError(f"faces reach beyond the {count} vertices")


def check_mesh_name(path: Path) -> str:
    """The suffix of a mesh file's name; UsageError for one that is not known."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: cannot tell what mesh to write from {suffix or 'no suffix'}; use {', '.join(SUFFIXES)}"
        )
    return suffix


def encode_mesh(mesh: Mesh, suffix: str) -> bytes:
    """The bytes of a mesh file of one of `SUFFIXES`."""
    return {".ply": _ply, ".obj": _obj, ".glb": _glb}[suffix](mesh)


def _ply(mesh: Mesh) -> bytes:
    header = [
        "ply", "format binary_little_endian 1.0", "comment right-handed, metres, y up; colours sRGB",
        f"element vertex {len(mesh.vertices)}", *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header", "",
    ]  # fmt: skip
    rows = np.zeros(len(mesh.vertices), dtype=[("place", "<f4", 3), ("colour", "u1", 3)])
    rows["place"], rows["colour"] = mesh.vertices, _levels(mesh.colours)
    faces = np.zeros(len(mesh.faces), dtype=[("count", "u1"), ("index", "<i4", 3)])
    faces["count"], faces["index"] = 3, mesh.faces
    return "\n".join(header).encode("ascii") + rows.tobytes() + faces.tobytes()


def _obj(mesh: Mesh) -> bytes:
    lines = ["# right-handed, metres, y up; colours sRGB after the coordinates"]
    rows = np.hstack([mesh.vertices, np.clip(mesh.colours, 0, 1)])
    lines += ["v " + " ".join(f"{value:.6f}" for value in row) for row in rows.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (np.asarray(mesh.faces) + 1).tolist()]
    return ("\n".join(lines) + "\n").encode("ascii")


def _glb(mesh: Mesh) -> bytes:
    place = np.ascontiguousarray(mesh.vertices, "<f4")
    colour = np.clip(np.asarray(mesh.colours, np.float64), 0, 1)
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4).astype("<f4")
    index = np.ascontiguousarray(mesh.faces, "<u4")
    parts = [place.tobytes(), linear.tobytes(), index.tobytes()]
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    views = [
        {"buffer": 0, "byteOffset": start, "byteLength": len(part), "target": target}
        for start, part, target in zip(starts[:-1], parts, (_ARRAY, _ARRAY, _ELEMENTS), strict=True)
    ]
    low, high = (place.min(0).tolist(), place.max(0).tolist()) if len(place) else ([0.0] * 3, [0.0] * 3)
    accessors = [
        {"bufferView": 0, "componentType": _FLOAT, "count": len(place), "type": "VEC3", "min": low, "max": high},
        {"bufferView": 1, "componentType": _FLOAT, "count": len(place), "type": "VEC3"},
        {"bufferView": 2, "componentType": _UINT, "count": index.size, "type": "SCALAR"},
    ]
    content = {
        "asset": {"version": "2.0", "generator": "fourd"}, "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2}]}],
        "buffers": [{"byteLength": starts[-1]}], "bufferViews": views, "accessors": accessors,
    }  # fmt: skip
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    body = b"".join(parts)
    total = 12 + 8 + len(text) + 8 + len(body)
    head = struct.pack("<4sII", b"glTF", 2, total)
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body


def _levels(colours: np.ndarray) -> np.ndarray:
    return np.round(np.clip(colours, 0, 1) * 255).astype(np.uint8)
