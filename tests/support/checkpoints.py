"""Weight files as their publishers write them, made here: persistence pickles, state dictionaries, FLAME."""

from __future__ import annotations

import collections
import io
import pickle
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fourdface.assets.manifests import integer_tensors, manifest

FREE = 7
"""Length given to the axes that a manifest leaves open."""


HOOKS = tuple(
    f"_{time}_hooks{kind}"
    for time in ("backward", "backward_pre", "forward", "forward_pre", "state_dict", "load_state_dict_pre")
    for kind in ("", "_with_kwargs")
)
"""Dictionaries that every pickled module carries; the names vary with torch, their number is what costs time."""


def concrete(shape: Sequence[int | None]) -> tuple[int, ...]:
    """A shape of a manifest with every open axis closed."""
    return tuple(FREE if n is None else n for n in shape)


def flat_tensors(structure: str, value: float = 0.5) -> dict[str, torch.Tensor]:
    """Every tensor of a manifest in full shape, each a single number that is repeated by strides of 0."""
    whole = integer_tensors(structure) or ()
    return {
        name: torch.full((), value).to(torch.int64 if name in whole else torch.float32).expand(concrete(shape))
        for name, shape in manifest(structure).items()
    }


def reconstruct_persistent(meta: dict[str, Any]) -> Any:
    """Stands in for the function that StyleGAN's persistence writes into a pickle; never called when reading."""
    raise AssertionError("a pickle was executed")


class Module:
    """An object that pickles as a torch module does, by class path or by persistence, and holds what it is given."""

    persistent = True

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(training=False, _parameters={}, _buffers={}, _modules={})
        self.__dict__["_non_persistent_buffers_set"] = set()
        self.__dict__.update({name: collections.OrderedDict() for name in HOOKS}, in_features=3, bias_gain=1.0)
        self.__dict__.update(attributes)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.persistent:
            return (object.__new__, (type(self),), self.__dict__)
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": "Net"}
        return (reconstruct_persistent, ({**meta, "state": self.__dict__},))


def module_tree(tensors: Mapping[str, torch.Tensor], **attributes: Any) -> Module:
    """Nested modules whose state dictionary is `tensors`; the root has the attributes too."""
    root = Module(**attributes)
    for name, tensor in tensors.items():
        owner = root
        *path, leaf = name.split(".")
        for part in path:
            owner = owner.__dict__["_modules"].setdefault(part, Module())
        kind = "_parameters" if leaf in ("weight", "bias") else "_buffers"
        owner.__dict__[kind][leaf] = torch.nn.Parameter(tensor) if kind == "_parameters" else tensor
    return root


@contextmanager
def official_paths() -> Iterator[None]:
    """Let the stand-ins pickle under the names of the official code."""
    places: dict[str, dict[str, Any]] = {
        "torch_utils": {},
        "torch_utils.persistence": {"_reconstruct_persistent_obj": reconstruct_persistent},
    }
    names = reconstruct_persistent.__module__, reconstruct_persistent.__qualname__
    for module, content in places.items():
        sys.modules[module] = types.ModuleType(module)
        sys.modules[module].__dict__.update(content)
    reconstruct_persistent.__module__ = "torch_utils.persistence"
    reconstruct_persistent.__qualname__ = "_reconstruct_persistent_obj"
    try:
        yield
    finally:
        reconstruct_persistent.__module__, reconstruct_persistent.__qualname__ = names
        for module in places:
            del sys.modules[module]


def persistence_pickle(
    path: Path, generator: Any, discriminator: Any = None, protocol: int = 4, average: Any = None
) -> Path:
    """A file as EG3D's training loop writes it."""
    content = {
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "path": "/data/ffhq"},
        "G": generator,
        "D": discriminator,
        "G_ema": average or generator,
        "augment_pipe": None,
    }
    with official_paths(), open(path, "wb") as file:
        pickle.dump(content, file, protocol=protocol)
    return path


def flame_arrays() -> dict[str, np.ndarray]:
    """Random arrays in the shapes of FLAME."""
    random = np.random.default_rng(0)
    return {
        "v_template": random.normal(size=(5023, 3)),
        "shapedirs": random.normal(size=(5023, 3, 400)).astype(np.float32),
        "posedirs": np.zeros((5023, 3, 36)),
        "weights": np.full((5023, 5), 0.2),
        "J_regressor": random.normal(size=(5, 5023)) * (random.uniform(size=(5, 5023)) < 0.01),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
        "f": random.integers(0, 5023, (9976, 3)).astype(np.uint32),
    }


def legacy_torch_bytes(value: Any) -> bytes:
    """What torch wrote before its zip archives."""
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()
