"""Tables as CSV in which a spreadsheet finds no formula."""

from __future__ import annotations

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(frame: pd.DataFrame) -> str:
    """The table as CSV; text that a spreadsheet would run as a formula starts with an apostrophe.

    Names and reasons come from untrusted files. Numbers are not text, so they stay as they are.
    """
    safe = frame.map(_plain).rename(columns=_plain)
    return safe.to_csv(index=False, lineterminator="\n")


def _plain(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
