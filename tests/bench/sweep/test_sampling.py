"""Labels, samplers and grids as axes of a sweep."""

import time

import numpy as np
import pytest
import torch

from bench.data.find import find_dataset
from bench.experiment.rows import Row, read_rows
from bench.report.numbers.frame import prepare
from bench.sweep.cells import expand, sample_classes
from bench.sweep.sampler import Sampler as CellSampler
from bench.sweep.sampler import Stream
from bench.training.card import make_card
from bench.training.run import open_run
from methods.samplers import Sampler
from tests.bench.helpers import bench

COMMON = (
    *("sweep", "-m", "oracle", "-d", "modes1d", "-g", "1,3", "-n", "60", "--workers", "1"),
    *("--metric", "w1"),
)


def run(experiment):
    data = find_dataset("modes1d")
    return open_run(make_card("oracle", data=data), data, experiment)


@pytest.fixture
def experiment(tmp_path):
    from bench.experiment.place import Experiment

    return Experiment(tmp_path, "default")


def sweep(place, *options):
    ran = bench(*COMMON, "--results", place, *options)
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def test_usual_sampling_has_the_key_of_before(experiment):
    """Keys name only what is unusual, so earlier rows remain valid."""
    ready = run(experiment)
    (plain,) = expand(ready, [3.0], [18], [0], 60)
    (named,) = expand(ready, [3.0], [18], [0], 60, labels="balanced", sampler=Sampler())
    assert plain.key == named.key
    others = [
        expand(ready, [3.0], [18], [0], 60, labels=labels, sampler=sampler)[0].key
        for labels, sampler in (
            ("random", Sampler()), ("reference", Sampler()), ("balanced", Sampler("sde")),
            ("balanced", Sampler("heun", "cosine")),
        )
    ]  # fmt: skip
    assert len({plain.key, *others}) == 5


def test_random_classes_are_uniform_and_do_not_depend_on_n():
    data = find_dataset("digits")
    many = sample_classes("random", data, 0, 50_000)
    assert (sample_classes("random", data, 0, 70) == many[:70]).all()
    assert (sample_classes("random", data, 1, 70) != many[:70]).any()
    counts = np.bincount(many, minlength=10)
    assert np.square(counts - 5000).sum() / 5000 < 30  # chi squared of 9 degrees of freedom


def test_reference_classes_are_those_of_the_reference_in_turn():
    data = find_dataset("digits")
    own = data.reference.labels.numpy()
    found = sample_classes("reference", data, 3, len(own) + 5)
    assert (found == np.concatenate([own, own[:5]])).all()


def test_samples_have_the_classes_of_their_labels(experiment):
    import torch

    ready = run(experiment)
    (cell,) = expand(ready, [3.0], [18], [0], 60, labels="random")
    made = CellSampler(torch.device("cpu")).sample(cell, 25)
    labels = torch.cat([labels for _, labels in made]).numpy()
    assert (labels == sample_classes("random", ready.data, 0, 60)).all()


def test_rows_record_the_sampling_and_reports_keep_lines_apart(tmp_path):
    sweep(tmp_path)
    sweep(tmp_path, "--sampler", "dpmpp-2m", "--grid", "cosine")
    sweep(tmp_path, "--labels", "random")
    rows = [r for r in read_rows(tmp_path / "default" / "cells") if r.method == "oracle"]
    assert {(r.sampler, r.grid, r.labels) for r in rows} == {
        ("heun", "edm", "balanced"), ("dpmpp-2m", "cosine", "balanced"), ("heun", "edm", "random"),
    }  # fmt: skip
    assert {r.nfe for r in rows if r.sampler == "dpmpp-2m"} == {18, 36}
    labels = {s.label for s in prepare(rows).series("modes1d")}
    assert labels == {
        "oracle, 18 steps",
        "oracle, 18 steps, dpmpp-2m, cosine grid",
        "oracle, 18 steps, random labels",
    }


def test_ddim_is_euler(tmp_path):
    sweep(tmp_path, "--sampler", "ddim")
    assert " 0 cells computed" in sweep(tmp_path, "--sampler", "euler")
    (sampler,) = {r.sampler for r in read_rows(tmp_path / "default" / "cells") if r.steps}
    assert sampler == "euler"


def test_what_cannot_follow_a_sampler_is_skipped_with_its_reason(trained):
    ran = bench("sweep", "-m", "ct", "-m", "edm", "-g", "1,2", "-n", "20", "--metric", "w1",
                "--rule", "cfg,cfgpp", "--sampler", "sde", "--results", trained)  # fmt: skip
    assert ran.code == 0, ran.err
    assert "skipped: ct has its own sampler." in ran.out
    assert "skipped: cfgpp takes its own first-order steps, so it cannot follow sde." in ran.out
    rows = read_rows(trained / "default" / "cells")
    ok = {(r.method, r.guidance) for r in rows if r.status == "ok" and r.method != "real"}
    assert ok == {("edm", 1.0), ("edm", 2.0)}


def test_rows_of_other_sampling_are_verified(tmp_path):
    sweep(tmp_path, "--sampler", "sde", "--grid", "linear", "--labels", "reference")
    ran = bench("verify", "--results", tmp_path, "--cells", "9")
    assert ran.code == 0, ran.out + ran.err


@pytest.mark.parametrize(
    ("option", "error"),
    [
        (("--sampler", "hewn"), "Unknown sampler 'hewn'. Did you mean 'heun'?"),
        (("--grid", "log"), "Unknown grid 'log'"),
        (("--labels", "some"), "Unknown labels 'some'"),
        (("--sampler", "sde", "--inversion"), "--inversion follows Heun's steps"),
    ],
)
def test_bad_sampling_gives_one_sentence(tmp_path, option, error):
    ran = bench(*COMMON, "--results", tmp_path, *option)
    assert ran.code == 2
    assert error in ran.err
    assert ran.err.count("\n") == 1


def test_older_rows_have_the_usual_sampling():
    fields = Row.model_fields
    assert (fields["sampler"].default, fields["grid"].default) == ("heun", "edm")


def test_share_of_the_processor_shows_that_sampling_waited():
    def batches(act):
        for _ in range(3):
            act()
            yield torch.zeros(1), torch.zeros(1)

    def work():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    waited = Stream(batches(lambda: time.sleep(0.05)), {})
    list(waited)
    assert waited.seconds > 0.15
    assert waited.cpu_share < 0.5
    worked = Stream(batches(work), {})
    list(worked)
    # The processor time is at least 0.15 s, however long the machine took for it.
    assert worked.cpu_share * worked.seconds >= 0.15


def test_rows_have_the_share_of_the_processor(swept):
    rows = [r for r in read_rows(swept / "default" / "cells") if r.method != "real"]
    assert rows
    assert all((r.cpu_share or 0) > 0 for r in rows if r.status == "ok")
