import errno
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy

import jgmm
from jgmm._core.errors import DataError, PrecisionWarning, UserError
from jgmm._core.status import Status
from jgmm._saving import container
from jgmm._saving.save import read, read_mixture
from jgmm.mixture.mixture import make_mixture

KEY = jax.random.key(0)
SHAPES = {
    "full": [[[2.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 3.0]]],
    "tied": [[2.0, 0.5], [0.5, 1.0]],
    "diag": [[2.0, 0.5], [1.0, 3.0]],
    "spherical": [2.0, 0.5],
}
OPTIONS = {"n_restarts": 4, "init": "points", "max_steps": 30}


def a_mixture(covariance="full"):
    return make_mixture([0.25, 0.75], [[0.0, 1.0], [2.0, 3.0]], SHAPES[covariance], covariance)


@pytest.fixture(scope="module")
def x():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(size=(40, 2)), rng.normal(6, 2, size=(20, 2))])


@pytest.fixture(scope="module")
def selection():
    """Of which one fit has failed: two components on two places collapse."""
    places = np.array([[0.0, 0.0], [7.0, 5.0]] * 10)
    options = {"equal_weights": True, "n_restarts": 4, "init": "kmeans", "max_steps": 30}
    return jgmm.select(KEY, places, [2, 1], "EII", **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.safetensors"


@pytest.fixture
def _float32_session():
    with jax.enable_x64(False):
        yield


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def saved_and_loaded(path, result, columns=None):
    jgmm.save(path, result, columns)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    return jgmm.load(path)


# What is saved comes back


@pytest.mark.parametrize("covariance", SHAPES)
def test_a_mixture_comes_back_bit_for_bit(path, covariance):
    mixture = a_mixture(covariance)
    assert_same(saved_and_loaded(path, mixture, ["a", "b"]), mixture)
    assert read(path).columns == ["a", "b"]
    assert read_mixture(path)[1] == ["a", "b"]


def test_a_component_of_weight_zero_is_saved(path):
    jgmm.save(path, make_mixture([0.0, 1.0], [[0.0], [1.0]], [1.0, 1.0], "spherical"))
    assert jgmm.load(path).weights.tolist() == [0.0, 1.0]
    assert read(path).columns is None
    assert read_mixture(path)[1] == ["x0"]


FITS = {
    "restarts": lambda x: jgmm.fit(KEY, x, 2, **OPTIONS),
    "noise": lambda x: jgmm.fit(KEY, x, 2, noise="box", **OPTIONS),
    "one": lambda x: jgmm.fitting.run_em(a_mixture(), x, max_steps=3),
    "gradient": lambda x: jgmm.gradient.fit(
        KEY, x, 2, optimizer=optax.adam(1e-2), n_restarts=2, max_steps=3
    ),
    "streaming": lambda x: jgmm.streaming.fit(KEY, x, 2, n_restarts=2, max_steps=3),
}


@pytest.mark.parametrize("name", FITS)
def test_the_result_of_every_way_to_fit_comes_back_bit_for_bit(path, x, name):
    result = FITS[name](x)
    loaded = saved_and_loaded(path, result)
    assert_same(loaded, result)
    assert loaded.status == result.status
    assert repr(loaded) == repr(result)


def test_a_fit_in_float32_is_read_exactly_in_a_float64_session(path, x):
    with jax.enable_x64(False):
        result = jgmm.fit(KEY, x, 2, **OPTIONS)
        jgmm.save(path, result)
    assert result.mixture.means.dtype == jnp.float32
    assert_same(jgmm.load(path), result)


def test_a_fit_that_failed_comes_back(path):
    failed = jax.jit(lambda start, x: jgmm.fitting.run_em(start, x, max_steps=3))
    result = failed(a_mixture(), np.full((4, 2), np.nan))
    assert not Status(int(result.status)).is_usable
    assert_same(saved_and_loaded(path, result), result)


def test_a_selection_comes_back_with_every_fit(path, selection):
    loaded = saved_and_loaded(path, selection)
    assert "nan" in str(selection)
    assert str(loaded) == str(selection)
    np.testing.assert_equal(
        [vars(row) for row in loaded.table], [vars(row) for row in selection.table]
    )
    assert (loaded.criterion, loaded.agreement) == (selection.criterion, selection.agreement)
    assert loaded.best is loaded.table[selection.table.index(selection.best)]
    assert list(loaded.results) == list(selection.results)
    assert_same(list(loaded.results.values()), list(selection.results.values()))
    assert_same(loaded.mixture, selection.mixture)
    assert loaded.best_of(loaded.table) is loaded.best


def test_a_selection_in_one_column_comes_back(path, x):
    """Its models have other names in the table than in the fits."""
    found = jgmm.select(KEY, x[:, :1], [1, 2], "all", criterion="icl", **OPTIONS)
    loaded = saved_and_loaded(path, found)
    assert {name for _, name in loaded.results} == {"E", "V"}
    assert str(loaded) == str(found)


@pytest.mark.parametrize("names", [("a", "b"), (0, 7), (False, True)])
def test_a_classifier_comes_back(path, x, names):
    labels = np.asarray([names[0]] * 40 + [names[1]] * 20)
    sizes = (1, 2) if names == (0, 7) else 1
    trained = jgmm.classifier.fit(x, labels, n_components=sizes, key=KEY, n_restarts=2)
    loaded = saved_and_loaded(path, trained)
    assert_same(loaded, trained)
    assert [type(name) for name in loaded.class_names] == [type(name) for name in names]
    with pytest.raises(UserError, match="a classifier, and a mixture is needed"):
        read_mixture(path)


def test_a_mixture_is_found_in_a_result(path, x, selection):
    for result in (FITS["noise"](x), selection):
        jgmm.save(path, result)
        assert_same(read_mixture(path)[0], result.mixture)


def test_a_file_of_the_first_version_is_read(tmp_path):
    path = foreign(tmp_path, metadata={"columns": ["a", "b"]})
    assert_same(jgmm.load(path), a_mixture())
    assert read(path).columns == ["a", "b"]


# Precision


@pytest.mark.usefixtures("_float32_session")
def test_float64_is_rounded_with_a_warning_in_a_float32_session(path, x, selection):
    with jax.enable_x64(True):
        fitted = FITS["restarts"](x)
        for name, result in (("fit", fitted), ("selection", selection)):
            jgmm.save(path.with_stem(name), result)
    with pytest.warns(PrecisionWarning, match="holds float64, and JAX is set to float32"):
        loaded = jgmm.load(path.with_stem("fit"))
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {
        np.dtype("float32"),
        np.dtype("int32"),
    }
    np.testing.assert_allclose(loaded.mixture.means, fitted.mixture.means, rtol=1e-6)
    with pytest.warns(PrecisionWarning):
        assert str(jgmm.load(path.with_stem("selection"))) == str(selection)
    with jax.enable_x64(True):  # the file is as it was
        assert_same(jgmm.load(path.with_stem("fit")), fitted)


def wide(mean=0.0, deviation=1.0):
    """Double precision throughout, with one mean and all deviations as given."""
    return {
        "means": np.array([[mean, 0.0], [0.0, 0.0]]),
        "scale": np.tile(np.eye(2), (2, 1, 1)) * deviation,
        "log_weights": np.log([0.25, 0.75]),
    }


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mean": 1e300}, r"means holds 1e\+300, which is too large"),
        ({"deviation": 1e-60}, "too small"),
    ],
)
def test_numbers_that_float32_does_not_hold_are_refused(tmp_path, change, expected):
    path = foreign(tmp_path, **wide(**change))
    assert_same(jgmm.load(path).means, jnp.asarray(wide(**change)["means"]))
    with jax.enable_x64(False), pytest.raises(UserError, match=f"{expected} for float32"):
        jgmm.load(path)


