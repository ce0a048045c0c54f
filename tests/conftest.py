"""Fixtures for all tests."""

import os
import sys
from importlib import metadata
from unittest import mock

import pytest
import torch
from lightning_fabric.utilities import registry

from methods.rules import trajectory


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    # Sums depend on the number of threads, and two threads on a busy machine are ten times slower.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def one_process():
    """Let commands start no workers, unless a test asks for them."""
    with mock.patch.dict(os.environ, {"GUIDANCE_BENCH_WORKERS": "1"}):
        yield


@pytest.fixture(autouse=True, scope="session")
def own_data_root(tmp_path_factory):
    """Keep tests away from the data sets that are prepared on this machine."""
    root = str(tmp_path_factory.mktemp("data"))
    with mock.patch.dict(os.environ, {"GUIDANCE_BENCH_DATA": root}):
        yield


@pytest.fixture(autouse=True, scope="session")
def installed_plugins_found_once():
    """Look for entry points once, unless packages are added: it takes 40 ms per command."""
    find, found, path = metadata.entry_points, metadata.entry_points(), list(sys.path)

    def known(**wanted):
        return found.select(**wanted) if sys.path == path else find(**wanted)

    with (
        mock.patch.object(metadata, "entry_points", known),
        mock.patch.object(registry, "entry_points", known),
    ):
        yield


@pytest.fixture
def separate_calls(monkeypatch):
    """Evaluate both branches of guidance in separate calls, which round as those of other rules."""
    monkeypatch.setattr(trajectory, "CPU_VALUES", 0)
