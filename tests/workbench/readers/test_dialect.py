"""How a file is written is guessed from its first lines, and each guess can be overridden."""

import csv

import pytest
from workbench.readers.data_files import write_csv

from jgmm._core.errors import UserError
from jgmm.workbench.readers import dialect
from jgmm.workbench.readers.dialect import Overrides
from jgmm.workbench.readers.text import open_text


def guessed(folder, text, **given):
    file = open_text("data.csv", write_csv(folder, text), None)
    return dialect.guess(file, Overrides(**given))


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("a,b\n1,2\n", ","),
        ("1,5;2,5\n3,5;4,5\n", ";"),
        ("1,5 2,5\n3,5 4,25\n", " "),
        ("a b\t1,5\nc d\t2,5\n", "\t"),
        ("2020-01-01 12:00,1.5\n2020-01-02 13:00,2.5\n", ","),
        ("a\n1,5\n2,5\n", ""),
        ("a,b\n1,2\n3\n5,6\n", ","),
    ],
)
def test_separators(tmp_path, text, separator):
    assert guessed(tmp_path, text).separator == separator


def test_the_standard_library_takes_a_decimal_comma_for_a_separator():
    """Why the separator is guessed here: once this fails, ``csv.Sniffer`` may do."""
    assert csv.Sniffer().sniff("1,5;2,5\n3,5;4,5\n").delimiter == ","


@pytest.mark.parametrize(
    ("text", "names", "has_header"),
    [
        ("a,b\n1,2\n", ["a", "b"], True),
        ("1,x\n2,y\n", ["x0", "x1"], False),
        ("length,width,2020\n1.5,2.5,3.5\n", ["length", "width", "2020"], True),
        ("0,1\n1,0\n", ["x0", "x1"], False),
        ("0,1\n1.5,0\n", ["0", "1"], True),
        ("NA,3.5,x\n1,2,y\n", ["x0", "x1", "x2"], False),
        ("a b\n1 2 3\n4 5 6\n", ["", "a", "b"], True),
        ("# a,b\n1,2\n", ["a", "b"], False),
        ("a,b\n", ["a", "b"], True),
    ],
)
def test_headers(tmp_path, text, names, has_header):
    found = guessed(tmp_path, text)
    assert (found.names, found.has_header) == (names, has_header)


def test_colours_are_no_comments(tmp_path):
    found = guessed(tmp_path, "#ff0000,1\n#00ff00,2\n#0000ff,3\n")
    assert (found.cleaning.comment, len(found.sample)) == ("", 3)


@pytest.mark.parametrize("text", ["", "ab", "\n", "1", '"'])
def test_what_is_no_separator_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="no separator"):
        dialect.separator_of(text)
