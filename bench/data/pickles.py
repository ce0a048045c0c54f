"""Untrusted pickles: a stack machine that calls only the functions in a given table.

Python's own unpickler is not used. `pickletools` names the opcodes and parses their arguments.
Opcodes that only serve to name or build arbitrary objects (INST, OBJ, NEWOBJ_EX, extension codes,
out-of-band buffers) are always refused.
"""

from __future__ import annotations

import codecs
import io
import pickletools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from bench.system.errors import UserError

MAX_OPCODES = 1_000_000
MAX_DEPTH = 200
MAX_SIZE = 2_000_000
LINE = 4096
LONG = 1024
SMALL = 1 << 20

_OPCODES = {ord(op.code): op for op in pickletools.opcodes}
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
    """The object of the pickle that starts at the position of `data`; stops right after it.

    `table` maps exact (module, name) pairs to callables or constants. Only these callables are
    called (REDUCE, NEWOBJ), and only instances of classes in the table that define `__setstate__`
    take a state (BUILD). Every other name is refused; a dotted name is one name. `persistent`
    resolves persistent ids. `encoding` of Python 2's strings is "ASCII", "latin1", or "bytes" to
    keep them as bytes.

    `data` must be seekable; a declared length is compared with the bytes left before anything is
    read. Containers cannot contain themselves, are at most MAX_DEPTH deep, and hold at most
    MAX_SIZE objects, shared ones counted at every occurrence, so that a plain recursive walk over
    the result is safe. Dictionary keys are text, bytes, None and whole numbers below 2^20.

    Raises UserError for anything else.
    """
    if encoding.lower() not in _ENCODINGS:
        raise ValueError(f"encoding must be ASCII, latin1 or bytes, got {encoding!r}")
    return _Machine(_Source(data), table, persistent, encoding.lower(), max_opcodes).run()


def _refuse(what: str) -> UserError:
    return UserError(f"The pickle is refused: {what}.")


def _shown(*parts: object) -> str:
    """Untrusted names, short and free of control characters."""
    text = ".".join(part if isinstance(part, str) else repr(type(part)) for part in parts)
    return ascii(text[:100])[1:-1]


class _Source:
    """A stream that refuses to read more bytes than are left."""

    def __init__(self, data: BinaryIO) -> None:
        self.data = data
        start = data.tell()
        self.left = data.seek(0, io.SEEK_END) - start
        data.seek(start)

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise _refuse(f"it declares {count:,} bytes where {self.left:,} are left")
        found = self.data.read(count)
        if len(found) != count:
            raise _refuse("it ends early")
        self.left -= count
        return found

    def number(self, width: int) -> int:
        return int.from_bytes(self.read(width), "little")

    def readline(self) -> bytes:
        found = self.data.readline(min(LINE, self.left))
        self.left -= len(found)
        if not found.endswith(b"\n"):
            raise _refuse("a line of text in it is too long or ends early")
        return found


