"""`fourd assets import`: published files become safetensors, whatever wrote them."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import json
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import scipy.sparse
import torch
from conftest import data_folder

from fourdface.assets import find_asset, load_extras, load_record, load_registry, load_weights
from fourdface.assets.formats.errors import FormatError
from fourdface.assets.formats.opening import open_weights, read_weights
from fourdface.assets.formats.safe_pickle import read_pickle
from fourdface.assets.formats.safetensors_files import write_safetensors
from fourdface.assets.formats.torch_files import TensorReader
from fourdface.assets.importer import choose_asset, import_file
from fourdface.assets.manifests import all_manifests, manifest
from fourdface.assets.recognise import FLAME_MASKS, PLAIN_ATTRIBUTES, recognise
from fourdface.assets.weights import _tensor
from fourdface.errors import FourdError
from support.calling import files, fourd, good
from support.checkpoints import (
    FREE,
    concrete,
    flame_arrays,
    flat_tensors,
    legacy_torch_bytes,
    module_tree,
    persistence_pickle,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty asset folder of the test's own."""
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path / "assets"))
    return tmp_path / "assets"


def random_tensors(structure: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(concrete(shape)) for name, shape in manifest(structure).items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return set(left) == set(right) and all(torch.equal(left[name], right[name]) for name in left)


# ------------------------------------------------------------------------------------------------- persistence pickles


@pytest.mark.real
def test_the_persistence_pickle_of_the_official_code_imports(folder: Path) -> None:
    """Read by the project's reader, compared with the numbers that torch itself finds in the file."""
    source = data_folder().parent / "parity" / "portrait4d" / "tiny_persistence_style.pkl"
    if not source.is_file():
        pytest.skip(f"no fixture {source}")
    outcome = good("assets", "import", source)
    place = folder / "osg-decoder" / "weights.safetensors"
    assert outcome.out.decode().strip() == str(place) and "6 tensors, 4257 numbers; imported" in outcome.err
    tensors = safetensors.torch.load_file(place)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == manifest("osg-decoder")
    raw = source.read_bytes()
    for name, tensor in tensors.items():
        assert tensor.numpy().tobytes() in raw, f"the numbers of {name} are not those of the file"
    record = json.loads((folder / "osg-decoder" / "weights.json").read_text())
    assert record["network"] == "G_ema" and record["left_out"] == ["G", "D"] and record["source"]["name"] == source.name
    assert record["settings"]["init_args"] == [32, {"decoder_lr_mul": 1.0, "decoder_output_dim": 32}]
    assert "nothing changed" in good("assets", "import", source).err
    assert files(place.parent) == [".lock", "weights.json", "weights.safetensors"]


def test_import_then_load(tmp_path: Path) -> None:
    tensors = random_tensors("osg-decoder")
    import_file(persistence_pickle(tmp_path / "x.pkl", module_tree(tensors, _init_kwargs={"a": 1, "f": (2, None)})))
    assert same(load_weights("osg-decoder"), tensors)
    assert same(load_weights("osg-decoder", "osg-decoder"), tensors)
    assert load_record("osg-decoder")["settings"]["init_kwargs"] == {"a": 1, "f": [2, None]}
    assert load_extras("osg-decoder") == {}
    with pytest.raises(FourdError, match=r"does not fit: .* is missing"):
        load_weights("osg-decoder", "bfm2flame")


@pytest.mark.parametrize(
    ("file_name", "asset_id"),
    [
        ("portrait4d-v2-vfhq512.pkl", "portrait4d-v2-vfhq512"),
        ("portrait4d-genhead512.pkl", "portrait4d-genhead512"),
        ("portrait4d-static-genhead512.pkl", "portrait4d-static-genhead512"),
    ],
)
def test_reconstructors_of_one_structure_are_told_apart_by_name(file_name: str, asset_id: str) -> None:
    assert choose_asset("portrait4d-psi", file_name, None).id == asset_id
    assert choose_asset("portrait4d-psi", "other.pkl", asset_id).id == asset_id


def test_a_structure_that_several_share_needs_a_name() -> None:
    with pytest.raises(FourdError, match="share: say which with --as ID"):
        choose_asset("portrait4d-psi", "network-snapshot.pkl", None)
    with pytest.raises(FourdError, match=r"fits portrait4d-v2-vfhq512, .*, not flame2020"):
        choose_asset("portrait4d-psi", "x.pkl", "flame2020")
    with pytest.raises(FourdError, match="there is no asset 'x'"):
        choose_asset("portrait4d-psi", "x.pkl", "x")
    assert choose_asset("eg3d", "ffhqrebalanced512-64.pkl", None).id == "eg3d-ffhqrebalanced512"
    assert choose_asset("eg3d", "ffhq512-128.pkl", None).id == "eg3d-ffhq512"


def test_every_structure_has_an_asset_and_every_asset_a_structure() -> None:
    named = {asset.structure for asset in load_registry().values() if asset.structure}
    assert set(all_manifests()) <= named
    assert named - set(all_manifests()) == {"flame", "flame-masks", "insightface-scrfd"}


def test_the_documentation_lists_what_is_recognised() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "assets.md").read_text(encoding="utf-8")
    for asset in load_registry().values():
        if asset.structure:
            row = next((line for line in page.splitlines() if line.startswith(f"| `{asset.id}` |")), "")
            assert asset.licence in row and f"| {asset.structure}, " in row, f"{asset.id} is not in docs/assets.md"


