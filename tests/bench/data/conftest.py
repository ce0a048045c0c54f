"""A data root of one's own."""

from dataclasses import replace

import pytest

from bench.data.card import DATA_FOLDER_VARIABLE
from bench.data.decode import Geometry
from bench.data.prepare import prepare
from bench.data.prepared import PreparedDataset
from bench.data.published import PUBLISHED


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    folder = tmp_path / "root"
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture
def published_size(monkeypatch):
    """Give a published set other numbers of images, or another form."""

    def set_size(train, reference, name="cifar10", **more):
        wanted = replace(PUBLISHED[name], train_n=train, reference_n=(reference,), **more)
        monkeypatch.setitem(PUBLISHED, name, wanted)

    return set_size


@pytest.fixture
def prepared(root):
    """Prepare a source, and open it."""

    def make(source, name="tiny", **geometry) -> PreparedDataset:
        return PreparedDataset(prepare(source, name, Geometry(**geometry), root))

    return make