@dataclass(slots=True, eq=False)
class _Item:
    """A value on the stack, with the depth and the number of objects below it.

    `fresh`: a container made here, which may be filled. `used`: part of another value. It can no
    longer change, so that cycles cannot arise.
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
_LITERALS = {
    "INT", "LONG", "FLOAT", "BININT", "BININT1", "BININT2", "BINFLOAT", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
}  # fmt: skip
"""Opcodes that push their argument."""
_LONGS = {"LONG1": 1, "LONG4": 4}
_OLD_TEXT = {"SHORT_BINSTRING": 1, "BINSTRING": 4}
_EMPTY: dict[str, type[Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "TUPLE": None}
_FILLS = {"APPEND": 1, "SETITEM": 2, "APPENDS": None, "SETITEMS": None, "ADDITEMS": None}
"""Opcodes and the number of items that they take; None: all down to a mark."""
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}


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
            op = _OPCODES.get(code)
            if op is None:
                raise _refuse(f"byte {code} is no opcode; the file is damaged or not a pickle")
            name = op.name
            if name == "STOP":
                return self._pop().value
            self.done += 1
            if self.done > self.max_opcodes:
                raise _refuse(f"it has more than {self.max_opcodes:,} opcodes")
            if not (self._leaf(op) or self._structure(op) or self._object(name)):
                raise _refuse(f"it uses the opcode {name}, which checkpoints and data do not need")

    def _push(self, value: Any, children: Iterable[_Item] = (), *, fresh: bool = False) -> None:
        item = _Item(value, fresh=fresh)
        item.take_in(children)
        self.stack.append(item)

    def _pop(self) -> _Item:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise _refuse("it takes from an empty stack; the file is damaged or not a pickle")
        return self.stack.pop()

    def _items(self, count: int | None) -> list[_Item]:
        """The top `count` items in their order; None: all down to a mark."""
        if count is not None:
            return [self._pop() for _ in range(count)][::-1]
        if not self.marks:
            raise _refuse("a mark is missing in it; the file is damaged or not a pickle")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _argument(self, op: pickletools.OpcodeInfo) -> Any:
        assert op.arg is not None
        with _parsing(op.name):
            return op.arg.reader(self.source)  # type: ignore[arg-type]

    def _leaf(self, op: pickletools.OpcodeInfo) -> bool:
        """Opcodes that push a number, a text or bytes."""
        name, source = op.name, self.source
        if name in _LITERALS:
            self._push(self._argument(op))
        elif name in _CONSTANTS:
            self._push(_CONSTANTS[name])
        elif name in _OLD_TEXT:
            self._push(self._old_text(source.read(source.number(_OLD_TEXT[name]))))
        elif name == "STRING":
            with _parsing(name):
                raw = pickletools.read_stringnl(source, decode=False)  # type: ignore[arg-type]
                raw = codecs.escape_decode(raw)[0]
            self._push(self._old_text(raw))
        elif name in _LONGS:
            length = source.number(_LONGS[name])
            if length > LONG:
                raise _refuse(f"it has a whole number of {length:,} bytes")
            self._push(int.from_bytes(source.read(length), "little", signed=True))
        else:
            return False
        return True

    def _old_text(self, raw: bytes) -> str | bytes:
        return raw if self.encoding == "bytes" else _decoded(raw, self.encoding)

    def _structure(self, op: pickletools.OpcodeInfo) -> bool:
        """Opcodes of containers, of the memo and of the stack itself."""
        name = op.name
        if name in _GETS:
            index = self._argument(op)
            if index not in self.memo:
                raise _refuse(f"it recalls entry {index} of its memo, which it has not filled")
            self.stack.append(self.memo[index])
        elif name in _PUTS:
            index = len(self.memo) if name == "MEMOIZE" else self._argument(op)
            if not 0 <= index <= self.done:
                raise _refuse(f"it fills entry {index} of its memo after {self.done} opcodes")
            item = self._pop()
            self.stack.append(item)
            self.memo[index] = item
        elif name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _EMPTY:
            self._push(_EMPTY[name](), fresh=True)
        elif name in _TUPLES:
            items = self._items(_TUPLES[name])
            self._push(tuple(item.value for item in items), items)
        elif name in ("LIST", "DICT", "FROZENSET"):
            items = self._items(None)
            self._push({"LIST": list, "DICT": dict}.get(name, set)(), fresh=True)
            self._fill(items)
            if name == "FROZENSET":
                self.stack[-1].value = frozenset(self.stack[-1].value)
                self.stack[-1].fresh = False
        elif name in _FILLS:
            self._fill(self._items(_FILLS[name]))
        elif name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        elif name == "POP":
            self._pop()
        elif name == "POP_MARK":
            self._items(None)
        elif name == "DUP":
            item = self._pop()
            self.stack += [item, item]
        elif name in ("PROTO", "FRAME"):
            self._argument(op)
        else:
            return False
        return True

    def _fill(self, items: list[_Item]) -> None:
        """Add to the container on top of the stack."""
        target = self._pop()
        self.stack.append(target)
        target.take_in(items)
        if target.used or not target.fresh:
            raise _refuse(
                f"it adds to a {_shown(type(target.value).__name__)} that is not a container, or "
                "is already part of another or of itself"
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
        """Opcodes that name, call or restore objects of the table."""
        if name == "GLOBAL":
            module, attribute = self._line("utf-8"), self._line("utf-8")
            self._name(module, attribute)
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
            key = _Item(self._line("ascii")) if name == "PERSID" else self._pop()
            self._push(self._guard("persistent id", self.persistent, key.value), [key])
        else:
            return False
        return True

    def _line(self, encoding: str) -> str:
        return _decoded(self.source.readline()[:-1], encoding)

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
        # Only a fresh instance is certainly not shared, so that filling it changes nothing else.
        fresh = type(made) is called and isinstance(made, (list, dict, set))
        self._push(made, [arguments], fresh=fresh)
        self.stack[-1].used = any(made is value for value in values)

    @staticmethod
    def _guard(name: str, call: Callable[..., Any], *values: Any) -> Any:
        try:
            return call(*values)
        except UserError:
            raise
        except Exception as error:  # untrusted arguments may raise anything
            problem = f"{name} in it has arguments that do not fit ({type(error).__name__})"
            raise _refuse(problem) from None


def _key(value: Any) -> Any:
    if type(value) not in _KEYS or (type(value) is int and abs(value) >= SMALL):
        raise _refuse(f"it has a {_shown(type(value).__name__)} as a key; keys are text or numbers")
    return value


def _decoded(raw: bytes, encoding: str) -> str:
    with _parsing("text"):
        return raw.decode(encoding)


@contextmanager
def _parsing(what: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise _refuse(f"a text in it is not {error.encoding}") from None
    except ValueError as error:
        raise _refuse(f"an argument of {what} in it does not parse: {_shown(str(error))}") from None