# ---------------------------------------------------------------------------------------- every structure, full size


@pytest.mark.parametrize("structure", sorted(all_manifests()))
def test_full_state_dictionaries_are_recognised(structure: str, tmp_path: Path) -> None:
    """All names in full shape; every tensor is one number with strides of 0, so that the file is small."""
    tensors: dict[str, Any] = flat_tensors(structure)
    if structure == "lp3d-voodoo":
        tensors = {f"triplane_encoder.{name}": tensor for name, tensor in tensors.items()}
        tensors["renderer.weight"] = torch.zeros(3)
    torch.save(tensors, tmp_path / "x.pth")
    found = recognise(open_weights(tmp_path / "x.pth"))
    assert found.structure == structure
    assert {name: array.shape for name, array in found.tensors.items()} == {
        name: concrete(shape) for name, shape in manifest(structure).items()
    }


@pytest.mark.parametrize("structure", ["portrait4d-psi", "genhead", "eg3d", "next3d", "panohead"])
@pytest.mark.parametrize("persistent", [True, False])
def test_full_pickled_networks_are_recognised(structure: str, persistent: bool, tmp_path: Path) -> None:
    """By persistence or by class path, with FLAME's masks as plain attributes and a discriminator beside it."""
    generator = module_tree(flat_tensors(structure), rendering_kwargs={"box_warp": 1.3}, neural_rendering_resolution=64)
    discriminator = module_tree(flat_tensors("portrait4d-discriminator"))
    for name in PLAIN_ATTRIBUTES if "deformer" in generator.__dict__["_modules"] else ():
        owner = generator
        for part in name.split(".")[:-1]:
            owner = owner.__dict__["_modules"][part]
        owner.__dict__[name.split(".")[-1]] = torch.arange(FREE)
    for network in (generator, discriminator):
        _make_persistent(network, persistent)
    source = persistence_pickle(tmp_path / "x.pkl", generator, discriminator)
    found = recognise(open_weights(source))
    assert found.structure == structure and found.network == "G_ema"
    assert set(found.tensors) == set(manifest(structure))
    assert found.settings["attributes"]["rendering_kwargs"] == {"box_warp": 1.3}
    assert found.discriminator is not None and found.discriminator.structure == "portrait4d-discriminator"
    assert set(found.extras) == (set(PLAIN_ATTRIBUTES) if structure in ("portrait4d-psi", "genhead") else set())


def _make_persistent(module: Any, persistent: bool) -> None:
    module.__dict__["persistent"] = persistent
    for child in module.__dict__["_modules"].values():
        _make_persistent(child, persistent)


