"""Which extractor a data set gets, and where it runs."""

import pytest
import torch

from bench.data import Dataset, Split
from bench.data.find import find_dataset
from bench.evaluation import makers
from bench.evaluation.makers import Makers, is_photographic
from bench.evaluation.prepare import TakesLong, nothing_measured, prepare
from bench.evaluation.weights import WEIGHTS_FOLDER_VARIABLE
from bench.system.errors import UserError
from methods.spec import DataSpec
from metrics import EXTRACTORS
from metrics.extractors import (
    ClassifierExtractor,
    EfficientNetExtractor,
    HeadExtractor,
    dinov2,
    efficientnet,
)
from metrics.extractors.efficientnet import preprocess
from tests.metrics.helpers import uint8_images
from tests.metrics.vits import BLOCKS, WIDTH, dino_state


class Coloured(Dataset):
    name, summary = "coloured", "two classes, dark and bright"
    class_names = ("dark", "bright")
    extractors = ("efficientnet-lite0", "classifier")
    default_samples = 20

    def __init__(self, shape=(3, 32, 32)):
        self.shape = shape

    @property
    def spec(self):
        return DataSpec(self.name, self.shape, 2)

    @property
    def train(self):
        return self.split(0)

    @property
    def reference(self):
        return self.split(1)

    def split(self, seed):
        labels = torch.arange(24) % 2
        images = uint8_images(24, self.shape, seed) // 2
        return Split(images + (128 * labels[:, None, None, None]).byte(), labels)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((3, 32, 32), True), ((3, 31, 64), False), ((1, 32, 32), False), ((3, 64, 48), True)],
)
def test_only_colour_images_from_32_pixels_are_photographic(shape, expected):
    assert is_photographic(Coloured(shape)) is expected
    assert not is_photographic(find_dataset("modes1d"))


def test_classifier_of_colour_images_is_a_head(tmp_path):
    said = []
    data = Coloured()
    head = Makers(tmp_path, say=said.append).make("classifier", data)
    assert isinstance(head, HeadExtractor)
    assert "efficientnet-lite0 features of 24 training images" in said[0]
    x, y = data.reference.samples, data.reference.labels
    assert torch.equal(head(x).logits.argmax(1), y)
    small = Makers(tmp_path).make("classifier", Coloured((3, 4, 4)))
    assert isinstance(small, ClassifierExtractor)
    assert head.name == small.name == "classifier"


def test_images_pass_the_shared_network_once(tmp_path, monkeypatch):
    makers._efficientnet.cache_clear()
    seen = []

    def counting(images, size):
        seen.append(len(images))
        return preprocess(images, size)

    monkeypatch.setattr(efficientnet, "preprocess", counting)
    evaluation = prepare(Coloured(), tmp_path, metrics=("fd", "class_accuracy"))
    assert {(p.metric.name, p.extractor) for p in evaluation.plan} == {
        ("fd", "efficientnet-lite0"), ("fd", "classifier"), ("class_accuracy", "classifier"),
    }  # fmt: skip
    assert evaluation.real.moments["efficientnet-lite0"].mean.shape == (1280,)
    assert evaluation.real.moments["classifier"].mean.shape == (128,)
    # The 24 training images for the head, then the 24 of the reference for both, in chunks.
    assert seen == [16, 8] * 2
    prepare(Coloured(), tmp_path, metrics=("fd", "class_accuracy"))
    assert seen == [16, 8] * 2


def test_networks_run_on_the_device_of_the_sweep(tmp_path, monkeypatch):
    makers._efficientnet.cache_clear()
    plain = Makers(tmp_path).make("efficientnet-lite0", Coloured())
    assert plain.device == torch.device("cpu")
    given = []

    def inception(weights, **options):
        given.append(options)
        return EfficientNetExtractor(size=32)

    monkeypatch.setitem(EXTRACTORS, "inception", inception)
    device = torch.device("cuda")
    (tmp_path / "w.pth").touch()
    Makers(tmp_path, tmp_path / "w.pth", device=device).make("inception", Coloured())
    assert given == [{"device": device}]


def test_all_weights_are_checked_before_training(tmp_path, monkeypatch):
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    said = []
    for extractors in (("classifier", "vgg16"), ("classifier", "clip")):
        with pytest.raises(UserError, match=f"are not in {tmp_path / 'weights'}"):
            prepare(Coloured(), tmp_path / "cache", extractors=extractors, say=said.append)
    assert said == []
    assert not (tmp_path / "cache").exists()


def test_rows_name_the_extractor_with_its_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(dinov2.SIZES, "dinov2", (WIDTH, BLOCKS))
    path = tmp_path / "dinov2_vitl14_pretrain.pth"
    torch.save(dino_state(), path)
    found = {}
    for extractors in (("dinov2",), ("dinov2", "efficientnet-lite0")):
        evaluation = prepare(
            Coloured(), tmp_path, metrics=("fd", "kid"), extractors=extractors, weights=path
        )
        assert {p.extractor for p in evaluation.plan} == set(extractors)
        found[extractors] = next(p for p in evaluation.plan if p.extractor == "dinov2")
        moments = evaluation.real.moments["dinov2"]
        assert moments.mean.shape == (WIDTH,)
    assert len({p.signature for p in found.values()}) == 1
    with pytest.raises(UserError, match=r"No metric can be .*not for those of dinov2"):
        prepare(Coloured(), tmp_path, metrics=("cmmd",), extractors=("dinov2",), weights=path)


def test_plan_does_not_train_the_classifier(tmp_path):
    data = Coloured()
    with pytest.raises(TakesLong, match="Training the classifier"):
        prepare(data, tmp_path, patient=False)
    assert not list(tmp_path.iterdir())
    (never,) = nothing_measured(data).plan
    made = prepare(data, tmp_path)
    assert never.signature not in {planned.signature for planned in made.plan}
    again = prepare(data, tmp_path, patient=False)
    assert [p.signature for p in again.plan] == [p.signature for p in made.plan]


def test_extractor_of_a_plugin_with_other_parameters_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRACTORS, "mine", lambda path: None)
    with pytest.raises(UserError, match=r"Extractor 'mine', made with \(weights, download="):
        Makers(tmp_path).make("mine", find_dataset("digits"))
