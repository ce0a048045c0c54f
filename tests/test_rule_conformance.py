"""The battery over every registered guidance rule."""

import pytest

from bench.rule_conformance import RuleConformance
from methods.rules import RULES


class TestEveryRule(RuleConformance):
    @pytest.fixture(autouse=True, params=sorted(RULES))
    def _choose(self, request):
        self.rule = RULES[request.param]
