"""Crafted files that an importer must refuse: name -> bytes. Built by hand, opcode by opcode."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fourdface.assets.manifests import manifest
from support.checkpoints import legacy_torch_bytes

MARKER = "/tmp/fourd-hostile-marker"
COMMAND = f"touch {MARKER}"

CALLABLES = (
    *("os system", "posix system", "nt system", "os popen", "os execv", "os remove", "os fork", "os putenv"),
    *("subprocess Popen", "subprocess check_output", "subprocess run", "commands getoutput", "pty spawn"),
    *("builtins eval", "builtins exec", "builtins __import__", "builtins compile", "builtins open"),
    *("__builtin__ eval", "__builtin__ execfile", "__builtin__ apply", "builtins getattr", "builtins setattr"),
    *("builtins globals", "builtins breakpoint", "builtins input", "builtins exit", "builtins bytearray"),
    *("shutil rmtree", "socket create_connection", "urllib.request urlopen", "webbrowser open", "runpy run_path"),
    *("importlib import_module", "ctypes CDLL", "pickle loads", "_pickle loads", "marshal loads", "torch load"),
    *("torch.hub load", "torch.jit load", "numpy load", "numpy.testing._private.utils runstring", "timeit timeit"),
    *("code interact", "operator attrgetter", "operator methodcaller", "types FunctionType", "types CodeType"),
    *("functools partial", "copyreg add_extension", "copyreg _reconstructor", "sys exit", "sys setrecursionlimit"),
    *("asyncio run", "multiprocessing Process", "threading Thread", "cProfile run", "pydoc pipepager"),
    *("bdb Bdb.run", "doctest debug_script", "pip main", "logging.config dictConfig", "tempfile mktemp"),
    *("torch_utils.persistence _reconstruct_persistent_obj", "torch.storage _load_from_bytes"),
    *("torch._utils _rebuild_tensor_v2", "numpy.core.multiarray _reconstruct", "chumpy.ch Ch"),
)


def text(value: str) -> bytes:
    """BINUNICODE."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def global_(path: str) -> bytes:
    """GLOBAL."""
    return b"c" + path.replace(" ", "\n").encode() + b"\n"


def call(path: str, argument: bytes = b"") -> bytes:
    """GLOBAL, arguments, REDUCE."""
    return global_(path) + b"(" + (argument or text(COMMAND)) + b"tR"


def _calls() -> Iterator[tuple[str, bytes]]:
    argument = text(COMMAND)
    for path in CALLABLES:
        module, name = path.split(" ")
        stacked = text(module) + text(name) + b"\x93"
        yield f"reduce0 {path}", b"c" + path.replace(" ", "\n").encode() + b"\n(S'" + COMMAND.encode() + b"'\ntR."
        yield f"reduce4 {path}", b"\x80\x04" + stacked + argument + b"\x85R."
        yield f"inst {path}", b"(" + argument + b"i" + path.replace(" ", "\n").encode() + b"\n."
        yield f"object {path}", b"\x80\x02(" + global_(path) + argument + b"o."
        yield f"newobj {path}", b"\x80\x04" + stacked + argument + b"\x85\x81."
        yield f"newobj_ex {path}", b"\x80\x04" + stacked + argument + b"\x85}\x92."
        yield f"build {path}", b"\x80\x04" + stacked + b")R}" + text("x") + argument + b"sb."


