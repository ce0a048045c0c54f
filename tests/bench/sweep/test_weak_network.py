"""A weaker network on its way from the command line and from suites to rules."""

import pytest

from bench.data.find import find_dataset
from bench.experiment.place import Experiment
from bench.experiment.rows import read_rows
from bench.experiment.suite import read_suite
from bench.report.numbers.frame import prepare
from bench.sweep.cells import expand
from bench.system.errors import UserError
from bench.system.files import sha256
from bench.training.card import make_card, read_card
from bench.training.extra_network import find_extra_network
from bench.training.run import open_run
from tests.bench.helpers import TINY, TOY_METRICS, bench, rows_of, sets

OWN = "modes1d-edm-s0"
RULES = 'rules = ["cfg", "autoguidance", "icg"]\n'
METRICS = 'metrics = ["w1"]\n'
SET = (
    "set = { "
    + ", ".join(f'"{key}" = {value}' for key, _, value in (pair.partition("=") for pair in TINY))
    + " }\n"
)
STUDY = (
    '[[study]]\ndataset = "modes1d"\nmethods = ["edm"]\nsamples = 20\nguidance = [1, 3]\n'
    + METRICS
    + RULES
    + SET
)
WEAK = '[study.weak]\nset = { "net.width" = 4, "train.iterations" = 3 }\n'


def suite(folder, *parts):
    path = folder / "mine.toml"
    path.write_text("".join(parts))
    return path


def run(command, path, results, *more):
    return bench(command, "--suite", path, "--results", results, *more)


def folder_of(results, name):
    return results / "default/runs" / name


@pytest.fixture
def weaker(trained):
    """The name of a weaker edm run beside those of `trained`."""
    small = ("train.iterations=3", "train.batch=8", "net.width=4", "net.blocks=1")
    named = ("--name", "small", "--results", trained)
    ran = bench("train", "-m", "edm", "-d", "modes1d", *sets(*small), *named)
    assert ran.code == 0, ran.err
    return "small"


def guided(results, rule="autoguidance", run=OWN):
    rows = rows_of(results, "edm")
    return [r for r in rows if (r.run, r.rule, r.guidance) == (run, rule, 3.0)]


def test_weak_checkpoint_turns_a_skip_into_a_row(trained, weaker, tmp_path):
    path = suite(tmp_path, STUDY)
    ran = run("sweep", path, trained)
    assert ran.code == 0, ran.err
    (skipped,) = guided(trained)
    assert skipped.status == "skip"
    assert "--weak-checkpoint" in skipped.reason
    ran = run("sweep", path, trained, "--weak-checkpoint", weaker)
    assert ran.code == 0, ran.err
    assert "1 cell computed, 3 kept, 0 skipped" in ran.out
    (row,) = [r for r in guided(trained) if r.status == "ok"]
    assert row.weak_checkpoint == sha256(folder_of(trained, weaker) / "model.safetensors")
    assert row.nfe == 70
    assert 35 < row.nfe_weighted < 70
    others = [r for r in rows_of(trained, "edm") if r.rule != row.rule]
    assert [r.weak_checkpoint for r in others] == ["", "", ""]
    by_folder = run("sweep", path, trained, "--weak-checkpoint", folder_of(trained, weaker))
    assert "0 cells computed, 4 kept" in by_folder.out
    run("sweep", path, trained)  # whose skip is newer than the row
    reported = prepare(read_rows(trained / "default/cells")).rows
    assert [r.key for r in reported if r.rule == "autoguidance"] == [row.key]


def test_run_is_not_its_own_weaker_network(trained, weaker, tmp_path):
    path = suite(tmp_path, STUDY.replace(RULES, 'rules = ["autoguidance"]\n'))
    ran = run("sweep", path, trained, "--weak-checkpoint", OWN)
    assert ran.code == 0, ran.err
    off, on = rows_of(trained, "edm")
    assert (off.guidance, on.guidance) == (1.0, 3.0)
    # It would be a line of its own at twice the cost, and the same values.
    assert (on.status, "--weak-checkpoint" in on.reason) == ("skip", True)
    more = ("-g", "3", "-n", "20", *TOY_METRICS, "--results", trained, "-m", "edm")
    ran = bench("sweep", "--rule", "autoguidance", "--weak-checkpoint", weaker, *more)
    assert ran.code == 0, ran.err
    assert [r.status for r in guided(trained, run=weaker)] == ["skip"]
    assert sorted(r.status for r in guided(trained)) == ["ok", "skip"]


def test_weak_checkpoint_changes_no_key_of_other_rules(trained, weaker):
    place = Experiment(trained, "default")
    plain = open_run(read_card(folder_of(trained, OWN)), find_dataset("modes1d"), place)
    joined = plain.join(find_extra_network("weak", weaker, place))
    old, new = (expand(t, (1.0, 2.0), (3,), (0,), 5) for t in (plain, joined))
    assert [c.key for c in old] == [c.key for c in new]
    both = joined.join(find_extra_network("null", weaker, place))
    assert both.method.weak == joined.method.weak
    second = joined.extra_checkpoint("weak")
    assert (both.extra_checkpoint("null"), both.extra_checkpoint("weak")) == (second, second)


