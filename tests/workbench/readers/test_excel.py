"""Spreadsheets are tables of text; the corpus in ``corpus`` holds more of them."""

import sys

import pytest
from workbench.readers.corpus import xlsx
from workbench.readers.data_files import refused, write_csv

from jgmm.workbench.readers import datasets


def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "python_calamine", None)
    path = write_csv(tmp_path, xlsx(("A", [["a"], [1.0]])), "a.xlsx")
    refused(path, 'pip install "jgmm[excel]"')


def test_cells_keep_their_values(tmp_path):
    pytest.importorskip("python_calamine", reason='needs pip install "jgmm[excel]"')
    rows = [["id", "a", "k"], [1, 0.1, "x"], [2, 1e-7, "y"], [3, 2.0**60, "x"]]
    path = write_csv(tmp_path, xlsx(("A", rows)), "a.xlsx")
    data = datasets.load(path, label="k")
    assert data.x.tolist() == [[0.1], [1e-7], [2.0**60]]
    assert (data.ids, data.label_names) == (["1", "2", "3"], ["x", "y"])
    refused(write_csv(tmp_path, b"PK\x03\x04 no", "b.xlsx"), "not a whole spreadsheet")
    refused(write_csv(tmp_path, xlsx(("A", [])), "c.xlsx"), "'A' is empty")