class _Reduces:
    """Pickles as a call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (COMMAND,)


def _bombs() -> Iterator[tuple[str, bytes]]:
    for protocol in range(6):
        yield f"reduce protocol {protocol}", pickle.dumps(_Reduces(), protocol)
        yield f"in a state dict {protocol}", pickle.dumps({"maps.0.weight": _Reduces()}, protocol)
        network = {"G": None, "D": None, "G_ema": _Reduces()}
        yield f"as the network {protocol}", pickle.dumps(network, protocol)
        yield f"as an array {protocol}", pickle.dumps({"v_template": np.array([_Reduces()], object)}, protocol)
    chain = global_("builtins getattr") + b"(" + global_("os")[:-1] + b"\nsystem\n" + text("__call__") + b"tR"
    yield "getattr chain", b"\x80\x02" + chain + b"(" + text(COMMAND) + b"tR."
    inner = call("builtins __import__", text("os"))
    yield "import chain", b"\x80\x02" + global_("builtins getattr") + b"(" + inner + text("system") + b"tR)R."
    getter = call("operator attrgetter", text("system"))
    yield "attrgetter chain", b"\x80\x02" + getter + b"(" + inner + b"tR(" + text(COMMAND) + b"tR."
    yield "call of a call", b"\x80\x02" + call("functools partial", global_("os system")) + b"(" + text("x") + b"tR."
    file = io.BytesIO()
    torch.save({"maps.0.weight": _Reduces()}, file)
    yield "in a torch zip", file.getvalue()
    yield "in a torch stream", legacy_torch_bytes({"maps.0.weight": _Reduces()})
    blob = legacy_torch_bytes(_Reduces())
    tensor = global_("torch._utils _rebuild_tensor_v2") + b"(" + global_("torch.storage _load_from_bytes") + b"("
    tensor += b"B" + struct.pack("<I", len(blob)) + blob + b"tRK\x00(K\x02t(K\x01t\x89}tR"
    yield "in a storage", b"\x80\x02}" + text("maps.0.weight") + tensor + b"s."
    for name, content in (("npy", np.save), ("npz", np.savez)):
        file = io.BytesIO()
        content(file, np.array([_Reduces()], object))  # type: ignore[operator]
        yield f"in an {name}", file.getvalue()


def _allocations() -> Iterator[tuple[str, bytes]]:
    huge = struct.pack("<Q", 1 << 62)
    for name, code in (("bytes8", b"\x8e"), ("unicode8", b"\x8d"), ("bytearray8", b"\x96"), ("frame", b"\x95")):
        yield f"{name} of 2^62", b"\x80\x05" + code + huge + b"x."
        yield f"{name} of 2^64-1", b"\x80\x05" + code + b"\xff" * 8 + b"x."
        yield f"{name} of 2^40", b"\x80\x05" + code + struct.pack("<Q", 1 << 40) + b"x."
    for name, code in (("bytes", b"B"), ("unicode", b"X"), ("string", b"T"), ("long4", b"\x8b")):
        for size in (0x7FFFFFFF, 0xFFFFFFFF, 0x80000000):
            yield f"{name} of {size:#x}", b"\x80\x03" + code + struct.pack("<I", size) + b"x."
    yield "long of a million digits", b"L" + b"9" * 1_000_000 + b"L\n."
    yield "long4 of a megabyte", b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20) + b"."
    yield "a line without an end", b"V" + b"x" * 3_000_000
    yield "a quoted string without an end", b"S'" + b"x" * 3_000_000
    yield (
        "memo numbers",
        b"\x80\x02]" + b"".join(b"r" + struct.pack("<I", (1 << 32) - i - 1) for i in range(999)) + b".",
    )
    yield "too many opcodes", b"\x80\x04" + b"N0" * 1_000_000 + b"N."
    yield "too many lists", b"\x80\x04(" + b"]" * 1_000_000 + b"t."
    yield "too many dictionaries", b"\x80\x04(" + b"}" * 700_000 + b"l."
    yield "too many lines", b"(" + b"I1\n0" * 300_000 + b"t."
    flood = b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(200_000))
    yield "a large dictionary", b"\x80\x04}(" + flood + b"u."
    for count in (1 << 40, -1, (1 << 63) - 1):
        encoded = pickle.dumps(count, 2)[2:-1]
        place = b"(" + text("storage") + global_("torch FloatStorage") + text("0") + text("cpu") + encoded + b"tQ"
        tensor = global_("torch._utils _rebuild_tensor_v2") + b"(" + place + b"K\x00(K\x02t(K\x01t\x89}tR"
        yield f"storage of {count}", torch_zip(b"\x80\x02}" + text("w") + tensor + b"s.", {"0": bytes(8)})
    stream = bytearray(legacy_torch_bytes({"maps.0.weight": torch.zeros(4)}))
    stream[-24:-16] = struct.pack("<Q", 1 << 60)
    yield "stream storage of 2^60", bytes(stream)


def torch_zip(content: bytes, storages: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> bytes:
    """An archive in torch's layout."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packed) as archive:
        archive.writestr("archive/data.pkl", content)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
    return file.getvalue()


