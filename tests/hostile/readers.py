"""All readers of untrusted files, with the errors that each may raise on a bad file.

| where a file comes from | read by | readers here |
|---|---|---|
| suite (TOML) | bench/experiment/suite.py | suite |
| run.json of a run | bench/training/card.py | run card |
| model.safetensors, also as init, teacher, null branch | bench/training/checkpoint.py, \
initial.py, extra_network.py | weights, init file, null file |
| state.safetensors, log.jsonl of a run | bench/training/checkpoint.py, log.py | state, log |
| rows of cells and of inversions (JSON) | bench/experiment/rows.py, \
inversion_rows.py | row, inversion row |
| results and trials of the tuner (JSON) | bench/tuning/store.py | tuned, trial |
| pictures within rows (PNG in base64) | bench/report/figures/grids.py | picture in a row |
| published.csv | bench/report/numbers/published.py | published numbers |
| an older report's page | bench/report/build.py | older page |
| samples: folder, ZIP, npz, their card | bench/data/samples/read.py, card.py | sample ... |
| samples that a command continues | bench/data/samples/write.py | output ... |
| classes of samples (.npy, text) | bench/data/labels.py | labels ... |
| statistics (npz, EDM2's pickles) | bench/evaluation/statistics_files.py | statistics ... |
| checkpoints to import (.pkl, .pt, .safetensors) | bench/training/importing/ | import ... |
| data sources: folder, tar, zip and all forms within | bench/data/trees.py, decode.py, \
batches.py, untrusted.py, sources/ | source ... |
| prepared data: card, stamp, arrays | bench/data/card.py, prepared.py | prepared ... |
| images to invert and edit | bench/inversion/find.py | image to edit |
| results/cache: sample sets, results, classifiers | bench/evaluation/cache.py | cached ... |
| weights of extractors | metrics/extractors/tensors.py, torchscript.py | extractor ... |

Not readers of untrusted files: `--plugin` runs the file that the user names, which is its purpose;
bench/system/memory.py reads /proc/meminfo; the weights of LPIPS are read only if they have the
SHA-256 of the published weights.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench.data.card import CARD, IMAGES, LABELS, DataCard, read_data_card
from bench.data.decode import Geometry, decode
from bench.data.labels import read_labels
from bench.data.prepared import open_content, read_stamp
from bench.data.samples.card import SampleCard
from bench.data.samples.read import read_samples
from bench.data.samples.write import first_missing
from bench.data.sources import find_source as find_form
from bench.data.trees import open_tree
from bench.evaluation.cache import _load as load_cached
from bench.evaluation.statistics_files import is_statistics, read_statistics
from bench.experiment.inversion_rows import read_inversion
from bench.experiment.place import Experiment
from bench.experiment.rows import read_row
from bench.experiment.suite import read_suite
from bench.inversion.find import read_images
from bench.report.build import _figures_of
from bench.report.figures.grids import strip_pixels
from bench.report.numbers.published import read_published
from bench.system import files
from bench.system.errors import UserError
from bench.training.card import read_card
from bench.training.checkpoint import load_state, load_weights
from bench.training.extra_network import find_extra_network
from bench.training.importing.source import read_source
from bench.training.initial import find_weights
from bench.training.log import Log
from bench.tuning.store import read_result, read_trials
from methods.spec import DataSpec
from metrics.catalogue import ALEXNET
from metrics.extractors.tensors import read_tensors, state_copy
from tests.hostile import makers

SAMPLES = SampleCard(
    run="r", method="edm", dataset="digits", checkpoint="c", guidance=1.0, steps=1, nfe=1, seed=0,
    n=2, shape=(3, 8, 8), classes=(0,), class_names=("a", "b"), cell="k",
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """`read` receives the path of the bad file: `file` in the folder filled by `prepare`."""

    file: str
    read: Callable[[Path], object]
    prepare: Callable[[Path], None] = lambda folder: None
    refusals: tuple[type[Exception], ...] = (UserError,)


def all_batches(path: Path) -> None:
    for _ in read_samples(path):
        pass


def source(path: Path) -> None:
    found = find_form(open_tree(path))
    found.listing()
    for _, name, content in found.images():
        decode(content, name, Geometry(), 3)


def below(levels: int) -> Callable[[Path], None]:
    return lambda path: source(path.parents[levels - 1])


def statistics(path: Path) -> None:
    if is_statistics(path):
        read_statistics(path)
    else:
        raise UserError("It is none.")


def data_card(folder: Path) -> DataCard:
    def digest(name: str) -> str:
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()

    return DataCard(
        name=folder.name, title="t", source="s", kind="images", size=None, crop=None, resize=None,
        lossy=False, n=4, shape=(3, 8, 8), class_names=("a", "b"), train=(0, 2), reference=(2, 4),
        reference_from="test", images_sha256="", labels_sha256="", train_hash="",
        reference_hash="", pillow="", numpy="",
    )  # fmt: skip


def prepared(folder: Path) -> None:
    np.save(folder / IMAGES, np.zeros((4, 3, 8, 8), np.uint8))
    np.save(folder / LABELS, np.array([0, 1, 0, 1]))


def content(path: Path) -> None:
    open_content(path.parent, data_card(path.parent))


def in_folder(files: dict[str, bytes]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text)

    return prepare


def log(path: Path) -> None:
    Log(path, 3, SimpleNamespace(is_global_zero=True, world_size=1))


def experiment(path: Path) -> Experiment:
    return Experiment(path.parent / "results", "e")


def picture_in_row(path: Path) -> None:
    strip_pixels(base64.b64encode(files.read_whole(path)).decode())


PICTURES = in_folder({"a/0.png": makers.png(), "b/0.png": makers.png()})
EXTRACTOR = (ValueError,)
ANY = (Exception,)

READERS: dict[str, Reader] = {
    "suite": Reader("x.toml", lambda p: read_suite(str(p))),
    "run card": Reader("run.json", lambda p: read_card(p.parent)),
    "weights": Reader("model.safetensors", load_weights),
    "init file": Reader(
        "x.safetensors", lambda p: find_weights("--init-from", str(p), experiment(p))
    ),
    "null file": Reader(
        "x.safetensors", lambda p: find_extra_network("null", str(p), experiment(p))
    ),
    "state": Reader("state.safetensors", load_state),
    "log": Reader("log.jsonl", log),
    "row": Reader("x.json", read_row),
    "inversion row": Reader("x.json", read_inversion),
    "tuned": Reader("r.json", read_result),
    "trial": Reader(
        "tuned/r/cfg/k/0000.json", lambda p: read_trials(p.parent)
    ),
    # The page shows the error of a figure, whatever its type.
    "picture in a row": Reader("x.png", picture_in_row, refusals=ANY),
    "published numbers": Reader("published.csv", read_published),
    "older page": Reader("index.html", _figures_of),
    "sample card": Reader("samples.json", lambda p: all_batches(p.parent), PICTURES),
    "sample image": Reader("c/1.png", lambda p: all_batches(p.parents[1])),
    "sample tiff": Reader("c/1.tif", lambda p: all_batches(p.parents[1]), PICTURES),
    "sample npz": Reader("x.npz", all_batches),
    "sample zip": Reader("x.zip", all_batches),
    **{
        f"output {kind}": Reader(f"x.{kind}", lambda p, kind=kind: first_missing(p, kind, SAMPLES))
        for kind in ("zip", "npz", "grid")
    },
    "output png": Reader("samples.json", lambda p: first_missing(p.parent, "png", SAMPLES)),
    "labels npy": Reader("x.npy", lambda p: read_labels(p, 6)),
    "labels text": Reader("x.txt", lambda p: read_labels(p, 6)),
    "statistics npz": Reader("x.npz", statistics),
    "statistics npz read": Reader("x.npz", read_statistics),
    "statistics pkl": Reader("x.pkl", read_statistics),
    "import pkl": Reader("x.pkl", read_source),
    "import pt": Reader("x.pt", read_source),
    "import safetensors": Reader("x.safetensors", read_source),
    "source archive": Reader("x.zip", source),
    "source image": Reader("c/1.png", below(2), PICTURES),
    "source image tiff": Reader("c/1.tif", below(2), PICTURES),
    "source index": Reader("dataset.json", below(1), PICTURES),
    "source cifar batch": Reader("meta", below(1), in_folder({"train": b"", "test": b""})),
    "source cifar meta": Reader("train", below(1), in_folder({"meta": b"", "test": b""})),
    "source imagenet": Reader("train_data_batch_1", below(1)),
    "source imagenet npz": Reader("train_data_batch_1.npz", below(1)),
    "source idx": Reader(
        "train-images-idx3-ubyte", below(1),
        in_folder({"train-labels-idx1-ubyte": b"\0\0\x08\x01\0\0\0\x01\0"}),
    ),
    "source idx labels": Reader(
        "train-labels-idx1-ubyte.gz", below(1), in_folder({"train-images-idx3-ubyte": b""})
    ),
    "prepared card": Reader(CARD, lambda p: read_data_card(p.parent)),
    "prepared stamp": Reader("stamp.json", lambda p: read_stamp(p.parent), refusals=()),
    "prepared images": Reader(IMAGES, content, prepared),
    "prepared labels": Reader(LABELS, content, prepared),
    "image to edit": Reader(
        "x.png",
        lambda p: read_images(
            [p], SimpleNamespace(name="d", spec=DataSpec("d", (3, 8, 8), 2), class_names=("a", "b"))
        ),
    ),
    "cached set": Reader("x.npz", lambda p: load_cached(p, "key"), refusals=()),
    "cached result": Reader("x.npz", lambda p: load_cached(p, "key"), refusals=()),
    **{
        f"extractor {kind}": Reader(f"x.{kind}", read_tensors, refusals=EXTRACTOR)
        for kind in ("pth", "pt", "safetensors")
    },
    "extractor copy": Reader(
        "x.pth", lambda p: state_copy(files.read_whole(p), p, ALEXNET), refusals=EXTRACTOR
    ),
}  # fmt: skip


def outcome(reader: Reader, path: Path) -> str:
    """'' if the file was read or refused in one sentence, otherwise the problem."""
    try:
        reader.read(path)
    except (*reader.refusals, OSError) as error:
        if isinstance(error, OSError) and not reader.refusals:
            return f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and UserError in reader.refusals:
            # The command line turns it into a sentence: not a regular file, or unreadable.
            return "" if error.strerror and error.filename else repr(error)
        text = str(error)
        if "\n" in text or "\r" in text or not text.isprintable():
            return f"{type(error).__name__} in more than one line: {text[:300]!r}"
        if len(text) > 1500:
            return f"{type(error).__name__} of {len(text)} characters: {text[:100]!r}"
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"
    return ""


def card_json() -> bytes:
    """A valid card of samples."""
    return json.dumps(SAMPLES.model_dump(mode="json")).encode()
