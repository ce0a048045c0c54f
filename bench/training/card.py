"""The card of a run: made from options, kept on disk, and compared."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from bench.data import Dataset
from bench.data.find import find_dataset, has_dataset
from bench.data.stand_in import RandomImages
from bench.experiment.place import CARD as CARD
from bench.experiment.place import DEFAULT_PRECISION, Experiment
from bench.experiment.place import WEIGHTS as WEIGHTS
from bench.system.bounds import read_json
from bench.system.errors import UserError, check_name, explain, unknown, unknown_method
from bench.system.files import write_text
from bench.training.presets import find_preset
from methods import METHODS, Method, Settings, TrainSettings
from methods.latents import LatentSpec
from methods.spec import DataSpec

IMPORTED = "imported"
"""The preset of a run whose weights come from a file, without training."""
UNSAID = ("init_run", "init_checkpoint", "teacher_run", "teacher_checkpoint", "precision")
"""Settings of a run that a suite does not decide."""
_NOT_SETTINGS = {"provenance", "name", "steps", "shape", "num_classes"}
_MOST_CHANNELS, _MOST_BLOCKS = 1 << 13, 1000


class RunCard(BaseModel):
    """All that decides the weights of a run; kept next to them as run.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    method: str
    dataset: str
    data_hash: str
    """'' if the training data are unknown."""
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 14)], ...] = Field((), max_length=3)
    """Of the images; with `num_classes` it lets a run be sampled without its data."""
    num_classes: int = Field(0, ge=0, le=1 << 20)
    preset: str
    config: dict[str, Any]
    train: TrainSettings | None
    steps: tuple[PositiveInt, ...]
    seed: int = Field(ge=0, lt=1 << 63)
    precision: str = DEFAULT_PRECISION
    init_run: str = ""
    init_checkpoint: str = ""
    teacher_run: str = ""
    teacher_checkpoint: str = ""
    provenance: Mapping[str, str] = {}

    def settings(self) -> dict[str, Any]:
        """The settings that identify a run, by dotted name."""
        return dict(_flatten(self.model_dump(mode="json", exclude=_NOT_SETTINGS)))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _flatten(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def method_class(name: str) -> type[Method[Any]]:
    """The registered method; UserError with the closest match for an unknown name."""
    if name not in METHODS:
        imported = (n for n, cls in METHODS.items() if cls.trains and not cls.presets)
        raise unknown_method(name, METHODS, imported)
    return METHODS[name]


def dataset_or_stand_in(card: RunCard) -> Dataset:
    """The data set of a run or, if it is missing, random images of its shape.

    UserError if neither is known. For work that needs no real images, such as sampling.
    """
    if has_dataset(card.dataset) or not card.shape:
        return find_dataset(card.dataset)
    return RandomImages(DataSpec(card.dataset, card.shape, card.num_classes))


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """The values of `key=value` strings by dotted key, read as JSON or else as text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(
                f"--set takes key=value, such as train.iterations=500, got {pair!r}.", code=2
            )
        try:
            found[key.strip()] = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, or JSON that is too deep or too long
            found[key.strip()] = text
    return found


def _override(tree: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        raise unknown("setting", key, [name for name, _ in _flatten(tree)])
    node[last] = value


def make_card(
    method: str,
    *,
    data: Dataset,
    preset: str | None = None,
    seed: int = 0,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> RunCard:
    """The card of a run to train, with every setting resolved and checked."""
    cls = method_class(method)
    space = data.space
    preset_name, found = find_preset(cls, space, preset)
    tree: dict[str, Any] = found.config.model_dump(mode="json")
    if found.train is not None:
        tree["train"] = found.train.model_dump(mode="json")
    if isinstance(space, LatentSpec) and "clamp" in tree:
        tree["clamp"] = False  # their range is not that of images
    for key, value in (overrides or {}).items():
        _override(tree, key, value)
    train_tree = tree.pop("train", None)
    try:
        config = cls.config_type.model_validate(tree)
        train = None if train_tree is None else TrainSettings.model_validate(train_tree)
        cls(config, space)
    except ValidationError as error:
        raise UserError(f"Invalid settings of {method}: {explain(error)}.", code=2) from None
    except ValueError as error:
        raise UserError(f"{method} cannot run on {data.name!r}: {error}.", code=2) from None
    # A preset for other data: two data sets must not share a run.
    start = preset_name if found.dataset == data.name else f"{data.name}-{preset_name}"
    return RunCard(
        name=check_name("run", name or f"{start}-{method}-s{seed}"),
        method=method,
        dataset=data.name,
        data_hash=data.train.hash,
        shape=space.shape,
        num_classes=space.num_classes,
        preset=preset_name,
        config=config.model_dump(mode="json"),
        train=train,
        steps=found.steps,
        seed=seed,
    )


def config_of(card: RunCard) -> Settings:
    """The configuration in a card; UserError if this version of its method does not take it."""
    try:
        return method_class(card.method).config_type.model_validate(card.config)
    except ValidationError as error:
        raise UserError(
            f"Run {card.name!r} has settings that this version of {card.method} does not take: "
            f"{explain(error)}."
        ) from None


def decoder_name(card: RunCard) -> str:
    """The decoder that a run's own settings name, '' if they name none."""
    return str(card.config.get("decoder", ""))


def make_method(card: RunCard, data: Dataset) -> Method[Any]:
    """The method of a card with its configuration, of the latents of its decoder if it has one."""
    space = data.space
    if decoder_name(card):
        space = LatentSpec(data.name, card.shape, data.spec.num_classes)
    return method_class(card.method)(config_of(card), space)


def write_card(folder: Path, card: RunCard) -> None:
    """Write run.json."""
    write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")


def read_card(folder: Path) -> RunCard:
    """Read run.json; UserError that names the file if it is damaged."""
    path = folder / CARD
    remedy = "restore it, or remove the folder and train again"
    card = read_json(path, RunCard.model_validate_json, "a run's card", remedy)
    check_name("run", card.name)  # rows, samples and edits are in folders of this name
    _check_sizes(card.config, path)
    return card


def _check_sizes(config: Mapping[str, Any], path: Path) -> None:
    """UserError for a network that is too large for any memory."""
    net = config.get("net", {})
    for name, value in net.items() if isinstance(net, Mapping) else ():
        most = _MOST_BLOCKS if name.endswith("blocks") else _MOST_CHANNELS
        sizes = value if isinstance(value, list) else [value]
        if any(isinstance(size, int | float) and size > most for size in sizes):
            raise UserError(
                f"{path} has a network with {name} = {value}, more than the allowed {most:,}: "
                "restore it, or remove the folder and train again."
            )


def differences(there: RunCard, here: RunCard, ignore: Container[str] = ()) -> str:
    """The settings in which two cards differ, '' if in none; those to `ignore` do not count."""
    old, new = _completed(there).settings(), _completed(here).settings()
    names = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    return "; ".join(
        f"{k} is {old.get(k)!r} there, {new.get(k)!r} here" for k in names if k not in ignore
    )


def _completed(card: RunCard) -> RunCard:
    """`card` with the defaults of settings that its method gained since it was written."""
    if card.method not in METHODS:
        return card
    try:
        config = METHODS[card.method].config_type.model_validate(card.config)
    except ValidationError:
        return card
    return card.model_copy(update={"config": config.model_dump(mode="json")})


def trained_as_asked(card: RunCard, experiment: Experiment) -> RunCard | None:
    """The card on disk of a suite's run, or None if it is not trained.

    UserError if it was trained with other settings.
    """
    folder = experiment.runs / card.name
    if not (folder / WEIGHTS).exists():
        return None
    trained = read_card(folder)
    other = differences(trained, card, UNSAID)
    if other:
        raise UserError(
            f"Run {card.name!r} was not trained as the suite says ({other}): use another "
            f"--experiment, or remove {folder} and train again."
        )
    return trained


def check_claim(folder: Path, card: RunCard) -> None:
    """UserError if `folder` belongs to another run."""
    if not (folder / CARD).exists():
        return
    there = read_card(folder)
    if there.preset == IMPORTED != card.preset:
        raise UserError(
            f"Run {card.name!r} was imported from {there.provenance.get('imported_file', 'a file')}"
            f" and is not trained here: use another --name, or remove {folder}."
        )
    differing = differences(there, card)
    if differing:
        raise UserError(
            f"Run {card.name!r} exists with other settings ({differing}): use another --name, or "
            f"remove {folder}."
        )


def unregistered(card: RunCard) -> str | None:
    """The reason why a run cannot be used if its method or data set is not registered, or None."""
    if card.method not in METHODS:
        return f"its method {card.method!r} is not registered; name its plugin with --plugin"
    if not has_dataset(card.dataset):
        return (
            f"its data set {card.dataset!r} is not registered; name its plugin with --plugin, or "
            "prepare it again with bench data prepare"
        )
    return None


def locate_weights(
    option: str, name: str, experiment: Experiment, *methods: str, also: str = ""
) -> tuple[Path, RunCard | None]:
    """The weights of a finished run of this experiment, of any run's folder, or a file's.

    With the run's card; None for a file. `option`, `methods` and `also` are for the message if
    there is none: the option that got `name`, the runs to list, and another valid name.
    """
    for folder in (experiment.runs / name, Path(name)):
        if (folder / CARD).exists():
            if not (folder / WEIGHTS).exists():
                raise UserError(f"Run {name!r} is unfinished: train it to the end first.")
            return folder / WEIGHTS, read_card(folder)
    path = Path(name)
    if path.suffix == ".safetensors" and path.is_file():
        return path, None
    runs = [c.name for c in trained_runs(experiment) if not methods or c.method in methods]
    kind = f"{methods[0]} run" if len(methods) == 1 else "fitting run" if methods else "run"
    raise UserError(
        f"{option} {name!r} is no {kind} of this experiment (it has: {', '.join(runs) or 'none'}), "
        f"no run's folder and no .safetensors file{also}.",
        code=2,
    )


def trained_runs(experiment: Experiment) -> list[RunCard]:
    """The cards of all runs of an experiment, by name."""
    if not experiment.runs.is_dir():
        return []
    folders = sorted(f for f in experiment.runs.iterdir() if (f / CARD).exists())
    return [read_card(folder) for folder in folders]
