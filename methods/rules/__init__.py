"""Guidance rules behind one interface: importing this package registers the built-in ones."""

from methods.rules.base import Between, Call, Networks, NoKnobs, OneOf, Point, Rule, spread
from methods.rules.cfg import CFG
from methods.rules.compose import Composite
from methods.rules.registry import RULES, make_rule, register_rule

__all__ = [
    "CFG",
    "RULES",
    "Between",
    "Call",
    "Composite",
    "Networks",
    "NoKnobs",
    "OneOf",
    "Point",
    "Rule",
    "make_rule",
    "register_rule",
    "spread",
]
