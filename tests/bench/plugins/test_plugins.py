import re
import textwrap
from importlib import metadata

import pytest

from bench.plugins import load as plugins
from bench.plugins.load import load_plugins
from methods import METHODS
from methods.edm import EDM
from methods.rules import CFG, RULES
from tests.bench.helpers import TINY, bench, rows_of, sets

METHOD = """
    from methods import Preset, register
    from methods.edm import EDM

    @register
    class Twin(EDM):
        "EDM again."
        name = "twin"
        summary = "a second EDM"
        presets = {"modes1d": EDM.presets["modes1d"], "strip": EDM.presets["modes1d"].model_copy(
            update={"dataset": "strip"})}
"""
METRIC = """
    from metrics.base import Metric
    from metrics.registry import register

    @register
    class Count(Metric):
        "How many samples there are."
        name = "count"
        label = "Count"
        summary = "number of samples"
        direction = "none"
        uses_extractor = False

        def compute(self, *, real, fake, extractor):
            return float(fake.n)
"""
EXTRACTOR = """
    from metrics.base import Extracted, Extractor
    from metrics.extractors import register_extractor

    @register_extractor
    class Mean(Extractor):
        "The mean of an image."
        name = "mean-value"
        summary = "mean of all values"
        dim = 1
        hash = "1"

        def __init__(self, weights=None, *, download=False):
            pass

        def __call__(self, samples):
            return Extracted(samples.float().flatten(1).mean(1, keepdim=True), None)
"""
DATASET = """
    import torch
    from bench.data import Dataset, Split, register
    from methods import DataSpec

    @register
    class Strip(Dataset):
        "Ten points."
        name = "strip"
        summary = "a few points on a line"
        class_names = ("left", "right")
        extractors = ("identity",)
        default_samples = 6
        spec = DataSpec("strip", (1,), 2)

        @property
        def train(self):
            x = torch.linspace(-1, 1, 40)[:, None]
            return Split(x, (x[:, 0] > 0).long())

        reference = train
"""
RULE = """
    from methods import Settings
    from methods.rules import Rule, register_rule

    class HalfKnobs(Settings):
        share: float = 0.5
        kind: str = "both"

    @register_rule
    class Half(Rule[HalfKnobs]):
        "Part of the guidance."
        name = "half"
        summary = "part of the guidance"
        knobs_type = HalfKnobs

        def scale(self, g, at):
            return 1 + (g - 1) * self.knobs.share
"""


