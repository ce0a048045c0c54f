"""Run the full-size presets on a CPU: two training steps, all checkpoints, one sample.

    python benchmarks/full_size.py                        # all eight, some minutes each
    python benchmarks/full_size.py igct imagenet64        # one

Each preset runs in its own process on random images with batch 1. Memory is the peak resident set
of the process (ru_maxrss). It covers the weights, EMA, gradients, optimiser state, writing the
training state and the weights, and sampling.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.data.stand_in import RandomImages
from bench.experiment.place import Experiment
from bench.sweep.generate import generate
from bench.system.devices import make_fabric
from bench.training.card import make_card
from bench.training.initial import make_teacher, teacher_card
from bench.training.loop import train
from bench.training.price import parameters
from bench.training.run import load_nets, open_run
from methods import METHODS, Guidance
from methods.settings import CIFAR10, IMAGENET64

SPECS = {"cifar10": CIFAR10, "imagenet64": IMAGENET64}
NAMES = ("edm", "ct", "guided-cd", "igct")
STEPS = {"train.iterations": 2, "train.batch": 1, "train.checkpoint_every": 1}


def peak() -> float:
    """Largest resident set of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(name: str, preset: str) -> dict[str, float]:
    """Train, store and sample one preset in this process."""
    data, cls, cpu = RandomImages(SPECS[preset]), METHODS[name], torch.device("cpu")
    card = make_card(name, data=data, preset=preset, overrides=STEPS)
    with tempfile.TemporaryDirectory() as folder:
        place = Experiment(Path(folder), "full-size")
        teacher = None
        if cls.wants_teacher is not None:
            own = teacher_card(cls.wants_teacher, data, preset, {})
            teacher = make_teacher(cls, own, data, None, cpu)
        started = time.monotonic()
        train(
            card, data, place.runs / card.name, fabric=make_fabric("cpu", "32-true"),
            teacher=teacher,
        )  # fmt: skip
        trained, memory = time.monotonic(), peak()
        del teacher
        found = open_run(card, data, place)
        assert found is not None
        nets = load_nets(found, cpu)
        (batch,) = generate(
            found.method, nets, Guidance(1.0), card.steps[0], 0, 1, batch=1, device=cpu
        )
        assert batch[0].shape == (1, *data.spec.shape)
    return {
        "parameters": parameters(card, data),
        "train_s": trained - started,
        "sample_s": time.monotonic() - trained,
        "train_gib": memory,
        "peak_gib": peak(),
    }


def main() -> None:
    """Run the selected presets, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", nargs="?", choices=NAMES)
    parser.add_argument("preset", nargs="?", choices=sorted(SPECS))
    parser.add_argument("--here", action="store_true", help="in this process; prints JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(run(options.method, options.preset)))
        return
    print("| method | preset | parameters | 2 steps and checkpoints | sample | peak memory |")
    print("|---|---|---|---|---|---|")
    for preset in [options.preset] if options.preset else SPECS:
        for name in [options.method] if options.method else NAMES:
            done = subprocess.run(
                [sys.executable, __file__, name, preset, "--here"],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {name} | {preset} | {row['parameters']:,} | {row['train_s']:.0f} s "
                f"| {row['sample_s']:.0f} s | {row['peak_gib']:.1f} GiB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
