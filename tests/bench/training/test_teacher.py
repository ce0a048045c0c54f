"""Teachers on the command line: found, trained first, refused; kept out of what is trained."""

import shutil

import pytest
import torch

from bench.data.find import find_dataset
from bench.system.errors import UserError
from bench.training.card import WEIGHTS, read_card, write_card
from bench.training.checkpoint import load_weights
from bench.training.initial import FoundWeights, check_frequencies, make_teacher, teacher_card
from bench.training.loop import Loss, build_nets, train
from methods import METHODS
from methods.edm import EDM
from tests.bench.helpers import TINY, bench, sets, tiny_card

CPU = torch.device("cpu")
GCD = ("train", "-m", "guided-cd", "-d", "modes1d", *sets(*TINY))


def test_missing_teacher_is_trained_first_and_starts_the_student(tmp_path, monkeypatch):
    preset = EDM.presets["modes1d"]
    short = preset.train.model_copy(update={"iterations": 3, "batch": 8})
    monkeypatch.setitem(EDM.presets, "modes1d", preset.model_copy(update={"train": short}))
    ran = bench(*GCD, "--results", tmp_path)
    assert ran.code == 0, ran.err
    said = "guided-cd on modes1d distils modes1d-edm-s0, which is trained first."
    assert ran.out.count(said) == 1
    assert ran.out.count("trained first") == 1
    assert (
        "Not set for modes1d-edm-s0, which is trained with its preset (3 iterations): "
        "train.batch, train.iterations." in ran.out
    )
    runs = tmp_path / "default" / "runs"
    card, weights = read_card(runs / "modes1d-guided-cd-s0"), runs / "modes1d-guided-cd-s0"
    assert card.teacher_run == card.init_run == "modes1d-edm-s0"
    assert card.teacher_checkpoint == card.init_checkpoint != ""
    # The student alone: one network under `model`.
    student = load_weights(weights / WEIGHTS)
    teacher = load_weights(runs / "modes1d-edm-s0" / WEIGHTS)
    assert student.keys() - teacher.keys() == {"model.map_w_embed.weight", "model.map_w_embed.bias"}
    assert teacher.keys() <= student.keys()
    ran = bench("sweep", "-g", "1,2", "-n", "10", "--metric", "w1", "--results", tmp_path)
    assert ran.code == 0, ran.err
    assert bench(*GCD, "--results", tmp_path).code == 0


def test_teacher_by_run_folder_or_file_is_the_same(trained, tmp_path):
    runs = trained / "default" / "runs"
    file = shutil.copy(runs / "modes1d-edm-s0" / WEIGHTS, tmp_path / "teacher.safetensors")
    written = []
    for k, named in enumerate(("modes1d-edm-s0", runs / "modes1d-edm-s0", file)):
        ran = bench(*GCD, "--teacher", named, "--name", f"s{k}", "--results", trained)
        assert ran.code == 0, ran.err
        written.append((runs / f"s{k}" / WEIGHTS).read_bytes())
    assert written[0] == written[1] == written[2]
    assert read_card(runs / "s2").teacher_run == "teacher.safetensors"
    ran = bench(
        *GCD, "--teacher", file, "--init-from", "none", "--name", "s3", "--results", trained
    )
    assert ran.code == 0, ran.err
    card = read_card(runs / "s3")
    assert (card.init_run, card.teacher_run) == ("", "teacher.safetensors")
    assert (runs / "s3" / WEIGHTS).read_bytes() != written[0]


def test_run_that_cannot_teach_is_refused_before_anything_is_written(trained):
    runs = trained / "default" / "runs"
    unlabelled = (*sets(*TINY, "label_dropout=0"), "--name", "plain", "--results", trained)
    assert bench("train", "-m", "edm", "-d", "modes1d", *unlabelled).code == 0
    cases = {
        "plain": "cannot distil 'plain': it was trained without label dropout",
        "modes1d-ct-s0": "guided-cd distils a run of edm, but 'modes1d-ct-s0' is one of ct",
        "nothing": "--teacher 'nothing' is no run of this experiment (it has: modes1d-ct-s0,",
    }
    for name, message in cases.items():
        ran = bench(*GCD, "--teacher", name, "--results", trained)
        assert ran.code == 2
        assert message in ran.err
        assert not (runs / "modes1d-guided-cd-s0").exists()
    ran = bench("train", "-m", "ct", "--teacher", "modes1d-edm-s0", "--results", trained)
    assert (ran.code, ran.err) == (2, "Error: ct distils nothing: drop --teacher.\n")


def test_training_without_a_teacher_names_the_option(tmp_path, fabric):
    with pytest.raises(UserError, match="distils a run of edm: give --teacher"):
        train(tiny_card("guided-cd"), find_dataset("modes1d"), tmp_path / "run", fabric=fabric)
    assert not (tmp_path / "run").exists()


def test_teacher_is_frozen_and_not_trained():
    data, student = find_dataset("modes1d"), METHODS["guided-cd"]
    teacher = make_teacher(student, teacher_card("edm", data, None, {}), data, None, CPU)
    assert not any(p.requires_grad for p in teacher.nets.parameters())
    assert not teacher.nets.training
    card = tiny_card("guided-cd")
    method = student(student.config_type.model_validate(card.config), data.spec)
    nets = build_nets(method, 0)
    loss = Loss(method, nets, teacher)
    assert {f"nets.{name}" for name in nets.state_dict()} == loss.state_dict().keys()
    assert set(loss.parameters()) == set(nets.parameters())


def test_cards_without_teacher_fields_still_load(trained):
    folder = trained / "default" / "runs" / "modes1d-edm-s0"
    card = read_card(folder)
    tree = card.model_dump(mode="json", exclude={"teacher_run", "teacher_checkpoint"})
    del tree["train"]["micro_batch"]
    write_card(folder, card.model_validate(tree))
    assert read_card(folder) == card
    assert (
        bench("train", "-m", "edm", "-d", "modes1d", *sets(*TINY), "--results", trained).code == 0
    )


def test_start_from_noise_features_of_another_scale_is_refused():
    start = FoundWeights("other", "", {"model.map_noise.freqs": torch.linspace(-30, 30, 64)})
    card = tiny_card("ct", "digits", "net.arch=ncsnpp")
    with pytest.raises(UserError, match=r"--set net.fourier_scale=18, or drop --init-from"):
        check_frequencies(card, start)
    check_frequencies(tiny_card("ct", "digits", "net.arch=ncsnpp", "net.fourier_scale=16"), start)
    check_frequencies(tiny_card("ct", "digits"), start)
