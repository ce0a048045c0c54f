from dataclasses import fields

import numpy as np
import pytest
import torch

from bench.evaluation.cache import from_arrays, remembered_on_disk, to_arrays
from bench.system.files import atomic_file
from metrics.accumulate import Accumulator
from metrics.base import ExactMixture, SampleSet
from tests.metrics.helpers import Stub, uint8_images, vectors


def images_set() -> SampleSet:
    accumulator = Accumulator({"stub": Stub()}, ("features", "logits", "moments", "pixels"))
    accumulator.update(uint8_images(12), torch.arange(12))
    return accumulator.finish()


def assert_equal(a: SampleSet, b: SampleSet):
    assert a.n == b.n
    assert (a.pixels is None) == (b.pixels is None)
    if a.pixels is not None and b.pixels is not None:
        for field in fields(a.pixels):
            one, two = getattr(a.pixels, field.name), getattr(b.pixels, field.name)
            assert (one.dtype, len(one)) == (np.float64, a.n)
            np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(a.labels, b.labels)
    for kind in ("features", "logits"):
        one, two = getattr(a, kind), getattr(b, kind)
        assert one.keys() == two.keys()
        for name in one:
            assert one[name].dtype == two[name].dtype
            np.testing.assert_array_equal(one[name], two[name])
    assert a.moments.keys() == b.moments.keys()
    for name, moments in a.moments.items():
        assert moments.n == b.moments[name].n
        np.testing.assert_array_equal(moments.mean, b.moments[name].mean)
        np.testing.assert_array_equal(moments.cov, b.moments[name].cov)
    if a.exact is None or b.exact is None:
        assert a.exact is b.exact
    else:
        assert a.exact.std == b.exact.std
        for one, two in zip(a.exact.means, b.exact.means, strict=True):
            np.testing.assert_array_equal(one, two)


def kept(folder, samples, computed=None):
    """The set as it comes back from disk; `computed` grows whenever it is not there."""

    def compute():
        if computed is not None:
            computed.append(1)
        return to_arrays(samples)

    return from_arrays(remembered_on_disk(folder, "set", {"k": 1}, compute))


def test_round_trip(tmp_path):
    exact = ExactMixture((np.array([[2.0, 1 / 3]]), np.zeros((3, 2))), 0.1)
    for number, samples in enumerate([images_set(), vectors(np.eye(2), exact=exact)]):
        folder, computed = tmp_path / f"new folder {number}", []
        for _ in range(2):
            loaded = kept(folder, samples, computed)
            assert_equal(samples, loaded)
            assert not loaded.labels.flags.writeable
            assert all(features.flags.owndata for features in loaded.features.values())
        assert len(computed) == len(list(folder.iterdir())) == 1


def test_every_truncation_is_found(tmp_path, caplog):
    samples, computed = images_set(), []
    kept(tmp_path, samples, computed)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    lengths = range(0, len(whole), 97)
    for length in lengths:
        path.write_bytes(whole[:length])
        assert_equal(kept(tmp_path, samples, computed), samples)
        assert path.read_bytes() == whole
    assert len(computed) == 1 + len(lengths)
    assert all("is cut short or damaged" in message for message in caplog.messages)
    assert len(caplog.messages) == len(lengths)


def test_changed_bytes_are_found_or_harmless(tmp_path):
    samples, computed = images_set(), []
    kept(tmp_path, samples)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for position in range(0, len(whole), 41):
        changed = bytearray(whole)
        changed[position] ^= 0x55
        path.write_bytes(changed)
        # A byte such as a date of the archive carries nothing: then the content is as written.
        assert_equal(kept(tmp_path, samples, computed), samples)
    assert len(computed) > len(range(0, len(whole), 41)) / 2


def test_other_files_are_refused(tmp_path):
    samples, computed = images_set(), []
    kept(tmp_path, samples)
    (path,) = tmp_path.iterdir()
    np.savez(path, labels=np.zeros(3))
    kept(tmp_path, samples, computed)
    np.savez(path, about=np.array([{"code": 1}], dtype=object), allow_pickle=True)
    assert_equal(kept(tmp_path, samples, computed), samples)
    assert len(computed) == 2


def write_and_fail(path):
    with atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError("interrupted")


def test_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    with atomic_file(path) as file:
        file.write(b"first")
    with pytest.raises(RuntimeError, match="interrupted"):
        write_and_fail(path)
    assert path.read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
