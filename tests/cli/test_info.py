"""`fourd info`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fourdface.cli.main import cli
from support.artifacts import MAKERS, make_avatar, make_tracked


def info(*arguments: object, **extra: object) -> Result:
    return CliRunner().invoke(cli, ["info", *map(str, arguments)], **extra)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", MAKERS)
def test_it_lists_every_field_of_every_kind(kind: str, tmp_path: Path) -> None:
    MAKERS[kind]().write(tmp_path / "x.h5")
    result = info(tmp_path / "x.h5")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{kind} artifact, schema 1\n")
    spatial = () if kind == "report" else ("world_to_camera", "metres")
    for words in ("fourd lift 'my photo.jpg'", *spatial, "Apache-2.0", "synthetic_media"):
        assert words in result.output


def test_json_is_complete_and_typed(tmp_path: Path) -> None:
    make_tracked().write(tmp_path / "x.h5")
    data = json.loads(info(tmp_path / "x.h5", "--json").output)
    fields = {row["name"]: row for row in data["fields"]}
    assert data["kind"] == "tracked" and data["schema_version"] == 1
    assert data["provenance"]["sources"] == [{"name": "my photo.jpg", "sha256": "0" * 64}]
    assert data["provenance"]["synthetic_media"] is True
    assert fields["landmarks"]["shape"] == [3, 478, 2] and fields["landmarks"]["units"] == "pixels"
    assert fields["frame_blobs"]["value"] == "3 encoded files"
    assert "source_path" not in fields


def test_tensors_of_an_avatar_are_listed(tmp_path: Path) -> None:
    make_avatar().write(tmp_path / "x.h5")
    assert "tensors/color" in info(tmp_path / "x.h5").output


def test_stdin_is_the_default(tmp_path: Path) -> None:
    make_avatar().write(tmp_path / "x.h5")
    for arguments in ([], ["-"]):
        result = info(*arguments, input=(tmp_path / "x.h5").read_bytes())
        assert result.exit_code == 0 and result.output.startswith("avatar artifact")


def test_a_video_shows_its_tags(tmp_path: Path) -> None:
    from fractions import Fraction

    import numpy as np

    from fourdface.media.video import VideoWriter

    tags = {"comment": "synthetic media made by fourd", "synthetic_media": "true"}
    with VideoWriter(tmp_path / "out.mp4", 32, 16, Fraction(30000, 1001), metadata=tags) as writer:
        for _ in range(3):
            writer.write(np.zeros((16, 32, 3), np.uint8))
    data = json.loads(info(tmp_path / "out.mp4", "--json").output)
    assert (data["kind"], data["width"], data["height"], data["rate"]) == ("video", 32, 16, "30000/1001")
    assert data["tags"]["comment"] == "synthetic media made by fourd" and data["sound"] == "no"
    result = info(input=(tmp_path / "out.mp4").read_bytes())
    assert result.exit_code == 0 and "synthetic media made by fourd" in result.output


def test_what_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    result = info(tmp_path / "x.txt")
    assert result.exit_code == 2 and result.stdout == ""
    assert "is plain text, not a fourd artifact" in result.stderr
    assert info(tmp_path / "no.h5").exit_code == 1
