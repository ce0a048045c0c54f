"""Files of a source that are no samples: which they are, and how they are reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from bench.data.decode import is_image
from bench.data.labels import INDEX
from bench.data.samples.card import SAMPLES_JSON
from bench.system.errors import counted, plain

KINDS_MOST = 5


def other_files(names: Iterable[str]) -> list[str]:
    """The files, sorted, that are neither images by their suffix nor describe them."""
    return sorted(
        name
        for name in names
        if not is_image(name) and PurePosixPath(name).name not in (INDEX, SAMPLES_JSON)
    )


def told_left_out(names: Sequence[str], start: str) -> str:
    """A sentence with the number of files by suffix, and an example; '' for no files."""
    if not names:
        return ""
    kinds = Counter(plain(PurePosixPath(name).suffix.lower()) or "no suffix" for name in names)
    counts = [f"{count:,} with {kind}" for kind, count in kinds.most_common(KINDS_MOST)]
    if len(kinds) > KINDS_MOST:
        counts.append("others")
    return (
        f"{start} {counted(len(names), 'file')} ({', '.join(counts)}; such as {plain(names[0])!r})."
    )
