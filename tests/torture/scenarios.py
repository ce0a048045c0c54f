"""The commands that are started and killed, and their initial trees."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.data.makers import image_tree, write_folder
from tests.bench.training.importing.official import write_golden

RUN = ("--device", "cpu", "--results", "results")
TRAIN = (
    "train", "-m", "edm", "-d", "modes1d", "--set", "train.iterations=60",
    "--set", "train.batch=32", "--set", "net.width=16", "--set", "net.blocks=1", *RUN,
)  # fmt: skip
EVERY = ("--set", "train.checkpoint_every=10")
SWEEP = (
    "sweep", "-m", "edm", "-g", "1,2,3,4", "-n", "64", "--metric", "w1", "--metric", "shift",
    "--metric", "fd", "--save-samples", "npz", *RUN,
)  # fmt: skip
PLAIN = ("--results", "results")
IMAGES = (
    "train", "-m", "edm", "-d", "digits", "--set", "train.iterations=2", "--set", "train.batch=4",
    "--set", "net.channels=8", "--set", "net.channel_mult=[1,1]", *RUN,
)  # fmt: skip
PNG = (
    "sample", "--run", "digits-edm-s0", "-n", "40", "-g", "2", "--steps", "2", "--batch", "10",
    "--out", "pictures", *RUN,
)  # fmt: skip


def _nothing(tree: Path) -> None:
    pass


def _source(tree: Path) -> None:
    write_folder(tree / "pictures", image_tree(per_class=8))


def _checkpoint(tree: Path) -> None:
    write_golden(tree / "net.pkl", "edm_ncsnpp", "EDMPrecond")


@dataclass(frozen=True)
class Scenario:
    """A command, the undisturbed commands before it, and its share of all kills."""

    arguments: tuple[str, ...]
    share: int
    before: tuple[tuple[str, ...], ...] = ()
    setup: Callable[[Path], None] = _nothing
    checkpoints: bool = False
    """Whether the command writes a checkpoint on a signal other than SIGKILL."""
    workers: bool = False
    """Whether it starts workers, whose files no shim follows: no power cuts."""


SCENARIOS: dict[str, Scenario] = {
    "train": Scenario((*TRAIN, *EVERY), 8, checkpoints=True),
    "sweep": Scenario(SWEEP, 5, ((*TRAIN, *EVERY),)),
    "trains": Scenario(
        (*TRAIN, *EVERY, "-m", "ct", "-m", "igct", "--workers", "2"), 2, workers=True
    ),
    "sweeps": Scenario((*SWEEP, "--workers", "2"), 2, ((*TRAIN, *EVERY),), workers=True),
    "prepare": Scenario(("data", "prepare", "pictures", "--dataset", "tiny"), 3, setup=_source),
    "import": Scenario(
        ("import", "net.pkl", "--as", "taken", "-d", "golden16", *PLAIN), 2, setup=_checkpoint
    ),
    "sample": Scenario(PNG, 2, (IMAGES,)),
    "report": Scenario(("report", *PLAIN), 1, ((*TRAIN, *EVERY), SWEEP)),
}
