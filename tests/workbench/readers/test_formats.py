"""One entry of the table of formats is all that a new format needs."""

import dataclasses
import pathlib

import numpy as np
import pytest
from typer.testing import CliRunner
from workbench.readers.data_files import refused

import jgmm
from jgmm._core.errors import UserError
from jgmm.workbench.cli.completion import complete_source
from jgmm.workbench.cli.main import app
from jgmm.workbench.config.models import Data
from jgmm.workbench.readers import datasets, formats, streams
from jgmm.workbench.readers.partition import File, Piece
from jgmm.workbench.readers.tables import ArrayTable

DOCS = pathlib.Path(jgmm.__file__).parents[1] / "docs"


def open_table(where, path, mapped=True):
    """A table of columns separated by spaces, the first line their names."""
    names, *rows = [line.split() for line in path.read_text().splitlines()]
    return ArrayTable(where, names, np.asarray(rows, float), {})


def open_stream(path):
    whole = open_table(str(path), path)

    def pieces(chosen):
        def read(n_bytes, skip):
            for i in range(whole.n_rows):  # one row a block
                yield whole.matrix(chosen)[i : i + 1]

        return [Piece(whole.where, whole.n_rows, 0, read)]

    return File(whole.where, whole.names, pieces)


@pytest.fixture
def spaced(tmp_path, monkeypatch):
    """A file in a format that is registered for one test."""
    entry = formats.Format("Spaced", (".spaced",), open_table, open_stream)
    monkeypatch.setattr(formats, "FORMATS", [*formats.FORMATS, entry])
    (tmp_path / "data.spaced").write_text("a b\n1 2\n3 4\n5 6.5\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data.spaced"


X = np.array([[1, 2], [3, 4], [5, 6.5]])


def test_a_new_format_is_read_as_a_data_set(spaced):
    data = datasets.load("data.spaced")
    assert data.columns == ["a", "b"]
    np.testing.assert_array_equal(data.x, X)
    np.testing.assert_array_equal(datasets.load("DATA.spaced".lower(), ["b"]).x, X[:, 1:])


@pytest.mark.parametrize("source", ["data.spaced", "."])
def test_a_new_format_is_read_as_a_stream_from_a_file_and_from_a_folder(spaced, source):
    found = streams.FileSource(source, ["b"], "a")
    blocks = list(found)
    assert (found.columns, found.n_rows, len(blocks)) == (["b"], 3, 3)
    np.testing.assert_array_equal(np.concatenate([x for x, _ in blocks]), X[:, 1:])
    np.testing.assert_array_equal(np.concatenate([weights for _, weights in blocks]), X[:, 0])


def test_a_new_format_is_completed_suggested_and_named_in_messages(spaced):
    assert complete_source("da") == ["data.spaced"]
    refused("dta.spaced", "Did you mean data.spaced")
    pathlib.Path("data.other").touch()
    refused("data.other", "Convert it to one of .csv, .parquet, .pq, .npy, ", ".spaced.")
    with pytest.raises(UserError, match=r"files ending '\.other' cannot be read.*\.spaced\."):
        streams.FileSource("data.other")
    pathlib.Path("empty").mkdir()
    with pytest.raises(UserError, match=r"no file in this folder ends in one of .*\.spaced"):
        streams.FileSource("empty")


def test_a_format_may_open_in_one_way_only(spaced, monkeypatch):
    (entry,) = (each for each in formats.FORMATS if each.name == "Spaced")
    alone = dataclasses.replace(entry, open_table=None)
    monkeypatch.setattr(formats, "FORMATS", [alone])
    refused("data.spaced", "files ending '.spaced' cannot be read")
    assert streams.FileSource("data.spaced").n_rows == 3
    monkeypatch.setattr(formats, "FORMATS", [dataclasses.replace(entry, open_stream=None)])
    assert datasets.load("data.spaced").x.shape == (3, 2)
    with pytest.raises(UserError, match="cannot be read"):
        streams.FileSource("data.spaced")


def test_upper_case_suffixes_are_known(spaced):
    upper = spaced.rename(spaced.with_suffix(".SPACED"))
    assert datasets.load(upper).x.shape == (3, 2)
    assert streams.FileSource(upper).n_rows == 3


def test_entries_are_distinct_and_suffixes_lower_case():
    suffixes = [suffix for each in formats.FORMATS for suffix in each.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)
    assert len({each.name for each in formats.FORMATS}) == len(formats.FORMATS)


@pytest.mark.parametrize("entry", formats.FORMATS, ids=lambda entry: entry.name)
def test_help_and_documentation_name_every_format(entry):
    """They are written by hand, so that the command line's help does not wait for NumPy."""
    names = (entry.name, *entry.suffixes)

    def named(text):
        return any(name in text for name in names)

    assert named((DOCS / "scale.md").read_text())
    if entry.open_table is not None:
        assert named(datasets.__doc__)
        assert named(datasets.load.__doc__)
        assert named(Data.model_fields["source"].description)
        assert named(CliRunner().invoke(app, ["fit", "--help"]).stdout)
