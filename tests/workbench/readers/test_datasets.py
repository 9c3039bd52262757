import math
import re
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jgmm._core.errors import UserError
from jgmm.workbench.readers import datasets, tables
from jgmm.workbench.readers.tables import NUMBER

NEEDED = 'needs pip install "jgmm[sklearn]"'

FRAME = pd.DataFrame(
    {
        "a": [1.5, 2.0, -3.25, 4e-3],
        "n": [1, 2, 3, 4],
        "kind": ["b", "a", "b", "c"],
        "w": [0.0, 1.0, 2.5, 1.0],
    }
)

# Longer than one block of the CSV reader, 16 MiB, in few rows.
LONG_ROWS = 40_000
LONG = "a,b\n" + f"{'0' * 499}1,2\n" * LONG_ROWS


def write_csv(folder, text, name="data.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def write_npy(folder, array):
    path = folder / "data.npy"
    np.save(path, array)
    return path


def write_parquet(folder, **columns):
    path = folder / "data.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def refused(source, *fragments, **options):
    """The message of the error, which names where, what and how: each fragment must be in it."""
    with pytest.raises(UserError) as caught:
        datasets.load(source, **options)
    message = str(caught.value)
    for fragment in fragments:
        assert fragment in message
    return message


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


def test_npy_is_a_memory_map_unless_it_must_change(tmp_path):
    x = np.arange(12.0).reshape(4, 3)
    whole = datasets.load(write_npy(tmp_path, x))
    assert isinstance(whole.x, np.memmap)
    assert not whole.x.flags.writeable
    np.testing.assert_array_equal(whole.x, x)
    assert whole.columns == ["x0", "x1", "x2"]
    part = datasets.load(tmp_path / "data.npy", ["x2", "x0"], label="x1")
    np.testing.assert_array_equal(part.x, x[:, [2, 0]])
    assert part.label_names == ["1", "4", "7", "10"]


@pytest.mark.parametrize("kind", ["f4", ">f8", "i2", "u1", "?"])
def test_npy_of_any_real_kind_becomes_float64(tmp_path, kind):
    x = np.array([[0, 1], [1, 0], [1, 1]]).astype(kind)
    data = datasets.load(write_npy(tmp_path, x))
    assert data.x.dtype == np.dtype("f8")
    assert data.x.dtype.isnative
    np.testing.assert_array_equal(data.x, x)


def test_relative_path_starts_at_root(tmp_path, monkeypatch):
    write_csv(tmp_path, "a\n1\n2\n")
    monkeypatch.chdir("/")
    assert datasets.load("data.csv", root=tmp_path).x.tolist() == [[1.0], [2.0]]
    assert "data.csv, 6 bytes" in datasets.load("data.csv", root=tmp_path).source_note


def test_csv_dialect(tmp_path):
    text = '\ufeffa, "b" ,c\r\n +1.5,"x, y", 2e1 \r\n\r\n-.5,"two\r\nlines",3.\r\n'
    data = datasets.load(write_csv(tmp_path, text), ["a", "c"])
    assert data.x.tolist() == [[1.5, 20.0], [-0.5, 3.0]]


def test_csv_types_are_decided_on_every_row(tmp_path):
    # Whole numbers only until the reader's last block.
    data = datasets.load(write_csv(tmp_path, LONG + "0.5,2.5\n"))
    assert data.x.shape == (LONG_ROWS + 1, 2)
    assert data.x[-1].tolist() == [0.5, 2.5]


def test_whole_number_labels_are_sorted_as_numbers(tmp_path):
    path = write_csv(tmp_path, "a,k,f\n1,10,2.0\n2,9,10\n3,10,2\n")
    data = datasets.load(path, label="k")
    assert (data.labels.tolist(), data.label_names) == ([1, 0, 1], ["9", "10"])
    assert data.columns == ["a", "f"]
    data = datasets.load(path, ["a"], label="f")
    assert (data.labels.tolist(), data.label_names) == ([0, 1, 0], ["2", "10"])


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


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_csv_numbers_are_read_exactly(tmp_path_factory, value):
    path = write_csv(tmp_path_factory.mktemp("exact"), f"a\n{value!r}\n")
    assert datasets.load(path).x[0, 0] == value


@pytest.mark.parametrize(
    "text", ["1", "+1", "-1.", ".5", "1e5", "1.E-3", ".", "e5", "1_0", "0x1", "1,5", "++1", "inf"]
)
def test_number_pattern_is_what_the_reader_accepts(text):
    try:
        pa.chunked_array([[text]]).cast(pa.float64())
        accepted = True
    except pa.ArrowInvalid:
        accepted = False
    assert bool(re.fullmatch(NUMBER, text)) == accepted


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
    refused(write_csv(tmp_path, "a\n1\n", "data.xlsx"), "'.xlsx'", ".parquet")


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    def deny(*args, **options):
        raise PermissionError(13, "Permission denied")

    path = write_csv(tmp_path, "a\n1\n")
    monkeypatch.setattr("pathlib.Path.open", deny)
    refused(path, "data.csv", "Permission denied")


@pytest.mark.parametrize("suffix", tables.SUFFIXES)
def test_empty_file_is_refused(tmp_path, suffix):
    refused(write_csv(tmp_path, "", f"data{suffix}"), f"data{suffix}", "empty")


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


def test_repeated_names_are_refused(tmp_path):
    refused(write_csv(tmp_path, "a,b, a\n1,2,3\n"), "'a' occurs more than once")
    table = pa.table([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    pq.write_table(table, tmp_path / "data.parquet")
    refused(tmp_path / "data.parquet", "'a' occurs more than once")


def test_column_without_a_name_is_never_a_feature_by_accident(tmp_path):
    path = tmp_path / "data.csv"
    FRAME.to_csv(path)  # writes the row index, without a name
    refused(path, "no name", "row index")
    assert datasets.load(path, ["a"]).columns == ["a"]


def test_header_problems_are_recognised(tmp_path):
    refused(write_csv(tmp_path, "1.5,2\n3,4\n"), "first line holds numbers", "1.5")
    refused(write_csv(tmp_path, "a;b\n1;2\n"), "separated by ';'")
    refused(write_csv(tmp_path, "a\tb\n1\t2\n"), "separated by '\\t'")
    refused(write_csv(tmp_path, "\n\n"), "data.csv")


def test_no_rows_are_refused(tmp_path):
    refused(write_csv(tmp_path, "a,b\n"), "no rows")
    refused(write_parquet(tmp_path, a=pa.array([], pa.float64())), "no rows")
    refused(write_npy(tmp_path, np.zeros((0, 3))), "no rows")
    refused(write_npy(tmp_path, np.zeros((3, 0))), "no rows")


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


@pytest.mark.parametrize(
    ("cell", "said"),
    [("", "missing"), ("NA", "missing"), ("nan", "missing"), ("inf", "infinite"), ("-INF", "inf")],
)
def test_missing_and_infinite_csv_values_are_located(tmp_path, cell, said):
    path = write_csv(tmp_path, f"a,b\n1,2\n3,{cell}\n5,6\n")
    refused(path, "column 'b', row 2", said, "Remove or fill")
    refused(path, "column 'b', row 2", said, columns=["a"], weight="b")


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


# --- files that are not whole ------------------------------------------------------------------


@pytest.mark.parametrize("row", ["3", "3,4,5"])
def test_ragged_csv_is_located(tmp_path, row):
    count = row.count(",") + 1
    path = write_csv(tmp_path, f"a,b\n1,2\n{row}\n5,6\n")
    refused(path, f"row 2 has {count} values", "header has 2")
    refused(write_csv(tmp_path, LONG + row), f"row {LONG_ROWS + 1} has {count} values")


def test_bad_last_row_leaves_nothing(tmp_path):
    # Wrong only in the last block of a file: no rows before it are handed out, and no state is
    # left behind, so the mended file is read whole.
    for tail in ("3", "3,x", "3,", "3,inf"):
        refused(write_csv(tmp_path, LONG + tail), f"row {LONG_ROWS + 1}")
    data = datasets.load(write_csv(tmp_path, LONG + "3,4"))
    assert data.x.shape == (LONG_ROWS + 1, 2)
    np.testing.assert_array_equal(data.x.sum(0), [LONG_ROWS + 3, 2 * LONG_ROWS + 4])


def test_csv_in_another_encoding_is_refused(tmp_path):
    refused(write_csv(tmp_path, "größe\n1\n".encode("latin-1")), "UTF-8")
    refused(write_csv(tmp_path, "a,k\n1,größe\n".encode("latin-1")), "UTF-8")


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


@pytest.mark.parametrize("keep", [4, 60, 200])
def test_truncated_npy_is_refused(tmp_path, keep):
    path = write_npy(tmp_path, np.ones((10, 3)))
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "data.npy: not a whole .npy file")


def test_npy_of_other_content_is_refused(tmp_path):
    refused(write_csv(tmp_path, "not an array at all", "data.npy"), "(it begins otherwise)")
    refused(write_npy(tmp_path, np.array([[1, "a"]], dtype=object)), "Python objects")
    refused(write_npy(tmp_path, np.array([["a", "b"]])), "not real numbers")
    refused(write_npy(tmp_path, np.ones((2, 2), complex)), "complex128")
    refused(write_npy(tmp_path, np.ones(5)), "shape (5,)", "reshape(-1, 1)")
    refused(write_npy(tmp_path, np.ones((2, 2, 2))), "shape (2, 2, 2)")
    with write_npy(tmp_path, np.ones((2, 2))).open("ab") as file:
        np.save(file, np.ones((3, 2)))
    for mapped in (True, False):
        refused(tmp_path / "data.npy", "more in the file than one array", mapped=mapped)
    with (tmp_path / "data.npy").open("wb") as file:
        np.savez(file, x=np.ones((2, 2)))
    refused(tmp_path / "data.npy", ".npz archive")


# --- files that lie ----------------------------------------------------------------------------


def by_hand(folder, header, data=b""):
    """A .npy file of version 2.0 with any header."""
    raw = header.encode("latin-1") + b"\n"
    start = b"\x93NUMPY\x02\x00" + len(raw).to_bytes(4, "little")
    (folder / "data.npy").write_bytes(start + raw + data)
    return folder / "data.npy"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("(2, 2", "not a whole .npy file"),  # numpy's reader raises a TokenError
        ("(" + "-" * 3000 + "1, 1)", "not a whole .npy file"),  # a RecursionError
        ("(9223372036854775808, 1)", "not a whole .npy file"),  # an OverflowError
        ("(4611686018427387904, 4)", "not a whole .npy file"),  # overflows to 0 bytes
        ("(99999999999, 99999999999)", "not a whole .npy file"),
        ("(0, 99999999999)", "no rows"),  # of so many columns there are no names in memory
        ("(-1, 2)", "data.npy"),
    ],
)
@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.filterwarnings("ignore:overflow encountered")  # where numpy multiplies the shape
def test_npy_headers_that_lie_are_refused(tmp_path, shape, said, mapped):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    refused(by_hand(tmp_path, header), said, mapped=mapped)


