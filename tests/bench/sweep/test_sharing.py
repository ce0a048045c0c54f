"""Several processes at one sweep, and batches that do not fit into memory."""

import json
import multiprocessing
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.data.find import find_dataset
from bench.evaluation.prepare import prepare
from bench.experiment.place import Experiment
from bench.experiment.rows import Row, read_rows, row_path
from bench.sweep import run as run_module
from bench.sweep.execute import Outcome
from bench.sweep.run import sweep_floor
from bench.system import sharing
from bench.system.failures import is_out_of_memory
from bench.system.files import sha256
from bench.system.leases import Lease, read_holder, try_lease
from bench.system.memory import Batches
from bench.system.progress import Reporter
from bench.system.sharing import in_turn, lease_path
from bench.training.card import WEIGHTS
from bench.training.checkpoint import load_weights, save_weights
from methods.oracle import Oracle
from tests.bench.helpers import TOY_METRICS, bench, rows_of
from tests.processes import STARTS, Forked, Start


def _worker(folder: Path, name: str, pause: float) -> None:
    def is_done(item: int) -> bool:
        return (folder / f"{item}.done").exists()

    def lease(item: int) -> Path:
        return folder / f"{item}.lease"

    for item, done in in_turn(range(12), lease, is_done, lambda *_: None):
        if done:
            continue
        with (folder / "log").open("a") as log:
            log.write(f"{item} {name}\n")
        time.sleep(pause)
        (folder / f"{item}.done").touch()


def test_processes_do_every_item_exactly_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    crew = [
        context.Process(target=_worker, args=(tmp_path, name, pause))
        for name, pause in (("a", 0.01), ("b", 0.02), ("c", 0.03))
    ]
    for process in crew:
        process.start()
    for process in crew:
        process.join()
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(int(item) for item, _ in lines) == list(range(12))
    assert len({name for _, name in lines}) > 1
    assert not list(tmp_path.glob("*.lease"))


def test_in_turn_waits_last_for_items_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = try_lease(tmp_path / "0.lease")
    assert held is not None
    holder, told = read_holder(held.path), []

    def waiting(item: int, holder: str) -> None:
        told.append((item, holder))

    def let_go(_: float) -> None:
        if len(pauses) == 1:
            held.release()
        pauses.append(1)

    pauses: list[int] = []
    monkeypatch.setattr(sharing, "time", SimpleNamespace(sleep=let_go))

    order = list(in_turn([0, 1, 2], lambda i: tmp_path / f"{i}.lease", lambda _: False, waiting))
    assert order == [(1, False), (2, False), (0, False)]
    assert told == [(0, holder)]
    assert len(pauses) == 2


SWEEP = ("sweep", "-m", "oracle", "-d", "modes1d", "-n", "64", "-g", "1..6", *TOY_METRICS)


@STARTS
def test_two_sweeps_at_once_share_the_cells(tmp_path: Path, starts: Start) -> None:
    both = [starts(*SWEEP, "--results", tmp_path) for _ in range(2)]
    outs = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    counts = [
        next(w for w in out.splitlines() if re.search("cells? computed", w)).split() for out in outs
    ]
    computed = [int(words[1]) for words in counts]
    kept = [int(words[words.index("kept,") - 1]) for words in counts]
    assert sum(computed) == 6
    assert [c + k for c, k in zip(computed, kept, strict=True)] == [6, 6]
    assert sorted(r.guidance for r in rows_of(tmp_path, "oracle")) == [1, 2, 3, 4, 5, 6]
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".")]


