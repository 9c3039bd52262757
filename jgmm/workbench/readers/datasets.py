"""Load a data set into memory by name or by path, with every value checked.

A built-in data set has a name (``jgmm datasets`` lists them); anything else is the path of a file
in one of the formats of ``formats.FORMATS`` that open as a table: delimited text (``.csv``,
``.tsv``, ``.txt``, ``.dat``), JSON lines (``.jsonl``), Excel (``.xlsx``), Parquet (``.parquet``),
Feather (``.feather``, ``.arrow``), NumPy (``.npy``, ``.npz``). How text is written is guessed, and
``Dataset.read_as`` says what was guessed. No row is skipped or filled in: a missing value, text
among numbers or a short row is an error that names the column and the row. Rows are counted from 1
and the header is not counted, so row 1 is the first line of data.
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from jgmm._core.errors import nearest
from jgmm.workbench.readers import csv, formats
from jgmm.workbench.readers.dialect import Overrides
from jgmm.workbench.readers.ids import choose_id, ids_in
from jgmm.workbench.readers.numerals import NUMBER
from jgmm.workbench.readers.remarks import code_warnings, read_as, unit_warnings
from jgmm.workbench.readers.tables import BLOCK_ROWS, ArrayTable, Table, fail, need

_HASH_LIMIT = 1 << 30  # bytes; of a larger file a checksum would take longer than reading it


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples ready for a fit: all finite, nothing missing.

    Attributes:
      x: the samples in rows, in double precision. Those of a float64 ``.npy`` file of which every
        column is used are a read-only memory map, which may be larger than memory.
      columns: the names of the D features.
      labels: the class of each sample, an index into ``label_names``; None without a label column.
      label_names: the names of the classes, sorted, as numbers if all of them are numbers.
      weights: the weight of each sample; None without a weight column.
      known: the known component of each sample, -1 where it is not known; None without such a
        column.
      name: the name of a built-in data set, or of the file without its suffix.
      source_note: where the samples come from, for the record of a run.
      left_out: columns that were not named and that do not hold numbers.
      read_as: how the source was read, where that was guessed, and what was left out; one line.
      warnings: what may be wrong with the data, one sentence each.
      id_name: the column that says which row is which; None where there is none.
      ids: its values, as they are written.
    """

    x: Float64[np.ndarray, "N D"]
    columns: list[str]
    labels: Int[np.ndarray, "N"] | None
    label_names: list[str] | None
    weights: Float64[np.ndarray, "N"] | None
    name: str
    source_note: str
    left_out: tuple[str, ...] = ()
    read_as: str = ""
    warnings: tuple[str, ...] = ()
    id_name: str | None = None
    ids: list[str] | None = None
    known: Int[np.ndarray, "N"] | None = None

    def id_of(self, row: int) -> dict[str, str]:
        """Return the id of a row for a table of results, or nothing where there are no ids.

        The column has the name that it has in the data, unless the table has one of that name.
        """
        if self.ids is None:
            return {}
        name = self.id_name or "id"
        taken = name in ("sample", "component", "doubtful", "label", "predicted")
        return {f"{name} (id)" if taken or re.fullmatch(r"p\d+", name) else name: self.ids[row]}


@dataclass(frozen=True)
class Description:
    """A built-in data set as ``jgmm datasets`` lists it.

    Attributes:
      name: the name that ``load`` takes.
      rows: the number of samples.
      columns: the columns that hold numbers.
      labels: the columns that hold classes.
      summary: what the data are about.
      source: where they come from.
    """

    name: str
    rows: int
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    summary: str
    source: str


_SKLEARN = "scikit-learn, sklearn.datasets"
_CARS = "mpg cylinders displacement horsepower weight acceleration model_year"
_WINE = (
    "alcohol malic_acid ash alcalinity_of_ash magnesium total_phenols flavanoids "
    "nonflavanoid_phenols proanthocyanins color_intensity hue od280/od315_of_diluted_wines proline"
)
_MEASURES = "radius,texture,perimeter,area,smoothness,compactness,concavity,concave points,symmetry"
_CELL_MEASURES = [*_MEASURES.split(","), "fractal dimension"]

