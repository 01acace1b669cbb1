"""A pickle reader that executes nothing: it builds plain values and inert stubs, and never looks a global up.

The opcodes are those of Python's `pickletools` documentation (protocols 0 to 5). Where Python's unpickler would
import, call or set attributes, this one notes what was asked for: a `Global` is a pair of names, a `Stub` is "this
callable with these arguments, this state, these items". What the stubs mean is decided by closed lists in `arrays` and
`torch_files`.

Limits: every length is compared with the bytes that are there before anything is allocated; large byte strings are
views of the file; opcodes are counted; keys of dictionaries are flat. So memory and time are bounded by constants.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fourdface.assets.formats.errors import Budget, FormatError

LARGEST_TEXT = 1 << 30
"""Python 3 writes the bytes of arrays as text in protocols 0 to 2."""
LONGEST_NAME = 1 << 10
LARGEST_INTEGER_BYTES = 255
DEEPEST_MARKS = 2000
KEPT_AS_VIEW = 4096
"""Byte strings longer than this stay views of the file."""
HOSTILE_MODULES = frozenset(
    (
        *("os", "posix", "nt", "subprocess", "sys", "pty", "shutil", "socket", "ssl", "urllib"),
        *("urllib2", "http", "ftplib", "smtplib", "webbrowser", "runpy", "importlib", "imp", "ctypes"),
        *("cffi", "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"),
        *("types", "inspect", "codeop", "timeit", "pdb", "bdb", "cProfile"),
        *("pydoc", "doctest", "operator", "_operator", "asyncio", "multiprocessing", "threading", "_thread"),
        *("signal", "tempfile", "pip", "gc", "atexit", "pkgutil", "zipimport"),
    )
)
"""Top-level modules that no weight file refers to. Nothing of them could run here; naming one is reason to refuse."""
HARMLESS_BUILTINS = frozenset(
    (
        *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list"),
        *("long", "object", "range", "set", "slice", "str", "tuple", "type", "unicode", "xrange"),
        *("NoneType", "Ellipsis"),
    )
)
HARMLESS = frozenset({"types.SimpleNamespace", "types.MappingProxyType"})
_FIRST_PIECE = 1 << 8
_CHECK_EVERY = 1 << 10
_HIGHEST_PROTOCOL = 5


@dataclass(frozen=True, eq=False, slots=True)
class Global:
    """The name of something that Python's unpickler would import."""

    module: str
    name: str

    @property
    def path(self) -> str:
        """module.name, in the names of Python 3."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(self.module, self.module)
        return f"{module}.{self.name}"


@dataclass(frozen=True, eq=False, repr=False)
class PersistentId:
    """A reference to something outside of the pickle (torch: a storage)."""

    value: Any


@dataclass(eq=False, repr=False, slots=True)
class Stub:
    """A call that was never made: what would have been called, with what, and what was put into the result."""

    callee: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[Any, Any] = field(default_factory=dict)
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Name of the callable, "" where it is not a plain global."""
        return self.callee.path if isinstance(self.callee, Global) else ""


def read_pickle(data: bytes | memoryview, start: int = 0, budget: Budget | None = None) -> tuple[Any, int]:
    """Read one pickle from `data` at `start`.

    Returns:
        The value, made of None, bool, int, float, str, bytes or memoryview, list, tuple, dict, set and the classes of
        this module; and the position after the pickle.

    Raises:
        FormatError: truncated, malformed, over a limit, or using an opcode that no weight file needs.
    """
    return _Machine(memoryview(data), start, budget or Budget()).run()