# Files that are not what they should be


def test_a_file_cut_short_anywhere_is_refused(path):
    jgmm.save(path, a_mixture())
    content = path.read_bytes()
    for size in (0, 1, 7, 8, 40, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"m\.safetensors: not a whole safetensors file"):
            jgmm.load(path)


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
        ({"drop": ("format",)}, "not saved by jgmm"),
        ({"metadata": {"version": 99}}, "version 99 of the format, this jgmm reads 1 and 2"),
        ({"drop": ("scale",)}, "scale missing"),
        ({"drop": ("covariance",)}, "covariance missing"),
        ({"metadata": {"covariance": "fulll"}}, "Did you mean 'full'"),
        ({"metadata": {"covariance": "diag"}}, "scale has shape"),
        ({"means": np.zeros((2, 3))}, "scale has shape"),
        ({"means": np.zeros(2)}, "means has shape"),
        ({"means": np.full((2, 2), np.nan)}, "not finite"),
        ({"means": np.zeros((2, 2), np.float16)}, "type float16"),
        ({"means": np.zeros((2, 2), np.float32)}, "the arrays have types"),
        ({"means": np.zeros((2, 2), int)}, "the arrays have types"),
        ({"log_weights": np.zeros(2)}, "weights that do not sum to one"),
        ({"log_weights": np.full(2, np.nan)}, "weights that do not sum to one"),
        ({"log_weights": np.array([800.0, 0.0])}, "weights that do not sum to one"),
        ({"metadata": {"covariance": ["full"]}}, "covariance is not of type str"),
        ({"metadata": {"columns": ["a"]}}, "names of its columns are not 2 texts"),
        ({"metadata": {"columns": 3}}, "names of its columns are not 2 texts"),
        ({"metadata": {"columns": [1, 2]}}, "names of its columns are not 2 texts"),
        ({"scale": np.zeros((2, 2, 2))}, "not positive"),
        ({"scale": -np.tile(np.eye(2), (2, 1, 1))}, "not positive"),
        ({"scale": np.tile([[1.0, 1.0], [0.0, 1.0]], (2, 1, 1))}, "not positive"),
        ({"scale": np.full((2, 2, 2), np.inf)}, "not finite"),
        ({"more": np.zeros(1)}, r"none of its own: more"),
    ],
)
def test_a_file_that_is_no_mixture_of_ours_is_refused_with_the_reason(tmp_path, change, expected):
    with pytest.raises(UserError, match=expected):
        jgmm.load(foreign(tmp_path, **change))


