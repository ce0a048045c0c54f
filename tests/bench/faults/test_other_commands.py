"""A full disk under all commands except for training, sweeps and the report."""

import re
import shutil

import pytest

from tests.bench.data.makers import image_tree, write_folder
from tests.bench.faults.helpers import check_sentence, leftovers, results
from tests.bench.faults.inject import failing, no_file_larger
from tests.bench.helpers import TINY_IMAGES, bench, contents, sets
from tests.long import mostly_long

EVERYWHERE = 10**9


@pytest.fixture(scope="module")
def start(judged, tmp_path_factory):
    """A tiny igct run on digits, two folders of images, and the source of a data set."""
    folder = tmp_path_factory.mktemp("start") / "all"
    ran = bench(
        "train", "-m", "igct", "-d", "digits", *sets(*TINY_IMAGES), "--init-from", "none",
        "--results", folder / "results",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    shutil.copytree(judged, folder / "results" / "cache", dirs_exist_ok=True)
    write_folder(folder / "pets", image_tree())
    for seed, name in enumerate(("fake", "real")):
        ran = bench(
            "sample", "-m", "igct", "-n", "12", "--seed", seed, "--out", folder / name,
            "--format", "png", "--results", folder / "results", "--device", "cpu",
        )  # fmt: skip
        assert ran.code == 0, ran.err
    return folder


def commands(folder):
    own = ("--results", folder / "results", "--device", "cpu")
    weights = folder / "results" / "default" / "runs" / "digits-igct-s0" / "model.safetensors"
    return {
        "sample png": ("sample", "-m", "igct", "-n", "4", "--out", folder / "out", *own),
        "sample npz": ("sample", "-m", "igct", "-n", "4", "--out", folder / "o.npz", *own),
        "sample zip": ("sample", "-m", "igct", "-n", "4", "--out", folder / "o.zip", *own),
        "import": ("import", weights, "--as", "in", "-m", "igct", "-d", "digits", *own[:2]),
        "invert": ("invert", "-m", "igct", "-n", "2", "--out", folder / "out", *own),
        "edit": (
            "edit", "-m", "igct", "-n", "2", "--source-class", "3", "--target-class", "5", "-g",
            "7", "--out", folder / "out", *own,
        ),
        "evaluate": (
            "evaluate", folder / "fake", "-r", folder / "real", "-x", "efficientnet-lite0",
            "--metric", "fd", "--out", folder / "out.json", *own[:2],
        ),
        "stats": (
            "stats", "make", folder / "fake", "-x", "efficientnet-lite0", "--out",
            folder / "out.npz", "--format", "edm",
        ),
        "data": ("data", "prepare", folder / "pets", "--data-root", folder / "data"),
    }  # fmt: skip


def names(folder):
    """File names, without the path in the names of cached real samples."""
    return sorted(re.sub(r"/real-.*-", "/real-", name) for name in results(folder))


NAMES = ("sample png", "sample npz", "sample zip", "import", "invert", "edit", "evaluate",
         "stats", "data")  # fmt: skip


@pytest.mark.parametrize("looks", [2, pytest.param(4, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", NAMES)
def test_full_disk_is_one_sentence_and_the_command_resumes(name, looks, start, tmp_path):
    whole = shutil.copytree(start, tmp_path / "whole")
    with failing(whole, EVERYWHERE) as disk:
        ran = bench(*commands(whole)[name])
    assert ran.code == 0, ran.err
    total = disk.count
    assert total > 0
    for k in sorted({1 + i * (total - 1) // (looks - 1) for i in range(looks)}):
        folder = shutil.copytree(start, tmp_path / f"full-{k}")
        before = contents(folder)
        command = commands(folder)[name]
        with failing(folder, k):
            ran = bench(*command)
        if ran.code != 0:
            check_sentence(ran, "No space left on device")
        now = contents(folder)
        assert {name: now.get(name) for name in before} == before
        assert leftovers(folder) == []
        again = bench(*command)
        assert again.code == 0, again.err
        assert names(folder) == names(whole)


@pytest.mark.parametrize("name", mostly_long(NAMES, ("sample npz", "import", "data")))
def test_files_that_may_not_grow(name, start, tmp_path):
    folder = shutil.copytree(start, tmp_path / "all")
    before = contents(folder)
    command = commands(folder)[name]
    with no_file_larger(20):
        ran = bench(*command)
    check_sentence(ran, "File too large")
    now = contents(folder)
    assert {name: now.get(name) for name in before} == before
    assert leftovers(folder) == []
    assert bench(*command).code == 0
