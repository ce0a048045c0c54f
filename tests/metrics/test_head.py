import pytest
import torch

from bench.evaluation.cache import ResultFiles
from metrics.extractors import head as module
from metrics.extractors.efficientnet import EfficientNetExtractor
from metrics.extractors.head import train_head

from .helpers import uint8_images


@pytest.fixture(scope="module")
def network():
    return EfficientNetExtractor(size=32)


def stripes(n, seed):
    """Images of three classes in noise: stripes down, stripes across, none."""
    labels = torch.arange(n) % 3
    wave = 90 * torch.sin(torch.arange(32) * 1.5)
    down, across = wave.expand(3, 32, 32), wave[:, None].expand(3, 32, 32)
    clean = torch.stack([down, across, torch.zeros(3, 32, 32)])[labels]
    noise = uint8_images(n, (3, 32, 32), seed).float()
    return (0.5 * noise + 64 + clean).clamp(0, 255).byte(), labels


@pytest.fixture(scope="module")
def trained(network, tmp_path_factory):
    cache = tmp_path_factory.mktemp("head")
    said = []
    before = torch.get_rng_state()
    extractor = train_head(
        *stripes(300, 0), network=network, store=ResultFiles(cache), tell=said.append
    )
    assert torch.equal(torch.get_rng_state(), before)
    return extractor, cache, said


def test_recognises_images_it_has_not_seen(trained):
    images, labels = stripes(150, 1)
    features, logits = trained[0](images)
    assert features.shape == (150, 128)
    assert logits.shape == (150, 3)
    assert features.dtype == logits.dtype == torch.float32
    assert features.min() >= 0
    assert (logits.argmax(1) == labels).float().mean() > 0.95
    assert (trained[0].name, trained[0].label_logits) == ("classifier", True)


def test_slow_training_is_reported_and_loading_is_not(trained, network):
    extractor, cache, said = trained
    assert "300 training images" in said[0]
    assert "300 of 300" in said[-1]
    again = []
    loaded = train_head(
        *stripes(300, 0), network=network, store=ResultFiles(cache), tell=again.append
    )
    assert again == []
    assert loaded.hash == extractor.hash
    images = stripes(20, 2)[0]
    assert torch.equal(loaded(images).features, extractor(images).features)
    assert len(list(cache.iterdir())) == 1


def test_hash_covers_weights_network_and_seed(network, tmp_path):
    def hashed(**changes):
        return train_head(*stripes(60, 0), **{"network": network, **changes}).hash

    first = hashed()
    torch.manual_seed(123)
    with torch.no_grad():
        assert hashed() == first
    other = {hashed(seed=1), hashed(network=EfficientNetExtractor(size=64))}
    assert len(other | {first}) == 3


def test_damaged_cache_is_trained_again(network, tmp_path):
    expected = train_head(*stripes(60, 0), network=network, store=ResultFiles(tmp_path)).hash
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-10] + bytes([whole[-10] ^ 1]) + whole[-9:])
    said = []
    again = train_head(
        *stripes(60, 0), network=network, store=ResultFiles(tmp_path), tell=said.append
    )
    assert said
    assert again.hash == expected
    assert path.read_bytes() == whole


def test_large_training_sets_are_subsampled(network, monkeypatch):
    monkeypatch.setattr(module, "IMAGES", 40)
    images, labels = stripes(90, 0)
    labels[-1] = 3
    said = []
    extractor = train_head(images, labels, network=network, tell=said.append)
    assert "40 training images" in said[0]
    # A class whose images are not drawn still has a logit.
    assert extractor(images[:2]).logits.shape == (2, 4)
    assert train_head(images, labels, network=network).hash == extractor.hash


def test_does_not_depend_on_the_batch(trained):
    images = stripes(70, 3)[0]
    whole = trained[0](images)
    parts = [trained[0](part) for part in images.split([1, 9, 60])]
    for one, two in zip(whole, (torch.cat(x) for x in zip(*parts, strict=True)), strict=True):
        # Standardised features may be divided by 0.01: 100 times the network's own 1e-5.
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_refusals(trained, network):
    for bad in (uint8_images(2, (3, 8, 8)), torch.zeros(2, 3, 32, 32)):
        with pytest.raises(ValueError, match=r"takes uint8 images \(B, 3, 32, 32\)"):
            trained[0](bad)
    with pytest.raises(ValueError, match="uint8 images"):
        train_head(torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.long), network=network)
    with pytest.raises(ValueError, match="label"):
        train_head(uint8_images(2, (3, 32, 32)), torch.tensor([0, -1]), network=network)
