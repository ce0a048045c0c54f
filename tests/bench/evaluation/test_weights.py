"""Where weights are found, and when they are fetched."""

import hashlib

import pytest
import torch
from torch_fidelity.feature_extractor_clip import MODEL_URLS
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from bench.data.find import find_dataset
from bench.evaluation.makers import Makers
from bench.evaluation.weights import (
    WEIGHTS_FOLDER_VARIABLE,
    WeightsPath,
    find_files,
    find_weights,
    verified,
)
from bench.system.errors import UserError
from metrics import EXTRACTORS
from metrics.catalogue import CLIP, DINOV2, FILES, INCEPTION, SUMMARIES, VGG16, WEIGHTS
from metrics.extractors.dinov2 import SIZES
from tests.metrics.weights import random_inception


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    monkeypatch.delenv(WEIGHTS_FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_weights_table_agrees_with_the_libraries():
    assert INCEPTION.url == URL_INCEPTION_V3
    assert MODEL_URLS["clip-vit-l-14-336px"] == CLIP.url
    assert WEIGHTS.keys() <= EXTRACTORS.keys()
    assert SUMMARIES.keys() <= EXTRACTORS.keys()
    assert {name: SUMMARIES[name].dim for name in SIZES} == {n: w for n, (w, _) in SIZES.items()}
    for wanted in FILES:
        assert wanted.url.rpartition("/")[2] == wanted.file
        # torch's own convention: the hash's beginning ends the name.
        if 0 < len(wanted.sha256) < 64:
            assert wanted.file.endswith(f"-{wanted.sha256}.pth")


@pytest.mark.parametrize("name", WEIGHTS)
def test_missing_weights_are_named_in_one_sentence(no_weights, name):
    with pytest.raises(UserError) as caught:
        find_weights(WEIGHTS[name])
    message = str(caught.value)
    folder = no_weights / "cache" / "guidance-bench" / "weights"
    assert "\n" not in message
    assert ". " not in message
    wanted = WEIGHTS[name]
    hashed = wanted.sha256 or "SHA-256 not published"
    for part in (wanted.file, hashed, str(folder), "--download"):
        assert part in message
    with pytest.raises(UserError, match="elsewhere"):
        find_weights(wanted, no_weights / "elsewhere")
    with pytest.raises(UserError, match=r"mine\.pth"):
        find_weights(wanted, no_weights / "mine.pth")


def test_search_order_of_weights(no_weights, monkeypatch):
    hub = no_weights / "torch" / "hub" / "checkpoints" / INCEPTION.file
    hub.parent.mkdir(parents=True)
    hub.touch()
    assert find_weights(INCEPTION) == WeightsPath(hub, published=True)
    own = no_weights / "own" / INCEPTION.file
    own.parent.mkdir()
    own.touch()
    assert find_weights(INCEPTION, own) == WeightsPath(own, published=False)
    assert find_weights(INCEPTION, own.parent) == WeightsPath(own, published=True)
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(own.parent))
    assert find_weights(INCEPTION) == WeightsPath(own, published=True)
    assert [found.path for found in find_files(INCEPTION)] == [own, hub]


def test_another_format_is_found_after_the_published_one(no_weights):
    other = no_weights / "ViT-L-14-336px.safetensors"
    other.touch()
    assert find_weights(CLIP, no_weights) == WeightsPath(other, published=False)
    (no_weights / CLIP.file).touch()
    assert find_weights(CLIP, no_weights).path.name == CLIP.file


def test_weights_are_downloaded_only_on_request(no_weights, monkeypatch):
    asked = []

    def fetch(url, target, hash_prefix, progress):
        asked.append((url, target, hash_prefix))

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for wanted in (VGG16, DINOV2["dinov2"]):
        with pytest.raises(UserError):
            find_weights(wanted)
    assert asked == []
    folder = no_weights / "cache" / "guidance-bench" / "weights"
    for wanted, prefix in ((VGG16, "397923af"), (CLIP, CLIP.sha256), (DINOV2["dinov2"], None)):
        asked.clear()
        path = find_weights(wanted, download=True).path
        assert path == folder / wanted.file
        assert asked == [(wanted.url, str(path), prefix)]


def test_published_name_with_another_hash_is_refused(tmp_path):
    path = tmp_path / CLIP.file
    path.write_bytes(b"damaged")
    sha256 = hashlib.sha256(b"damaged").hexdigest()
    with pytest.raises(ValueError, match=f"SHA-256 begins {sha256[:8]}, that of .* 3035c92b"):
        verified(WeightsPath(path, published=True), CLIP)
    assert verified(WeightsPath(path, published=False), CLIP) == path
    assert verified(WeightsPath(path, published=True), DINOV2["dinov2"]) == path


def test_found_file_must_have_the_published_content(tmp_path):
    path = random_inception(tmp_path)
    begins = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    refused = pytest.raises(UserError, match=f"its SHA-256 begins {begins}, that of .* 6726825d")
    with refused:
        Makers(tmp_path, tmp_path).make("inception", find_dataset("digits"))
