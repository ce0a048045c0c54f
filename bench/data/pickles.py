"""Untrusted pickles: a stack machine that calls only the functions in a given table.

Python's own unpickler is not used. `pickletools` names the opcodes and parses their arguments.
Opcodes that only serve to name or build arbitrary objects (INST, OBJ, NEWOBJ_EX, extension codes,
out-of-band buffers) are always refused, except NEWOBJ_EX for an inert replacement.
"""

from __future__ import annotations

import codecs
import pickletools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from bench.data.pickle_bytes import Source, refuse, shown_names
from bench.data.pickle_values import Item, Named, Strangers
from bench.system.errors import UserError

MAX_OPCODES = 1_000_000
LONG = 1024
SMALL = 1 << 20
LARGE = 1 << 16

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
    strangers: Strangers | None = None,
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

    `strangers` gives a replacement for the module and the name of an object that is not in the
    table, or None to refuse it. With it, texts and bytes of at least LARGE bytes become `Later`,
    keys of other types become text, and containers may be filled after their use, as objects that
    refer to themselves need it. The result may then contain itself: `check_bounds` makes a walk
    over a part of it safe.

    Raises UserError for anything else.
    """
    if encoding.lower() not in _ENCODINGS:
        raise ValueError(f"encoding must be ASCII, latin1 or bytes, got {encoding!r}")
    return _Machine(Source(data), table, persistent, encoding.lower(), max_opcodes, strangers).run()


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "INT", "LONG", "FLOAT", "BININT", "BININT1", "BININT2", "BINFLOAT", "UNICODE",
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8",
    "BYTEARRAY8",
}  # fmt: skip
"""Opcodes that push their argument."""
_LONGS = {"LONG1": 1, "LONG4": 4}
_LENGTHS = {"BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8, "BINUNICODE": 4, "BINUNICODE8": 8}
"""Opcodes whose argument may be large, with the bytes of its length."""
_OLD_TEXT = {"SHORT_BINSTRING": 1, "BINSTRING": 4}
_EMPTY: dict[str, type[Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "TUPLE": None}
_FILLS = {"APPEND": 1, "SETITEM": 2, "APPENDS": None, "SETITEMS": None, "ADDITEMS": None}
"""Opcodes and the number of items that they take; None: all down to a mark."""
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}


@dataclass
class _Machine:
    source: Source
    table: Mapping[tuple[str, str], Any]
    persistent: Callable[[Any], Any] | None
    encoding: str
    max_opcodes: int
    strangers: Strangers | None
    stack: list[Item] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Item] = field(default_factory=dict)
    done: int = 0

    def run(self) -> Any:
        self.names = {id(value): name for name, value in self.table.items()}
        self.classes = {value for value in self.table.values() if isinstance(value, type)}
        while True:
            code = self.source.number(1)
            op = _OPCODES.get(code)
            if op is None:
                raise refuse(f"byte {code} is no opcode; the file is damaged or not a pickle")
            name = op.name
            if name == "STOP":
                return self._pop().value
            self.done += 1
            if self.done > self.max_opcodes:
                raise refuse(f"it has more than {self.max_opcodes:,} opcodes")
            if not (self._leaf(op) or self._structure(op) or self._object(name)):
                raise refuse(f"it uses the opcode {name}, which checkpoints and data do not need")

    def _push(self, value: Any, children: Iterable[Item] = (), *, fresh: bool = False) -> None:
        item = Item(value, fresh=fresh)
        item.take_in(children)
        self.stack.append(item)

    def _pop(self) -> Item:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise refuse("it takes from an empty stack; the file is damaged or not a pickle")
        return self.stack.pop()

    def _items(self, count: int | None) -> list[Item]:
        """The top `count` items in their order; None: all down to a mark."""
        if count is not None:
            return [self._pop() for _ in range(count)][::-1]
        if not self.marks:
            raise refuse("a mark is missing in it; the file is damaged or not a pickle")
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
        if self.strangers and name in _LENGTHS:
            length, text = source.number(_LENGTHS[name]), "UNICODE" in name
            if length >= LARGE:
                self._push(source.later(length, text=text))
            else:
                raw = source.read(length)
                self._push(_decoded(raw, "utf-8", "surrogatepass") if text else raw)
        elif name in _LITERALS:
            self._push(self._argument(op))
        elif name in _CONSTANTS:
            self._push(_CONSTANTS[name])
        elif name in _OLD_TEXT:
            self._push(self._old_text(source.read(source.number(_OLD_TEXT[name]))))
        elif name == "STRING":
            with _parsing(name):
                quoted = pickletools.read_stringnl(source, decode=False)  # type: ignore[arg-type]
                content = codecs.escape_decode(quoted)[0]
            self._push(self._old_text(content))
        elif name in _LONGS:
            length = source.number(_LONGS[name])
            if length > LONG:
                raise refuse(f"it has a whole number of {length:,} bytes")
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
                raise refuse(f"it recalls entry {index} of its memo, which it has not filled")
            self.stack.append(self.memo[index])
        elif name in _PUTS:
            index = len(self.memo) if name == "MEMOIZE" else self._argument(op)
            if not 0 <= index <= self.done:
                raise refuse(f"it fills entry {index} of its memo after {self.done} opcodes")
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

    def _fill(self, items: list[Item]) -> None:
        """Add to the container on top of the stack."""
        target = self._pop()
        self.stack.append(target)
        if isinstance(target.value, Named):
            return
        target.take_in(items)
        if (target.used and not self.strangers) or not target.fresh:
            raise refuse(
                f"it adds to a {shown_names(type(target.value).__name__)} that is not a container, "
                "or is already part of another or of itself"
            )
        values = [item.value for item in items]
        container = target.value
        if isinstance(container, list):
            for value in values:
                container.append(value)
        elif isinstance(container, dict):
            if len(values) % 2:
                raise refuse("a dictionary in it has a key without a value")
            for key, value in zip(values[::2], values[1::2], strict=True):
                container[self._key(key, container)] = value
        else:
            container.update(self._key(value, container) for value in values)

    def _key(self, value: Any, container: Any) -> Any:
        if type(value) in _KEYS and (type(value) is not int or abs(value) < SMALL):
            return value
        kind = shown_names(type(value).__name__)
        if self.strangers is None:
            raise refuse(f"it has a {kind} as a key; keys are text or numbers")
        # Hashes of other keys can be made to collide; those of texts are random.
        return str(value) if type(value) in (int, float) else f"{kind} {len(container)}"

    def _object(self, name: str) -> bool:
        """Opcodes that name, call or restore objects of the table."""
        if name == "GLOBAL":
            module, attribute = self._line("utf-8"), self._line("utf-8")
            self._name(module, attribute)
        elif name == "STACK_GLOBAL":
            last, first = self._pop().value, self._pop().value
            self._name(first, last)
        elif name == "NEWOBJ_EX" and self.strangers:
            _, arguments, function = self._pop(), self._pop(), self._pop()
            if not isinstance(function.value, Named):
                raise refuse(f"it uses {name} for an object that it must not build")
            self._call(function, arguments, new=True)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self._pop(), self._pop()
            self._call(function, arguments, new=name == "NEWOBJ")
        elif name == "BUILD":
            state, item = self._pop(), self._pop()
            self.stack.append(item)
            if isinstance(item.value, Named):
                return True
            item.take_in([state])
            if item.used and not self.strangers:
                raise refuse("it gives a state to an object that is already part of another")
            kind = type(item.value)
            if not (issubclass(kind, tuple(self.classes)) and hasattr(kind, "__setstate__")):
                shown = shown_names(kind.__module__, kind.__qualname__)
                raise refuse(f"it gives a state to a {shown}")
            self._guard(kind.__qualname__, kind.__setstate__, item.value, state.value)
        elif name in ("BINPERSID", "PERSID"):
            if self.persistent is None:
                raise refuse("it refers to objects outside itself by a persistent id")
            key = Item(self._line("ascii")) if name == "PERSID" else self._pop()
            self._push(self._guard("persistent id", self.persistent, key.value), [key])
        else:
            return False
        return True

    def _line(self, encoding: str) -> str:
        return _decoded(self.source.readline()[:-1], encoding)

    def _name(self, module: Any, name: Any) -> None:
        if isinstance(module, str) and isinstance(name, str):
            if (module, name) in self.table:
                self._push(self.table[module, name])
                return
            stranger = self.strangers and self.strangers(module, name)
            if stranger:
                self._push(stranger)
                return
        raise refuse(f"it names {shown_names(module, name)}, which is not allowed in such a file")

    def _call(self, function: Item, arguments: Item, *, new: bool) -> None:
        called, values = function.value, arguments.value
        if isinstance(called, Named) and called.builds:
            self._push(Named(called.name))
            return
        named = self.names.get(id(called))
        if named is None or not callable(called) or (new and called not in self.classes):
            kind = shown_names(type(called).__name__)
            which = f" ({shown_names(called.name)})" if isinstance(called, Named) else ""
            raise refuse(f"it calls a {kind}{which} that is no allowed name")
        if type(values) is not tuple:
            raise refuse(f"it calls {shown_names(*named)} with something other than a tuple")
        if new:
            made = self._guard(".".join(named), called.__new__, called, *values)
        else:
            made = self._guard(".".join(named), called, *values)
        # Only a fresh instance is certainly not shared, so that filling it changes nothing else.
        fresh = type(made) is called and isinstance(made, (list, dict, set))
        self._push(made, [] if isinstance(made, Named) else [arguments], fresh=fresh)
        self.stack[-1].used = any(made is value for value in values)

    @staticmethod
    def _guard(name: str, call: Callable[..., Any], *values: Any) -> Any:
        try:
            return call(*values)
        except UserError:
            raise
        except Exception as error:  # untrusted arguments may raise anything
            problem = f"{name} in it has arguments that do not fit ({type(error).__name__})"
            raise refuse(problem) from None


def _decoded(raw: bytes, encoding: str, errors: str = "strict") -> str:
    with _parsing("text"):
        return raw.decode(encoding, errors)


@contextmanager
def _parsing(what: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise refuse(f"a text in it is not {error.encoding}") from None
    except ValueError as error:
        raise refuse(
            f"an argument of {what} in it does not parse: {shown_names(str(error))}"
        ) from None
