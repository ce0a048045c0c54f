"""More classes than an image is edited to: only the next one is tried."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from bench.data import Dataset, Split
from bench.experiment.inversion_rows import read_inversions
from bench.experiment.place import Experiment
from bench.inversion.plan import Bench, balanced, plan_inversions
from bench.inversion.sweep import sweep_inversions
from bench.training.run import Run
from methods import IGCT
from methods.spec import DataSpec
from metrics.extractors import train_classifier
from tests.bench.helpers import tiny_card

CLASSES = 12


class Dozen(Dataset):
    """Twelve classes of colour noise; registered nowhere."""

    name, summary, extractors, default_samples = "dozen", "noise", ("classifier",), 24
    class_names = tuple(f"class {k}" for k in range(CLASSES))

    @property
    def spec(self):
        return DataSpec(self.name, (3, 8, 8), CLASSES)

    def _split(self, seed):
        generator = torch.Generator().manual_seed(seed)
        samples = torch.randint(256, (36, 3, 8, 8), generator=generator, dtype=torch.uint8)
        return Split(samples, torch.arange(36) % CLASSES)

    @property
    def train(self):
        return self._split(0)

    @property
    def reference(self):
        return self._split(1)


def test_many_classes_edit_each_image_to_the_next(tmp_path):
    data = Dozen()
    card = tiny_card("igct", "digits").model_copy(update={"dataset": "dozen", "name": "dozen"})
    method = IGCT(IGCT.config_type.model_validate(card.config), data.spec)
    judge = train_classifier(data.train.samples, data.train.labels, steps=3)
    index = balanced(data.reference.labels, 24)
    split = Split(data.reference.samples[index], data.reference.labels[index])
    bench = Bench(data, split, judge, None, "too small")
    place = Experiment(tmp_path, "mine")
    planned = plan_inversions(Run(card, data, method, None, ""), (1.0, 3.0), bench)
    outcome = sweep_inversions(planned, bench, place, batch=7, device=torch.device("cpu"))
    assert (outcome.computed, outcome.failed) == (2, [])
    for row in read_inversions(place.inversions):
        pairs = {(p.source, p.target, p.n) for p in row.pairs}
        assert pairs == {(k, (k + 1) % CLASSES, 2) for k in range(CLASSES)}
        assert row.edits.n == 24
        assert row.preview.columns == ("source", "latent", "reconstruction", "edit")
        assert row.preview.rows == tuple(f"class {k} → class {k + 1}" for k in range(10))
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(row.preview.png))))
        assert shown.shape == (10 * 8, 4 * 8, 3)
        first = split.samples[split.labels == 4][0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(shown[4 * 8 : 5 * 8, :8], first)
