import math

import numpy as np
import pytest
import torch
from torch import nn

from bench.data import Split
from bench.data.convert import from_model, to_model
from bench.data.find import find_dataset
from bench.inversion.measure import (
    Editor,
    Inverted,
    invert_split,
    latent_row,
    lpips_or_reason,
    pairs_of,
    scores,
    share,
)
from bench.sweep.generate import Diverged
from bench.training.card import make_method
from methods import EDM, Guidance
from methods.spec import DataSpec
from metrics.reconstruction import psnr_limit
from metrics.reconstruction import ssim as own_ssim
from tests.bench.helpers import randomised, tiny_card


def images(n=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randint(256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Split(samples, torch.arange(n) % 10)


@pytest.fixture(scope="module")
def made():
    data = find_dataset("digits")
    method = make_method(tiny_card("edm", "digits"), data)
    return method, randomised(method)


def editor(made, batch=256):
    method, nets = made
    return Editor(method, method, nets, batch, torch.device("cpu"))


def test_inversion_does_not_depend_on_batches_and_counts_images(made):
    split = images(7)
    counted = []
    whole = invert_split(editor(made), split)
    parts = invert_split(editor(made, batch=3), split, counted.append)
    assert counted == [3, 3, 1, 3, 3, 1]
    # Sums of other shapes round otherwise, and 34 steps carry it on.
    torch.testing.assert_close(parts.latents, whole.latents, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(parts.reconstructed, whole.reconstructed, rtol=1e-3, atol=1e-3)
    assert whole.latents.shape == whole.reconstructed.shape == split.samples.shape
    assert whole.reconstructed.abs().max() <= 1
    assert whole.seconds > 0


def test_non_finite_latents_and_edits_raise_diverged(made):
    method, nets = made
    split = images(4)
    broken = randomised(method)
    with torch.no_grad():
        next(iter(broken.parameters())).fill_(math.nan)
    with pytest.raises(Diverged, match="4 of 4 latents are not finite"):
        invert_split(editor((method, broken)), split)
    latents = torch.full((2, 1, 8, 8), math.inf)
    with pytest.raises(Diverged, match="2 of 2 edits are not finite"):
        editor((method, nets)).edit(latents, torch.tensor([0, 1]), Guidance(1.0))


def test_scores_are_means_with_standard_errors_over_images():
    split = images()
    noise = 0.1 * torch.randn(split.samples.shape, generator=torch.Generator().manual_seed(1))
    back = (to_model(split.samples) + noise).clamp(-1, 1)
    found, exact = scores(Inverted(split, back, back, 0.0), 16, None, "no weights")
    by_name = {s.name: s for s in found}
    errors = ((back - to_model(split.samples)) ** 2).flatten(1).mean(1).double().numpy()
    assert by_name["mse"].value == pytest.approx(errors.mean(), rel=1e-6)
    assert by_name["mse"].se == pytest.approx(errors.std(ddof=1) / 30**0.5, rel=1e-6)
    rounded = from_model(back)
    expected = own_ssim(split.samples, rounded).numpy()
    assert by_name["ssim"].value == pytest.approx(expected.mean(), abs=1e-12)
    # Two batches, of 16 and 14, count alike.
    squares = (split.samples.double() - rounded.double()) ** 2
    batches = [10 * np.log10(255**2 / float(squares[i].mean())) for i in (slice(16), slice(16, 30))]
    assert by_name["psnr_batch"].value == pytest.approx(np.mean(batches), abs=1e-9)
    assert by_name["psnr_batch"].se is None
    assert exact == 0
    assert (by_name["lpips"].value, by_name["lpips"].reason) == (None, "no weights")
    assert by_name["ssim_gaussian"].value is None
    assert "smaller than its 11x11 window" in by_name["ssim_gaussian"].reason


def test_exact_images_count_as_the_largest_finite_psnr():
    split = images()
    back = to_model(split.samples)
    found, exact = scores(Inverted(split, back, back, 0.0), 16, None, "")
    by_name = {s.name: s for s in found}
    assert exact == 30
    assert (by_name["mse"].value, by_name["mse"].se) == (0.0, 0.0)
    assert by_name["psnr"].value == pytest.approx(psnr_limit((1, 8, 8)))
    assert by_name["ssim"].value == pytest.approx(1.0)
    assert by_name["psnr_batch"].value is None
    assert by_name["psnr_batch"].reason.startswith("infinite")


def test_one_image_has_no_standard_error_and_no_latent_statistics():
    split = images(1)
    back = to_model(split.samples) * 0.9
    found, _ = scores(Inverted(split, back, back, 0.0), 16, None, "")
    by_name = {s.name: s for s in found}
    assert by_name["mse"].se is None
    assert by_name["mse"].value > 0
    assert "at least 7 images, got 1" in by_name["ssim_batch"].reason
    assert latent_row(back, 80.0) is None


def test_latent_statistics_are_relative_to_sigma_max():
    z = 80 * torch.randn((50, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    row = latent_row(z, 80.0)
    assert row.sigma_max == 80.0
    assert row.std == pytest.approx(float(z.std() / 80), rel=1e-3)


def test_pairs_count_edits_by_both_classes():
    source, target = torch.tensor([0, 0, 1, 0]), torch.tensor([1, 1, 0, 2])
    right = torch.tensor([True, False, True, False])
    found = [(p.source, p.target, p.n, p.right) for p in pairs_of(source, target, right)]
    assert found == [(0, 1, 2, 1), (0, 2, 1, 0), (1, 0, 1, 1)]


def test_share_has_wilson_interval():
    z, n, p = 1.959963984540054, 40, 0.9
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    found = share(36, 40)
    assert found.value == 0.9
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert share(10, 10).high == 1.0
    assert share(10, 10).low == pytest.approx(10 / (10 + z**2), abs=1e-9)


def test_lpips_has_a_reason_if_not_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDANCE_BENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    net, why = lpips_or_reason((8, 8))
    assert (net, why[:14]) == (None, "images of 8x8 ")
    net, why = lpips_or_reason((32, 32))
    assert (net, why) == (None, f"alexnet-owt-7be5be79.pth is not in {tmp_path}")
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"another")
    net, why = lpips_or_reason((32, 32))
    assert net is None
    assert "does not hold the weights of this network: its SHA-256 begins" in why


class Misshapen(EDM):
    def invert(self, nets, x0, labels):
        return x0[:, :, :4]


def test_inversion_of_another_shape_is_refused(made):
    method = Misshapen(made[0].config, DataSpec("digits", (1, 8, 8), 10))
    one = Editor(method, method, nn.Module(), 8, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"edm gave latents \(3, 1, 4, 8\), not \(3, 1, 8, 8\)"):
        one.invert(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 2]))
