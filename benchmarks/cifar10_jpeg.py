"""Metrics of CIFAR-10 (JPEG) against itself and against degraded images.

    bench data prepare cifar10-jpeg.tar.xz --dataset cifar10-jpeg
    python benchmarks/cifar10_jpeg.py --n 5000 --out results/reference/cifar10-jpeg

Every set of n images is compared with the same n training images, in efficientnet-lite0 features.
"train B" (other training images) is the best value that a perfect generator could reach. "test"
must agree with it. All other sets must be worse in the way that their names say.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.system.files import write_text
from metrics import EXTRACTORS, METRICS, Accumulator
from metrics.base import Estimate, SampleSet

EXTRACTOR = "efficientnet-lite0"
CHOSEN = ("fd", "fd_corrected", "kid", "precision_k3", "recall_k3", "density_k3", "coverage_k3",
          "saturation", "contrast_ratio")  # fmt: skip
BATCH = 250

Spoil = Callable[[Tensor], Tensor]


def _uint8(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


def contrast(factor: float) -> Spoil:
    """Increase the contrast around mid-grey and clip, as strong guidance does."""
    return lambda x: _uint8((x.float() - 127.5) * factor + 127.5)


def saturation(factor: float) -> Spoil:
    """Increase the colour saturation around the grey of each pixel, and clip."""

    def spoil(x: Tensor) -> Tensor:
        grey = x.float().mean(1, keepdim=True)
        return _uint8(grey + factor * (x.float() - grey))

    return spoil


def noise(std: float) -> Spoil:
    """Add Gaussian noise of `std` grey levels."""

    def spoil(x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(int(x[0].long().sum()))
        return _uint8(x.float() + std * torch.randn(x.shape, generator=generator))

    return spoil


def blur(x: Tensor) -> Tensor:
    """Blur with a 2 x 2 box filter."""
    return _uint8(F.avg_pool2d(F.pad(x.float(), (0, 1, 0, 1), "replicate"), 2, stride=1))


def variants(data: Dataset, n: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield (name, images uint8 (n, 3, H, W), labels) for every set."""
    train, test = data.train, data.reference
    x, y = train.samples[n : 2 * n], train.labels[n : 2 * n]
    yield "train B", x, y
    yield "test", test.samples[:n], test.labels[:n]
    spoilt: tuple[tuple[str, Spoil], ...] = (
        ("B mirrored", lambda x: x.flip(3)),
        ("B contrast x 1.5", contrast(1.5)),
        ("B contrast x 3", contrast(3.0)),
        ("B saturation x 2", saturation(2.0)),
        ("B saturation x 4", saturation(4.0)),
        ("B blurred 2 x 2", blur),
        ("B noise 4", noise(4.0)),
        ("B noise 16", noise(16.0)),
    )
    for name, spoil in spoilt:
        yield name, torch.cat([spoil(part) for part in torch.split(x, BATCH)]), y
    half = train.labels[n:] < 5
    yield "five of ten classes", train.samples[n:][half][:n], train.labels[n:][half][:n]
    few = x[: n // 10].repeat(10, 1, 1, 1)
    yield "a tenth, ten times", few, y[: n // 10].repeat(10)
    yield "A itself", train.samples[:n], train.labels[:n]
    generator = torch.Generator().manual_seed(0)
    uniform = torch.randint(0, 256, x.shape, generator=generator, dtype=torch.uint8)
    yield "uniform noise", uniform, y


def measure(accumulator: Accumulator, images: Tensor, labels: Tensor) -> SampleSet:
    """Measure the images in one pass."""
    for x, y in zip(torch.split(images, BATCH), torch.split(labels, BATCH), strict=True):
        accumulator.update(x.clone(), y)
    return accumulator.finish()


def shown(value: float | Estimate) -> str:
    """Value and standard error as text."""
    if not isinstance(value, Estimate):
        return f"{value:.4g}"
    return f"{value.value:.4g}" + ("" if value.se is None else f" ± {value.se:.1g}")


def main() -> None:
    """Print each row when it is done, then the table, and write it to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="cifar10-jpeg")
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = find_dataset(options.dataset)
    extractor = EXTRACTORS[EXTRACTOR]()
    metrics = [METRICS[name]() for name in CHOSEN]
    needs = {need for metric in metrics for need in metric.needs}

    def fresh() -> Accumulator:
        return Accumulator({EXTRACTOR: extractor}, needs)

    real = measure(fresh(), data.train.samples[: options.n], data.train.labels[: options.n])
    rows, numbers = [], []
    for name, images, labels in variants(data, options.n):
        fake = measure(fresh(), images, labels)
        values = {
            m.name: m.compute(real=real, fake=fake, extractor=EXTRACTOR if m.uses_extractor else "")
            for m in metrics
        }
        rows.append({"set": name, "n": len(labels)} | {k: shown(v) for k, v in values.items()})
        for key, value in values.items():
            found = value if isinstance(value, Estimate) else Estimate(value)
            numbers.append(
                {"set": name, "n": len(labels), "metric": key, "value": found.value,
                 "se": np.nan if found.se is None else found.se, "se_method": found.se_method}
            )  # fmt: skip
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    names = list(table.columns)
    lines = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    lines += [f"| {' | '.join(map(str, row))} |" for row in table.itertuples(index=False)]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out is not None:
        write_text(options.out / "extractor.md", text)
        content = pd.DataFrame(numbers).to_csv(index=False, lineterminator="\n")
        write_text(options.out / "extractor.csv", content)


if __name__ == "__main__":
    main()