@pytest.mark.parametrize("mapped", [True, False])
def test_an_array_of_arrays_is_not_misread(tmp_path, mapped):
    header = "{'descr': '4f2', 'fortran_order': False, 'shape': (4, 2), }"
    refused(by_hand(tmp_path, header, bytes(16)), "not a whole .npy file", mapped=mapped)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"PK\x05\x06" + b"\0" * 20, b"PK"])
def test_what_begins_like_an_archive_is_not_opened(tmp_path, start):
    refused(write_csv(tmp_path, start, "data.npy"), ".npz archive")


def test_numbers_that_no_double_can_hold_are_infinite(tmp_path):
    wide = np.array([[1, 2], [np.longdouble("1e400"), 3]], np.longdouble)
    if np.isinf(wide).any():
        pytest.skip("here a long double is a double")
    refused(write_npy(tmp_path, wide), "column 'x0', row 2: the value is infinite")


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


@pytest.mark.parametrize("name", ["~nobody_of_that_name/x.csv", "a\0b.csv", "a" * 300 + ".csv"])
def test_impossible_names_are_names_of_nothing(name):
    refused(name, "no such file or built-in data set")


def test_many_columns_take_no_longer_than_their_number(tmp_path):
    # Looking for each name among all others would take a minute.
    path = write_npy(tmp_path, np.ones((1, 50_000)))
    assert datasets.load(path, [f"x{i}" for i in range(49_999, -1, -1)]).x.shape == (1, 50_000)


def test_a_lack_of_memory_is_no_traceback(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(datasets, "open_table", fail)
    refused(write_csv(tmp_path, "a\n1\n"), "not enough memory to read it", "fewer `columns`")


def test_what_a_message_quotes_does_not_drown_it(tmp_path):
    message = refused(write_csv(tmp_path, f"a,b\n1,2\n3,{'x' * 9000}\n5,6\n"), "row 2")
    assert 900 < len(message) <= 1000
    assert message.endswith("or leave the column out of `columns`.")
