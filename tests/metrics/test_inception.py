import hashlib
import re

import numpy as np
import pytest
import torch
from cleanfid.resize import build_resizer
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from metrics.catalogue import SUMMARIES
from metrics.extractors import InceptionSpatialExtractor, Vgg16Extractor, inception
from metrics.extractors.inception import InceptionExtractor, clean_resize

from .helpers import uint8_images
from .weights import random_inception


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return random_inception(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def extractors(weights):
    return {resize: InceptionExtractor(weights, resize=resize) for resize in ("tf1", "clean")}


@pytest.fixture(scope="module")
def theirs(weights):
    return FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
    )


@pytest.fixture(scope="module")
def images():
    smooth = torch.nn.functional.interpolate(
        uint8_images(3, (3, 6, 6)).float(), size=(32, 32), mode="bicubic"
    )
    return smooth.clamp(0, 255).byte()


def test_equal_to_torch_fidelity(extractors, theirs, images):
    ours = extractors["tf1"](images)
    features, logits = theirs(images)
    assert features.abs().mean() > 1e-3
    assert torch.equal(ours.features, features)
    assert torch.equal(ours.logits, logits)
    assert ours.features.shape == (3, 2048)
    assert ours.logits.shape == (3, 1008)


def test_clean_resize_is_antialiased_bicubic_and_not_rounded(images):
    large = uint8_images(1, (3, 320, 400), seed=1)
    for batch in (images, large):
        resized = clean_resize(batch)
        expected = torch.nn.functional.interpolate(
            batch.double(), size=(299, 299), mode="bicubic", align_corners=False, antialias=True
        ).clamp(0, 255)
        # Two roundings to float32 just below 256.
        torch.testing.assert_close(resized, expected.float(), rtol=0, atol=3.1e-5)
        assert (resized != resized.round()).float().mean() > 0.5


def test_clean_features_equal_clean_fid(extractors, theirs, images):
    resized = np.stack(
        [build_resizer("clean")(image.permute(1, 2, 0).numpy()) for image in images[:2]]
    )
    x = (torch.from_numpy(resized).permute(0, 3, 1, 2) - 128) / 128
    names = list(dict(theirs.named_children()))
    for name in names[: names.index("fc")]:
        x = getattr(theirs, name)(x)
    expected = x.flatten(1)
    ours = extractors["clean"](images[:2]).features
    # A difference of 2e-5 grey levels at the input is 1e-7 of its range, float32's own rounding.
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(extractors["tf1"](images[:2]).features, ours, rtol=1e-2)


def test_grey_images_are_repeated(extractors, images):
    grey = images[:1, :1]
    for extractor in extractors.values():
        colour = extractor(grey.repeat(1, 3, 1, 1)).features
        assert torch.equal(extractor(grey).features, colour)


def test_names_and_hashes(extractors, weights):
    tf1, clean = extractors["tf1"], extractors["clean"]
    assert (tf1.name, clean.name) == ("inception", "inception-clean")
    assert tf1.hash != clean.hash
    assert re.fullmatch("[0-9a-f]{64}", tf1.hash)
    content = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert tf1.hash.startswith(
        hashlib.sha256(
            f"{content} tf1 torch-fidelity {inception.version('torch-fidelity')}".encode()
        ).hexdigest()
    )
    assert (tf1.dim, tf1.has_logits, tf1.label_logits) == (2048, True, False)


def test_refuses_other_inputs(extractors, images, weights):
    for bad in (images.float(), images[0], images[:, :2]):
        with pytest.raises(ValueError, match="takes uint8 images"):
            extractors["tf1"](bad)
    with pytest.raises(ValueError, match="'tf1' or 'clean', got 'bilinear'"):
        InceptionExtractor(weights, resize="bilinear")


class Attack:
    def __reduce__(self):
        return (print, ("unpickled code ran",))


@pytest.mark.parametrize(
    "content", ["nothing", "text", "code", "other tensors", "no dict", "not finite"]
)
def test_other_files_are_refused(tmp_path, content, capsys):
    path = tmp_path / "mine.pth"
    if content == "nothing":
        path.touch()
    elif content == "text":
        path.write_text("<html>not found</html>")
    else:
        values = {
            "code": Attack(),
            "other tensors": {"a": torch.ones(1)},
            "no dict": [1, 2],
            "not finite": {"a": torch.tensor([1.0, torch.nan])},
        }
        torch.save(values[content], path)
    for network in (InceptionExtractor, Vgg16Extractor):
        with pytest.raises(ValueError, match=r"mine\.pth does not hold the weights"):
            network(path)
    assert "ran" not in capsys.readouterr().out


def test_features_do_not_depend_on_the_batch(extractors, images, monkeypatch):
    together = extractors["tf1"](images)
    monkeypatch.setattr(InceptionExtractor, "cpu_chunk", 2)
    parts = extractors["tf1"](images)
    # Sums of thousands of products in another order, over 48 layers.
    scale = float(together.features.abs().max())
    torch.testing.assert_close(parts.features, together.features, rtol=1e-4, atol=1e-5 * scale)
    assert parts.logits.shape == (3, 1008)


def test_spatial_features_equal_those_of_the_branch(weights, theirs, images):
    spatial = InceptionSpatialExtractor(weights)
    seen = []
    hook = theirs.Mixed_6d.branch1x1.register_forward_hook(lambda *found: seen.append(found[2]))
    theirs(images)
    hook.remove()
    features, logits = spatial(images)
    assert seen[0].shape == (3, 192, 17, 17)
    assert torch.equal(features, seen[0][:, :7].reshape(3, 2023))
    assert features.std() > 1e-3
    assert logits is None
    assert (spatial.name, spatial.dim) == ("inception-spatial", 2023)
    assert SUMMARIES["inception-spatial"].dim == 2023
    assert spatial.hash != InceptionExtractor(weights).hash
    with pytest.raises(ValueError, match="takes uint8 images"):
        spatial(images.float())
