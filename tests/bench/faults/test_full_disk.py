"""A disk that fills up at any moment: only the file being written is lost."""

import errno
import shutil
from unittest import mock

import pytest

from bench.report import build
from bench.training.card import WEIGHTS
from bench.training.checkpoint import STATE
from tests.bench.faults.helpers import check_sentence, leftovers, results
from tests.bench.faults.inject import failing, no_file_larger
from tests.bench.helpers import TINY, TOY_METRICS, bench, empty_figure, sets
from tests.long import mostly_long

TRAIN = ("train", "-m", "edm", "-d", "modes1d", *sets(*TINY, "train.checkpoint_every=5"))
SWEEP = ("sweep", "-m", "edm", "-g", "1,2", "-n", "20", *TOY_METRICS, "--steps", "4")
EVERYWHERE = 10**9
LONG = pytest.mark.long


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Results folders after training, after the sweep and after the report; figures are empty."""
    with mock.patch.object(build, "draw", empty_figure):
        return stages_of(tmp_path_factory.mktemp("undisturbed") / "results")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The same with figures."""
    return stages_of(tmp_path_factory.mktemp("drawn") / "results")


def stages_of(folder):
    stages = {}
    for name, command in (("train", TRAIN), ("sweep", SWEEP), ("report", ("report",))):
        ran = bench(*command, "--results", folder)
        assert ran.code == 0, ran.err
        stages[name] = shutil.copytree(folder, folder.parent / name)
    return stages


def run_again(command, folder, expected):
    """Check that the command finishes without the fault, with the results of an undisturbed one."""
    ran = bench(*command, "--results", folder)
    assert ran.code == 0, ran.err
    assert results(folder) == results(expected)
    assert leftovers(folder) == []


def operations(command, folder, tmp_path):
    """The number of operations of a command that need disk space."""
    place = tmp_path / "counted"
    if folder is not None:
        shutil.copytree(folder, place)
    with failing(place, EVERYWHERE) as disk:
        assert bench(*command, "--results", place).code == 0
    return disk.count


@pytest.mark.usefixtures("empty_figures")
@pytest.mark.parametrize(
    ("command", "before", "after", "looks"),
    [
        pytest.param(TRAIN, None, "train", 7, id="train"),
        pytest.param(SWEEP, "train", "sweep", 4, id="sweep"),
        pytest.param(TRAIN, None, "train", EVERYWHERE, id="train-long", marks=LONG),
        pytest.param(SWEEP, "train", "sweep", 25, id="sweep-long", marks=LONG),
        pytest.param(("report",), "sweep", "report", 4, id="report"),
    ],
)
def test_disk_full_from_any_moment_on(command, before, after, looks, undisturbed, tmp_path):
    check_all_moments(command, before, after, looks, undisturbed, tmp_path)


@pytest.mark.long
def test_disk_full_while_figures_are_drawn(drawn, tmp_path):
    check_all_moments(("report",), "sweep", "report", 4, drawn, tmp_path)


def check_all_moments(command, before, after, looks, undisturbed, tmp_path):
    """Fill the disk before one of `looks` operations of the command, one after the other."""
    start = None if before is None else undisturbed[before]
    total = operations(command, start, tmp_path)
    assert total > 10
    states = set()
    for k in sorted(
        {1 + i * (total - 1) // (looks - 1) for i in range(looks)}
        if looks < total
        else range(1, total + 1)
    ):
        folder = tmp_path / f"full-{k}"
        if start is not None:
            shutil.copytree(start, folder)
        with failing(folder, k):
            ran = bench(*command, "--results", folder)
        # A failed fsync of a folder, which only makes a file's name durable, is no failure.
        if ran.code != 0:
            check_sentence(ran)
            assert "No space left on device" in ran.err or "figures failed" in ran.err
        if folder.exists():
            assert leftovers(folder) == []
        state = folder / "default" / "runs" / "modes1d-edm-s0" / STATE
        if state.exists():
            check_sentence(ran, "Training of modes1d-edm-s0 stopped")
            states.add(state.read_bytes())
            assert not state.with_name(WEIGHTS).exists()
        if start is not None:
            kept = results(folder)
            assert {name: kept.get(name) for name in results(start)} == results(start)
        run_again(command, folder, undisturbed[after])
        shutil.rmtree(folder)
    # The checkpoints of steps 5 and 10 are intact, whichever later operation failed.
    assert len(states) == (2 if command is TRAIN else 0)


@pytest.mark.usefixtures("empty_figures")
@pytest.mark.parametrize("size", [0, pytest.param(3000, marks=LONG)])
def test_files_that_may_not_grow_are_refused_by_the_kernel_itself(size, undisturbed, tmp_path):
    for command, start, stage in (
        (TRAIN, None, "train"),
        (SWEEP, "train", "sweep"),
        (("report",), "sweep", "report"),
    ):
        folder = tmp_path / stage
        if start is not None:
            shutil.copytree(undisturbed[start], folder)
        before = results(folder) if folder.exists() else {}
        with no_file_larger(size):
            ran = bench(*command, "--results", folder)
        if ran.code != 0:
            check_sentence(ran)
            assert "File too large" in ran.err or "figures failed" in ran.err
        if folder.exists():
            now = results(folder)
            assert {name: now.get(name) for name in before} == before
            assert leftovers(folder) == []
        run_again(command, folder, undisturbed[stage])


@pytest.mark.parametrize(
    "number",
    mostly_long([errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE, errno.EDQUOT], [errno.EIO]),
)
def test_sweep_stops_at_the_first_write_error(number, undisturbed, tmp_path):
    folder = shutil.copytree(undisturbed["train"], tmp_path / "results")
    assert bench(*SWEEP, "--results", folder).code == 0
    before = results(folder)
    many = (*SWEEP[:4], "1..13", *SWEEP[5:])
    with failing(folder, 1, number) as disk:
        ran = bench(*many, "--results", folder)
    check_sentence(ran, str(folder))
    assert disk.count < 5
    assert results(folder) == before
    assert bench(*many, "--results", folder).code == 0


def test_tables_are_written_if_a_figure_is_not(undisturbed, tmp_path, monkeypatch):
    folder = shutil.copytree(undisturbed["sweep"], tmp_path / "results")
    real = build.write_bytes

    def write(path, content):
        if path.suffix == ".pdf":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, content)

    monkeypatch.setattr(build, "write_bytes", write)
    ran = bench("report", "--pdf", "--results", folder)
    check_sentence(ran, "figures failed", "The tables are complete")
    assert "No space left on device" in ran.out
    made = folder / "default" / "report"
    assert {p.name for p in made.iterdir()} >= {"tables.md", "tables.tex", "index.html"}
    monkeypatch.undo()
    run_again(("report",), folder, undisturbed["report"])
