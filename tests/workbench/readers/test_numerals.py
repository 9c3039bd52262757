"""A written number has one meaning, or it is said that it has two."""

import pyarrow as pa
import pytest

from jgmm.workbench.readers.numerals import Ambiguous, Numerals, guess, unit_of, without_unit


@pytest.mark.parametrize(
    ("numerals", "text", "value"),
    [
        (Numerals(), "1.5", 1.5),
        (Numerals(), "−2e-3", -0.002),
        (Numerals(), "1,5", None),
        (Numerals(","), "1,5", 1.5),
        (Numerals(","), "1.5", None),
        (Numerals(".", ","), "1,234,567.5", 1234567.5),
        (Numerals(".", ","), "1,23", None),
        (Numerals(".", ","), "12,34,567", None),
        (Numerals(",", "."), "1.234,5", 1234.5),
        (Numerals(",", " "), "1\u202f234,5", 1234.5),
        (Numerals(".", "'"), "1’234.5", 1234.5),
        (Numerals(), "x", None),
        (Numerals(), None, None),
    ],
)
def test_numbers_are_read_whole_or_not_at_all(numerals, text, value):
    values, good = numerals.read(pa.chunked_array([[text]], "string"))
    assert values.to_pylist() == [value]
    assert good.to_pylist() == [None if text is None else value is not None]
    assert text is None or numerals.is_number(text) == (value is not None)


def test_a_unit_has_to_be_the_same_everywhere():
    text = pa.chunked_array([["1 g", "2g", "3 kg", "4", None]], "string")
    values, good = Numerals().read(text, "g")
    assert values.to_pylist() == [1, 2, None, None, None]
    assert good.to_pylist() == [True, True, False, False, None]
    assert unit_of("$ 3.50") == "$"
    assert without_unit("12,5 %") == "12,5"
    assert without_unit("abc") == "abc"


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["1", "2"], Numerals()),
        (["1.234", "5.678"], Numerals()),
        (["1,5", "2"], Numerals(",")),
        (["1.234", "0,5"], Numerals(",", ".")),
        (["1,234", "0.5"], Numerals(".", ",")),
        (["1,234,567"], Numerals(".", ",")),
        (["1 234", "2"], Numerals(".", " ")),
        (["0,123"], Numerals(",")),
    ],
)
def test_decimal_marks_are_guessed_from_what_has_one_meaning(cells, found):
    assert guess(cells) == found


def test_what_has_two_meanings_is_not_guessed():
    with pytest.raises(Ambiguous, match="1,234"):
        guess(["1,234", "5,678", "3"])
    assert guess(["1,234"], ",") == Numerals(",")
    assert guess(["1,234"], ".") == Numerals(".", ",")
