"""Data sets: importing this package registers the built-in ones."""

from bench.data.base import Dataset, Split
from bench.data.digits import Digits
from bench.data.modes import Modes1d, Modes2d
from bench.data.registry import DATASETS, register

__all__ = ["DATASETS", "Dataset", "Digits", "Modes1d", "Modes2d", "Split", "register"]
