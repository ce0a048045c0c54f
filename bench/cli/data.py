"""What `bench data` does, and how `bench train --data` comes to a prepared data set."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from bench.data.card import (
    CARD,
    DATA_FOLDER_VARIABLE,
    DataCard,
    data_root,
    name_of,
    prepared_names,
    read_data_card,
)
from bench.data.decode import Crop, Geometry, Resize
from bench.data.names import check_data_name
from bench.data.prepare import prepare, remove_leftovers, source_hash
from bench.data.prepared import prepared_folder, read_stamp, update_stamp, verify
from bench.system import places
from bench.system.claims import read_holder, tidy_claims, try_claim
from bench.system.errors import UserError, unknown
from bench.system.files import tidy
from methods import METHODS
from methods.spec import DataSpec

CLAIM = ".claim"
LOOK_EVERY = 0.2  # seconds


def prepare_command(
    console: Console,
    source: Path,
    *,
    name: str | None,
    size: int | None,
    crop: str,
    resize: str,
    root: Path | None,
) -> None:
    """`bench data prepare`."""
    for option, value, allowed in (("crop", crop, Crop), ("resize", resize, Resize)):
        if value not in get_args(allowed):
            raise unknown(option, value, get_args(allowed))
    geometry = Geometry(size, crop, resize)  # type: ignore[arg-type]  # checked above
    if size is None and geometry != Geometry():
        raise UserError("--crop and --resize go with --size, such as --size 64.", code=2)
    place = data_root() if root is None else root.expanduser()
    card = ensure(console, source, name or name_of(source), geometry, place)
    for line in describe(card):
        _say(console, line)
    _say(console, f"It is in {place / card.name}.")
    named = f"{DATA_FOLDER_VARIABLE}={root} " if root is not None else ""
    fitting = fitting_presets(card)
    if not fitting:
        _say(
            console,
            f"No preset is for images of {card.shape}: prepare them at --size 32 or 64, or write "
            "a method with a preset of your own (--plugin).",
        )
        return
    method, preset = fitting[0]
    chosen = "" if preset == card.name else f" --preset {preset}"
    _say(console, f"Next: {named}bench train --method {method} --dataset {card.name}{chosen}")


def prepare_if_missing(
    console: Console, source: Path, name: str | None, *, dry_run: bool = False
) -> str:
    """The name of the data set that `source` is prepared as, after that is done if need be."""
    wanted, root = name or name_of(source), data_root()
    if dry_run and wanted not in prepared_names(root):
        raise UserError(
            f"{source} is not prepared yet, which --dry-run leaves so: bench data prepare {source} "
            f"--dataset {wanted}."
        )
    # Of several processes one tells, and the others wait for it.
    quiet = os.environ.get("RANK", "0") != "0"
    ensure(None if quiet else console, source, wanted, None, root)
    return wanted


def ensure(
    console: Console | None, source: Path, name: str, geometry: Geometry | None, root: Path
) -> DataCard:
    """The card of `source` prepared as `name`; prepares it where it is not.

    What is prepared under that name from other content, or to another size where `geometry` asks
    for one, is a UserError. Processes that ask for the same at once wait for the first.
    """
    check_data_name(name)
    if not source.exists():
        raise UserError(f"There is no data source {source}.", code=2)
    places.hold(root)
    folder = root / name
    tidy_claims(root)
    if not (folder / CARD).exists():
        with _alone(root, name, console):
            if not (folder / CARD).exists():
                if folder.exists():
                    raise UserError(f"{folder} is no prepared data set, and in the way; remove it.")
                remove_leftovers(root, name)
                try:
                    prepare(source, name, geometry or Geometry(), root, console)
                except KeyboardInterrupt:
                    again = "Stopped. Nothing was kept; the same command prepares it anew."
                    raise UserError(again, code=130) from None
                update_stamp(folder, source=_source_marks(source))
                return read_data_card(folder)
    tidy(folder)
    card = read_data_card(folder)
    _check_same(folder, card, source, geometry, console)
    return card


def _check_same(
    folder: Path, card: DataCard, source: Path, geometry: Geometry | None, console: Console | None
) -> None:
    other = f"give this one another name with --dataset, or remove {folder}"
    if geometry is not None and geometry.size is not None:
        have = (card.size, card.crop, card.resize)
        if have != (geometry.size, geometry.crop, geometry.resize):
            how = "at its own size" if card.size is None else " ".join(map(str, have))
            raise UserError(
                f"The data set {card.name!r} is there already, prepared {how}: {other}."
            )
    current = _source_marks(source)
    if read_stamp(folder).get("source") == current:
        return
    if source_hash(source, console) != (card.source_sha256, card.source_listing):
        raise UserError(
            f"The data set {card.name!r} was prepared from other content ({card.source}) than "
            f"{source} has: {other}."
        )
    update_stamp(folder, source=current)


def _source_marks(source: Path) -> list[Any]:
    """By what a change of the source is noticed without reading it.

    Of a folder those are the times of the folders in its upper two levels, which change with the
    files that are added and removed in them.
    """
    path = source.resolve()
    status = path.stat()
    if path.is_file():
        return [str(path), status.st_size, status.st_mtime_ns]
    digest = hashlib.sha256()
    for folder in _folders(path, 2):
        digest.update(f"{folder} {Path(folder).stat().st_mtime_ns}\n".encode("utf-8", "replace"))
    return [str(path), digest.hexdigest()]


def _folders(path: Path, levels: int) -> Iterator[str]:
    yield str(path)
    if levels:
        # A class may hold very many files; they are not looked at, only where folders can be.
        with os.scandir(path) as entries:
            below = sorted(e.path for e in entries if e.is_dir())
        for folder in below:
            yield from _folders(Path(folder), levels - 1)


@contextmanager
def _alone(root: Path, name: str, console: Console | None) -> Iterator[None]:
    """Hold the name against other processes that would prepare under it; waits for them."""
    path = root / f".{name}{CLAIM}"
    told = False
    while (claim := try_claim(path)) is None:
        holder = read_holder(path)
        if console is not None and holder is not None and not told:
            _say(console, f"{name!r} is being prepared by {holder}: waiting for it.")
            told = True
        time.sleep(LOOK_EVERY)
    try:
        yield
    finally:
        claim.release()


def describe(card: DataCard) -> list[str]:
    """What was prepared, in sentences."""
    lines = [f"{card.summary}."]
    if card.reference_from == "hold-out":
        lines.append("Its reference was held out of the training images: it has no test split.")
    if card.lossy:
        lines.append("From lossy files: its numbers do not compare with those of original pixels.")
    if card.converted:
        modes = ", ".join(f"{count:,} of {mode}" for mode, count in card.converted.items())
        lines.append(f"Converted to the set's own mode: {modes}.")
    if card.left_out:
        lines.append(f"{card.left_out:,} images of further splits were left out.")
    return lines


def fitting_presets(card: DataCard) -> list[tuple[str, str]]:
    """(method, preset) of all presets that may be used on it.

    Those of its own name first, then the small ones: the others take GPUs for days.
    """
    spec = DataSpec(card.name, card.shape, len(card.class_names))
    found = [
        (method, name)
        for method, cls in sorted(METHODS.items())
        for name, preset in sorted(cls.presets.items())
        if cls.trains and preset.fits(spec)
    ]
    return sorted(
        found,
        key=lambda pair: (
            pair[1] != card.name,
            pair[0] != "edm",
            not pair[1].endswith("-small"),
        ),
    )


def list_command(console: Console, root: Path | None) -> None:
    """`bench data list`."""
    place = data_root() if root is None else root.expanduser()
    cards = prepared_cards(place)
    if not cards:
        _say(console, f"No prepared data sets in {place}: bench data prepare SOURCE.")
        return
    table = Table.grid(padding=(0, 2))
    for card in cards:
        table.add_row(card.name, card.summary, f"(from {card.source})")
    console.print(table)


def prepared_cards(root: Path | None = None) -> Sequence[DataCard]:
    """The cards of all prepared data sets, by name."""
    place = data_root() if root is None else root
    return [read_data_card(place / name) for name in prepared_names(place)]


def verify_command(console: Console, name: str, root: Path | None) -> None:
    """`bench data verify`."""
    folder = prepared_folder(name, None if root is None else root.expanduser())
    card = verify(folder)
    _say(console, f"{name}: {card.n:,} images and labels are as they were prepared.")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
