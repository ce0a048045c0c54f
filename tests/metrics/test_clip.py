import re
import warnings

import pytest
import safetensors.torch
import torch
from torch import nn
from torch_fidelity.feature_extractor_clip import VisionTransformer

from metrics.cmmd import ClipMmd
from metrics.extractors import ClipExtractor, clip
from metrics.extractors.clip import preprocess, read_clip
from metrics.extractors.tensors import Weights
from metrics.extractors.torchscript import read_torchscript

from .helpers import uint8_images

SIZE = (128, 2, 96)


@pytest.fixture(autouse=True)
def _small_is_published(monkeypatch):
    monkeypatch.setattr(clip, "SIZE", SIZE)


class Model(nn.Module):
    """A small image tower of torch-fidelity's CLIP with parts of a text tower."""

    def __init__(self):
        super().__init__()
        width, blocks, projection = SIZE
        self.visual = VisionTransformer(336, 14, width, blocks, width // 64, projection)
        self.text_projection = nn.Parameter(torch.randn(4, 4))
        self.ln_final = nn.LayerNorm(4)
        self.register_buffer("input_resolution", torch.tensor(336))

    def forward(self, x):
        return self.visual(x)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Model().eval().requires_grad_(False)
        for parameter in model.parameters():
            # As stored: float16. Spread out, so that every weight matters.
            parameter += 0.05 * torch.randn_like(parameter)
            parameter.copy_(parameter.half().float())
    return model


@pytest.fixture
def state(model):
    return {name: tensor.half().clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def weights(state, tmp_path):
    path = tmp_path / "mine.safetensors"
    safetensors.torch.save_file(state, path)
    return path


@pytest.fixture(scope="module")
def archive(model, tmp_path_factory):
    """The traced model, the published format of OpenAI."""
    path = tmp_path_factory.mktemp("clip") / "traced.pt"
    with warnings.catch_warnings():
        # Tracing is deprecated; files of traced models are not.
        warnings.simplefilter("ignore")
        torch.jit.trace(model, torch.zeros(1, 3, 336, 336)).half().save(str(path))
    return path


def test_equals_the_network_of_torch_fidelity(model, state, tmp_path):
    net = read_clip(Weights(state, tmp_path))
    x = torch.randn(2, 3, 336, 336, generator=torch.Generator().manual_seed(1))
    expected = model(x)
    assert float((expected[0] - expected[1]).abs().max()) > 0.1
    # float32 sums in another order, relative to numbers of about 3.
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)
    assert (net.width, net.side) == (128, 336)


def test_embeddings_have_unit_length_and_use_the_documented_preprocessing(weights, model):
    extractor = ClipExtractor(weights)
    images = uint8_images(3, (3, 32, 32))
    found = extractor(images)
    assert found.features.shape == (3, 96)
    assert found.logits is None
    torch.testing.assert_close(found.features.norm(dim=1), torch.ones(3))
    resized = torch.nn.functional.interpolate(
        images.float(), size=(336, 336), mode="bicubic", antialias=True
    )
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    x = (resized / 255 - mean) / std
    torch.testing.assert_close(preprocess(images.float()), x)
    expected = model(x)
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found.features, expected, rtol=0, atol=1e-5)
    # The third image is a chunk of its own.
    assert ClipExtractor.cpu_chunk < 3
    torch.testing.assert_close(
        extractor(images[1:]).features, found.features[1:], rtol=0, atol=1e-5
    )
    with pytest.raises(ValueError, match="extractor clip takes uint8 images"):
        extractor(images.float())


def test_published_archive_is_read_without_its_code(archive, weights, model, monkeypatch):
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch._C, "import_ir_module", None)
    read = read_torchscript(archive, "visual.")
    expected = {n: t.half() for n, t in model.state_dict().items() if n.startswith("visual.")}
    assert read.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(read[name], tensor), name
    extractor = ClipExtractor(archive)
    assert extractor.hash == ClipExtractor(weights).hash
    assert re.fullmatch("[0-9a-f]{64}", extractor.hash)


def test_hash_changes_with_weights_and_resize(weights, state, tmp_path, monkeypatch):
    extractor = ClipExtractor(weights)
    state["visual.proj"][0, 0] += 0.25
    safetensors.torch.save_file(state, tmp_path / "changed.safetensors")
    assert ClipExtractor(tmp_path / "changed.safetensors").hash != extractor.hash
    monkeypatch.setattr(clip, "PREPROCESSING", "bilinear")
    assert ClipExtractor(weights).hash != extractor.hash


def test_cmmd_accepts_the_extractor(weights):
    extractor = ClipExtractor(weights)
    assert (extractor.name, extractor.dim) == ("clip", 96)
    assert ClipMmd().supports(domain="image", extractor=extractor, exact=None) is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda s: s.pop("visual.ln_post.bias"), "it has no tensor visual.ln_post.bias"),
        (lambda s: s.pop("visual.conv1.weight"), "it has no tensor visual.conv1.weight"),
        (lambda s: s.update({"visual.extra": torch.ones(1)}), "it also holds visual.extra"),
        (lambda s: s["visual.proj"].fill_(torch.nan), "proj has values that are not finite"),
        (
            lambda s: s.update({"visual.proj": s["visual.proj"][:, :64].clone()}),
            r"ViT-L/14 at 336 pixels .*it is \(128, 2, 64\)",
        ),
        (
            lambda s: s.update(
                {"visual.positional_embedding": s["visual.positional_embedding"][:257].clone()}
            ),
            "at 224 pixels",
        ),
        (
            lambda s: s.update(
                {"visual.positional_embedding": s["visual.positional_embedding"][:-1].clone()}
            ),
            "576 positions",
        ),
    ],
)
def test_weights_of_another_network_are_refused(state, tmp_path, change, why):
    change(state)
    path = tmp_path / "mine.pt"
    torch.save(state, path)
    with pytest.raises(ValueError, match=rf"mine\.pt does not hold the weights of .*{why}"):
        ClipExtractor(path)