_DESCRIPTIONS = [
    Description(
        "faithful",
        272,
        ("eruptions", "waiting"),
        (),
        "eruptions of the Old Faithful geyser: length and wait until the next, in minutes",
        "R package datasets; Härdle (1991)",
    ),
    Description(
        "autompg",
        392,
        tuple(_CARS.split()),
        ("origin", "maker", "name"),
        "cars of model years 70 to 82: fuel economy, engine, origin and maker",
        "Donoho and Ramos (1982), CRCARS; CC0",
    ),
    Description(
        "iris",
        150,
        ("sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"),
        ("species",),
        "three species of iris, four measurements of the flower",
        _SKLEARN,
    ),
    Description(
        "wine",
        178,
        tuple(_WINE.split()),
        ("cultivar",),
        "chemical analysis of wines from three cultivars",
        _SKLEARN,
    ),
    Description(
        "breast_cancer",
        569,
        tuple(f.format(c) for f in ("mean {}", "{} error", "worst {}") for c in _CELL_MEASURES),
        ("diagnosis",),
        "cell nuclei in images of breast masses, benign or malignant",
        _SKLEARN,
    ),
    Description(
        "digits",
        1797,
        tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8)),
        ("digit",),
        "handwritten digits, 8 by 8 pixels of 0 to 16",
        _SKLEARN,
    ),
]
_BUILT_IN = {entry.name: entry for entry in _DESCRIPTIONS}


def names() -> list[str]:
    """Return the names of the built-in data sets, in the order in which ``describe`` lists them.

    >>> names()[:2]
    ['faithful', 'autompg']
    """
    return list(_BUILT_IN)


def describe() -> list[Description]:
    """Describe every built-in data set, without reading any."""
    return list(_BUILT_IN.values())


def load(
    source: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    label: str | None = None,
    weight: str | None = None,
    root: str | os.PathLike[str] | None = None,
    *,
    mapped: bool = True,
    id: str | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    na: Sequence[str] | None = None,
    header: bool | None = None,
    known: str | None = None,
) -> Dataset:
    """Load a data set into memory and check every value of it.

    Args:
      source: a built-in name, or the path of a file: delimited text (.csv, .tsv, .txt, .dat), JSON
        lines (.jsonl), also compressed (.gz, .bz2, .xz, .zst, .zip), Excel (.xlsx), Parquet,
        Feather (.arrow), .npy or .npz. A ``.npy`` file holds a matrix (N, D), whose columns are
        called x0, x1, … FILE:PART names a sheet, an array of a ``.npz`` file or a member of an
        archive.
      columns: the features, in this order. By default every column of numbers except ``label``,
        ``weight`` and ``known``.
      label: column of classes, text or whole numbers.
      weight: column of sample weights, not negative, not all zero.
      root: the folder that a relative path starts from; the current folder by default.
      mapped: leave a ``.npy`` file on disk until its samples are used. If the file is changed
        meanwhile, the samples change; if it is cut short, the process crashes. False reads the
        file now.
      id: column that says which row is which; it is not modelled. Without it, a first column that
        is an index is recognised.
      separator: what separates the values of delimited text: a character, or "tab", "blank", …
      decimal: the decimal mark, "." or ",".
      na: texts or numbers that stand for a missing value, in addition to the usual ones.
      header: whether the first line holds the names of the columns.
      known: column of known components: whole numbers, or names, which are numbered in alphabetical
        order; empty or -1 where the component is not known.

    Returns:
      The samples in double precision, with labels and weights where they were asked for.

    Raises:
      UserError: the data cannot be read whole and used unchanged; the text says why, where (column
        and row) and what to do.

    Example:
      >>> data = load("autompg", columns=["mpg", "model_year"], label="origin")
      >>> data.x.shape, data.label_names
      ((392, 2), ['America', 'Asia', 'Europe'])
    """
    source = os.fspath(source)
    codes = tuple(na or ())
    overrides = Overrides(separator, decimal, codes, header)
    try:
        table, name, note = _open(source, root, mapped, overrides)
        reserved = [name for name in (label, weight, known) if name is not None]
        id_name = choose_id(table, id, {*(columns or ()), *reserved})
        chosen = _choose(table, columns, reserved, id_name)
        x = table.matrix(chosen)
        _check_finite(x, chosen, table.where, _numbers_of(codes))
        labels, label_names = (None, None) if label is None else _labels(table, label)
        weights = None if weight is None else _weights(table, weight)
        components = None if known is None else _known(table, known)
        ids = None if id_name is None else ids_in(table, id_name)
    except MemoryError as error:
        what = f"there is not enough memory to read it ({error or 'no more was to be had'})."
        fail(source, what, "Choose fewer `columns`, or check that the file is whole.")
    used = {*chosen, *reserved, id_name}
    left_out = tuple(each for each in table.names if each not in used) if columns is None else ()
    return Dataset(
        x,
        chosen,
        labels,
        label_names,
        weights,
        name,
        note,
        left_out,
        read_as(table, chosen, left_out, id_name),
        (*unit_warnings(table, left_out), *code_warnings(x, chosen)),
        id_name,
        ids,
        components,
    )


