"""From the same PNGs and the same weights to the numbers of the field's programs.

The network's weights are random: what is compared is all that lies between files and numbers.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from cleanfid.fid import get_folder_features
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from bench.evaluation.statistics_files import read_statistics
from metrics import METRICS
from metrics.base import Estimate
from metrics.extractors.inception import BLOCKS
from metrics.kid import KernelDistanceSubsets, kernel_distance_subsets
from tests.bench.evaluation.helpers import pictures
from tests.bench.helpers import bench
from tests.long import mostly_long
from tests.metrics.weights import random_inception

GENERATED, REAL, SUBSETS, SIZE = 12, 9, 30, 8
FEW = 5
DISTANCES = pytest.mark.parametrize("distances", mostly_long([False, True], [False]))
"""Without and with Fréchet distances, whose 2048 eigenvalues take most of the time."""


class FewSubsets(KernelDistanceSubsets):
    """KID over subsets that so few images can fill."""

    name = "kid_few"
    minimum_n = SIZE

    def compute(self, *, real, fake, extractor):
        features = real.features[extractor], fake.features[extractor]
        return Estimate(kernel_distance_subsets(*features, subsets=SUBSETS, size=SIZE)[0])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two flat folders of 16x16 PNGs, of smooth colours and of noise on top."""
    folder = tmp_path_factory.mktemp("agreement")
    for name, n, seed, shift in (
        ("fake", GENERATED, 1, 15),
        ("real", REAL, 0, 0),
        ("few", FEW, 2, 0),
    ):
        (folder / name).mkdir()
        for i, image in enumerate(pictures(n, (3, 16, 16), seed, shift)):
            Image.fromarray(image.transpose(1, 2, 0)).save(folder / name / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_inception(tmp_path_factory.mktemp("weights"))


@pytest.mark.long
def test_torch_fidelity_from_folders(place, weights, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setitem(METRICS, "kid_few", FewSubsets)
    theirs = torch_fidelity.calculate_metrics(
        input1="fake", input2="real", isc=True, fid=True, kid=True, cuda=False, cache=False,
        batch_size=7, save_cpu_ram=True, verbose=False, kid_subsets=SUBSETS, kid_subset_size=SIZE,
        isc_splits=1,
        feature_extractor_weights_path=str(weights),
    )  # fmt: skip
    ran = bench(
        "evaluate", "fake", "-r", "real", "-x", "inception", "--weights", weights, "--device",
        "cpu", "--metric", "fd", "--metric", "kid_few", "--metric", "is_5000", "-o", "out.json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    rows = {row["metric"]: row for row in json.loads(Path("out.json").read_text())["rows"]}
    assert rows["fd"]["title"] == f"FD inception @{GENERATED}"
    # Theirs takes roots of 2000 eigenvalues that are rounding around 0: about 1e-8 each, of 1e-16.
    assert rows["fd"]["value"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    # A difference of means of kernels near 1, theirs of float32 products.
    subsets = theirs["kernel_inception_distance_mean"]
    assert rows["kid_few"]["value"] == pytest.approx(subsets, rel=0, abs=1e-7)
    assert abs(subsets) > 1e-5
    assert rows["is_5000"]["value"] == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    # None of them is a number that anything would give.
    assert rows["fd"]["value"] > 0.1
    assert rows["is_5000"]["value"] > 1 + 1e-4


@DISTANCES
def test_clean_fid_from_a_folder(place, weights, monkeypatch, distances):
    monkeypatch.chdir(place)
    net = FeatureExtractorInceptionV3(
        "inception", ["2048"], feature_extractor_weights_path=str(weights)
    )

    @torch.no_grad()
    def custom(x):
        x = (x - 128) / 128
        for name in BLOCKS:
            x = getattr(net, name)(x)
        return x.flatten(1)

    theirs = get_folder_features(
        "few", custom, num_workers=0, batch_size=3, device=torch.device("cpu"), mode="clean",
        verbose=False,
    )  # fmt: skip
    ran = bench(
        "stats", "make", "few", "-x", "inception-clean", "--weights", weights, "--device", "cpu",
        "--format", "clean-fid", "-o", "stats",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    ours = read_statistics(Path("stats/few_clean_custom_na_kid.npz")).features
    scale = float(np.abs(theirs).max())
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * scale)
    moments = read_statistics(Path("stats/few_clean_custom_na.npz")).moments
    stored = {"mu": moments.mean.astype(np.float32), "sigma": moments.cov}
    if not distances:
        return
    direct = fid_features_to_statistics(torch.from_numpy(theirs))
    distance = fid_statistics_to_metric(stored, direct, False)["frechet_inception_distance"]
    assert abs(distance) < 1e-4 * np.trace(moments.cov)