def tensor_pickle(
    shape: bytes, stride: bytes, offset: bytes = b"K\x00", key: bytes = b"", kind: str = "Float"
) -> bytes:
    """A state dictionary of one tensor of storage 0, which has 8 bytes."""
    place = key or b"(" + text("storage") + global_(f"torch {kind}Storage") + text("0") + text("cpu") + b"K\x02tQ"
    tensor = global_("torch._utils _rebuild_tensor_v2") + b"(" + place + offset + shape + stride + b"\x89}tR"
    return b"\x80\x02}" + text("maps.0.weight") + tensor + b"s."


def _tensors() -> Iterator[tuple[str, bytes]]:
    one, two = b"(K\x01t", b"(K\x02t"
    minus = b"(J\xff\xff\xff\xfft"
    huge = b"(" + pickle.dumps(1 << 50, 2)[2:-1] + b"t"
    wide = b"(" + pickle.dumps(1 << 40, 2)[2:-1] + b"t"
    cases = {
        "negative stride": (two, minus),
        "negative shape": (minus, one),
        "huge shape": (huge, one),
        "far stride": (two, wide),
        "long shape": (b"(" + b"K\x01" * 60 + b"t", b"(" + b"K\x01" * 60 + b"t"),
        "stride of another length": (two, b"(K\x01K\x01t"),
        "shape of text": (b"(" + text("2") + b"t", one),
        "shape of floats": (b"(G" + struct.pack(">d", 2.0) + b"t", one),
        "no shape": (b"N", one),
        "shape of booleans": (b"(\x88t", one),
        "shape of lists": (b"(]t", one),
    }
    for name, (shape, stride) in cases.items():
        yield f"tensor with {name}", torch_zip(tensor_pickle(shape, stride), {"0": bytes(8)})
    for name, offset in (("negative", b"J\xff\xff\xff\xff"), ("far", b"M\xff\xff"), ("text", text("0"))):
        yield f"tensor with {name} offset", torch_zip(tensor_pickle(two, one, offset), {"0": bytes(8)})
    for kind in ("Complex", "Quint", "", "../Float", "Untyped"):
        yield f"storage kind {kind!r}", torch_zip(tensor_pickle(two, one, kind=kind), {"0": bytes(8)})
    keys = {
        "text": text("storage") + b"Q",
        "none": b"NQ",
        "a list": b"]Q",
        "short": b"(" + text("storage") + b"tQ",
        "another word": b"(" + text("module") + global_("torch FloatStorage") + text("0") + text("cpu") + b"K\x02tQ",
        "a number as key": b"(" + text("storage") + global_("torch FloatStorage") + b"K\x00" + text("cpu") + b"K\x02tQ",
        "a path as key": b"("
        + text("storage")
        + global_("torch FloatStorage")
        + text("../../x")
        + text("c")
        + b"K\x02tQ",
        "a text as kind": b"(" + text("storage") + text("FloatStorage") + text("0") + text("cpu") + b"K\x02tQ",
        "os as kind": b"(" + text("storage") + global_("os system") + text("0") + text("cpu") + b"K\x02tQ",
        "a missing storage": b"("
        + text("storage")
        + global_("torch FloatStorage")
        + text("7")
        + text("cpu")
        + b"K\x02tQ",
        "itself": b"P0\n",
    }
    for name, key in keys.items():
        content = tensor_pickle(two, one, key=key)
        yield f"persistent id: {name}", torch_zip(content, {"0": bytes(8)})
        yield f"persistent id in a plain pickle: {name}", content


