"""Long tables as CSV that a spreadsheet takes for what they are."""

from __future__ import annotations

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(frame: pd.DataFrame) -> str:
    """The table as CSV; text that a spreadsheet would compute gets an apostrophe in front.

    Names and reasons come out of files that may be somebody's. Numbers are no text here and stay.
    """
    safe = frame.map(_plain).rename(columns=_plain)
    return safe.to_csv(index=False, lineterminator="\n")


def _plain(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
