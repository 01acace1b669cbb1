"""What a weight file is: told by the names and shapes of its tensors, never by class paths or file names."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from fourdface.assets.formats.arrays import Array
from fourdface.assets.formats.errors import MOST_TENSORS, FormatError, damage_refused
from fourdface.assets.formats.modules import dictionary_tensors, is_module, mapping_of, module_tensors, settings_of
from fourdface.assets.formats.onnx_files import Outline
from fourdface.assets.formats.opening import Opened
from fourdface.assets.formats.torch_files import TensorReader
from fourdface.assets.manifests import OPTIONAL, Difference, all_manifests, compare, describe, integer_tensors

PLAIN_ATTRIBUTES = tuple(f"deformer.flame_deform.{name}" for name in ("face_mask", "eye_mask", "face_wo_eye_mask"))
"""Arrays that inference needs and that the official networks keep outside of their state dictionary."""
PREFIXES = {"lp3d-voodoo": "triplane_encoder."}
"""Structures that are a part of a larger checkpoint, under this prefix."""
OPEN_ENDED = ("pdfgc-motion",)
"""Structures whose published file may hold more than the part that is used."""
DISCRIMINATORS = ("portrait4d-discriminator", "eg3d-discriminator")

FLAME_SHAPES: dict[str, tuple[int, ...]] = {
    "v_template": (5023, 3),
    "shapedirs": (5023, 3, 400),
    "posedirs": (5023, 3, 36),
    "weights": (5023, 5),
    "J_regressor": (5, 5023),
    "kintree_table": (2, 5),
    "f": (9976, 3),
}
FLAME_MASKS = ("face", "left_eyeball", "right_eyeball", "lips")
_MOST_NESTED = 32
_LIKE = 0.5
"""Part of the names that must agree before a file is called a damaged or other version of something."""


@dataclasses.dataclass(frozen=True, eq=False)
class Recognised:
    """A file whose structure is known: tensors in the manifest's names, and what else is worth keeping."""

    structure: str
    tensors: dict[str, Array]
    network: str = ""
    """Which of the networks of the file this is, such as G_ema."""
    extras: dict[str, Array] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    discriminator: Recognised | None = None
    left_out: tuple[str, ...] = ()
    """Other networks of the file, which were not converted."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    network: str
    tensors: dict[str, Array]
    extras: dict[str, Array] = dataclasses.field(default_factory=dict)
    module: Any = None


def recognise(opened: Opened) -> Recognised:
    """Find the structure that a file has.

    Raises:
        FormatError: no known structure; the text says what is there, or the first differences from the nearest one.
    """
    with damage_refused():
        return _recognise(opened)


def _recognise(opened: Opened) -> Recognised:
    if opened.outline is not None:
        return Recognised(_onnx_structure(opened.outline), {})
    items = mapping_of(opened.root) if opened.arrays is None else None
    arrays = opened.arrays
    if items and "v_template" in items:  # only what is needed: chumpy's derived arrays beside it are expressions
        arrays = dictionary_tensors({name: items.get(name) for name in FLAME_SHAPES}, opened.tensors)
    elif items and set(FLAME_MASKS) <= set(items):
        arrays = dictionary_tensors(items, opened.tensors)
    if arrays and "v_template" in arrays and "shapedirs" in arrays:
        return Recognised("flame", _flame(arrays))
    if arrays and set(FLAME_MASKS) <= set(arrays):
        return Recognised("flame-masks", _masks(arrays))
    candidates = [_Candidate("", arrays)] if arrays is not None else list(_candidates(opened.root, opened.tensors))
    return _best(candidates, opened.tensors, items or {})


# ------------------------------------------------------------------------------------------------------------ networks


def _candidates(root: Any, tensors: TensorReader) -> Iterator[_Candidate]:
    """The networks of a file, the most wanted first."""
    if is_module(root):
        yield _of_module("", root, tensors)
        return
    items = mapping_of(root) or {}
    for name in ("G_ema", "G"):
        if is_module(items.get(name)):
            yield _of_module(name, items[name], tensors)
            return
    direct = dictionary_tensors(root, tensors)
    if direct:
        yield _Candidate("", _without_module(direct))
    nested = {}
    for name, value in list(items.items())[:_MOST_NESTED]:
        if isinstance(name, str) and mapping_of(value) and (found := dictionary_tensors(value, tensors)):
            nested[name] = _without_module(found)
            if sum(map(len, nested.values())) > MOST_TENSORS:
                raise FormatError(f"it has more than {MOST_TENSORS} tensors")
            yield _Candidate(name, nested[name])
    if len(nested) > 1:
        yield _Candidate("", {f"{part}.{name}": a for part, found in nested.items() for name, a in found.items()})


def _of_module(name: str, module: Any, tensors: TensorReader) -> _Candidate:
    found, extras = module_tensors(module, tensors, PLAIN_ATTRIBUTES)
    return _Candidate(name, found, extras, module)


def _without_module(tensors: dict[str, Array]) -> dict[str, Array]:
    """Names without the prefix that torch's DataParallel adds."""
    if all(name.startswith("module.") for name in tensors):
        return {name.removeprefix("module."): array for name, array in tensors.items()}
    return tensors


