"""Speed and memory of the metrics and of other packages, on the same features and one thread.

    python benchmarks/metrics_speed.py            # 2,000 samples per set, one minute
    python benchmarks/metrics_speed.py --full     # 20,000
    python benchmarks/metrics_speed.py --n 5000 --copies 0.5 --only ours floor

Neighbour scores (precision, recall, density, coverage; k = 3): `ours`, `prdc` (stores all pairs, so
only up to 10,000 samples), `torch-fidelity` (precision and recall only), and `floor`, a lower
bound: two plain matrix products of the same size, which stand for half a product within each set
and one product across the sets. The last step of the Frechet distance, from mean and covariance:
`ours` with the cached square root of the real covariance, `scipy.linalg.sqrtm`, and
`numpy.linalg.eigvals` of the product.

Each implementation runs in its own process, so that peak memory beyond the features is measured
separately. The floor runs before and after `ours` in the same process, since the speed of a shared
machine drifts. Times are wall-clock seconds, with CPU seconds in brackets.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from metrics.base import Moments
from metrics.distances import slices
from metrics.frechet import frechet_distance
from metrics.neighbours import neighbourhoods

Features = npt.NDArray[np.float32]
LATENT = 64
PRDC_LIMIT = 10_000
SQRTM_SAMPLES = 4096


def features(n: int, dim: int, seed: int, spread: float = 1.0) -> Features:
    """Features (n, dim) as after a ReLU: many zeros, few effective dimensions, full rank."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(LATENT, dim)).astype(np.float32) / 8
    rng = np.random.default_rng(seed)
    made = np.empty((n, dim), np.float32)
    for start in range(0, n, 1024):
        rows = made[start : start + 1024]
        latent = spread * rng.standard_normal((len(rows), LATENT), np.float32)
        rows[:] = latent @ mixing + 0.3 * rng.standard_normal(rows.shape, np.float32) + 0.1
        np.maximum(rows, 0, out=rows)
    return made


def sets(n: int, dim: int, copies: float) -> tuple[Features, Features]:
    """Real and generated features; a share of the generated ones are copies of real ones."""
    real, fake = features(n, dim, 1), features(n, dim, 2, 1.05)
    copied = round(copies * n)
    fake[:copied] = real[:copied]
    return real, fake


def gemm(real: Features, fake: Features) -> None:
    """One matrix product over all pairs of rows, in blocks of the fastest size."""
    x, y = torch.from_numpy(real), torch.from_numpy(fake)
    block = torch.empty(1024 * 4096)
    for rows in slices(0, len(x), 1024):
        for columns in slices(0, len(y), 4096):
            n, m = rows.stop - rows.start, columns.stop - columns.start
            torch.mm(x[rows], y[columns].T, out=block[: n * m].view(n, m))


def floor(real: Features, fake: Features) -> str:
    """Two products: by symmetry half a product within each set, and one across."""
    for _ in range(2):
        gemm(real, fake)
    return ""


def ours(real: Features, fake: Features) -> str:
    """All four scores, for a real set that is not cached."""
    return show(**neighbourhoods(real, fake).scores._asdict())


def by_prdc(real: Features, fake: Features) -> str:
    """The reference implementation of density and coverage, with open balls."""
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return show(**compute_prdc(real, fake, nearest_k=3))


def by_torch_fidelity(real: Features, fake: Features) -> str:
    """Precision and recall with its default block size."""
    from torch_fidelity.metric_prc import prc_features_to_metric

    found = prc_features_to_metric(
        torch.from_numpy(fake), torch.from_numpy(real), prc_neighborhood=3, verbose=False
    )
    return show(precision=found["precision"], recall=found["recall"])


def show(**scores: float) -> str:
    """Scores as text."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


NEIGHBOURS: dict[str, Callable[[Features, Features], str]] = {
    "floor": floor,
    "ours": ours,
    "prdc": by_prdc,
    "torch-fidelity": by_torch_fidelity,
}


def frechet_by_ours(a: Moments, b: Moments) -> float:
    """The second call of this project's code, as for every further generated set."""
    return frechet_distance(a, b)


def frechet_by_sqrtm(a: Moments, b: Moments) -> float:
    """As in clean-fid, EDM and dgm-eval."""
    import scipy.linalg

    root = np.trace(np.real(scipy.linalg.sqrtm(a.cov @ b.cov)))
    return float(((a.mean - b.mean) ** 2).sum() + np.trace(a.cov) + np.trace(b.cov) - 2 * root)


def frechet_by_eigvals(a: Moments, b: Moments) -> float:
    """As in torch-fidelity and torchmetrics."""
    root = np.sqrt(np.linalg.eigvals(a.cov @ b.cov).astype(complex)).real.sum()
    return float(((a.mean - b.mean) ** 2).sum() + np.trace(a.cov) + np.trace(b.cov) - 2 * root)