def _numbers_of(codes: Sequence[str]) -> list[float]:
    found = []
    for code in codes:
        with contextlib.suppress(ValueError):  # a text such as "?" stands for itself only
            found.append(float(code))
    return found


def _open(
    source: str, root: str | os.PathLike[str] | None, mapped: bool, overrides: Overrides
) -> tuple[Table, str, str]:
    if source in _BUILT_IN:
        return _open_built_in(_BUILT_IN[source])
    path = pathlib.Path(root or ".") / os.path.expanduser(source)
    if not os.path.exists(path):  # unlike a path's own method, false for any impossible name
        whole, colon, part = str(path).rpartition(":")
        if colon and part and os.path.isfile(whole):
            path, source = pathlib.Path(whole), source.removesuffix(f":{part}")
            overrides = dataclasses.replace(overrides, part=part)
    if not os.path.exists(path):
        fail(f"data source {source!r}", "there is no such file or built-in data set.", _hint(path))
    if not path.is_file():
        fail(f"data source {source!r}", "this is not a file.", "Name one file.")
    open_table = formats.opener(formats.table_openers(), source, overrides)
    try:
        if path.stat().st_size == 0:
            fail(source, "the file is empty.", "Write the data again.")
        before, note = path.stat(), _note(source, path)
        table = open_table(source, path, mapped)
        after = path.stat()
    except OSError as error:
        fail(source, f"the file cannot be read: {error.strerror or error}.", "Check its rights.")
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        fail(source, "the file was changed while it was read.", "Wait until it is written.")
    return table, path.stem, note


def _open_built_in(entry: Description) -> tuple[Table, str, str]:
    note = f"built-in data set {entry.name}, {entry.rows} rows; source: {entry.source}"
    if entry.source != _SKLEARN:
        path = pathlib.Path(__file__).parent / "data" / f"{entry.name}.csv"
        plain = Overrides(separator=",", decimal=".", header=True)
        return csv.open_table(entry.name, path, overrides=plain), entry.name, note
    module = need("sklearn.datasets", "sklearn", f"the data set {entry.name!r}")
    bunch = getattr(module, f"load_{entry.name}")()
    targets = {entry.labels[0]: [str(bunch.target_names[code]) for code in bunch.target]}
    x = np.asarray(bunch.data, np.float64)
    return ArrayTable(entry.name, list(entry.columns), x, targets), entry.name, note


def _note(source: str, path: pathlib.Path) -> str:
    size = path.stat().st_size
    if size > _HASH_LIMIT:
        return f"file {source}, {size} bytes"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"file {source}, {size} bytes, sha256 {digest}"


def _hint(path: pathlib.Path) -> str:
    """Suggest built-in data sets and files with names similar to a source that does not exist."""
    near = nearest(path.name, names(), n=3)
    if os.path.isdir(path.parent):  # false for an impossible name, too
        files = _data_files(path.parent)
        near += [str(path.parent / name) for name in nearest(path.name, files, n=3)]
        place = ""
    else:
        place = f" The folder {str(path.parent)!r} does not exist either."
    ask = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{ask}{place} Built-in data sets: {', '.join(names())}.".lstrip()


def _data_files(folder: pathlib.Path) -> list[str]:
    files: list[str] = []
    suffixes = formats.table_openers()
    with contextlib.suppress(OSError):  # without the names there is only no suggestion
        files = sorted(f.name for f in folder.iterdir() if formats.suffix_of(f.name) in suffixes)
    return files


