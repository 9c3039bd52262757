"""Every kind of file gives the same samples, to any number of processes, or says what is wrong."""

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.feather
import pyarrow.parquet
import pytest

from jgmm._core.errors import UserError
from jgmm.workbench.readers import csv, streams
from jgmm.workbench.readers.streams import FileSource

KINDS = ("npy", "parquet", "csv", "arrow")


def table(n=50, dtype="float32"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)).round(4).astype(dtype)
    x[:, 2] = np.arange(n) % 3  # serves as a weight
    return x


def write(path, x, names=("x0", "x1", "x2")):
    kind = path.suffix[1:]
    if kind == "npy":
        np.save(path, x)
        return path
    frame = pa.table({name: x[:, i] for i, name in enumerate(names)})
    if kind == "parquet":
        pa.parquet.write_table(frame, path, row_group_size=16)
    elif kind == "arrow":
        pa.feather.write_feather(frame, path, chunksize=16)
    else:
        lines = [",".join(names), *(",".join(map(repr, row)) for row in x.tolist())]
        path.write_text("\n".join(lines) + "\n")
    return path


def read(source):
    blocks = [(x.copy(), w) for x, w in source]
    x = np.concatenate([x for x, _ in blocks]) if blocks else np.zeros((0, len(source.columns)))
    weights = [w for _, w in blocks if w is not None]
    return x, np.concatenate(weights) if weights else None


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(streams, "BLOCK_BYTES", 7 * 3 * 4)
    monkeypatch.setattr(csv, "CSV_BYTES", 400)


@pytest.mark.parametrize("kind", KINDS)
def test_columns_and_weights_come_as_they_were_asked_for(tmp_path, kind):
    x = table()
    path = write(tmp_path / f"a.{kind}", x)
    found, weights = read(FileSource(path))
    np.testing.assert_allclose(found, x, rtol=1e-7)
    assert weights is None
    source = FileSource(path, ["x1", "x0"], "x2")
    found, weights = read(source)
    assert (source.columns, source.n_rows) == (["x1", "x0"], 50)
    np.testing.assert_allclose(found, x[:, [1, 0]], rtol=1e-7)
    np.testing.assert_array_equal(weights, x[:, 2])
    again, _ = read(source)
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int16"])
def test_numbers_of_every_kind_keep_their_type(tmp_path, dtype):
    x = (table() * 10).astype(dtype)
    found, _ = read(FileSource(write(tmp_path / "a.npy", x)))
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found, x)
    if dtype != ">f4":
        found, _ = read(FileSource(write(tmp_path / "a.parquet", x)))
        assert found.dtype == x.dtype
        np.testing.assert_array_equal(found, x)


@pytest.mark.parametrize("kind", [*KINDS, "dataset"])
@pytest.mark.parametrize("size", [1, 2, 3, 11])
def test_shares_are_the_whole_whatever_their_number(tmp_path, kind, size):
    x = table(70)
    suffix = "parquet" if kind == "dataset" else kind
    for i, (a, b) in enumerate([(0, 20), (20, 21), (21, 70)]):
        write(tmp_path / f"{i}.{suffix}", x[a:b])
    where = pyarrow.dataset.dataset(tmp_path) if kind == "dataset" else tmp_path
    shares = [FileSource(where, rank_and_size=(rank, size)) for rank in range(size)]
    parts = [read(share)[0] for share in shares]
    assert [len(part) for part in parts] == [share.n_rows for share in shares]
    starts = np.cumsum([0, *[len(part) for part in parts]])[:-1]
    assert [s.first_row for s in shares if s.n_rows] == [
        a for a, part in zip(starts, parts, strict=True) if len(part)
    ]
    np.testing.assert_allclose(np.concatenate(parts), x, rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e37])
def test_a_bad_row_is_named_or_skipped(tmp_path, kind, bad):
    x = table()
    write(tmp_path / f"a.{kind}", x)
    x[37, 1] = bad
    write(tmp_path / f"b.{kind}", x)
    if kind == "csv" and bad == 3e37:
        return  # read in double precision, which bears it
    with pytest.raises(UserError, match=rf"b\.{kind}: row 38: column 'x1' is"):
        read(FileSource(tmp_path))
    source = FileSource(tmp_path, skip_bad=True)
    for _ in range(2):
        found, weights = read(source)
        assert source.n_skipped == 1
        assert found.shape == (100, 3)
    assert np.isfinite(found).all()
    assert weights.sum() == len(weights) - 1


