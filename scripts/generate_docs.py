"""Write the pages of docs/ that follow from the code: artifacts.md, from the artifact dataclasses, and eval.md.

Usage: python scripts/generate_docs.py [--check]    (--check writes nothing; exit code 1 if a page is out of date)
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from fourdface.artifacts import KINDS, Artifact
from fourdface.artifacts._schema import Spec, specs
from fourdface.artifacts.provenance import Provenance
from fourdface.metrics.judges import ROLES, JudgeSet
from fourdface.metrics.registry import METRICS, Entry

DOCS = Path(__file__).resolve().parents[1] / "docs"

HEAD = """\
# Artifacts

<!-- Written by scripts/generate_docs.py from the dataclasses in fourdface/artifacts/: do not edit. -->

What fourd's commands hand to each other, through files or pipes. Each kind is one HDF5 file and one frozen
dataclass with `write`, `read` and `validate`; `fourd info FILE` lists what a file holds. Conventions:
[conventions.md](conventions.md).

```python
from fourdface.artifacts import Avatar

avatar = Avatar.read("avatar.h5")
avatar.tensors["color"]          # numpy arrays
avatar.write("copy.h5")          # whole or not at all
```

## Reading and writing
- Writing is atomic: a temporary file beside the target is flushed and moved. Equal content gives equal bytes;
  there is no clock time inside.
- Reading checks the length against the superblock, every size against the length before memory is taken, and
  the CRC-32 of every array. Sequences of encoded pictures (`blobs`) and arrays `by row` stay on disk, and each
  entry or row is checked when it is taken.
- Files from elsewhere cannot lead out of themselves: links, virtual, external, chunked and compressed datasets
  and object types are refused. Unknown groups are ignored, missing fields are all listed, a newer schema is
  refused.
- To change a file, read it, use `dataclasses.replace`, and write: an array edited in place no longer fits its
  checksum.

## The layout in the file
- An *array* is a contiguous dataset with the attributes `axes`, `units`, `frame` and `crc32`.
- An array *by row* has the CRC-32 of its rows beside it, as `NAME_checksums`; in files of earlier versions, which
  lack them, the whole array is checked when the file is opened.
- *Integers* and *text* are attributes of the root or of their group; text is UTF-8 of fixed length.
- *Blobs* are a group with `data` (all bytes), `offsets` (one more than there are entries) and `checksums`
  (CRC-32).
- A *mapping* is a group with one array for each name.
- A field in a group (`head/...`) is given together with all others of its group, or not at all.

In the axes, a number is fixed, a letter is one size throughout the artifact (T frames, S identity modes, H and
W rows and columns), `*` is any size and `...` any shape.

## Provenance: the root attributes of every kind

| attribute | holds |
|---|---|
| `fourd_kind` | the kind |
| `schema_version` | a whole number; readers take their own and older ones |
"""

PROVENANCE = {
    "fourd_version": "version of the writer",
    "command": "the command line",
    "config_json": "the resolved settings",
    "seed": "the random seed",
    "sources_json": "list of `{name, sha256}`: the files it was made from",
    "weights_json": "list of `{asset, sha256, licence, commercial_use}`: the models that shaped it",
    "method": "the method id",
    "synthetic_media": "true where pixels are generated",
}


def artifacts_page() -> str:
    """The text of docs/artifacts.md."""
    unexplained = set(Provenance().attributes()) ^ set(PROVENANCE)
    if unexplained:
        raise SystemExit(f"PROVENANCE in this script does not fit the code: {', '.join(sorted(unexplained))}")
    rows = [f"| `{name}` | {PROVENANCE[name]} |" for name in Provenance().attributes()]
    return HEAD + "\n".join(rows) + "\n" + "".join(_kind_section(cls) for cls in KINDS.values())


def _kind_section(cls: type[Artifact]) -> str:
    lines = [f"\n## `{cls.KIND}` (schema {cls.SCHEMA_VERSION})\n", inspect.cleandoc(cls.__doc__ or ""), ""]
    lines += [f"Made by {cls.MADE_BY}; class `fourdface.artifacts.{cls.__name__}`.\n"]
    lines += ["| field | type | axes | units | frame | holds |", "|---|---|---|---|---|---|"]
    lines += [_row(name, spec) for name, spec in specs(cls) if spec.kind != "note"]
    return "\n".join(lines) + "\n"


def _row(name: str, spec: Spec) -> str:
    array = f"{spec.dtype} by row" if spec.by_row else spec.dtype
    kind = {"array": array, "mapping": f"{spec.dtype or 'any'} by name"}.get(spec.kind, spec.kind)
    full = f"{spec.group}/{name}" if spec.group else name
    optional = " (optional)" if spec.optional else ""
    axes = f"`{spec.axes}`" if spec.kind in ("array", "blobs", "mapping") else ""
    return f"| `{full}` | {kind} | {axes} | {spec.units} | {spec.frame} | {spec.doc}{optional} |"


def eval_page() -> str:
    """The text of docs/eval.md: scripts/eval_page.md, with the table of metrics where it says METRICS."""
    lines = ["| name | what | unit | better | formula | source | network | crop | where it cannot be measured |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [_metric_row(name, METRICS[name]) for name in METRICS]
    text = Path(__file__).with_name("eval_page.md").read_text(encoding="utf-8")
    return text.replace("METRICS\n", "\n".join(lines) + "\n")


def _metric_row(name: str, entry: Entry) -> str:
    judges = JudgeSet(words={role: f"judge: {role}" for role in ROLES} | {"motion": "asset pdfgc-motion"})
    info = entry.make(judges).info
    every = "; needs every frame" if entry.every_frame else ""
    cells = (
        info.title,
        info.unit,
        info.direction,
        info.formula + every,
        info.source,
        info.network or "none",
        info.crop,
    )
    return f"| `{name}` | " + " | ".join(cell.replace("|", "\\|") for cell in (*cells, info.missing)) + " |"


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which are out of date."""
    stale = []
    for name, text in {"artifacts.md": artifacts_page(), "eval.md": eval_page()}.items():
        place = DOCS / name
        if place.is_file() and place.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            place.write_text(text, encoding="utf-8")
            print(f"wrote {place}")
    if stale and "--check" in arguments:
        print(f"out of date: {', '.join(stale)}; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
