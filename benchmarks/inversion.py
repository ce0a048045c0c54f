"""Reconstruction error and edit accuracy of trained runs, on images that no run was trained on.

    python benchmarks/inversion.py digits igct edm --experiment embedded

Every reference image is inverted under its own class. MSE is per image in [-1, 1] units, after
reconstruction at g = 1. Edits go to each other class in turn and are judged by the data set's
classifier. NFE counts inversion and generation.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data import Dataset, Split
from bench.data.convert import from_model, one_hot, to_model
from bench.evaluate import make_extractor
from bench.experiment import Experiment
from bench.plan import target
from bench.runs import dataset, trained_runs
from bench.sweep import load_nets
from methods import Guidance, Inverts, Method
from metrics.base import Extractor

BATCH = 256


def reconstruction_mse(method: Inverts, nets: nn.Module, split: Split, classes: int) -> Tensor:
    """Mean squared error of every image of a split, (N,), in [-1, 1] units."""
    errors = []
    for images, labels in zip(split.samples.split(BATCH), split.labels.split(BATCH), strict=True):
        x0, hot = to_model(images), one_hot(labels, classes)
        back = method.edit(nets, method.invert(nets, x0, hot), hot, Guidance(1.0))
        errors.append((back - x0).square().flatten(1).mean(1))
    return torch.cat(errors)


def edit_accuracy(
    method: Inverts, nets: nn.Module, split: Split, classes: int, judge: Extractor, g: float
) -> float:
    """Share of edits to another class that the classifier recognises as that class."""
    right = total = 0
    for images, labels in zip(split.samples.split(BATCH), split.labels.split(BATCH), strict=True):
        latent = method.invert(nets, to_model(images), one_hot(labels, classes))
        for offset in range(1, classes):
            wanted = (labels + offset) % classes
            edited = from_model(method.edit(nets, latent, one_hot(wanted, classes), Guidance(g)))
            logits = judge(edited).logits
            assert logits is not None
            right += int((logits.argmax(1) == wanted).sum())
            total += len(wanted)
    return right / total


@torch.inference_mode()
def measure(method: Method[Any], nets: nn.Module, data: Dataset, judge: Extractor) -> str:
    """One line of results."""
    assert isinstance(method, Inverts)
    classes = data.spec.num_classes
    mse = reconstruction_mse(method, nets, data.reference, classes)
    edits = {g: edit_accuracy(method, nets, data.reference, classes, judge, g) for g in (1.0, 4.0)}
    shown = ", ".join(f"{value:.3f} at g = {g:g}" for g, value in edits.items())
    return f"MSE {mse.mean():.3g} +- {mse.std() / len(mse) ** 0.5:.1g}; edit accuracy {shown}"


def main() -> None:
    """Print a line for every run of the methods asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--experiment", default="default")
    parser.add_argument("--results", type=Path, default=Path("results"))
    options = parser.parse_args()
    place = Experiment(options.results, options.experiment)
    data = dataset(options.dataset)
    judge = make_extractor("classifier", data, place.cache, None, False)
    for card in trained_runs(place):
        if card.dataset == data.name and card.method in options.methods:
            found = target(card, data, place)
            if found is not None:
                nets = load_nets(found, torch.device("cpu"))
                print(f"{card.name}: {measure(found.method, nets, data, judge)}", flush=True)


if __name__ == "__main__":
    main()
