"""What all artifacts share: provenance, validation, writing and reading."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import ClassVar, TypeVar

from fourdface.artifacts import _schema, _store
from fourdface.artifacts.atomic import replacing
from fourdface.artifacts.provenance import Provenance
from fourdface.errors import UsageError

A = TypeVar("A", bound="Artifact")


@dataclasses.dataclass(frozen=True, eq=False)
class Artifact:
    """Base of the artifact dataclasses; a subclass declares its fields with the helpers of `_schema`."""

    KIND: ClassVar[str] = ""
    SCHEMA_VERSION: ClassVar[int] = 1
    MADE_BY: ClassVar[str] = ""
    """The command that makes this kind, for the hint in an error."""

    provenance: Provenance = dataclasses.field(default_factory=Provenance, kw_only=True)

    def contradictions(self) -> list[str]:
        """What the declarations of single fields cannot say: one short phrase for each thing wrong between fields."""
        return []

    def validate(self) -> None:
        """Check every field against its declaration; raises one FourdError that lists all that is wrong."""
        _schema.require_valid(self, f"the {self.KIND} artifact")

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write to `path`, whole or not at all; an existing file needs `overwrite`.

        Equal content gives equal bytes. Raises FourdError (invalid content, full disk) or UsageError (file exists).
        """
        self.validate()
        with replacing(path, overwrite=overwrite) as temporary:
            _store.write_file(temporary, self.KIND, self.SCHEMA_VERSION, self.provenance, self)

    @classmethod
    def read(cls: type[A], path: str | os.PathLike[str], *, name: str = "") -> A:
        """Read and check the artifact at `path`; `name` stands for the path in errors ("standard input").

        Raises UsageError where the file is no artifact or one of another kind, FourdError where it is damaged or newer.
        """
        place = Path(path)
        words = name or str(place)
        with _store.open_file(place, words) as (file, header):
            if header.kind != cls.KIND:
                raise UsageError(
                    f"{words} is {article(header.kind)} artifact (schema {header.schema_version}), and "
                    f"{article(cls.KIND)} artifact is wanted; run {cls.MADE_BY} first"
                )
            values = _store.read_fields(file, cls, place, words)
        artifact = cls(provenance=header.provenance, **values)
        _schema.require_valid(artifact, words)
        return artifact


def article(word: str) -> str:
    """The word with its article: "an avatar", "a motion"."""
    return f"{'an' if word[:1] in 'aeiou' else 'a'} {word}"