def _nesting() -> Iterator[tuple[str, bytes]]:
    deep = 100_000
    yield "tuples 100000 deep", b"\x80\x04N" + b"\x85" * deep + b"."
    yield "lists 100000 deep", b"\x80\x04" + b"]" * deep + b"a" * (deep - 1) + b"."
    yield "marks 100000 deep", b"\x80\x04" + b"(" * deep + b"N" + b"t" * deep + b"."
    yield "calls 100000 deep", b"\x80\x04" + global_("a b") + b")R" * deep + b"."
    yield "tuples as a key", b"\x80\x04}N" + b"\x85" * deep + b"Ns."
    yield "tuples in a set", b"\x80\x04\x8f(N" + b"\x85" * deep + b"\x90."
    yield "tuples in a frozenset", b"\x80\x04(N\x85\x85\x85\x91."
    laughs = b"]\x94" + b"".join(b"0](" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"e\x94" for i in range(200))
    yield "billion laughs", b"\x80\x04" + laughs + b"."
    yield "billion laughs in a dictionary", b"\x80\x04}" + text("G_ema") + laughs + b"s."
    yield "billion laughs as settings", b"\x80\x04}" + text("v_template") + laughs + b"s."
    state = b"}(" + text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}"
    leaf = global_("a B") + b")\x81" + state + b"ub\x94"
    doubling = b"".join(
        b"0"
        + global_("a B")
        + b")\x81"
        + state
        + b"("
        + text("a")
        + b"h"
        + bytes([i])
        + text("b")
        + b"h"
        + bytes([i])
        + b"uub\x94"
        for i in range(40)
    )
    yield "modules that double", b"\x80\x04" + leaf + doubling + b"."
    yield "modules that double as G_ema", b"\x80\x04}" + text("G_ema") + leaf + doubling + b"s."
    own = global_("a B") + b")\x81\x94" + state + b"(" + text("me") + b"h\x00uub."
    yield "a module within itself", b"\x80\x04" + own
    yield "a list within itself", b"\x80\x04]\x94h\x00a."
    yield "a dictionary within itself", b"\x80\x04}\x94" + text("state_dict") + b"h\x00s."
    yield "an ordered dictionary of itself", b"\x80\x04" + global_("collections OrderedDict") + b")R\x94(Nh\x00u."
    tower = b"".join(global_("a B") + b")\x81" + state + b"(" + text("a") + b"N" + b"uub0" for _ in range(9))
    yield "a tower of modules", b"\x80\x04" + tower + _tower(400) + b"."
    parameter = global_("torch._utils _rebuild_parameter")
    yield "parameters of parameters", b"\x80\x04}" + text("w") + parameter * 9000 + b"N" + b"\x85R" * 9000 + b"s."


def _tower(count: int) -> bytes:
    state = b"}(" + text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + b"}"
    head = (global_("a B") + b")\x81" + state + text("a")) * count
    return (
        head.replace(text("_modules") + b"}" + text("a"), text("_modules") + b"}" + text("a")) + b"N" + b"sub" * count
    )


def _opcodes() -> Iterator[tuple[str, bytes]]:
    for name, content in {
        "extension 1": b"\x80\x02\x82\x01.",
        "extension 2": b"\x80\x02\x83\x01\x00.",
        "extension 4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "next buffer": b"\x80\x05\x97.",
        "read-only": b"\x80\x05]\x98.",
        "protocol 6": b"\x80\x06N.",
        "protocol 255": b"\x80\xffN.",
        "unknown opcode": b"\x80\x04\xf0.",
        "stop": b"\x80\x04.",
        "two values": b"\x80\x04NN.",
        "open mark": b"\x80\x04(N.",
        "no mark": b"\x80\x04Nt.",
        "empty reduce": b"\x80\x02R.",
        "reduce without arguments": b"\x80\x02NNR.",
        "build on a list": b"\x80\x02]}b.",
        "build on a number": b"\x80\x02K\x01}b.",
        "append to a number": b"\x80\x02K\x01Na.",
        "item of a list": b"\x80\x02]NNs.",
        "odd items": b"\x80\x02}(Nu.",
        "a list as key": b"\x80\x02}]Ns.",
        "a dictionary as key": b"\x80\x02}}Ns.",
        "a list in a set": b"\x80\x04\x8f(]\x90.",
        "a huge key": b"\x80\x02}\x8a\x20" + b"\x7f" * 32 + b"Ns.",
        "get of nothing": b"\x80\x02h\x07.",
        "put of nothing": b"\x80\x02q\x07.",
        "stack global of numbers": b"\x80\x04K\x01K\x02\x93.",
        "global without a line": b"\x80\x02cos",
        "object of nothing": b"(o.",
        "bad utf-8": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
        "bad escape": b"S'\\x'\n.",
        "no quotes": b"Sabc\n.",
        "bad int": b"Ix\n.",
        "bad float": b"Fx\n.",
        "negative put": b"Np-1\n.",
        "bad get": b"gx\n.",
        "pop of nothing": b"\x80\x020.",
        "dup": b"\x80\x022.",
        "trailing bytes": b"\x80\x04N.junk",
        "two pickles": b"\x80\x04N.\x80\x04N.",
        "add to a list": b"\x80\x04](N\x90.",
        "keywords of a list": b"\x80\x04" + global_("a b") + b")]\x92.",
        "number": b"\x80\x04K\x01.",
        "text": b"\x80\x04" + text("x") + b".",
    }.items():
        yield f"opcode: {name}", content


