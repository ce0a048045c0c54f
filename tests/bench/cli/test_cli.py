import signal
import urllib.error
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from bench.cli import app as cli
from bench.evaluation.weights import WEIGHTS_FOLDER_VARIABLE
from bench.sweep.run import CellWork
from metrics import METRICS
from metrics.catalogue import CLIP, WEIGHTS
from tests.bench.helpers import TINY, bench, contents, sets

OF_METHODS = (
    "alpha-flow, ct, diffusers, dit, edm, edm2, gft, guided-cd, igct, imm, meanflow, mg, mg-ct, "
    "oracle, scd, sct, sit, tcm."
)


@pytest.mark.parametrize(
    ("arguments", "start", "listed"),
    [
        (["train", "-m", "igtc"], "Unknown method 'igtc'. Did you mean 'igct'? Available: ",
         OF_METHODS),
        (["train", "-m", "zzz"], "Unknown method 'zzz'. Available: ",
         OF_METHODS),
        (["sweep", "-m", "emd"], "Unknown method 'emd'. Did you mean 'edm'? Available: ",
         OF_METHODS),
        (["train", "-m", "edm", "-d", "digts"],
         "Unknown data set 'digts'. Did you mean 'digits'? Available: ",
         "digits, modes1d, modes2d."),
        (["sweep", "-d", "modes3d"], "Unknown data set 'modes3d'. Did you mean 'modes",
         "digits, modes1d, modes2d."),
        (["train", "-m", "sit", "-d", "digits"],
         "sit is not trained here: its networks come from bench import", ""),
        (["train", "-m", "edm", "--preset", "digit"],
         "Unknown preset 'digit'. Did you mean 'digits'? Available: ",
         "auto, cifar10, cifar10-small, cifar16, digits, digits-demo, imagenet64, modes1d, "
         "modes2d."),
        (["train", "-m", "edm", "-d", "digits", "--preset", "modes1d"],
         "Preset 'modes1d' of edm is for the data set 'modes1d', not 'digits'", ""),
        (["train", "-m", "edm", "--set", "train.iteration=5"],
         "Unknown setting 'train.iteration'. Did you mean 'train.iterations'? Available: ",
         "train.warmup."),
        (["train", "-m", "edm", "--set", "net.depth.x=5"], "Unknown setting 'net.depth.x'.", ""),
        (["train", "-m", "edm", "--set", "lr"], "--set takes key=value, such as ", "got 'lr'."),
        (["train", "-m", "edm", "--set", "=5"], "--set takes key=value, such as ", "got '=5'."),
        (["train", "-m", "edm", "--set", "train.lr=fast"],
         "Invalid settings of edm: lr: input should be a valid number", ""),
        (["train", "-m", "edm", "--set", "train.lr=NaN"],
         "Invalid settings of edm: lr: input should be a finite number", ""),
        (["train", "-m", "edm", "--set", "train.iterations=0"],
         "Invalid settings of edm: iterations: input should be greater than or equal", ""),
        (["train", "-m", "edm", "--set", "train.betas=[2, 0.9]"],
         "Invalid settings of edm: betas.0: input should be less than 1", ""),
        (["train", "-m", "edm", "--set", "net=5"], "Invalid settings of edm: net: ", ""),
        (["train", "-m", "oracle", "-m", "edm", "--name", "x"], "--name is for one method", ""),
        (["train"], "Name a method: bench train --method igct. Available: ",
         OF_METHODS),
        (["train", "-m", "edm", "--name", "a/b"],
         "run name 'a/b' cannot be a folder: use letters, digits", ""),
        (["train", "-m", "edm", "--name", ".."], "run name '..' cannot be a folder", ""),
        (["train", "-m", "edm", "--experiment", "../x"],
         "experiment name '../x' cannot be a folder", ""),
        (["sweep", "--experiment", "cache"], "The experiment name 'cache' is taken", ""),
        (["train", "-m", "edm", "--epochs", "5"], "No such option: --epochs", "--workers."),
        (["sweep", "--batch", "0"], "Invalid value for '--batch'", "See: bench sweep --help"),
        (["train", "-m", "edm", "--seed", "x"], "--seeds 'x': 'x' is not a number", "1,1.5,2."),
        (["swep"], "No such command 'swep'.",
         "Available: data, doctor, edit, evaluate, import, init, invert, list, mv, report, rm, "
         "sample, stats, status, sweep, train, tune, verify."),
        (["sweep", "--inversion-samples", "5"],
         "--inversion-samples and --inversion-guidance need --inversion.", ""),
        (["sweep", "--inversion", "--inversion-guidance", "7..1"],
         "--inversion-guidance '7..1' runs backwards", ""),
        (["edit", "--source-class", "3"], "Missing option '--target-class'.",
         "See: bench edit --help"),
        (["edit", "--source-class", "3", "--target-class", "5", "-g", "a"],
         "--guidance 'a': 'a' is not a number", ""),
        (["invert", "-m", "igtc"], "Unknown method 'igtc'. Did you mean 'igct'?", ""),
        (["invert", "-d", "digts"], "Unknown data set 'digts'. Did you mean 'digits'?", ""),
        (["list", "metods"], "Unknown list 'metods'. Did you mean 'methods'? Available: ",
         "datasets, experiments, extractors, launchers, methods, metrics, protocols, rows, rules, "
         "runs, suites."),
        (["list"], "Missing argument 'what'.", "See: bench list --help"),
        (
            ["train", "--suite", "demos"],
            "Cannot read the suite 'demos': ",
            "modes1d-seeds, reference.",
        ),
        (["sweep", "-g", "13..1"], "--guidance '13..1' runs backwards", ""),
        (["sweep", "--steps", "0"], "--steps '0' must be whole numbers from 1 to 100,000.", ""),
        (["sweep", "--seeds", "-1"], "--seeds '-1' must be whole numbers from 0 up.", ""),
        (["train", "-m", "edm", "--device", "abacus"],
         "Unknown device 'abacus'.", "auto, cpu, cuda, mps"),
        (["sweep", "--device", "abacus"], "Device 'abacus' cannot be used", ""),
        (["train", "-m", "edm", "--precision", "31"],
         "Unknown precision '31'.", "32-true, bf16-mixed"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence_and_exit_code_2(arguments, start, listed, tmp_path):
    results = (
        ["--results", tmp_path / "r"]
        if arguments[0] in ("train", "sweep", "edit", "invert")
        else []
    )
    ran = bench(*arguments, *results)
    assert ran.code == 2
    assert ran.err.startswith(f"Error: {start}")
    assert ran.err.endswith("\n")
    assert ran.err.count("\n") == 1
    assert listed in ran.err
    assert not (tmp_path / "r").exists()


def test_help_is_shown_without_a_command():
    ran = bench()
    assert ran.code == 2
    assert "Usage: bench [OPTIONS] COMMAND" in ran.out + ran.err
    assert all(command in ran.out + ran.err for command in ("train", "sweep", "report", "list"))
    assert "Error" not in ran.err or "Error: Name a command." in ran.err


@pytest.mark.parametrize(
    "command", ["train", "sweep", "report", "list", "invert", "edit", "doctor"]
)
def test_every_command_has_help(command):
    ran = bench(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"Usage: bench {command}" in ran.out


def test_unknown_metric_and_extractor(trained):
    before = contents(trained)
    for option, got, start in (
        ("--metric", "fdd", "Unknown metric 'fdd'. Did you mean 'fd'? Available: "),
        ("--extractor", "inceptio", "Unknown extractor 'inceptio'. Did you mean 'inception'?"),
    ):
        ran = bench("sweep", option, got, "--results", trained)
        assert ran.code == 2
        assert ran.err.startswith(f"Error: {start}")
    ran = bench("sweep", "--metric", "class_accuracy", "--results", trained)
    assert ran.code == 2
    assert ran.err.startswith("Error: No metric can be computed against modes1d/reference: ")
    assert contents(trained) == before


@pytest.mark.parametrize("extractor", ["inception", "vgg16", "dinov2", "dinov2-vit-g-14", "clip"])
def test_missing_weights_are_reported_before_sampling(trained, tmp_path, monkeypatch, extractor):
    folder = tmp_path / "weights"
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(folder))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    before = contents(trained)
    ran = bench("sweep", "--extractor", extractor, "--results", trained)
    wanted = WEIGHTS[extractor]
    words = {"inception": "begins 6726825d", "vgg16": "begins 397923af", "clip": CLIP.sha256}
    assert ran.code == 1
    assert ran.err == (
        f"Error: {wanted.title} weights {wanted.file} "
        f"(SHA-256 {words.get(extractor, 'not published')}) are not in {folder}: "
        "put the file there, or allow its download with --download.\n"
    )
    assert contents(trained) == before
    ran = bench(
        "sweep", "--extractor", extractor, "--weights", tmp_path / "no", "--results", trained
    )
    assert f"are not in {tmp_path / 'no'}" in ran.err


def test_one_file_for_two_networks_is_refused(trained, tmp_path):
    path = tmp_path / "mine.pth"
    path.touch()
    before = contents(trained)
    ran = bench(
        "sweep", "--extractor", "vgg16", "--extractor", "clip", "--weights", path,
        "--results", trained,
    )  # fmt: skip
    assert ran.code == 2
    assert f"--weights {path} is one file, but vgg16, clip need vgg16-397923af.pth" in ran.err
    assert contents(trained) == before


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route"), RuntimeError("invalid hash value")]
)
def test_failed_download_is_one_sentence(trained, tmp_path, monkeypatch, error):
    def download(*arguments, **options):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    ran = bench("sweep", "--extractor", "inception", "--download", "--results", trained)
    assert ran.code == 1
    assert ran.err.startswith("Error: Could not load the weights of extractor 'inception': ")
    assert ran.err.count("\n") == 1


def test_report_without_rows_names_the_next_command(tmp_path):
    ran = bench("report", "--results", tmp_path / "r", "--experiment", "mine")
    assert ran.code == 1
    assert ran.err == (
        f"Error: There are no rows in {tmp_path / 'r' / 'mine' / 'cells'}: "
        f"bench sweep --experiment mine --results {tmp_path / 'r'}.\n"
    )
    assert not (tmp_path / "r").exists()


def test_sweep_without_runs_names_the_next_command(tmp_path):
    ran = bench("sweep", "--results", tmp_path / "r")
    assert ran.code == 1
    assert ran.err == (
        f"Error: There is no trained run in {tmp_path / 'r' / 'default' / 'runs'}. Train one: "
        f"bench train --method igct --results {tmp_path / 'r'}.\n"
    )
    assert not (tmp_path / "r").exists()


def test_untrained_method_can_be_swept_directly(tmp_path):
    ran = bench("train", "-m", "oracle", "--results", tmp_path)
    assert ran.code == 0
    assert "oracle: nothing to train." in ran.out
    assert f"Next: bench sweep --method oracle --results {tmp_path}" in ran.out
    ran = bench(
        "sweep", "--method", "oracle", "-g", "1", "-n", "4", "--metric", "w1",
        "--metric", "shift", "--results", tmp_path,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "modes1d: 1 cell computed" in ran.out
    assert "modes2d: 1 cell computed" in ran.out


def test_next_command_loads_the_plugins_again(tmp_path):
    plugin = tmp_path / "my plugin.py"
    plugin.write_text("")
    ran = bench("train", "-m", "oracle", "--plugin", plugin, "--results", tmp_path)
    assert f"bench sweep --method oracle --results {tmp_path} --plugin '{plugin}'\n" in ran.out


def test_method_without_a_preset_for_the_data_is_refused(tmp_path):
    ran = bench("sweep", "-m", "oracle", "-d", "digits", "--results", tmp_path / "r")
    assert ran.code == 1
    assert "There is no trained run" in ran.err
    ran = bench("train", "-m", "oracle", "-d", "digits", "--dry-run", "--results", tmp_path / "r")
    assert ran.code == 2
    assert (
        "Method 'oracle' has no preset for the data set 'digits'; it has presets for: " in ran.err
    )


def test_unwritable_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    ran = bench("train", "-m", "edm", "-d", "modes1d", *sets(*TINY), "--results", tmp_path / "file")
    assert ran.code == 1
    assert ran.err.startswith("Error: ")
    assert str(tmp_path / "file") in ran.err


def test_damaged_card_is_named(trained):
    card = trained / "default" / "runs" / "modes1d-edm-s0" / "run.json"
    card.write_text(card.read_text()[:50])
    for command in ("sweep", "train"):
        more = ("-m", "edm", "-d", "modes1d", *sets(*TINY)) if command == "train" else ()
        ran = bench(command, *more, "--results", trained)
        assert ran.code == 1
        assert ran.err.startswith(f"Error: {card} is not a run's card (")


def test_interrupt_has_its_exit_code(trained, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(CellWork, "compute", interrupt)
    ran = bench("sweep", "-g", "1", "-n", "4", "--metric", "w1", "--results", trained)
    assert ran.code == 130
    assert ran.err == "Stopped. Finished work is kept. Run the same command to continue.\n"


def test_published_numbers_are_found():
    from bench.cli.report import published_file

    found = published_file()
    assert found is not None
    assert Path(found).name == "published.csv"


def test_version_is_that_of_the_package():
    ran = bench("--version")
    assert (ran.code, ran.out.strip()) == (0, version("guidance-bench"))


def test_suggestions_name_the_unknown_value(tmp_path):
    ran = bench("sweep", "--method", "ct", "--results", tmp_path)
    assert "bench train --method ct" in ran.err
    ran = bench("report", "--suite", "demo", "--results", tmp_path)
    assert "bench sweep --suite demo" in ran.err


def test_metric_list_marks_default_metrics():
    ran = bench("list", "metrics")
    assert ran.code == 0
    lines = ran.out.splitlines()
    listed = {line.split()[0]: " ".join(line.split()[1:3]) for line in lines}
    said = {True: "by default", False: "on request"}
    assert listed == {name: said[metric.default] for name, metric in METRICS.items()}
    assert list(listed.values()) == sorted(listed.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_interrupt_raised_as_another_error_is_reported_as_interrupt(monkeypatch, capsys, number):
    def half_imported(**_):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt:
            raise RecursionError("an import that was cut in two") from None

    monkeypatch.setattr(cli, "parser", lambda: half_imported)
    before = signal.getsignal(number)
    # A background job of a shell starts with Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert (end.value.code, capsys.readouterr().err) == (130, f"{cli.STOPPED}\n")
    assert number == signal.SIGINT or signal.getsignal(number) is before
