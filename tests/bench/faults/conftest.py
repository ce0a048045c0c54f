"""Fixtures: a disk that can fail (a real mount under `run_on_real_mounts`) and small results."""

import os
import shutil

import pytest

from tests.bench.data.makers import image_tree, write_folder
from tests.bench.faults.disks import REAL, Injected, Mounted
from tests.bench.faults.small import SAMPLE, SWEEP, TRAIN
from tests.bench.helpers import TINY_IMAGES, bench, sets


@pytest.fixture(autouse=True)
def _only_long_tests_draw(request):
    if request.node.get_closest_marker("long") is None and REAL not in os.environ:
        request.getfixturevalue("empty_figures")


@pytest.fixture
def disk(tmp_path):
    if REAL not in os.environ:
        yield Injected(tmp_path)
        return
    mounted = Mounted(tmp_path)
    yield mounted
    mounted.close()


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """Tiny runs (one of them swept), samples and images, on a disk that does not fail."""
    folder = tmp_path_factory.mktemp("sound")
    own = ("--results", folder / "vectors")
    images = sets(*TINY_IMAGES)
    for command in (
        (*TRAIN, *own),
        ("train", "-m", "igct", "-d", "digits", *images, "--init-from", "none", "--results",
         folder / "images"),
        (*SAMPLE, "-m", "edm", *own, "--out", folder / "a.npz"),
        (*SAMPLE, "-m", "edm", *own, "--seed", "1", "--out", folder / "b.npz"),
    ):  # fmt: skip
        ran = bench(*command)
        assert ran.code == 0, ran.err
    shutil.copytree(folder / "vectors", folder / "swept")
    assert bench(*SWEEP, "-g", "1,2", "--results", folder / "swept").code == 0
    write_folder(folder / "pets", image_tree(per_class=2))
    return folder
