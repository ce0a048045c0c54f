"""Loggers of Lightning Fabric beside log.jsonl, which stays the record: TensorBoard and wandb."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from pydantic import BaseModel, ValidationError

from bench.system.errors import UserError, said, unknown
from bench.training.card import RunCard
from bench.training.grids import Picture
from bench.training.processes import leader_first
from bench.training.watch import Stopped, logged

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOGGERS = ("tensorboard", "wandb")
PLACE = "written.json"
PROJECT = "guidance-bench"
"""Project of wandb, if WANDB_PROJECT names no other."""


def check_loggers(names: Iterable[str]) -> tuple[str, ...]:
    """The loggers, each once; UserError for an unknown one, or if its package is missing."""
    for name in (found := tuple(dict.fromkeys(names))):
        if name not in LOGGERS:
            raise unknown("logger", name, LOGGERS)
        try:
            if name == "wandb":
                import wandb  # noqa: F401
            else:
                import tensorboard  # noqa: F401
        except ImportError:
            raise UserError(
                f"--log {name} needs the package {name}: pip install 'guidance-bench[{name}]'.",
                code=2,
            ) from None
    return found


class TensorBoard(TensorBoardLogger):
    """Event files in the folder "tensorboard" of a run."""

    def __init__(self, folder: Path, first: int) -> None:
        # Steps from `first` on that are in earlier files are hidden.
        super().__init__(folder, name="tensorboard", version="", purge_step=first)

    def log_picture(self, name: str, picture: Picture, step: int) -> None:
        """Add a picture."""
        cast(Any, self.experiment).add_image(name, picture, step, dataformats="HWC")


class Wandb(Logger):
    """A run of Weights & Biases, with its local files in the folder "wandb" of a run."""

    def __init__(self, folder: Path, card: RunCard, key: str) -> None:
        import wandb

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=card.name,
                id=key,
                resume="allow",
                dir=folder,
                config=card.settings(),
                settings=wandb.Settings(console="off"),
            )
        except wandb.Error as error:
            raise UserError(
                f"wandb did not start ({said(error)}): type wandb login, or set WANDB_MODE=offline."
            ) from None

    @property
    def name(self) -> str:
        """The name of the project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """The id of the run."""
        return str(self._run.id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the values of a step."""
        self._run.log(dict(metrics), step=step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Add settings."""
        self._run.config.update(params)

    def log_picture(self, name: str, picture: Picture, step: int) -> None:
        """Add a picture."""
        import wandb

        self._run.log({name: wandb.Image(picture.squeeze())}, step=step)

    def finalize(self, status: str) -> None:
        """End the run."""
        self._run.finish(exit_code=int(status == "failed"))


class Place(BaseModel):
    """How far a logger has written, kept in its folder."""

    next: int = 0
    """The first step that it has not got."""
    attempt: int = 0
    """Rollbacks of the training before these steps."""
    key: str = ""
    """The id in wandb."""


class RunLogger:
    """One logger of a training, which gets every step of log.jsonl once."""

    def __init__(self, name: str, folder: Path, card: RunCard, first: int, attempt: int) -> None:
        self._path = folder / name / PLACE
        try:
            self._place = Place.model_validate_json(self._path.read_bytes())
        except (FileNotFoundError, ValidationError):
            self._place = Place()
        self.logger: TensorBoard | Wandb
        if name == "tensorboard":
            self._place.next = min(self._place.next, first)
            self.logger = TensorBoard(folder, self._place.next)
        else:
            # A step in wandb is final. Repeated steps are the same, except after a rollback.
            if self._place.attempt != attempt or not self._place.key:
                self._place = Place(attempt=attempt, key=secrets.token_hex(4))
            self.logger = Wandb(folder, card, self._place.key)
        self._first = self._place.next

    def write(self, by_step: Mapping[int, Mapping[str, float]]) -> None:
        """Add the terms of steps, unless it has them."""
        for step, terms in by_step.items():
            if step >= self._place.next:
                self.logger.log_metrics(dict(terms), step)
                self._place.next = step + 1
        # Not synced to disk: after a power cut without it, all steps are written again elsewhere.
        part = self._path.with_suffix(".part")
        part.parent.mkdir(exist_ok=True)
        part.write_text(self._place.model_dump_json(), encoding="utf-8")
        part.replace(self._path)

    def show(self, step: int, pictures: Iterable[tuple[float, Picture]]) -> None:
        """Add samples of the network after a step, by guidance scale, unless it has them."""
        if step >= self._first:
            for scale, picture in pictures:
                self.logger.log_picture(f"samples/g={scale:g}", picture, step)


@contextmanager
def open_loggers(
    names: Sequence[str], card: RunCard, log: Path, first: int, attempt: int, fabric: Fabric
) -> Iterator[list[RunLogger]]:
    """Loggers of a training that continues at step `first`, in its first process; others get none.

    They get the steps of `log` that they miss, all before `first`. `attempt` counts the rollbacks.
    """
    status = "failed"
    found: list[RunLogger] = []
    try:
        with leader_first(fabric) as leads:
            if leads and names:
                text = log.read_text("utf-8", "replace") if log.exists() else ""
                before = dict(entry for entry in map(logged, text.splitlines()) if entry)
                for name in names:
                    found.append(RunLogger(name, log.parent, card, first, attempt))
                    found[-1].write(before)
        yield found
        status = "success"
    except Stopped:
        status = "aborted"
        raise
    finally:
        for each in found:
            each.logger.finalize(status)
