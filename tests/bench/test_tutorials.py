"""Every code block of the tutorials is run, in its order and in one folder per page."""

import runpy
import shutil
import sys
from pathlib import Path

import matplotlib as mpl
import pytest

from bench.data import register
from bench.data.stand_in import RandomImages
from bench.plugins.load import KINDS, OF_FILE
from methods.spec import DataSpec
from tests.bench.helpers import bench
from tests.bench.training.importing.official import golden_weights, network, write_official
from tests.documentation import DOCS, Block, blocks
from tests.long import mostly_long

TUTORIALS = sorted(f"tutorials/{path.stem}" for path in (DOCS / "tutorials").glob("*.md"))
PAGES = ["python", *TUTORIALS]
SHORT = {f"tutorials/{name}" for name in ("folder-of-samples", "official-checkpoint", "pandas")}
STAND_INS = {"cifar10": "golden16"}
"""Published networks are for 32 x 32 pixels, those of the tests for 16 x 16."""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch, judged):
    """An empty folder whose modules can be imported, with the classifier of digits."""
    shutil.copytree(judged, tmp_path / "results" / "cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    mpl.use("agg")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write_given(name: str) -> None:
    """Write a tiny file in the format of an official one."""
    register(type("Golden", (RandomImages,), {"name": "golden16", "__init__": _golden}))
    weights = golden_weights("edm_ddpmpp")
    arguments = {}
    if "uncond" in name:
        weights = {key: value for key, value in weights.items() if "map_label" not in key}
        arguments = {"label_dim": 0, "img_resolution": 16}
    write_official(Path(name), {"ema": network(weights, "EDMPrecond", **arguments)})


def _golden(self):
    RandomImages.__init__(self, DataSpec("golden16", (3, 16, 16), 10))
    self.class_names = tuple(map(str, range(10)))


def run_commands(block: Block) -> int:
    """Run the `bench` commands of a block, with more options for short ones; returns the count."""
    more = {name: rest.split() for name, _, rest in (s.partition(" ") for s in block.all("short"))}
    commands = block.commands()
    for words in commands:
        words = [STAND_INS.get(word, word) for word in words]
        ran = bench(*words, *more.get(words[0], []))
        assert ran.code == 0, (words, ran.err)
    return len(commands)


def run_conformance(path: Path) -> int:
    """Run the conformance tests in a file, as a process of pytest would; returns their count."""
    for kind in KINDS.values():  # commands have registered the plugin under another module
        for name, entry in list(kind.table.items()):
            if getattr(entry, "__module__", "").startswith(OF_FILE):
                del kind.table[name]
    found = [value for name, value in runpy.run_path(str(path)).items() if name.startswith("Test")]
    tests = [(kind, name) for kind in found for name in dir(kind) if name.startswith("test_")]
    for kind, name in tests:
        getattr(kind(), name)()
    return len(tests)


@pytest.mark.parametrize("page", mostly_long(PAGES, SHORT))
def test_tutorial_runs(page):
    ran, names = 0, {"__name__": "tutorial"}
    for block in blocks(DOCS / f"{page}.md"):
        if block.marks and block.one("not run") is not None:
            continue
        if (name := block.one("given")) is not None:
            write_given(name)
        if (name := block.one("file")) is not None:
            Path(name).write_text(block.text)
            if name.startswith("test_"):
                assert run_conformance(Path(name)) >= 7
        elif block.language == "bash":
            ran += run_commands(block)
        elif block.language == "python":
            exec(compile(block.text, page, "exec"), names)
            ran += 1
        else:
            assert block.language == "text", block
    assert ran >= 1


def test_every_tutorial_has_code():
    assert set(TUTORIALS) > SHORT
    for page in TUTORIALS:
        assert blocks(DOCS / f"{page}.md"), page
