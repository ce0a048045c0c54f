"""A plugin's metric of images: what it gets, where it is computed, and `bench verify`."""

import numpy as np
import pytest
import torch

from bench.data.convert import from_model
from bench.data.find import find_dataset
from methods import SampleRNG
from tests.bench.helpers import bench, rows_of
from tests.bench.plugins.test_plugins import write

PLUGIN = '''
    """A metric of images, and a method for digits that needs no training."""
    import numpy as np
    from methods import Guidance, Method, Preset, Settings, register
    from metrics.images import ImageMetric, images
    from metrics.registry import register as register_metric
    from torch import nn

    calls = []

    @register_metric
    class Edges(ImageMetric):
        name, label, summary, direction = "edges", "Edges", "steps between pixels", "lower"

        def compute(self, *, real, fake, extractor):
            sets = [images(real), images(fake)]
            for found in sets:
                assert found.dtype == np.uint8 and found.ndim == 4 and not found.flags.writeable
            assert len(sets[1]) == len(fake.labels)
            calls.append(extractor)
            steps = [np.abs(np.diff(found.astype(float), axis=3)).mean() for found in sets]
            return abs(steps[0] - steps[1])

    @register
    class Noise(Method[Settings]):
        name, summary, guidance = "noise", "clipped noise", "none"
        config_type, trains = Settings, False
        presets = {"digits": Preset(dataset="digits", config=Settings(), train=None, steps=(1,))}

        def build(self):
            return nn.Module()

        def loss(self, nets, batch, progress, rng):
            raise TypeError

        def sample(self, nets, labels, guidance, steps, rng):
            return rng.randn(self.data.shape, labels.device).clamp(-1, 1)

        def nfe(self, guidance, steps):
            return 1
'''


def steps(images):
    images = np.asarray(images, dtype=np.float64)
    return np.abs(images[..., 1:] - images[..., :-1]).mean()


@pytest.fixture
def plugin(tmp_path):
    return ("--plugin", write(tmp_path, PLUGIN), "--results", tmp_path / "r")


def test_metric_of_images_is_swept_once_per_cell_and_verified(plugin, tmp_path):
    sweep = ("sweep", "-m", "noise", "-d", "digits", "-g", "1", "-n", "50", "--metric", "edges",
             "--metric", "saturation", "--extractor", "identity", *plugin)  # fmt: skip
    ran = bench(*sweep, "--batch", "16")
    assert ran.code == 0, ran.err
    (row,) = rows_of(tmp_path / "r", "noise")
    fake = from_model(SampleRNG(0, range(50)).randn((1, 8, 8)).clamp(-1, 1))
    wanted = abs(steps(find_dataset("digits").reference.samples) - steps(fake))
    (value,) = [v for v in row.values if v.metric == "edges"]
    assert (value.value, value.extractor) == (pytest.approx(wanted, rel=1e-12), "")
    ran = bench("verify", *plugin)
    assert ran.code == 0, ran.err
    assert "equal" in ran.out
    assert "0 cells computed" in bench(*sweep).out


def test_metric_of_images_is_computed_for_files_and_arrays(plugin, tmp_path):
    generator = torch.Generator().manual_seed(0)
    mine = torch.randint(256, (30, 1, 8, 8), generator=generator, dtype=torch.uint8)
    np.savez(tmp_path / "mine.npz", mine.permute(0, 2, 3, 1).numpy())
    out = tmp_path / "out.csv"
    ran = bench("evaluate", tmp_path / "mine.npz", "-r", "digits", "--metric", "edges", "--out",
                out, *plugin)  # fmt: skip
    assert ran.code == 0, ran.err
    wanted = abs(steps(find_dataset("digits").reference.samples) - steps(mine))
    assert f"{wanted:.4g}"[:4] in ran.out


def test_metric_of_images_gives_a_reason_for_vectors(plugin):
    ran = bench("sweep", "-m", "oracle", "-d", "modes1d", "-g", "1", "-n", "20", "--metric",
                "edges", *plugin)  # fmt: skip
    assert ran.code == 2
    assert "edges is for image data, not vector data" in ran.err
    ran = bench("sweep", "-m", "oracle", "-d", "modes1d", "-g", "1", "-n", "20", *plugin)
    assert (ran.code, ran.err) == (0, "")