def _arrays() -> Iterator[tuple[str, bytes]]:
    good = {name: np.zeros(3, np.float32) for name in ("v_template", "shapedirs", "weights")}
    yield "flame of wrong shapes", pickle.dumps(good)
    for kind in ("complex64", "U4", "S4", "M8[s]", "V8", "O"):
        yield f"array of {kind}", pickle.dumps({"v_template": np.zeros(3, kind)})
    raw = pickle.dumps({"v_template": np.zeros(3, np.float32)}, 2)
    yield "array of another length", raw.replace(b"K\x03\x85", b"K\x05\x85")
    yield "array of another type", raw.replace(b"f4", b"f8")
    yield "array of type q", raw.replace(b"f4", b"q9")
    import scipy.sparse

    matrix = scipy.sparse.csc_matrix(np.eye(5, dtype=np.float32))
    for name, change in {
        "indices": ("indices", np.full(5, 99, np.int32)),
        "negative indices": ("indices", np.full(5, -1, np.int32)),
        "pointers": ("indptr", np.full(6, 77, np.int32)),
        "falling pointers": ("indptr", np.array([0, 4, 1, 2, 3, 5], np.int32)),
        "shape": ("_shape", (1 << 30, 1 << 30)),
        "no shape": ("_shape", None),
    }.items():
        broken = scipy.sparse.csc_matrix(matrix)
        broken.__dict__[change[0]] = change[1]
        broken.__dict__.setdefault("_shape", (5, 5))
        yield f"sparse with wrong {name}", pickle.dumps({"v_template": broken, "J_regressor": broken})
    for name, header in {
        "npy with code": "{'descr': __import__('os').system('"
        + COMMAND
        + "'), 'fortran_order': False, 'shape': (3,), }",
        "npy with a huge shape": "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999,), }",
        "npy of objects": "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
        "npy of records": "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
    }.items():
        content = header.encode() + b"\n"
        array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(content)) + content + bytes(12)
        yield name, array
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("v_template.npy", array)
        yield f"{name} in an npz", file.getvalue()


