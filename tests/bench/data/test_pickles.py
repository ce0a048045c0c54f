import collections
import io
import os
import pickle
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from bench.data.pickle_values import MAX_DEPTH
from bench.data.pickles import read_pickle
from bench.system.errors import UserError


def read(data: bytes, table=None, **more):
    return read_pickle(io.BytesIO(data), table or {}, **more)


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


VALUE = {
    "none": None,
    "bools": [True, False],
    "ints": [0, 255, 256, 65536, -1, 2**31 - 1, -(2**31), 2**40, -(2**100), 10**300],
    "floats": [0.0, -1.5, 1e300, float("inf")],
    "text": ["", "a", "ü", "\ud800", "x" * 300, "line\nline\\", "'"],
    "bytes": [b"", b"abc", bytes(range(256)) * 3],
    "nested": ({"a": [1, (2, (3, (4, (5,))))]}, [], {}, ()),
    "many": list(range(2500)),
    1: "number as key",
    None: b"none as key",
}


@pytest.mark.parametrize("protocol", range(6))
def test_reads_plain_values_of_every_protocol_as_python_does(protocol):
    known = {("_codecs", "encode"): lambda text, encoding: text.encode(encoding)}
    known |= {("__builtin__", "bytes"): bytes, ("builtins", "bytes"): bytes}
    assert read(pickle.dumps(VALUE, protocol), known) == VALUE


@pytest.mark.parametrize("protocol", [4, 5])
def test_reads_sets_and_bytearrays(protocol):
    value = [{1, 2, "c"}, frozenset({"x"}), set()]
    known = {("builtins", "bytearray"): bytearray}
    assert read(pickle.dumps([value, bytearray(b"ab")], protocol), known) == [value, b"ab"]


def test_shared_parts_stay_shared():
    part = [1]
    first, second = read(pickle.dumps([part, part]))
    assert first is second


@pytest.mark.parametrize(
    ("encoding", "expected"), [("bytes", b"caf\xe9"), ("latin1", "caf\xe9"), ("ASCII", None)]
)
def test_strings_of_python_2(encoding, expected):
    for data in (b"U\x04caf\xe9.", b"T\x04\x00\x00\x00caf\xe9.", b"S'caf\\xe9'\n."):
        if expected is None:
            with pytest.raises(UserError, match="not ascii"):
                read(data, encoding=encoding)
        else:
            assert read(data, encoding=encoding) == expected


def test_reading_stops_right_after_one_pickle():
    data = io.BytesIO(pickle.dumps(1) + pickle.dumps("two") + b"rest")
    assert read_pickle(data, {}) == 1
    assert read_pickle(data, {}) == "two"
    assert data.read() == b"rest"


class Stateful:
    def __setstate__(self, state):
        self.state = state


class Stateless:
    pass


class Bag(dict):
    def __setstate__(self, state):
        self.more = state


def test_only_objects_of_the_table_are_called_and_restored():
    table = {(__name__, "Stateful"): Stateful, ("x", "make"): lambda *a: ("made", *a)}
    made = read(global_("x", "make") + b"K\x01K\x02\x86R.", table)
    assert made == ("made", 1, 2)
    thing = Stateful()
    thing.colour = "red"
    assert read(pickle.dumps(thing, 2), table).state == {"colour": "red"}
    ordered = collections.OrderedDict(a=1)
    ordered.note = 2
    found = read(pickle.dumps(ordered, 2), {("collections", "OrderedDict"): Bag})
    assert (found, found.more) == ({"a": 1}, {"note": 2})


