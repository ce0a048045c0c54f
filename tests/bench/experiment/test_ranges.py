import pytest

from bench.experiment.ranges import parse_ints, parse_range
from bench.system.errors import UserError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1..13", tuple(range(1, 14))),
        ("1..13:2", (1, 3, 5, 7, 9, 11, 13)),
        ("1..12:5", (1, 6, 11)),
        ("1,1.5,2", (1, 1.5, 2)),
        ("3, 1 ,2", (1, 2, 3)),
        ("2,1..3,2.0", (1, 2, 3)),
        ("5..5", (5,)),
        ("-1..1", (-1, 0, 1)),
        ("1e1", (10,)),
        ("1..2:0.1", (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2)),
        ("1..1000", tuple(range(1, 1001))),
    ],
)
def test_values(text, values):
    # Exact: the text says decimal numbers and the result is the closest floats to them.
    assert parse_range(text) == values


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("13..1", "--guidance '13..1' runs backwards, from 13 to 1."),
        ("1..3:0", "--guidance '1..3:0': the step must be above 0, got 0."),
        ("1..3:-1", "--guidance '1..3:-1': the step must be above 0, got -1."),
        ("1,x", "--guidance '1,x': 'x' is not a number; write 1..13, 1..13:2 or 1,1.5,2."),
        ("", "--guidance '': '' is not a number; write 1..13, 1..13:2 or 1,1.5,2."),
        ("1..", "--guidance '1..': '' is not a number; write 1..13, 1..13:2 or 1,1.5,2."),
        ("1,,2", "--guidance '1,,2': '' is not a number; write 1..13, 1..13:2 or 1,1.5,2."),
        ("1:2", "--guidance '1:2': a step needs a range before it; write 1..13, 1..13:2 or "
                "1,1.5,2."),
        ("nan", "--guidance 'nan': 'nan' is not a number; write 1..13, 1..13:2 or 1,1.5,2."),
        ("1..inf", "--guidance '1..inf': 'inf' is not a number; write 1..13, 1..13:2 or 1,1.5,2."),
        ("1e400", "--guidance '1e400': '1e400' is not a number; write 1..13, 1..13:2 or 1,1.5,2."),
        ("1..1001", "--guidance '1..1001' has more than 1000 values."),
        ("1..2:1e-999999", "--guidance '1..2:1e-999999' has more than 1000 values."),
        ("1..9e300:1e-999999", "--guidance '1..9e300:1e-999999' has more than 1000 values."),
        ("1..600,1.5..600", "--guidance '1..600,1.5..600' has more than 1000 values."),
    ],
)  # fmt: skip
def test_error_sentences(text, sentence):
    with pytest.raises(UserError) as raised:
        parse_range(text, "--guidance")
    assert str(raised.value) == sentence
    assert raised.value.code == 2


def test_equal_floats_are_one_value():
    assert parse_range("1,1.00000000000000000001") == (1.0,)


def test_whole_numbers():
    assert parse_ints("0..3", "--seeds") == (0, 1, 2, 3)
    assert all(type(value) is int for value in parse_ints("1,2", "--steps"))
    for text, least in (("1.5", 0), ("-1..2", 0), ("0,1", 1)):
        with pytest.raises(UserError, match=f"must be whole numbers from {least} up"):
            parse_ints(text, "--steps", least=least)
