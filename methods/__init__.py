"""Guidance methods behind one interface: importing this package registers the built-in ones."""

from methods.base import Batch, Inverts, Method, Progress
from methods.ct import CT
from methods.edm import EDM
from methods.guidance import Guidance
from methods.igct import IGCT
from methods.oracle import Oracle
from methods.registry import METHODS, register
from methods.rng import BatchRNG, SampleRNG
from methods.settings import Preset, Settings, TrainSettings
from methods.spec import DataSpec, Mixture

__all__ = [
    "CT",
    "EDM",
    "IGCT",
    "METHODS",
    "Batch",
    "BatchRNG",
    "DataSpec",
    "Guidance",
    "Inverts",
    "Method",
    "Mixture",
    "Oracle",
    "Preset",
    "Progress",
    "SampleRNG",
    "Settings",
    "TrainSettings",
    "register",
]
