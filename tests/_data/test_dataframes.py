"""Data frames of every library give what the array of their numbers gives, or say why not."""

import datetime
import decimal
import subprocess
import sys
import textwrap

import jax
import narwhals
import numpy as np
import pandas
import polars
import pyarrow
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm._data.dataframes import as_array, is_table, names_of
from jgmm._data.samples import make_samples
from jgmm._data.validation import as_samples, as_weights, column_names
from jgmm.estimators.mixture import GaussianMixture
from jgmm.streaming.sources import as_source, rebatch

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(24, 2)) + np.repeat([[0.0], [6.0]], 12, axis=0)
DAY = datetime.date(2024, 1, 1)

FRAMES = {
    "pandas": pandas.DataFrame,
    "polars": polars.DataFrame,
    "lazy": polars.LazyFrame,
    "arrow": pyarrow.table,
    "batch": pyarrow.RecordBatch.from_pydict,
    "narwhals": lambda columns: narwhals.from_native(polars.DataFrame(columns)),
}
every_frame = pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)


@every_frame
def test_all_kinds_of_numbers_are_read(frame):
    made = frame(
        {
            "whole": [1, 2],
            "real": [0.5, -0.25],
            "truth": [True, False],
            "exact": [decimal.Decimal("1.50"), decimal.Decimal("2.25")],
        }
    )
    found = as_samples(made)
    np.testing.assert_array_equal(found, [[1, 0.5, 1, 1.5], [2, -0.25, 0, 2.25]])
    assert column_names(made) == ["whole", "real", "truth", "exact"]
    assert is_table(made)


@every_frame
def test_columns_without_numbers_are_all_named(frame):
    made = frame({"a": [1.0, 2.0], "who": [None, "7"], "day": [DAY, DAY], "b": [1, 2]})
    with pytest.raises(DataError) as raised:
        as_samples(made)
    text = str(raised.value)
    assert "'7' in row 1, column 'who'" in text
    assert "'day'" in text
    assert "'a'" not in text
    assert "'b'" not in text


@every_frame
def test_what_is_missing_is_named_unless_its_row_counts_nothing(frame):
    made = frame({"a": [1, 2, None, 4], "b": [0.5, 1.5, 2.5, 3.5], "c": [True, False, None, True]})
    with pytest.raises(DataError, match=r"nan in row 2, column 'a'; 1 row.*columns 'a', 'c'"):
        as_samples(made)
    rows, weights = make_samples(made, [1, 1, 0, 1]).rows(0, 4)
    np.testing.assert_array_equal(rows[3], [4, 3.5, 1])
    np.testing.assert_array_equal(weights, [1, 1, 0, 1])


ARROW = ["float64", "Float64", "double[pyarrow]", "Float32", "float[pyarrow]", "int64[pyarrow]"]


@pytest.mark.parametrize("kind", [*ARROW, "mixed"])
def test_a_null_of_any_type_of_pandas_is_a_missing_value(kind):
    kinds = {"a": "float64", "b": "double[pyarrow]"} if kind == "mixed" else kind
    made = pandas.DataFrame({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}).astype(kinds)
    made.iloc[1, 1] = pandas.NA
    rows, _ = make_samples(made, [1, 0, 1]).rows(0, 3)
    np.testing.assert_array_equal(rows, [[1, 4], [0, 0], [3, 6]])
    assert as_array(made).dtype == (np.float32 if "loat" in kind and "64" not in kind else float)
    with pytest.raises(DataError, match="nan in row 1, column 'b'"):
        as_samples(made)
    with pytest.raises(DataError, match="nan in row 1"):
        as_weights(made["b"], 3, np.float64)


