"""Pickles read without trust: a stack machine that can call nothing but what it is handed.

Python's own unpickler is not used at all. Opcodes are those of PEP 3154 and `pickletools`; the few
that exist to name or build arbitrary objects (INST, OBJ, NEWOBJ_EX, extension codes, out-of-band
buffers) are refused, whatever they name.
"""

from __future__ import annotations

import codecs
import io
import pickletools
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from bench.system.errors import UserError

MAX_OPCODES = 1_000_000
MAX_DEPTH = 200
MAX_SIZE = 2_000_000
LINE = 4096
LONG = 1024
SMALL = 1 << 20

_NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
_KEYS = (str, bytes, int, bool, type(None))
_ENCODINGS = {"ascii", "latin1", "bytes"}


def read_pickle(
    data: BinaryIO,
    table: Mapping[tuple[str, str], Any],
    *,
    persistent: Callable[[Any], Any] | None = None,
    encoding: str = "ASCII",
    max_opcodes: int = MAX_OPCODES,
) -> Any:
    """The object of the pickle that starts at the position of `data`, which is left behind it.

    `table` maps exact (module, name) pairs to what stands for them: callables, or constants that
    cannot be called. Only they are called (REDUCE, NEWOBJ), and only instances of classes among
    them that define `__setstate__` take a state (BUILD); every other name is refused, and a dotted
    name is one name. `persistent` answers persistent ids. `encoding` of Python 2's strings is
    "ASCII", "latin1", or "bytes" to keep them as they are.

    `data` must be seekable; declared lengths are compared with what is left of it before anything
    is read. Containers cannot hold themselves, are at most MAX_DEPTH deep, and a walk that visits
    shared parts as often as they occur sees at most MAX_SIZE objects, so that the result can be
    walked naively. Dictionary keys are text, bytes, None and whole numbers below 2^20.

    Raises UserError with one sentence for anything else.
    """
    if encoding.lower() not in _ENCODINGS:
        raise ValueError(f"encoding must be ASCII, latin1 or bytes, got {encoding!r}")
    return _Machine(_Source(data), table, persistent, encoding.lower(), max_opcodes).run()


def _refuse(what: str) -> UserError:
    return UserError(f"The pickle is refused: {what}.")


def _shown(*parts: object) -> str:
    """Names of unknown origin, short and free of control characters."""
    text = ".".join(part if isinstance(part, str) else repr(type(part)) for part in parts)
    return ascii(text[:100])[1:-1]


