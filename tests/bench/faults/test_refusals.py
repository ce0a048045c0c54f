"""Real system errors: impossible folders, full devices, closed pipes, little memory."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from bench.system.errors import UserError
from bench.system.failures import explain_failure, explained, system_error
from bench.training.checkpoint import write_tensors
from tests.bench.faults.helpers import check_sentence
from tests.bench.faults.inject import no_file_larger
from tests.bench.helpers import TINY, TINY_IMAGES, TOY_METRICS, bench, contents, sets

ROOT = Path(__file__).resolve().parents[3]
TRAIN = ("train", "-m", "edm", "-d", "modes1d", *sets(*TINY))
FOUR_GB = 4 * 2**30


def child(*arguments, bytes_of_memory=None, **more):
    """Run `bench` in a separate process."""

    def limit():
        if bytes_of_memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (bytes_of_memory, bytes_of_memory))

    return subprocess.run(
        [sys.executable, "-m", "bench.cli", *map(str, arguments)],
        cwd=ROOT, text=True, check=False, preexec_fn=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
    )  # fmt: skip


def in_the_way(tmp_path):
    file = tmp_path / "file"
    file.write_text("somebody's")
    return file / "results"


@pytest.mark.parametrize("place", [in_the_way, lambda _: Path("/proc/results")])
def test_impossible_folder_is_one_sentence_for_every_command(place, trained, tmp_path):
    where = place(tmp_path)
    before = contents(trained)
    own = ("--results", trained)
    name = "modes1d-edm-s0"
    for command in (
        (*TRAIN, "--results", where),
        ("sweep", "-m", "oracle", "-d", "modes1d", "-n", "10", *TOY_METRICS, "--results", where),
        ("report", "--results", where),
        ("sample", "--run", name, "-n", "4", "--out", where / "s.npz", *own),
        ("import", trained / "default" / "runs" / name / "model.safetensors", "-m", "edm",
         "--dataset", "modes1d", "--as", "in", "--results", where),
        ("evaluate", where, "--reference", where),
        ("data", "prepare", where, "--data-root", where),
    ):  # fmt: skip
        ran = bench(*command)
        check_sentence(ran)
        assert "--help" not in ran.err, ran.err
    assert contents(trained) == before


def test_samples_into_a_device_that_is_full(trained):
    ran = bench(
        "sample", "--run", "modes1d-edm-s0", "-n", "4", "--format", "npz", "--out", "/dev/full/s",
        "--results", trained,
    )  # fmt: skip
    check_sentence(ran, "/dev/full")
    assert Path("/dev/full").is_char_device()


def test_output_that_nobody_takes():
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ran = child("list", "methods", stdout=full)
    assert ran.returncode == 1
    assert ran.stderr.startswith("Error: No space left on device. ")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.long
def test_output_into_a_closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = child("list", "methods", stdout=writer)
    finally:
        os.close(writer)
    assert ran.returncode == 1
    assert ran.stderr == ""


@pytest.mark.long
def test_sweep_in_four_gigabytes_of_address_space(tmp_path):
    ran = bench(
        "train", "-m", "edm", "-d", "digits", *sets(*TINY_IMAGES), "--results", tmp_path / "r"
    )
    assert ran.code == 0
    swept = child(
        "sweep", "-g", "1,2", "-n", "20", "--steps", "2", "--metric", "fd", "--device",
        "cpu", "--results", tmp_path / "r", bytes_of_memory=FOUR_GB,
    )  # fmt: skip
    assert "Traceback" not in swept.stderr
    assert swept.returncode == 0, swept.stderr
    assert "2 cells computed" in swept.stdout


def test_too_little_memory_is_one_sentence(trained, monkeypatch):
    from bench.sweep import sampler

    def too_large(*_, **__):
        torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(sampler, "sampled", too_large)
    ran = bench(
        "sample", "--run", "modes1d-edm-s0", "-n", "4", "--results", trained, "--device", "cpu"
    )
    check_sentence(ran, "Out of memory.", "--batch")


def test_tensors_that_find_no_room_name_their_file(tmp_path):
    path = tmp_path / "x.safetensors"
    with no_file_larger(100), pytest.raises(OSError, match="File too large") as caught:
        write_tensors(path, {"x": torch.zeros(1000)}, {})
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(28, "No space left", "/a/.g2.json.ab12cd34"), "left: /a/g2.json."),
        (OSError(28, "No space left", "a/.w.st.0a1b2c3d.writing/x"), "left: a/w.st."),
        (PermissionError(13, "Permission denied", "b"), "denied: b. Get write permission"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "device. Free"),
        (MemoryError(), "Out of memory."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "Out of memory."),
        (ImportError("x.so: failed to map segment: Cannot allocate memory"), "Out of memory."),
        (ValueError("no such thing"), None),
    ],
)  # fmt: skip
def test_system_error_is_recognised(error, says):
    found = explain_failure(error)
    assert (found is None) if says is None else (says in found)


def test_system_error_is_found_behind_its_consequence():
    try:
        try:
            raise OSError(28, "No space left on device", "x.zip")
        except OSError:
            raise ValueError("the archive was not closed") from None
    except ValueError as error:
        found = system_error(error)
    assert found is not None
    assert found.filename == "x.zip"
    with pytest.raises(KeyError), explained("Training"):
        raise KeyError("a mistake of the program stays one")
    says = pytest.raises(UserError, match=r"^Training: No space left on device: x. Free some")
    with says, explained("Training"):
        raise OSError(28, "No space left on device", "x")
