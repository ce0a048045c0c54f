"""The built-in data sets, which importing this module registers."""

from bench.data.base import DATASETS, Dataset, Split, register
from bench.data.digits import Digits
from bench.data.modes import Modes1d, Modes2d

__all__ = ["DATASETS", "Dataset", "Digits", "Modes1d", "Modes2d", "Split", "register"]
