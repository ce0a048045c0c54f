"""Rules for tests of the tuner, as plugin files."""

import textwrap

SHARE = """
    from pydantic import Field
    from methods import Settings
    from methods.rules import Between, Rule, register_rule

    class ShareKnobs(Settings):
        share: float = Field(0.8, ge=0, le=1)
        unused: int = 3

    @register_rule
    class Share(Rule[ShareKnobs]):
        "A share of the guidance."
        name, summary = "share", "a share of the guidance"
        knobs_type = ShareKnobs
        neutral = {"share": 1.0}
        search = {"share": Between(0.0, 1.0)}

        def scale(self, g, at):
            return 1 + (g - 1) * self.knobs.share
"""
EARLY = """
    from typing import Literal
    from methods import Settings
    from methods.rules import OneOf, Rule, register_rule

    class EarlyKnobs(Settings):
        last: Literal[2, 9, 17] = 9

    @register_rule
    class Early(Rule[EarlyKnobs]):
        "Guidance in the first steps alone."
        name, summary = "early", "guidance up to a step"
        knobs_type = EarlyKnobs
        neutral = {"last": 17}
        search = {"last": OneOf((2, 9, 17))}

        def scale(self, g, at):
            return g if at.step <= self.knobs.last else 1.0
"""


def plugin(folder, text, name="mine.py"):
    """A plugin file with this text."""
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path