def _zips() -> Iterator[tuple[str, bytes]]:
    body = tensor_pickle(b"(K\x02t", b"(K\x01t")
    fine = torch_zip(body, {"0": bytes(8)})
    yield "a torch zip of nothing known", fine
    yield "packed torch zip", torch_zip(body, {"0": bytes(800)}, zipfile.ZIP_DEFLATED)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("v_template.npy", bytes(200_000_000))
    yield "zip bomb", bomb.getvalue()
    yield (
        "zip bomb that says it is small",
        bomb.getvalue().replace(struct.pack("<I", 200_000_000), struct.pack("<I", 800)),
    )
    yield "zip bomb that says it is huge", bomb.getvalue().replace(struct.pack("<I", 200_000_000), b"\xfe\xff\xff\xff")
    for name in ("../../etc/x.npy", "/etc/x.npy", "a/../../x.npy", "C:/x.npy", "..\\x.npy", "x\x01/../y.npy"):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(name, b"x")
        yield f"zip with {name!r}", file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(25_000):
            archive.writestr(f"{number}.npy", b"")
    yield "zip of 25000 entries", file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", body)
        archive.writestr("b/data.pkl", body)
    yield "zip of two pickles", file.getvalue()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/code/__torch__.py", "import os")
    yield "a TorchScript program", file.getvalue()
    yield "zip of the wrong kind", torch_zip(body, {}).replace(b"data.pkl", b"data.txt")
    yield "zip without a directory", fine[: fine.index(b"PK\x01\x02")]
    central = fine.index(b"PK\x01\x02")
    for name, at, value in (
        *(
            ("encrypted", central + 8, b"\x01"),
            ("other method", central + 10, b"\x63"),
            ("far entry", central + 42, b"\xff\xff"),
        ),
        *(("long entry", central + 20, b"\xff\xff\xff\x00"), ("long name", central + 28, b"\xff\x7f")),
        *(
            ("split", fine.index(b"PK\x05\x06") + 4, b"\x01"),
            ("count", fine.index(b"PK\x05\x06") + 8, b"\xff\x7f\xff\x7f"),
        ),
        *(
            ("zip64 without", fine.index(b"PK\x05\x06") + 8, b"\xff\xff\xff\xff"),
            ("comment", len(fine) - 2, b"\xff\xff"),
        ),
    ):
        yield f"zip changed: {name}", fine[:at] + value + fine[at + len(value) :]
    double = bytearray(fine)
    second = fine.index(b"PK\x01\x02", central + 4)
    double[second + 42 : second + 46] = double[central + 42 : central + 46]
    yield "zip of overlapping entries", bytes(double)
    checksum = struct.pack("<I", zlib.crc32(bytes(200_000_000)))
    yield "npz with a wrong checksum", bomb.getvalue().replace(checksum, bytes(4))


def _other_files() -> Iterator[tuple[str, bytes]]:
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    for name, content in {
        "empty": b"",
        "one byte": b"\x80",
        "zeros": bytes(4096),
        "text": b"hello world\n" * 9,
        "json": b'{"a": 1}',
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(99),
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(99),
        "gzip": b"\x1f\x8b\x08" + bytes(99),
        "page": b"<!DOCTYPE html><html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\n",
        "elf": b"\x7fELF" + bytes(99),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "tar": bytes(257) + b"ustar\x0000" + bytes(99),
        "exe": b"MZ" + bytes(99),
        "noise": np.random.default_rng(0).bytes(5000),
        "safetensors with a long header": struct.pack("<Q", 1 << 60) + header,
        "safetensors without a header": struct.pack("<Q", 10) + b"{aaaaaaaa}" + bytes(8),
        "safetensors deep": struct.pack("<Q", 60_006) + b'{"a":' + b"[" * 60_000 + b"}" + bytes(9),
        "safetensors beyond": struct.pack("<Q", len(header)) + header + bytes(4),
        "safetensors of nothing known": struct.pack("<Q", len(header)) + header + bytes(8),
        "safetensors of negative place": struct.pack("<Q", 60)
        + b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}'.ljust(60)
        + bytes(8),
        "safetensors of a huge shape": struct.pack("<Q", 70)
        + b'{"w":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,8]}}'.ljust(70)
        + bytes(8),
        "onnx cut off": b"\x08\x07\x12\x04test" + b"\x3a\xff\xff\xff\x0f" + bytes(20),
        "onnx of nothing": b"\x08\x07\x12\x04test" + bytes(20),
        "onnx varint without an end": b"\x08\x07\x12\x04test\x3a" + b"\xff" * 30,
        "onnx of many fields": b"\x08\x07\x12\x04test" + b"\x08\x01" * 200_000,
    }.items():
        yield f"file: {name}", content


