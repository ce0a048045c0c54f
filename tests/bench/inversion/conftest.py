"""Tiny runs on digits, one that inverts in one step, one by its ODE, one that cannot."""

import shutil

import pytest

from tests.bench.helpers import TINY_IMAGES, bench, sets


@pytest.fixture(scope="session")
def _digits(judged, tmp_path_factory):
    results = tmp_path_factory.mktemp("digits")
    for method in ("edm", "ct", "igct"):
        ran = bench(
            "train", "-m", method, "-d", "digits", *sets(*TINY_IMAGES), "--init-from", "none",
            "--results", results,
        )  # fmt: skip
        assert ran.code == 0, ran.err
    shutil.copytree(judged, results / "cache", dirs_exist_ok=True)
    return results


@pytest.fixture
def digits(_digits, tmp_path):
    """A results folder with tiny runs of edm, ct and igct on digits; one's own copy."""
    return shutil.copytree(_digits, tmp_path / "results")


INVERSION = ("--inversion", "--inversion-samples", "12", "-n", "4", "--metric", "class_accuracy")


@pytest.fixture(scope="session")
def _inverted(_digits, tmp_path_factory):
    results = shutil.copytree(_digits, tmp_path_factory.mktemp("inverted") / "results")
    ran = bench(
        "sweep", "-g", "1", *INVERSION, "--inversion-guidance", "1,20", "--results", results
    )
    assert ran.code == 0, ran.err
    assert "digits: 3 inversions computed, 0 kept, 3 skipped with a reason, 0 failed." in ran.out
    return results


@pytest.fixture
def inverted(_inverted, tmp_path):
    """`digits`, swept at g = 1 with inversions of 12 images at g = 1 and 20; one's own copy."""
    return shutil.copytree(_inverted, tmp_path / "results")
