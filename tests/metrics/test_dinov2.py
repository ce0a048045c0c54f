import re

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

from metrics import EXTRACTORS
from metrics.extractors import Dinov2Extractor, dinov2
from metrics.extractors.dinov2 import preprocess, read_dinov2, resized_positions
from metrics.extractors.tensors import Weights

from .helpers import uint8_images
from .vits import BLOCKS, WIDTH, dino_state


@pytest.fixture(autouse=True)
def _small_is_published(monkeypatch):
    monkeypatch.setitem(dinov2.SIZES, "dinov2", (WIDTH, BLOCKS))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "dinov2_vitl14_pretrain.pth"
    torch.save(dino_state(), path)
    return path


def reference(state, x, gated):
    """The network of Oquab et al. from torch's layers, on normalised (B, 3, 224, 224)."""
    width = state["cls_token"].shape[-1]

    def layer(made, name, names=("weight", "bias")):
        made.load_state_dict({n: state[f"{name}.{n}"] for n in names})
        return made.eval()

    x = layer(nn.Conv2d(3, width, 14, stride=14), "patch_embed.proj")(x).flatten(2).mT
    x = torch.cat([state["cls_token"].repeat(len(x), 1, 1), x], 1) + state["pos_embed"]
    for i in range(BLOCKS):
        at = f"blocks.{i}"
        attention = nn.MultiheadAttention(width, width // 64, batch_first=True).eval()
        attention.load_state_dict(
            {
                "in_proj_weight": state[f"{at}.attn.qkv.weight"],
                "in_proj_bias": state[f"{at}.attn.qkv.bias"],
                "out_proj.weight": state[f"{at}.attn.proj.weight"],
                "out_proj.bias": state[f"{at}.attn.proj.bias"],
            }
        )
        y = layer(nn.LayerNorm(width, 1e-6), f"{at}.norm1")(x)
        x = x + state[f"{at}.ls1.gamma"] * attention(y, y, y, need_weights=False)[0]
        y = layer(nn.LayerNorm(width, 1e-6), f"{at}.norm2")(x)
        if gated:
            y = layer(nn.Linear(width, 8 * width), f"{at}.mlp.w12")(y)
            y = nn.functional.silu(y[..., : 4 * width]) * y[..., 4 * width :]
            y = layer(nn.Linear(4 * width, width), f"{at}.mlp.w3")(y)
        else:
            y = nn.GELU()(layer(nn.Linear(width, 4 * width), f"{at}.mlp.fc1")(y))
            y = layer(nn.Linear(4 * width, width), f"{at}.mlp.fc2")(y)
        x = x + state[f"{at}.ls2.gamma"] * y
    return layer(nn.LayerNorm(width, 1e-6), "norm")(x)[:, 0]


@pytest.mark.parametrize("gated", [False, True])
@torch.no_grad()
def test_equals_a_network_of_torch_layers(gated, tmp_path):
    state = dino_state(grid=16, gated=gated)
    net = read_dinov2(Weights(state, tmp_path))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    expected = reference(state, x, gated)
    assert float((expected[0] - expected[1]).abs().max()) > 0.1
    # float32 sums in another order.
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)


def cubic(t, a=-0.75):
    """Keys' kernel."""
    t = np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def test_positions_are_resized_as_published(tmp_path):
    m, grid = 37, 16
    positions = dino_state(grid=m)["pos_embed"][0]
    resized = resized_positions(positions, grid, Weights({}, tmp_path))
    matrix = np.zeros((grid, m))
    for i in range(grid):
        at = (i + 0.5) * m / (grid + 0.1) - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            matrix[i, min(max(j, 0), m - 1)] += cubic(at - j)
    square = positions[1:].double().numpy().reshape(m, m, -1)
    expected = np.einsum("ia,jb,abd->ijd", matrix, matrix, square).reshape(grid * grid, -1)
    assert torch.equal(resized[0], positions[0])
    # torch computes positions and kernel in float32.
    np.testing.assert_allclose(resized[1:].numpy(), expected, rtol=0, atol=2e-5)