def write(folder, text, name="mine.py"):
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def test_file_adds_method_metric_and_data_set(tmp_path):
    file = write(tmp_path, "\n".join(map(textwrap.dedent, (METHOD, METRIC, DATASET))))
    results = ("--results", tmp_path / "r", "--plugin", file)
    ran = bench("train", "-m", "twin", "-d", "strip", *sets(*TINY), *results)
    assert (ran.code, ran.err) == (0, "")
    ran = bench("sweep", "-g", "1,2", "--steps", "2", *results)
    assert (ran.code, ran.err) == (0, "")
    rows = rows_of(tmp_path / "r", "twin")
    assert [(r.dataset, r.guidance, r.nfe, r.n) for r in rows] == [
        ("strip", 1.0, 3, 6),
        ("strip", 2.0, 6, 6),
    ]
    for row in rows:
        assert {v.metric: v.value for v in row.values}["count"] == 6.0
    for what, name, summary in (
        ("methods", "twin", "a second EDM"),
        ("metrics", "count", "number of samples"),
        ("datasets", "strip", "a few points on a line"),
    ):
        listed = bench("list", what, "--plugin", file)
        assert listed.code == 0
        entries = [line for line in listed.out.splitlines() if "(" in line and line[-1] != ":"]
        lines = {line.split()[0]: line for line in entries}
        assert summary in lines[name]
        assert lines[name].rstrip().endswith(f"(file {file})")
        assert all("(built-in)" in line for key, line in lines.items() if key != name)
        assert len(lines) > 2


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def broken(:", "SyntaxError: "),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        (METHOD + "\n    raise RuntimeError('late')", "RuntimeError: late"),
        (METHOD.replace("twin", "edm"), "ValueError: a method named 'edm' is already "),
        (METRIC.replace('"count"', '"fd"'), "ValueError: a metric named 'fd' is already "),
        (DATASET.replace('"strip"', '"digits"'), "ValueError: a data set named 'digits' is "),
        (RULE.replace('"half"', '"cfg"'), "ValueError: a rule named 'cfg' is already "),
        (RULE.replace('"half"', '"a+b"'), "ValueError: a rule name may contain letters"),
        (RULE.replace('"half"', '"../half"'), "ValueError: a rule name may contain letters"),
        (RULE.replace('summary = "part', 'other = "part'), "TypeError: rule Half lacks summary"),
        (RULE + "\n    raise RuntimeError('late')", "RuntimeError: late"),
        (METRIC.replace('label = "Count"', ""), "TypeError: metric Count lacks label"),
        (EXTRACTOR.replace("__call__", "call"), "TypeError: extractor Mean lacks __call__"),
        (EXTRACTOR.replace('"mean-value"', '"inception"'),
         "ValueError: an extractor named 'inception' is already registered"),
        (METHOD.replace("(EDM)", "(Method)").replace("import Preset", "import Method"),
         "TypeError: method Twin lacks guidance, config_type, build, loss, nfe, sample"),
    ],
)  # fmt: skip
def test_failing_plugin_file_is_an_error_and_registers_nothing(tmp_path, text, error):
    file = write(tmp_path, text)
    good = write(tmp_path, METRIC, "good.py")
    ran = bench("list", "methods", "--plugin", file, "--plugin", good)
    assert ran.code == 2
    assert ran.err.startswith(f"Error: Plugin file {file} cannot be used: {error}")
    assert ran.err.count("\n") == 1
    ran = bench("list", "methods", "--plugin", good)
    names = {line.split()[0] for line in ran.out.splitlines()}
    assert names == {
        "alpha-flow", "ct", "diffusers", "dit", "edm", "edm2", "gft", "guided-cd", "igct", "imm",
        "meanflow", "mg", "mg-ct", "oracle", "scd", "sct", "sit", "tcm",
    }  # fmt: skip
    assert METHODS["edm"] is EDM
    assert "half" not in RULES
    assert RULES["cfg"] is CFG
    metrics = bench("list", "metrics", "--plugin", good).out
    assert f"(file {good})" in metrics


def test_file_adds_a_rule(tmp_path):
    file = write(tmp_path, RULE)
    where = ("--results", tmp_path / "r", "--plugin", file)
    ran = bench("sweep", "-m", "oracle", "-d", "modes1d", "-g", "1,3", "-n", "40", "--metric", "w1",
                "--rule", "half", *where)  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    rows = rows_of(tmp_path / "r", "oracle")
    assert [(r.rule, dict(r.knobs), r.nfe) for r in rows] == [
        ("", {}, 35),
        ("half", {"half.share": 0.5, "half.kind": "both"}, 70),
    ]
    listed = bench("list", "rules", "--plugin", file)
    words = " ".join(listed.out.split())
    assert f"half part of the guidance share=0.5, kind=both (file {file})" in words
    assert re.search(r"^cfg .*\(built-in\) *$", listed.out, re.MULTILINE)


def test_missing_plugin_file_is_reported(tmp_path):
    for path, reason in (
        (tmp_path / "none.py", f"--plugin {tmp_path / 'none.py'}: there is no such file."),
        (
            tmp_path,
            f"Plugin file {tmp_path} cannot be used: ImportError: a plugin file is a Python",
        ),
    ):
        for command in (("list", "methods"), ("sweep", "--results", tmp_path / "r")):
            ran = bench(*command, "--plugin", path)
            assert ran.code == 2
            assert ran.err.startswith(f"Error: {reason}")
    assert not (tmp_path / "r").exists()


