"""Small mistakes in a plugin are one sentence, when it is registered or first used."""

import re
import textwrap

import pytest

from bench.plugins.load import KINDS, load_plugins
from bench.system.errors import UserError, told
from methods.spec import DataSpec
from tests.bench.helpers import TINY, bench, rows_of, sets
from tests.bench.plugins.test_plugins import DATASET, EXTRACTOR, METHOD, METRIC, RULE, write

LAUNCHER = """
    from bench.system.launch import Local, register

    @register
    class Site(Local):
        name, summary = "site", "processes of a site"
"""
OWN_LOOP = """
    from methods import Guidance, Oracle, register

    @register
    class Own(Oracle):
        name = "own"
        takes_rules = False

        def sample(self, nets, labels, guidance, steps, rng):
            return super().sample(nets, labels, Guidance(guidance.scale), steps, rng)
"""


def changed(text, old, new):
    assert old in text
    return text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (changed(DATASET, 'summary = "a few points on a line"', ""),
         "TypeError: data set Strip lacks summary (line 6 of mine.py)"),
        (changed(DATASET, "reference = train", ""), "TypeError: data set Strip lacks reference"),
        (changed(LAUNCHER, "name, summary", "name, title").replace("(Local)", "(Launcher)")
         .replace("import Local", "import Launcher"),
         "TypeError: launcher Site lacks summary, start"),
        (changed(LAUNCHER, '"site", "processes of a site"', '"site", 3'),
         "TypeError: launcher Site: summary should be a valid string, got 3"),
        (changed(METRIC, 'summary = "number of samples"', "summary = None"),
         "TypeError: metric Count: summary should be a valid string, got None"),
        (changed(METRIC, 'label = "Count"', 'label = "Count"; needs = "features"'),
         "TypeError: metric Count: needs should be a valid frozenset, got 'features'"),
        (changed(METRIC, 'label = "Count"', 'label = "Count"; needs = frozenset({"pictures"})'),
         "TypeError: metric Count: needs[0] should be 'moments', 'features', 'logits' or 'pixels'"),
        (changed(METRIC, 'label = "Count"', 'label = "Count"; needs = frozenset({"pixels"})'),
         "TypeError: metric Count needs pixels, so set domain = 'image'"),
        (changed(METRIC, "(self, *, real, fake, extractor)", "(self, real, fake)"),
         "TypeError: metric Count: compute should take (self, *, real, fake, extractor)"),
        (changed(EXTRACTOR, ", *, download=False", ""),
         "TypeError: extractor Mean: __init__ should take (weights, download=...)"),
        (changed(EXTRACTOR, "dim = 1", 'dim = "1"'),
         "TypeError: extractor Mean: dim should be a valid integer, got '1'"),
        (changed(RULE, "scale(self, g, at)", "scale(self, g)"),
         "TypeError: rule Half: scale should take (self, g, at)"),
        (changed(RULE, "knobs_type = HalfKnobs", "knobs_type = HalfKnobs()"),
         "TypeError: rule Half: knobs_type should be a subclass of Settings"),
        (METHOD + "\n        guidance = 'smapling'",
         "TypeError: method Twin: guidance should be 'none', 'sampling' or 'embedded'"),
        (METHOD + "\n        presets = {'strip': {'steps': 3}}",
         "TypeError: method Twin: presets['strip']['dataset'] Field required, got {'steps': 3}"),
        (METHOD + "\n        def loss(self, nets, batch): pass",
         "TypeError: method Twin: loss should take (self, nets, batch, progress, rng)"),
        (METHOD.replace("@register", ""),
         "TypeError: method Twin is not registered: decorate it with @methods.registry.register"),
        ("from methods import DataSpec\nDataSpec('x', (1,), 2).classes",
         "AttributeError: 'DataSpec' object has no attribute 'classes' (did you mean "
         "'num_classes'?) (line 2 of mine.py)"),
    ],
)  # fmt: skip
def test_mistake_is_a_sentence_at_registration(tmp_path, text, error):
    file = write(tmp_path, text)
    with pytest.raises(UserError) as refused:
        load_plugins([file])
    message = str(refused.value)
    assert message.startswith(f"Plugin file {file} cannot be used: {error}")
    assert "\n" not in message
    assert refused.value.code == 2


