"""The networks in a checkpoint's content, and the one that is taken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data.pickle_values import MAX_SIZE, Named
from bench.system.errors import UserError, counted, shown
from bench.training.importing.official import Arguments, Collected, Module, collect
from bench.training.importing.tensors import View

KEYS = ("ema", "net", "model", "state_dict")
DEEPEST = 4
LISTED = 20
_EMA = re.compile(r"(?:^|[^a-z])emas?(?:[^a-z]|$)|averaged|shadow", re.IGNORECASE)
_WRAPPERS = ("module", "_orig_mod")
"""Names that DistributedDataParallel and torch.compile put before those of a network."""
_MARKS = {
    "map_layer0.weight": (("model", "enc", "dec"), "model."),
    "emb_noise.weight": (("unet",), "unet."),
    "x_embedder.proj.weight": ((), ""),
}
"""A parameter that every U-Net of EDM, every one of EDM2, and every transformer has; the names of
modules that hold such a network, and the one that a network without its module gets."""
TRAINING_ONLY = "projectors."
"""Parameters of transformers that serve only REPA's loss."""
_BUFFERS = ("resample_filter", "freqs", "phases")


@dataclass(frozen=True)
class Candidate:
    """A network in a checkpoint, under the dotted `name` ('' for the whole file)."""

    name: str
    views: Mapping[str, View]
    class_name: str = ""
    arguments: Arguments = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    """Tensors of the same state dict that are not the network's, or serve only its training."""

    @property
    def is_ema(self) -> bool:
        """Whether its name says that it is a moving average."""
        return _is_ema(self.name)

    def __str__(self) -> str:
        kind = self.class_name or "state dict"
        tensors = counted(len(self.views), "tensor")
        return f"{shown(self.name) or 'the whole file'!r} ({kind}, {tensors})"


def choose(path: Path, content: object, key: str | None) -> tuple[Candidate, tuple[str, ...]]:
    """The network of a file, and sentences about what was left out.

    `key` names one; None: the only moving average of weights (EMA), or else the only network.
    """
    found, averages = _candidates(content)
    found = found or [_fallback(path, content)]
    if key is None:
        fitting = [c for c in found if c.is_ema] or found
    else:
        fitting = [c for c in found if c.name == key]
        fitting = fitting or [c for c in found if c.name.startswith(f"{key}.")]
        if not fitting:
            raise UserError(f"{path} has no network under {key!r}. It has {_list(found)}.", code=2)
    if len(fitting) > 1:
        raise UserError(f"{path} has {_list(fitting)}: name one with --key.", code=2)
    [taken] = fitting
    notes = []
    if not taken.is_ema:
        others = [c.name for c in found if c.is_ema]
        if others:
            notes.append(
                f"The raw network was taken, and the file has its moving average (EMA): "
                f"--key {shown(others[0])} takes that."
            )
        elif averages:
            notes.append(
                f"The raw network was taken: the moving average (EMA) under "
                f"{shown(averages[0])!r} is no network that can be read."
            )
    if taken.beside:
        names = ", ".join(map(shown, taken.beside[:3])) + (" ..." if taken.beside[3:] else "")
        beside = counted(len(taken.beside), "tensor")
        notes.append(f"Not imported beside the network: {beside} ({names}).")
    return taken, tuple(notes)


def _list(found: list[Candidate]) -> str:
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return f"{len(found)} networks: {', '.join(map(str, found[:LISTED]))}{more}"


def _is_ema(name: str) -> bool:
    return any(_EMA.search(part) for part in name.split("."))


def _candidates(content: object) -> tuple[list[Candidate], list[str]]:
    """The networks in a file, and the names of averages that are none."""
    found: list[Candidate] = []
    averages: list[tuple[str, object]] = []
    visited = 0

    def walk(value: object, name: str, depth: int) -> None:
        nonlocal visited
        if not isinstance(value, (Module, dict, list, tuple)) or depth > DEEPEST:
            return
        visited += 1 if isinstance(value, Module) else len(value)
        if visited > MAX_SIZE:  # parts that are shared are visited wherever they are
            return
        if value and _is_ema(name):
            averages.append((name, value))
        if isinstance(value, Module):
            with suppress(UserError):  # a module that is not needed
                found.extend(_split(name, collect(value)))
        elif isinstance(value, dict):
            tensors = {k: v for k, v in value.items() if type(k) is str and isinstance(v, View)}
            found.extend(_split(name, Collected(tensors)))
            for key, part in value.items():
                walk(part, _join(name, str(key)), depth + 1)
        else:
            for index, part in enumerate(value):
                walk(part, _join(name, str(index)), depth + 1)

    walk(content, "", 0)
    named = [c.name for c in found]
    missing = [a for a in averages if not any(f"{n}.".startswith(f"{a[0]}.") for n in named)]
    raw = [c for c in found if not c.is_ema]
    for name, value in missing:
        if len(raw) == 1 and isinstance(value, (list, tuple)):
            found += _unnamed(name, value, raw[0])
    named = [c.name for c in found]
    return found, [n for n, _ in missing if not any(f"{m}.".startswith(f"{n}.") for m in named)]


