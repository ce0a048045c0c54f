import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.experiment.rows import (
    Density,
    Images,
    Points,
    Row,
    Value,
    read_row,
    read_rows,
    row_path,
    write_row,
)
from bench.system.errors import UserError
from bench.system.files import atomic_path, sha256, write_text

VALUE = Value(
    metric="w1", label="W1", version=1, direction="lower", extractor="", extractor_hash="",
    n=20, value=0.1 + 0.2,
)  # fmt: skip
ROW = Row(
    key="a" * 64, status="ok", experiment="default", dataset="modes1d", data_hash="d",
    method="edm", run="modes1d-edm-s0", train_seed=0, checkpoint="c", guidance=1.1, steps=18,
    nfe=70, seed=0, n=20, reference="modes1d/reference", reference_hash="r", reference_n=4000,
    values=(VALUE,), created="2025-01-02T03:04:05+00:00", provenance={"torch": "2.6"},
)  # fmt: skip


def test_files_are_replaced_atomically(tmp_path):
    path = tmp_path / "deep" / "er" / "file.txt"
    write_text(path, "old")
    write_text(path, "new ä\n")
    assert path.read_bytes() == "new ä\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_write_leaves_only_the_old_file(tmp_path, error):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            assert (
                temporary.parent.parent == path.parent
            )  # the same file system: the rename is atomic
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_invisible_until_it_is_complete(tmp_path):
    path = tmp_path / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
    assert path.read_text() == "half"


def test_sha256_of_a_file(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    "preview",
    [
        None,
        Density(edges=(0.0, 0.5, 1.0), counts=((1, 2), (0, 3)), means=((0.1,), (0.3,)), std=0.2),
        Points(xy=((1.5, -2.25),), labels=(3,), means=(((1.0, 2.0),),), std=0.2),
        Images(png="aGk=", labels=(1,), class_names=("0", "1")),
    ],
)
def test_row_survives_writing_and_reading(tmp_path, preview):
    row = ROW.model_copy(update={"preview": preview})
    path = write_row(tmp_path, row)
    assert path == row_path(tmp_path, row.run, row.key)
    assert read_row(path) == row
    assert read_row(path).values[0].value == 0.1 + 0.2  # to the last bit
    assert read_rows(tmp_path) == [row]


def test_equal_rows_are_equal_bytes(tmp_path):
    first = write_row(tmp_path / "a", ROW).read_bytes()
    assert write_row(tmp_path / "b", ROW.model_copy()).read_bytes() == first


def test_older_row_without_errors_is_read(tmp_path):
    path = write_row(tmp_path, ROW)
    old = json.loads(path.read_text())
    new = {"se", "se_method", "low", "high", "replicates"}
    old["values"] = [{k: v for k, v in one.items() if k not in new} for one in old["values"]]
    del old["unmeasured"], old["content_sha256"]
    path.write_text(json.dumps(old))
    assert read_row(path) == ROW
    assert ROW.values[0].interval is None


def test_row_hash_depends_on_content_but_not_layout(tmp_path):
    path = write_row(tmp_path, ROW)
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(tree.items()))))
    assert read_row(path) == ROW
    path.write_text(json.dumps(tree | {"guidance": tree["guidance"] + 1}))
    with pytest.raises(UserError, match="cannot be used: it was changed since it was written"):
        read_row(path)


def test_missing_folder_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "cells") == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(bad):
    with pytest.raises(ValidationError, match="finite number"):
        Value(**{**VALUE.model_dump(), "value": bad})
    for name, given in (("se", bad), ("low", bad), ("high", bad), ("replicates", (0.1, bad))):
        with pytest.raises(ValidationError, match=name):
            Value(**{**VALUE.model_dump(), name: given})
    with pytest.raises(ValidationError, match="finite number"):
        Row(**{**ROW.model_dump(), "seconds_per_image": bad})


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda text: text[: len(text) // 2], "json"),
        (lambda text: "", "json"),
        (lambda text: "[]", "object"),
        (lambda text: text.replace('"ok"', '"fine"'), "status"),
        (lambda text: json.dumps({**json.loads(text), "extra": 1}), "extra"),
        (lambda text: text.replace('"n": 20', '"n": null'), "n: "),
        (lambda text: "\0\x80", "json"),
    ],
)
def test_damaged_row_gives_one_sentence_that_names_the_file(tmp_path, damage, complaint):
    path = write_row(tmp_path, ROW)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError) as raised:
        read_rows(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{path} is not a row of results (")
    assert message.endswith("); remove it and sweep again.")
    assert complaint in message
    assert "\n" not in message


def test_leftovers_of_killed_writers_only_are_removed(tmp_path):
    code = (
        "import os, sys, pathlib\nfrom bench.system.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    (temporary.parent / 'of a library').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    dead = tmp_path / "dead.txt"
    assert subprocess.run([sys.executable, "-c", code, str(dead)], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert len(list(left.iterdir())) == 2
    other = tmp_path / ".mine.writing"
    other.write_text("a file and no folder of ours")
    with atomic_path(tmp_path / "alive.txt") as temporary:
        assert not left.exists()
        temporary.write_text("whole")
        code = (
            "from bench.system.files import *\nimport sys, pathlib\ntidy(pathlib.Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
        assert temporary.read_text() == "whole"
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine.writing", "alive.txt"]


def test_new_folders_are_synced_before_their_content(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (synced.append(Path(f"/proc/self/fd/{fd}").readlink()), real(fd))
    )
    write_text(tmp_path / "a" / "b" / "file.txt", "text")
    folders = [path for path in synced if path.is_dir()]
    assert folders == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