FRECHET: dict[str, Callable[[Moments, Moments], float]] = {
    "ours": frechet_by_ours,
    "sqrtm": frechet_by_sqrtm,
    "eigvals": frechet_by_eigvals,
}


def moments(x: Features) -> Moments:
    """Mean and covariance in float64, as read-only arrays like those of a sample set."""
    found = Moments(len(x), x.mean(0, dtype=np.float64), np.cov(x.astype(np.float64).T))
    for array in (found.mean, found.cov):
        array.setflags(write=False)
    return found


@contextlib.contextmanager
def measured(found: dict[str, Any]) -> Iterator[None]:
    """Store in `found` the increase of peak resident memory, in bytes (Linux)."""
    # Reset the peak.
    Path("/proc/self/clear_refs").write_text("5")
    start = resident("VmRSS")
    yield
    found["extra"] = resident("VmHWM") - start


def resident(field: str) -> int:
    """A memory field of the status of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def timed(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, wall-clock seconds, CPU seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    result = function()
    return result, time.perf_counter() - clock, time.process_time() - processor


def run_neighbours(name: str, n: int, dim: int, copies: float) -> dict[str, Any]:
    """Run one implementation; for `ours` also the floor, averaged over before and after."""
    real, fake = sets(n, dim, copies)
    gemm(real[:1024], fake[:1024])
    floors = [timed(lambda: floor(real, fake))[1:]] if name == "ours" else []
    found: dict[str, Any] = {}
    with measured(found):
        found["shown"], *found["times"] = timed(lambda: NEIGHBOURS[name](real, fake))
    if floors:
        floors.append(timed(lambda: floor(real, fake))[1:])
    found["floor"] = [sum(times) / len(floors) for times in zip(*floors, strict=True)]
    return found


def run_frechet(name: str, dim: int) -> dict[str, Any]:
    """Run one implementation, with enough samples for covariances of full rank."""
    real, fake, warm = (
        moments(features(max(SQRTM_SAMPLES, 2 * dim), dim, seed, spread))
        for seed, spread in ((1, 1.0), (2, 1.05), (3, 1.0))
    )
    if name == "ours":
        frechet_distance(real, warm)
    found: dict[str, Any] = {}
    with measured(found):
        value, *found["times"] = timed(lambda: FRECHET[name](real, fake))
    return {**found, "shown": f"{value:.8f}"}


def apart(*arguments: str) -> dict[str, Any]:
    """Run one implementation in its own process with one thread."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env={**os.environ, **single, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(title: str, results: dict[str, dict[str, Any]]) -> None:
    """Print the results of all implementations, relative to `ours`."""
    print(f"\n{title}")
    print(f"{'':16}{'seconds':>18}{'x ours':>9}{'extra GB':>10}  result")
    reference = results["ours"]["times"][1] if "ours" in results else None
    for name, found in results.items():
        clock, processor = found["times"]
        ratio = f"{processor / reference:.2f}" if reference else ""
        times = f"{clock:.2f} ({processor:.2f})"
        print(f"{name:16}{times:>18}{ratio:>9}{found['extra'] / 1e9:>10.2f}  {found['shown']}")


def main() -> None:
    """Run every implementation and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=2000, help="samples per set")
    parser.add_argument("--dim", type=int, default=2048, help="features per sample")
    parser.add_argument("--full", action="store_true", help="20,000 samples per set")
    parser.add_argument("--copies", type=float, default=0.0, help="share of copied real samples")
    parser.add_argument(
        "--only", nargs="+", choices=[*NEIGHBOURS, *FRECHET], help="implementations"
    )
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    n = 20_000 if options.full else options.n
    if options.one:
        torch.set_num_threads(1)
        kind, name = options.one
        found = (
            run_frechet(name, options.dim)
            if kind == "frechet"
            else run_neighbours(name, n, options.dim, options.copies)
        )
        print(json.dumps(found))
        return
    sizes = ["--n", str(n), "--dim", str(options.dim), "--copies", str(options.copies)]
    print("load averages:", *(f"{load:.1f}" for load in os.getloadavg()))

    def wanted(names: dict[str, Any]) -> list[str]:
        return [name for name in names if not options.only or name in options.only]

    names = [name for name in wanted(NEIGHBOURS) if name != "prdc" or n <= PRDC_LIMIT]
    scores = {name: apart("--one", "neighbours", name, *sizes) for name in names}
    table(f"neighbour scores, {n} x {n} x {options.dim}", scores)
    if "ours" in scores:
        clock, processor = (
            bare / took
            for bare, took in zip(scores["ours"]["floor"], scores["ours"]["times"], strict=True)
        )
        print(f"share of the floor's speed in one process: {clock:.0%} ({processor:.0%})")
    distances = {name: apart("--one", "frechet", name, *sizes) for name in wanted(FRECHET)}
    table(f"Frechet distance from moments, {options.dim} dimensions", distances)
    print("load averages:", *(f"{load:.1f}" for load in os.getloadavg()))


if __name__ == "__main__":
    main()
