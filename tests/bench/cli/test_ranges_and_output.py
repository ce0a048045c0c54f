"""Numbers out of range are refused in a sentence, and output of any encoding loses nothing."""

import io
import json
import sys
from contextlib import redirect_stdout

import pytest

from bench.cli import app as cli
from bench.system.encoding import printing_anything
from bench.system.errors import UserError
from tests.bench.helpers import bench

LONG = "9" * 20
OUT_OF_RANGE = {
    "train --seed": (
        ("train", "-m", "edm", "-d", "modes1d", "--seed", LONG),
        "9223372036854775807",
    ),
    "train --dry-run": (
        ("train", "-m", "edm", "-d", "modes1d", "--seed", LONG, "--dry-run"),
        "9223372036854775807",
    ),
    "sample --seed": (("sample", "--seed", LONG), "9223372036854775807"),
    "sample --steps": (("sample", "--steps", LONG), "100000"),
    "sample -n": (("sample", "-n", LONG), "100000000"),
    "sample --batch": (("sample", "--batch", LONG), "1000000"),
    "sweep --seeds": (("sweep", "--seeds", LONG), "--seeds"),
    "sweep --steps": (
        ("sweep", "--steps", LONG),
        "whole numbers from 1 to 100,000",
    ),
    "sweep -g": (("sweep", "-g", "1e308"), "--guidance '1e308' has a number beyond +-1,000,000."),
    "sweep -n": (("sweep", "-n", LONG), "100000000"),
    "evaluate": (("evaluate", "digits", "-r", "digits", "--max-samples", LONG), "100000000"),
    "verify": (("verify", "--seed", LONG), "9223372036854775807"),
    "tune": (("tune", "--seed-block", LONG), "1000000"),
    "net": (
        ("train", "-m", "edm", "-d", "modes1d", "--set", f"net.width={LONG}"),
        "less than or equal to 65536",
    ),
    "batch": (
        ("train", "-m", "edm", "-d", "modes1d", "--set", f"train.batch={LONG}"),
        "less than or equal to 16777216",
    ),
}


@pytest.mark.parametrize(("arguments", "said"), OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_numbers_out_of_range_are_refused_with_the_range(tmp_path, arguments, said):
    ran = bench(*arguments, *([] if arguments[0] == "evaluate" else ["--results", tmp_path]))
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seeds", f"[{LONG}]", "study.0.seeds.0: input should be less than or equal to 9223372"),
        ("sampling_seeds", f"[{LONG}]", "study.0.sampling_seeds.0: input should be less than"),
        ("steps", f"[{LONG}]", "study.0.steps.0: input should be less than or equal to 100000"),
        ("samples", LONG, "study.0.samples: input should be less than or equal to 100000000"),
        ("guidance", "[1e308]", "study.0.guidance.0: input should be less than or equal to 100000"),
        ("guidance", "'1e308'", "beyond +-1,000,000"),
    ],
)
def test_suite_keys_out_of_range_are_refused(tmp_path, key, value, said):
    suite = tmp_path / "s.toml"
    suite.write_text(f"[[study]]\ndataset = 'modes1d'\nmethods = ['oracle']\n{key} = {value}\n")
    ran = bench("sweep", "--suite", suite, "--results", tmp_path)
    assert (ran.code, said in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", "v +- >= \\u4e2d"), ("cp1252", "v ± >= \\u4e2d")]
)
def test_signs_that_an_encoding_lacks_fall_back(encoding, expected):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    printing_anything(stream)
    stream.write("↓ ± ≥ 中")
    stream.flush()
    assert raw.getvalue().decode(encoding) == expected


def test_file_names_that_are_no_utf8_are_printed_escaped():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    printing_anything(stream)
    stream.write("do\udce9g")
    stream.flush()
    assert raw.getvalue() == b"do\\udce9g"
    printing_anything(None)
    assert UserError("do\udce9g").args[0] == "do\\udce9g"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437"])
def test_command_with_signs_prints_in_any_encoding_and_writes_its_report(
    tmp_path, monkeypatch, encoding
):
    monkeypatch.chdir(tmp_path)
    command = ["bench", "evaluate", "modes1d:train", "-r", "modes1d", "--metric", "fd"]
    monkeypatch.setattr(sys, "argv", [*command, "--out", "o.json"])
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    with redirect_stdout(stream), pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    text = raw.getvalue().decode(encoding)
    assert "FD identity @20000 v" in text
    assert ("+-" if encoding == "ascii" else "±") in text
    assert json.loads((tmp_path / "o.json").read_text())["rows"][0]["metric"] == "fd"


def test_report_is_written_before_anything_is_printed(tmp_path, monkeypatch):
    """As when the reader of a pipe has gone, or the disk of the output is full."""
    from bench.cli import evaluate

    def fail(*_):
        raise UnicodeEncodeError("cp1252", "↓", 0, 1, "no such sign")

    monkeypatch.setattr(evaluate, "_show", fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnicodeEncodeError):
        bench("evaluate", "modes1d:train", "-r", "modes1d", "--metric", "fd", "--out", "o.json")
    assert (tmp_path / "o.json").exists()
