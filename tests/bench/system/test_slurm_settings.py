"""What --slurm takes, and what Slurm's answers mean; the rest needs a cluster (tests/cluster)."""

import subprocess
from pathlib import Path

import pytest

from bench.system.errors import UserError
from bench.system.launch import Call, Slurm, slurm
from bench.system.launch.slurm import Job, parse_minutes, queue, task_states
from tests.bench.helpers import bench


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), (90, 90), ("1:30:00", 90), ("30:00", 30), ("2-12", 3600), ("1-1:30:00", 1530),
     ("0:30", 1)],
)  # fmt: skip
def test_times_are_read_as_sbatch_reads_them(text: object, minutes: int) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partion": "gpu"}, "Unknown setting of Slurm: partion. Available: account, "),
        ({"time": "soon"}, "Slurm's time is minutes, H:MM:SS or D-HH:MM:SS, got 'soon'."),
        ({"time": "0"}, "Slurm's time is minutes"),
        ({"gpus_per_node": "many"}, "gpus_per_node is a positive whole number, got 'many'."),
        ({"array_parallelism": True}, "array_parallelism is a positive whole number"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Slurm(settings)


def _answers(monkeypatch: pytest.MonkeyPatch, code: int, out: str, err: str = "") -> None:
    done = subprocess.CompletedProcess([], code, out, err)
    monkeypatch.setattr(slurm.subprocess, "run", lambda *_, **__: done)


def test_states_of_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = Job(tmp_path, "7", 3, (), "", False)
    _answers(monkeypatch, 0, "0 RUNNING None\n2 PENDING Resources\n")
    assert task_states("7") == {1: "RUNNING None", 3: "PENDING Resources"}
    assert queue(job) == "Slurm job 7: 1 of 3 workers run, 1 wait (Resources)."
    _answers(monkeypatch, 0, "N/A RUNNING None\n")  # one worker is no array
    assert task_states("7") == {1: "RUNNING None"}
    _answers(monkeypatch, 1, "", "slurm_load_jobs error: Invalid job id specified")
    assert task_states("7") == {}
    assert "has ended" in queue(job)
    _answers(monkeypatch, 1, "", "slurm_load_jobs error: Unable to contact slurm controller")
    assert task_states("7") is None
    assert "does not answer" in queue(job)


def test_missing_slurm_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(slurm.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"There is no Slurm here \(no sbatch\)"):
        Slurm({}).start(Call([], tmp_path), [1])


def test_options_of_a_cluster_need_it(tmp_path: Path) -> None:
    for options, message in (
        (("--nodes", "2"), "--nodes and --gpus need a launcher that starts processes on them"),
        (("--detach", "--workers", "2"), "Workers of launcher 'local' stop with their command"),
        (("--launcher", "local", "--slurm", "time=5"), "--slurm is for --launcher slurm"),
    ):
        ran = bench("train", "-m", "edm", "-d", "modes1d", *options, "--results", tmp_path)
        assert ran.code == 2
        assert message in ran.err
