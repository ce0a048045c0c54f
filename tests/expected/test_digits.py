"""Handwritten digits at the demo's presets: the paper's claims at a scale that a test can train."""

from pathlib import Path

import pytest
import torch

from bench.data import Digits
from bench.data.convert import from_model, one_hot, to_model
from bench.evaluation.prepare import prepare
from bench.experiment.place import Experiment
from bench.experiment.rows import read_rows
from bench.sweep.cells import expand
from bench.sweep.run import sweep
from bench.system.devices import make_fabric
from bench.training.run import load_nets, open_run
from bench.training.study import RunRequest, Trainer, train_run
from methods import Guidance

PRESET = "digits-demo"
N = 300
SCALES = (1.0, 7.0, 14.0)
CPU = torch.device("cpu")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Experiment(Path(tmp_path_factory.mktemp("digits")), "expected")


@pytest.fixture(scope="module")
def data():
    return Digits()


@pytest.fixture(scope="module")
def judge(data, place):
    return prepare(data, place.cache)


@pytest.fixture(scope="module")
def runs(data, place):
    """Trained runs of edm and of igct, which is initialised from edm."""
    trainer, cards = Trainer(place, make_fabric("cpu", "32-true")), []
    for method in ("edm", "igct"):
        request = RunRequest(method=method, data=data, preset=PRESET)
        cards.append(train_run(request, trainer))
    return {card.method: open_run(card, data, place) for card in cards}


@pytest.fixture(scope="module")
def values(runs, judge, place):
    """{(method, g): {metric: value}}."""
    cells = [cell for run in runs.values() for cell in expand(run, SCALES, None, (0,), N)]
    outcome = sweep(cells, judge, place, batch=N, device=CPU)
    assert outcome.computed == len(cells)
    return {
        (row.method, row.guidance): {value.metric: value.value for value in row.values}
        for row in read_rows(place.cells)
    }


def test_one_step_of_igct_stays_where_it_is(values):
    distances = [values["igct", g]["fd"] for g in SCALES]
    assert max(distances) <= 20
    assert max(distances) / min(distances) <= 1.5
    assert min(values["igct", g]["class_accuracy"] for g in SCALES) >= 0.93


def test_igct_inverts_and_edits_images_it_has_not_seen(runs, judge, data):
    method, nets = runs["igct"].method, load_nets(runs["igct"], CPU)
    x0, labels = to_model(data.reference.samples), data.reference.labels
    with torch.inference_mode():
        latent = method.invert(nets, x0, one_hot(labels, 10))
        back = method.edit(nets, latent, one_hot(labels, 10), Guidance(1.0))
        error = (back - x0).square().mean()
        assert error <= 0.05
        # The image must depend on its latent: another latent must give a distant image.
        other = method.edit(nets, latent.roll(1, 0), one_hot(labels, 10), Guidance(1.0))
        assert (other - x0).square().mean() > 3 * error
        wanted = (labels + 1) % 10
        edited = method.edit(nets, latent, one_hot(wanted, 10), Guidance(1.0))
    logits = judge.extractors["classifier"](from_model(edited)).logits
    assert (logits.argmax(1) == wanted).float().mean() >= 0.85


def test_guidance_at_sampling_trades_variety_then_fidelity(values):
    off, high = values["edm", 1.0], values["edm", 14.0]
    assert off["fd"] <= 30
    assert off["recall_k3"] >= 0.6
    assert high["fd"] >= 100
    assert high["precision_k3"] <= 0.4
    assert high["recall_k3"] <= 0.1
    assert high["saturation"] > off["saturation"]
    assert high["contrast_ratio"] > off["contrast_ratio"]
