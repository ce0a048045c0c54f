"""`bench doctor` and `bench list extractors`."""

import hashlib
import shutil
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from bench.data.card import CARD
from bench.evaluation import check
from bench.evaluation.weights import WEIGHTS_FOLDER_VARIABLE
from metrics.catalogue import FILES, INCEPTION, VGG16
from metrics.extractors import dinov2
from tests.bench.helpers import bench
from tests.metrics.vits import BLOCKS, WIDTH, dino_state


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of weights, empty."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("GUIDANCE_BENCH_DATA", str(tmp_path / "data"))
    return folder


@pytest.fixture
def small(monkeypatch):
    """A small network counts as the published one."""
    monkeypatch.setitem(dinov2.SIZES, "dinov2", (WIDTH, BLOCKS))


def test_doctor_accepts_machine_without_data_or_weights(folder):
    ran = bench("doctor")
    assert (ran.code, ran.err) == (0, "")
    for package in ("torch", "torch-fidelity", "clean-fid", "scipy", "python", "threads"):
        assert f"\n{package} " in f"\n{ran.out}"
    for wanted in FILES:
        assert (
            f"{wanted.file}: not here; put it into {folder} ({wanted.mib:,} MiB, "
            f"{wanted.hash_words}, from {wanted.url})\n    for {wanted.purpose}\n"
            f"    without it: {wanted.instead}\n"
        ) in ran.out
    assert str(folder.parent / "data") in ran.out
    assert "efficientnet-lite0, classifier: whole" in ran.out


def test_doctor_reports_files_as_whole_or_damaged(folder):
    torch.save(dino_state(), folder / "dinov2_vitl14_pretrain.pth")
    ran = bench("doctor")
    assert ran.code == 0
    assert "dinov2_vitl14_pretrain.pth: readable, SHA-256 " in ran.out
    (folder / INCEPTION.file).write_bytes(b"half a file")
    ran = bench("doctor")
    assert ran.code == 1
    assert ran.err == f"Error: Damaged: {folder / INCEPTION.file}.\n"
    assert f"{INCEPTION.file}: damaged: SHA-256 begins " in ran.out
    (folder / INCEPTION.file).unlink()
    whole = (folder / "dinov2_vitl14_pretrain.pth").read_bytes()
    (folder / "dinov2_vitl14_pretrain.pth").write_bytes(whole[:-1000])
    ran = bench("doctor")
    assert ran.code == 1
    assert "dinov2_vitl14_pretrain.pth: damaged: " in ran.out


def test_file_with_published_hash_is_whole(folder, monkeypatch):
    path = folder / VGG16.file
    path.write_bytes(b"as published")
    digest = hashlib.sha256(b"as published").hexdigest()
    monkeypatch.setattr(check, "FILES", (replace(VGG16, sha256=digest[:8]),))
    ran = bench("doctor")
    assert ran.code == 0
    assert f"{VGG16.file}: whole, SHA-256 begins {digest[:8]}, {path}\n" in ran.out


def test_damaged_data_set_is_reported(folder):
    card = folder.parent / "data" / "mine" / CARD
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    ran = bench("doctor")
    assert ran.code == 1
    assert ran.err == "Error: Damaged: mine.\n"


def test_doctor_tries_extractors(folder, small):
    path = folder / "dinov2_vitl14_pretrain.pth"
    torch.save(dino_state(), path)
    ran = bench("doctor", "--extractor", "dinov2", "--extractor", "identity")
    assert (ran.code, ran.err) == (0, "")
    assert f"dinov2: {WIDTH} features of random images, hash " in ran.out
    assert "identity: 1 features of modes1d" in ran.out
    other = shutil.move(path, folder / "elsewhere.pth")
    ran = bench("doctor", "--extractor", "dinov2", "--weights", other, "--offline")
    assert ran.code == 0
    state = dino_state()
    state["norm.weight"][0] = torch.nan
    safetensors.torch.save_file(state, folder / "dinov2_vitl14_pretrain.safetensors")
    ran = bench("doctor", "--extractor", "dinov2")
    assert ran.code == 1
    assert "norm.weight has values that are not finite." in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "start"),
    [
        (["--extractor", "dino"], 2, "Unknown extractor 'dino'. Did you mean 'dinov2'?"),
        (["--extractor", "vgg16"], 1, "VGG16 weights vgg16-397923af.pth (SHA-256 begins 397923af)"),
        (["--download"], 2, "--weights and --download need --extractor."),
        (["--download", "--offline", "--extractor", "vgg16"], 2, "--offline forbids what"),
    ],
)
def test_wrong_input_is_one_sentence(folder, arguments, code, start):
    ran = bench("doctor", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith(f"Error: {start}")
    assert ran.err.count("\n") == 1


def test_extractors_are_listed_with_their_weights(folder):
    torch.save(dino_state(), folder / "dinov2_vits14_pretrain.pth")
    ran = bench("list", "extractors")
    assert ran.code == 0
    lines = {line.split()[0]: line for line in ran.out.splitlines()}
    assert "4096 features" in lines["vgg16"]
    assert "(weights missing: vgg16-397923af.pth)" in lines["vgg16"]
    assert f"(weights in {folder})" in lines["dinov2-vit-s-14"]
    assert "(needs no file)" in lines["classifier"]
    assert lines.keys() >= {"inception", "inception-clean", "dinov2", "clip", "identity"}
    assert "2023 features" in lines["inception-spatial"]
    assert f"(weights missing: {INCEPTION.file})" in lines["inception-spatial"]