def edited(path, change):
    """The file with its arrays and description changed in place by a function."""
    arrays, description = container.read(path)
    change(arrays, description)
    container.write(path, arrays, description)
    return path


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda a, d: d.update(kind="pickle"), "it holds 'pickle', none of mixture, fit"),
        (lambda a, d: d.update(structure=None), "structure is no table"),
        (lambda a, d: d.update(version=1), "version 1 of the format"),
        (lambda a, d: a.update(status=np.asarray(77, np.int32)), "status holds numbers out of"),
        (lambda a, d: a.update(collapsed=np.asarray(2, np.int32)), "collapsed holds numbers"),
        (lambda a, d: a.update(log_likelihood=np.zeros(2)), r"log_likelihood has shape \(2,\)"),
        (
            lambda a, d: a.update({"restarts.best": np.asarray(4)}),
            "best holds numbers out of range",
        ),
        (lambda a, d: a.update({"restarts.n_steps": np.zeros(3, int)}), "n_steps has shape"),
        (lambda a, d: a.pop("restarts.best"), "best missing"),
        (lambda a, d: a.pop("history"), "history missing"),
        (lambda a, d: a.update({"noise.log_weight": np.asarray(1.0)}), "log_volume missing"),
        (lambda a, d: a.update({"mixture.means": np.full((2, 2), np.inf)}), "not finite"),
    ],
)
def test_a_damaged_fit_is_refused_with_the_reason(path, x, change, expected):
    jgmm.save(path, FITS["restarts"](x))
    with pytest.raises(UserError, match=rf"m\.safetensors: .*{expected}"):
        jgmm.load(edited(path, change))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.update(best=3), "not in the table"),
        (lambda s: s.update(table=[]), "table is no list of tables"),
        (lambda s: s["table"].pop(), "table and its fits are not of the same models"),
        (lambda s: s["results"].pop(), "table and its fits are not of the same models"),
        (lambda s: s["results"][0].update(n_components=3), "fit 0 has another K"),
        (lambda s: s["table"][0]["criteria"].pop("bic"), "a row without bic"),
        (lambda s: s["table"][0]["criteria"].update(mdl=1.0), "not known here: mdl"),
        (lambda s: s["table"][0].update(status="FINE"), "the status 'FINE'"),
        (lambda s: s.update(agreement="much"), "agreement is no number"),
    ],
)
def test_a_damaged_selection_is_refused_with_the_reason(path, selection, change, expected):
    jgmm.save(path, selection)
    with pytest.raises(UserError, match=f"damaged: .*{expected}"):
        jgmm.load(edited(path, lambda _, description: change(description["structure"])))


def test_what_is_no_file_of_results_is_refused(tmp_path):
    with pytest.raises(UserError, match="a pipe or a device"):
        jgmm.load("/dev/zero")
    with pytest.raises(UserError, match="No such file"):
        jgmm.load(tmp_path / "none.safetensors")


# What cannot be saved


@pytest.mark.parametrize("result", [None, [1.0], {"means": 1}, Status.CONVERGED])
def test_something_else_is_refused(path, result):
    with pytest.raises(DataError, match="what is saved is a Mixture, a FitResult"):
        jgmm.save(path, result)
    assert not path.exists()


def test_a_batch_and_a_traced_result_are_refused(path):
    batch = jax.tree.map(lambda leaf: leaf[None], a_mixture())
    with pytest.raises(DataError, match="batch of mixtures"):
        jgmm.save(path, batch)
    with pytest.raises(DataError, match="save it outside jit"):
        jax.jit(lambda mixture: jgmm.save(path, mixture))(a_mixture())


@pytest.mark.parametrize("columns", [["a"], ["a", "b", "c"], "ab?", []])
def test_the_wrong_names_of_columns_are_refused(path, columns):
    with pytest.raises(DataError, match="columns must be 2 texts"):
        jgmm.save(path, a_mixture(), columns)


def test_a_failed_write_leaves_the_old_file_and_no_other(path, monkeypatch):
    jgmm.save(path, a_mixture())
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"m\.safetensors: No space left on device; free some"):
        jgmm.save(path, a_mixture("diag"))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
