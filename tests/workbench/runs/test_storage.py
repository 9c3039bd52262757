import csv
import io
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from jgmm.workbench.runs import storage


def test_json_is_valid_whatever_the_numbers(tmp_path):
    path = tmp_path / "a.json"
    value = {"a": np.float32(0.5), "b": [math.nan, math.inf, -math.inf], "c": jnp.arange(2)}
    storage.write_json(path, value)

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    back = json.loads(path.read_text(), parse_constant=refuse)
    assert back == {"a": 0.5, "b": ["nan", "inf", "-inf"], "c": [0, 1]}


def test_csv_keeps_every_digit_and_every_column(tmp_path):
    path = tmp_path / "a.csv"
    rows = [{"k": 1, "value": 0.1 + 0.2}, {"k": np.int64(2), "text": 'a, "b"\nc', "none": None}]
    storage.write_csv(path, rows)
    back = list(csv.DictReader(io.StringIO(path.read_text())))
    assert list(back[0]) == ["k", "value", "text", "none"]
    assert float(back[0]["value"]) == 0.1 + 0.2
    assert back[1] == {"k": "2", "value": "", "text": 'a, "b"\nc', "none": ""}


def test_what_is_no_character_can_be_stored(tmp_path):
    """Names of files in other encodings, and with them the command that was given."""
    storage.write_json(tmp_path / "a.json", {"command": "jgmm fit caf\udce9.csv"})
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))["command"].endswith("caf\udce9.csv")
    storage.write_csv(tmp_path / "a.csv", [{"name": "caf\udce9"}])
    assert (tmp_path / "a.csv").read_text("utf-8") == "name\ncaf\\udce9\n"


def test_csv_without_rows_is_an_empty_file(tmp_path):
    storage.write_csv(tmp_path / "a.csv", [])
    assert (tmp_path / "a.csv").read_text().strip() == ""
