"""The outline of an ONNX file: its inputs and outputs. Nothing is run and no protobuf library is needed.

Field numbers are those of the public onnx.proto: model.graph = 7; graph.node = 1, initializer = 5, input = 11,
output = 12; value.name = 1, value.type = 2; type.tensor = 1; tensor.elem_type = 1, tensor.shape = 2; shape.dim = 1;
dim.value = 1, dim.name = 2; tensor(initializer).name = 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fourdface.assets.formats.errors import FormatError

_MOST_FIELDS = 100_000
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Outline:
    """Names and shapes of what goes in and comes out; None for a length that is not fixed."""

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


def looks_like_onnx(data: memoryview) -> bool:
    """Whether the first field is the format version, a small number, as every ONNX writer puts it."""
    return len(data) > 16 and data[0] == 0x08 and 1 <= data[1] <= 20 and data[2] in (0x12, 0x1A, 0x22, 0x3A, 0x42)


def read_outline(data: memoryview) -> Outline:
    """Inputs (without the weights that old writers list among them) and outputs; FormatError for damage."""
    graphs = [value for number, value in _fields(data) if number == 7 and isinstance(value, memoryview)]
    if len(graphs) != 1:
        raise FormatError("it is not an ONNX model: it has no graph")
    weights: set[str] = set()
    inputs: dict[str, Shape] = {}
    outputs: dict[str, Shape] = {}
    nodes = 0
    for number, value in _fields(graphs[0]):
        if not isinstance(value, memoryview):
            continue
        nodes += number == 1
        if number == 5:
            weights.add(next((_text(v) for n, v in _fields(value) if n == 8), ""))
        elif number in (11, 12):
            name, shape = _value(value)
            (inputs if number == 11 else outputs)[name] = shape
    if not nodes or not outputs:
        raise FormatError("its ONNX graph computes nothing")
    return Outline({name: shape for name, shape in inputs.items() if name not in weights}, outputs)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value (a number, or the bytes of a longer field) of a protobuf message."""
    at = 0
    for _ in range(_MOST_FIELDS):
        if at >= len(data):
            return
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(kind, -1)
        if not 0 <= length <= len(data) - at or number == 0:
            raise FormatError("its ONNX content is damaged or cut off")
        yield number, data[at : at + length]
        at += length
    raise FormatError("its ONNX content has more parts than any model needs")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise FormatError("its ONNX content is damaged or cut off")


def _text(value: int | memoryview) -> str:
    return str(value, "utf-8", "replace")[:200] if isinstance(value, memoryview) else ""


def _inside(data: int | memoryview, number: int) -> list[int | memoryview]:
    return [value for n, value in _fields(data) if n == number] if isinstance(data, memoryview) else []


def _value(data: memoryview) -> tuple[str, Shape]:
    names = _inside(data, 1)
    lengths: list[int | None] = []
    for kind in _inside(data, 2):
        for tensor in _inside(kind, 1):
            for shape in _inside(tensor, 2):
                for dimension in _inside(shape, 1):
                    fixed = next((value for value in _inside(dimension, 1) if isinstance(value, int)), None)
                    lengths.append(fixed)
    return (_text(names[0]) if names else ""), tuple(lengths)