class _Machine:
    """Stack, memo and position of one pickle."""

    def __init__(self, data: memoryview, position: int, budget: Budget) -> None:
        self.data = data
        self.position = position
        self.budget = budget
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> tuple[Any, int]:
        data, end, actions = self.data, len(self.data), _ACTIONS
        steps = 0
        while True:
            if self.position >= end:
                raise FormatError("its pickle ends before the stop mark: the file is cut off")
            code = data[self.position]
            self.position += 1
            steps += 1
            if steps == _CHECK_EVERY:
                self.budget.spend(steps)
                steps = 0
            if code == 0x2E:  # STOP
                self.budget.spend(steps)
                value = self.pop()
                if self.stack or self.marks:
                    raise FormatError("its pickle leaves values on the stack")
                return value, self.position
            action = actions[code]
            if action is None:
                raise FormatError(f"its pickle has the byte 0x{code:02x} where an instruction is expected")
            action(self)

    # ------------------------------------------------------------------------------------------------ bytes and stack

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, as a view."""
        left = len(self.data) - self.position
        if not 0 <= count <= left:
            raise FormatError(f"its pickle announces {count} bytes where {left} are left: it is cut off or forged")
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, layout: str) -> int:
        """The next integer of a struct layout."""
        return int(struct.unpack(layout, self.take(struct.calcsize(layout)))[0])

    def line(self, limit: int = LARGEST_TEXT) -> bytes:
        """The bytes up to the next line end, without it."""
        start, at, size = self.position, self.position, _FIRST_PIECE
        while at < len(self.data) and at - start <= limit:
            piece = bytes(self.data[at : at + size])
            found = piece.find(b"\n")
            if found >= 0:
                self.position = at + found + 1
                return bytes(self.data[start : at + found])
            at += len(piece)
            size *= 2
        raise FormatError("its pickle has a text line without an end")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise FormatError("its pickle takes a value from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        if not self.stack:
            raise FormatError("its pickle uses a value of an empty stack")
        return self.stack[-1]

    def pop_mark(self) -> list[Any]:
        """The values since the last mark, which is removed."""
        if not self.marks:
            raise FormatError("its pickle lacks a mark")
        values = self.stack
        self.stack = self.marks.pop()
        return values

    # --------------------------------------------------------------------------------------------------------- values

    def mark(self) -> None:
        if len(self.marks) >= DEEPEST_MARKS:
            raise FormatError(f"its pickle is nested more than {DEEPEST_MARKS} deep")
        self.marks.append(self.stack)
        self.stack = []

    def discard(self) -> None:
        """POP removes a value, or the mark where nothing lies above it."""
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def protocol(self) -> None:
        version = self.number("<B")
        if version > _HIGHEST_PROTOCOL:
            raise FormatError(f"its pickle has protocol {version}, and 0 to {_HIGHEST_PROTOCOL} exist")

    def frame(self) -> None:
        size = self.number("<Q")
        if size > len(self.data) - self.position:
            raise FormatError(f"its pickle announces a frame of {size} bytes, more than are left")

    def integer_line(self) -> None:
        text = self.line(LARGEST_INTEGER_BYTES)
        if text in (b"00", b"01"):
            return self.push(text == b"01")
        try:
            self.push(int(text.rstrip(b"L")))
        except ValueError:
            raise FormatError("its pickle has text where a number is expected") from None

    def long_bytes(self, count: int) -> None:
        if not 0 <= count <= LARGEST_INTEGER_BYTES:
            raise FormatError(f"its pickle has an integer of {count} bytes")
        self.push(int.from_bytes(self.take(count), "little", signed=True))

    def float_line(self) -> None:
        try:
            self.push(float(self.line(LARGEST_INTEGER_BYTES)))
        except ValueError:
            raise FormatError("its pickle has text where a number is expected") from None

    def text(self, count: int) -> None:
        if count > min(LARGEST_TEXT, len(self.data)):
            raise FormatError(f"its pickle has a text of {count} bytes")
        self.push(_decoded(self.take(count), "utf-8"))

    def text_line(self) -> None:
        try:
            self.push(codecs.raw_unicode_escape_decode(self.line())[0])
        except ValueError:
            raise FormatError("its pickle has text that does not decode") from None

    def old_string(self, count: int) -> None:
        """A string of Python 2, which may be text or bytes: text in latin-1 unless it is long."""
        data = self.take(count)
        self.push(data if count > KEPT_AS_VIEW else _decoded(data, "latin-1"))

    def old_string_line(self) -> None:
        quoted = self.line(len(self.data)).strip()
        if len(quoted) < 2 or quoted[:1] != quoted[-1:] or quoted[:1] not in (b'"', b"'"):
            raise FormatError("its pickle has a string without quotes")
        try:
            data = codecs.escape_decode(quoted[1:-1])[0]
        except ValueError:
            raise FormatError("its pickle has a string with a wrong escape") from None
        self.push(memoryview(data) if len(data) > KEPT_AS_VIEW else data.decode("latin-1"))

    def binary(self, count: int) -> None:
        data = self.take(count)
        self.push(data if count > KEPT_AS_VIEW else bytes(data))

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise FormatError("its pickle takes a value from an empty stack")
        values = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(values)

    # ----------------------------------------------------------------------------------------------------- containers

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top()
        items = target.items if isinstance(target, Stub) else target
        if not isinstance(items, dict) or len(pairs) % 2:
            raise FormatError("its pickle puts items into what is no dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            items[_checked_key(key)] = value
        self.budget.spend(len(pairs) // 2)

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def append(self, values: list[Any]) -> None:
        target = self.top()
        elements = target.elements if isinstance(target, Stub) else target
        if not isinstance(elements, list):
            raise FormatError("its pickle appends to what is no list")
        elements.extend(values)

    def append_one(self) -> None:
        value = self.pop()
        self.append([value])

    def add_items(self) -> None:
        values = self.pop_mark()
        target = self.top()
        if isinstance(target, Stub):
            target.elements.extend(values)
        elif isinstance(target, set):
            target.update(map(_checked_key, values))
        else:
            raise FormatError("its pickle adds to what is no set")

    def dictionary(self) -> None:
        pairs = self.pop_mark()
        self.push({})
        self.set_items(pairs)

    def put(self, index: int) -> None:
        if index < 0:
            raise FormatError("its pickle has a negative memo number")
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise FormatError(f"its pickle uses memo {index} before it is set")
        self.push(self.memo[index])

    def memo_line(self) -> int:
        text = self.line(20)
        if not text.isdigit():
            raise FormatError("its pickle has text where a number is expected")
        return int(text)

    # ---------------------------------------------------------------------------------------------------- inert calls

    def global_lines(self) -> None:
        module, name = self.line(LONGEST_NAME), self.line(LONGEST_NAME)
        self.push(_inert(_decoded(module, "utf-8"), _decoded(name, "utf-8")))

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise FormatError("its pickle names a global by what is no text")
        self.push(_inert(module, name))

    def call(self, *, with_keywords: bool = False) -> None:
        """REDUCE, NEWOBJ and NEWOBJ_EX alike: note the call, make none."""
        keywords = self.pop() if with_keywords else {}
        args, callee = self.pop(), self.pop()
        if not isinstance(args, tuple) or not isinstance(keywords, dict):
            raise FormatError("its pickle calls something with what are no arguments")
        self.push(Stub(callee, args, keywords))

    def old_instance(self) -> None:
        """INST: class by name, arguments since the mark."""
        module, name = self.line(LONGEST_NAME), self.line(LONGEST_NAME)
        callee = _inert(_decoded(module, "utf-8"), _decoded(name, "utf-8"))
        self.push(Stub(callee, tuple(self.pop_mark())))

    def old_object(self) -> None:
        """OBJ: class and arguments since the mark."""
        values = self.pop_mark()
        if not values:
            raise FormatError("its pickle makes an object of no class")
        self.push(Stub(values[0], tuple(values[1:])))

    def build(self) -> None:
        """Note the state of an object."""
        state, target = self.pop(), self.top()
        if not isinstance(target, Stub) or target.state is not None:
            raise FormatError("its pickle sets the state of what takes none")
        target.state = state

    def persistent_line(self) -> None:
        self.push(PersistentId(_decoded(self.line(LONGEST_NAME), "utf-8")))

    def refuse_extension(self) -> NoReturn:
        raise FormatError("its pickle uses an extension code, which only names code to import")

    def refuse_buffer(self) -> NoReturn:
        raise FormatError("its pickle refers to a buffer outside of the file")


def _inert(module: str, name: str) -> Global:
    """A global by name; FormatError for one that only an attack names."""
    found = Global(module, name)
    builtin = module in ("builtins", "__builtin__") and name not in HARMLESS_BUILTINS
    if builtin or (module.split(".", 1)[0] in HOSTILE_MODULES and found.path not in HARMLESS):
        raise FormatError(f"its pickle asks for {found.path[:80]}, which runs code and which no weight file needs")
    return found


def _decoded(data: bytes | memoryview, encoding: str) -> str:
    errors = "surrogatepass" if encoding == "utf-8" else "strict"
    try:
        return str(data, encoding, errors)
    except ValueError:
        raise FormatError("its pickle has text that does not decode") from None


def _checked_key(key: Any) -> Any:
    """A key that hashes in constant time: scalars, inert objects, and flat tuples of them."""
    parts: Iterable[Any] = key if isinstance(key, tuple) and len(key) <= 16 else (key,)
    for part in parts:
        simple = part is None or isinstance(part, str | bytes | float | Global | Stub | PersistentId)
        if not simple and not (isinstance(part, int) and abs(part) < 1 << 60):
            raise FormatError("its pickle has a dictionary or set with a key that is no plain value")
    return key


def _double(machine: _Machine) -> None:
    machine.push(struct.unpack(">d", machine.take(8))[0])


_Action = Callable[[_Machine], Any]
_BY_CODE: dict[bytes, _Action] = {
    b"\x80": _Machine.protocol,
    b"\x95": _Machine.frame,
    b"(": _Machine.mark,
    b"0": _Machine.discard,
    b"1": _Machine.pop_mark,
    b"2": lambda m: m.push(m.top()),
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _Machine.integer_line,
    b"L": _Machine.integer_line,
    b"K": lambda m: m.push(m.number("<B")),
    b"M": lambda m: m.push(m.number("<H")),
    b"J": lambda m: m.push(m.number("<i")),
    b"\x8a": lambda m: m.long_bytes(m.number("<B")),
    b"\x8b": lambda m: m.long_bytes(m.number("<i")),
    b"F": _Machine.float_line,
    b"G": _double,
    b"S": _Machine.old_string_line,
    b"U": lambda m: m.old_string(m.number("<B")),
    b"T": lambda m: m.old_string(m.number("<i")),
    b"V": _Machine.text_line,
    b"\x8c": lambda m: m.text(m.number("<B")),
    b"X": lambda m: m.text(m.number("<I")),
    b"\x8d": lambda m: m.text(m.number("<Q")),
    b"C": lambda m: m.binary(m.number("<B")),
    b"B": lambda m: m.binary(m.number("<I")),
    b"\x8e": lambda m: m.binary(m.number("<Q")),
    b"\x96": lambda m: m.binary(m.number("<Q")),
    b")": lambda m: m.push(()),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.pop_mark()),
    b"a": _Machine.append_one,
    b"e": lambda m: m.append(m.pop_mark()),
    b"}": lambda m: m.push({}),
    b"d": _Machine.dictionary,
    b"s": _Machine.set_item,
    b"u": lambda m: m.set_items(m.pop_mark()),
    b"\x8f": lambda m: m.push(set()),
    b"\x90": _Machine.add_items,
    b"\x91": lambda m: m.push(frozenset(map(_checked_key, m.pop_mark()))),
    b"p": lambda m: m.put(m.memo_line()),
    b"q": lambda m: m.put(m.number("<B")),
    b"r": lambda m: m.put(m.number("<I")),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"g": lambda m: m.get(m.memo_line()),
    b"h": lambda m: m.get(m.number("<B")),
    b"j": lambda m: m.get(m.number("<I")),
    b"c": _Machine.global_lines,
    b"\x93": _Machine.stack_global,
    b"R": _Machine.call,
    b"\x81": _Machine.call,
    b"\x92": lambda m: m.call(with_keywords=True),
    b"i": _Machine.old_instance,
    b"o": _Machine.old_object,
    b"b": _Machine.build,
    b"P": _Machine.persistent_line,
    b"Q": lambda m: m.push(PersistentId(m.pop())),
    b"\x82": _Machine.refuse_extension,
    b"\x83": _Machine.refuse_extension,
    b"\x84": _Machine.refuse_extension,
    b"\x97": _Machine.refuse_buffer,
    b"\x98": _Machine.refuse_buffer,
}
_ACTIONS: list[_Action | None] = [_BY_CODE.get(bytes([code])) for code in range(256)]
