import time

import numpy as np
import pytest

from bench.evaluation import cache
from bench.evaluation.cache import ResultFiles, from_arrays, remembered_on_disk, to_arrays
from bench.system.workers import Crew
from metrics import METRICS, memo
from metrics.base import SampleSet
from metrics.errors import jackknife_groups
from metrics.memo import content_digest, keep_in
from metrics.mmd import PolynomialKernel, kernel_sums
from metrics.neighbours import squared_radii
from tests.metrics.helpers import vectors
from tests.processes import Forked

PARTS = {"content": "a", "k": 3}


def counted(value=2.0):
    calls = []

    def compute():
        calls.append(value)
        return {"x": np.full(5, value)}

    return compute, calls


def draws(n=60, dim=4, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (n, dim))


def reopened(samples: SampleSet, folder) -> SampleSet:
    """The same set as another process would have it: in other arrays, with nothing remembered."""
    arrays = to_arrays(samples)
    parts = {"content": content_digest(arrays, {})}
    again = from_arrays(remembered_on_disk(folder, "set", parts, lambda: arrays))
    keep_in(ResultFiles(folder / "kept"), again)
    return again


def files(folder, name=""):
    return sorted(folder.glob(f"{name}*.npz"))


def test_result_is_computed_once_and_read_back_exactly(tmp_path):
    compute, calls = counted()
    first = remembered_on_disk(tmp_path, "r", PARTS, compute)
    second = remembered_on_disk(tmp_path, "r", PARTS, compute)
    assert calls == [2.0]
    assert np.array_equal(first["x"], second["x"])
    assert second["x"].dtype == np.float64
    assert second["x"].flags.owndata
    assert not first["x"].flags.writeable
    assert not second["x"].flags.writeable


@pytest.mark.parametrize("other", [{"content": "b", "k": 3}, {"content": "a", "k": 5}])
def test_other_parts_miss_the_cache(tmp_path, other):
    compute, calls = counted()
    remembered_on_disk(tmp_path, "r", PARTS, compute)
    remembered_on_disk(tmp_path, "r", other, compute)
    assert len(calls) == 2


