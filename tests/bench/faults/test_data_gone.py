"""Prepared data that vanish while being read: one error sentence, and no result is lost."""

import errno
import os

import pytest

from bench.data import rows as reading
from bench.data.card import DATA_FOLDER_VARIABLE, IMAGES
from bench.data.decode import Geometry
from bench.data.prepare import prepare
from bench.evaluation import prepare as evaluation
from bench.sweep import run as sweeping
from bench.training import loop
from bench.training.checkpoint import STATE
from methods import METHODS
from tests.bench.data.makers import image_tree, write_folder
from tests.bench.faults.helpers import check_sentence, leftovers, results
from tests.bench.helpers import TINY_IMAGES, bench, sets

SMALL = sets(*TINY_IMAGES, "train.iterations=6", "train.checkpoint_every=2")
TRAIN = ("train", "-m", "edm", "-d", "tiny", "--preset", "small", *SMALL)
SWEEP = ("sweep", "-m", "edm", "-g", "2", "--steps", "2", "--metric", "fd")
STEP = 3


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The image file of a prepared data set, where commands look for it, with a preset."""
    edm = METHODS["edm"]
    preset = edm.presets["digits"].model_copy(
        update={"dataset": "elsewhere", "shape": (3, 8, 8), "num_classes": 3}
    )
    folder = tmp_path_factory.mktemp("data")
    source = write_folder(folder / "source", image_tree(per_class=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edm, "presets", {**edm.presets, "small": preset})
        patch.setenv(DATA_FOLDER_VARIABLE, str(folder / "root"))
        yield prepare(source, "tiny", Geometry(), folder / "root") / IMAGES


@pytest.fixture(scope="module")
def undisturbed(images, tmp_path_factory):
    """Results after training and two sweeps, and after the first sweep only."""
    folder = tmp_path_factory.mktemp("undisturbed") / "results"
    stages = {}
    for name, command in (
        ("train", TRAIN),
        ("few", (*SWEEP, "-n", "6")),
        ("more", (*SWEEP, "-n", "8")),
    ):
        ran = bench(*command, "--results", folder)
        assert ran.code == 0, ran.err
        stages[name] = results(folder)
    return stages


def cut(path, patch):
    os.truncate(path, 500)


def refuse(number):
    def make(path, patch):
        def fail(*_):
            raise OSError(number, os.strerror(number))

        patch.setattr(reading, "_read_at", fail)

    return make


LONG = pytest.mark.long
FAULTS = [
    pytest.param(cut, "ends before its last row", id="cut", marks=LONG),
    pytest.param(refuse(errno.EIO), "Input/output error", id="disk"),
    pytest.param(refuse(errno.ESTALE), "tale file handle", id="mount", marks=LONG),
]


def fails(command, folder, where, times, fault, path, words):
    """Check that the command fails if the fault occurs at the `times`-th call of a function.

    `where` is the module that calls it, and its name.
    """
    content, calls = path.read_bytes(), 0
    with pytest.MonkeyPatch.context() as patch:
        real = getattr(*where)

        def meet(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == times:
                fault(path, patch)
            return real(*arguments, **options)

        patch.setattr(*where, meet)
        ran = bench(*command, "--results", folder)
    path.write_bytes(content)
    assert ran.code == 1
    check_sentence(ran, str(path), words, "Run the same command to continue")
    assert leftovers(folder) == []


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_training_stops_with_its_checkpoint_and_goes_on(
    fault, words, images, undisturbed, tmp_path
):
    fails(TRAIN, tmp_path, (loop, "accumulate_gradients"), STEP + 1, fault, images, words)
    run = tmp_path / "default" / "runs" / "tiny-small-edm-s0"
    assert (run / STATE).exists()
    assert len((run / "log.jsonl").read_text().splitlines()) == 2
    assert bench(*TRAIN, "--results", tmp_path).code == 0
    assert results(tmp_path) == undisturbed["train"]


@pytest.mark.parametrize(("fault", "words"), FAULTS)
@pytest.mark.parametrize(
    "where",
    [
        pytest.param((sweeping, "floor_key"), id="floor_key", marks=LONG),
        pytest.param((evaluation, "measure"), id="measure"),
    ],
)
def test_sweep_keeps_its_rows_and_resumes(where, fault, words, images, undisturbed, tmp_path):
    for command in (TRAIN, (*SWEEP, "-n", "6")):
        assert bench(*command, "--results", tmp_path).code == 0
    more = (*SWEEP, "-n", "8")
    fails(more, tmp_path, where, 1, fault, images, words)
    assert results(tmp_path) == undisturbed["few"]
    assert bench(*more, "--results", tmp_path).code == 0
    assert results(tmp_path) == undisturbed["more"]