def _choose(
    table: Table,
    columns: Sequence[str] | None,
    reserved: Sequence[str],
    id_name: str | None,
) -> list[str]:
    """Return the names of the features; unknown names are refused before any value is read.

    Args:
      table: the columns.
      columns: the features that were asked for; None for all columns of numbers.
      reserved: columns that have another use.
      id_name: the column of ids, or None.
    """
    if isinstance(columns, str):
        fail(table.where, f"columns = {columns!r} is one text.", f"Write [{columns!r}].")
    known = set(table.names)
    for name in [*(columns or []), *reserved]:
        if name not in known:
            table.refuse_unknown(name)
    if columns is None:
        others = [name for name in table.names if name not in (*reserved, id_name)]
        chosen = [name for name in others if table.is_numeric(name)]
    else:
        chosen = list(columns)
    twice = sorted(name for name, n in collections.Counter([*chosen, *reserved]).items() if n > 1)
    if twice:
        what = f"column {twice[0]!r} is asked for twice, as feature, label, weight or known."
        fail(table.where, what, "Use each column once.")
    if not chosen:
        with_unit = [name for name in table.names if table.unit(name)]
        fix = "Name some in `columns`."
        if with_unit:
            fix = f"Numbers with a unit are read where they are named: --columns {with_unit[0]}."
        fail(table.where, "there is no column of numbers to use.", fix)
    return chosen


def _check_finite(
    x: np.ndarray, columns: Sequence[str], where: str, codes: Sequence[float] = ()
) -> None:
    # Block by block, so that a memory map is never in memory as a whole.
    for start in range(0, x.shape[0], BLOCK_ROWS):
        block = x[start : start + BLOCK_ROWS]
        bad = ~np.isfinite(block)
        if codes:
            bad |= np.isin(block, codes)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            value = "infinite" if np.isinf(x[start + row, column]) else "missing or NaN"
            what = f"column {columns[column]!r}, row {start + row + 1}: the value is {value}."
            fix = "Remove or fill such rows first: a mixture is fitted to complete, finite samples."
            fail(where, what, fix)


def _weights(table: Table, name: str) -> Float64[np.ndarray, "N"]:
    weights = table.numbers(name)
    _check_finite(weights[:, None], [name], table.where)
    if (weights < 0).any():
        row = int(np.argmax(weights < 0))
        what = f"weight column {name!r}, row {row + 1}: {weights[row]:g} is negative."
        fail(table.where, what, "A weight says how many times a sample counts.")
    if not weights.any():
        fail(table.where, f"weight column {name!r} is zero in every row.", "Leave it out.")
    return weights


def _labels(table: Table, name: str) -> tuple[Int[np.ndarray, "N"], list[str]]:
    """Return classes as 0, 1, … and their sorted names; whole numbers lose a trailing .0."""
    values = table.texts(name)
    if None in values:
        what = f"label column {name!r}, row {values.index(None) + 1}: the label is missing."
        fail(table.where, what, "Give every row a label, or remove the row.")
    texts = [text for text in values if text is not None]
    number = re.compile(r"[-+]?\d+(\.0*)?")
    # Each spelling that occurs, and the class that it stands for.
    classes = {text: text.partition(".")[0] if number.fullmatch(text) else text for text in texts}
    label_names = sorted(set(classes.values()))
    if all(re.fullmatch(NUMBER, text) for text in label_names):
        fractions = [text for text in classes if not number.fullmatch(text)]
        if fractions:
            row = texts.index(fractions[0])
            what = f"label column {name!r}, row {row + 1}: {texts[row]} is not a whole number."
            fail(table.where, what, "A label is text or a whole number, not a measurement.")
        label_names.sort(key=float)
    index = {text: code for code, text in enumerate(label_names)}
    return np.array([index[classes[text]] for text in texts]), label_names


def _known(table: Table, name: str) -> Int[np.ndarray, "N"]:
    """Return known components: whole numbers as they are, names by their place in the alphabet."""
    texts = [text or "-1" for text in table.texts(name)]
    if all(re.fullmatch(r"[-+]?\d{1,9}(\.0*)?", text) for text in texts):
        return np.array([int(float(text)) for text in texts])
    order = {text: place for place, text in enumerate(sorted({*texts} - {"-1"}))}
    return np.array([order.get(text, -1) for text in texts])
