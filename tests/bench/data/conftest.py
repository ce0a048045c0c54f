"""A data root of one's own."""

import pytest

from bench.data.card import DATA_FOLDER_VARIABLE
from bench.data.decode import Geometry
from bench.data.prepare import prepare
from bench.data.prepared import PreparedDataset


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    folder = tmp_path / "root"
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture
def prepared(root):
    """Prepare a source, and open it."""

    def make(source, name="tiny", **geometry) -> PreparedDataset:
        return PreparedDataset(prepare(source, name, Geometry(**geometry), root))

    return make
