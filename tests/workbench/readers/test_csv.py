"""CSV files are read exactly as they are written, or refused with the place of the mistake."""

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from workbench.readers.data_files import FRAME, refused, write_csv

from jgmm.workbench.readers import datasets
from jgmm.workbench.readers.numerals import NUMBER

# Longer than one block of the CSV reader, 16 MiB, in few rows.
LONG_ROWS = 40_000

LONG = "a,b\n" + f"{'0' * 499}1,2\n" * LONG_ROWS


def test_csv_dialect(tmp_path):
    text = '\ufeffa, "b" ,c\r\n +1.5,"x, y", 2e1 \r\n\r\n-.5,"two\r\nlines",3.\r\n'
    data = datasets.load(write_csv(tmp_path, text), ["a", "c"])
    assert data.x.tolist() == [[1.5, 20.0], [-0.5, 3.0]]


def test_csv_types_are_decided_on_every_row(tmp_path):
    # Whole numbers only until the reader's last block.
    data = datasets.load(write_csv(tmp_path, LONG + "0.5,2.5\n"))
    assert data.x.shape == (LONG_ROWS + 1, 2)
    assert data.x[-1].tolist() == [0.5, 2.5]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_csv_numbers_are_read_exactly(tmp_path_factory, value):
    path = write_csv(tmp_path_factory.mktemp("exact"), f"a\n{value!r}\n")
    assert datasets.load(path).x[0, 0] == value


@pytest.mark.parametrize(
    "text", ["1", "+1", "-1.", ".5", "1e5", "1.E-3", ".", "e5", "1_0", "0x1", "1,5", "++1", "inf"]
)
def test_number_pattern_is_what_the_reader_accepts(text):
    try:
        pa.chunked_array([[text]]).cast(pa.float64())
        accepted = True
    except pa.ArrowInvalid:
        accepted = False
    assert bool(re.fullmatch(NUMBER, text)) == accepted


def test_column_without_a_name_is_never_a_feature_by_accident(tmp_path):
    path = tmp_path / "data.csv"
    FRAME.to_csv(path)  # writes the row index, without a name
    data = datasets.load(path)
    assert (data.columns, data.id_name, data.ids) == (["a", "n", "w"], "", ["0", "1", "2", "3"])
    FRAME.set_index("a").to_csv(path, index_label="")
    refused(path, "no name", "no index of the rows")
    assert datasets.load(path, ["n"]).columns == ["n"]


def test_a_first_line_of_data_is_kept(tmp_path):
    data = datasets.load(write_csv(tmp_path, "1.5,2\n3,4\n"))
    assert (data.x.tolist(), data.columns) == ([[1.5, 2], [3, 4]], ["x0", "x1"])
    refused(write_csv(tmp_path, "\n\n"), "data.csv", "no rows")


@pytest.mark.parametrize(
    ("cell", "said"),
    [("", "missing"), ("NA", "missing"), ("nan", "missing"), ("inf", "infinite"), ("-INF", "inf")],
)
def test_missing_and_infinite_csv_values_are_located(tmp_path, cell, said):
    path = write_csv(tmp_path, f"a,b\n1,2\n3,{cell}\n5,6\n")
    refused(path, "column 'b', row 2", said, "Remove or fill")
    refused(path, "column 'b', row 2", said, columns=["a"], weight="b")


@pytest.mark.parametrize("row", ["3", "3,4,5"])
def test_ragged_csv_is_located(tmp_path, row):
    count = row.count(",") + 1
    path = write_csv(tmp_path, f"a,b\n1,2\n{row}\n5,6\n")
    refused(path, f"row 2 has {count} values", "header has 2")
    refused(write_csv(tmp_path, LONG + row), f"row {LONG_ROWS + 1} has {count} values")


def test_bad_last_row_leaves_nothing(tmp_path):
    # Wrong only in the last block of a file: no rows before it are handed out, and no state is
    # left behind, so the mended file is read whole.
    for tail in ("3", "3,x", "3,", "3,inf"):
        refused(write_csv(tmp_path, LONG + tail), f"row {LONG_ROWS + 1}")
    data = datasets.load(write_csv(tmp_path, LONG + "3,4"))
    assert data.x.shape == (LONG_ROWS + 1, 2)
    np.testing.assert_array_equal(data.x.sum(0), [LONG_ROWS + 3, 2 * LONG_ROWS + 4])


def test_csv_in_another_encoding_is_told(tmp_path):
    data = datasets.load(write_csv(tmp_path, "größe\n1\n".encode("latin-1")))
    assert (data.columns, data.read_as) == (["größe"], "Latin-1")
    data = datasets.load(write_csv(tmp_path, "a,k\n1,größe\n".encode("latin-1")), label="k")
    assert data.label_names == ["größe"]


def test_what_a_message_quotes_does_not_drown_it(tmp_path):
    message = refused(write_csv(tmp_path, f"a,b\n1,2\n3,{'x' * 9000}\n5,6\n"), "row 2")
    assert 900 < len(message) <= 1000
    assert message.endswith("or leave the column out of `columns`.")
