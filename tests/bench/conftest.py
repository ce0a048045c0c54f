"""Fixtures: restored registries, and tiny runs shared by several tests."""

import contextlib
import shutil
import sys
from unittest import mock

import pytest

from bench.data import DATASETS
from bench.data.find import find_dataset
from bench.evaluation.makers import Makers
from bench.plugins.load import ORIGINS
from bench.report import build
from bench.system.devices import make_fabric
from bench.system.launch import LAUNCHERS
from methods import METHODS
from methods.rules import RULES
from metrics import EXTRACTORS, METRICS
from tests.bench.helpers import TINY, TOY_METRICS, bench, empty_figure, sets


@contextlib.contextmanager
def _registries_restored():
    tables = (METHODS, METRICS, EXTRACTORS, DATASETS, RULES, LAUNCHERS, ORIGINS)
    before = [dict(table) for table in tables]
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    for name in [name for name in sys.modules if name.startswith("bench_plugin_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True, scope="module")
def _registries_restored_after_a_module():
    """Forget the plugins that fixtures of a module load."""
    with _registries_restored():
        yield


@pytest.fixture(autouse=True)
def _registries_restored_after_a_test():
    with _registries_restored():
        yield


@pytest.fixture
def empty_figures():
    """Write empty figures, for tests that read only the pages, the tables or the names of files."""
    with mock.patch.object(build, "draw", empty_figure):
        yield


@pytest.fixture(scope="session")
def fabric():
    return make_fabric("cpu", "32-true")


@pytest.fixture(scope="session")
def judged(tmp_path_factory):
    """A cache folder with the classifier of digits, to be copied."""
    cache = tmp_path_factory.mktemp("judged")
    Makers(cache).make("classifier", find_dataset("digits"))
    return cache


@pytest.fixture(scope="session")
def _trained(tmp_path_factory):
    results = tmp_path_factory.mktemp("trained")
    methods = ("-m", "edm", "-m", "ct", "-m", "igct")
    ran = bench("train", *methods, "-d", "modes1d", *sets(*TINY), "--results", results)
    assert ran.code == 0, ran.err
    return results


@pytest.fixture
def trained(_trained, tmp_path):
    """A fresh copy of a results folder with tiny finished edm, ct and igct runs on modes1d."""
    return shutil.copytree(_trained, tmp_path / "results")


@pytest.fixture(scope="session")
def _swept(_trained, tmp_path_factory):
    results = shutil.copytree(_trained, tmp_path_factory.mktemp("swept") / "results")
    ran = bench("sweep", "-g", "1,2,20", "-n", "20", *TOY_METRICS, "--results", results)
    assert ran.code == 0, ran.err
    return results


@pytest.fixture
def swept(_swept, tmp_path):
    """A fresh copy of `trained` plus a sweep over guidance 1, 2 and 20 with 20 samples."""
    return shutil.copytree(_swept, tmp_path / "results")
