"""Tables of every format refuse the same mistakes, and say what a missing package is needed for."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workbench.readers.data_files import refused, write_csv, write_npy, write_parquet

from jgmm.workbench.readers import datasets


@pytest.mark.parametrize(
    ("module", "source", "extra"),
    [
        ("pyarrow", "faithful", "workbench"),
        ("pyarrow.csv", "faithful", "workbench"),
        ("pyarrow.parquet", "data.parquet", "workbench"),
        ("sklearn.datasets", "iris", "sklearn"),
    ],
)
def test_missing_extra_says_what_to_install(tmp_path, monkeypatch, module, source, extra):
    write_parquet(tmp_path, a=[1.0])
    monkeypatch.setitem(sys.modules, module, None)
    refused(source, f'pip install "jgmm[{extra}]"', module.split(".")[0], root=tmp_path)


def test_repeated_names_are_refused(tmp_path):
    refused(write_csv(tmp_path, "a,b, a\n1,2,3\n"), "'a' occurs more than once")
    table = pa.table([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    pq.write_table(table, tmp_path / "data.parquet")
    refused(tmp_path / "data.parquet", "'a' occurs more than once")


def test_no_rows_are_refused(tmp_path):
    refused(write_csv(tmp_path, "a,b\n"), "no rows")
    refused(write_parquet(tmp_path, a=pa.array([], pa.float64())), "no rows")
    refused(write_npy(tmp_path, np.zeros((0, 3))), "no rows")
    refused(write_npy(tmp_path, np.zeros((3, 0))), "no rows")


def test_many_columns_take_no_longer_than_their_number(tmp_path):
    # Looking for each name among all others would take a minute.
    path = write_npy(tmp_path, np.ones((1, 50_000)))
    assert datasets.load(path, [f"x{i}" for i in range(49_999, -1, -1)]).x.shape == (1, 50_000)
