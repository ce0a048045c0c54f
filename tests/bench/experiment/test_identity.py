"""What cells and code are known by."""

import dataclasses
import hashlib
import importlib
import sys
import textwrap

import pytest

from bench.data.find import find_dataset
from bench.experiment import identity
from bench.experiment.identity import code_hash
from bench.experiment.place import Experiment
from bench.plugins.load import load_plugins
from bench.sweep import cells
from bench.sweep.cells import expand
from bench.training.card import read_card
from bench.training.run import open_run
from methods import METHODS


def keys(card, experiment, data=None, **changes):
    found = open_run(card, data or find_dataset("modes1d"), experiment)
    options = {"guidance": (1.0, 2.0), "steps": None, "seeds": (0,), "samples": 9, **changes}
    return [cell.key for cell in expand(found, **options)]


def test_key_depends_on_everything_that_the_samples_depend_on(trained):
    place = Experiment(trained, "default")
    card = read_card(place.runs / "modes1d-edm-s0")
    base = keys(card, place)
    assert base == keys(card.model_copy(update={"name": "modes1d-edm-s0"}), place)
    others = [
        keys(card, place, seeds=(1,)),
        keys(card, place, samples=10),
        keys(card, place, steps=(5,)),
        keys(card, place, guidance=(3.0, 4.0)),
        keys(card.model_copy(update={"data_hash": "other"}), place),
        keys(card.model_copy(update={"config": {**card.config, "rho": 5.0}}), place),
    ]
    weights = place.runs / card.name / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    others.append(keys(card, place))
    flat = [key for group in (base, *others) for key in group]
    assert len(set(flat)) == len(flat) == 16


@pytest.mark.parametrize(
    "module", ["bench.sweep.generate", "bench.data.convert", "methods.samplers"]
)
def test_key_depends_on_the_code_that_makes_samples(trained, monkeypatch, module):
    def edited(name):
        found = parsed(name)
        return (
            dataclasses.replace(found, digest=found.digest + " edited") if name == module else found
        )

    parsed = identity._parsed
    place = Experiment(trained, "default")
    card = read_card(place.runs / "modes1d-edm-s0")
    monkeypatch.setattr(cells, "code_hash", identity.code_hash.__wrapped__)
    before = keys(card, place)
    assert before == keys(card, place)
    monkeypatch.setattr(identity, "_parsed", edited)
    assert not set(before) & set(keys(card, place))


PLUGIN = '''
"""A plugin."""
from methods import METHODS, register
from methods.samplers import karras_sigmas
from methods.oracle import Oracle

@register
class Mine(Oracle):
    """Documented."""
    name = "mine"
    presets = {}
    def nfe(self, guidance, steps):
        return steps  # one each
'''


def plugin_hash(folder, text):
    folder.mkdir()
    (folder / "mine.py").write_text(textwrap.dedent(text))
    assert load_plugins([folder / "mine.py"]) == []
    return code_hash(METHODS.pop("mine"))


def test_code_hash_ignores_docstrings_and_layout(tmp_path):
    same = [
        PLUGIN,
        PLUGIN.replace("# one each", ""),
        PLUGIN.replace('"""Documented."""', '"""Better documented."""'),
        PLUGIN.replace('name = "mine"', 'name = "mine"\n    """What it is called."""'),
        PLUGIN.replace("presets = {}", "presets = {**Oracle.presets}"),
        PLUGIN.replace("(self, guidance, steps)", "(\n        self, guidance, steps\n    )"),
    ]
    other = [
        PLUGIN.replace("return steps", "return steps + 1"),
        PLUGIN.replace("from methods.samplers import karras_sigmas\n", ""),
    ]
    base = {plugin_hash(tmp_path / f"same{k}", text) for k, text in enumerate(same)}
    changed = {plugin_hash(tmp_path / f"other{k}", text) for k, text in enumerate(other)}
    assert (len(base), len(base | changed)) == (1, 3)


