"""The network options of `lift`, `reenact` and `render`, and the networks that they open."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from fourdface.errors import UsageError

if TYPE_CHECKING:
    from fourdface.artifacts import Avatar, Weights
    from fourdface.methods.portrait4d.engine import Engine


BATCH_ON_GPU = 4
"""Frames at once where --batch is not given; a CPU is busy with one."""


@dataclasses.dataclass(frozen=True)
class NetworkRequest:
    """See `options.network_options`."""

    weights: str | None = None
    motion_weights: str | None = None
    precision: str = "auto"
    render_size: int | None = None
    seed: int | None = None
    device: str = "auto"
    batch: int | None = None
    compile: bool = False


@dataclasses.dataclass(frozen=True)
class OpenedEngine:
    """Networks that are ready to run, and the provenance of their weights."""

    engine: Engine
    weights: tuple[Weights, ...]


def take_network(options: dict[str, Any]) -> NetworkRequest:
    """Take the network options out of a command's options."""
    return NetworkRequest(**{field.name: options.pop(field.name) for field in dataclasses.fields(NetworkRequest)})


def refuse_network(request: NetworkRequest, **others: object) -> None:
    """UsageError where an option for networks is given for an avatar of Gaussians; `others`: more such options."""
    given = {**dataclasses.asdict(request), **others}
    usual = {**dataclasses.asdict(NetworkRequest()), **dict.fromkeys(others)}
    for name, value in given.items():
        if value and value != usual[name]:
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{option} is for avatars of Portrait4D (`fourd lift --method portrait4d-v2`); leave it out"
            )


def open_engine(request: NetworkRequest, method: str) -> OpenedEngine:
    """Load the networks of a method. FourdError with the steps to get them where weights are missing."""
    from fourdface.artifacts import Weights
    from fourdface.methods.portrait4d.engine import Engine, EngineOptions
    from fourdface.methods.portrait4d.weights import (
        METHODS,
        MOTION_ASSET,
        default_weights,
        load_motion_encoder,
        load_reconstructor,
    )

    variant = METHODS[method]
    device = device_of(request.device)
    options = EngineOptions(
        _precision(request.precision, device), request.render_size, request.seed, device,
        request.batch or (BATCH_ON_GPU if device == "cuda" else 1), request.compile,
    )  # fmt: skip
    network, origin = load_reconstructor(request.weights or default_weights(method))
    origins, encoder = [origin], None
    if variant.motion_scale and network.config.motion_encoder == "pdfgc":
        encoder, motion_origin = load_motion_encoder(request.motion_weights or MOTION_ASSET)
        origins.append(motion_origin)
    weights = tuple(Weights(entry.asset, entry.sha256, entry.licence, entry.commercial_use) for entry in origins)
    return OpenedEngine(Engine(network, encoder, variant.motion_scale, options), weights)


def engine_of(avatar: Avatar, request: NetworkRequest) -> OpenedEngine:
    """The networks that an avatar was lifted with. UsageError where other weights are given than those."""
    from fourdface.methods.portrait4d.weights import METHODS

    method = avatar.provenance.method
    if method not in METHODS:
        raise UsageError(f"the avatar says that it was made by {method!r}, expected one of {', '.join(METHODS)}")
    used = {entry.asset: entry.sha256 for entry in avatar.provenance.weights}
    variant = METHODS[method]
    known = [asset for asset in (variant.asset, variant.shipped) if asset in used]
    if request.weights is None and not known:
        names = ", ".join(used) or "unknown weights"
        raise UsageError(f"the avatar was lifted with a file of yours ({names}); give it again with --weights FILE")
    if request.weights is None:
        request = dataclasses.replace(request, weights=known[0])
    opened = open_engine(request, method)
    if not {entry.sha256 for entry in opened.weights} & set(used.values()):
        raise UsageError(
            f"the avatar was lifted with other weights ({', '.join(used)}) than {opened.weights[0].asset}; "
            "give those with --weights, or lift the photo again"
        )
    return opened


def device_of(name: str) -> str:
    """What --device stands for. UsageError for cuda where there is none."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no NVIDIA GPU here (`fourd doctor` says why); use --device cpu")
    return name


def _precision(name: str, device: str) -> str:
    """What `auto` stands for: bf16 where it is computed in hardware."""
    import torch

    if name != "auto":
        return name
    asked = [getattr(torch.cpu, f"_is_{unit}_supported", None) for unit in ("avx512_bf16", "amx_tile")]
    quick = device == "cuda" or any(supported() for supported in asked if supported is not None)
    return "bf16" if quick else "fp32"
