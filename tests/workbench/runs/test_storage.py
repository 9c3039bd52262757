import csv
import errno
import io
import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jgmm._core.errors import UserError
from jgmm.mixture.mixture import make_mixture
from jgmm.workbench.runs import storage

SHAPES = {
    "full": [[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 3.0]]],
    "tied": [[2.0, 0.5], [0.5, 1.0]],
    "diag": [[2.0, 0.5], [1.0, 3.0]],
    "spherical": [2.0, 0.5],
}


def a_mixture(covariance="full"):
    return make_mixture([0.25, 0.75], [[0.0, 1.0], [2.0, 3.0]], SHAPES[covariance], covariance)


@pytest.mark.parametrize("covariance", SHAPES)
def test_a_mixture_comes_back_bit_for_bit(tmp_path, covariance):
    saved = a_mixture(covariance)
    path = tmp_path / "m.safetensors"
    storage.save_mixture(path, saved, ["a", "b"])
    loaded = storage.load_mixture(path)
    assert loaded.covariance == saved.covariance
    for name in ("log_weights", "means", "scale"):
        left, right = getattr(saved, name), getattr(loaded, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)
    assert storage.mixture_columns(path) == ["a", "b"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_component_of_weight_zero_is_saved(tmp_path):
    path = tmp_path / "m.safetensors"
    storage.save_mixture(path, make_mixture([0.0, 1.0], [[0.0], [1.0]], [1.0, 1.0], "spherical"))
    assert storage.load_mixture(path).weights.tolist() == [0.0, 1.0]
    assert storage.mixture_columns(path) is None


def test_precision_is_never_lost_silently(tmp_path):
    path = tmp_path / "m.safetensors"
    mixture = a_mixture()
    arrays = {
        name: np.asarray(getattr(mixture, name), np.float64)
        for name in ("log_weights", "means", "scale")
    }
    metadata = {"format": "jgmm.mixture", "version": 1, "covariance": "full", "columns": None}
    path.write_bytes(safetensors.numpy.save(arrays, {"jgmm": json.dumps(metadata)}))
    assert storage.load_mixture(path).means.dtype == jnp.float64
    assert storage.load_mixture(path, "float32").means.dtype == jnp.float32
    jax.config.update("jax_enable_x64", False)
    try:
        with pytest.raises(UserError, match="holds float64, and JAX is set to float32"):
            storage.load_mixture(path)
        assert storage.load_mixture(path, "float32").means.dtype == jnp.float32
    finally:
        jax.config.update("jax_enable_x64", True)


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    path = tmp_path / "m.safetensors"
    storage.save_mixture(path, a_mixture())
    content = path.read_bytes()
    for size in (0, 1, 7, 8, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"m\.safetensors: not a whole safetensors file"):
            storage.load_mixture(path)


def foreign(tmp_path, *, drop=(), metadata=None, **arrays):
    mixture = a_mixture()
    kept = {n: np.asarray(getattr(mixture, n)) for n in ("log_weights", "means", "scale")}
    kept = {n: a for n, a in (kept | arrays).items() if n not in drop}
    given = {"format": "jgmm.mixture", "version": 1, "covariance": "full", "columns": None}
    given = {n: t for n, t in (given | (metadata or {})).items() if n not in drop}
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(safetensors.numpy.save(kept, {"jgmm": json.dumps(given)}))
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"drop": ("format",)}, "not a mixture saved by jgmm"),
        ({"metadata": {"version": 99}}, "mixture format 99, this jgmm reads 1"),
        ({"drop": ("scale",)}, "scale missing"),
        ({"drop": ("covariance",)}, "covariance missing"),
        ({"metadata": {"covariance": "fulll"}}, "Did you mean 'full'"),
        ({"metadata": {"covariance": "diag"}}, "scale has shape"),
        ({"means": np.zeros((2, 3), np.float32)}, "scale has shape"),
        ({"means": np.zeros(2, np.float32)}, r"not \(K, D\)"),
        ({"means": np.full((2, 2), np.nan)}, "damaged"),
        ({"means": np.zeros((2, 2), np.float16)}, "types"),
        ({"log_weights": np.zeros(2)}, "weights that do not sum to one"),
        ({"log_weights": np.full(2, np.nan)}, "weights that do not sum to one"),
        ({"log_weights": np.array([800.0, 0.0])}, "weights that do not sum to one"),
        ({"metadata": {"covariance": ["full"]}}, "unknown covariance model"),
        ({"metadata": {"covariance": {}}}, "unknown covariance model"),
        ({"metadata": {"columns": ["a"]}}, "names of its columns are not 2 texts"),
        ({"metadata": {"columns": 3}}, "names of its columns are not 2 texts"),
        ({"metadata": {"columns": [1, 2]}}, "names of its columns are not 2 texts"),
        ({"scale": np.zeros((2, 2, 2))}, "not positive"),
        ({"scale": -np.tile(np.eye(2), (2, 1, 1))}, "not positive"),
        ({"scale": np.tile([[1.0, 1.0], [0.0, 1.0]], (2, 1, 1))}, "not positive"),
        ({"scale": np.full((2, 2, 2), np.inf)}, "not finite"),
    ],
)
def test_a_file_that_is_no_mixture_of_ours_is_refused_with_the_reason(tmp_path, change, expected):
    with pytest.raises(UserError, match=expected):
        storage.load_mixture(foreign(tmp_path, **change))


@pytest.mark.parametrize(
    "metadata", [None, {}, {"jgmm": "no"}, {"jgmm": "[1]"}, {"jgmm": "[" * 9999}]
)
def test_a_safetensors_file_of_something_else_is_refused(tmp_path, metadata):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}, metadata))
    with pytest.raises(UserError, match="not a mixture saved by jgmm"):
        storage.load_mixture(path)


def test_a_header_of_any_length_is_survived(tmp_path):
    path = foreign(tmp_path)
    content = path.read_bytes()
    for size in (0, 1, 1 << 31, 1 << 40, (1 << 63) - 1, (1 << 64) - 1):
        path.write_bytes(size.to_bytes(8, "little") + content[8:])
        with pytest.raises(UserError, match="not a whole safetensors file"):
            storage.load_mixture(path)


def test_numbers_too_large_for_the_precision_asked_for_are_refused(tmp_path):
    path = foreign(tmp_path, **wide(1e300))
    assert storage.load_mixture(path).means[0, 0] == 1e300
    with pytest.raises(UserError, match=r"holds 1e\+300, which is too large for float32"):
        storage.load_mixture(path, "float32")


def wide(value):
    """Double precision throughout, with one large mean."""
    return {
        "means": np.array([[value, 0.0], [0.0, 0.0]]),
        "scale": np.tile(np.eye(2), (2, 1, 1)),
        "log_weights": np.log([0.25, 0.75]),
    }


def test_a_device_is_no_file_of_parameters():
    with pytest.raises(UserError, match="a pipe or a device"):
        storage.load_mixture("/dev/zero")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        storage.load_mixture(tmp_path / "none.safetensors")


def test_the_wrong_number_of_column_names_is_refused(tmp_path):
    with pytest.raises(ValueError, match="1 column names for 2 features"):
        storage.save_mixture(tmp_path / "m.safetensors", a_mixture(), ["a"])


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    storage.save_mixture(path, a_mixture())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"m\.safetensors: No space left on device; free some"):
        storage.save_mixture(path, a_mixture("diag"))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# JSON and CSV


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
