"""The imports of commands, done once by a process from which commands are forked.

The process must not have started a thread: then a fork of it is as good as a new interpreter.
"""

import importlib
import os

os.environ |= {"OMP_NUM_THREADS": "1", "GUIDANCE_BENCH_WORKERS": "1"}
importlib.import_module("torch").set_num_threads(1)
for name in (
    "bench.cli", "bench.cli.train", "bench.cli.sweep", "bench.cli.tune", "bench.cli.report",
    "bench.report", "bench.report.build", "bench.cli.importing", "bench.cli.data",
    "bench.inversion.sweep", "lightning_fabric", "bench.data.samples.write", "torch._dynamo",
    "torch.nn.parallel.distributed", "scipy.stats", "sklearn.svm",
):  # fmt: skip
    importlib.import_module(name)
importlib.import_module("bench.experiment.provenance").provenance()
