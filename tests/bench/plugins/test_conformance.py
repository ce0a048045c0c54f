"""The battery over every registered method at every preset of an embedded data set.

The networks of other presets are too large for it and their data is not here: the guided methods
run it on shrunken ones of the same architecture.
"""

import pytest

from bench.plugins.conformance import MethodConformance
from methods import METHODS

CASES = [
    pytest.param(cls, preset, id=f"{name}-{preset}")
    for name, cls in sorted(METHODS.items())
    for preset, found in cls.presets.items()
    if found.shape is None
]
SHRUNKEN = {"channels": 16, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (4,)}
LARGE = [(name, preset) for name in ("guided-cd", "igct") for preset in ("cifar10", "imagenet64")]


class TestEveryMethod(MethodConformance):
    @pytest.fixture(autouse=True, params=[case.values for case in CASES], ids=[c.id for c in CASES])
    def _choose(self, request):
        self.method, self.preset = request.param


class TestLargeMethodsShrunken(MethodConformance):
    @pytest.fixture(autouse=True, params=LARGE, ids="-".join)
    def _choose(self, request, monkeypatch):
        name, self.preset = request.param
        self.method = METHODS[name]
        for cls in (self.method, METHODS["edm"]):  # the teacher shrinks with its student
            found = cls.presets[self.preset]
            net = found.config.net.model_copy(update=SHRUNKEN)
            config = found.config.model_copy(update={"net": net})
            small = found.model_copy(update={"dataset": "digits", "config": config})
            monkeypatch.setitem(cls.presets, self.preset, small)
