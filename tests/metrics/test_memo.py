import gc

import numpy as np

from metrics.memo import remember


def frozen(values):
    array = np.array(values, dtype=float)
    array.setflags(write=False)
    return array


def counted(size=2):
    calls = []

    @remember(size)
    def total(x, scale=1.0):
        calls.append(scale)
        return float(x.sum() * scale)

    return total, calls


def test_same_read_only_array_is_computed_once():
    total, calls = counted()
    x = frozen([1, 2])
    assert [total(x), total(x), total(x, 2.0), total(x, scale=2.0)] == [3, 3, 6, 6]
    assert calls == [1.0, 2.0, 2.0]


def test_writeable_arrays_are_computed_each_time():
    total, _ = counted()
    x = np.ones(3)
    assert total(x) == 3
    x[0] = 5
    assert total(x) == 7
    view = x[:2]
    view.setflags(write=False)
    assert total(view) == 6
    x[0] = 0
    assert total(view) == 1


def test_oldest_result_is_dropped():
    total, calls = counted(size=2)
    a, b, c = (frozen([k]) for k in range(3))
    for x in (a, b, a, c, a, b):
        total(x)
    assert len(calls) == 4


def test_reused_identity_is_computed_again():
    total, _ = counted(size=1000)
    for k in range(300):
        x = frozen([k])
        assert total(x) == k
        del x
        gc.collect(0)
