"""Parquet files are read in every kind of column, or refused where they are damaged."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from workbench.readers.data_files import FRAME, refused, write_parquet

from jgmm.workbench.readers import datasets


def test_parquet_column_kinds(tmp_path):
    path = write_parquet(
        tmp_path,
        d=pa.array([1, 2], pa.decimal128(5, 2)),
        h=np.array([1.5, 2.5], np.float16),
        b=[True, False],
        k=pa.array(["v", "u"]).dictionary_encode(),
        t=pa.array([0, 1], pa.timestamp("ms")),
    )
    data = datasets.load(path, label="k")
    assert data.columns == ["d", "h"]
    assert data.x.tolist() == [[1.0, 1.5], [2.0, 2.5]]
    assert (data.labels.tolist(), data.label_names) == ([1, 0], ["u", "v"])
    assert datasets.load(path, ["b"]).x.tolist() == [[1.0], [0.0]]
    assert datasets.load(path, ["d"], label="b").label_names == ["false", "true"]
    refused(path, "column 't' holds timestamp[ms], not numbers", columns=["d", "t"])


def test_index_of_a_data_frame_is_not_a_feature(tmp_path):
    path = tmp_path / "data.parquet"
    FRAME[["a"]].set_axis([3, 5, 7, 9]).to_parquet(path)
    assert datasets.load(path).columns == ["a"]


@pytest.mark.parametrize("keep", [3, 0.3, 0.9])
def test_truncated_parquet_is_refused(tmp_path, keep):
    path = write_parquet(tmp_path, a=np.arange(1000.0))
    content = path.read_bytes()
    path.write_bytes(content[: keep if keep > 1 else int(keep * len(content))])
    refused(path, "data.parquet: not a whole Parquet file")


def test_corrupt_parquet_pages_are_refused(tmp_path):
    path = tmp_path / "data.parquet"
    table = pa.table({"a": np.arange(1000.0)})
    pq.write_table(table, path, write_page_checksum=True, compression="none")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    refused(path, "not a whole Parquet file")


def test_parquet_rows_that_are_not_there_are_missed(tmp_path, monkeypatch):
    path = write_parquet(tmp_path, a=[1.0, 2.0])
    real = pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *a, **k: real(*a, **k).slice(1))
    refused(path, "not a whole Parquet file (1 of 2 rows)")


def test_dates_that_python_cannot_hold_are_refused_as_others(tmp_path):
    path = write_parquet(tmp_path, a=[1.0], t=pa.array([1 << 50], pa.timestamp("s")))
    refused(path, "column 't' holds timestamp[ms], not numbers.", columns=["t"])


def test_text_that_is_not_unicode_is_no_label(tmp_path):
    path = write_parquet(tmp_path, a=[1.0], k=pa.array([b"\xff"]))
    refused(path, "column 'k' holds binary, which cannot be a label", label="k")
