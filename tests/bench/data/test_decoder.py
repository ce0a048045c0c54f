"""Decoders: against diffusers' own calls, by their files, and of folders that are no decoders."""

import json

import numpy as np
import pytest
import torch

from bench.data.convert import from_model
from bench.data.decoder import CONFIG, WEIGHTS, DecoderSource, decoder_source
from bench.system.errors import UserError
from tests.bench.data.vae import tiny_vae

CPU = torch.device("cpu")
MEAN = torch.tensor([5.81, 3.25, 0.12, -2.15]).reshape(4, 1, 1)
STD = torch.tensor([4.17, 4.62, 3.71, 3.28]).reshape(4, 1, 1)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def latents(n=3, seed=0):
    return torch.randn(n, 4, 5, 5, generator=torch.Generator().manual_seed(seed))


def test_sd_vae_divides_by_its_factor_as_dit_does(tmp_path):
    vae, z = tiny_vae(tmp_path), latents()
    decode = DecoderSource("sd-vae", tmp_path).load(CPU)
    expected = vae.decode(z / 0.18215).sample.clamp(-1, 1)
    torch.testing.assert_close(decode(z), expected, rtol=0, atol=1e-6)
    assert expected.std() > 0.01


def test_edm2_vae_is_whitened_and_cut_to_levels_as_published(tmp_path):
    vae, z = tiny_vae(tmp_path), latents()
    found = from_model(DecoderSource("edm2-vae", tmp_path).load(CPU)(z))
    image = vae.decode(z * STD / 0.5 + MEAN).sample  # of latents with standard deviation 0.5
    expected = (image.clamp(0, 1) * 255).to(torch.uint8)
    different = (found.int() - expected.int()).abs()
    assert different.max() <= 1
    assert (different > 0).float().mean() < 1e-3  # rounding of float32 at the edge of a level
    assert len(expected.unique()) > 10


def test_folder_decides_the_scaling_of_vae(tmp_path):
    vae = tiny_vae(tmp_path, scaling_factor=0.5, shift_factor=0.25)
    z = latents()
    found = DecoderSource("vae", tmp_path).load(CPU)(z)
    torch.testing.assert_close(found, vae.decode(z / 0.5 + 0.25).sample.clamp(-1, 1))
    mean, std = [0.1, -0.2, 0.3, 0.0], [1.0, 2.0, 0.5, 1.5]
    vae = tiny_vae(tmp_path, scaling_factor=0.5, latents_mean=mean, latents_std=std)
    raw = z * torch.tensor(std).reshape(4, 1, 1) / 0.5 + torch.tensor(mean).reshape(4, 1, 1)
    found = DecoderSource("vae", tmp_path).load(CPU)(z)
    torch.testing.assert_close(found, vae.decode(raw).sample.clamp(-1, 1), rtol=1e-5, atol=1e-5)


def test_images_do_not_depend_on_the_batch(tmp_path):
    tiny_vae(tmp_path)
    decode, z = DecoderSource("sd-vae", tmp_path).load(CPU), latents(11)
    torch.testing.assert_close(decode(z)[9:10], decode(z[9:10]), rtol=1e-5, atol=1e-6)


def test_shape_of_images_follows_from_the_settings(tmp_path):
    tiny_vae(tmp_path)
    source = DecoderSource("sd-vae", tmp_path)
    assert source.image_shape((4, 5, 5)) == tuple(source.load(CPU)(latents()).shape[1:])
    with pytest.raises(UserError, match="takes latents of 4 channels, and these have 3"):
        source.image_shape((3, 5, 5))
    identity = decoder_source("identity", None)
    assert identity.image_shape((1, 8, 8)) == (1, 8, 8)
    assert torch.equal(identity.load(CPU)(latents()), latents())


def test_hash_follows_the_content_of_the_files_and_the_name(tmp_path):
    for seed, name in enumerate(("a", "b")):
        tiny_vae(tmp_path / name, seed)
    first = DecoderSource("sd-vae", tmp_path / "a")
    first.copy(tmp_path / "copy")
    assert DecoderSource("sd-vae", tmp_path / "copy/decoder").hash == first.hash
    others = [DecoderSource("sd-vae", tmp_path / "b"), DecoderSource("vae", tmp_path / "a")]
    assert len({first.hash, *(other.hash for other in others)}) == 3


def test_folders_that_are_no_decoder_are_refused(tmp_path):
    tiny_vae(tmp_path)
    source = DecoderSource("sd-vae", tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    for wrong in ({"_class_name": "UNet2DModel"}, {"block_out_channels": [1 << 40]}):
        (tmp_path / CONFIG).write_text(json.dumps(config | wrong))
        with pytest.raises(UserError, match="not the settings of an AutoencoderKL"):
            source.load(CPU)
    (tmp_path / CONFIG).write_text(json.dumps(config | {"block_out_channels": [8, 32]}))
    with pytest.raises(UserError, match="Cannot load the decoder"):
        source.load(CPU)
    (tmp_path / CONFIG).write_text(json.dumps(config))
    (tmp_path / WEIGHTS).write_bytes(b"no tensors")
    with pytest.raises(UserError, match="Cannot load the decoder"):
        source.load(CPU)
    # A pickle in the place of the weights is not opened.
    (tmp_path / WEIGHTS).rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match=f"has no {WEIGHTS}"):
        source.copy(tmp_path / "copy")
    with pytest.raises(UserError, match=r"Unknown decoder 'sdvae'.*Did you mean 'sd-vae'"):
        decoder_source("sdvae", tmp_path)


def test_infinite_latents_give_no_finite_images(tmp_path):
    tiny_vae(tmp_path)
    z = latents()
    z[1, 0, 0, 0] = np.nan
    for name in ("sd-vae", "edm2-vae"):
        images = DecoderSource(name, tmp_path).load(CPU)(z)
        assert not images[1].isfinite().all()
        assert images[0].isfinite().all()
