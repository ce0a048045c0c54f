"""`bench stats`, once its options are parsed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console

from bench.cli.evaluate import progress
from bench.data.find import find_dataset
from bench.evaluation.compare import SPATIAL, feed_side
from bench.evaluation.makers import Makers
from bench.evaluation.sides import check_exists, dataset_source, file_source, names_dataset
from bench.evaluation.statistics.base import StatisticsCard
from bench.evaluation.statistics.read import read_statistics, split_section
from bench.evaluation.statistics.write import (
    FORMATS,
    SUFFIX,
    clean_fid_name,
    torch_fidelity_name,
    write_statistics,
)
from bench.experiment.place import Experiment
from bench.experiment.provenance import now
from bench.system.devices import resolve_device
from bench.system.errors import UserError, unknown
from bench.system.progress import say
from metrics import Accumulator

CLEAN_FID_MODES = {"inception-clean": "clean", "inception": "legacy_tensorflow"}
"""What clean-fid calls the resize of an extractor."""


def make_all(
    console: Console,
    place: Experiment,
    source: str,
    *,
    extractor: str,
    out: Path,
    kind: str,
    weights: Path | None,
    download: bool,
    device: str,
) -> None:
    """`bench stats make`."""
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    check_exists(source)
    path = place_of(out, kind, source, extractor)
    if kind == "adm" and extractor != "inception":
        raise UserError(
            "ADM's file has spatial statistics too, which only --extractor inception has.", code=2
        )
    names = [extractor, SPATIAL] if kind == "adm" else [extractor]
    makers = Makers(place.cache, weights, download, resolve_device(device), partial(say, console))
    made = makers.networks(names)
    if names_dataset(source):
        side, data = dataset_source(source), find_dataset(source.partition(":")[0])
    else:
        data = None
        with progress(console, f"reading {source}") as tell:
            side = file_source(Path(source), tell=tell)
    made |= makers.of_data(names, data, side.shape)
    keep_features = kind == "clean-fid"
    accumulator = Accumulator(made, {"moments", "features"} if keep_features else {"moments"})
    with progress(console, f"features of {side.name}") as tell:
        feed_side(accumulator, side, tell)
    found = accumulator.finish()
    card = StatisticsCard(
        extractor=extractor,
        extractor_hash=made[extractor].hash,
        spatial_hash=made[SPATIAL].hash if SPATIAL in made else "",
        n=side.n,
        source=side.name,
        source_hash=side.hash,
        created=now(),
    )
    written = write_statistics(
        path,
        kind,
        found.moments[extractor],
        card,
        spatial=found.moments.get(SPATIAL),
        features=found.features.get(extractor),
    )
    dim = len(found.moments[extractor].mean)
    say(console, f"Moments of {side.n:,} samples in {dim:,} dimensions of {extractor}.")
    for file in written:
        say(console, f"Written to {file}.")
    if kind != "torch-fidelity":
        say(console, f"Next: bench evaluate SAMPLES --reference {path}")


def place_of(out: Path, kind: str, source: str, extractor: str) -> Path:
    """The file that `out` names, or its usual name within a folder."""
    suffix = SUFFIX[kind]
    if out.suffix == suffix and not out.is_dir():
        return out
    if out.suffix in (".npz", ".pt", ".pkl", ".json"):
        raise UserError(f"--out of --format {kind} is a {suffix} file or a folder.", code=2)
    name = Path(source.replace(":", "-")).stem
    if kind == "clean-fid":
        return out / clean_fid_name(name, CLEAN_FID_MODES.get(extractor, extractor))
    if kind == "torch-fidelity":
        if extractor != "inception":
            raise UserError(
                f"In its cache torch-fidelity looks for its own Inception features, not for those "
                f"of {extractor}: for these, name a .pt file with --out.",
                code=2,
            )
        return out / torch_fidelity_name(name)
    return out / f"{name}-{extractor}.npz"


def show_all(console: Console, file: str) -> None:
    """`bench stats show`."""
    path, section = split_section(file)
    found = read_statistics(path, section)
    lines = [("file", file), ("form", found.kind)]
    if found.moments is not None:
        mean, cov = found.moments.mean, found.moments.cov
        lines += [
            ("dimensions", f"{len(mean):,}"),
            ("mean", f"from {mean.min():.4g} to {mean.max():.4g}"),
            ("trace of the covariance", f"{cov.trace():.6g}"),
        ]
    if found.spatial is not None:
        lines.append(("spatial dimensions", f"{len(found.spatial.mean):,}"))
    if found.features is not None:
        lines.append(("features", f"{found.features.shape}"))
    if found.images:
        lines.append(("images", "yes"))
    lines.append(("samples", f"{found.n:,}" if found.n else "the file does not say"))
    if found.card is None:
        lines.append(("made with", found.extractor or "the file does not say"))
    else:
        card = found.card
        lines += [
            ("made with", f"{card.extractor} (hash {card.extractor_hash[:12]})"),
            ("made of", f"{card.source} (SHA-256 {card.source_hash[:12]})"),
        ]
    for name, value in lines:
        say(console, f"{name}: {value}")
