"""Training runs: what is asked for, the card on disk, and how the two are compared."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from bench.data import Dataset
from bench.data.find import find_dataset, has_dataset
from bench.data.stand_in import RandomImages
from bench.experiment.place import DEFAULT_PRECISION, Experiment
from bench.system.errors import OF_PLUGIN, UserError, check_name, explain, unknown
from bench.system.files import read_whole, write_text
from methods import METHODS, Method, Preset, Settings, TrainSettings
from methods.spec import DataSpec

CARD = "run.json"
WEIGHTS = "model.safetensors"
IMPORTED = "imported"
"""In the place of a preset's name: the weights come from a file, and nothing is trained."""
UNSAID = ("init_run", "init_checkpoint", "teacher_run", "teacher_checkpoint", "precision")
"""What a suite does not say of a run."""
_NOT_SETTINGS = {"provenance", "name", "steps", "shape", "num_classes"}

_MOST_CHANNELS, _MOST_BLOCKS = 1 << 13, 1000


class RunCard(BaseModel):
    """What decides the weights of a run; lies beside them as run.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    method: str
    dataset: str
    data_hash: str
    """'' where it is not known what the weights were trained on."""
    shape: tuple[Annotated[int, Field(ge=1, le=1 << 14)], ...] = Field((), max_length=3)
    """Of the data, with `num_classes`, so that a run can be sampled where its data is not."""
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
        """What two runs must share to be the same run, flattened to dotted names."""
        kept = self.model_dump(mode="json", exclude=_NOT_SETTINGS)
        return dict(_flatten(kept))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found += _flatten(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def method_class(name: str) -> type[Method[Any]]:
    """The registered method, or a UserError with the closest match."""
    if name not in METHODS:
        raise unknown("method", name, METHODS, OF_PLUGIN)
    return METHODS[name]


def dataset_or_stand_in(card: RunCard) -> Dataset:
    """The data set of a run or, where it is not here, its shape with random content.

    UserError where neither is known. For what needs no real images, such as sampling.
    """
    if has_dataset(card.dataset) or not card.shape:
        return find_dataset(card.dataset)
    return RandomImages(DataSpec(card.dataset, card.shape, card.num_classes))


def find_preset(
    method: type[Method[Any]], spec: DataSpec, preset: str | None
) -> tuple[str, Preset]:
    """The preset by name, by default the one named like the data set."""
    name = preset or spec.name
    if name in method.presets:
        found = method.presets[name]
        if not found.fits(spec):
            images = "" if found.shape is None else f" and other images of shape {found.shape}"
            raise UserError(
                f"Preset {name!r} of {method.name} is for the data set {found.dataset!r}{images}, "
                f"not {spec.name!r} {spec.shape}; leave one of the two options away.",
                code=2,
            )
        return name, found
    if preset is None:
        fitting = sorted(name for name, p in method.presets.items() if p.fits(spec))
        have = sorted({p.dataset for p in method.presets.values()})
        raise UserError(
            f"Method {method.name!r} has no preset for the data set {spec.name!r}; "
            + (
                f"these fit its images, name one with --preset: {', '.join(fitting)}."
                if fitting
                else f"it has some for: {', '.join(have) or 'none'}."
            ),
            code=2,
        )
    raise unknown(f"preset of {method.name}", preset, method.presets)


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` strings, values as JSON or else as text, to {dotted key: value}."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(
                f"--set takes key=value, such as train.iterations=500, got {pair!r}.", code=2
            )
        try:
            found[key.strip()] = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, or too deep or long a number
            found[key.strip()] = text
    return found


def _override(tree: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        names = [name for name, _ in _flatten(tree)]
        raise unknown("setting", key, names)
    node[last] = value


def make_card(
    method: str,
    *,
    data: Dataset,
    preset: str | None = None,
    seed: int = 0,
    name: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    precision: str = DEFAULT_PRECISION,
    init_run: str = "",
    init_checkpoint: str = "",
    teacher_run: str = "",
    teacher_checkpoint: str = "",
) -> RunCard:
    """The card of a run that is asked for, with every setting resolved and checked."""
    cls = method_class(method)
    preset_name, found = find_preset(cls, data.spec, preset)
    tree: dict[str, Any] = found.config.model_dump(mode="json")
    if found.train is not None:
        tree["train"] = found.train.model_dump(mode="json")
    for key, value in (overrides or {}).items():
        _override(tree, key, value)
    train_tree = tree.pop("train", None)
    try:
        config = cls.config_type.model_validate(tree)
        train = None if train_tree is None else TrainSettings.model_validate(train_tree)
        cls(config, data.spec)
    except ValidationError as error:
        raise UserError(f"Settings of {method} are not usable: {explain(error)}.", code=2) from None
    except ValueError as error:
        raise UserError(f"{method} cannot run on {data.name!r}: {error}.", code=2) from None
    return RunCard(
        name=check_name("run", name or f"{preset_name}-{method}-s{seed}"),
        method=method,
        dataset=data.name,
        data_hash=data.train.hash,
        shape=data.spec.shape,
        num_classes=data.spec.num_classes,
        preset=preset_name,
        config=config.model_dump(mode="json"),
        train=train,
        steps=found.steps,
        seed=seed,
        precision=precision,
        init_run=init_run,
        init_checkpoint=init_checkpoint,
        teacher_run=teacher_run,
        teacher_checkpoint=teacher_checkpoint,
    )


def make_method(card: RunCard, data: Dataset) -> Method[Any]:
    """The method of a card, with the card's configuration."""
    cls = method_class(card.method)
    try:
        config: Settings = cls.config_type.model_validate(card.config)
    except ValidationError as error:
        raise UserError(
            f"Run {card.name!r} has settings that this version of {card.method} does not take: "
            f"{explain(error)}."
        ) from None
    return cls(config, data.spec)


