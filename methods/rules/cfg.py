"""Classifier-free guidance."""

from __future__ import annotations

from methods.rules.base import NoKnobs, Rule
from methods.rules.registry import register_rule


@register_rule
class CFG(Rule[NoKnobs]):
    """D_null + g (D_c - D_null) (Ho & Salimans 2022, arXiv 2207.12598, eq. 6)."""

    name = "cfg"
    summary = "D_null + g (D_c - D_null), classifier-free guidance (Ho & Salimans 2022)"
