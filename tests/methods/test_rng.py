import numpy as np
import pytest
import torch

from methods.rng import BatchRNG, SampleRNG, derive_seed

SHAPE = (1, 3)


def draws(rng: SampleRNG) -> torch.Tensor:
    """Two draws of both kinds, side by side."""
    return torch.cat([rng.randn(SHAPE), rng.rand(SHAPE), rng.randn(SHAPE)], 2)


def test_sample_depends_on_seed_and_index_only():
    whole = draws(SampleRNG(5, range(20)))
    order = np.random.default_rng(0).permutation(20).tolist()
    assert torch.equal(draws(SampleRNG(5, order)), whole[order])
    for size in (1, 3, 7):
        parts = [draws(SampleRNG(5, range(i, min(i + size, 20)))) for i in range(0, 20, size)]
        assert torch.equal(torch.cat(parts), whole)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - global state must not matter
    assert torch.equal(draws(SampleRNG(5, range(20))), whole)


def test_samples_follow_the_documented_generator():
    key = [derive_seed("sample", 5), 17]
    expected = np.random.Generator(np.random.Philox(key=key)).standard_normal(3, dtype=np.float32)
    assert np.array_equal(SampleRNG(5, [17]).randn((3,))[0].numpy(), expected)


def test_other_seeds_and_streams_give_other_noise():
    noise = [SampleRNG(0, [3]), SampleRNG(1, [3]), SampleRNG(0, [4]), SampleRNG(0, [3], "invert")]
    assert len({float(rng.randn((1,))) for rng in noise}) == 4


def test_100_000_indices_have_distinct_noise():
    # 32 seed bits would give 1.2 equal pairs on average; two float32 draws have 46 bits.
    noise = SampleRNG(0, range(100_000)).randn((2,)).numpy()
    assert len(np.unique(noise, axis=0)) == 100_000


def test_streams_of_neighbouring_indices_and_seeds_are_uncorrelated_and_normal():
    n = 20_000
    noise = {seed: SampleRNG(seed, range(n)).randn((2,)).double().numpy() for seed in (0, 1)}
    pairs = [
        (noise[0][:-1, 0], noise[0][1:, 0]),  # neighbouring indices
        (noise[0][:, 0], noise[0][:, 1]),  # successive draws of one index
        (noise[0][:, 0], noise[1][:, 0]),  # seeds
    ]
    for a, b in pairs:
        # 5 standard errors of the correlation of independent values.
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)
    assert abs(noise[0].mean()) < 5 / np.sqrt(2 * n)
    assert abs(noise[0].var() - 1) < 5 * np.sqrt(2 / (2 * n))


def test_processes_get_their_rows_of_the_whole_batch():
    def sequence(start, stop):
        rng = BatchRNG(9, 12, start, stop)
        return [rng.randn(2), rng.rand(), rng.randint(1000), rng.randn(), rng.rand(3)]

    whole = sequence(0, 12)
    for size in (2, 3, 4):
        parts = [sequence(i, i + 12 // size) for i in range(0, 12, 12 // size)]
        for at, drawn in enumerate(whole):
            assert torch.equal(torch.cat([part[at] for part in parts]), drawn)
    assert not torch.equal(whole[0], BatchRNG(10, 12, 0, 12).randn(2))
    assert whole[2].dtype == torch.int64


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (3, 2), (0, 5)])
def test_rows_outside_the_batch_are_refused(start, stop):
    with pytest.raises(ValueError, match="do not lie in a batch of 4"):
        BatchRNG(0, 4, start, stop)


def test_dropout_masks_depend_on_name_and_process():
    def mask(rng, name):
        return torch.rand(64, generator=rng.dropout(name))

    rng = BatchRNG(3, 8, 0, 4)
    first = mask(rng, "denoiser")
    rng.randn(100)
    assert torch.equal(mask(rng, "denoiser"), first)
    assert not torch.equal(mask(rng, "noiser"), first)
    assert not torch.equal(mask(BatchRNG(4, 8, 0, 4), "denoiser"), first)
    # Rows of another process are other images and need other masks.
    assert not torch.equal(mask(BatchRNG(3, 8, 4, 8), "denoiser"), first)
    # Drawing masks does not change the draws of the batch.
    plain = BatchRNG(3, 8, 0, 4)
    plain.randn(100)
    assert torch.equal(plain.randn(5), rng.randn(5))


def test_derived_seeds_are_pinned():
    # A change here would change all samples.
    assert derive_seed("sample", 0) == 4909362026473958481
    assert derive_seed("a", "b") != derive_seed("ab")
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert all(0 <= derive_seed("train", 0, step) < 2**63 for step in range(100))
