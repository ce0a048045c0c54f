"""Results do not depend on the environment of a command, bit for bit or up to rounding."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.experiment.rows import read_rows
from bench.training.card import WEIGHTS
from bench.training.checkpoint import load_weights
from tests.torture.check import content

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.long


def run(results: Path, cwd: Path, batch: int = 256, **environment: str) -> Path:
    """Run the commands in a new interpreter."""
    command = [sys.executable, "-m", "tests.sameness.commands", str(results), str(batch)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "TZ"))}
    env = clean | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return results


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return run(folder / "results", ROOT, PYTHONHASHSEED="0", TZ="UTC", LC_ALL="C.UTF-8")


def tables(results: Path) -> dict[str, str]:
    """Digests of weights, rows and the numbers of the report, without timestamps."""
    timed = ("index.html", "tables.tex", "summary.csv", ".png", ".pdf", ".jsonl", "drawn.json",
             "pareto.csv", "operating_points.csv", "provenance.csv", "run.json")  # fmt: skip
    found = {k: v for k, v in content(results).items() if not k.endswith(timed)}
    return {k: v for k, v in found.items() if not re.search(r"/tables[^/]*\.md$", k)}


def test_folder_locale_zone_and_hash_seed_change_no_bit(plain, tmp_path):
    other = run(
        tmp_path / "elsewhere" / "results", tmp_path,
        PYTHONHASHSEED="12345", TZ="Asia/Kathmandu", LC_ALL="C", PYTHONUTF8="0",
    )  # fmt: skip
    expected = tables(plain)
    assert sum(name.endswith(".json") for name in expected) >= 8
    assert sum(name.endswith(".safetensors") for name in expected) >= 2
    assert sum(name.endswith(".csv") for name in expected) >= 2
    assert tables(other) == expected


def test_threads_and_sampling_batch_change_rounding_only(plain, tmp_path):
    other = run(tmp_path / "results", ROOT, batch=7, OMP_NUM_THREADS="2")
    for weights in sorted(plain.rglob(WEIGHTS)):
        found = load_weights(other / weights.relative_to(plain))
        for name, tensor in load_weights(weights).items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)
    sides = [
        {
            (r.run, r.rule, r.guidance, r.steps): {v.metric: v.value for v in r.values}
            for r in read_rows(results / "default" / "cells")
        }
        for results in (plain, other)
    ]
    assert sides[0].keys() == sides[1].keys()
    assert len(sides[0]) >= 8
    for cell, values in sides[0].items():
        # A few float32 rounding errors for samples of unit size.
        assert values == pytest.approx(sides[1][cell], rel=1e-3, abs=1e-4), cell