REFUSED = {
    "text": polars.Series(["1", "2"]),
    "categories": polars.Series(["1", "2"], dtype=polars.Categorical),
    "an enumeration": polars.Series(["1", "2"], dtype=polars.Enum(["1", "2"])),
    "dates": polars.Series([DAY, DAY]),
    "times": polars.Series([datetime.datetime(2024, 1, 1)] * 2),
    "durations": polars.Series([datetime.timedelta(1)] * 2),
    "lists": polars.Series([[1.0], [2.0]]),
    "bytes": polars.Series([b"1", b"2"]),
    "objects": polars.Series([object(), 1], dtype=polars.Object),
    "pandas categories of numbers": pandas.Categorical([1, 2]),
    "pandas objects": pandas.Series([1.5, "x"], dtype=object),
    "pandas periods": pandas.period_range("2024", periods=2),
    "complex numbers": pandas.Series([1j, 2j]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_column_of_something_else_is_refused(kind):
    column = REFUSED[kind]
    make = polars.DataFrame if isinstance(column, polars.Series) else pandas.DataFrame
    with pytest.raises(DataError, match=r"Columns without numbers: 'odd' \("):
        as_samples(make({"odd": column, "fine": [1.0, 2.0]}))


TAKEN = {
    "nullable": pandas.array([1, 2], dtype="Int64"),
    "arrow": pandas.array([1, 2], dtype="int64[pyarrow]"),
    "sparse": pandas.arrays.SparseArray([1.0, 2.0]),
    "objects": pandas.Series([1, np.float32(2)], dtype=object),
    "half": np.asarray([1, 2], np.float16),
}
if hasattr(polars, "Int128"):  # not in the oldest version
    TAKEN["wide"] = polars.Series([1, 2], dtype=polars.Int128)


@pytest.mark.parametrize("kind", TAKEN)
def test_numbers_of_unusual_types_are_read(kind):
    column = TAKEN[kind]
    make = polars.DataFrame if isinstance(column, polars.Series) else pandas.DataFrame
    np.testing.assert_array_equal(as_samples(make({"a": column})), [[1], [2]])


def test_the_type_is_that_of_the_columns():
    single = np.asarray([1, 2], np.float32)
    assert as_samples(polars.DataFrame({"a": single})).dtype == np.float32
    assert as_samples(pandas.DataFrame({"a": single, "b": [True, False]})).dtype == np.float32
    assert as_samples(polars.DataFrame({"a": single, "b": [1.0, 2.0]})).dtype == np.float64


def test_names_are_text_and_occur_once():
    assert names_of(pandas.DataFrame(X, columns=["a", 7])) == ["a", "7"]
    assert names_of(polars.Series("height", [1.0])) == ["height"]
    assert names_of(X) is None
    assert as_array(X) is X
    with pytest.raises(DataError, match=r"'a'.*2 times.*name of its own"):
        as_samples(pandas.DataFrame(X, columns=["a", "a"]))
    with pytest.raises(DataError, match="empty"):
        as_samples(pandas.DataFrame(index=[0, 1]))


@pytest.mark.parametrize("series", [pandas.Series, polars.Series, pyarrow.array])
def test_weights_that_are_missing_are_named(series):
    np.testing.assert_array_equal(as_weights(series([1, 2]), 2, np.float64), [1, 2])
    with pytest.raises(DataError, match="nan in row 1"):
        as_weights(series([1, None]), 2, np.float64)


START = jgmm.make_mixture([0.5, 0.5], X[[0, 20]], np.ones(2), "spherical")
FEW = {"covariance": "spherical", "n_restarts": 1, "max_steps": 2}
ASK = {
    "log_prob": lambda x, _: jgmm.log_prob(START, x),
    "predict": lambda x, _: jgmm.predict(START, x),
    "em_step": lambda x, w: jgmm.em_step(START, x, w),
    "fit": lambda x, w: jgmm.fit(KEY, x, 2, sample_weight=w, **FEW),
    "kmeans": lambda x, w: jgmm.kmeans.fit(KEY, x, 2, n_restarts=1, sample_weight=w),
    "classifier": lambda x, w: jgmm.classifier.fit(x, [0] * 12 + [1] * 12, sample_weight=w),
}
ALSO = {
    "select": lambda x, w: jgmm.select(KEY, x, [1, 2], sample_weight=w),
    "gradient": lambda x, w: jgmm.gradient.fit(KEY, x, 2, optimizer=None, sample_weight=w),
    "streaming": lambda x, w: jgmm.streaming.fit(KEY, x, 2, sample_weight=w),
    "implicit": lambda x, _: jgmm.differentiation.fit(KEY, x, 2),
    "bic": lambda x, w: jgmm.selection.bic(START, x, w),
    "responsibilities": lambda x, _: jgmm.responsibilities(START, x),
    "accumulate": lambda x, w: jgmm.accumulate(START, x, w),
    "m_step": lambda x, w: jgmm.m_step(x, np.ones((24, 1)), sample_weight=w),
    "em.run": lambda x, w: jgmm.fitting.run_em(START, x, w),
    "held_out": lambda x, w: jgmm.selection.held_out(KEY, x, 2, sample_weight=w),
    "bootstrap": lambda x, w: jgmm.uncertainty.bootstrap(KEY, START, x, w),
    "information": lambda x, w: jgmm.uncertainty.standard_errors(START, x, w),
}


@pytest.mark.parametrize("name", ASK)
def test_functions_take_frames_as_they_take_arrays(name):
    frame, weights = polars.DataFrame(X, schema=["a", "b"]), polars.Series([1.0] * 23 + [2.0])
    expected, found = ASK[name](X, np.asarray(weights)), ASK[name](frame, weights)
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in leaves)


@pytest.mark.parametrize("name", [*ASK, *ALSO])
def test_every_function_names_the_column_it_cannot_use(name):
    frame = polars.DataFrame({"a": X[:, 0], "who": ["x"] * len(X)})
    with pytest.raises(DataError, match=r"'x' in row 0, column 'who'.*'who' \(String\)"):
        {**ASK, **ALSO}[name](frame, None)


@every_frame
def test_estimators_name_the_column_they_cannot_use(frame):
    with pytest.raises(ValueError, match=r"Columns without numbers: 'who' \(String\)"):
        GaussianMixture().fit(frame({"a": [1.0, 2.0], "who": ["x", "y"]}))


def test_blocks_may_be_frames():
    made = pyarrow.table({"a": X[:, 0], "b": X[:, 1]})
    batches = made.to_batches(max_chunksize=10)
    for source in (batches, made):
        rows = [block.x[: block.n_rows] for block in rebatch(as_source(source), 16, 2, X.dtype)]
        np.testing.assert_array_equal(np.concatenate(rows), X)


def test_pictures_name_their_axes_after_the_columns():
    series = polars.Series("height", X[:, 0])
    mixture = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    assert jgmm.plot.density_1d(mixture, series).get_xlabel() == "height"
    ax = jgmm.plot.scatter(pyarrow.table({"length": X[:, 0], "width": X[:, 1]}))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("length", "width")


def test_without_narwhals_arrays_are_read_and_frames_refused():
    program = """
        import sys
        sys.modules["narwhals"] = None  # as if it were not installed
        import numpy, pandas
        from jgmm._data.validation import as_samples
        print(as_samples([[1.0]]).shape, as_samples(numpy.ones((1, 2))).shape)
        try:
            as_samples(pandas.DataFrame({"a": [1.0]}))
        except ValueError as error:
            print(error)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True
    )
    assert done.stdout.startswith("(1, 1) (1, 2)\nx is a pandas DataFrame"), done.stderr
    assert "pip install narwhals" in done.stdout
