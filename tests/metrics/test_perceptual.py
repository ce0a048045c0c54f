import numpy as np
import pytest
import torch
from torch import nn

import metrics.perceptual as perceptual
from metrics.catalogue import ALEXNET
from metrics.perceptual import LPIPS, check_size, read_lpips

CHANNELS = (64, 192, 384, 256, 256)


def alexnet():
    """AlexNet's convolutions under torchvision's names, with seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.ModuleDict(
            {
                "0": nn.Conv2d(3, 64, 11, 4, 2),
                "3": nn.Conv2d(64, 192, 5, padding=2),
                "6": nn.Conv2d(192, 384, 3, padding=1),
                "8": nn.Conv2d(384, 256, 3, padding=1),
                "10": nn.Conv2d(256, 256, 3, padding=1),
            }
        )
        heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(CHANNELS)}
    return layers.requires_grad_(False), heads


def state(layers):
    return {f"features.{name}": value for name, value in layers.state_dict().items()}


def images(n=3, channels=3, size=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


def test_lpips_equals_the_definition_pixel_by_pixel():
    layers, heads = alexnet()
    a, b = images(seed=1), images(seed=2)

    def activations(x):
        x = x.float() / 127.5 - 1
        x = (x - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) / torch.tensor(
            [0.458, 0.448, 0.450]
        ).view(3, 1, 1)
        pool, found = nn.MaxPool2d(3, 2), []
        for name in ("0", "3", "6", "8", "10"):
            x = torch.relu(layers[name](pool(x) if name in ("3", "6") else x))
            found.append(x.double().numpy())
        return found

    expected = np.zeros(3)
    for i, (f, g) in enumerate(zip(activations(a), activations(b), strict=True)):
        weights = heads[f"lin{i}.model.1.weight"].double().numpy().ravel()
        for k in range(3):
            places = [(y, x) for y in range(f.shape[2]) for x in range(f.shape[3])]
            for y, x in places:
                u, v = f[k, :, y, x], g[k, :, y, x]
                gap = u / np.linalg.norm(u) - v / np.linalg.norm(v)
                expected[k] += weights @ gap**2 / len(places)
    np.testing.assert_allclose(LPIPS(state(layers), heads)(a, b), expected, rtol=1e-4)


def test_equal_images_have_distance_zero_and_grey_equals_colour():
    layers, heads = alexnet()
    net = LPIPS(state(layers), heads)
    grey = images(channels=1)
    assert torch.equal(net(grey, grey), torch.zeros(3))
    other = images(channels=1, seed=5)
    colour = net(grey.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1))
    assert torch.equal(net(grey, other), colour)
    assert (colour > 0).all()


def test_hash_covers_network_and_heads():
    layers, heads = alexnet()
    one = LPIPS(state(layers), heads).hash
    changed = {**heads, "lin2.model.1.weight": heads["lin2.model.1.weight"] + 1e-3}
    assert LPIPS(state(layers), heads).hash == one
    assert LPIPS(state(layers), changed).hash != one


def test_small_images_are_refused():
    check_size((32, 31))
    with pytest.raises(ValueError, match="images of 8x8 are smaller than the 31x31"):
        check_size((8, 8))


class Package:
    """The `find_spec` of an installed package."""

    def __init__(self, folder):
        self.submodule_search_locations = [str(folder)]


def test_existing_weights_are_used_and_checked(tmp_path, monkeypatch):
    layers, heads = alexnet()
    file = tmp_path / ALEXNET.file
    torch.save(state(layers), file)
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="the package lpips"):
        read_lpips(file)
    path = tmp_path / "lpips" / perceptual.HEADS
    path.parent.mkdir(parents=True)
    torch.save(heads, path)
    monkeypatch.setattr(perceptual, "find_spec", lambda name: Package(tmp_path / "lpips"))
    assert read_lpips(file).hash == LPIPS(state(layers), heads).hash
    torch.save({}, path)
    with pytest.raises(ValueError, match="does not hold the weights of LPIPS"):
        read_lpips(file)
