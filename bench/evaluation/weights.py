"""The weights of all extractors of a run, looked for before anything is computed with one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.system.errors import UserError
from metrics.extractors.find import MissingWeights, find_weights
from metrics.extractors.weights_table import WEIGHTS


def check_weights(names: Iterable[str], weights: Path | None, download: bool) -> None:
    """UserError that says what to do if a file is missing, or one is given for two networks.

    Extractors that need no file are passed over. With `download` what is missing is fetched.
    """
    wanted = {name: WEIGHTS[name] for name in names if name in WEIGHTS}
    if weights is not None and weights.is_file() and len(set(wanted.values())) > 1:
        raise UserError(
            f"--weights {weights} is one file, but {', '.join(wanted)} need "
            f"{', '.join(w.file for w in dict.fromkeys(wanted.values()))}: give the folder that "
            "holds them.",
            code=2,
        )
    for name, file in wanted.items():
        try:
            find_weights(file, weights, download=download)
        except MissingWeights as error:
            raise missing(error) from None
        except (OSError, RuntimeError) as error:  # no connection, or not the published bytes
            raise UserError(f"The weights of extractor {name!r} cannot be had: {error}.") from None


def missing(error: MissingWeights) -> UserError:
    """The sentence about a missing file in the words of the command line."""
    return UserError(f"{str(error).replace('download=True', '--download')}.")