def test_a_missing_value_is_no_number(tmp_path):
    pa.parquet.write_table(pa.table({"a": [1.0, None], "b": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="row 2: column 'a' is nan"):
        read(FileSource(tmp_path / "a.parquet"))


@pytest.mark.parametrize("weight", [-1.0, np.nan])
def test_a_bad_weight_is_named_or_skipped(tmp_path, weight):
    x = table()
    x[4, 2] = weight
    path = write(tmp_path / "a.npy", x)
    with pytest.raises(UserError, match="row 5: the weight is"):
        read(FileSource(path, weight="x2"))
    source = FileSource(path, weight="x2", skip_bad=True)
    assert read(source)[1].min() == 0
    assert source.n_skipped == 1


def test_a_row_of_weight_zero_may_hold_anything(tmp_path):
    x = table()
    x[3] = [np.nan, np.inf, 0]
    _, weights = read(FileSource(write(tmp_path / "a.npy", x), weight="x2"))
    assert weights[3] == 0


def test_text_and_short_rows_in_csv(tmp_path):
    path = tmp_path / "a.csv"
    rows = [f"{i},{i}.5" for i in range(100)]
    rows[60] = "60,sixty"
    path.write_text("a,b\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=r"row 61: column 'b' holds 'sixty', not a number"):
        read(FileSource(path))
    rows[30] = "30"
    path.write_text("a,b\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match=r"row 31 has 1 values, but the header has 2"):
        read(FileSource(path))
    source = FileSource(path, skip_bad=True)
    found, weights = read(source)
    assert source.n_skipped == 2
    assert found[:, 0].sum() == sum(range(100)) - 90
    assert weights is not None


def test_what_cannot_be_read_is_refused(tmp_path):
    x = table()
    np.save(tmp_path / "cut.npy", x)
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-5])
    np.save(tmp_path / "columns.npy", np.asfortranarray(x))
    np.save(tmp_path / "text.npy", np.asarray([["a"]]))
    np.save(tmp_path / "flat.npy", x[:, 0])
    (tmp_path / "no.npy").write_text("hello")
    (tmp_path / "no.parquet").write_text("hello")
    (tmp_path / "no.arrow").write_text("hello")
    (tmp_path / "a.doc").write_text("hello")
    (tmp_path / "empty").mkdir()
    pa.parquet.write_table(pa.table({"a": ["x"], "b": [1]}), tmp_path / "text.parquet")
    for name, text in (
        ("cut.npy", "cut short: 595 of 600 bytes"),
        ("columns.npy", "column by column"),
        ("text.npy", "holds <U1"),
        ("flat.npy", r"shape \(50,\)"),
        ("no.npy", "not a whole .npy file"),
        ("no.parquet", "not a whole Parquet file"),
        ("no.arrow", "not a whole Arrow file"),
        ("a.doc", "cannot be read"),
        ("empty", "no file in this folder"),
        ("nowhere", "no such file or folder"),
        ("text.parquet", "column 'a' holds string, not numbers"),
    ):
        with pytest.raises(UserError, match=text):
            FileSource(tmp_path / name)
    path = write(tmp_path / "a.npy", x)
    with pytest.raises(UserError, match="Did you mean 'x1'"):
        FileSource(path, ["x_1"])
    with pytest.raises(UserError, match="each once"):
        FileSource(path, ["x1"], "x1")
    narrow = write(tmp_path / "b.npy", x[:, :2])
    with pytest.raises(UserError, match=r"b\.npy: there is no column 'x2'"):
        FileSource([path, narrow])


def test_a_file_that_shrinks_while_it_is_read_is_seen(tmp_path):
    path = write(tmp_path / "a.npy", table())
    source = iter(FileSource(path))
    next(source)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="became shorter"):
        list(source)
