"""Evaluate the published networks of `bench import` once on a CPU, at full size and batch 1.

    python benchmarks/full_size_imported.py               # all, one after the other
    python benchmarks/full_size_imported.py edm2-xl       # one

Each network runs in its own process, with random weights and latents of the published size. Memory
is the peak resident set of the process (ru_maxrss), and time is that of the CPU. A sampling step of
--sampler euler is one such evaluation, one of Heun is two, and guidance doubles both.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import torch

from methods import METHODS, Guidance, SampleRNG
from methods.dit import DiTNet
from methods.edm2 import EDM2Net
from methods.pretrained import Pretrained
from methods.settings import Settings
from methods.spec import DataSpec

CHANNELS = {"s": 192, "m": 256, "l": 320, "xl": 384, "xxl": 448}
NETS: dict[str, tuple[str, Settings, int]] = {
    **{f"edm2-{size}": ("edm2", EDM2Net(channels=n), 64) for size, n in CHANNELS.items()},
    "dit-xl-2": ("dit", DiTNet(), 32),
    "sit-xl-2": ("sit", DiTNet(), 32),
}
"""Method, network, and size of its latents."""


def run(name: str) -> dict[str, float]:
    """Make one network in this process, and take one Euler step of it."""
    method_name, net, size = NETS[name]
    cls: type[Any] = METHODS[method_name]
    given = {"net": net, "clamp": False} | ({"time": "sit"} if method_name == "sit" else {})
    method = cls(cls.config_type(**given), DataSpec(name, (4, size, size), 1000))
    assert isinstance(method, Pretrained)
    with torch.device("meta"):
        nets = method.build()
    nets = nets.to_empty(device="cpu").eval().requires_grad_(False)
    for tensor in nets.state_dict().values():
        tensor.normal_(0, 0.02)
    labels = torch.eye(1000)[:1]
    with torch.inference_mode():
        started = time.process_time()
        out = method.sample(nets, labels, Guidance(1.0), 1, SampleRNG(0, [0]))
        took = time.process_time() - started
    assert out.shape == (1, 4, size, size)
    return {
        "parameters": sum(p.numel() for p in nets.parameters()),
        "seconds": took,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    """Run the selected networks, each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", nargs="?", choices=NETS)
    parser.add_argument("--here", action="store_true", help="in this process; prints JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(run(options.net)))
        return
    print("| network | parameters | one evaluation | peak memory |")
    print("|---|---|---|---|")
    for name in [options.net] if options.net else NETS:
        done = subprocess.run(
            [sys.executable, __file__, name, "--here"],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {name} | {row['parameters']:,} | {row['seconds']:.0f} s "
            f"| {row['peak_gib']:.1f} GiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
