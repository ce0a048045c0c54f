"""What cells and code are known by."""

import textwrap

from bench.experiment import Experiment
from bench.identity import code_hash
from bench.plan import expand, target
from bench.plugins import load_plugins
from bench.runs import dataset, read_card
from methods import METHODS


def keys(card, experiment, data=None, **changes):
    found = target(card, data or dataset("modes1d"), experiment)
    options = {"guidance": (1.0, 2.0), "steps": None, "seeds": (0,), "samples": 9, **changes}
    return [cell.key for cell in expand(found, **options)]


def test_a_key_names_all_that_the_samples_depend_on(trained):
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


def test_code_is_known_by_what_it_does(tmp_path):
    same = [
        PLUGIN,
        PLUGIN.replace("# one each", ""),
        PLUGIN.replace('"""Documented."""', '"""Better documented."""'),
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


def test_code_includes_what_it_imports(monkeypatch):
    from bench import identity

    hashes = {name: code_hash.__wrapped__(cls) for name, cls in METHODS.items()}
    tree = identity._tree

    def edited(module):
        found = tree(module)
        if module.__name__ == "methods.igct_loss":
            found.body.append(found.body[-1])
        return found

    monkeypatch.setattr(identity, "_tree", edited)
    after = {name: code_hash.__wrapped__(cls) for name, cls in METHODS.items()}
    assert {name for name in hashes if hashes[name] != after[name]} == {"igct", "mg-ct"}
