"""JSON lines are typed columns; the corpus in ``corpus`` holds more of them."""

from workbench.readers.data_files import refused, write_csv

from jgmm.workbench.readers import datasets


def test_keys_are_columns(tmp_path):
    text = '{"a": 1, "k": "x", "t": {"u": 1}}\n{"a": 2.5, "k": "y", "t": null}\n'
    data = datasets.load(write_csv(tmp_path, text, "a.jsonl"), label="k")
    assert (data.x.tolist(), data.label_names) == ([[1], [2.5]], ["x", "y"])
    assert "left out as struct" in data.read_as


def test_a_key_that_is_absent_is_missing(tmp_path):
    path = write_csv(tmp_path, '{"a": 1, "b": 2}\n{"a": 3}\n', "a.jsonl")
    refused(path, "column 'b', row 2", "missing")