def test_renamed_file_is_recomputed(tmp_path):
    compute, calls = counted()
    remembered_on_disk(tmp_path, "r", PARTS, compute)
    (there,) = files(tmp_path)
    remembered_on_disk(tmp_path, "r", {"other": 1}, counted(7.0)[0])
    (other,) = set(files(tmp_path)) - {there}
    there.write_bytes(other.read_bytes())
    assert remembered_on_disk(tmp_path, "r", PARTS, compute)["x"][0] == 2.0
    assert len(calls) == 2


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_file_with_flipped_byte_is_recomputed(tmp_path, share):
    compute, calls = counted()
    remembered_on_disk(tmp_path, "r", PARTS, lambda: {"x": np.full(500, 2.0)})
    (path,) = files(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    assert len(remembered_on_disk(tmp_path, "r", PARTS, compute)["x"]) == 5
    remembered_on_disk(tmp_path, "r", PARTS, compute)
    assert len(calls) == 1


def test_truncated_file_is_recomputed(tmp_path):
    compute, calls = counted()
    remembered_on_disk(tmp_path, "r", PARTS, compute)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    assert remembered_on_disk(tmp_path, "r", PARTS, compute)["x"][0] == 2.0
    assert len(calls) == 2


@pytest.mark.parametrize(
    "name", ["fd", "kid", "precision_k3", "density_k3", "nearest_ratio", "cmmd"]
)
def test_metrics_are_equal_from_disk(tmp_path, name):
    metric = METRICS[name]()
    plain, fake = vectors(draws()), vectors(draws(seed=1, shift=0.4))
    expected = metric.compute(real=plain, fake=fake, extractor="identity")
    fresh = metric.compute(real=reopened(plain, tmp_path), fake=fake, extractor="identity")
    kept = {path: path.stat().st_mtime_ns for path in files(tmp_path / "kept")}
    assert len(kept) == 1
    loaded = metric.compute(real=reopened(plain, tmp_path), fake=fake, extractor="identity")
    assert {path: path.stat().st_mtime_ns for path in files(tmp_path / "kept")} == kept
    assert expected == fresh == loaded


def test_stored_results_are_used(tmp_path):
    real = vectors(draws())
    radii = squared_radii(reopened(real, tmp_path).features["identity"], 3)
    (path,) = files(tmp_path / "kept", "radii")
    assert np.array_equal(squared_radii(real.features["identity"], 3), radii)
    path.unlink()
    again = reopened(real, tmp_path)
    assert not path.exists()
    assert np.array_equal(squared_radii(again.features["identity"], 3), radii)
    assert path.exists()


def test_changed_value_k_or_code_misses_the_cache(tmp_path, monkeypatch):
    x = draws()
    first = reopened(vectors(x), tmp_path)
    squared_radii(first.features["identity"], 3)
    assert len(files(tmp_path / "kept", "radii")) == 1
    x[7, 2] += 1e-3
    squared_radii(reopened(vectors(x), tmp_path).features["identity"], 3)
    assert len(files(tmp_path / "kept", "radii")) == 2
    again = reopened(vectors(x), tmp_path)
    squared_radii(again.features["identity"], 4)
    assert len(files(tmp_path / "kept", "radii")) == 3
    monkeypatch.setattr(cache, "code_version", lambda: "another")
    squared_radii(reopened(vectors(x), tmp_path).features["identity"], 3)
    assert len(files(tmp_path / "kept", "radii")) == 4


def test_generated_sets_are_not_cached(tmp_path):
    real, fake = reopened(vectors(draws()), tmp_path), vectors(draws(seed=1))
    x, y = real.features["identity"], fake.features["identity"]
    groups = jackknife_groups(fake.labels)
    kernel_sums(x, y, groups, PolynomialKernel(4))
    kernel_sums(y, y, groups, PolynomialKernel(4))
    squared_radii(y, 3)
    assert not (tmp_path / "kept").exists()


def test_set_with_itself_differs_from_two_equal_sets(tmp_path):
    one, two = reopened(vectors(draws()), tmp_path), reopened(vectors(draws()), tmp_path)
    x, y = one.features["identity"], two.features["identity"]
    groups, kernel = jackknife_groups(one.labels), PolynomialKernel(4)
    within, between = kernel_sums(x, x, groups, kernel), kernel_sums(x, y, groups, kernel)
    assert within.diagonal.all()
    assert not between.diagonal.any()


def test_results_of_writable_arrays_are_refused(tmp_path):
    loose = SampleSet(n=2, labels=np.zeros(2, np.int64), features={"f": np.ones((2, 2), "f4")})
    with pytest.raises(ValueError, match="read-only"):
        keep_in(ResultFiles(tmp_path), loose)


def test_deleted_array_is_forgotten(tmp_path):
    before = len(memo._attached)
    one = reopened(vectors(draws()), tmp_path)
    assert len(memo._attached) == before + 2
    del one
    assert len(memo._attached) == before


def _compute_together(folder, log):
    def compute():
        with log.open("a") as file:
            file.write("computed\n")
        time.sleep(1.0)
        return {"x": np.arange(3.0)}

    found = remembered_on_disk(folder, "slow", {"a": 1}, compute)
    assert found["x"].tolist() == [0, 1, 2]


def test_one_of_several_processes_computes(tmp_path):
    calls = [Forked(_compute_together, tmp_path / "cache", tmp_path / "log") for _ in range(3)]
    for call in calls:
        out, err = call.communicate()
        assert call.returncode == 0, out + err
    assert (tmp_path / "log").read_text() == "computed\n"
    assert len(list((tmp_path / "cache").iterdir())) == 1  # no lease is left


def test_command_that_does_not_compute_waits_for_the_file(tmp_path, monkeypatch):
    class Waits(Crew):
        def computes(self):
            return False

    monkeypatch.setattr(cache, "current_crew", Waits)
    parts = {"a": 1}
    writer = Forked(_compute_together, tmp_path, tmp_path / "log")
    found = remembered_on_disk(tmp_path, "slow", parts, lambda: pytest.fail("computed here"))
    assert found["x"].tolist() == [0, 1, 2]
    writer.communicate()
