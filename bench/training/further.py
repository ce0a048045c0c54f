"""Training a run further than its card says: `bench train --run NAME --iterations N`."""

from __future__ import annotations

from pathlib import Path

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.experiment.place import Experiment
from bench.system.errors import UserError, unknown
from bench.system.failures import explained
from bench.training.card import (
    WEIGHTS,
    RunCard,
    method_class,
    read_card,
    trained_runs,
    write_card,
)
from bench.training.checkpoint import STATE, TrainingState, load_weights, save_state
from bench.training.initial import Teacher, find_weights, make_teacher, teacher_card
from bench.training.lock import lock_folder
from bench.training.loop import train
from bench.training.processes import leader_first, lost_process_explained
from bench.training.study import Trainer


def card_to_continue(experiment: Experiment, name: str, iterations: int | None) -> RunCard:
    """The card of a run with this many iterations, by default its own.

    UserError if there is no such run, if it was not trained here, or if it has more iterations.
    """
    cards = {card.name: card for card in trained_runs(experiment)}
    if name not in cards:
        raise unknown("run", name, cards)
    card = cards[name]
    if card.train is None:
        raise UserError(
            f"Run {name!r} was not trained here, so there are no settings to continue with. Start "
            f"a run from its weights: bench train --method {card.method} --init-from {name}.",
            code=2,
        )
    if iterations is None or iterations == card.train.iterations:
        return card
    if iterations < card.train.iterations:
        raise UserError(
            f"Run {name!r} has {card.train.iterations} iterations already: --iterations is their "
            "number at the end, and must be larger.",
            code=2,
        )
    longer = card.train.model_copy(update={"iterations": iterations})
    before = card.provenance.get("iterations_before")
    history = f"{before}, {card.train.iterations}" if before else f"{card.train.iterations}"
    return card.model_copy(
        update={"train": longer, "provenance": {**card.provenance, "iterations_before": history}}
    )


def train_further(card: RunCard, trainer: Trainer) -> None:
    """Train a run until it has the iterations of `card`, which is that of `card_to_continue`.

    A finished run has only the average of its weights. Training continues from this average, with
    an optimiser without memory, at the next step: learning rate, averaging, noise levels and random
    draws are those of these steps in a training of the new length. The earlier weights are kept as
    "model.N.safetensors". An unfinished run continues from its checkpoint exactly.
    """
    folder = trainer.experiment.runs / card.name
    data = find_dataset(card.dataset)
    if card.data_hash not in ("", data.train.hash):
        raise UserError(
            f"Run {card.name!r} was trained on other images than {card.dataset!r} has now."
        )
    teacher = _teacher(card, data, trainer)
    with leader_first(trainer.fabric) as leads:
        if leads:
            _reopen(folder, card)
    what = f"Training of {card.name} stopped in {folder}"
    with explained(what), lost_process_explained(trainer.fabric):
        train(
            card, data, folder, fabric=trainer.fabric, reporter=trainer.reporter, teacher=teacher,
            compiler=trainer.compiler, on_nan=trainer.on_nan,
            loggers=trainer.loggers,
        )  # fmt: skip


def _reopen(folder: Path, card: RunCard) -> None:
    """Turn a finished run into an unfinished one of more iterations; nothing is lost in between.

    The checkpoint comes first, and the weights go before the card changes: at any moment the run
    is the finished one, or can be continued.
    """
    with lock_folder(folder, card.name):
        there = read_card(folder)
        if there.train == card.train or there.train is None:
            return
        weights = folder / WEIGHTS
        if weights.exists():
            done = there.train.iterations
            # Without an average of its own, the one of this state starts from its weights.
            save_state(folder / STATE, TrainingState(done, load_weights(weights), {}, {}))
            weights.rename(folder / f"{weights.stem}.{done}{weights.suffix}")
        write_card(folder, card)


def _teacher(card: RunCard, data: Dataset, trainer: Trainer) -> Teacher | None:
    """The teacher of a run that distils one; UserError if it has changed."""
    cls = method_class(card.method)
    if cls.wants_teacher is None:
        return None
    found = find_weights("--teacher", card.teacher_run, trainer.experiment)
    if found.checkpoint != card.teacher_checkpoint:
        raise UserError(
            f"The teacher {card.teacher_run!r} of run {card.name!r} has changed since: train a new "
            "run from it."
        )
    network = {f"net.{name}": value for name, value in card.config.get("net", {}).items()}
    own = found.card or teacher_card(cls.wants_teacher, data, card.preset, network)
    return make_teacher(cls, own, data, found.weights, trainer.fabric.device)
