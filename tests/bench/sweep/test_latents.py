"""Runs whose samples are latents: decoded, measured and shown as images of their data set."""

import base64
import io
import json
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.card import DATA_FOLDER_VARIABLE
from bench.data.convert import from_model
from bench.data.decoder import DecoderSource
from bench.data.find import find_dataset
from bench.data.latents import LatentDataset
from bench.experiment.place import Experiment
from bench.experiment.rows import read_rows
from bench.report import build
from bench.sweep.preview import preview
from bench.training.card import read_card
from bench.training.run import load_nets, open_run
from methods import EDM, Guidance, SampleRNG
from methods.dit import DiT, DiTConfig, DiTNet
from methods.latents import LatentSpec
from methods.spec import DataSpec
from tests.bench.data.makers import TREE_CLASSES, image_tree, write_folder, write_zip
from tests.bench.data.vae import tiny_vae
from tests.bench.helpers import FIGURES, TINY_IMAGES, bench, randomised, sets

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
    done("data", "prepare", "photos")


def done(*command):
    """What a command prints; fails if it failed."""
    ran = bench(*command)
    assert ran.code == 0, ran.err
    return ran.out


def importing(*more, name="dit", decoder="vae", dataset="photos"):
    named = () if decoder is None else ("--decoder", decoder)
    return (
        "import", "dit.pt", "--as", name, "-m", "dit", "-d", dataset, *sets("net.heads=4"), *named,
        *more,
    )  # fmt: skip


def rows_of(tmp_path):
    found = read_rows(tmp_path / "results/default/cells")
    return {(r.run, r.guidance): r for r in found if r.method != "real"}


def swept(tmp_path, *more):
    done("sweep", "-g", "1,3", *QUICK, *more)
    return rows_of(tmp_path)


def test_latents_are_swept_with_the_decoder_of_their_run(tmp_path):
    assert "decoder: sd-vae, images (3, 16, 16)" in done(*importing())
    done(*importing(name="again", decoder="other"))
    rows = swept(tmp_path)
    assert {row.status for row in rows.values()} == {"ok"}
    assert rows["dit", 3].nfe == 6  # the decoder's calls are no evaluations
    for row in rows.values():
        assert row.decoder_seconds_per_image > 0
    assert len({row.decoder for row in rows.values()}) == 2
    assert len({row.key for row in rows.values()}) == 4


def test_images_are_the_decoded_latents(tmp_path):
    done(*importing())
    done("sample", "--run", "dit", "-n", 5, "--steps", 2, "-g", 3, "-o", "x.npz")
    place = Experiment(tmp_path / "results", "default")
    run = open_run(read_card(place.runs / "dit"), find_dataset("photos"), place)
    assert run.method.data == LatentSpec("photos", (4, 8, 8), 3)
    labels = torch.eye(3)[torch.arange(5) % 3]
    with torch.inference_mode():
        nets = load_nets(run, torch.device("cpu"))
        z = run.method.sample(nets, labels, Guidance(3), 2, SampleRNG(0, range(5)))
        images = DecoderSource("sd-vae", tmp_path / "vae").load(torch.device("cpu"))(z)
    assert z.abs().max() > 1  # latents are not clipped
    expected = from_model(images).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(np.load("x.npz")["arr_0"], expected)


def test_decoder_may_come_later_and_must_fit(tmp_path):
    assert "import it again with --decoder" in done(*importing(decoder=None))
    rows = swept(tmp_path)
    assert {row.status for row in rows.values()} == {"skip"}
    assert "need the decoder 'sd-vae'" in rows["dit", 1].reason
    ran = bench("sample", "--run", "dit", "-n", 2, "-o", "x.npz")
    assert ran.code == 2
    assert "need the decoder 'sd-vae'" in ran.err
    tiny_vae(tmp_path / "three", latent_channels=3)
    write_folder(tmp_path / "large", image_tree(8, shape=(3, 32, 32)))
    done("data", "prepare", "large")
    for wrong, message in (
        (importing(decoder="three"), "takes latents of 3 channels, and these have 4"),
        (importing(decoder="photos"), "has no config.json"),
        (importing(name="b", dataset="large"), "is for images of shape (4, 8, 8)"),
        (importing(*sets("decoder="), name="c"), "--decoder is for networks of latents"),
        (importing(*sets("decoder=own"), name="d"), "Unknown decoder 'own'"),
    ):
        ran = bench(*wrong)
        assert ran.code != 0
        assert message in ran.err
    done(*importing())
    assert "need the decoder" not in done("sample", "--run", "dit", "-n", 2, "-o", "x.npz")
    assert "has another decoder" in bench(*importing(decoder="other")).err


