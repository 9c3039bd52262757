"""Information criteria against the textbook, scikit-learn and their definitions."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from sklearn.mixture import GaussianMixture

import jgmm
from jgmm import selection
from jgmm._data.samples import Samples, identity
from jgmm.selection.criteria import criteria, evidence, icl, icl_map

N = 40
WEIGHTS = np.array([0.0, 1.0, 2.0, 1.0, 0.5] * (N // 5))


def problem(dtype, model="full"):
    parameters = oracle.parameters(seed=3, model=model)
    x = oracle.draw(4, N, *parameters).astype(dtype)
    mixture = jgmm.make_mixture(*(jnp.asarray(p, dtype) for p in parameters), model)
    return parameters, mixture, x


def textbook(parameters, x, sample_weight, n_parameters):
    """Log-likelihood, entropy, and AIC, AICc, BIC and ICL."""
    log_prob, resp = oracle.e_step(x.astype(float), *parameters)
    n, p = sample_weight.sum(), n_parameters
    ell = sample_weight @ log_prob
    entropy = -sum(
        w * sum(r * math.log(r) for r in row if r > 0)
        for w, row in zip(sample_weight, resp, strict=True)
    )
    aic, bic = -2 * ell + 2 * p, -2 * ell + p * math.log(n)
    aicc = aic + 2 * p * (p + 1) / (n - p - 1)
    return entropy, aic, aicc, bic, bic + 2 * entropy


@pytest.mark.parametrize(("model", "p"), [("full", 2 + 9 + 18), ("EEI", 2 + 9 + 3)])
def test_matches_the_textbook(model, p, dtype, tolerance):
    parameters, mixture, x = problem(dtype, model)
    functions = (selection.entropy, selection.aic, selection.aicc, selection.bic, icl)
    found = [f(mixture, x, WEIGHTS) for f in functions]
    assert all(value.dtype == dtype and value.shape == () for value in found)
    np.testing.assert_allclose(found, textbook(parameters, x, WEIGHTS, p), **tolerance)


@pytest.mark.parametrize("model", ["full", "tied", "diag", "spherical"])
def test_matches_scikit_learn(model):
    _, mixture, x = problem(np.float64, model)
    theirs = GaussianMixture(3, covariance_type=model)
    theirs.weights_, theirs.means_ = np.asarray(mixture.weights), np.asarray(mixture.means)
    inverse = np.linalg.inv(mixture.cholesky)
    theirs.precisions_cholesky_ = {
        "full": inverse.transpose(0, 2, 1),
        "tied": inverse[0].T,
        "diag": np.diagonal(inverse, axis1=1, axis2=2),
        "spherical": inverse[:, 0, 0],
    }[model]
    # The same formula in the same precision: rounding only.
    np.testing.assert_allclose(selection.bic(mixture, x), theirs.bic(x), rtol=1e-12)
    np.testing.assert_allclose(selection.aic(mixture, x), theirs.aic(x), rtol=1e-12)


def test_weight_zero_is_a_missing_row_and_two_is_a_row_twice(dtype, tolerance):
    _, mixture, x = problem(dtype)
    repeated = np.concatenate([x[1:], x[5:6]])
    weights = np.ones(N)
    weights[0], weights[5] = 0, 2
    damaged = x.copy()
    damaged[0] = np.nan
    np.testing.assert_allclose(icl(mixture, damaged, weights), icl(mixture, repeated), **tolerance)


def test_entropy_at_its_bounds(dtype, tolerance):
    x = np.linspace(-1, 1, N, dtype=dtype)[:, None]
    means, unit = jnp.zeros((4, 1), dtype), jnp.ones(4, dtype)
    same = jgmm.make_mixture(np.full(4, 0.25), means, unit, "spherical")
    np.testing.assert_allclose(selection.entropy(same, x), N * math.log(4), **tolerance)
    off = jgmm.make_mixture([1.0, 0, 0, 0], means, unit, "spherical")
    assert selection.entropy(off, x) == 0
    assert icl(off, x) == selection.bic(off, x)


def test_hard_labels_match_the_textbook(dtype, tolerance):
    """The completed likelihood with every sample given to its most probable component."""
    parameters, mixture, x = problem(dtype)
    log_prob, resp = oracle.e_step(x.astype(float), *parameters)
    complete = WEIGHTS @ (log_prob + np.log(resp.max(axis=1)))
    expected = -2 * complete + 29 * math.log(WEIGHTS.sum())
    found = icl_map(mixture, x, WEIGHTS)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, **tolerance)
    assert selection.bic(mixture, x, WEIGHTS) < found < icl(mixture, x, WEIGHTS)


def test_corrected_aic_is_infinite_where_it_says_nothing():
    """N - p - 1 is 1 for the first and 0 for the second."""
    found = [criteria(-1.0, 0.0, n, 3) for n in (5.0, 4.0)]
    assert [float(values["aicc"]) for values in found] == [8 + 24, math.inf]
    assert [float(values["aic"]) for values in found] == [8, 8]


def test_block_by_block(dtype, tolerance, monkeypatch):
    """Blocks that do not divide N; one row less than elsewhere, so that it is traced anew."""
    parameters, mixture, x = problem(dtype)
    module = importlib.import_module("jgmm.selection.criteria")  # by that name a function, too
    monkeypatch.setattr(module, "block_rows", lambda samples, row_bytes: 7)
    found = icl(mixture, x[1:], WEIGHTS[1:])
    np.testing.assert_allclose(found, textbook(parameters, x[1:], WEIGHTS[1:], 29)[4], **tolerance)


def test_memory_does_not_grow_with_the_samples():
    n, (_, mixture, _) = 1_000_000, problem(np.float32)
    x = jax.ShapeDtypeStruct((n, 3), np.float32)
    samples = Samples(x, None, identity(3, np.float32))
    used = jax.jit(evidence).lower(mixture, samples).compile().memory_analysis()
    assert used.temp_size_in_bytes < 4 * n * mixture.n_components


def test_under_vmap_and_jit(dtype, tolerance):
    _, mixture, x = problem(dtype)
    moved = jgmm.mixture.change_coordinates(mixture, jnp.full(3, 0.5, dtype), jnp.ones(3, dtype))
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), mixture, moved)
    found = jax.jit(jax.vmap(icl, in_axes=(0, None)))(both, jnp.asarray(x))
    np.testing.assert_allclose(found, [icl(mixture, x), icl(moved, x)], **tolerance)


def test_refuses_other_columns():
    _, mixture, x = problem(np.float64)
    with pytest.raises(jgmm.DataError, match="x has 2 columns; the mixture was made for 3"):
        selection.bic(mixture, x[:, :2])


LABELS = {
    "all": np.arange(N) % 3,
    "half": np.where(np.arange(N) % 2, np.arange(N) % 3, -1),
    "none": np.full(N, -1),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_known_component_has_no_entropy(labels, dtype, tolerance):
    """The textbook's joint densities, with the known component as the only one."""
    (weights, means, covariances), mixture, x = problem(dtype)
    each = zip(means, covariances, strict=True)
    joint = np.array([[oracle.log_gaussian(row, *one) for row in x.astype(float)] for one in each])
    joint = joint.T + np.log(weights)
    joint[(labels >= 0)[:, None] & (labels[:, None] != np.arange(3))] = -np.inf
    log_prob = np.logaddexp.reduce(joint, axis=1)
    resp = np.exp(joint - log_prob[:, None])
    ell, n, p = WEIGHTS @ log_prob, WEIGHTS.sum(), 29
    entropy = -WEIGHTS @ (resp * np.log(np.where(resp > 0, resp, 1))).sum(axis=1)
    bic = -2 * ell + p * math.log(n)
    hard = bic - 2 * WEIGHTS @ np.log(resp.max(axis=1))
    functions = (selection.entropy, selection.bic, icl, icl_map)
    found = [f(mixture, x, WEIGHTS, labels) for f in functions]
    np.testing.assert_allclose(found, [entropy, bic, bic + 2 * entropy, hard], **tolerance)
    if (labels >= 0).all():
        assert found[0] == 0


def test_refuses_a_label_that_is_no_component():
    _, mixture, x = problem(np.float64)
    with pytest.raises(jgmm.DataError, match="labels hold 3; with 3 components they go from 0 to"):
        icl(mixture, x, labels=np.full(N, 3))


@pytest.mark.parametrize("criterion", ["entropy", "icl", "icl_map", "bic"])
def test_gradients_pass_by_a_component_of_weight_zero(criterion):
    x = jnp.asarray([[0.3], [4.0]])
    ask = getattr(jgmm.selection, criterion)
    three = jgmm.make_mixture([0.0, 0.4, 0.6], [[0.0], [1.0], [5.0]], np.ones(3), "spherical")
    two = jgmm.make_mixture([0.4, 0.6], [[1.0], [5.0]], np.ones(2), "spherical")
    found, expected = (
        jax.grad(lambda mixture: ask(mixture, x))(each).means for each in (three, two)
    )
    np.testing.assert_allclose(found[1:], expected, rtol=1e-12)
    np.testing.assert_array_equal(found[0], 0)
