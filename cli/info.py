"""`fourd info`: say what an artifact or a video holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from fourdface.artifacts import Artifact, read_any
from fourdface.artifacts._schema import Spec, is_given, specs
from fourdface.artifacts.rows import StoredRows
from fourdface.cli.options import json_option
from fourdface.cli.stream import STDIN, STREAM, echo_json, input_file


@click.command()
@click.argument("file", default="-")
@json_option
def command(file: str, as_json: bool) -> None:
    """Say what FILE holds (default: standard input): an artifact, checked whole, or a video and its tags."""
    name = STDIN if file == STREAM else file
    with input_file(file, "a fourd artifact", "pipe it in, or give a file name") as path:
        summary = summarise_video(path) if is_video(path) else summarise(read_any(path, name=name))
    if as_json:
        echo_json(summary)
    elif summary["kind"] == "video":
        for key, value in (summary | summary["tags"]).items():
            if key != "tags":
                click.echo(f"{key:<16} {value}")
    else:
        _print(summary)


def _print(summary: dict[str, Any]) -> None:
    click.echo(f"{summary['kind']} artifact, schema {summary['schema_version']}")
    for name, value in summary["provenance"].items():
        if value not in ("", [], "{}"):
            click.echo(f"  {name:<16} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    for row in summary["fields"]:
        details = ", ".join(filter(None, (row["units"], row["frame"])))
        click.echo(f"  {row['name']:<28} {row['value']:<24} {details}".rstrip())


def is_video(path: Path) -> bool:
    """Whether a file is an mp4 or Matroska one by its first bytes; frames may also be kept as such."""
    with open(path, "rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" or head.startswith(b"\x1aE\xdf\xa3")


def summarise_video(path: Path) -> dict[str, Any]:
    """What a video holds as plain data; its tags say whether fourd made it, and from what."""
    from fourdface.media.container import open_container
    from fourdface.media.video import VideoReader

    reader = VideoReader(path)
    with open_container(path, reader.name) as container:
        tags = dict(container.metadata)
    sound = "yes" if reader.audio is not None else "no"
    size = {"width": reader.width, "height": reader.height, "rate": str(reader.rate), "frames": reader.count_hint}
    return {"kind": "video", **size, "sound": sound, "tags": tags}


def summarise(artifact: Artifact) -> dict[str, Any]:
    """What an artifact holds as plain data: kind, schema, provenance, and one row for every field that is given."""
    rows: list[dict[str, Any]] = []
    for name, spec in specs(artifact):
        value = getattr(artifact, name)
        if spec.kind == "note" or not is_given(value):
            continue
        if spec.kind == "mapping":
            rows.extend(_row(f"{name}/{key}", entry, spec) for key, entry in value.items())
        else:
            rows.append(_row(name, value, spec))
    return {
        "kind": artifact.KIND,
        "schema_version": artifact.SCHEMA_VERSION,
        "provenance": dataclasses.asdict(artifact.provenance),
        "fields": rows,
    }


def _row(name: str, value: Any, spec: Spec) -> dict[str, Any]:
    row = {"name": name, "kind": spec.kind, "units": spec.units, "frame": spec.frame, "doc": spec.doc}
    if isinstance(value, np.ndarray | StoredRows):
        return {**row, "value": f"{value.dtype.name} {list(value.shape)}", "shape": list(value.shape)}
    if isinstance(value, bytes):
        return {**row, "value": f"{len(value)} bytes"}
    if spec.kind == "blobs":
        return {**row, "value": f"{len(value)} encoded files"}
    return {**row, "value": str(value)}