def test_run_without_its_data_set_is_sampled_as_images(tmp_path):
    done(*importing(dataset="elsewhere"))
    done("sample", "--run", "dit", "-n", 2, "--steps", 2, "-o", "x.npz")
    assert np.load("x.npz")["arr_0"].shape == (2, 16, 16, 3)


def test_large_images_are_shown_as_averaged_thumbnails():
    x = torch.randint(0, 256, (3, 3, 150, 150), dtype=torch.uint8)
    shown = preview(x, torch.arange(3), find_dataset("photos"))
    with Image.open(io.BytesIO(base64.b64decode(shown.png))) as picture:
        strip = np.asarray(picture)
    assert strip.shape == (50, 150, 3)
    tiles = x.double().reshape(3, 3, 50, 3, 50, 3).mean((3, 5)).permute(0, 2, 3, 1).numpy()
    assert np.abs(np.concatenate(tiles, 1) - strip).max() < 1  # Pillow divides in fixed point


def array(content):
    buffer = io.BytesIO()
    np.save(buffer, content)
    return buffer.getvalue()


def latents_zip(path, n=30, channels=8, classes=3, seed=0, **others):
    """EDM2's archive: mean and standard deviation of latents, (8, h, w) float32."""
    stored = np.random.default_rng(seed).normal(size=(n, channels, 8, 8)).astype(np.float32)
    stored[:, 4:] = np.abs(stored[:, 4:])
    names = [f"{k // 10:05}/img{k:08}.npy" for k in range(n)]
    files = dict(zip(names, map(array, stored), strict=True))
    pairs = [[name, k % classes] for k, name in enumerate(names)]
    files["dataset.json"] = json.dumps({"labels": pairs}).encode()
    write_zip(path, files | others)
    return stored


def preparing(*more, decoder="edm2-vae=vae"):
    return (
        "data", "prepare", "z.zip", "-d", "coded", "--images", "photos", "--decoder", decoder, *more
    )  # fmt: skip


def test_training_latents_are_drawn_from_mean_and_deviation_and_whitened(tmp_path):
    stored = latents_zip(tmp_path / "z.zip", n=2000, classes=3)
    assert "2,000 training latents (4, 8, 8) of photos" in done(*preparing())
    data = find_dataset("coded")
    assert isinstance(data, LatentDataset)
    z, labels = data.train.samples[:].double(), data.train.labels
    assert z.shape == (2000, 4, 8, 8)
    assert (data.spec.shape, data.space.shape) == ((3, 16, 16), (4, 8, 8))
    assert data.reference.hash == find_dataset("photos").reference.hash
    assert data.class_names == TREE_CLASSES
    mean = torch.tensor([5.81, 3.25, 0.12, -2.15]).reshape(4, 1, 1)
    std = torch.tensor([4.17, 4.62, 3.71, 3.28]).reshape(4, 1, 1)
    raw = (z * std / 0.5 + mean).numpy()
    # The order is shuffled: find each by its distance, in units of its deviation.
    where = {}
    for i in range(0, 2000, 100):
        noise = (raw[i] - stored[:, :4]) / stored[:, 4:]
        spread = noise.std((1, 2, 3))
        k = int(np.abs(np.log(spread)).argmin())
        where[i] = noise[k]
        assert labels[i] == k % 3
    drawn = np.stack([*where.values()])
    assert abs(drawn.mean()) < 4 / np.sqrt(drawn.size)
    assert abs(drawn.std() - 1) < 4 / np.sqrt(2 * drawn.size)
    assert "match their recorded hashes" in done("data", "verify", "coded")


def test_edm_is_trained_on_latents_and_compared_as_images(tmp_path, monkeypatch):
    latents_zip(tmp_path / "z.zip")
    done(*preparing())
    own = EDM.presets["digits"].model_copy(update={"dataset": "coded"})
    monkeypatch.setitem(EDM.presets, "coded", own)
    done("train", "-m", "edm", "-d", "coded", *sets(*TINY_IMAGES))
    [folder] = (tmp_path / "results/default/runs").iterdir()
    card = read_card(folder)
    assert (card.shape, card.config["clamp"]) == ((4, 8, 8), False)
    rows = swept(tmp_path, "--extractor", "classifier", "--metric", "fd")
    assert {row.status for row in rows.values()} == {"ok"}
    for row in rows.values():
        assert row.decoder == find_dataset("coded").decoder.hash
        assert {value.metric for value in row.values} == {"fd", "saturation"}
        assert row.decoder_seconds_per_image > 0


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        ({}, ("--images", "photos"), "Latents need both"),
        ({}, (), "holds latents"),
        ({}, ("--images", "photos", "--decoder", "edm2-vae"), "needs its folder"),
        ({}, ("--images", "digits", "--decoder", "edm2-vae=vae"), "has latents of 3 classes"),
        ({"channels": 3}, preparing()[5:], "takes latents of 4 channels, and these have 3"),
        ({"classes": 2}, preparing()[5:], "has latents of 2 classes"),
    ],
)
def test_latents_that_do_not_fit_are_refused(tmp_path, make, options, message):
    latents_zip(tmp_path / "z.zip", **make)
    ran = bench("data", "prepare", "z.zip", "-d", "coded", *options)
    assert ran.code != 0
    assert message in ran.err
    assert [folder.name for folder in (tmp_path / "data").iterdir() if folder.is_dir()] == [
        "photos"
    ]


