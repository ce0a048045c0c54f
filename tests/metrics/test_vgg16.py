import re

import pytest
import torch
import torchvision
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

from metrics import EXTRACTORS
from metrics.extractors import Vgg16Extractor, vgg16

from .helpers import uint8_images


def hankel(shape, generator):
    """Random weights of a large shape in a small file: entry (i, j, ...) is number i + j + ..."""
    fan_in = max(1, torch.Size(shape[1:]).numel())
    numbers = torch.randn(sum(shape) - len(shape) + 1, generator=generator)
    return (numbers * (2 / fan_in) ** 0.5).as_strided(shape, (1,) * len(shape))


def state():
    """A state dict with the names and shapes of the published one."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {
            name: tuple(t.shape) for name, t in torchvision.models.vgg16().state_dict().items()
        }
    return {name: hankel(shape, generator) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(state(), path)
    return path


@pytest.fixture(scope="module")
def extractor(weights):
    return Vgg16Extractor(weights)


@pytest.fixture(scope="module")
def images():
    return uint8_images(3, (3, 32, 32))


def test_equal_to_torch_fidelity(extractor, weights, images):
    theirs = FeatureExtractorVGG16(
        "vgg16", ["fc2_relu"], feature_extractor_weights_path=str(weights)
    )
    ours = extractor(images)
    assert torch.equal(ours.features, theirs(images)[0])
    assert ours.features.shape == (3, 4096)
    assert ours.logits is None
    assert (ours.features >= 0).all()
    # Different images have different features: the weights are not degenerate.
    assert not torch.allclose(ours.features[0], ours.features[1], rtol=1e-2)


def test_features_do_not_depend_on_the_batch(extractor, images, monkeypatch):
    together = extractor(images).features
    monkeypatch.setattr(Vgg16Extractor, "cpu_chunk", 2)
    parts = extractor(images).features
    scale = float(together.max())
    # Sums of up to 25,088 products in another order.
    torch.testing.assert_close(parts, together, rtol=1e-4, atol=1e-5 * scale)


def test_grey_images_are_repeated_and_other_inputs_refused(extractor, images):
    grey = images[:1, :1]
    assert torch.equal(extractor(grey).features, extractor(grey.repeat(1, 3, 1, 1)).features)
    for bad in (images.float(), images[0], images[:, :2]):
        with pytest.raises(ValueError, match="extractor vgg16 takes uint8 images"):
            extractor(bad)


def test_name_and_hash_change_with_weights_and_resize(extractor, weights, tmp_path, monkeypatch):
    assert (extractor.name, extractor.dim, extractor.has_logits) == ("vgg16", 4096, False)
    assert EXTRACTORS["vgg16"] is Vgg16Extractor
    assert re.fullmatch("[0-9a-f]{64}", extractor.hash)
    state_before = torch.random.get_rng_state()
    with monkeypatch.context() as patch:
        patch.setattr(vgg16, "PREPROCESSING", vgg16.PREPROCESSING.replace("tf1", "tf2"))
        assert Vgg16Extractor(weights).hash != extractor.hash
    assert torch.equal(torch.random.get_rng_state(), state_before)
    changed = state()
    changed["features.0.bias"] = changed["features.0.bias"] + 1e-3
    torch.save(changed, tmp_path / "changed.pth")
    assert Vgg16Extractor(tmp_path / "changed.pth").hash != extractor.hash
