"""Launchers: the ways to start further processes of a command, its workers, and to hear them."""

from bench.system.launch.base import (
    LAUNCHERS,
    Apart,
    Call,
    Launcher,
    Worker,
    make_launcher,
    parse_launcher,
    register,
)
from bench.system.launch.local import Local
from bench.system.launch.ray import Ray
from bench.system.launch.slurm import Slurm

__all__ = [
    "LAUNCHERS", "Apart", "Call", "Launcher", "Local", "Ray", "Slurm", "Worker", "make_launcher",
    "parse_launcher", "register",
]  # fmt: skip