def _join(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _split(name: str, content: Collected) -> Iterator[Candidate]:
    """The networks among named tensors, each without the prefix of its names."""
    prefixes: dict[str, str] = {}
    for key in content.views:
        for mark, (modules, missing) in _MARKS.items():
            if key == mark or key.endswith(f".{mark}"):
                parts = key.removesuffix(mark).split(".")[:-1]
                while parts and parts[-1] in _WRAPPERS:
                    parts.pop()
                whole = bool(parts) and parts[-1] in modules
                parts = parts[: len(parts) - whole]
                # A U-Net without its preconditioning is what others have under its module.
                prefixes["".join(f"{part}." for part in parts)] = "" if whole else missing
    for prefix, before in prefixes.items():
        inner = [p for p in prefixes if p != prefix and p.startswith(prefix)]
        own = {
            before + _bare(key.removeprefix(prefix)): view
            for key, view in content.views.items()
            if key.startswith(prefix) and not any(key.startswith(p) for p in inner)
        }
        others = [k for k in content.views if not any(k.startswith(p) for p in prefixes)]
        others += [k for k in own if k.startswith(TRAINING_ONLY)]
        own = _current({k: view for k, view in own.items() if not k.startswith(TRAINING_ONLY)})
        module = prefix.removesuffix(".")
        yield Candidate(
            _join(name, _bare(module)).strip("."),
            own,
            content.classes.get(module, ""),
            {
                _bare(key.removeprefix(module).removeprefix(".")): value
                for key, value in content.arguments.items()
                if key == module or key.startswith(prefix)
            },
            tuple(others),
        )


def _current(views: dict[str, View]) -> dict[str, View]:
    """The names of REPA's older files, which count the later blocks apart, as in newer ones."""
    first = len({k.split(".")[1] for k in views if k.startswith("blocks.")})

    def renamed(name: str) -> str:
        head, _, rest = name.partition(".")
        number, _, rest = rest.partition(".")
        if head != "decoder_blocks" or not number.isdecimal() or len(number) > 4:
            return name
        return f"blocks.{first + int(number)}.{rest}"

    return {renamed(name): view for name, view in views.items()}


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _unnamed(name: str, values: Any, raw: Candidate) -> Iterator[Candidate]:
    """An average that lists the parameters of `raw` in their order, without names."""
    buffers = {k: v for k, v in raw.views.items() if k.rpartition(".")[2] in _BUFFERS}
    names = [k for k in raw.views if k not in buffers]
    sizes = [raw.views[k].size for k in names]
    if [v.size for v in values if isinstance(v, View)] == sizes and len(values) == len(sizes):
        views = dict(zip(names, values, strict=True))
        yield Candidate(name, {**buffers, **views}, raw.class_name, raw.arguments)


def _fallback(path: Path, content: object) -> Candidate:
    """A network of an unknown kind, for a message about what does not fit."""
    key = ""
    if isinstance(content, dict):
        # A state dict is a network; anything else has one under a key.
        key = next((k for k in KEYS if isinstance(content.get(k), Module | dict)), "")
        content = content[key] if key else content
    if isinstance(content, Module):
        found = collect(content)
        return Candidate(key, found.views, content.class_name, found.arguments)
    where = f"its entry {key!r}" if key else "it"
    if not isinstance(content, dict) or not content:
        kind = f" but {shown(content.name)}" if isinstance(content, Named) else ""
        raise UserError(f"{path} has no network: {where} is neither one nor a state dict{kind}.")
    wrong = [k for k, v in content.items() if type(k) is not str or not isinstance(v, View)]
    if wrong:
        raise UserError(
            f"{path} has no network: {where} has none under {', '.join(KEYS)}, and "
            f"{str(wrong[0])[:80]!a} in it is no tensor ({len(wrong)} entries are none)."
        )
    return Candidate(key, content)