def _almost() -> Iterator[tuple[str, bytes]]:
    """The right names with something wrong, in several formats."""
    shapes = {name: tuple(int(n or 1) for n in shape) for name, shape in manifest("bfm2flame").items()}
    good = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for name, shape in shapes.items():
        for kind, wrong in (
            ("transposed", shape[::-1] if len(shape) > 1 else (1, *shape)),
            ("empty", (0,)),
            ("flat", ()),
        ):
            changed = {**good, name: torch.zeros(wrong)}
            yield f"{name} {kind}", _saved(changed)
        yield f"{name} of whole numbers", _saved({**good, name: torch.zeros(shape, dtype=torch.int32)})
        yield f"{name} one longer", legacy_torch_bytes({**good, name: torch.zeros(shape[0] + 1, *shape[1:])})
        yield f"{name} missing", _saved({key: value for key, value in good.items() if key != name})
        for value in (float("nan"), float("inf"), -float("inf")):
            yield f"{name} with {value}", _saved({**good, name: torch.full(shape, value)})
        yield (
            f"{name} of halves with nan",
            _saved({**good, name: torch.full(shape, float("nan"), dtype=torch.bfloat16)}),
        )
        yield (
            f"{name} an object array",
            pickle.dumps({**{k: v.numpy() for k, v in good.items()}, name: np.array([None])}),
        )
        yield f"{name} an unknown call", _saved({**good, name: _Reduces()})
    yield "one tensor too many", _saved({**good, "maps.4.weight": torch.zeros(3)})
    yield "right weights beside a call", _saved({**good, "epoch": _Reduces()})
    yield "right weights inside of a call", pickle.dumps({"state_dict": good, "callbacks": [_Reduces()]})


def _saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _crowds() -> Iterator[tuple[str, bytes]]:
    """Much of what is harmless one by one."""
    array = pickle.dumps(np.zeros(2, np.float32), 2)[2:-1] + b"r\xff\0\0\0"
    names = b"".join(text(f"n{i}") + b"j\xff\0\0\0" for i in range(19_000))
    dictionary = b"}(" + text("n") + array + names + b"ur\xfe\0\0\0"
    nested = b"".join(text(f"d{i}") + b"j\xfe\0\0\0" for i in range(31))
    yield "19000 tensors", b"\x80\x02" + dictionary + b"."
    yield "19000 tensors 32 times", b"\x80\x02}(" + text("d") + dictionary + nested + b"u."
    more = b"".join(text(f"m{i}") + b"j\xff\0\0\0" for i in range(100_000))
    yield "119000 tensors", b"\x80\x02}(" + text("n") + array + names + more + b"u."
    entries = ",".join(f'"n{i}":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' for i in range(140_000))
    header = f"{{{entries}}}".encode()
    yield "safetensors of 140000 tensors", struct.pack("<Q", len(header)) + header + bytes(8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is about to drop storages with a type, which checkpoints are made of
        blob = legacy_torch_bytes(torch.zeros(2).storage())
    storage = global_("torch.storage _load_from_bytes") + b"(B" + struct.pack("<I", len(blob)) + blob + b"tR"
    tensor = global_("torch._utils _rebuild_tensor_v2") + b"(" + storage + b"K\x00(K\x02t(K\x01t\x89}tR"
    yield "9000 storages", b"\x80\x02}(" + b"".join(text(f"n{i}") + tensor for i in range(9000)) + b"u."
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(19_000):
            archive.writestr(f"{number}.npy", b"\x93NUMPY")
    yield "zip of 19000 entries", file.getvalue()
    yield "a text of 64 megabytes", b"\x80\x02X" + struct.pack("<I", 1 << 26) + b"x" * (1 << 26) + b"."


def _truncated() -> Iterator[tuple[str, bytes]]:
    tensors = {"maps.0.weight": torch.zeros(9, 9), "maps.0.bias": torch.zeros(9)}
    file = io.BytesIO()
    torch.save(tensors, file)
    sources = {"zip": file.getvalue(), "stream": legacy_torch_bytes(tensors)}
    for protocol in (0, 2, 4, 5):
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        sources[f"pickle {protocol}"] = pickle.dumps(arrays, protocol)
    for name, content in sources.items():
        for part in range(1, 12):
            yield f"{name} cut at {part}/12", content[: len(content) * part // 12]
        yield f"{name} without the last byte", content[:-1]


def corpus() -> dict[str, bytes]:
    """All crafted files by name."""
    found: dict[str, bytes] = {}
    for part in (
        _calls,
        _bombs,
        _allocations,
        _tensors,
        _nesting,
        _opcodes,
        _arrays,
        _zips,
        _other_files,
        _almost,
        _crowds,
        _truncated,
    ):
        for name, content in part():
            if name in found:
                raise ValueError(f"two crafted files are named {name!r}")
            found[name] = content
    return found
