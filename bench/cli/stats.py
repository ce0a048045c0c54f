"""`bench stats`: makes and shows statistics files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options
from bench.experiment.place import DEFAULT_RESULTS
from bench.system.errors import UserError, unknown

CLEAN_FID_MODES = {"inception-clean": "clean", "inception": "legacy_tensorflow"}
"""The names in clean-fid for the resize of an extractor."""

stats_app = typer.Typer(
    help="Make and show statistics files of EDM, ADM, clean-fid and others.",
    no_args_is_help=True,
)


@stats_app.command("make")
def stats_make_command(
    source: Annotated[
        str, typer.Argument(help="Folder, zip, tar or npz of images, or a data set's name.")
    ],
    extractor: Annotated[str, typer.Option("--extractor", "-x", help="Features.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File, or a folder for the usual name.")],
    format_: Annotated[
        str, typer.Option("--format", help="edm, adm, clean-fid or torch-fidelity.")
    ] = "edm",
    weights: options.Weights = None,
    download: options.Download = False,
    offline: options.Offline = False,
    device: options.Device = "auto",
    orient: options.Orient = True,
    results: options.Results = DEFAULT_RESULTS,
    plugin: options.Plugins = None,
) -> None:
    """Write the mean and covariance of features in the format of another program."""
    from bench.data.decode import told_oddities
    from bench.data.find import find_dataset
    from bench.data.leftovers import told_left_out
    from bench.evaluation.compare import feed_side
    from bench.evaluation.makers import Makers
    from bench.evaluation.passes import Pass
    from bench.evaluation.reference import SPATIAL
    from bench.evaluation.sides import check_exists, dataset_source, file_source, names_dataset
    from bench.evaluation.statistics_files import FORMATS, StatisticsCard, write_statistics
    from bench.experiment.provenance import now
    from bench.system.devices import resolve_device

    reporter, experiment = options.begin(
        plugin, results, out=out, offline=offline, download=download
    )
    if (kind := format_) not in FORMATS:
        raise unknown("format", kind, FORMATS)
    if clash := check_exists(source):
        reporter.warn(clash)
    path = _file(out, kind, source, extractor)
    if kind == "adm" and extractor != "inception":
        raise UserError(
            "ADM's file also holds spatial statistics: use --extractor inception.", code=2
        )
    names = [extractor, SPATIAL] if kind == "adm" else [extractor]
    makers = Makers(experiment.cache, weights, download, resolve_device(device), reporter.say)
    made = makers.networks(names)
    if names_dataset(source):
        side, data = dataset_source(source), find_dataset(source.partition(":")[0])
    else:
        data = None
        with reporter.counting(f"reading {source}") as count:
            side = file_source(Path(source), orient=orient, count=count)
        for line in told_oddities(side.oddities):
            reporter.warn(f"Images of {source}: {line}.")
        if side.left_out:
            reporter.warn(told_left_out(side.left_out, f"{source}: left out"))
    made |= makers.of_data(names, data, side.shape)
    accumulator = Pass(made, {"moments", *({"features"} if kind == "clean-fid" else ())})
    with reporter.counting(f"features of {side.name}") as count:
        feed_side(accumulator, side, count)
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
        path, kind, found.moments[extractor], card,
        spatial=found.moments.get(SPATIAL), features=found.features.get(extractor),
    )  # fmt: skip
    dim = len(found.moments[extractor].mean)
    reporter.say(f"Moments of {side.n:,} samples in {dim:,} dimensions of {extractor}.")
    for file in written:
        reporter.say(f"Written to {file}.")
    if kind != "torch-fidelity":
        reporter.say(f"Next: bench evaluate SAMPLES --reference {path}")


@stats_app.command("show")
def stats_show_command(
    file: Annotated[str, typer.Argument(help="Statistics file; FILE.pkl#fid of EDM2.")],
) -> None:
    """Check a statistics file and print its content."""
    from bench.evaluation.statistics_files import read_statistics, split_section

    reporter, _ = options.begin()
    path, section = split_section(file)
    found = read_statistics(path, section)
    unstated = "the file does not say"
    lines = {"file": file, "form": found.kind}
    if found.moments is not None:
        mean, cov = found.moments.mean, found.moments.cov
        lines["dimensions"] = f"{len(mean):,}"
        lines["mean"] = f"from {mean.min():.4g} to {mean.max():.4g}"
        lines["trace of the covariance"] = f"{cov.trace():.6g}"
    if found.spatial is not None:
        lines["spatial dimensions"] = f"{len(found.spatial.mean):,}"
    if found.features is not None:
        lines["features"] = f"{found.features.shape}"
    if found.images:
        lines["images"] = "yes"
    lines["samples"] = f"{found.n:,}" if found.n else unstated
    card = found.card
    if card is None:
        lines["made with"] = found.extractor or unstated
    else:
        lines["made with"] = f"{card.extractor} (hash {card.extractor_hash[:12]})"
        lines["made of"] = f"{card.source} (SHA-256 {card.source_hash[:12]})"
    for name, value in lines.items():
        reporter.say(f"{name}: {value}")


def _file(out: Path, kind: str, source: str, extractor: str) -> Path:
    """The file `out`, or the usual name in the folder `out`."""
    from bench.evaluation.statistics_files import SUFFIX, clean_fid_name, torch_fidelity_name

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
                f"torch-fidelity only finds Inception features in its cache, not {extractor}: "
                "name a .pt file with --out.",
                code=2,
            )
        return out / torch_fidelity_name(name)
    return out / f"{name}-{extractor}.npz"
