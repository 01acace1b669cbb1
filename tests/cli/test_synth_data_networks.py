"""`fourd synth-data genhead` and `video`: people of networks, here of random weights: all about the pictures counts."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourdface.artifacts import Views
from support.calling import fourd, good
from support.generated import write_genhead
from support.lifted import talking_motion, tracked_photo
from support.portraits import write_weights
from support.scenes import make_photo

SMALL = ("--motions", 2, "--views", 3, "--size", 32, "--per-shard", 1)


@pytest.fixture(scope="module")
def genhead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genhead(tmp_path_factory.mktemp("genhead"))


@pytest.fixture(scope="module")
def psi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("psi")
    write_weights(folder)
    return folder / "psi.safetensors"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("clip") / "clip.h5"
    tracked_photo(make_photo(144)).write(place)
    return place


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(float)


def test_people_of_a_genhead(genhead: Path, tmp_path: Path) -> None:
    call = ("synth-data", "genhead", genhead, *SMALL, "--count", 2)
    good(*call, "-o", tmp_path / "a", "--sheet", tmp_path / "sheet.png")
    good(*call, "-o", tmp_path / "b", "--shard", "1/2")
    assert (tmp_path / "a" / "views-00001.h5").read_bytes() == (tmp_path / "b" / "views-00001.h5").read_bytes()
    one, other = (Views.read(tmp_path / "a" / f"views-0000{k}.h5") for k in (0, 1))
    assert len(one) == 6 and one.depths is not None and one.provenance.synthetic_media
    assert [weights.asset for weights in one.provenance.weights] == ["open-head", "weights.safetensors"]
    assert not np.array_equal(one.shape[0], other.shape[0]) and (one.shape == one.shape[0]).all()
    assert np.abs(picture(one.images[0]) - picture(other.images[0])).mean() > 0.3
    depths = np.asarray(one.depths)
    seen = depths[depths > 0]
    assert not one.neck.any() and (seen > 0.9).all() and (seen < 1.8).all()


def test_static_people_have_one_motion_and_no_turned_jaw(genhead: Path, tmp_path: Path) -> None:
    good("synth-data", "genhead", genhead, *SMALL[2:], "--count", 4, "--per-shard", 4, "--static", "-o", tmp_path)
    views = Views.read(tmp_path / "views-00000.h5")
    assert not views.motion.any() and not views.jaw.any() and len(views) == 12


def test_people_move_as_the_clips_do(genhead: Path, clip: Path, tmp_path: Path) -> None:
    motion = talking_motion(4)
    motion.write(tmp_path / "m.h5")
    good("synth-data", "genhead", genhead, *SMALL, "--count", 1, "--clips", tmp_path / "m.h5", "--clips", clip,
         "-o", tmp_path / "out")  # fmt: skip
    views = Views.read(tmp_path / "out" / "views-00000.h5")
    known = [motion.expression, np.asarray(tracked_photo(make_photo(144)).expression)]
    assert any(all(np.abs(table - row).sum(1).min() < 1e-5 for row in views.expression) for table in known)
    assert any(np.allclose(views.shape[0], shape) for shape in [tracked_photo(make_photo(144)).shape])


def test_frames_of_a_clip_get_views(psi: Path, clip: Path, tmp_path: Path) -> None:
    call = ("synth-data", "video", clip, "--synthesizer", psi, *SMALL, "--perception", "embedded")
    good(*call, "-o", tmp_path / "a", "--sheet", tmp_path / "sheet.png")
    good(*call, "-o", tmp_path / "b")
    assert (tmp_path / "a" / "views-00000.h5").read_bytes() == (tmp_path / "b" / "views-00000.h5").read_bytes()
    views = Views.read(tmp_path / "a" / "views-00000.h5")
    assert views.view.tolist() == [0, 1, 2] and views.motion.tolist() == [0, 0, 0], "the clip has one frame"
    assert views.depths is None and views.background_index.tolist() == [-1] * 3 and views.names == {0: "clip.h5"}
    assert (views.expression == views.expression[0]).all() and "psi.safetensors" in str(views.provenance.weights)
    assert not np.array_equal(views.world_to_camera[1], views.world_to_camera[2])


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("genhead", "ABSENT", "--count", 1), 1, "holds no trained GenHead"),
        (("genhead", "TEXT", "--count", 1), 1, "holds no trained GenHead"),
        (("genhead", "GENHEAD"), 2, "say how many with --count"),
        (("genhead", "GENHEAD", "--count", 1, "--clips", "NOWHERE"), 1, "does not exist"),
        (("video", "CLIP", "--synthesizer", "nothing"), 1, "nothing"),
        (("video", "CLIP", "--synthesizer", "TEXT"), 1, "TEXT"),
        (("video", "CLIP", "--synthesizer", "PSI", "--neck", 0.5), 2, "--neck is for sources that pose heads"),
        (("video", "NOWHERE", "--synthesizer", "PSI"), 1, "does not exist"),
    ],
)
def test_refusals(words: tuple, code: int, sentence: str, genhead: Path, psi: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "TEXT.safetensors").write_text("x")
    places = {
        "ABSENT": tmp_path / "absent.safetensors", "TEXT": tmp_path / "TEXT.safetensors", "GENHEAD": genhead,
        "PSI": psi, "CLIP": clip, "NOWHERE": tmp_path / "nowhere",
    }  # fmt: skip
    call = [places.get(word, word) for word in words]
    result = fourd("synth-data", *call, "-o", tmp_path / "out")
    assert result.code in (code, 2) and sentence in result.sentence(result.code)
    assert not (tmp_path / "out").exists()