def test_names_are_listed_where_none_is_close():
    with pytest.raises(AttributeError) as missing:
        DataSpec("x", (1,), 2).quux  # noqa: B018
    assert told(missing.value).endswith(
        "'quux' (it has is_image, mixture, name, num_classes, shape)"
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("def build(self): return self.data.classes",
         r"A plugin failed in line \d+ of mine.py: AttributeError: 'DataSpec' object has no "
         r"attribute 'classes' \(did you mean 'num_classes'\?\)\."),
        ("def loss(self, *rest): return super().loss(*rest)['denoise']",
         r"loss of twin should return a dict of names to tensors \(8,\), one number per sample, "
         r"and returned a Tensor\."),
        ("def loss(self, *rest): return {'a': super().loss(*rest)['denoise'].mean()}",
         r"loss of twin should return a dict of names to tensors \(8,\), one number per sample, "
         r"and 'a' is of shape \(\): do not average over them\."),
    ],
)  # fmt: skip
def test_mistake_is_a_sentence_in_training(tmp_path, body, error):
    both = "\n".join(map(textwrap.dedent, (METHOD, DATASET)))
    at = '    name = "twin"'
    file = write(tmp_path, changed(both, at, f"{at}\n\n    {body}\n"))
    where = ("--results", tmp_path / "r", "--plugin", file)
    ran = bench("train", "-m", "twin", "-d", "strip", *sets(*TINY), *where)
    assert ran.code == 1
    assert re.fullmatch(f"Error: {error}\n", ran.err)


def test_extractor_without_features_is_a_sentence(tmp_path):
    text = changed(EXTRACTOR, "return Extracted(samples.float().flatten(1).mean(1, keepdim=True), ",
                   "return (samples.float().flatten(1).mean(1), ")  # fmt: skip
    file = write(tmp_path, text)
    ran = bench("evaluate", "digits:train", "-r", "digits", "--extractor", "mean-value", "--metric",
                "fd", "--plugin", file, "--results", tmp_path / "r")  # fmt: skip
    assert ran.code == 1
    assert ran.err == (
        "Error: digits/reference cannot be measured: extractor 'mean-value' returned features "
        "(256,) for 256 samples, not (256, 1).\n"
    )


def test_data_set_without_a_part_is_a_sentence(tmp_path):
    file = write(tmp_path, changed(DATASET, "default_samples = 6", ""))
    ran = bench("sweep", "-d", "strip", "-m", "edm", "--plugin", file, "--results", tmp_path / "r")
    assert (ran.code, ran.err) == (1, "Error: A data set 'strip' lacks default_samples.\n")


def test_method_with_own_loop_computes_cfg_and_refuses_other_rules(tmp_path):
    file = write(tmp_path, OWN_LOOP)
    common = ("-m", "own", "-d", "modes1d", "-n", "40", "--results", tmp_path, "--plugin", file)
    ran = bench("sweep", *common, "-g", "1,3", "--rule", "cfg,apg", "--metric", "w1")
    assert ran.code == 0, ran.err
    reason = (
        "own takes no rule, because its sample has a loop of its own, for CFG only (takes_rules "
        "is False): to take all rules, derive it from methods.DenoiserMethod and implement "
        "`denoise` instead of `sample` and `nfe`"
    )
    assert f"modes1d: 1 skipped: {reason}." in ran.out
    rows = [(r.guidance, r.rule, r.status, r.reason) for r in rows_of(tmp_path, "own")]
    assert sorted(rows) == [
        (1.0, "", "ok", ""), (3.0, "", "ok", ""), (3.0, "apg", "skip", reason)
    ]  # fmt: skip
    ran = bench("tune", *common, "--rule", "apg")
    assert (ran.code, ran.err) == (2, f"Error: --method own: {reason}.\n")


def test_method_that_ignores_a_rule_fails_and_has_no_value(tmp_path):
    file = write(tmp_path, changed(OWN_LOOP, "takes_rules = False", "takes_rules = True"))
    ran = bench("sweep", "-m", "own", "-d", "modes1d", "-n", "40", "-g", "3", "--metric", "w1",
                "--rule", "cfg,apg", "--results", tmp_path, "--plugin", file)  # fmt: skip
    assert ran.code == 1
    assert "ValueError: own did not apply the rule apg: it sets takes_rules = True" in ran.out
    assert {(r.rule, r.status, bool(r.values)) for r in rows_of(tmp_path, "own")} == {
        ("", "ok", True), ("apg", "failed", False)
    }  # fmt: skip


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_built_ins_have_every_part_of_their_interface(kind):
    entry = KINDS[kind]
    for made in entry.table.values():
        if isinstance(made, type) and kind != "extractors":  # theirs are made by other arguments
            entry.check(made)
