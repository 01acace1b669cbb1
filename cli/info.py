"""`fourd info`: say what an artifact holds."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click
import numpy as np

from fourdface.artifacts import Artifact
from fourdface.artifacts._schema import Spec, is_given, specs
from fourdface.cli.options import json_option
from fourdface.cli.stream import echo_json, read_any_artifact


@click.command()
@click.argument("file", default="-")
@json_option
def command(file: str, as_json: bool) -> None:
    """Say what the artifact FILE holds (default: standard input), after checking it whole."""
    summary = summarise(read_any_artifact(file))
    if as_json:
        echo_json(summary)
        return
    click.echo(f"{summary['kind']} artifact, schema {summary['schema_version']}")
    for name, value in summary["provenance"].items():
        if value not in ("", [], "{}"):
            click.echo(f"  {name:<16} {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    for row in summary["fields"]:
        details = ", ".join(filter(None, (row["units"], row["frame"])))
        click.echo(f"  {row['name']:<28} {row['value']:<24} {details}".rstrip())


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
    if isinstance(value, np.ndarray):
        return {**row, "value": f"{value.dtype.name} {list(value.shape)}", "shape": list(value.shape)}
    if isinstance(value, bytes):
        return {**row, "value": f"{len(value)} bytes"}
    if spec.kind == "blobs":
        return {**row, "value": f"{len(value)} encoded files"}
    return {**row, "value": str(value)}
