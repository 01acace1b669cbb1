"""`fourd synth-data pictures`: photos of a folder tree become one shard of views; what shows no face is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fourdface.artifacts import Views
from fourdface.blocks.head_model import HeadModel
from fourdface.cli import synthesising_pictures
from support.calling import fourd
from support.seeing import FakePerception, picture


def test_photos_in_subfolders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = (FakePerception(), HeadModel.load("open"))
    monkeypatch.setattr(synthesising_pictures, "_tools", lambda *names: tools)
    for name, faces in (("00000/a.png", 1), ("00000/b.png", 0), ("00001/c.png", 1)):
        place = tmp_path / "photos" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(faces=faces)).save(place)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    made = fourd("synth-data", "pictures", tmp_path / "photos", "-o", tmp_path / "out", "--size", 64)
    assert made.code == 1 and "00000/b.png: no face found" in made.err
    views = Views.read(tmp_path / "out" / "views-00000.h5")
    assert views.names == {0: "00000/a.png", 2: "00001/c.png"} and views.depths is None
    assert views.width == 64 and views.opacities is not None and not views.provenance.synthetic_media
    again = fourd("synth-data", "pictures", tmp_path / "photos", "-o", tmp_path / "out", "--size", 64)
    assert again.code == 0, "what is complete is left alone"


def test_folders_without_photos_are_refused(tmp_path: Path) -> None:
    assert "no folder" in fourd("synth-data", "pictures", tmp_path / "x", "-o", tmp_path / "o").sentence()
    (tmp_path / "notes.txt").write_text("no picture")
    assert "holds no photo" in fourd("synth-data", "pictures", tmp_path, "-o", tmp_path / "o").sentence()
