"""Random inputs for the workbench, each a function of a generator, so that its number repeats it.

Near misses more often than noise: what is valid but for one thing reaches the checks behind the
first one. `test_fuzz.py` says how many there are and how to try more.
"""

import io
import json
import pickle
import random
import string
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy

from jgmm.workbench.config.toml import to_toml

TOKENS = [
    *("0", "-1", "1e999", "nan", "-inf", "0x" + "f" * 4000, "9" * 4000, "9" * 5000, "1_0", "1__0"),
    *("1,234.5", "true", '""', "''", '"', "'''", "[", "]", "{", "}", "[[", "=", ".", ",", "#"),
    *(
        "\n",
        "\r",
        "\r\n",
        "\t",
        "\0",
        "\x1b[31m",
        "\x7f",
        "\ufeff",
        "\u202e",
        "é",
        "日本",
        "🙂",
        "\\",
    ),
    *("1979-05-27T07:32:00Z", "25:61:61", "<script>alert(1)</script>", "</style>", "[/bold]"),
    *("../../etc/passwd", "~nobody/x", "a" * 300, "[" * 400, "{a=" * 400, "None", "=cmd()", "$x^$"),
]
VALUES: list[Any] = [
    *(3, -2, 0, 1.5, 1e-6, True, float("nan"), float("inf"), 10**30, 2**31, 1e300, -0.0),
    *("full", "all", "x", "", "float32", "bic", "kmeans", "faithful", "iris", "../up", "none.csv"),
    *([1, 2], [], ["full", "tied"], [[1]], {}, {"a": 1}, ["eruptions"], ["full", "all"], [1, "a"]),
    *("3", "1e-3", [2, 2], [0], {"a": {"b": {}}}, "a" * 300, "日" * 100, "a\0b", "~nobody/x"),
]
CONFIG: dict[str, dict[str, Any]] = {
    "": {"study": "mixture", "name": "a-run", "seed": 3, "precision": "float32", "output": "out"},
    "data": {"source": "faithful", "columns": ["eruptions", "waiting"]},
    "fit": {
        "n_components": [1, 2, 3],
        "covariance": ["full", "tied"],
        "n_restarts": 4,
        "init": "kmeans",
        "race": 0,
        "tol": 1e-6,
        "rtol": 0.0,
        "max_steps": 50,
        "ridge": 0.0,
        "criterion": "icl",
        "n_folds": 3,
    },
    "settings": {"certainty": 0.8},
}
PATHS = [f"{table}.{key}".strip(".") for table, keys in CONFIG.items() for key in keys]
ODD_PATHS = [
    *("sed", "fit.n_component", "a.b.c", "data.label", "data.weight", "fit", "data", "settings"),
    *("fit.fit", "data.data.data", "<b>", "", "a..b", "settings.x\ny", "é.ü"),
]


def config(rng: random.Random) -> bytes:
    """A config: valid but for some keys and values, damaged as text, or noise."""
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.randrange(60))
    if kind < 0.1:
        return "".join(rng.choice(string.printable) for _ in range(rng.randrange(80))).encode()
    table: dict[str, Any] = {k: dict(v) for k, v in CONFIG.items() if k and rng.random() < 0.8}
    table.update({k: v for k, v in CONFIG[""].items() if rng.random() < 0.8})
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        *outer, key = rng.choice(PATHS if rng.random() < 0.7 else ODD_PATHS).split(".")
        inner = table
        for part in outer:
            inner = inner.setdefault(part, {}) if isinstance(inner.get(part, {}), dict) else table
        inner[key] = rng.choice(VALUES)
    content = to_toml(table).encode("utf-8")
    if rng.random() < 0.1:
        content = content.replace(b"\n", b"\r\n")
    return damaged(rng, content) if rng.random() < 0.4 else content


def overrides(rng: random.Random) -> list[str]:
    """Arguments of --set."""
    return [
        rng.choice(PATHS if rng.random() < 0.8 else ODD_PATHS)
        + rng.choice(["=", "=", "=", "=", "", "==", " = "])
        + (str(rng.choice(VALUES)) if rng.random() < 0.8 else rng.choice(TOKENS))
        for _ in range(rng.choice([0, 0, 1, 1, 2]))
    ]


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Content with one to three damages: cut, flipped, doubled, or with something put in."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        i, j = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in content[i : i + 1])
        content = rng.choice(
            [
                content[:i],
                content[:i] + content[j:],
                content[:j] + content[i:],
                content[:i] + rng.choice(TOKENS).encode("utf-8") + content[i:],
                content[:i] + rng.randbytes(rng.randrange(1, 9)) + content[i:],
                *[content[:i] + flipped + content[i + 1 :]] * 3,
                content[:i] + rng.randbytes(1) + content[i + 1 :],
            ]
        )
    return content


