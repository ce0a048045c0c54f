"""Parameters of which `make test` runs a part, and `make test-long` the rest."""

from collections.abc import Collection, Iterable

import pytest


def mostly_long(values: Iterable[object], short: Collection[object]) -> list[object]:
    """The values as parameters, of which all but those in `short` are long."""
    return [
        value if value in short else pytest.param(value, marks=pytest.mark.long) for value in values
    ]
