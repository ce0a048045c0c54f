"""The words of messages."""

import pytest

from bench.system.errors import counted


@pytest.mark.parametrize(
    ("count", "noun", "words"),
    [
        (0, "cell", "0 cells"),
        (1, "cell", "1 cell"),
        (2, "network evaluation", "2 network evaluations"),
        (1, "class", "1 class"),
        (1200, "class", "1,200 classes"),
    ],
)
def test_counted_noun_is_plural_except_for_one(count, noun, words):
    assert counted(count, noun) == words