class _Source:
    """Bytes of a stream, never more asked for than there are."""

    def __init__(self, data: BinaryIO) -> None:
        self.data = data
        start = data.tell()
        self.left = data.seek(0, io.SEEK_END) - start
        data.seek(start)

    def take(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise _refuse(f"it declares {count:,} bytes where {self.left:,} are left")
        found = self.data.read(count)
        if len(found) != count:
            raise _refuse("it ends early")
        self.left -= count
        return found

    def number(self, width: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def line(self) -> bytes:
        found = self.data.readline(min(LINE, self.left))
        self.left -= len(found)
        if not found.endswith(b"\n"):
            raise _refuse("a line of text in it is too long or ends early")
        return found[:-1]


@dataclass(slots=True, eq=False)
class _Item:
    """A value on the stack, with the depth and the number of objects below it.

    `fresh`: a container made here, which may be filled. `used`: part of something else, whose
    measures depend on it; it changes no more, which is why cycles cannot arise.
    """

    value: Any
    depth: int = 1
    size: int = 1
    fresh: bool = False
    used: bool = False

    def take_in(self, children: Iterable[_Item]) -> None:
        for child in children:
            child.used = True
            self.depth = max(self.depth, child.depth + 1)
            self.size += child.size
        if self.depth > MAX_DEPTH:
            raise _refuse(f"it nests more than {MAX_DEPTH} levels deep")
        if self.size > MAX_SIZE:
            raise _refuse(f"it unfolds into more than {MAX_SIZE:,} objects")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_INTEGERS = {"BININT": (4, True), "BININT1": (1, False), "BININT2": (2, False)}
_LONGS = {"LONG1": 1, "LONG4": 4}
_TEXT = {"SHORT_BINUNICODE": 1, "BINUNICODE": 4, "BINUNICODE8": 8}
_BYTES = {"SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8}
_OLD_TEXT = {"SHORT_BINSTRING": 1, "BINSTRING": 4}
_EMPTY: dict[str, type[Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = {"BINPUT": 1, "LONG_BINPUT": 4}
_GETS = {"BINGET": 1, "LONG_BINGET": 4}


@dataclass
class _Machine:
    source: _Source
    table: Mapping[tuple[str, str], Any]
    persistent: Callable[[Any], Any] | None
    encoding: str
    max_opcodes: int
    stack: list[_Item] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, _Item] = field(default_factory=dict)
    done: int = 0

    def run(self) -> Any:
        self.names = {id(value): name for name, value in self.table.items()}
        self.classes = {value for value in self.table.values() if isinstance(value, type)}
        while True:
            code = self.source.number(1)
            name = _NAMES.get(code)
            if name is None:
                raise _refuse(f"byte {code} is no opcode; the file is damaged or no pickle")
            if name == "STOP":
                return self._pop().value
            self.done += 1
            if self.done > self.max_opcodes:
                raise _refuse(f"it has more than {self.max_opcodes:,} opcodes")
            if not (self._leaf(name) or self._structure(name) or self._object(name)):
                raise _refuse(f"it uses the opcode {name}, which checkpoints and data do not need")

    def _push(self, value: Any, children: Iterable[_Item] = (), *, fresh: bool = False) -> None:
        item = _Item(value, fresh=fresh)
        item.take_in(children)
        self.stack.append(item)

    def _pop(self) -> _Item:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _refuse("it takes from an empty stack; the file is damaged or no pickle")
        return self.stack.pop()

    def _pop_to_mark(self) -> list[_Item]:
        if not self.marks:
            raise _refuse("a mark is missing in it; the file is damaged or no pickle")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _leaf(self, name: str) -> bool:
        """Opcodes that push a number, a text or bytes."""
        source = self.source
        if name in _TEXT:
            self._push(_decoded(source.take(source.number(_TEXT[name])), "utf-8", "surrogatepass"))
        elif name in _CONSTANTS:
            self._push(_CONSTANTS[name])
        elif name in _INTEGERS:
            width, signed = _INTEGERS[name]
            self._push(source.number(width, signed=signed))
        elif name == "BINFLOAT":
            self._push(struct.unpack(">d", source.take(8))[0])
        elif name in _BYTES:
            self._push(source.take(source.number(_BYTES[name])))
        elif name in _OLD_TEXT:
            self._push(self._old_text(source.take(source.number(_OLD_TEXT[name]))))
        elif name == "BYTEARRAY8":
            self._push(bytearray(source.take(source.number(8))))
        elif name in _LONGS:
            length = source.number(_LONGS[name])
            if length > LONG:
                raise _refuse(f"it has a whole number of {length:,} bytes")
            self._push(source.number(length, signed=True))
        elif name in ("INT", "LONG", "FLOAT"):
            self._push(_parsed(name, source.line()))
        elif name == "STRING":
            self._push(self._old_text(_unquoted(source.line())))
        elif name == "UNICODE":
            self._push(_decoded(source.line(), "raw-unicode-escape"))
        else:
            return False
        return True

    def _old_text(self, raw: bytes) -> str | bytes:
        return raw if self.encoding == "bytes" else _decoded(raw, self.encoding)

    def _structure(self, name: str) -> bool:
        """Opcodes of containers, of the memo and of the stack itself."""
        if name in _GETS or name == "GET":
            index = self.source.number(_GETS[name]) if name in _GETS else self._index()
            if index not in self.memo:
                raise _refuse(f"it recalls entry {index} of its memo, which it has not filled")
            self.stack.append(self.memo[index])
        elif name in _PUTS or name in ("PUT", "MEMOIZE"):
            self._put(name)
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _EMPTY:
            self._push(_EMPTY[name](), fresh=True)
        elif name in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[name])][::-1]
            self._push(tuple(item.value for item in items), items)
        elif name == "TUPLE":
            items = self._pop_to_mark()
            self._push(tuple(item.value for item in items), items)
        elif name == "LIST":
            items = self._pop_to_mark()
            self._push([item.value for item in items], items, fresh=True)
        elif name in ("DICT", "FROZENSET"):
            items = self._pop_to_mark()
            self._push({} if name == "DICT" else set(), fresh=True)
            self._fill(items)
            if name == "FROZENSET":
                self.stack[-1].value = frozenset(self.stack[-1].value)
                self.stack[-1].fresh = False
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"):
            count = {"APPEND": 1, "SETITEM": 2}.get(name)
            items = [self._pop() for _ in range(count)][::-1] if count else self._pop_to_mark()
            self._fill(items)
        elif name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        elif name == "POP":
            self._pop()
        elif name == "POP_MARK":
            self._pop_to_mark()
        elif name == "DUP":
            item = self._pop()
            self.stack += [item, item]
        elif name in ("PROTO", "FRAME"):
            self.source.take(1 if name == "PROTO" else 8)
        else:
            return False
        return True

    def _index(self) -> int:
        found = _parsed("INT", self.source.line())
        if not isinstance(found, int) or found < 0:
            raise _refuse("an index of its memo is no whole number")
        return found

    def _put(self, name: str) -> None:
        if name == "MEMOIZE":
            index = len(self.memo)
        else:
            index = self.source.number(_PUTS[name]) if name in _PUTS else self._index()
        if index > self.done:
            raise _refuse(f"it fills entry {index} of its memo after {self.done} opcodes")
        item = self._pop()
        self.stack.append(item)
        self.memo[index] = item

    def _fill(self, items: list[_Item]) -> None:
        """Add to the container on top of the stack."""
        target = self._pop()
        self.stack.append(target)
        target.take_in(items)
        if target.used or not target.fresh:
            raise _refuse(
                f"it adds to a {_shown(type(target.value).__name__)} that is no container, or is "
                "already part of another or of itself"
            )
        values = [item.value for item in items]
        container = target.value
        if isinstance(container, list):
            for value in values:
                container.append(value)
        elif isinstance(container, dict):
            if len(values) % 2:
                raise _refuse("a dictionary in it has a key without a value")
            for key, value in zip(values[::2], values[1::2], strict=True):
                container[_key(key)] = value
        else:
            container.update(_key(value) for value in values)

    def _object(self, name: str) -> bool:
        """Opcodes that name, call or restore what the table holds."""
        if name == "GLOBAL":
            module, attribute = self.source.line(), self.source.line()
            self._name(_decoded(module, "utf-8"), _decoded(attribute, "utf-8"))
        elif name == "STACK_GLOBAL":
            last, first = self._pop().value, self._pop().value
            self._name(first, last)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self._pop(), self._pop()
            self._call(function, arguments, new=name == "NEWOBJ")
        elif name == "BUILD":
            state, item = self._pop(), self._pop()
            self.stack.append(item)
            item.take_in([state])
            if item.used:
                raise _refuse("it gives a state to an object that is already part of another")
            kind = type(item.value)
            if not (issubclass(kind, tuple(self.classes)) and hasattr(kind, "__setstate__")):
                raise _refuse(f"it gives a state to a {_shown(kind.__module__, kind.__qualname__)}")
            self._guard(kind.__qualname__, kind.__setstate__, item.value, state.value)
        elif name in ("BINPERSID", "PERSID"):
            if self.persistent is None:
                raise _refuse("it refers to objects outside itself by a persistent id")
            text = name == "PERSID"
            key = _Item(_decoded(self.source.line(), "ascii")) if text else self._pop()
            self._push(self._guard("persistent id", self.persistent, key.value), [key])
        else:
            return False
        return True

    def _name(self, module: Any, name: Any) -> None:
        known = isinstance(module, str) and isinstance(name, str) and (module, name) in self.table
        if not known:
            raise _refuse(f"it names {_shown(module, name)}, which is not allowed in such a file")
        self._push(self.table[module, name])

    def _call(self, function: _Item, arguments: _Item, *, new: bool) -> None:
        called, values = function.value, arguments.value
        named = self.names.get(id(called))
        if named is None or not callable(called) or (new and called not in self.classes):
            raise _refuse(f"it calls a {_shown(type(called).__name__)} that is no allowed name")
        if type(values) is not tuple:
            raise _refuse(f"it calls {_shown(*named)} with something other than a tuple")
        if new:
            made = self._guard(".".join(named), called.__new__, called, *values)
        else:
            made = self._guard(".".join(named), called, *values)
        # Only a fresh instance is surely nobody else's, so that filling it is filling it alone.
        fresh = type(made) is called and isinstance(made, (list, dict, set))
        self._push(made, [arguments], fresh=fresh)
        self.stack[-1].used = any(made is value for value in values)

    @staticmethod
    def _guard(name: str, call: Callable[..., Any], *values: Any) -> Any:
        try:
            return call(*values)
        except UserError:
            raise
        except Exception as error:  # arguments of unknown origin may break anything
            problem = f"{name} in it has arguments that do not fit ({type(error).__name__})"
            raise _refuse(problem) from None


def _key(value: Any) -> Any:
    if type(value) not in _KEYS or (type(value) is int and abs(value) >= SMALL):
        raise _refuse(f"it has a {_shown(type(value).__name__)} as a key; keys are text or numbers")
    return value


def _decoded(raw: bytes, encoding: str, errors: str = "strict") -> str:
    try:
        return raw.decode(encoding, errors)
    except UnicodeDecodeError:
        raise _refuse(f"a text in it is not {encoding}") from None


def _parsed(name: str, line: bytes) -> int | float | bool:
    if name == "INT" and line in (b"00", b"01"):  # how protocol 0 writes False and True
        return line == b"01"
    try:
        if name == "FLOAT":
            return float(line)
        return int(line.removesuffix(b"L"))
    except ValueError:
        raise _refuse(f"{_shown(repr(line))} in it is no number") from None


def _unquoted(line: bytes) -> bytes:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise _refuse("a text in it lacks its quotes")
    try:
        return codecs.escape_decode(line[1:-1])[0]
    except ValueError:
        raise _refuse("a text in it has a broken escape") from None
