"""Columns of text are numbers if most of their values are."""

import pyarrow as pa
import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.readers.numerals import Numerals
from jgmm.workbench.readers.text_table import TextTable


def table(**columns):
    arrays = [pa.chunked_array([values], "string") for values in columns.values()]
    return TextTable("here", list(columns), arrays, Numerals())


def test_kinds_of_columns():
    found = table(n=["1", " 2 ", "NA"], u=["1 g", "2 g", ""], t=["x", "1", "y"], e=["", "", ""])
    assert [found.is_numeric(name) for name in found.names] == [True, False, False, False]
    reasons = [found.why_left_out(name) for name in ("u", "t", "e")]
    assert reasons == ["numbers with a unit", "text", "empty"]
    assert (found.unit("u"), found.example("u")) == ("g", "1 g")
    assert found.numbers("u")[:2].tolist() == [1, 2]
    assert found.texts("n") == ["1", "2", None]


def test_a_value_that_does_not_fit_is_named():
    with pytest.raises(UserError, match="'n', row 3: 'x' is not a number"):
        table(n=["1", "2", "x"]).numbers("n")
    with pytest.raises(UserError, match="row 3: '3 kg' is not a number with the unit 'g'"):
        table(u=["1 g", "2 g", "3 kg"]).numbers("u")


def test_columns_without_name_and_values_are_left_out():
    arrays = [pa.chunked_array([values], "string") for values in (["1"], [""], [" "])]
    assert TextTable("here", ["a", "", ""], arrays, Numerals()).names == ["a"]