def _best(candidates: list[_Candidate], tensors: TensorReader, items: dict[Any, Any]) -> Recognised:
    nearest: tuple[float, str] = (0.0, "")
    for candidate in candidates:
        for structure, expected in all_manifests().items():
            found, difference = _compared(candidate.tensors, structure)
            if difference.none:
                _require_kinds(found, structure)
                settings = settings_of(candidate.module, tensors) if candidate.module is not None else {}
                judge = _discriminator(items.get("D"), tensors)
                used = {candidate.network, "D" if judge else ""}
                return Recognised(
                    structure,
                    _completed(found, structure),
                    candidate.network,
                    candidate.extras,
                    settings,
                    judge,
                    tuple(str(name)[:60] for name in items if is_module(items[name]) and name not in used),
                )
            if difference.common and (score := difference.likeness - 1e-3 * len(difference.wrong)) > nearest[0]:
                shapes = {name: array.shape for name, array in found.items()}
                nearest = (score, f"it is almost {structure}, but {describe(difference, shapes, expected)}")
    if nearest[0] > _LIKE:
        raise FormatError(nearest[1])
    raise FormatError(_unknown(candidates))


def _require_kinds(tensors: dict[str, Array], structure: str) -> None:
    """Whole numbers where the network has whole numbers, and floating point where it has weights."""
    whole = integer_tensors(structure)
    if whole is None:
        return
    words = {True: "whole numbers", False: "floating-point numbers"}
    for name, array in tensors.items():
        found = array.data.dtype.kind != "f" and array.code != "BF16"
        if found != (name in whole) and name not in OPTIONAL:
            raise FormatError(f"it is almost {structure}, but {name} holds {words[found]}, expected {words[not found]}")


def _compared(tensors: dict[str, Array], structure: str) -> tuple[dict[str, Array], Difference]:
    """The tensors that count for a structure, and how they differ from its manifest."""
    expected = all_manifests()[structure]
    prefix = PREFIXES.get(structure, "")
    if prefix and any(name.startswith(prefix) for name in tensors):
        tensors = {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
    if structure in OPEN_ENDED:
        tensors = {name: array for name, array in tensors.items() if name in expected}
    return tensors, compare({name: array.shape for name, array in tensors.items()}, expected)


def _completed(tensors: dict[str, Array], structure: str) -> dict[str, Array]:
    """Exactly the names of the manifest: without tolerated others, with zeros for optional ones that are missing."""
    zero = Array("I64", np.zeros((), np.int64))
    return {name: tensors.get(name, zero) for name in all_manifests()[structure]}


def _discriminator(value: Any, tensors: TensorReader) -> Recognised | None:
    """The discriminator beside a generator, which training starts from; None where there is none that is known."""
    if not is_module(value):
        return None
    found, _ = module_tensors(value, tensors)
    for structure in DISCRIMINATORS:
        if _compared(found, structure)[1].none:
            _require_kinds(found, structure)
            return Recognised(structure, _completed(found, structure), "D", settings=settings_of(value, tensors))
    return None


def _unknown(candidates: list[_Candidate]) -> str:
    if not candidates or not any(candidate.tensors for candidate in candidates):
        return "it holds no weights of a network"
    names = max((candidate.tensors for candidate in candidates), key=len)
    first = ", ".join(f"{name[:60]} {'x'.join(map(str, array.shape))}" for name, array in list(names.items())[:2])
    return f"it holds {len(names)} tensors ({first}...), and no model that fourd knows has these"


# --------------------------------------------------------------------------------------------------------- other files


def _flame(arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays of a FLAME model in FLAME's own names, checked; whole numbers as int64."""
    for name, shape in FLAME_SHAPES.items():
        if name not in arrays:
            raise FormatError(f"it is almost a FLAME model, but {name} is missing")
        if arrays[name].shape != shape:
            got, want = ("x".join(map(str, part)) for part in (arrays[name].shape, shape))
            raise FormatError(f"it is almost a FLAME model, but {name} has the shape {got}, expected {want}")
    found = {name: arrays[name] for name in FLAME_SHAPES}
    for name in ("f", "kintree_table"):
        values = found[name].data
        if values.dtype.kind not in "iu":
            raise FormatError(f"it is almost a FLAME model, but {name} holds no whole numbers")
        found[name] = Array("I64", values.astype(np.int64))
    faces = found["f"].data
    if int(faces.min()) < 0 or int(faces.max()) >= FLAME_SHAPES["v_template"][0]:
        raise FormatError("it is almost a FLAME model, but a face points to a vertex that does not exist")
    return found


def _masks(arrays: dict[str, Array]) -> dict[str, Array]:
    """Vertex lists of FLAME's regions by name, as int64."""
    found = {}
    for name, array in arrays.items():
        values = array.data
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise FormatError(f"it is almost FLAME's masks, but {name[:60]} is no list of vertices")
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < FLAME_SHAPES["v_template"][0]:
            raise FormatError(f"it is almost FLAME's masks, but {name[:60]} points to a vertex that does not exist")
        found[name] = Array("I64", values.astype(np.int64))
    return found


def _onnx_structure(outline: Outline) -> str:
    """insightface's networks by what goes in and comes out."""
    inputs, outputs = list(outline.inputs.values()), list(outline.outputs.values())
    picture = len(inputs) == 1 and len(inputs[0]) == 4 and inputs[0][1] == 3
    if picture and len(outputs) in (6, 9):
        return "insightface-scrfd"
    if picture and len(outputs) == 1 and outputs[0][-1:] == (212,) and inputs[0][2:] == (192, 192):
        return "insightface-landmarks"
    if picture and len(outputs) == 1 and outputs[0][-1:] == (512,) and inputs[0][2:] == (112, 112):
        return "insightface-recognition"
    described = f"{len(inputs)} inputs and {len(outputs)} outputs"
    raise FormatError(f"it is an ONNX model with {described}, and none that fourd knows has these")
