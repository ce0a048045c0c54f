import numpy as np
import pytest
import torch
from scipy import stats

from bench.data import DATASETS, Split, register
from bench.data.convert import from_model, one_hot, to_model
from bench.data.find import find_dataset

# SHA-256 of (train, reference). A change makes all published results incomparable.
HASHES = {
    "digits": (
        "f05ea4ec86bdcb747e0b5e945d4feeb77389443d6f1085cca80e008d6f2a8d61",
        "ecb55e122a005f5bdf804ea9c737167eb4c8afa46117affc3054f33222c8a0c6",
    ),
    "modes1d": (
        "429e13575ed6da56c3b39ae505728ce9642c7b32c659d0f050a970721568e468",
        "09ec4400e737e345d95da78d19ce4e66cdfb828d7d59ca594b823a9dd721b6f9",
    ),
    "modes2d": (
        "12d2a1acb50d81f608cb77faf2d3ede0c5ad75fc80ab7a7730a0532d34751c8b",
        "ed2bebc0ac6eb5675a5587084d74655de958b3495cfcc317ed804a5121fd46e7",
    ),
}


def test_built_in_data_sets_have_pinned_content():
    assert set(DATASETS) == set(HASHES)
    for name, pinned in HASHES.items():
        data = find_dataset(name)
        assert (data.train.hash, data.reference.hash) == pinned
        assert data.name == data.spec.name == name
        assert data.train.samples.shape[1:] == data.spec.shape
        assert len(data.class_names) == data.spec.num_classes
        assert set(data.train.labels.tolist()) == set(range(data.spec.num_classes))


def test_digits_splits_are_disjoint_halves_of_all_scans():
    from sklearn.datasets import load_digits

    data = find_dataset("digits")
    assert (len(data.train), len(data.reference)) == (899, 898)

    def scans(split):
        return sorted(
            (*x.flatten().tolist(), int(y))
            for x, y in zip(split.samples, split.labels, strict=True)
        )

    original = load_digits()
    # 16 grey levels spread over 0..255 by rounding k * 255 / 16.
    table = [round(k * 255 / 16) for k in range(17)]
    everything = sorted(
        (*(table[int(v)] for v in x.ravel()), int(y))
        for x, y in zip(original.images, original.target, strict=True)
    )
    # No scan occurs twice, so that the halves are disjoint if together they are everything.
    assert len(set(everything)) == 1797
    assert sorted(scans(data.train) + scans(data.reference)) == everything


def test_all_256_levels_survive_conversion_to_the_model_and_back():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    x = to_model(levels)
    assert (x.dtype, float(x.min()), float(x.max())) == (torch.float32, -1.0, 1.0)
    assert torch.equal(from_model(x), levels)


def test_from_model_rounds_to_the_nearest_level_and_clips():
    # Offsets up to 0.49 of a level stay; 127.5 times float32 errors is below 0.01 of a level.
    levels = torch.arange(256).reshape(1, 1, 16, 16)
    for offset in (-0.49, 0.49):
        x = (levels + offset) / 127.5 - 1.0
        assert torch.equal(from_model(x), levels.to(torch.uint8))
    ends = torch.tensor([-3.0, -1.001, 1.001, 9.0]).reshape(1, 1, 2, 2)
    assert from_model(ends).flatten().tolist() == [0, 0, 255, 255]


def test_vectors_are_not_converted():
    x = torch.tensor([[2.5], [-7.0]])
    assert torch.equal(to_model(x), x)
    assert torch.equal(from_model(x.double()), x)


def test_one_hot_labels():
    expected = np.eye(3, dtype=np.float32)[[2, 0, 1]]
    assert np.array_equal(one_hot(torch.tensor([2, 0, 1]), 3).numpy(), expected)


@pytest.mark.parametrize("name", ["modes1d", "modes2d"])
def test_modes_follow_their_exact_density(name):
    data = find_dataset(name)
    mixture = data.spec.mixture
    seen = set()
    for split, n in ((data.train, 20_000), (data.reference, 4_000)):
        assert len(split) == n
        counts = torch.bincount(split.labels)
        assert (counts == n // len(mixture.means)).all()
        for k, modes in enumerate(mixture.means):
            assert len(modes) == 1
            z = (split.samples[split.labels == k].double() - torch.tensor(modes[0])) / mixture.std
            # A fixed draw, so this cannot flicker; 1e-4 is far below what chance alone gives.
            for column in z.T.numpy():
                assert stats.kstest(column, "norm").pvalue > 1e-4
        seen.add(split.hash)
    assert len(seen) == 2
    shared = set(map(tuple, data.train.samples.tolist())) & set(
        map(tuple, data.reference.samples.tolist())
    )
    # On a line, 4e7 pairs of one class on float32's grid of 2^-22 around 2 coincide
    # 4e7 * 2^-22 / (2 sqrt(pi) 0.2) = 13 times by chance; in the plane never.
    assert len(shared) < 40 if data.spec.shape == (1,) else not shared


def test_split_refuses_wrong_types_and_lengths():
    with pytest.raises(ValueError, match=r"torch\.uint8"):
        Split(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="2 samples with 3 labels"):
        Split(torch.zeros(2, 1), torch.zeros(3, dtype=torch.int64))


def test_split_hash_depends_on_samples_labels_and_shape():
    x, y = torch.zeros(4, 2), torch.arange(4)
    changed = x.clone()
    changed[3, 1] = 1e-30
    splits = [Split(x, y), Split(changed, y), Split(x, y.flip(0)), Split(x[:, :1], y)]
    assert len({s.hash for s in splits}) == 4
    assert Split(x.clone(), y.clone()).hash == splits[0].hash


def test_registering_a_taken_name_is_refused():
    other = type("Other", (DATASETS["modes1d"],), {"name": "digits", "__module__": "elsewhere"})
    with pytest.raises(ValueError, match=r"'digits' is already registered by bench\.data\.digits"):
        register(other)
