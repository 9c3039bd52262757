"""A first column that says which row is which is recognised; any other column is not."""

import numpy as np
import pyarrow as pa
import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.readers.ids import choose_id, id_column, ids_in
from jgmm.workbench.readers.numerals import Numerals
from jgmm.workbench.readers.tables import ArrayTable
from jgmm.workbench.readers.text_table import TextTable


def table(name, values):
    columns = {name: values, "a": ["1.5"] * len(values)}
    arrays = [pa.chunked_array([each], "string") for each in columns.values()]
    return TextTable("here", list(columns), arrays, Numerals())


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("", ["1", "2", "3"]),
        ("", ["9", "2", "7"]),
        ("rownames", ["p", "q", "r"]),
        ("Unnamed: 0", ["0", "1", "2"]),
        ("id", ["7", "8", "9"]),
        ("Nr", ["1.0", "2.0", "3.0"]),
    ],
)
def test_a_column_of_ids(name, values):
    found = table(name, values)
    assert id_column(found) == choose_id(found, None, set()) == name
    assert ids_in(found, name) == [value.removesuffix(".0") for value in values]
    assert choose_id(found, None, {name}) is None  # it has another use


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("", ["1.5", "2", "3"]),  # measurements
        ("", ["1", "1", "3"]),  # not distinct
        ("id", ["1", "3", "5"]),  # does not count
        ("id", ["1"]),
        ("no", ["1", "2", "NA"]),
        ("mass", ["1", "2", "3"]),
    ],
)
def test_a_column_of_measurements(name, values):
    assert id_column(table(name, values)) is None


def test_the_index_of_a_data_frame_is_found_in_any_place():
    stored = ArrayTable("here", ["a", "__index_level_0__"], np.ones((2, 2)), {})
    assert id_column(stored) == "__index_level_0__"


def test_a_name_that_is_given_must_be_free():
    found = table("key", ["x", "y"])
    assert choose_id(found, "key", set()) == "key"
    with pytest.raises(UserError, match="'key' is also asked for"):
        choose_id(found, "key", {"key"})
    with pytest.raises(UserError, match=r"no column 'kye'.*key"):
        choose_id(found, "kye", set())
