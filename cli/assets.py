"""`fourd assets`: list, locate, fetch, add, import and verify model files, and show their licences."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from fourdface.assets import Asset, asset_path, get_asset, load_registry, place_of
from fourdface.assets.fetch import add_asset, fetch_asset
from fourdface.assets.importer import import_file
from fourdface.assets.licences import accepted_licences
from fourdface.assets.verify import verify_asset
from fourdface.cli.options import json_option
from fourdface.cli.stream import byte_progress, echo_json

accept_option = click.option(
    "--accept-licence", is_flag=True, help="You have read and accept the licence that `fourd assets licences` names."
)


@click.group()
def command() -> None:
    """Manage model files and their licences. Compute commands never download by themselves."""


@command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List all assets: what they are for and whether they are here."""
    rows = [_row(asset) for asset in load_registry().values()]
    if as_json:
        echo_json(rows)
        return
    for row in rows:
        state = "here" if row["present"] else "missing"
        click.echo(f"{row['id']:<29} {row['class']:<9} {state:<8} {row['purpose']}")


@command.command("path")
@click.argument("asset_id", metavar="ID")
def path_command(asset_id: str) -> None:
    """Print where the file of asset ID lies."""
    click.echo(asset_path(asset_id))


@command.command("fetch")
@click.argument("asset_ids", metavar="ID...", nargs=-1, required=True)
@accept_option
def fetch_command(asset_ids: tuple[str, ...], accept_licence: bool) -> None:
    """Download the assets ID... from their publishers, checked by SHA-256."""
    for asset in [get_asset(asset_id) for asset_id in asset_ids]:
        with byte_progress(asset.id) as progress:
            place = fetch_asset(asset, accept_licence=accept_licence, progress=progress)
        click.echo(place)


@command.command("add")
@click.argument("asset_id", metavar="ID")
@click.argument("file", type=click.Path(path_type=Path))
@accept_option
def add_command(asset_id: str, file: Path, accept_licence: bool) -> None:
    """Take your own FILE as asset ID (for those that their publishers hand out after registration)."""
    click.echo(add_asset(get_asset(asset_id), file, accept_licence=accept_licence))


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "as_id", metavar="ID", help="Which asset it is, where several have the same structure.")
@click.option("--overwrite", is_flag=True, help="Replace what was imported as this asset before.")
@accept_option
def import_command(file: Path, as_id: str | None, overwrite: bool, accept_licence: bool) -> None:
    """Convert a published checkpoint or head model FILE into safetensors; nothing in it is executed."""
    done = import_file(file, as_id=as_id, overwrite=overwrite, accept_licence=accept_licence)
    what = f"{done.asset.id}: {done.tensors} tensors, {done.numbers} numbers" if done.tensors else done.asset.id
    use = "any use" if done.asset.commercial_use else "no commercial use"
    state = "imported" if done.written else "was imported before, nothing changed"
    logging.getLogger(__name__).info("%s; %s; licence: %s (%s)", what, state, done.asset.licence, use)
    click.echo(done.place)


@command.command("verify")
@click.argument("asset_ids", metavar="[ID]...", nargs=-1)
@click.pass_context
def verify_command(ctx: click.Context, asset_ids: tuple[str, ...]) -> None:
    """Check files against their SHA-256: all that are here, or the assets ID... (exit code 1 if one is not right)."""
    assets = [get_asset(asset_id) for asset_id in asset_ids] or list(load_registry().values())
    failed = 0
    for verdict in map(verify_asset, assets):
        if verdict.state == "missing" and not asset_ids and verdict.asset.kind != "embedded":
            continue
        failed += verdict.state in ("missing", "damaged")
        click.echo(f"{verdict.asset.id:<29} {verdict.state:<9} {verdict.detail}")
    if failed:
        ctx.exit(1)


@command.command("licences")
@json_option
def licences_command(as_json: bool) -> None:
    """Show the licence of every asset, whether it allows commercial use, and whether it was accepted here."""
    accepted = accepted_licences()
    rows = [
        {
            **{key: _row(asset)[key] for key in ("id", "licence", "commercial_use", "source")},
            "needs_acceptance": asset.needs_acceptance,
            "accepted": accepted.get(asset.id) == asset.licence,
        }
        for asset in load_registry().values()
    ]
    if as_json:
        echo_json(rows)
        return
    for row in rows:
        use = "any use" if row["commercial_use"] else "no commercial use"
        state = "accepted" if row["accepted"] else "not accepted"
        state = state if row["needs_acceptance"] else "needs no acceptance"
        click.echo(f"{row['id']:<29} {row['licence']} ({use}; {state})")
        click.echo(f"{'':<29} {row['source']}")


def _row(asset: Asset) -> dict[str, Any]:
    place = place_of(asset)
    return {
        "id": asset.id,
        "class": asset.kind,
        "purpose": asset.purpose,
        "present": place.is_file(),
        "path": str(place),
        "bytes": asset.bytes,
        "sha256": asset.sha256,
        "licence": asset.licence,
        "commercial_use": asset.commercial_use,
        "source": asset.source,
    }
