"""The method and architecture of a network in a file, recognised by its names and classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.system.errors import UserError, shown
from bench.training.importing.architecture import Architecture, cross_check, infer
from bench.training.importing.choose import TRAINING_ONLY
from bench.training.importing.foreign import (
    EDM2_MARK,
    TRANSFORMER_MARK,
    infer_edm2,
    infer_transformer,
)
from bench.training.importing.source import SourceNetwork
from methods import METHODS, Settings

CLASSES: Mapping[str, str] = {
    "EDMPrecond": "edm",
    "ECMPrecond": "ct",
    "ECTPrecond": "ct",
    "IGCTPrecond": "igct",
    "CDPrecond": "guided-cd",
}
OWN = (
    "A network of another architecture comes in as a function of a file of yours: bench sweep "
    "--model FILE:NAME (docs/tutorials/own-model.md)."
)


def method_of(found: SourceNetwork, path: Path) -> str:
    """The method of a network; UserError if it is unknown, or its file does not show it."""
    names = found.shapes
    if EDM2_MARK in names:
        return "edm2"
    if TRANSFORMER_MARK in names:
        if is_repa(found):
            return "sit"
        raise UserError(
            f"{path} has a transformer, and its names do not show whether it is of DiT, which "
            "predicts noise, or of SiT, which predicts a velocity: add --method dit or --method "
            "sit.",
            code=2,
        )
    if found.class_name:
        if found.class_name in CLASSES:
            return CLASSES[found.class_name]
        raise UserError(
            f"{path} has a network of the unknown class {found.class_name[:80]!a} (known: "
            f"{', '.join(CLASSES)}): name its method with --method. {OWN}",
            code=2,
        )
    if not _is_known(names):
        raise _unknown_names(found)
    if "enc.map_layer0.weight" in names and "dec.map_layer0.weight" in names:
        return "igct"
    if "model.map_w_embed.weight" in names:
        return "guided-cd"
    if "model.map_augment.weight" in names:  # only EDM's own networks have it
        return "edm"
    raise UserError(
        f"The names in {path} do not show the method of its network: name it with --method, one "
        f"of: {', '.join(sorted(n for n, m in METHODS.items() if m.trains))}.",
        code=2,
    )


def is_repa(found: SourceNetwork) -> bool:
    """Whether it is a transformer of REPA."""
    return any(name.startswith(TRAINING_ONLY) for name in found.beside)


def architecture_of(found: SourceNetwork, given: Mapping[str, Any]) -> Architecture[Settings]:
    """The architecture of the network in the file, or of iGCT's two, which must agree."""
    shapes = found.shapes
    if EDM2_MARK in shapes:
        return infer_edm2(shapes, found.arguments, given)
    if TRANSFORMER_MARK in shapes:
        return infer_transformer(shapes, given)
    if any(name.startswith("model.") for name in shapes):
        prefixes = ["model."]
    elif "dec.map_layer0.weight" in shapes:
        prefixes = ["dec.", "enc."]
    else:
        raise _unknown_names(found)
    first, *others = (infer(shapes, prefix) for prefix in prefixes)
    for other in others:
        if other.net != first.net or other.shape != first.shape:
            raise UserError("The two networks in the file differ in their architecture.")
    who = found.class_name or "The network"
    for module in ("", *(prefix.removesuffix(".") for prefix in prefixes)):
        cross_check(first, found.arguments.get(module, {}), f"{who} {module}".strip())
    return first


def _is_known(names: Iterable[str]) -> bool:
    """Whether tensors are named as in a network that is read here."""
    return any(name.startswith("model.") or name == "dec.map_layer0.weight" for name in names)


def _unknown_names(found: SourceNetwork) -> UserError:
    some = ", ".join(map(shown, list(found.shapes)[:3]))
    return UserError(
        "The file has no network under 'model.' and no pair under 'enc.' and 'dec.'"
        + (f"; its tensors are named {some} ... " if some else ". ")
        + OWN
    )