def test_arrays_of_numpy():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    names = ["numpy.core.multiarray", "numpy._core.multiarray"]
    table = {(n, "_reconstruct"): np._core.multiarray._reconstruct for n in names}
    table |= {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    np.testing.assert_array_equal(read(pickle.dumps(array, 4), table), array)


def test_persistent_ids_go_to_the_callback():
    data = b"(X\x07\x00\x00\x00storageK\x01tQ."
    assert read(data, persistent=lambda key: ("found", key)) == ("found", ("storage", 1))
    with pytest.raises(UserError, match="persistent id"):
        read(data)


@pytest.fixture
def canary(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "canary"


TOUCH = b"X\x0c\x00\x00\x00touch canary"
SAFE = {("builtins", "dict"): dict, ("torch._utils", "_rebuild"): lambda *a: a}
SAFE |= {("x", "Stateless"): Stateless}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (global_("os", "system") + TOUCH + b"\x85R.", "names os.system"),
        (global_("posix", "system") + TOUCH + b"\x85R.", "names posix.system"),
        (global_("evil.torch._utils", "_rebuild") + b")R.", "names evil.torch._utils._rebuild"),
        (global_("torch._utils", "_rebuild.__globals__") + b".", "names torch._utils._rebuild.__"),
        (global_("torch", "_utils._rebuild") + b".", "names torch._utils._rebuild"),
        (b"\x8c\x0ctorch._utils\x8c\x11_rebuild.__call__\x93.", "_rebuild.__call__"),
        (b"\x8c\x02osK\x01\x93.", "which is not allowed"),
        (global_("builtins", "getattr") + global_("os", "system") + b"\x86R.", "builtins.getattr"),
        (b"(" + TOUCH + b"ios\nsystem\n.", "opcode INST"),
        (b"(" + global_("builtins", "dict") + b"o.", "opcode OBJ"),
        (global_("builtins", "dict") + b")}\x92.", "opcode NEWOBJ_EX"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"\x83\x01\x00.", "opcode EXT2"),
        (b"\x84\x01\x00\x00\x00.", "opcode EXT4"),
        (b"\x97.", "opcode NEXT_BUFFER"),
        (TOUCH + TOUCH + b"\x85R.", "calls a str"),
        (global_("builtins", "dict") + b")R)R.", "calls a dict"),
        (global_("torch._utils", "_rebuild") + b")\x81.", "calls a function"),
        (global_("builtins", "dict") + b"]R.", "other than a tuple"),
        (global_("builtins", "dict") + b"K\x01\x85R.", "arguments that do not fit"),
        (global_("builtins", "dict") + b"}b.", "gives a state to a builtins.type"),
        (b"}}b.", "gives a state to a builtins.dict"),
        (global_("x", "Stateless") + b")\x81}b.", "gives a state"),
        (global_("torch._utils", "_rebuild") + b"}b.", "gives a state to a builtins.function"),
        (b"N(K\x01e.", "adds to a NoneType"),
        (b")(K\x01e.", "adds to a tuple"),
        (b"]q\x00h\x00a.", "part of another or of itself"),
        (b"]q\x00]q\x01h\x00ah\x00h\x01a0.", "part of another or of itself"),
        (b"}K\x01s.", "empty stack"),
        (b"}(K\x01u.", "without a value"),
        (b"}]K\x01s.", "a list as a key"),
        (b"})K\x01s.", "a tuple as a key"),
        (b"}\x8a\x08" + bytes(7) + b"\x10K\x01s.", "an int as a key|a int as a key"),
        (b"N" + b"\x85" * (MAX_DEPTH + 10) + b".", "levels deep"),
        (b"K\x01\x85" + b"2\x86" * 40 + b".", "unfolds into more than"),
        (b"K\x01r\xff\xff\xff\x7f.", "entry 2147483647 of its memo"),
        (b"K\x01p99999999\n.", "entry 99999999 of its memo"),
        (b"K\x01p-1\n.", "entry -1 of its memo"),
        (b"h\x05.", "has not filled"),
        (b"B\xff\xff\xff\x7fabc", "declares 2,147,483,647 bytes where 3 are left"),
        (b"\x8e" + b"\xff" * 8 + b"abc", "count > sys.maxsize: 18446744073709551615"),
        (b"\x96" + struct.pack("<Q", 10**10) + b"abc", "declares 10,000,000,000 bytes"),
        (b"\x8d" + struct.pack("<Q", 10**10) + b"abc", "declares 10,000,000,000 bytes"),
        (b"\x8b\xff\xff\xff\x7fabc", "whole number of 2,147,483,647 bytes"),
        (b"I" + b"9" * 5000 + b"\n.", "too long"),
        (b"Ix\n.", "INT in it does not parse: invalid literal"),
        (b"Sabc\n.", "STRING in it does not parse: no string quotes"),
        (b"S'\\x'\n.", "STRING in it does not parse: invalid .+ escape"),
        (b"\x8c\x02\xff\xff.", "not utf-8"),
        (b"e.", "a mark is missing"),
        (b"(.", "empty stack"),
        (b".", "empty stack"),
        (b"", "declares 1 bytes where 0 are left"),
        (b"\x00.", "no opcode"),
        (b"K\x01" + b"N0" * 30_000 + b".", "opcodes"),
    ],
)  # fmt: skip
def test_malicious_pickles_are_refused_in_one_sentence_and_run_nothing(canary, data, message):
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=message) as caught:
            read(data, SAFE, max_opcodes=50_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert not canary.exists()
    assert peak < 50e6


def test_payload_runs_with_the_standard_unpickler(canary):
    pickle.loads(global_("os", "system") + TOUCH + b"\x85R.")
    assert canary.exists()


def test_state_cannot_close_a_cycle():
    table = {("x", "S"): Stateful, ("x", "same"): lambda value: value}
    held = global_("x", "S") + b")\x81q\x00]q\x01h\x00a0h\x00h\x01b."
    again = global_("x", "same") + global_("x", "S") + b")\x81q\x00\x85Rh\x00\x85b."
    for data in (held, again):
        with pytest.raises(UserError, match="already part of another"):
            read(data, table)


def test_control_characters_in_names_are_escaped_in_the_message():
    with pytest.raises(UserError) as caught:
        read(b"\x8c\x03a\x1b[\x8c\x02b\n\x93.")
    assert "a\\x1b[.b\\n" in str(caught.value)


def test_truncated_or_changed_pickle_never_raises_another_error(canary):
    whole = pickle.dumps({k: v for k, v in VALUE.items() if k != "many"}, 4)
    rng = random.Random(0)
    for cut in range(len(whole)):
        with pytest.raises(UserError):
            read(whole[:cut])
    refused = 0
    for _ in range(3000):
        changed = bytearray(whole)
        for _ in range(3):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        try:
            read(bytes(changed), {("os", "getcwd"): os.getcwd})
        except UserError:
            refused += 1
    assert 1000 < refused < 3000