def test_images_are_resized_by_antialiased_bicubic_interpolation():
    # PIL also clips between its two passes; these images stay within the range.
    images = uint8_images(1, (3, 300, 260)) // 2 + 64
    x = preprocess(images.float())
    assert x.shape == (1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (x * std[:, None, None] + mean[:, None, None]) * 255
    theirs = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize((224, 224), 3)
    expected = torch.from_numpy(np.array(theirs)).permute(2, 0, 1)
    # PIL rounds to whole grey levels after each of two passes.
    assert float((pixels[0].clamp(0, 255) - expected).abs().max()) < 1.6


def test_features_do_not_depend_on_the_batch(weights):
    extractor = Dinov2Extractor(weights)
    images = uint8_images(10, (3, 32, 32))
    found = extractor(images)
    assert found.features.shape == (10, WIDTH)
    assert found.features.dtype == torch.float32
    assert found.logits is None
    assert torch.equal(extractor(images).features, found.features)
    # float32 sums in another order.
    torch.testing.assert_close(
        extractor(images[9:]).features, found.features[9:], rtol=0, atol=1e-4
    )
    grey = images[:1, :1]
    assert torch.equal(extractor(grey).features, extractor(grey.repeat(1, 3, 1, 1)).features)
    with pytest.raises(ValueError, match="extractor dinov2 takes uint8 images"):
        extractor(images.float())


def test_hash_covers_weights_and_preprocessing_but_not_the_file_format(weights, monkeypatch):
    extractor = Dinov2Extractor(weights)
    assert (extractor.name, extractor.dim, extractor.has_logits) == ("dinov2", WIDTH, False)
    assert re.fullmatch("[0-9a-f]{64}", extractor.hash)
    state = dino_state()
    other = weights.with_name("same.safetensors")
    safetensors.torch.save_file(state, other)
    assert Dinov2Extractor(other).hash == extractor.hash
    state["blocks.1.ls2.gamma"][3] += 1e-6
    changed = weights.with_name("changed.safetensors")
    safetensors.torch.save_file(state, changed)
    assert Dinov2Extractor(changed).hash != extractor.hash
    monkeypatch.setattr(dinov2, "PREPROCESSING", "bilinear")
    assert Dinov2Extractor(weights).hash != extractor.hash


def test_sizes_are_different_extractors(weights):
    with pytest.raises(ValueError, match="weights of dinov2-vit-s-14, which is 384 wide with 12"):
        EXTRACTORS["dinov2-vit-s-14"](weights)
    with pytest.raises(ValueError, match=r"name is one of dinov2, .*, got 'dinov3'"):
        Dinov2Extractor(weights, name="dinov3")


def cut(name):
    def change(state):
        state[name] = state[name][..., :-1].clone()

    return change


def remove(name):
    return lambda state: state.pop(name)


def poison(name, value):
    def change(state):
        state[name].view(-1)[-1] = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (remove("norm.bias"), "it has no tensor norm.bias"),
        (remove("patch_embed.proj.weight"), "it has no tensor patch_embed.proj.weight"),
        (remove("blocks.0.norm1.weight"), "it has no blocks"),
        (remove("blocks.1.norm1.weight"), "it is 128 wide with 1|it also holds blocks.1"),
        (cut("blocks.0.attn.qkv.weight"), r"qkv.weight is torch.float32 \(384, 127\), not float"),
        (cut("patch_embed.proj.weight"), r"proj.weight is torch.float32 \(128, 3, 14, 13\)"),
        (cut("cls_token"), "cls_token is"),
        (
            lambda state: state.update(pos_embed=state["pos_embed"][:, :-1]),
            "1369 positions are not",
        ),
        (lambda state: state.update({"head.weight": torch.ones(2)}), "it also holds head.weight"),
        (poison("blocks.1.mlp.fc2.weight", torch.nan), "fc2.weight has values that are not finite"),
        (poison("pos_embed", torch.inf), "pos_embed has values that are not finite"),
        (
            lambda state: state.update({"norm.bias": torch.ones(WIDTH, dtype=torch.int64)}),
            "norm.bias is torch.int64",
        ),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, change, why):
    state = dino_state()
    change(state)
    path = tmp_path / "mine.pth"
    torch.save(state, path)
    with pytest.raises(ValueError, match=rf"mine\.pth does not hold the weights.*({why})"):
        Dinov2Extractor(path)
