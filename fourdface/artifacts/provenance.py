"""Where an artifact comes from: enough to repeat it, to credit it and to know that it is synthetic."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from fourdface import __version__
from fourdface.errors import FourdError


@dataclasses.dataclass(frozen=True)
class Source:
    """One input file: its base name and the SHA-256 of its bytes (lower-case hex)."""

    name: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Weights:
    """One asset that shaped the result: id in the registry, SHA-256, licence, and whether commercial use is allowed."""

    asset: str
    sha256: str
    licence: str
    commercial_use: bool


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What made an artifact. There is no clock time in it: the same call on the same input gives the same bytes."""

    command: str = ""
    """The command line, as one string."""
    config_json: str = "{}"
    """The resolved settings as JSON."""
    seed: int = 0
    sources: tuple[Source, ...] = ()
    weights: tuple[Weights, ...] = ()
    method: str = ""
    """The method id (``splat``, ``portrait4d``, ...)."""
    synthetic_media: bool = False
    """True where pixels are generated and not photographed."""
    fourd_version: str = __version__

    def attributes(self) -> dict[str, Any]:
        """The root attributes of the file, in the order in which they are written."""
        return {
            "fourd_version": self.fourd_version,
            "command": self.command,
            "config_json": self.config_json,
            "seed": self.seed,
            "sources_json": _to_json(self.sources),
            "weights_json": _to_json(self.weights),
            "method": self.method,
            "synthetic_media": self.synthetic_media,
        }

    @classmethod
    def from_attributes(cls, values: dict[str, Any]) -> Provenance:
        """The inverse of `attributes`; raises FourdError where the JSON is not of the expected form."""
        return cls(
            command=values["command"],
            config_json=values["config_json"],
            seed=values["seed"],
            sources=_from_json(Source, "sources_json", values["sources_json"]),
            weights=_from_json(Weights, "weights_json", values["weights_json"]),
            method=values["method"],
            synthetic_media=values["synthetic_media"],
            fourd_version=values["fourd_version"],
        )


def _to_json(rows: tuple[Any, ...]) -> str:
    return json.dumps([dataclasses.asdict(row) for row in rows], ensure_ascii=False)


def _from_json(cls: type[Any], name: str, text: str) -> tuple[Any, ...]:
    try:
        rows = tuple(cls(**row) for row in json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise FourdError(f"its attribute {name} is not the expected JSON list") from error
    for row in rows:
        for field in dataclasses.fields(cls):
            wanted = bool if field.name == "commercial_use" else str
            if not isinstance(getattr(row, field.name), wanted):
                raise FourdError(f"its attribute {name} holds a {field.name} that is no {wanted.__name__}")
    return rows