def test_unused_weak_checkpoint_gives_a_message(trained, weaker):
    more = ("-g", "1,2", "-n", "20", *TOY_METRICS, "--results", trained, "--dry-run")
    ran = bench("sweep", *more, "--weak-checkpoint", weaker)
    assert ran.code == 0, ran.err
    assert "No rule here uses a weaker network" in ran.out
    ran = bench("sweep", "-m", "ct", *more, "--weak-checkpoint", weaker)
    assert ran.code == 2
    assert "--weak-checkpoint is for runs of edm, and these are of ct" in ran.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nothing",
            "--weak-checkpoint 'nothing' is no fitting run of this experiment (it has: modes1d",
        ),
        ("modes1d-ct-s0", "--weak-checkpoint 'modes1d-ct-s0' is a run of ct, not of edm"),
    ],
)
def test_unusable_weak_checkpoint_is_refused_with_a_reason(trained, name, message):
    for command in ("sweep", "sample"):
        ran = bench(command, "-m", "edm", "--results", trained, "--weak-checkpoint", name)
        assert ran.code != 0
        assert message in ran.err


def test_weak_checkpoint_is_refused_for_other_methods(trained):
    options = ("--results", trained, "--weak-checkpoint", OWN, "-o", trained / "x.npz", "-n", "4")
    ran = bench("sample", "-m", "ct", *options)
    assert (ran.code, "is for runs of edm" in ran.err) == (2, True)
    assert not (trained / "x.npz").exists()
    ran = bench("sample", "-m", "edm", *options)
    assert ran.code == 0, ran.err


def test_suite_trains_weaker_networks_and_joins_them_by_seed(tmp_path):
    results = tmp_path / "results"
    path = suite(tmp_path, STUDY, "seeds = [0, 1]\n", WEAK)
    planned = run("train", path, results, "--dry-run")
    assert planned.code == 0, planned.err
    assert f"{OWN}-weak:" in planned.out
    assert not results.exists()
    ran = run("train", path, results)
    assert ran.code == 0, ran.err
    names = [f"modes1d-edm-s{seed}{end}" for seed in (0, 1) for end in ("", "-weak")]
    assert sorted(f.name for f in (results / "default/runs").iterdir()) == names
    card = read_card(folder_of(results, names[1]))
    assert (card.config["net"]["width"], card.train.iterations, card.train.batch) == (4, 3, 8)
    assert read_card(folder_of(results, names[3])).seed == 1
    ran = run("sweep", path, results)
    assert ran.code == 0, ran.err
    assert "8 cells computed, 0 kept, 0 skipped" in ran.out
    rows = rows_of(results, "edm")
    assert {r.run for r in rows} == {names[0], names[2]}
    for own, weak in (names[:2], names[2:]):
        (row,) = guided(results, run=own)
        assert row.weak_checkpoint == sha256(folder_of(results, weak) / "model.safetensors")
    # What the command line names goes before what the suite trains.
    again = run("sweep", path, results, "--weak-checkpoint", names[3])
    assert "1 cell computed, 7 kept" in again.out


def test_suite_with_missing_weaker_network_gives_a_message(trained, tmp_path):
    path = suite(tmp_path, STUDY, WEAK)
    ran = run("sweep", path, trained)
    assert ran.code == 0, ran.err
    assert f"Left out {OWN}-weak: it is not trained to its end" in ran.out
    (row,) = guided(trained)
    assert row.status == "skip"
    ran = run("train", path, trained)
    assert ran.code == 0, ran.err
    changed = suite(tmp_path, STUDY, WEAK.replace('iterations" = 3', 'iterations" = 4'))
    ran = run("sweep", changed, trained)
    assert ran.code != 0
    assert f"Run '{OWN}-weak' was not trained as the suite says (train.iterations" in ran.err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (STUDY.replace('"edm"', '"ct"') + WEAK, "weak trains a weaker edm network: add edm"),
        (STUDY + "[study.weak]\nset = {}\n", "study.0.weak.set"),
        (STUDY + "[study.weak]\nnets = 3\n", "study.0.weak.nets: extra inputs"),
    ],
)
def test_unusable_weaker_networks_are_named(tmp_path, text, complaint):
    with pytest.raises(UserError, match=complaint.replace(".", r"\.")):
        read_suite(str(suite(tmp_path, text)))


@pytest.mark.parametrize("name", ["digits", "modes1d", "modes2d"])
def test_reference_suite_has_weaker_networks(name):
    (study,) = [s for s in read_suite("reference").study if s.dataset == name and s.weak]
    own = make_card("edm", data=find_dataset(name), overrides=study.set)
    weak = make_card("edm", data=find_dataset(name), overrides={**study.set, **study.weak.set})
    assert weak.train.iterations == own.train.iterations / 4
    width = "channels" if name == "digits" else "width"
    assert weak.config["net"][width] == own.config["net"][width] / 2
