"""Files as people have them give the right values, or one clear sentence."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner
from workbench.readers.corpus import CASES, PLAIN
from workbench.readers.data_files import refused

from jgmm._core import compilation_cache
from jgmm._core.errors import UserError
from jgmm.workbench.cli.main import app
from jgmm.workbench.readers import datasets, formats
from jgmm.workbench.readers.dialect import Overrides
from jgmm.workbench.readers.streams import FileSource

GOOD = [case for case in CASES if not case.refused]


def load(case, place):
    (place / case.file).write_bytes(case.content)
    return datasets.load(case.source or case.file, root=place, **dict(case.options))


@pytest.fixture(autouse=True)
def _needs_a_reader_of_spreadsheets(request):
    case = getattr(request.node, "callspec", None)
    if case is not None and ".xlsx" in str(case.params.get("case", "")):
        pytest.importorskip("python_calamine", reason='needs pip install "jgmm[excel]"')


def test_there_are_enough_files():
    assert len({case.file for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_every_file_gives_its_values_or_one_sentence(case, tmp_path):
    if case.refused:
        with pytest.raises(UserError) as caught:
            load(case, tmp_path)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(case.file.partition(":")[0]) or case.file in line
        for part in case.refused:
            assert part in line
        return
    data = load(case, tmp_path)
    assert tuple(data.columns) == case.columns
    np.testing.assert_array_equal(data.x, case.x)  # each number exactly, and no row lost
    for part in case.told:
        assert part in data.read_as
    assert case.told or data.read_as == "" or case.options
    if case.ids is not None:
        assert (data.ids[0], data.ids[-1]) == case.ids
        assert len(data.ids) == len(data.x)


STREAMS = [
    case
    for case in GOOD
    if formats.suffix_of(case.file) in formats.stream_openers()
    and case.source is None
    and not case.file.endswith(".feather")  # of typed files a stream takes every column
]


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.file)
def test_a_stream_reads_the_same(case, tmp_path):
    (tmp_path / case.file).write_bytes(case.content)
    given = dict(case.options)
    columns = given.pop("columns", None)
    if "id" in given:
        given.pop("id")
        columns = case.columns
    source = FileSource(tmp_path / case.file, columns, overrides=Overrides(**given))
    x = np.concatenate([block.copy() for block, _ in source])
    assert tuple(source.columns) == case.columns
    np.testing.assert_array_equal(x, case.x)
    assert source.n_rows == len(case.x)


def test_what_other_formats_cannot_be_told_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 2)))
    refused("a.npy", "NumPy does not take: separator", root=tmp_path, separator=";")
    refused("a.npy", "missing", root=tmp_path, na=["1"])
    (tmp_path / "a.npy.gz").write_bytes(b"x")
    refused("a.npy.gz", "compressed files of NumPy", "Decompress", root=tmp_path)
    (tmp_path / "a.csv").write_text(PLAIN)
    refused("a.csv", "'ab'", "no separator", root=tmp_path, separator="ab")


def test_numbers_with_units_are_a_warning_with_the_way_out(tmp_path):
    (case,) = (case for case in CASES if case.file == "units.csv")
    (warning,) = load(case, tmp_path).warnings
    assert "'3750 g'" in warning
    assert "--columns" in warning


MESSY = "rownames;länge;gewicht;wer\n" + "".join(
    f"p{i};{(i % 2) * 9 + i / 64:.6f};{i % 7},5;x\n".replace(".", ",") for i in range(40)
).replace("p7;9,109375;0,5", "p7;9,109375;-999")


def test_fit_and_select_read_and_tell_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compilation_cache, "use_compilation_cache", lambda: None)
    (tmp_path / "messy.csv").write_bytes(MESSY.encode("latin-1"))
    options = ["messy.csv", "--components", "1", "--covariance", "spherical", "--restarts", "1"]
    run = CliRunner().invoke
    selected = json.loads(run(app, ["select", *options, "--json"]).stdout)
    fitted = json.loads(run(app, ["fit", *options, "--json"]).stdout)
    read_as = (
        "semicolons; decimal commas; Latin-1; rownames is an id; 1 column left out as text: wer"
    )
    data = selected["data"]
    assert data["read_as"] == read_as
    assert data["columns"] == ["länge", "gewicht"]
    assert (data["n_samples"], data["id"]) == (40, "rownames")
    assert {key: fitted["environment"][key] for key in data} == data
    (warning,) = data["warnings"]
    assert "'gewicht': 1 value is -999" in warning
    assert fitted["notes"][0] == warning
    assert fitted["table"] == selected["table"]
    for text in (
        run(app, ["select", *options]).stdout,
        run(app, ["show", fitted["folder"]]).stdout,
    ):
        assert f"read as: {read_as}\n" in text
        assert "1 value is -999" in text
    rows = (tmp_path / fitted["folder"] / "tables" / "assignments.csv").read_text().splitlines()
    assert rows[0].startswith("sample,rownames,component")
    assert rows[-1].startswith("39,p39,0")


def test_the_options_override_each_guess(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compilation_cache, "use_compilation_cache", lambda: None)
    rows = "".join(f"{i + 1};{i % 5},5;{i % 3}\n" for i in range(20))
    (tmp_path / "a.txt").write_text(rows)
    fast = ["--components", "1", "--covariance", "spherical", "--restarts", "1", "--json"]
    said = ["--separator", "semicolon", "--decimal", ",", "--no-header", "--id", "x0", "--na", "?"]
    data = json.loads(CliRunner().invoke(app, ["select", "a.txt", *said, *fast]).stdout)["data"]
    assert (data["columns"], data["id"], data["n_samples"]) == (["x1", "x2"], "x0", 20)
    ended = CliRunner().invoke(app, ["select", "a.txt", "--header", *fast])
    assert json.loads(ended.stdout)["data"]["n_samples"] == 19
