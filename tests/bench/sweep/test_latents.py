"""Runs whose samples are latents: decoded, measured and shown as images of their data set."""

import numpy as np
import pytest
import torch

from bench.data.card import DATA_FOLDER_VARIABLE
from bench.experiment.rows import read_rows
from methods.dit import DiT, DiTConfig, DiTNet
from methods.spec import DataSpec
from tests.bench.data.makers import image_tree, write_folder
from tests.bench.data.vae import tiny_vae
from tests.bench.helpers import bench, randomised, sets

SPEC = DataSpec("photos", (4, 8, 8), 3)
NET = DiTNet(patch=2, width=32, depth=2, heads=4)
QUICK = ("-n", "4", "--steps", "2", "--metric", "saturation", "--extractor", "identity")


@pytest.fixture(autouse=True)
def _folders(tmp_path, monkeypatch):
    """A DiT of latents, two decoders and a data set of images of three classes."""
    monkeypatch.setenv(DATA_FOLDER_VARIABLE, str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    torch.save(randomised(DiT(DiTConfig(net=NET), SPEC)).state_dict(), tmp_path / "dit.pt")
    for seed, name in enumerate(("vae", "other")):
        tiny_vae(tmp_path / name, seed)
    write_folder(tmp_path / "photos", image_tree(8, shape=(3, 16, 16)))
    ran = bench("data", "prepare", "photos")
    assert ran.code == 0, ran.err


def imported(*more, name="dit", decoder="vae", dataset="photos"):
    named = () if decoder is None else ("--decoder", decoder)
    return bench(
        "import", "dit.pt", "--as", name, "-m", "dit", "-d", dataset, *sets("net.heads=4"), *named,
        *more,
    )  # fmt: skip


def swept(tmp_path, *more):
    ran = bench("sweep", "-g", "1,3", *QUICK, *more)
    assert ran.code == 0, ran.err
    found = read_rows(tmp_path / "results/default/cells")
    return {(r.run, r.guidance): r for r in found if r.method != "real"}


def sampled(tmp_path, *more):
    ran = bench("sample", "-n", 5, "--steps", 2, "-g", 3, "-o", tmp_path / "x.npz", *more)
    assert ran.code == 0, ran.err
    return np.load(tmp_path / "x.npz")["arr_0"]


def test_latents_are_swept_with_the_decoder_of_their_run(tmp_path):
    ran = imported()
    assert ran.code == 0, ran.err
    assert "decoder: sd-vae, images (3, 16, 16)" in ran.out
    assert imported(name="again", decoder="other").code == 0
    rows = swept(tmp_path)
    assert {row.status for row in rows.values()} == {"ok"}
    assert rows["dit", 3].nfe == 6  # the decoder's calls are no evaluations
    for row in rows.values():
        assert row.decoder_seconds_per_image > 0
    assert len({row.decoder for row in rows.values()}) == 2
    assert len({row.key for row in rows.values()}) == 4


def test_images_are_the_decoded_latents(tmp_path):
    assert imported().code == 0
    assert imported(*sets("decoder=identity"), name="raw", decoder=None).code == 2  # 4 channels
    images = sampled(tmp_path, "--run", "dit")
    assert (images.shape, images.dtype) == ((5, 16, 16, 3), np.uint8)
