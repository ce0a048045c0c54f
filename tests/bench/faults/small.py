"""Small, quick commands; D stands for the folder that can fail, S for the sound one."""

from pathlib import Path

from tests.bench.helpers import TINY, sets

TRAIN = ("train", "-m", "edm", "-d", "modes1d", *sets(*TINY, "train.checkpoint_every=5"))
SWEEP = ("sweep", "-m", "edm", "-n", "20", "--metric", "w1", "--steps", "4", "--device", "cpu")
TUNE = (
    "tune", "-m", "edm", "--rule", "apg", "--budget", "3", "-g", "2", "-n", "16", "--steps", "2",
    "--metric", "w1", "--device", "cpu", "--results", "D",
)  # fmt: skip
SAMPLE = ("sample", "-n", "4", "--steps", "2", "--device", "cpu")
EVALUATE = (
    "evaluate", "S/a.npz", "-r", "S/b.npz", "--metric", "fd", "--out", "D/x/e.json",
    "--results", "D",
)  # fmt: skip
STATS = (
    "stats", "make", "S/a.npz", "-x", "identity", "--format", "clean-fid", "--out", "D",
    "--results", "D",
)  # fmt: skip
REPORT = ("report", "--results", "D")


def placed(command: tuple[object, ...], sound: Path, folder: Path) -> list[object]:
    """The command with D and S replaced by the folders."""
    ends = {"D": folder, "S": sound}
    words = [str(a).partition("/") for a in command]
    return [
        ends[first] / rest if first in ends else a
        for a, (first, _, rest) in zip(command, words, strict=True)
    ]
