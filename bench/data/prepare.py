"""From a source on disk to a prepared data set."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import PIL

from bench.data.arrange import arrange
from bench.data.base import Split
from bench.data.card import (
    CARD,
    IMAGES,
    LABELS,
    DataCard,
    check_data_name,
)
from bench.data.decode import Geometry
from bench.data.latents import LatentsOf, check_latents, write_latents
from bench.data.leftovers import told_left_out
from bench.data.prepared import marks, open_content, update_stamp
from bench.data.published import check_reserved, title_of
from bench.data.sources import find_source
from bench.data.sources.images import LabelledLatents
from bench.data.statistics_only import StatisticsOf, statistics_card
from bench.data.trees import open_tree
from bench.data.write import Written, write_images
from bench.system import places
from bench.system.errors import UserError, plain
from bench.system.files import make_folder, sha256, sync_folder, write_text
from bench.system.progress import SILENT, Reporter


def prepare(
    source: Path,
    name: str,
    geometry: Geometry,
    root: Path,
    reporter: Reporter = SILENT,
    of: LatentsOf | StatisticsOf | None = None,
) -> Path:
    """Prepare `source` as the data set `name` under `root`; returns its folder.

    `of` is for a source of latents or a statistics file, which do not say enough. The folder
    appears once it is complete and synced to disk; if the work stops before, nothing is left.
    Memory does not grow with the number of pixels.
    """
    check_data_name(name)
    if isinstance(of, StatisticsOf):
        with _staging(root, name) as folder:
            card = statistics_card(source, name, of, folder)
            write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")
        return root / name
    tree = open_tree(source)
    reporter.say(f"Reading {source}.")
    digest, listed = source_hash(source, reporter)
    found = find_source(tree)
    listing = found.listing()
    arrangement = arrange(listing, source, hold_out=of is None)
    if isinstance(found, LabelledLatents) != (of is not None):
        has = "images" if of is not None else "latents"
        raise UserError(
            f"{source} holds {has}: --decoder and --images are for latents, which need both.",
            code=2,
        )
    check_reserved(name, listing, geometry)
    with _staging(root, name) as folder:
        if of is None:
            written = write_images(found, arrangement, geometry, folder, name, reporter)
        else:
            check_latents(found, of, listing.class_names)
            written = Written(write_latents(found, of, arrangement, folder, name, reporter))
            of.decoder.copy(folder)
        labels = np.empty(len(listing.labels), dtype=np.int64)
        labels[arrangement.rows] = listing.labels
        np.save(folder / LABELS, labels, allow_pickle=False)
        n, train_n = len(labels), arrangement.train_n
        common = "L" if written.shape[0] == 1 else "RGB"
        draft = DataCard(
            name=name,
            title=title_of(
                name,
                listing,
                written.shape,
                resized=geometry.size is not None,
                lossy=written.lossy,
            ),
            source=plain(source.resolve().name),
            source_sha256=digest,
            source_listing=listed,
            kind=found.kind,
            size=geometry.size,
            crop=None if geometry.size is None else geometry.crop,
            resize=None if geometry.size is None else geometry.resize,
            lossy=written.lossy,
            converted={m: k for m, k in sorted(written.modes.items()) if m not in ("", common)},
            oddities=dict(written.oddities),
            n=n,
            shape=written.shape,
            class_names=listing.class_names if of is None else of.images.class_names,
            images_of="" if of is None else of.images.name,
            decoder="" if of is None else of.decoder.name,
            train=(0, train_n),
            reference=(train_n, n),
            reference_from=arrangement.reference_from,
            left_out=listing.left_out,
            ignored=told_left_out(listing.ignored, "Left out"),
            images_sha256=sha256(folder / IMAGES, reporter),
            labels_sha256=sha256(folder / LABELS),
            train_hash="",
            reference_hash="",
            pillow=PIL.__version__,
            numpy=np.__version__,
        )
        whole = Split(*open_content(folder, draft), latent=of is not None)
        card = draft.model_copy(
            update={
                "train_hash": whole.part(0, train_n).hash,
                "reference_hash": whole.part(train_n, n).hash,
            }
        )
        del whole
        update_stamp(folder, files=marks(folder))
        write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")
    return root / name


def remove_leftovers(root: Path, name: str) -> None:
    """Remove the temporary folders of killed preparations; the caller holds the name's lock."""
    for folder in root.glob(f".{name}.????????"):
        shutil.rmtree(folder, ignore_errors=True)


def source_hash(source: Path, reporter: Reporter = SILENT) -> tuple[str, str]:
    """SHA-256 (of a file, '') or ('', of the names and sizes in a folder)."""
    if source.is_file():
        return sha256(source, reporter), ""
    digest = hashlib.sha256()
    for file in open_tree(source).files():
        digest.update(f"{file.size} {file.name}\n".encode("utf-8", "surrogateescape"))
    return "", digest.hexdigest()


@contextmanager
def _staging(root: Path, name: str) -> Iterator[Path]:
    """A temporary folder that is renamed to `root / name` at the end, or removed."""
    make_folder(root)
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
    try:
        places.check()
        yield temporary
        for path in filter(Path.is_file, temporary.rglob("*")):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp makes it private
        temporary.rename(root / name)
        sync_folder(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