def test_buffers_that_inference_never_reads_may_be_missing(tmp_path: Path) -> None:
    tensors = flat_tensors("arcface-iresnet18")
    fewer = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(fewer) < len(tensors)
    torch.save(fewer, tmp_path / "x.pth")
    assert set(recognise(open_weights(tmp_path / "x.pth")).tensors) == set(tensors)
    generator = {**flat_tensors("eg3d"), "dataset_label_std": torch.zeros(25)}
    torch.save(generator, tmp_path / "x.pth")
    assert "dataset_label_std" not in recognise(open_weights(tmp_path / "x.pth")).tensors


def test_weights_with_a_discriminator_and_extras_load_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way with a small network of the same form."""
    small = {"decoder.net.0.weight": (4, 3), "decoder.net.0.bias": (4,)}
    table = {**all_manifests(), "tiny-psi": small, "portrait4d-discriminator": {"b4.weight": (2, 2)}}
    monkeypatch.setattr("fourdface.assets.manifests.all_manifests", lambda: table)
    monkeypatch.setattr("fourdface.assets.recognise.all_manifests", lambda: table)
    monkeypatch.setattr("fourdface.assets.weights.all_manifests", lambda: table)
    registry = tmp_path / "r.yaml"
    registry.write_text(
        "tiny: {class: gated, purpose: t, file: weights.safetensors, licence: l, commercial_use: true, source: s, "
        "structure: tiny-psi}\n"
    )
    monkeypatch.setenv("FOURD_REGISTRY", str(registry))
    tensors = {name: torch.randn(shape) for name, shape in small.items()}
    generator = module_tree(tensors)
    deformer = module_tree({"flame_deform.x": torch.zeros(1)})
    deformer.__dict__["_modules"]["flame_deform"].__dict__.update(face_mask=np.arange(5), _buffers={})
    generator.__dict__["_modules"]["deformer"] = deformer
    judge = {"b4.weight": torch.randn(2, 2)}
    source = persistence_pickle(tmp_path / "tiny.pkl", generator, module_tree(judge))
    good("assets", "import", source)
    assert same(load_weights("tiny"), tensors)
    assert load_extras("tiny")["deformer.flame_deform.face_mask"].tolist() == [0, 1, 2, 3, 4]
    assert same(load_weights("tiny", discriminator=True), judge)
    assert same(load_weights(source), tensors) and same(load_weights(source, discriminator=True), judge)
    assert load_record("tiny")["discriminator"]["structure"] == "portrait4d-discriminator"
    assert load_record("tiny")["left_out"] == ["G"]
    other = persistence_pickle(tmp_path / "other.pkl", module_tree(tensors))
    sentence = fourd("assets", "import", other).sentence()
    assert "tiny was imported before from tiny.pkl" in sentence and "--overwrite replaces it" in sentence
    good("assets", "import", other, "--overwrite")
    with pytest.raises(FourdError, match=r"came without a discriminator: other.pkl held none"):
        load_weights("tiny", discriminator=True)
    assert "discriminator.safetensors" not in files(tmp_path / "assets" / "tiny")


# ------------------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("wrapping", ["plain", "state_dict", "params", "module"])
@pytest.mark.parametrize("form", ["zip", "stream", "safetensors", "npz", "pickle"])
def test_formats_and_wrappings(form: str, wrapping: str, tmp_path: Path) -> None:
    tensors = random_tensors("bfm2flame")
    prefix = "module." if wrapping == "module" else ""
    content: Any = collections.OrderedDict((prefix + name, tensor) for name, tensor in tensors.items())
    path = tmp_path / "x.pth"
    if form == "safetensors":
        safetensors.torch.save_file(dict(content), path)
    elif form == "npz":
        with open(path, "wb") as file:
            np.savez_compressed(file, **{name: tensor.numpy() for name, tensor in content.items()})
    else:
        content = {wrapping: content, "epoch": 3} if wrapping in ("state_dict", "params") else content
        if form == "pickle":
            path.write_bytes(pickle.dumps(content))
        else:
            path.write_bytes(legacy_torch_bytes(content)) if form == "stream" else torch.save(content, path)
    if form in ("safetensors", "npz") and wrapping == "module":
        assert "almost" not in fourd("assets", "import", path).sentence()
        return
    good("assets", "import", path)
    assert same(load_weights("bfm2flame-mapper"), tensors)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"])
@pytest.mark.parametrize("legacy", [True, False])
def test_every_type_of_number(kind: str, legacy: bool, tmp_path: Path) -> None:
    """Compared with torch's own weights-only loader; views, transposed, expanded and empty tensors included."""
    base = torch.arange(60).reshape(4, 15).to(getattr(torch, kind))
    values = {
        "whole": base,
        "column": base[:, 3],
        "turned": base.t(),
        "step": base[::2, ::5],
        "wide": base[:1].expand(3, 15),
    }
    values |= {"empty": base[:0], "number": base[2, 2], "copy": base.clone(), "parameterless": base[1:3, 2:9]}
    torch.save(values, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    opened = open_weights(tmp_path / "x.pth")
    truth = torch.load(tmp_path / "x.pth", weights_only=True)
    for name, value in opened.root.items():
        array = opened.tensors.read(value)
        assert array is not None
        assert torch.equal(_tensor(array), truth[name]), name
    write_and_compare(
        tmp_path / "y.safetensors", {name: opened.tensors.read(v) for name, v in opened.root.items()}, truth
    )


def write_and_compare(path: Path, arrays: dict[str, Any], truth: dict[str, torch.Tensor]) -> None:
    with open(path, "wb") as file:
        digest = write_safetensors(file, arrays, {"a": "b"})
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(safetensors.torch.load_file(path), {name: tensor.contiguous() for name, tensor in truth.items()})


def test_numpy_arrays_of_every_protocol() -> None:
    values = [
        *(np.arange(12, dtype=kind).reshape(3, 4) for kind in ("<f4", ">f8", "i2", "u4", ">i8", "u1", "f2")),
        *(np.asfortranarray(np.random.default_rng(0).normal(size=(5, 7))), np.zeros((0, 3)), np.array([True, False])),
        *(np.float32(1.5), np.int64(-3), np.arange(5000.0)[::3]),
    ]
    for protocol in range(6):
        for value in values:
            array = TensorReader().read(read_pickle(pickle.dumps(value, protocol))[0])
            assert array is not None and np.array_equal(array.data, value) and array.data.shape == np.shape(value)
            assert array.data.dtype == np.asarray(value).dtype.newbyteorder("<")


def test_arrays_that_python_2_wrote() -> None:
    """numpy itself, told that the strings are latin-1, is the truth."""
    values = np.linspace(-1, 1, 2000).reshape(40, 50)
    raw = values.tobytes()
    text = (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K(K2\x86cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tbs."
    )
    assert np.array_equal(pickle.loads(text, encoding="latin1")["w"], values)
    opened = read_weights(memoryview(text))
    array = opened.tensors.read(opened.root["w"])
    assert array is not None and np.array_equal(array.data, values)


def test_archives_beyond_4_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The long form of every size and offset, written by zipfile for a small archive."""
    tensors = random_tensors("bfm2flame")
    torch.save(tensors, tmp_path / "small.pth")
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(tmp_path / "small.pth") as source, zipfile.ZipFile(tmp_path / "x.pth", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert b"PK\x06\x06" in (tmp_path / "x.pth").read_bytes()
    assert same(load_weights(tmp_path / "x.pth"), tensors)


@pytest.mark.parametrize("protocol", range(6))
def test_networks_of_every_protocol(protocol: int, tmp_path: Path) -> None:
    tensors = random_tensors("osg-decoder")
    network = module_tree(tensors)
    network.__dict__["_buffers"]["hidden"] = torch.zeros(3)
    network.__dict__["_non_persistent_buffers_set"].add("hidden")
    source = persistence_pickle(tmp_path / "x.pkl", network, protocol=protocol)
    assert same(load_weights(source, "osg-decoder"), tensors)


# --------------------------------------------------------------------------------------------------------------- FLAME


class Ch:
    """Stands in for chumpy's array."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x
        self._dirty_vars: set[str] = set()


class Derived(Ch):
    """Stands in for an expression of chumpy's arrays."""


@pytest.fixture
def chumpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ch pickle under chumpy's name."""
    module = types.ModuleType("chumpy.ch")
    module.Ch, module.Derived = Ch, Derived  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    monkeypatch.setattr(Ch, "__module__", "chumpy.ch")
    monkeypatch.setattr(Derived, "__module__", "chumpy.ch")


@pytest.mark.parametrize("protocol", [2, 4])
def test_flame_with_chumpy_and_sparse_matrices(protocol: int, tmp_path: Path, chumpy: None) -> None:
    arrays = flame_arrays()
    content: dict[str, Any] = {**arrays, "bs_style": "lbs", "bs_type": "lrotmin"}
    content["J_regressor"] = scipy.sparse.csc_matrix(arrays["J_regressor"])
    content["J"] = Derived(np.zeros((5, 3)))
    content["v_template"], content["shapedirs"] = Ch(arrays["v_template"]), Ch(arrays["shapedirs"])
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    assert good("assets", "import", path).out.decode().strip().endswith("flame2020/weights.safetensors")
    loaded = load_weights("flame2020")
    assert set(loaded) == set(arrays)
    for name, array in arrays.items():
        assert np.array_equal(loaded[name].numpy(), array), name
    assert load_record("flame2020")["commercial_use"] is False


def test_flame_as_npz_needs_a_name_and_right_shapes(tmp_path: Path) -> None:
    arrays = flame_arrays()
    np.savez_compressed(tmp_path / "model.npz", **arrays)
    assert (
        "which flame2020, flame2023 share: say which with --as ID"
        in fourd("assets", "import", tmp_path / "model.npz").sentence()
    )
    good("assets", "import", tmp_path / "model.npz", "--as", "flame2023")
    assert np.array_equal(load_weights("flame2023")["f"].numpy(), arrays["f"])
    np.savez(tmp_path / "x.npz", **{**arrays, "f": arrays["f"] + np.uint32(9)})
    assert "a face points to a vertex that does not exist" in fourd("assets", "import", tmp_path / "x.npz").sentence()
    np.savez(tmp_path / "x.npz", **{**arrays, "weights": arrays["weights"][:, :4]})
    assert "weights has the shape 5023x4, expected 5023x5" in fourd("assets", "import", tmp_path / "x.npz").sentence()


def test_flame_masks(tmp_path: Path) -> None:
    masks = {name: np.arange(n, n + 9) for n, name in enumerate((*FLAME_MASKS, "noinmouth"))}
    (tmp_path / "FLAME_masks.pkl").write_bytes(pickle.dumps(masks, 2))
    good("assets", "import", tmp_path / "FLAME_masks.pkl")
    assert load_weights("flame-masks")["noinmouth"].tolist() == list(range(4, 13))
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({**masks, "face": np.array([5023])}))
    assert "face points to a vertex that does not exist" in fourd("assets", "import", tmp_path / "x.pkl").sentence()


# ---------------------------------------------------------------------------------------------------------------- ONNX


def field(number: int, content: bytes | int) -> bytes:
    """One field of a protobuf message shorter than 128 bytes or 16384."""
    if isinstance(content, int):
        return bytes([number << 3]) + bytes([content])
    size = len(content)
    return bytes([number << 3 | 2]) + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content


def onnx_value(name: str, shape: tuple[int | str, ...]) -> bytes:
    def length(n: int | str) -> bytes:
        if isinstance(n, str):
            return field(2, n.encode())
        return b"\x08" + (bytes([n]) if n < 128 else bytes([n & 127 | 128, n >> 7]))

    dimensions = b"".join(field(1, length(n)) for n in shape)
    return field(1, name.encode()) + field(2, field(1, field(1, 1) + field(2, dimensions)))


def onnx_model(shape: tuple[int | str, ...], outputs: list[tuple[int | str, ...]]) -> bytes:
    graph = field(1, field(4, b"Conv")) + field(5, field(8, b"w") + field(9, bytes(8)))
    graph += field(11, onnx_value("input.1", shape)) + field(11, onnx_value("w", (2,)))
    graph += b"".join(field(12, onnx_value(str(n), out)) for n, out in enumerate(outputs))
    return field(1, 6) + field(2, b"pytorch") + field(7, graph)


def test_the_insightface_detector_is_told_by_what_goes_in_and_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs: list[tuple[int | str, ...]] = [(12800, n) for n in (1, 1, 1, 4, 4, 4, 10, 10, 10)]
    path = tmp_path / "det_10g.onnx"
    path.write_bytes(onnx_model((1, 3, "?", "?"), outputs))
    outcome = fourd("assets", "import", path)
    assert outcome.code == 2 and "give --accept-licence if you accept it" in outcome.err
    assert "expected 5838f7fe" in fourd("assets", "import", path, "--accept-licence").sentence()
    (tmp_path / "r.yaml").write_text(
        "insightface-detector: {class: gated, purpose: t, file: det_10g.onnx, licence: l, commercial_use: true, "
        "source: s, structure: insightface-scrfd}\n"
    )
    monkeypatch.setenv("FOURD_REGISTRY", str(tmp_path / "r.yaml"))
    good("assets", "import", path, "--accept-licence")
    kept = find_asset("insightface-detector")
    assert kept is not None and kept.read_bytes() == path.read_bytes()
    path.write_bytes(onnx_model((1, 3, 112, 112), [(1, 512)]))
    assert "insightface-recognition, and no asset" in fourd("assets", "import", path).sentence()
    path.write_bytes(onnx_model((1, 4, 112, 112), [(1, 512)]))
    assert "1 inputs and 1 outputs, and none that fourd knows" in fourd("assets", "import", path).sentence()


# ------------------------------------------------------------------------------------------------- the cache and damage


def test_verify_and_add_know_converted_assets(tmp_path: Path, folder: Path) -> None:
    torch.save(random_tensors("bfm2flame"), tmp_path / "model-iter200000.pth")
    outcome = fourd("assets", "add", "bfm2flame-mapper", tmp_path / "model-iter200000.pth")
    assert outcome.code == 2 and "run `fourd assets import " in outcome.err
    good("assets", "import", tmp_path / "model-iter200000.pth")
    assert " ok " in good("assets", "verify", "bfm2flame-mapper").out.decode()
    place = folder / "bfm2flame-mapper" / "weights.safetensors"
    assert good("assets", "path", "bfm2flame-mapper").out.decode().strip() == str(place)
    place.write_bytes(place.read_bytes()[:-1] + b"\x01")
    assert "damaged" in fourd("assets", "verify", "bfm2flame-mapper").out.decode()
    (place.parent / "weights.json").unlink()
    assert "the record of its import is missing" in fourd("assets", "verify", "bfm2flame-mapper").out.decode()
    with pytest.raises(FourdError, match="record of bfm2flame-mapper"):
        load_weights("bfm2flame-mapper")


def test_missing_assets_say_how_to_get_them() -> None:
    with pytest.raises(FourdError, match=r"run `fourd assets import portrait4d-v2-vfhq512.pkl --as portrait4d-v2"):
        load_weights("portrait4d-v2-vfhq512")


def test_a_full_disk_leaves_nothing(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(random_tensors("bfm2flame"), tmp_path / "x.pth")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left on device" in fourd("assets", "import", tmp_path / "x.pth").sentence()
    assert files(folder / "bfm2flame-mapper") == [".lock"]


def test_random_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    """Bytes of good files changed at random: the reader answers with its own error or with values, nothing else."""
    random = np.random.default_rng(7)
    small = {"maps.0.weight": torch.randn(3, 4), "maps.0.bias": torch.randn(3)}
    persistence_pickle(tmp_path / "a.pkl", module_tree(random_tensors("osg-decoder")))
    torch.save(small, tmp_path / "b.pth")
    arrays = io.BytesIO()
    np.savez_compressed(arrays, **{name: tensor.numpy() for name, tensor in small.items()})
    sources = [(tmp_path / "a.pkl").read_bytes(), (tmp_path / "b.pth").read_bytes(), arrays.getvalue()]
    sources += [legacy_torch_bytes(small), safetensors.torch.save(small), onnx_model((1, 3, 9, 9), [(1, 512)])]
    for source in sources:
        for _ in range(150):
            damaged = bytearray(source)
            for place in random.integers(0, len(damaged), random.integers(1, 6)):
                damaged[place] = random.integers(0, 256)
            with contextlib.suppress(FormatError):
                recognise(read_weights(memoryview(bytes(damaged))))
