"""Data sets are loaded whole and checked, or refused with the column, the row and a remedy."""

import math
import re

import numpy as np
import pytest
from workbench.readers.data_files import FRAME, refused, write_csv, write_npy, write_parquet

from jgmm._core.errors import UserError
from jgmm.workbench.readers import datasets, formats

NEEDED = 'needs pip install "jgmm[sklearn]"'


# --- built-in data -----------------------------------------------------------------------------


def test_faithful_has_its_published_means():
    data = datasets.load("faithful")
    assert data.columns == ["eruptions", "waiting"]
    assert data.x.shape == (272, 2)
    # Published to four and three decimals.
    np.testing.assert_allclose(data.x.mean(0), [3.4878, 70.897], rtol=0, atol=6e-5)
    assert (data.labels, data.label_names, data.weights) == (None, None, None)
    assert data.name == "faithful"
    assert "272" in data.source_note


def test_autompg_has_every_model_year_and_correct_makers():
    data = datasets.load("autompg", ["mpg", "model_year"], label="origin")
    assert data.x.shape == (392, 2)
    assert round(data.x[:, 0].mean(), 3) == 23.446
    assert set(data.x[:, 1]) == set(range(70, 83))
    assert data.label_names == ["America", "Asia", "Europe"]
    assert np.bincount(data.labels).tolist() == [245, 79, 68]
    makers = datasets.load("autompg", label="maker").label_names
    assert {"international harvester", "mercury"} < set(makers)
    assert not {"hi", "capri", "vw", "chevy"} & set(makers)


@pytest.mark.parametrize("entry", datasets.describe(), ids=lambda entry: entry.name)
def test_descriptions_are_true(entry):
    if "scikit-learn" in entry.source:
        pytest.importorskip("sklearn", reason=NEEDED)
    data = datasets.load(entry.name, label=entry.labels[0] if entry.labels else None)
    assert data.x.shape == (entry.rows, len(entry.columns))
    assert tuple(data.columns) == entry.columns
    assert data.x.dtype == np.float64
    for label in entry.labels:
        labelled = datasets.load(entry.name, label=label)
        assert labelled.labels.shape == (entry.rows,)
        assert labelled.labels.max() == len(labelled.label_names) - 1
    assert entry.summary
    assert entry.source
    assert entry.name in datasets.names()


def test_columns_of_scikit_learn_are_in_its_order():
    sklearn_data = pytest.importorskip("sklearn.datasets", reason=NEEDED)
    for name in ("iris", "wine", "breast_cancer", "digits"):
        bunch = getattr(sklearn_data, f"load_{name}")()
        data = datasets.load(name)
        np.testing.assert_array_equal(data.x, bunch.data)
        assert data.columns == list(bunch.feature_names)


def test_labels_of_scikit_learn_keep_their_meaning():
    bunch = pytest.importorskip("sklearn.datasets", reason=NEEDED).load_breast_cancer()
    data = datasets.load("breast_cancer", label="diagnosis")
    assert data.label_names == ["benign", "malignant"]
    np.testing.assert_array_equal(
        np.array(data.label_names)[data.labels], bunch.target_names[bunch.target]
    )
    digits = datasets.load("digits", label="digit")
    assert digits.label_names == [str(digit) for digit in range(10)]


