"""The glossary is alphabetical, has one sentence for each term, and names modules that exist."""

import importlib.util
import pathlib
import re

import pytest

import jgmm

PAGE = pathlib.Path(jgmm.__file__).parents[1] / "docs" / "glossary.md"
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| `([\w.]+)` \|$", flags=re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))


def test_every_line_of_the_table_is_an_entry():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert len(lines) == len(ROWS) + 2  # a heading, and the line under it
    assert len(ROWS) >= 60


def test_terms_are_in_alphabetical_order_and_stand_once():
    terms = [term.casefold() for term, _, _ in ROWS]
    assert terms == sorted(set(terms))


@pytest.mark.parametrize(("term", "meaning", "module"), ROWS, ids=[row[0] for row in ROWS])
def test_an_entry_is_a_sentence_and_its_module_exists(term, meaning, module):
    assert meaning[0].isupper()
    assert meaning.endswith(".")
    assert module.startswith("jgmm.")
    assert importlib.util.find_spec(module) is not None
