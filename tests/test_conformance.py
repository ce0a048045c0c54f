"""The battery over every registered method at every preset."""

import pytest

from bench.conformance import MethodConformance
from methods import METHODS

CASES = [
    pytest.param(cls, preset, id=f"{name}-{preset}")
    for name, cls in sorted(METHODS.items())
    for preset in cls.presets
]


class TestEveryMethod(MethodConformance):
    @pytest.fixture(autouse=True, params=[case.values for case in CASES], ids=[c.id for c in CASES])
    def _choose(self, request):
        self.method, self.preset = request.param
