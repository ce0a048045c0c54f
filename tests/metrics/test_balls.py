import numpy as np
import pytest
import torch

from metrics.balls import ball_radii, memberships
from tests.long import mostly_long

BLOCKS = [(32, 32), (64, 160), (1024, 4096)]
N, M, D = 320, 288, 24


def squared(a, b):
    return ((a[:, None].astype(np.float64) - b[None].astype(np.float64)) ** 2).sum(2)


def brute_radii(x, k):
    return np.sort(squared(x, x) + np.diag(np.full(len(x), -1.0)), axis=1)[:, k]


def base(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N, D)), 1.1 * rng.normal(size=(M, D)) + 0.1


def made(name):
    rng = np.random.default_rng(1)
    real, fake = base()
    if name == "half copied":
        fake[::2] = real[:M:2]
    elif name == "copied from a far origin":
        fake[::2] = real[:M:2]
        real, fake = real + 1e3, fake + 1e3
    elif name == "one image":
        fake[:] = real[7]
    elif name == "half one image":
        fake[::2] = fake[0]
        real[:9] = fake[1]
    elif name == "tight clusters":
        # Float32 products cannot distinguish rows of a cluster.
        centres = 10 * rng.normal(size=(3, D))
        real, fake = (centres[np.arange(len(x)) % 3] + 1e-4 * x for x in (real, fake))
        fake[::5] = real[:M:5]
    elif name == "lattice":
        real, fake = (rng.integers(-1, 2, size=(n, D)) for n in (N, M))
    elif name == "coarse":
        real, fake = (np.round(4 * x) / 4 for x in (real, fake))
        fake[::2] = real[:M:2]
    elif name == "planar":
        real, fake = real[:, :2], fake[:, :2]
        fake[::2] = real[:M:2]
    elif name == "inside all balls":
        fake *= 0.01
    elif name == "outlier":
        fake[::2] = real[:M:2]
        real[3] *= 1e6
    elif name == "in float16":
        fake[::2] = real[:M:2]
        return real.astype(np.float16), fake.astype(np.float16)
    elif name == "in float64":
        fake[::2] = real[:M:2]
        return real, fake
    return real.astype(np.float32), fake.astype(np.float32)


CASES = (
    *("plain", "half copied", "copied from a far origin", "one image", "half one image"),
    *("tight clusters", "lattice", "coarse", "planar", "inside all balls", "outlier"),
    *("in float16", "in float64"),
)


def ours(real, fake, k, closed, block):
    x, y = torch.from_numpy(real), torch.from_numpy(fake)
    radii = ball_radii(x, k, block), ball_radii(y, k, block)
    return *radii, memberships(x, y, *radii, closed, block)


@pytest.mark.parametrize("k", mostly_long([1, 3, 5], [3]))
@pytest.mark.parametrize("name", CASES)
def test_equal_to_brute_force_for_all_block_sizes(name, k):
    real, fake = made(name)
    real_radii, fake_radii = brute_radii(real, k), brute_radii(fake, k)
    across = squared(real, fake)
    for closed in (True, False):
        compare = np.less_equal if closed else np.less
        in_real = compare(across, real_radii[:, None])
        in_fake = compare(across, fake_radii[None])
        results = [ours(real, fake, k, closed, block) for block in BLOCKS]
        for real_found, fake_found, found in results:
            # The reference sums the squares in another order.
            np.testing.assert_allclose(real_found, real_radii, rtol=1e-14)
            np.testing.assert_allclose(fake_found, fake_radii, rtol=1e-14)
            assert torch.equal(real_found, results[0][0])
            np.testing.assert_array_equal(found.balls, in_real.sum(0))
            np.testing.assert_array_equal(found.covered, in_real.any(1))
            np.testing.assert_array_equal(found.recalled, in_fake.any(1))


def test_copies_lie_on_edges():
    # Copies of k-th neighbours lie on edges: they are inside closed balls only.
    real, fake = made("half copied")
    closed, open_ = (ours(real, fake, 3, c, (64, 64))[2] for c in (True, False))
    assert closed.balls.sum() - open_.balls.sum() >= M // 2 * 0.8


@pytest.mark.parametrize("block", BLOCKS)
def test_order_does_not_matter(block):
    real, fake = made("half one image")
    p, q = np.random.default_rng(2).permutation(N), np.random.default_rng(3).permutation(M)
    *radii, found = ours(real, fake, 3, True, block)
    *moved_radii, moved = ours(real[p], fake[q], 3, True, block)
    for before, after, order in zip(
        (*radii, *found), (*moved_radii, *moved), (p, q, q, p, p), strict=True
    ):
        assert torch.equal(before[torch.from_numpy(order)], after)


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**-60, 2.0**60, 2.0**118])
def test_scale_does_not_matter(scale):
    # Powers of two are exact; with the smallest, features are multiples of the least float32.
    real, fake = (np.round(64 * x).astype(np.float32) for x in made("half copied"))
    *radii, found = ours(real, fake, 3, True, (64, 64))
    factor = np.float32(scale)
    *scaled_radii, scaled = ours(real * factor, fake * factor, 3, True, (64, 64))
    for before, after in zip(radii, scaled_radii, strict=True):
        assert torch.equal(before * scale * scale, after)
    assert all(torch.equal(a, b) for a, b in zip(found, scaled, strict=True))


def test_sets_of_very_different_scale():
    real, fake = made("plain")
    found = ours(real, fake * np.float32(1e25), 3, True, (64, 64))[2]
    assert not found.balls.any()
    # Such large balls hold all real samples or none.
    assert found.recalled.all() or not found.recalled.any()


def test_ambient_precision_does_not_matter():
    real, fake = made("half copied")
    expected = ours(real, fake, 3, True, (64, 64))[2]
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = ours(real, fake, 3, True, (64, 64))[2]
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", ["half one image", "tight clusters"])
def test_results_are_on_the_device_of_the_features(name):
    real, fake = made(name)
    expected = ours(real, fake, 3, True, (64, 64))[2]
    # A tensor created without a device would be on "meta", and mixing devices fails.
    with torch.device("meta"):
        found = ours(real, fake, 3, True, (64, 64))[2]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_refusals():
    x = torch.zeros(5, 3)
    with pytest.raises(ValueError, match="more than k samples, got 3"):
        ball_radii(x[:3], 3)
    with pytest.raises(ValueError, match="k >= 1"):
        ball_radii(x, 0)
    for bad in (torch.nan, torch.inf, -torch.inf):
        poisoned = x.clone()
        poisoned[2, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            ball_radii(poisoned, 3)
        with pytest.raises(ValueError, match="NaN or infinite"):
            memberships(x, poisoned, torch.ones(5), torch.ones(5), True)
    with pytest.raises(ValueError, match="shape"):
        ball_radii(x[0], 3)
    with pytest.raises(ValueError, match="floating-point"):
        ball_radii(x.long(), 3)