def write_card(folder: Path, card: RunCard) -> None:
    """Write run.json."""
    write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")


def read_card(folder: Path) -> RunCard:
    """Read run.json; a damaged one is a UserError that names the file."""
    path = folder / CARD
    try:
        card = RunCard.model_validate_json(read_whole(path))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except ValidationError as error:
        raise UserError(
            f"{path} is not a run's card ({explain(error)}); restore it, or remove the folder "
            "and train again."
        ) from None
    # Rows, samples and edits go to folders of this name.
    check_name("run", card.name)
    _check_sizes(card.config, path)
    return card


def _check_sizes(config: Mapping[str, Any], path: Path) -> None:
    """UserError for a network of a card that no memory could hold."""
    net = config.get("net", {})
    for name, value in net.items() if isinstance(net, Mapping) else ():
        most = _MOST_BLOCKS if name.endswith("blocks") else _MOST_CHANNELS
        sizes = value if isinstance(value, list) else [value]
        if any(isinstance(size, int | float) and size > most for size in sizes):
            raise UserError(
                f"{path} has a network with {name} = {value}, above the {most:,} that are allowed; "
                "restore it, or remove the folder and train again."
            )


def differences(there: RunCard, here: RunCard, ignore: Container[str] = ()) -> str:
    """The settings in which two cards differ, '' where they agree, without those to `ignore`."""
    old, new = _completed(there).settings(), _completed(here).settings()
    names = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    return "; ".join(
        f"{k} is {old.get(k)!r} there, {new.get(k)!r} here" for k in names if k not in ignore
    )


def _completed(card: RunCard) -> RunCard:
    """`card` with the defaults of settings that its method has got since it was written."""
    if card.method not in METHODS:
        return card
    try:
        config = METHODS[card.method].config_type.model_validate(card.config)
    except ValidationError:
        return card
    return card.model_copy(update={"config": config.model_dump(mode="json")})


def trained_as_asked(card: RunCard, experiment: Experiment) -> RunCard | None:
    """The card on disk of a run that a suite asks for, or None while it is not trained.

    UserError if it was trained with other settings.
    """
    folder = experiment.runs / card.name
    if not (folder / WEIGHTS).exists():
        return None
    trained = read_card(folder)
    other = differences(trained, card, UNSAID)
    if other:
        raise UserError(
            f"Run {card.name!r} was not trained as the suite says ({other}): give the "
            f"suite its own experiment, or remove {folder} and train again."
        )
    return trained


def claim(folder: Path, card: RunCard) -> None:
    """Make `folder` the run's, or check that it already is; other settings are a UserError."""
    check_claim(folder, card)
    if not (folder / CARD).exists():
        write_card(folder, card)


def check_claim(folder: Path, card: RunCard) -> None:
    """UserError if `folder` is another run's."""
    if not (folder / CARD).exists():
        return
    there = read_card(folder)
    if there.preset == IMPORTED != card.preset:
        raise UserError(
            f"Run {card.name!r} was imported from {there.provenance.get('imported_file', 'a file')}"
            f" and is not trained here: give this one its own --name, or remove {folder}."
        )
    differing = differences(there, card)
    if differing:
        raise UserError(
            f"Run {card.name!r} exists with other settings ({differing}): give this one its own "
            f"--name, or remove {folder}."
        )


def unregistered(card: RunCard) -> str | None:
    """Why a run cannot be used because a plugin is not loaded, or None."""
    if card.method not in METHODS:
        return f"its method {card.method!r} is not registered; name its plugin with --plugin"
    if not has_dataset(card.dataset):
        return (
            f"its data set {card.dataset!r} is not registered; name its plugin with --plugin, or "
            "prepare it again with bench data prepare"
        )
    return None


def trained_runs(experiment: Experiment) -> list[RunCard]:
    """The cards of all runs of an experiment, by name."""
    if not experiment.runs.is_dir():
        return []
    folders = sorted(f for f in experiment.runs.iterdir() if (f / CARD).exists())
    return [read_card(folder) for folder in folders]