# --- files read as they are --------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".pq", ".CSV"])
def test_table_files_agree(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    write = FRAME.to_csv if suffix.lower() == ".csv" else FRAME.to_parquet
    write(path, index=False)
    data = datasets.load(path, label="kind", weight="w")
    np.testing.assert_array_equal(data.x, FRAME[["a", "n"]].to_numpy())
    assert data.columns == ["a", "n"]
    assert data.labels.tolist() == [1, 0, 1, 2]
    assert data.label_names == ["a", "b", "c"]
    np.testing.assert_array_equal(data.weights, FRAME["w"])
    assert data.name == "data"
    assert re.search(rf"{path.stat().st_size} bytes, sha256 [0-9a-f]{{64}}", data.source_note)
    chosen = datasets.load(path, columns=["w", "a"])
    np.testing.assert_array_equal(chosen.x, FRAME[["w", "a"]].to_numpy())
    assert chosen.columns == ["w", "a"]


def test_relative_path_starts_at_root(tmp_path, monkeypatch):
    write_csv(tmp_path, "a\n1\n2\n")
    monkeypatch.chdir("/")
    assert datasets.load("data.csv", root=tmp_path).x.tolist() == [[1.0], [2.0]]
    assert "data.csv, 6 bytes" in datasets.load("data.csv", root=tmp_path).source_note


def test_whole_number_labels_are_sorted_as_numbers(tmp_path):
    path = write_csv(tmp_path, "a,k,f\n1,10,2.0\n2,9,10\n3,10,2\n")
    data = datasets.load(path, label="k")
    assert (data.labels.tolist(), data.label_names) == ([1, 0, 1], ["9", "10"])
    assert data.columns == ["a", "f"]
    data = datasets.load(path, ["a"], label="f")
    assert (data.labels.tolist(), data.label_names) == ([0, 1, 0], ["2", "10"])


# --- sources that are not there ----------------------------------------------------------------


def test_missing_file_suggests_neighbours_and_built_in_names(tmp_path):
    write_csv(tmp_path, "a\n1\n", "faithful2.csv")
    write_csv(tmp_path, "a\n1\n", "unrelated.csv")
    message = refused("fiathful2.csv", "no such file", "faithful2.csv", "autompg", root=tmp_path)
    assert "unrelated" not in message
    refused("Faithfull", "Did you mean faithful?")
    refused(tmp_path / "no" / "data.csv", "folder", "does not exist")


def test_folder_and_unknown_suffix_are_refused(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    refused(tmp_path / "folder.csv", "not a file")
    refused(write_csv(tmp_path, "a\n1\n", "data.doc"), "'.doc'", ".parquet")


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    def deny(*args, **options):
        raise PermissionError(13, "Permission denied")

    path = write_csv(tmp_path, "a\n1\n")
    monkeypatch.setattr("pathlib.Path.open", deny)
    refused(path, "data.csv", "Permission denied")


@pytest.mark.parametrize("suffix", formats.table_openers())
def test_empty_file_is_refused(tmp_path, suffix):
    refused(write_csv(tmp_path, "", f"data{suffix}"), f"data{suffix}", "empty")


# --- columns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [{"columns": ["mgp"]}, {"label": "mgp"}, {"weight": "mgp"}])
def test_unknown_column_suggests_the_nearest(option):
    refused("autompg", "no column 'mgp'", "Did you mean 'mpg'", "acceleration", **option)


def test_columns_used_twice_are_refused():
    refused("faithful", "'waiting'", "twice", columns=["waiting", "waiting"])
    refused("faithful", "'waiting'", "twice", columns=["waiting"], label="waiting")
    refused("autompg", "'weight'", "twice", columns=["mpg"], label="weight", weight="weight")


def test_no_features_are_refused(tmp_path):
    refused("faithful", "no column of numbers", columns=[])
    refused(write_csv(tmp_path, "k\nx\ny\n"), "no column of numbers")
    refused("faithful", "['waiting']", columns="waiting")


# --- values ------------------------------------------------------------------------------------


def test_text_among_numbers_is_located(tmp_path):
    path = write_csv(tmp_path, "a,horsepower\n1,130\n2,165\n3,?\n4,150\n")
    refused(path, "column 'horsepower', row 3: '?'")  # although no column was named
    refused(path, "column 'horsepower', row 3: '?'", columns=["horsepower"])
    refused(path, "column 'horsepower', row 3: '?'", columns=["a"], weight="horsepower")
    assert datasets.load(path, ["a"]).x.shape == (4, 1)
    refused("autompg", "column 'maker', row 1: 'chevrolet'", columns=["mpg", "maker"])
    refused("iris", "column 'species', row 1: 'setosa'", columns=["species"])
    path = write_parquet(tmp_path, a=[1.0, 2.0], k=["x", "y"])
    refused(path, "column 'k' holds", "'x'", columns=["a", "k"])


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_missing_and_infinite_parquet_and_npy_values_are_located(tmp_path, value):
    path = write_parquet(tmp_path, a=[1.0, 2.0, 3.0], b=[1.0, 2.0, value])
    refused(path, "column 'b', row 3", "Remove or fill")
    x = np.ones((70_000, 2))  # more than one block of the check
    x[69_999, 1] = math.nan if value is None else value
    refused(write_npy(tmp_path, x), "column 'x1', row 70000", "Remove or fill")


def test_weights_are_checked(tmp_path):
    path = write_csv(tmp_path, "a,w,z\n1,1,0\n2,-0.5,0\n")
    refused(path, "'w', row 2", "-0.5 is negative", weight="w")
    refused(path, "'z' is zero in every row", weight="z")


def test_labels_are_checked(tmp_path):
    path = write_csv(tmp_path, "a,k,m\n1,x,1\n2,,1.5\n3,NA,2\n")
    refused(path, "label column 'k', row 2", "missing", columns=["a"], label="k")
    refused(path, "label column 'm', row 2: 1.5 is not a whole", columns=["a"], label="m")
    path = write_parquet(tmp_path, a=[1.0, 2.0], k=["x", None], f=[1.0, math.nan], n=[[1], [2]])
    refused(path, "label column 'k', row 2", columns=["a"], label="k")
    refused(path, "label column 'f', row 2", columns=["a"], label="f")
    refused(path, "'n' holds list", "cannot be a label", columns=["a"], label="n")


@pytest.mark.parametrize("name", ["~nobody_of_that_name/x.csv", "a\0b.csv", "a" * 300 + ".csv"])
def test_impossible_names_are_names_of_nothing(name):
    refused(name, "no such file or built-in data set")


def test_a_lack_of_memory_is_no_traceback(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(formats, "opener", lambda *_: fail)
    refused(write_csv(tmp_path, "a\n1\n"), "not enough memory to read it", "fewer `columns`")


@pytest.mark.parametrize(
    ("written", "expected"),
    [(["1", "", "0", "-1"], [1, -1, 0, -1]), (["b", "", "a", "-1"], [1, -1, 0, -1])],
)
def test_known_components_are_numbers_or_names(tmp_path, written, expected):
    rows = "".join(f"{i}.5,{text}\n" for i, text in enumerate(written))
    data = datasets.load(write_csv(tmp_path, "a,z\n" + rows), known="z")
    assert data.columns == ["a"]
    assert data.known.tolist() == expected


def test_a_column_has_one_use(tmp_path):
    path = write_csv(tmp_path, "a,z\n0.5,1\n1.5,0\n")
    with pytest.raises(UserError, match="asked for twice, as feature, label, weight or known"):
        datasets.load(path, ["a", "z"], known="z")
