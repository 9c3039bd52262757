"""A run folder is read back as plain values, or refused where it is damaged."""

import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.runs import storage, summary


def test_a_table_reads_back_as_it_was_written(tmp_path):
    (tmp_path / "tables").mkdir()
    rows = [{"K": 1, "bic": 0.1, "status": "converged"}, {"K": 2, "bic": 1e300, "status": "nan"}]
    storage.write_csv(tmp_path / "tables" / "summary.csv", rows)
    found = summary.rows(tmp_path, "summary")
    assert found[0] == rows[0]
    assert (found[1]["K"], found[1]["bic"]) == (2, 1e300)
    assert summary.rows(tmp_path, "other") == []


def test_a_table_with_a_row_longer_than_its_header_is_damaged(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "summary.csv").write_text("K,bic\n1,2,3\n")
    with pytest.raises(UserError, match="a row is longer than the header"):
        summary.rows(tmp_path, "summary")


@pytest.mark.parametrize("content", ["[1]", "{", "[" * 100_000, "\udcff"])
def test_damaged_metrics_are_refused(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=r"metrics\.json: damaged"):
        summary.read(tmp_path)


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="not the folder of a run"):
        summary.read(tmp_path)