def test_loading_twice_equals_loading_once(tmp_path):
    file = write(tmp_path, METHOD)
    assert load_plugins([file, file]) == []
    assert load_plugins([file]) == []
    assert METHODS["twin"].summary == "a second EDM"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed distribution with an entry point in each group and one that fails."""
    write(tmp_path, METHOD, "plug_methods.py")
    write(tmp_path, METRIC.replace("@register\n", "\n"), "plug_metrics.py")
    write(tmp_path, DATASET, "plug_data.py")
    write(tmp_path, EXTRACTOR.replace("@register_extractor\n", "\n"), "plug_extractors.py")
    write(tmp_path, RULE.replace("@register_rule\n", "\n"), "plug_rules.py")
    write(tmp_path, LAUNCHER.replace("@register\n", "\n"), "plug_launchers.py")
    info = tmp_path / "plug-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[guidance_bench.methods]\ntwin = plug_methods\nbroken = plug_nowhere\n"
        "[guidance_bench.metrics]\ncount = plug_metrics:Count\n"
        "[guidance_bench.datasets]\nstrip = plug_data:Strip\n"
        "[guidance_bench.extractors]\nmean-value = plug_extractors:Mean\n"
        "[guidance_bench.rules]\nhalf = plug_rules:Half\n"
        "[guidance_bench.launchers]\nsite = plug_launchers:Site\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_entry_points_of_all_groups(package):
    assert {p.name for p in metadata.entry_points(group="guidance_bench.methods")} == {
        "twin",
        "broken",
    }
    for what, name in (
        ("methods", "twin"),
        ("metrics", "count"),
        ("datasets", "strip"),
        ("extractors", "mean-value"),
        ("rules", "half"),
        ("launchers", "site"),
    ):
        ran = bench("list", what)
        assert ran.code == 0
        assert ran.err == (
            "Warning: Plugin package plug was left out: ModuleNotFoundError: No module named "
            "'plug_nowhere'\n"
        )
        (line,) = (text for text in ran.out.splitlines() if text.startswith(f"{name} "))
        assert line.rstrip().endswith("(package plug)")


def test_every_registered_entry_has_an_origin():
    for kind, entry in plugins.KINDS.items():
        assert {name for k, name in plugins.ORIGINS if k == kind} == set(entry.table)
        assert {plugins.ORIGINS[kind, name] for name in entry.table} == {"built-in"}
    for what in ("extractors", "suites"):
        ran = bench("list", what)
        assert ran.code == 0
        assert ("inception" if what == "extractors" else "demo") in ran.out


LAUNCHER = """
    from bench.system.launch import Local, register

    @register
    class Site(Local):
        "The scheduler of a site."
        name = "site"
        summary = "processes, politely"

        def __init__(self, settings):
            super().__init__({k: v for k, v in settings.items() if k != "nice"})
            print("nice", repr(settings.get("nice")))
"""


def test_launcher_of_a_plugin_runs_the_workers(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(plugins, "FILES", [])
    plugin = tmp_path / "site.py"
    plugin.write_text(textwrap.dedent(LAUNCHER))
    suite = tmp_path / "suite.toml"
    suite.write_text(
        '[launcher]\nname = "site"\nnice = 5\nworkers = 2\n'
        '[[study]]\ndataset = "modes1d"\nmethods = ["oracle"]\nguidance = [1]\nsamples = 16\n'
    )
    common = ("--plugin", plugin, "--dry-run", "--results", tmp_path / "results")
    listed = bench("list", "launchers", "--plugin", plugin)
    assert "site   processes, politely" in listed.out
    for options, nice in (
        (("--suite", suite), "5"),
        (("--suite", suite, "--launcher", "site:nice=7"), "'7'"),
        (("-d", "modes1d", "-m", "oracle", "-n", "16", "--launcher", "site"), "None"),
    ):
        ran = bench("sweep", *options, *common)
        assert ran.code == 0, ran.err
        assert f"nice {nice}\n" in ran.out


def test_bad_launchers_are_refused(tmp_path) -> None:
    for option, message in (
        ("ssh", "Unknown launcher 'ssh'."),
        ("local:gpus=2", "Launcher 'local' has no settings: drop gpus."),
        ("local:gpus", "settings are name=value, each once and separated by commas, got 'gpus'"),
    ):
        ran = bench("sweep", "-d", "modes1d", "--launcher", option, "--results", tmp_path)
        assert ran.code == 2
        assert message in ran.err


@pytest.mark.usefixtures("package")
def test_extractor_and_launcher_of_a_package_are_used(tmp_path) -> None:
    where = ("--results", tmp_path / "results")
    ran = bench("evaluate", "digits:train", "-r", "digits", "--extractor", "mean-value", "--metric",
                "fd", *where)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "FD mean-value" in ran.out
    ran = bench("sweep", "-d", "modes1d", "-m", "oracle", "-n", "16", "--launcher", "site:nice=3",
                "--dry-run", *where)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "nice '3'\n" in ran.out
