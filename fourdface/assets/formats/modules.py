"""State dictionaries and plain settings out of the inert values of a checkpoint.

Structure is what counts, never a class path: a module is whatever has `_parameters`, `_buffers` and `_modules`, be it
pickled by its class or by StyleGAN's persistence (a dictionary with the keys type, class_name, module_src and state).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fourdface.assets.formats.arrays import Array
from fourdface.assets.formats.errors import MOST_TENSORS, FormatError
from fourdface.assets.formats.safe_pickle import Global, Stub
from fourdface.assets.formats.torch_files import TensorReader

DEEPEST = 48
_MOST_SETTINGS = 5000
_PARTS = ("_parameters", "_buffers", "_modules")
_HIDDEN = ("training", "_init_args", "_init_kwargs")


def mapping_of(value: Any) -> dict[Any, Any] | None:
    """The items of a dictionary or of an object that behaves like one (OrderedDict, EasyDict), else None."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Stub):
        return None
    if value.items:
        return value.items
    if value.path == "collections.OrderedDict":
        pairs = value.args[0] if value.args else []
        if isinstance(pairs, list) and all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
            return {key: item for key, item in pairs if isinstance(key, str | int)}
    return None


def attributes_of(value: Any) -> dict[Any, Any] | None:
    """The attributes that an object would get, also those of a persistence pickle; None where there are none."""
    if not isinstance(value, Stub):
        return None
    state = value.state
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
        state = state[0]
    if state is None and len(value.args) == 1:
        meta = mapping_of(value.args[0])
        state = meta.get("state") if meta and "class_name" in meta else None
    return mapping_of(state)


def is_module(value: Any) -> bool:
    """Whether a value is a pickled torch module."""
    attributes = attributes_of(value)
    return attributes is not None and all(mapping_of(attributes.get(part)) is not None for part in _PARTS)


def class_name_of(value: Any) -> str:
    """The name of an object's class, as it was written down; for people to read only."""
    if not isinstance(value, Stub):
        return type(value).__name__
    if len(value.args) == 1 and (meta := mapping_of(value.args[0])) and isinstance(meta.get("class_name"), str):
        return str(meta["class_name"])[:80]
    first = value.args[0] if value.args else None
    return (first.path if isinstance(first, Global) and value.path.startswith("copyreg.") else value.path)[:80]


def module_tensors(
    module: Any, tensors: TensorReader, plain_attributes: tuple[str, ...] = ()
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The state dictionary of a pickled module, and those of its `plain_attributes` (full names) that are arrays.

    Raises:
        FormatError: nested too deep, too many tensors, or a tensor that is malformed.
    """
    found: dict[str, Array] = {}
    extras: dict[str, Array] = {}
    waiting: list[tuple[str, Any, int]] = [("", module, 0)]
    visits = 0
    while waiting:
        prefix, item, depth = waiting.pop()
        visits += 1
        attributes = attributes_of(item)
        if attributes is None:
            continue
        if depth > DEEPEST:
            raise FormatError(f"its modules are nested more than {DEEPEST} deep")
        skipped = _names(attributes.get("_non_persistent_buffers_set"))
        for part in ("_parameters", "_buffers"):
            for name, value in (mapping_of(attributes.get(part)) or {}).items():
                array = tensors.read(value)
                if array is not None and name not in skipped:
                    found[f"{prefix}{name}"] = array
        for path in plain_attributes:
            owner, _, name = path.rpartition(".")
            if prefix == (f"{owner}." if owner else "") and (array := tensors.read(attributes.get(name))) is not None:
                extras[path] = array
        if max(len(found), len(waiting), visits) > MOST_TENSORS:
            raise FormatError(f"it has more than {MOST_TENSORS} tensors or modules")
        children = mapping_of(attributes.get("_modules")) or {}
        waiting += [(f"{prefix}{name}.", child, depth + 1) for name, child in reversed(children.items())]
    return found, extras


def _names(value: Any) -> set[Any]:
    """A set as protocol 4 writes it, or as the call of `set` that older protocols write."""
    if isinstance(value, Stub) and value.path == "builtins.set" and len(value.args) == 1:
        value = value.args[0]
    return {name for name in value if isinstance(name, str)} if isinstance(value, list | set) else set()


def dictionary_tensors(value: Any, tensors: TensorReader) -> dict[str, Array] | None:
    """The tensors of a state dictionary, None where the value is none (no mapping, or one without any tensor)."""
    items = mapping_of(value)
    if not items:
        return None
    found = {}
    for name, item in items.items():
        array = tensors.read(item)
        if array is not None and isinstance(name, str):
            found[name] = array
        if len(found) > MOST_TENSORS:
            raise FormatError(f"it has more than {MOST_TENSORS} tensors")
    return found or None


def settings_of(module: Any, tensors: TensorReader) -> dict[str, Any]:
    """Constructor arguments and plain attributes of a pickled module as JSON data; what is not plain is left out."""
    attributes = attributes_of(module) or {}
    left = [_MOST_SETTINGS]
    settings = {
        "class_name": class_name_of(module),
        "init_args": plain(attributes.get("_init_args"), tensors, left),
        "init_kwargs": plain(attributes.get("_init_kwargs"), tensors, left),
    }
    names = [name for name in attributes if isinstance(name, str) and not name.startswith("_") and name not in _HIDDEN]
    values = {name: plain(attributes[name], tensors, left) for name in names}
    settings["attributes"] = {name: value for name, value in values.items() if value not in (None, {}, [])}
    return settings


def plain(value: Any, tensors: TensorReader, left: list[int], depth: int = 0) -> Any:
    """A value as JSON data: numbers, text, lists, dictionaries, single numpy numbers; None for everything else."""
    left[0] -= 1
    if left[0] < 0 or depth > 12:
        return None
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 63 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()[:2000]
    if isinstance(value, list | tuple):
        return [plain(item, tensors, left, depth + 1) for item in value[:1000]]
    if (items := mapping_of(value)) is not None:
        return _plain_items(items, tensors, left, depth)
    if isinstance(value, Stub):
        array = tensors.read(value)
        if array is not None and array.code != "BF16" and array.data.size <= 64:
            return plain(array.data.tolist(), tensors, left, depth + 1)
    return None


def _plain_items(items: Mapping[Any, Any], tensors: TensorReader, left: list[int], depth: int) -> dict[str, Any]:
    keys = [key for key in items if isinstance(key, str)][:1000]
    return {key[:200]: plain(items[key], tensors, left, depth + 1) for key in keys}
