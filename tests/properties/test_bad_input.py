"""Bad input: the message says what is wrong and where, before any work starts."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pandas
import polars
import pytest
from marks import in_double

import jgmm
from jgmm import kmeans
from jgmm._core.arguments import check_key
from jgmm._core.errors import DataError
from jgmm._data.samples import check_counts, make_samples
from jgmm.fitting import single_run

N, D = 30, 3
KEY = jax.random.key(0)
GOOD = oracle.draw(0, N, *oracle.parameters(0, k=2, d=D))


def fit(x, n_components=2, **options):
    return jgmm.fit(KEY, x, n_components, **options)


def changed(row, column, value, dtype=float):
    x = GOOD.astype(dtype)
    x[row, column] = value
    return x


# What is wrong, and the parts of the message that say what and where.
SAMPLES = {
    "nan": (changed(4, 1, np.nan), ["x holds nan in row 4, column 'x1'", "1 row(s)", "Drop"]),
    "inf": (changed(7, 2, np.inf), ["x holds inf in row 7, column 'x2'"]),
    "-inf": (changed(0, 0, -np.inf), ["x holds -inf in row 0, column 'x0'"]),
    "two rows": (changed([3, 5], 1, np.nan), ["row 3", "2 row(s)"]),
    "overflow": (changed(9, 0, 2e307), ["2e+307 in row 9", "rescale the column"]),
    "float32 overflow": (changed(9, 0, 3e37, np.float32), ["row 9", "rescale the column"]),
    "jax nan": (jnp.asarray(changed(4, 1, np.nan)), ["nan in row 4, column 'x1'"]),
    "text": (changed(2, 0, "tall", object), ["x holds 'tall' in row 2, column 'x0'", "encode"]),
    "all text": (np.full((4, 2), "a"), ["'a' in row 0, column 'x0', which is not a number"]),
    "none": (changed(6, 2, None, object), ["x holds nan in row 6, column 'x2'"]),
    "dates": (np.full((4, 2), "2020-01-01", "M8[D]"), ["datetime64[D]", "real numbers"]),
    "complex": (GOOD * 1j, ["complex128", "real numbers"]),
    "jax complex": (jnp.asarray(GOOD * 1j), ["complex128", "real numbers"]),
    "vector": (GOOD[:, 0], ["two-dimensional", "(30,)", "x[:, None]"]),
    "cube": (GOOD[None], ["two-dimensional", "(1, 30, 3)"]),
    "number": (3.0, ["two-dimensional", "()"]),
    "nothing": (None, ["x"]),
    "no rows": (GOOD[:0], ["x is empty", "(0, 3)"]),
    "no columns": (GOOD[:, :0], ["x is empty", "(30, 0)"]),
    "empty list": ([], ["two-dimensional", "(0,)"]),
    "ragged": ([[1.0, 2.0], [3.0]], ["x is not rectangular"]),
    "pandas": (pandas.DataFrame(changed(4, 1, np.nan), columns=["a", "b", "c"]), ["column 'b'"]),
    "pandas text": (
        pandas.DataFrame({"height": [1.0, 2.0], "name": ["Ada", "Bo"]}),
        ["'Ada' in row 0, column 'name'"],
    ),
    "polars": (polars.DataFrame({"a": [1.0, None], "b": [2.0, 3.0]}), ["row 1, column 'a'"]),
}


@pytest.mark.parametrize("case", list(SAMPLES))
@pytest.mark.parametrize(
    "ask",
    [fit, lambda x: kmeans.fit(KEY, x, 2), lambda x: jgmm.m_step(x, np.ones((N, 1)))],
    ids=["fit", "kmeans", "m_step"],
)
def test_samples(case, ask):
    x, parts = SAMPLES[case]
    with pytest.raises(DataError) as raised:
        ask(x)
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize("case", list(SAMPLES))
def test_samples_asked_about(case):
    mixture = jgmm.make_mixture([1.0], np.zeros((1, D)), np.ones(1), "spherical")
    x, parts = SAMPLES[case]
    for ask in (jgmm.log_prob, jgmm.predict, jgmm.em_step, single_run.run_em, jgmm.accumulate):
        with pytest.raises(DataError) as raised:
            ask(mixture, x)
        if "float32" not in case:  # the mixture's precision, not the samples', counts here
            assert parts[0] in str(raised.value)


ONES = np.ones(N)
WEIGHTS = {
    "negative": (np.where(np.arange(N) == 3, -1.0, 1.0), ["-1.0 in row 3", "at least zero"]),
    "nan": (np.where(np.arange(N) == 5, np.nan, 1.0), ["nan in row 5", "finite"]),
    "inf": (np.where(np.arange(N) == 6, np.inf, 1.0), ["inf in row 6"]),
    "all zero": (0 * ONES, ["zero for every sample"]),
    "short": (ONES[:-1], ["shape (30,)", "(29,)"]),
    "column": (ONES[:, None], ["shape (30,)", "(30, 1)"]),
    "number": (1.0, ["shape (30,)", "()"]),
    "text": (["heavy"] * N, ["sample_weight holds 'heavy' in row 0", "not a number"]),
    "ragged": ([[1.0], [1.0, 2.0]], ["sample_weight is not rectangular"]),
    "complex": (ONES * 1j, ["sample_weight holds complex128"]),
    "too few": (np.arange(N) < 1, ["2 components", "there are 1 (of positive weight)"]),
}


@pytest.mark.parametrize("case", list(WEIGHTS))
@pytest.mark.parametrize("ask", [fit, lambda x, **w: kmeans.fit(KEY, x, 2, **w)], ids=["fit", "k"])
def test_weights(case, ask):
    weight, parts = WEIGHTS[case]
    with pytest.raises(DataError) as raised:
        ask(GOOD, sample_weight=weight)
    for part in parts:
        assert part in str(raised.value)


ARGUMENTS = {
    "no components": ({"n_components": 0}, ["n_components", "at least 1", "0"]),
    "fewer than none": ({"n_components": -2}, ["n_components", "-2"]),
    "a truth": ({"n_components": True}, ["n_components", "True"]),
    "more than samples": ({"n_components": N + 1}, ["31 components", "there are 30"]),
    "no restarts": ({"n_restarts": 0}, ["n_restarts", "at least 1"]),
    "fewer steps than none": ({"max_steps": -1}, ["max_steps", "-1"]),
    "init": ({"init": "kmean"}, ["unknown init 'kmean'", "kmeans++"]),
    "tol": ({"tol": -1.0}, ["tol must be at least zero", "-1.0"]),
    "tol nan": ({"tol": float("nan")}, ["tol", "nan"]),
    "rtol": ({"rtol": -1.0}, ["rtol must be at least zero"]),
    "ridge": ({"ridge": -1.0}, ["ridge must be at least zero"]),
}


@pytest.mark.parametrize("case", list(ARGUMENTS))
def test_arguments(case):
    options, parts = ARGUMENTS[case]
    with pytest.raises(DataError) as raised:
        fit(GOOD, **options)
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize("count", [2.5, "2", None])
def test_counts_of_another_type(count):
    """The types that the tests add would refuse them first, and users do not have those."""
    check = inspect.unwrap(check_counts)
    samples = make_samples(GOOD)
    with pytest.raises(DataError, match=f"n_components must be a whole number.*{count!r}"):
        check(samples, count, 1)
    with pytest.raises(DataError, match=f"n_restarts must be a whole number.*{count!r}"):
        check(samples, 1, count)


def test_counts_may_come_from_numpy():
    samples = make_samples(GOOD)
    inspect.unwrap(check_counts)(samples, np.int64(2), np.uint8(3))


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("ful", "full"), ("Diagonal", "diag"), ("sphere", "spherical")]
)
def test_an_unknown_model(wrong, nearest):
    for ask in (
        lambda: fit(GOOD, covariance=wrong),
        lambda: jgmm.m_step(GOOD, np.ones((N, 1)), wrong),
        lambda: jgmm.make_mixture([1.0], [[0.0]], [1.0], wrong),
    ):
        with pytest.raises(ValueError, match=f"{wrong!r}.*Did you mean {nearest!r}.*Known"):
            ask()


@pytest.mark.parametrize("key", [0, None, "seed"])
def test_a_key_must_be_made(key):
    with pytest.raises(TypeError, match=r"jax\.random\.key\(0\)"):
        check_key(key)


@in_double
def test_a_missing_row_is_no_bad_input(dtype):
    x, weight = GOOD.astype(dtype), np.ones(N, dtype)
    x[0], weight[0] = np.nan, 0
    found = fit(x, 1, sample_weight=weight)
    np.testing.assert_allclose(found.mixture.means[0], x[1:].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_nothing_is_said_inside_jit():
    """Values cannot be seen there: the status says it."""
    status = jax.jit(lambda x: fit(x).status)(SAMPLES["nan"][0])
    assert jgmm.fitting.describe(status).startswith("The data hold NaN")