ODD_CELLS = ["x", "", " ", "NA", "nan", "inf", "-0", "+1", "007", "1e400", "?", '"q"', "1,2", "b"]


def csv(rng: random.Random) -> bytes:
    """A CSV file: any separator, end of line, encoding, header; ragged or not, damaged or not."""
    n_columns, n_rows = rng.randrange(1, 5), rng.choice([0, 1, 2, 5, 5, 40, 40])
    oddness = rng.choice([0, 0, 0.02, 0.2])
    separator = rng.choice([","] * 14 + [";", "\t", "|", ", "])
    newline = rng.choice(["\n", "\n", "\n", "\r\n", "\r"])
    names = rng.sample(["a", "b", "label", "w", "x y", "é", "<b>", '"u,v"', '"two\nlines"'], 4)
    for position in range(4):
        if rng.random() < oddness:
            names[position] = rng.choice(["a", "", "1", " a ", '"', 'a"b', '""', *TOKENS])

    def cell() -> str:
        if rng.random() < oddness:
            return rng.choice(ODD_CELLS if rng.random() < 0.8 else TOKENS)
        return repr(round(rng.gauss(0, 10), rng.randrange(4)))

    lines = [names[:n_columns]]
    for _ in range(n_rows):
        width = n_columns if rng.random() >= oddness / 4 else rng.randrange(7)
        lines.append([cell() for _ in range(width)])
    text = newline.join(separator.join(line) for line in lines)
    text += newline if rng.random() < 0.8 else ""
    encoding = rng.choice(["utf-8"] * 20 + ["utf-8-sig", "utf-8-sig", "utf-16", "latin-1"])
    content = text.encode(encoding, "replace")
    return damaged(rng, content) if rng.random() < 0.25 else content


def parquet(rng: random.Random) -> bytes:
    """A Parquet file of columns of all kinds; damaged half of the time."""
    n = rng.choice([0, 1, 3, 9, 50, 50])
    names = ["a", *rng.sample(["b", "a.b", "", "é", "label", "<b>", "__index_level_0__"], 2)]
    names = names[: rng.randrange(1, 4)]
    sink = io.BytesIO()
    pq.write_table(
        pa.table([_column(rng, n) for _ in names], names=names),
        sink,
        compression=rng.choice(["none", "snappy", "zstd", "gzip"]),
        use_dictionary=rng.random() < 0.5,
        data_page_version=rng.choice(["1.0", "2.0"]),
        write_page_checksum=rng.random() < 0.3,
        store_schema=rng.random() < 0.5,
        row_group_size=rng.choice([None, 7]),
    )
    content = sink.getvalue()
    return damaged(rng, content) if rng.random() < 0.4 else content


def _column(rng: random.Random, n: int) -> Any:
    numbers = [rng.gauss(0, 10) for _ in range(n)]
    wholes = [int(value) for value in numbers]
    letters = [rng.choice("abc") for _ in range(n)]
    moments = [rng.randrange(-(1 << 50), 1 << 50) for _ in range(n)]
    pairs = pa.struct({"a": pa.float64(), "b": pa.string()})
    kinds: list[Callable[[], Any]] = [
        *[lambda: pa.array(numbers)] * 6,
        lambda: pa.array(numbers, pa.float32()),
        lambda: pa.array(np.asarray(numbers, np.float16)),
        lambda: pa.array([None if rng.random() < 0.1 else v for v in numbers]),
        lambda: pa.array([v if rng.random() < 0.9 else float("nan") for v in numbers]),
        lambda: pa.array(wholes, pa.int8()),
        lambda: pa.array([abs(v) << 50 for v in wholes], pa.uint64()),
        lambda: pa.array(wholes, pa.decimal256(60, 3)),
        lambda: pa.array([v > 0 for v in numbers]),
        lambda: pa.array(letters),
        lambda: pa.array(letters).dictionary_encode(),
        lambda: pa.array([rng.randbytes(3) for _ in range(n)]),
        lambda: pa.array([[v] for v in numbers], pa.list_(pa.float64())),
        lambda: pa.array([{"a": v, "b": "x"} for v in numbers], pairs),
        lambda: pa.array(moments, pa.timestamp("s")),
        lambda: pa.array(moments, pa.timestamp("ns", "UTC")),
        lambda: pa.array([v >> 20 for v in moments], pa.date32()),
        lambda: pa.array(moments, pa.duration("us")),
        lambda: pa.nulls(n),
    ]
    return rng.choice(kinds)()


