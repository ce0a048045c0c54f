"""The battery over every registered method at every preset of an embedded data set.

Networks of images are shrunken and take few steps; the long form has them at full size. Networks of
other presets are too large even for that, and their data is not here: the guided methods run it on
shrunken ones.
"""

import pytest

from bench.plugins.conformance import MethodConformance
from methods import METHODS
from tests.long import mostly_long

CASES = [
    (name, preset)
    for name, cls in sorted(METHODS.items())
    for preset, found in cls.presets.items()
    if found.shape is None
]
IMAGES = [(name, preset) for name, preset in CASES if preset.startswith("digits")]
SHORT = [case for case in IMAGES if case[1] == "digits"]  # the demo's networks are the same
SHRUNKEN = {"channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}
LARGE = [
    *((name, preset) for name in ("guided-cd", "igct") for preset in ("cifar10", "imagenet64")),
    *((name, "cifar10") for name in ("scd", "sct", "tcm")),
    ("ct", "cifar10-ict"),
]
LARGE += [(name, "cifar10") for name in ("imm", "alpha-flow", "meanflow")]


class TestEveryMethod(MethodConformance):
    @pytest.fixture(autouse=True, params=mostly_long(CASES, set(CASES) - set(IMAGES)), ids="-".join)
    def _choose(self, request):
        name, self.preset = request.param
        self.method = METHODS[name]


class TestMethodsShrunken(MethodConformance):
    @pytest.fixture(autouse=True, params=LARGE + SHORT, ids="-".join)
    def _choose(self, request, monkeypatch):
        name, self.preset = request.param
        self.method = METHODS[name]
        teacher = METHODS[self.method.wants_teacher or name]
        for cls in {self.method, teacher}:  # the teacher shrinks with its student
            found = cls.presets[self.preset]
            net = found.config.net.model_copy(update=SHRUNKEN)
            config = found.config.model_copy(update={"net": net})
            steps = tuple(min(steps, 4) for steps in found.steps)
            small = found.model_copy(update={"dataset": "digits", "config": config, "steps": steps})
            monkeypatch.setitem(cls.presets, self.preset, small)