def test_arrays_with_objects_are_not_read(tmp_path):
    first = "00000/img00000000.npy"
    for content, message in (
        (np.array([{"a": 1}], dtype=object), "pickled objects"),
        (np.zeros((8, 8, 8), np.int32), "arrays (c, h, w) of finite fractions"),
        (np.full((8, 8, 8), np.inf, np.float32), "arrays (c, h, w) of finite fractions"),
        (np.zeros((8, 4, 4), np.float32), "gives images (3, 8, 8)"),
    ):
        latents_zip(tmp_path / "z.zip", **{first: array(content)})
        ran = bench(*preparing())
        assert ran.code != 0
        assert message in ran.err
        assert first in ran.err


def test_statistics_alone_are_a_reference(tmp_path):
    stats = (
        "stats", "make", "photos:train", "-o", "stats.npz", "--extractor", "efficientnet-lite0",
        "--format", "edm",
    )  # fmt: skip
    done(*stats)
    ran = bench("data", "prepare", "stats.npz", "-d", "far", "--classes", 3)
    assert ran.code == 2
    assert "--size" in ran.err
    assert "statistics of images 16x16, 3 classes" in done(
        "data", "prepare", "stats.npz", "-d", "far", "--classes", 3, "--size", 16
    )
    same = ("data", "prepare", "stats.npz", "-d", "far", "--size", 16)
    assert "'far' is already prepared in" in done(*same, "--classes", 3)
    assert "already prepared for 3 classes of images (3, 16, 16), and" in bench(*same).err
    done(*importing(dataset="far"))
    done("sweep", "-g", "1", "-n", "4", "--steps", "2", "--metric", "fd", "--metric", "kid")
    [row] = rows_of(tmp_path).values()
    assert [(v.metric, v.extractor) for v in row.values] == [("fd", "efficientnet-lite0")]
    assert (row.status, row.reference) == ("ok", "far/reference")
    assert "holds only moments" in row.unmeasured["kid"]
    # The same samples against the same images, by another command.
    done("sample", "--run", "dit", "-n", 4, "--steps", 2, "-o", "x.npz")
    done(
        "evaluate", "x.npz", "--reference", "stats.npz", "--extractor", "efficientnet-lite0",
        "--metric", "fd", "-o", "out.json",
    )  # fmt: skip
    [measured] = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert measured["value"] == pytest.approx(row.values[0].value, rel=1e-6)
    assert "no training images" not in done("data", "verify", "far")
    ran = bench("train", "-m", "edm", "-d", "far")
    assert ran.code == 2
    assert "'far' has statistics and no images to train on" in ran.err


@pytest.mark.parametrize("draw", FIGURES)
def test_five_rules_are_swept_and_reported_in_latents(tmp_path, draw):
    done(*importing())
    rules = ("cfg", "interval", "apg", "rescale", "tcfg")
    done(
        "sweep", "-g", "1,2,4", "-n", "6", "--steps", "3", "--metric", "fd", "--metric",
        "saturation", "--extractor", "classifier", *(part for r in rules for part in ("--rule", r)),
    )  # fmt: skip
    found = read_rows(tmp_path / "results/default/cells")
    rows = [row for row in found if row.method != "real"]
    assert {(row.rule, row.guidance) for row in rows} == {
        ("", 1),
        *((rule if rule != "cfg" else "", g) for rule in rules for g in (2, 4)),
    }
    assert {row.status for row in rows} == {"ok"}
    for row in found:  # the floor of real images too
        with Image.open(io.BytesIO(base64.b64decode(row.preview.png))) as picture:
            assert (picture.height, picture.width) == (16, 16 * len(row.preview.labels))
    assert (
        "dynamic-threshold.limit" in swept(tmp_path, "--rule", "dynamic-threshold")["dit", 3].reason
    )
    with mock.patch.object(build, "draw", draw):
        assert "15 rows reported" in done("report")
    tables = (tmp_path / "results/default/report/tables.md").read_text()
    assert all(rule in tables for rule in rules[1:])