DTYPES = [*["f8"] * 6, "f4", ">f8", "f2", "g", "i8", "u1", "?", "c16", "U3", "M8[s]", "S4"]
SHAPES = [*[(4, 2)] * 9, (1, 1), (0, 3), (3, 0), (5,), (2, 2, 2), (), (1, 40)]
NPY_DESCR = [
    *("'<f8'", "'<f8'", "'|O'", "'<V0'", "'|S0'", "'<U9999999'", "'f'", "'<f16'", "'<m8[ns]'"),
    *("[('a', '<f8')]", "[('a', '<f8', (2,))]", "('<f8', (2, 2))", "3", "None", "'<f8,<f8'"),
]
NPY_SHAPE = [
    *("(4, 2)", "(4, 2)", "(-1, 2)", "(0, 99999999999)", "(99999999999, 0)", "(2**62, 4)"),
    *("(4611686018427387904, 4)", "(9223372036854775808, 1)", "(1, 1)", "(True, True)", "4"),
    *("[4, 2]", "(4.0, 2)", "()", "(" * 150 + ")" * 150, "(" + "-" * 3000 + "1, 1)", "(4L, 2L)"),
    *("(1, 1)\0", "'", "(99999999999, 99999999999)"),
]
MAGIC = [b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY", b"\x93NUMPY\x01\x00", b"\x80\x04", b""]


def npy(rng: random.Random) -> bytes:
    """A .npy file of any dtype, shape and header; or a pickle, an archive, the start of one."""
    sink = io.BytesIO()
    kind = rng.randrange(20)
    if kind == 0:
        np.save(sink, np.array([[1, "a"], [None, {}]], dtype=object), allow_pickle=True)
    elif kind == 1:
        np.savez(sink, a=np.ones((2, 2)))
    elif kind == 2:
        sink.write(pickle.dumps(np.ones((2, 2)), rng.randrange(6)))
    elif kind == 3:
        sink.write(rng.choice(MAGIC) + rng.randbytes(rng.randrange(40)))
    elif kind < 6:
        sink.write(_npy_by_hand(rng))
    else:
        values = np.array([rng.gauss(0, 9) for _ in range(40)]).astype("i8")
        shape = rng.choice(SHAPES)
        array = values[: int(np.prod(shape))].reshape(shape)
        array = (array % 100).astype(rng.choice(DTYPES))
        np.save(sink, np.asfortranarray(array) if rng.random() < 0.3 else array)
    content = sink.getvalue()
    return damaged(rng, content) if rng.random() < 0.25 else content


def _npy_by_hand(rng: random.Random) -> bytes:
    order = rng.choice(["True", "False", "False", "1", "None", "[]"])
    fields = f"'descr': {rng.choice(NPY_DESCR)}, 'fortran_order': {order}, 'shape': "
    header = "{" + fields + rng.choice(NPY_SHAPE) + rng.choice([", }", "}", "", ", 'x': 1}"])
    version = rng.choice([(1, 0), (1, 0), (2, 0), (3, 0), (9, 9)])
    raw = header.encode("latin-1") + b"\n"
    size = len(raw).to_bytes(2 if version == (1, 0) else 4, "little")
    data = rng.randbytes(rng.choice([0, 8, 64, 200]))
    return b"\x93NUMPY" + bytes(version) + size + raw + data


SCALES: dict[str, Callable[[int, int], tuple[int, ...]]] = {
    "full": lambda k, d: (k, d, d),
    "tied": lambda k, d: (1, d, d),
    "diag": lambda k, d: (k, d),
    "spherical": lambda k, d: (k,),
}


def parameters(rng: random.Random) -> bytes:
    """A mixture's file, or one with other arrays, other metadata, or damage."""
    k, d = (rng.randrange(1, 4), rng.randrange(1, 4)) if rng.random() < 0.9 else (0, 2)
    name = rng.choice(list(SCALES))
    shape = SCALES[rng.choice(list(SCALES)) if rng.random() < 0.1 else name](k, d)
    dtype = rng.choice([np.float64] * 6 + [np.float32, np.float16, np.int64, np.bool_])
    scale = np.tile(np.eye(d), (shape[0], 1, 1)) if len(shape) == 3 else np.ones(shape)
    arrays = {
        "log_weights": np.full(k, -np.log(max(k, 1))).astype(dtype),
        "means": np.zeros((k, d), dtype),
        "scale": scale.astype(dtype),
    }
    if rng.random() < 0.2:
        spoilt = arrays[rng.choice(list(arrays))].reshape(-1)
        if spoilt.size and spoilt.dtype.kind == "f":
            spoilt[rng.randrange(spoilt.size)] = rng.choice([np.nan, np.inf, -np.inf, 0, -1, 60000])
    if rng.random() < 0.1:
        arrays.pop(rng.choice(list(arrays)))
    if rng.random() < 0.1:
        arrays["more"] = np.ones(3)
    names: Any = rng.choice([None, [f"c{i}" for i in range(d)]])
    given: dict[str, Any] = {
        "format": "jgmm.mixture",
        "version": 1,
        "covariance": name,
        "columns": names,
    }
    if rng.random() < 0.2:
        odd = [None, 7, "x", [], {}, ["full"], True, "1", 1.0, ["a"], [1, 2], "full", "EEV"]
        given[rng.choice(list(given))] = rng.choice(odd)
    text = json.dumps(given)
    if rng.random() < 0.05:
        text = rng.choice(["[" * 100_000, "null", "{", text[:-3], "1" * 5000, '"\\ud800"'])
    content = safetensors.numpy.save(arrays, {"jgmm": text})
    if rng.random() < 0.05:
        size = rng.choice([0, 1, 7, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1])
        return size.to_bytes(8, "little") + content[8:]
    return damaged(rng, content) if rng.random() < 0.4 else content


NAMED = [
    *(kind for name in ("good", "good", "good", "bad") for kind in (f"{name}.toml", f"{name}-run")),
    *(f"{name}.{kind}" for name in ("good", "bad") for kind in ("csv", "npy", "parquet")),
    *("good.safetensors", "bad.safetensors", "none.toml", "iris", "faithful", "autompg"),
    *(".", "..", "", "/", "/dev/null", "a\0b", "\udcff", "-", "--"),
]
"""What is there in the folder that commands are tried in, and what is not."""

OPTIONS: dict[str, list[str]] = {
    "--components": ["3", "1:3", "2,5", "0", "9:1", "1:99999999999", "", "a", "1_0", "9" * 5000],
    "--covariance": ["full", "all", "full,tied", "ful", "", ",", "all,full"],
    "--columns": ["a", "a,b", "x0", "", ",", "eruptions", "mpg,weight", "<b>"],
    "--label": ["a", "b", "species", "origin", "x1", ""],
    "--weight": ["a", "w", "weight", "x0", ""],
    "--restarts": ["4", "0", "-1", "x", "1e3", "9" * 30],
    "--criterion": ["bic", "held_out", "bick", ""],
    "--seed": ["3", "-1", "4294967296", "x"],
    "--precision": ["float32", "float16", ""],
    "--output": ["out", "deep/er/out", "good.csv", "/dev/null/x", "", "a\0b", "n" * 300, "\udcff"],
    "--study": ["mixture", "classify", "none", "json", "", ".", "a/b.py", "..", "1"],
    "--quiet": [],
    "--nonsense": ["1"],
    "--help": [],
}


def command(rng: random.Random) -> list[str]:
    """Arguments of `jgmm`: a command, files, options; mostly those that belong together."""
    fitting = [name for name in OPTIONS if name not in ("--study", "--help")]
    name, n_files, known = rng.choice(
        [
            ("run", 1, ["--output", "--quiet"]),
            ("fit", 1, fitting),
            ("fit", 1, ["--components", "--columns", "--quiet", "--output"]),
            ("select", 1, [name for name in fitting if name != "--output"]),
            ("show", 1, []),
            ("compare", 2, []),
            ("schema", 0, ["--study"]),
            ("datasets", 0, []),
            ("nonsense", 1, []),
        ]
    )
    n_files = n_files if rng.random() < 0.95 else rng.randrange(4)
    options = known if known and rng.random() < 0.9 else list(OPTIONS)
    arguments = [rng.choice(NAMED) for _ in range(n_files)]
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        option = rng.choice(options or list(OPTIONS))
        values = OPTIONS[option]
        values = values if rng.random() < 0.5 else values[:2]
        arguments += [option, *([rng.choice(values)] if values else [])]
    if name in ("run", "fit", "select") and rng.random() < 0.4:
        arguments += [part for text in overrides(rng) for part in ("--set", text)]
    return [name, *arguments]
