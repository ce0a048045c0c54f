"""`bench sample` and `bench sweep --save-samples`: the samples that a sweep measures, as files."""

import json
import shutil

import numpy as np
import pytest
import torch

from bench.data.find import find_dataset
from bench.data.samples.card import class_names
from bench.data.samples.read import read_samples
from bench.experiment.place import Experiment
from bench.inversion.find import class_index
from bench.sweep import run as sweep_module
from bench.sweep import sampler
from bench.sweep.cells import expand, sample_classes
from bench.sweep.generate import Diverged, generate
from bench.system.files import sha256
from bench.training.card import read_card
from bench.training.run import load_nets, open_run
from tests.bench.helpers import TINY_IMAGES, TOY_METRICS, bench, contents, rows_of, sets

RUN = "digits-edm-s0"
SHORT = ("-g", "2", "--steps", "2", "-n", "23", "--batch", "8")


@pytest.fixture(scope="module")
def _drawn(judged, tmp_path_factory):
    results = tmp_path_factory.mktemp("drawn")
    ran = bench("train", "-m", "edm", "-d", "digits", *sets(*TINY_IMAGES), "--results", results)
    assert ran.code == 0, ran.err
    shutil.copytree(judged, results / "cache", dirs_exist_ok=True)
    return results


@pytest.fixture
def drawn(_drawn, tmp_path):
    """A results folder with a tiny run of edm on digits; one's own copy."""
    return shutil.copytree(_drawn, tmp_path / "drawn")


def sample(results, *arguments):
    return bench("sample", *arguments, "--results", results)


def read(path):
    batches = list(read_samples(path))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def expected(results, guidance, steps, n, seed=0, run=RUN, **more):
    place = Experiment(results, "default")
    card = read_card(place.runs / run)
    found = open_run(card, find_dataset(card.dataset), place)
    (cell,) = expand(found, [guidance], [steps], [seed], n)
    device = torch.device("cpu")
    nets = load_nets(found, device)
    stream = list(
        generate(found.method, nets, cell.guidance, steps, seed, n, batch=8, device=device, **more)
    )
    return torch.cat([x for x, _ in stream]), torch.cat([y for _, y in stream])