def test_moving_modules_and_tidying_imports_keeps_the_code_hash(tmp_path, monkeypatch):
    # Module names and import lines are not hashed; constants are, and what a name stands for.

    def hashed(folder, *, package, helpers, scale=1.0, use="from {}.{} import SCALE", body="SCALE"):
        top = tmp_path / folder / package
        top.mkdir(parents=True)
        (top / "__init__.py").write_text("")
        (top / f"{helpers}.py").write_text(f"import math\nSCALE = math.exp({scale})\n")
        (top / "other.py").write_text("SCALE = 3.0\n")
        plugin = PLUGIN.replace("register\n", f"register\n{use.format(package, helpers)}\n", 1)
        plugin = plugin.replace("return steps", f"return steps * {body}")
        (top / "mine.py").write_text(plugin)
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / folder)
            importlib.import_module(f"{package}.mine")
            return code_hash(METHODS.pop("mine"))

    base = hashed("a", package="pack_a", helpers="scales")
    typed = "if TYPE_CHECKING:\n    import torch\nfrom {}.{} import SCALE"
    typed = f"from typing import TYPE_CHECKING\n{typed}"
    same = [
        hashed("b", package="pack_b", helpers="scales"),
        hashed("c", package="pack_c", helpers="levels"),
        hashed("d", package="pack_d", helpers="scales", use=typed),
    ]
    assert set(same) == {base}
    both = "from {0} import other\nfrom {0}.{1} import SCALE"
    swapped = "from {0}.{1} import SCALE as unused\nfrom {0}.other import SCALE"
    others = [
        hashed("e", package="pack_e", helpers="scales", scale=1.5),
        hashed("f", package="pack_f", helpers="scales", use=both),
        hashed("g", package="pack_g", helpers="scales", use=swapped),
    ]
    assert len({base, *others}) == 4


def test_code_hash_includes_imports(monkeypatch):
    hashes = {name: code_hash.__wrapped__(cls) for name, cls in METHODS.items()}
    tree = identity._tree

    def edited(module):
        found = tree(module)
        if module == "methods.igct_loss":
            found.body.append(found.body[-1])
        return found

    monkeypatch.setattr(identity, "_tree", edited)
    monkeypatch.setattr(identity, "_parsed", identity._parsed.__wrapped__)
    after = {name: code_hash.__wrapped__(cls) for name, cls in METHODS.items()}
    assert {name for name in hashes if hashes[name] != after[name]} == {"igct", "mg-ct"}


@pytest.mark.parametrize(
    ("top", "inside"),
    [
        ("from {} import SCALES", "pass"),
        ("import {}", "pass"),
        ("pass", "from {} import SCALES"),  # not loaded before the first sample is drawn
    ],
)
def test_code_hash_includes_helpers_of_a_plugin_file(tmp_path, monkeypatch, top, inside):
    helper = f"scales_{hashlib.sha256(f'{top}{inside}'.encode()).hexdigest()[:8]}"
    plugin = PLUGIN.replace("register\n", f"register\n{top.format(helper)}\n", 1)
    plugin = plugin.replace("return steps", f"{inside.format(helper)}\n        return steps")

    def hashed(folder, scales):
        folder.mkdir()
        (folder / f"{helper}.py").write_text(f"import torch\nSCALES = torch.tensor({scales})\n")
        (folder / "here.py").write_text(plugin)
        monkeypatch.syspath_prepend(folder)
        assert load_plugins([folder / "here.py"]) == []
        found = code_hash(METHODS.pop("mine"))
        sys.modules.pop(helper, None)
        identity._parsed.cache_clear()
        return found

    one = hashed(tmp_path / "one", [1.0, 2.0])
    assert one == hashed(tmp_path / "same", [1.0, 2.0])
    assert one != hashed(tmp_path / "other", [1.0, 3.0])


def test_code_hash_includes_the_module_that_defines_a_constant(tmp_path, monkeypatch):
    package = tmp_path / "constants_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("from constants_of_mine.table import TABLE\n")
    (package / "mine.py").write_text(
        PLUGIN.replace("register\n", "register\nfrom constants_of_mine import TABLE\n", 1)
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for value in (1.0, 1.0, 2.0):
        (package / "table.py").write_text(f"import torch\nTABLE = torch.tensor({value})\n")
        importlib.invalidate_caches()
        importlib.import_module("constants_of_mine.mine")
        found.append(code_hash(METHODS.pop("mine")))
        for name in [name for name in sys.modules if name.startswith("constants_of_mine")]:
            del sys.modules[name]
        identity._parsed.cache_clear()
    assert found[0] == found[1] != found[2]