def test_floor_waits_for_another_process_and_keeps_its_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, place = find_dataset("modes1d"), Experiment(tmp_path, "x")
    split = data.train.part(0, 64)
    mine, other = (prepare(data, place.cache, metrics=[name]) for name in ("w1", "shift"))
    write_row = run_module.write_row

    def write(cells: Path, row: Row) -> Path:
        """A look at the lease between the reading of the stored values and the writing."""
        lease = lease_path(row_path(cells, row.run, row.key))
        assert str(os.getpid()) in str(read_holder(lease))
        return write_row(cells, row)

    monkeypatch.setattr(run_module, "write_row", write)
    held: list[Lease] = []

    def let_go(_: float) -> None:
        held.pop().release()
        monkeypatch.undo()
        assert sweep_floor(split, other, place).computed == 1

    assert sweep_floor(split, mine, Experiment(tmp_path, "y")).computed == 1
    (row,) = read_rows(Experiment(tmp_path, "y").cells)
    lease = try_lease(lease_path(row_path(place.cells, row.run, row.key)))
    assert lease is not None
    held.append(lease)
    holder = read_holder(lease.path)
    monkeypatch.setattr(sharing, "time", SimpleNamespace(sleep=let_go))
    told: list[str] = []
    reporter = Reporter()
    monkeypatch.setattr(reporter, "say", told.append)
    assert sweep_floor(split, mine, place, reporter).computed == 1
    assert told == [f"real samples of modes1d: waiting for {holder}."]
    (row,) = read_rows(place.cells)
    assert {value.metric for value in row.values} == {"w1", "shift"}
    assert not list(tmp_path.rglob("*.lease"))


def _take_and_die(lease: Path) -> None:
    kept = try_lease(lease)
    assert kept is not None
    os._exit(0)


def test_cell_of_a_dead_process_is_computed(tmp_path: Path) -> None:
    results = tmp_path / "r"
    assert bench(*SWEEP, "--results", results).code == 0
    (cells,) = results.glob("*/cells/*oracle*")
    row = sorted(cells.glob("*.json"))[0]
    whole = json.loads(row.read_text())
    row.unlink()
    lease = cells / f".{row.stem}.lease"
    Forked(_take_and_die, lease).communicate()
    assert lease.exists()
    assert "1 cell computed" in bench(*SWEEP, "--results", results).out
    again = json.loads(row.read_text())
    assert again["values"] == whole["values"]
    assert not lease.exists()


def test_is_out_of_memory_recognises_its_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17.8 GB)"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    failed = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    assert is_out_of_memory(RuntimeError(failed))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_batches_are_halved_until_they_fit_and_stay_halved() -> None:
    told: list[str] = []
    batches = Batches(20, told.append)

    def work(size: int) -> int:
        if size > 6:
            raise torch.OutOfMemoryError("no")
        return size

    assert batches.run("x", work) == 5
    assert batches.size == 5
    assert len(told) == 2
    with pytest.raises(MemoryError):
        Batches(2).run("x", _never_fits)


def _never_fits(size: int) -> None:
    raise MemoryError


def test_sweep_out_of_memory_continues_with_smaller_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bench(*SWEEP, "--results", tmp_path / "whole").code == 0
    real = Oracle.sample

    def little_memory(self, nets, labels, *args):
        if len(labels) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, nets, labels, *args)

    monkeypatch.setattr(Oracle, "sample", little_memory)
    ran = bench(*SWEEP, "--batch", "64", "--results", tmp_path / "parts")
    assert ran.code == 0, ran.err
    assert ran.out.count("out of memory; continuing") == 2
    assert "batches of 16" in ran.out
    values = [
        {
            r.guidance: {v.metric: v.value for v in r.values}
            for r in read_rows(tmp_path / part / "default" / "cells")
            if r.method == "oracle"
        }
        for part in ("whole", "parts")
    ]
    assert values[0].keys() == values[1].keys()
    for g, found in values[0].items():
        assert found == pytest.approx(values[1][g], rel=1e-6)


def test_weights_replaced_after_planning_get_no_row(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = trained / "default" / "runs" / "modes1d-edm-s0" / WEIGHTS
    plain = run_module.execute_all

    def train_anew(*about: Any) -> Outcome:
        save_weights(weights, {k: v + 1 for k, v in load_weights(weights).items()})
        return plain(*about)

    arguments: tuple[Any, ...]
    arguments = ("sweep", "-m", "edm", "-g", "1", "-n", "64", *TOY_METRICS, "--results", trained)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "execute_all", train_anew)
        ran = bench(*arguments)
    assert ran.code == 1
    assert ran.err.startswith(f"Error: {weights} changed since this command read it")
    assert rows_of(trained, "edm") == []
    assert bench(*arguments).code == 0
    (row,) = rows_of(trained, "edm")
    assert row.checkpoint == sha256(weights)
