from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from fourdface.errors import UsageError
from fourdface.media.mesh import Mesh, check_mesh_name, encode_mesh

TRIANGLE = Mesh(
    np.array([[0, 0, 0], [1, 0, 0], [0, 1.5, 0]]),
    np.array([[0, 1, 2]]),
    np.array([[1, 0, 0], [0, 0.5, 0], [0, 0, 2.0]]),
)


def test_ply_read_by_its_own_words() -> None:
    head, _, body = encode_mesh(TRIANGLE, ".ply").partition(b"end_header\n")
    assert b"element vertex 3" in head and b"element face 1" in head
    rows = [struct.unpack("<3f3B", body[k : k + 15]) for k in (0, 15, 30)]
    assert rows[1] == (1, 0, 0, 0, 128, 0) and rows[2][:3] == (0, 1.5, 0) and rows[2][5] == 255
    assert struct.unpack("<B3i", body[45:]) == (3, 0, 1, 2)


def test_obj_counts_from_one() -> None:
    lines = encode_mesh(TRIANGLE, ".obj").decode().splitlines()
    assert lines[-1] == "f 1 2 3" and lines[2].split()[:4] == ["v", "1.000000", "0.000000", "0.000000"]


def test_glb_has_the_lengths_that_it_says_and_linear_colours() -> None:
    data = encode_mesh(TRIANGLE, ".glb")
    magic, version, total = struct.unpack("<4sII", data[:12])
    assert (magic, version, total) == (b"glTF", 2, len(data))
    size, kind = struct.unpack("<I4s", data[12:20])
    content = json.loads(data[20 : 20 + size])
    assert kind == b"JSON" and size % 4 == 0
    body = data[28 + size :]
    assert content["buffers"][0]["byteLength"] == len(body)
    view = content["bufferViews"][1]
    colours = np.frombuffer(body, "<f4", 9, view["byteOffset"]).reshape(3, 3)
    assert colours[1, 1] == pytest.approx(0.2140411, rel=1e-4) and colours[2, 2] == 1
    assert content["accessors"][0]["max"] == [1, 1.5, 0]
    assert np.frombuffer(body, "<u4", 3, content["bufferViews"][2]["byteOffset"]).tolist() == [0, 1, 2]


def test_an_empty_mesh_is_a_file_too() -> None:
    empty = Mesh(np.zeros((0, 3)), np.zeros((0, 3), int), np.zeros((0, 3)))
    for suffix in (".ply", ".obj", ".glb"):
        assert encode_mesh(empty, suffix)


def test_wrong_meshes_and_names_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond"):
        Mesh(np.zeros((2, 3)), np.array([[0, 1, 2]]), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="needs"):
        Mesh(np.zeros((2, 3)), np.zeros((0, 3), int), np.zeros((3, 3)))
    assert check_mesh_name(Path("a.GLB")) == ".glb"
    with pytest.raises(UsageError, match="cannot tell"):
        check_mesh_name(Path("a.stl"))