@pytest.mark.parametrize("out", ["folder", "a.zip", "a.npz"])
def test_samples_equal_those_of_the_sweep(drawn, tmp_path, out):
    ran = sample(drawn, *SHORT, "-o", tmp_path / out)
    assert ran.code == 0, ran.err
    assert f"23 samples of {RUN} at guidance 2" in ran.out
    x, y = expected(drawn, 2.0, 2, 23)
    for got, want in zip(read(tmp_path / out), (x, y), strict=True):
        assert torch.equal(got, want)
    assert y[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    before = contents(tmp_path)
    again = sample(drawn, *SHORT, "-o", tmp_path / out)
    assert again.code == 0
    assert "already in" in again.out
    other = sample(drawn, *SHORT, "-o", tmp_path / out, "--seed", "1")
    assert other.code == 1
    assert "other settings (seed is 0 there, 1 here)" in other.err
    assert contents(tmp_path) == before


def test_some_classes_share_the_noise_of_all(drawn, tmp_path):
    ran = sample(drawn, *SHORT, "-c", "7", "-c", "3", "-o", tmp_path / "a.npz")
    assert ran.code == 0, ran.err
    x, y = read(tmp_path / "a.npz")
    assert y[:4].tolist() == [7, 3, 7, 3]
    for got, want in zip((x, y), expected(drawn, 2.0, 2, 23, classes=(7, 3)), strict=True):
        assert torch.equal(got, want)
    everything = expected(drawn, 2.0, 2, 23)
    same = y == everything[1]
    assert 0 < same.sum() < 23
    assert torch.equal(x[same], everything[0][same])


SAMPLING = ("--labels", "random", "--sampler", "dpmpp-2m", "--grid", "cosine")


def test_labels_sampler_and_grid_are_those_of_a_sweep(drawn, tmp_path):
    ran = sample(drawn, *SHORT, *SAMPLING, "-o", tmp_path / "a.npz")
    assert ran.code == 0, ran.err
    x, y = read(tmp_path / "a.npz")
    assert (y.numpy() == sample_classes("random", find_dataset("digits"), 0, 23)).all()
    ran = bench("sweep", *SHORT, *SAMPLING, "--metric", "saturation", "--save-samples", "npz",
                "--workers", "1", "--results", drawn)  # fmt: skip
    assert ran.code == 0, ran.err
    (kept,) = (drawn / "default" / "samples" / RUN).glob("*.npz")
    assert kept.name == "g2-dpmpp-2m-cosine-random-steps2-seed0.npz"
    for got, want in zip(read(kept), (x, y), strict=True):
        assert torch.equal(got, want)
    other = sample(drawn, *SHORT, *SAMPLING[:4], "-o", tmp_path / "a.npz")
    assert other.code == 1
    assert "other settings (grid is 'cosine' there, 'edm' here)" in other.err


def test_sample_resumes_an_unfinished_folder(drawn, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    assert sample(drawn, *SHORT, "-o", whole).code == 0
    real, starts = sampler.sampled, []

    def stopped(*arguments, **options):
        stream = real(*arguments, **options)
        starts.append(options["start"])
        yield next(stream)
        raise KeyboardInterrupt

    monkeypatch.setattr(sampler, "sampled", stopped)
    for _ in range(2):
        ran = sample(drawn, *SHORT, "-o", tmp_path / "part")
        assert (ran.code, ran.err) == (130, "Stopped. Finished work is kept. Run the "
                                            "same command to continue.\n")  # fmt: skip
    assert starts == [0, 8]
    # Half a batch is made again as a whole one.
    next((tmp_path / "part").glob("*/000015.png")).unlink()
    monkeypatch.setattr(
        sampler, "sampled", lambda *a, **o: starts.append(o["start"]) or real(*a, **o)
    )
    assert sample(drawn, *SHORT, "-o", tmp_path / "part").code == 0
    assert starts == [0, 8, 8]
    assert contents(tmp_path / "part") == contents(whole)


def test_default_place_and_grid(drawn, tmp_path):
    assert sample(drawn, "-n", "20", "--steps", "1").code == 0
    folder = drawn / "default" / "samples" / RUN / "g1-steps1-seed0"
    about = json.loads((folder / "samples.json").read_text())
    weights = drawn / "default" / "runs" / RUN / "model.safetensors"
    assert about["checkpoint"] == sha256(weights)
    assert len(list(folder.glob("*/*.png"))) == 20
    ran = sample(drawn, "-n", "20", "--steps", "1", "-m", "edm", "-o", tmp_path / "a.png")
    assert ran.code == 0, ran.err
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_vectors_and_methods_without_training(tmp_path):
    ran = bench(
        "sample", "-m", "oracle", "-d", "modes1d", "-g", "3", "-n", "10", "--results", tmp_path,
        "-o", tmp_path / "a.npz",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["arr_0"].shape == (10, 1)
        assert arrays["arr_0"].dtype == np.float32
        # Classes in turn: modes at +2 and -2.
        assert (np.sign(arrays["arr_0"][:, 0]) == [1, -1] * 5).all()
    ran = bench(
        "sample", "-m", "oracle", "-d", "modes1d", "--results", tmp_path, "-o", tmp_path / "b"
    )
    assert ran.code == 2
    assert "vectors, which only npz can hold" in ran.err
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--run", "digits-edm-s1"], "Unknown run 'digits-edm-s1'. Did you mean 'digits-edm-s0'?"),
        (["--run", RUN, "-m", "igct"], f"Run '{RUN}' has 'edm', not --method 'igct'."),
        (["-m", "igct"], "There is no trained run of igct in "),
        (["-m", "igtc"], "Unknown method 'igtc'. Did you mean 'igct'?"),
        (["-d", "digts"], "Unknown data set 'digts'. Did you mean 'digits'?"),
        (["-m", "oracle"], "name one with --dataset: modes1d, modes2d."),
        (["-c", "cat"], "Unknown class of digits for --class 'cat'. Available: 0, 1, 2"),
        (["-c", "10"], "Unknown class of digits for --class '10'."),
        (["-g", "nan"], "--guidance must be a finite number, got nan."),
        (
            ["--format", "gif"],
            "Unknown format 'gif'. Did you mean 'grid'? Available: grid, npz, png, zip.",
        ),
        (["--format", "grid", "-n", "2000"], "at most 1,024 samples, got 2,000"),
        (["-n", "0"], "Invalid value for '--samples'"),
        (["--sampler", "hewn"], "Unknown sampler 'hewn'. Did you mean 'heun'?"),
        (["--labels", "random", "-c", "3"], "--class and --labels exclude each other: drop one."),
        (["--device", "abacus"], "Device 'abacus' cannot be used"),
    ],
)
def test_wrong_input_is_one_sentence(drawn, arguments, said):
    before = contents(drawn)
    ran = sample(drawn, *arguments)
    assert ran.code in (1, 2)
    assert ran.err.startswith("Error: ")
    assert ran.err.count("\n") == 1
    assert said in ran.err
    assert contents(drawn) == before


def test_run_that_cannot_be_sampled_is_refused_with_a_reason(drawn, tmp_path, trained):
    ran = bench("sample", "--results", tmp_path / "none")
    assert ran.code == 1
    assert "There is no trained run in " in ran.err
    ran = bench("sample", "--results", trained)
    assert "name one with --run: modes1d-ct-s0, modes1d-edm-s0, modes1d-igct-s0." in ran.err
    ran = bench("sample", "-m", "ct", "-g", "2", "--results", trained)
    assert ran.code == 2
    assert "modes1d-ct-s0 cannot be sampled so: " in ran.err
    (drawn / "default" / "runs" / RUN / "model.safetensors").unlink()
    assert "is not trained to its end" in sample(drawn).err


def test_divergence_keeps_nothing(drawn, tmp_path, monkeypatch):
    def diverging(*arguments, **options):
        yield next(real(*arguments, **options))
        raise Diverged("3 of samples 8 to 15 are not finite")

    real = sampler.sampled
    monkeypatch.setattr(sampler, "sampled", diverging)
    for out in ("a", "a.zip", "a.npz"):
        ran = sample(drawn, *SHORT, "-o", tmp_path / "out" / out)
        assert ran.code == 1
        assert "diverged: 3 of samples 8 to 15 are not finite; nothing was kept." in ran.err
        assert contents(tmp_path / "out") == {}


SWEEP = (
    "sweep",
    "-g",
    "1,2",
    "--steps",
    "2",
    "-n",
    "12",
    "--batch",
    "8",
    "--metric",
    "contrast_ratio",
)


@pytest.mark.parametrize("kind", ["png", "zip", "npz"])
def test_sweep_keeps_samples(drawn, kind):
    suffix = "" if kind == "png" else f".{kind}"
    folder = drawn / "default" / "samples" / RUN
    ran = bench(*SWEEP, "--save-samples", kind, "--results", drawn)
    assert ran.code == 0, ran.err
    assert sorted(p.name for p in folder.iterdir()) == [
        f"g{g}-steps2-seed0{suffix}" for g in (1, 2)
    ]
    for g in (1, 2):
        got = read(folder / f"g{g}-steps2-seed0{suffix}")
        for one, two in zip(got, expected(drawn, float(g), 2, 12), strict=True):
            assert torch.equal(one, two)
    before = contents(drawn)
    again = bench(*SWEEP, "--save-samples", kind, "--results", drawn)
    assert "0 cells computed, 2 kept" in again.out
    assert contents(drawn) == before


def test_sweep_samples_again_only_for_missing_files(drawn):
    assert bench(*SWEEP, "--results", drawn).code == 0
    rows = contents(drawn / "default" / "cells")
    assert not (drawn / "default" / "samples").exists()
    ran = bench(*SWEEP, "--save-samples", "png", "--results", drawn)
    assert ran.code == 0, ran.err
    assert "0 cells computed, 2 kept" in ran.out
    folder = drawn / "default" / "samples" / RUN / "g2-steps2-seed0"
    whole = contents(folder)
    next(folder.glob("*/000009.png")).unlink()
    torn = next(folder.glob("*/000003.png"))
    torn.write_bytes(torn.read_bytes()[:-1])  # as a power cut may leave it
    assert bench(*SWEEP, "--save-samples", "png", "--results", drawn).code == 0
    assert contents(folder) == whole
    assert contents(drawn / "default" / "cells") == rows
    # The files of `bench sample` are the same.
    assert "already in" in sample(drawn, "-g", "2", "--steps", "2", "-n", "12").out


def test_sweep_refuses_before_sampling(drawn):
    assert sample(drawn, "-g", "2", "--steps", "2", "-n", "5").code == 0
    ran = bench(*SWEEP, "--save-samples", "png", "--results", drawn)
    assert ran.code == 1
    assert "other settings (n is 5 there, 12 here)" in ran.err
    assert rows_of(drawn, "edm") == []
    ran = bench(*SWEEP, "--save-samples", "gif", "--results", drawn)
    assert ran.code == 2
    assert "--save-samples is png, zip, npz, got 'gif'." in ran.err


def test_sweep_of_vectors_keeps_npz_and_no_diverged_samples(trained, monkeypatch):
    real = sampler.generate

    def some_diverge(method, nets, guidance, *arguments, **options):
        stream = real(method, nets, guidance, *arguments, **options)
        yield next(stream)
        if guidance.scale == 2:
            raise sweep_module.Diverged("no")
        yield from stream

    monkeypatch.setattr(sampler, "generate", some_diverge)
    sweep = ("sweep", "-m", "edm", "-g", "1,2", "-n", "20", "--batch", "8", *TOY_METRICS)
    for _ in range(2):
        ran = bench(*sweep, "--save-samples", "png", "--results", trained)
        assert ran.code == 0, ran.err
    folder = trained / "default" / "samples" / "modes1d-edm-s0"
    assert [p.name for p in folder.iterdir()] == ["g1-steps18-seed0.npz"]
    x, y = expected(trained, 1.0, 18, 20, run="modes1d-edm-s0")
    got = read(next(folder.iterdir()))
    assert torch.equal(got[0], x)
    assert torch.equal(got[1], y)


def test_classes_without_names_are_named_by_their_index():
    data = find_dataset("modes1d")
    assert class_names(data, data.spec) == ("+2", "-2")
    assert [class_index(text, data, "--class") for text in ("-2", "0", "1")] == [1, 0, 1]
    data.class_names = ()
    assert class_names(data, data.spec) == ("0", "1")
    assert class_index("1", data, "--class") == 1


def test_other_image_formats_are_refused(tmp_path):
    ran = bench("sample", "-m", "oracle", "-d", "modes2d", "-n", 2, "-o", tmp_path / "grid.jpg")
    assert ran.code == 2
    assert "Samples are not written as .jpg" in ran.err
    assert ".npz, .zip, .png" in ran.err
    assert not (tmp_path / "grid.jpg").exists()
