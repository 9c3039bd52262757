"""The conjugate prior: what the M-step makes of it, and that EM climbs log-likelihood and prior."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from marks import in_double

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm.covariance.models import model
from jgmm.fitting import single_run
from jgmm.mixture import prior
from jgmm.mixture.unconstrained import from_free, to_free
from jgmm.selection import nested_starts

N, K, D = 120, 3, 2
SEED = 3
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, N, *oracle.parameters(SEED, k=K, d=D)).astype(dtype)


@pytest.fixture(scope="module")
def belief(x):
    """A prior that is neither weak nor centred."""
    scatter = [[2.0, 0.3], [0.3, 1.0]]
    return prior.conjugate(x, K, mean=[1.0, -1.0], strength=5.0, dof=7.0, scatter=scatter)


@functools.cache
def fitted(name, dtype):
    x = oracle.draw(0, N, *oracle.parameters(SEED, k=K, d=D)).astype(dtype)
    start = jgmm.make_mixture(
        *(a.astype(dtype) for a in oracle.parameters(SEED, k=K, d=D, model=name)), name
    )
    return x, single_run.run_em(start, x, prior="conjugate", tol=1e-12, rtol=0.0, max_steps=300)


def test_m_step_is_the_textbook(x, belief, tolerance):
    resp = np.random.default_rng(1).dirichlet(np.ones(K), size=N)
    found = jgmm.m_step(x, resp.astype(x.dtype), prior=belief)
    counts = resp.sum(axis=0)
    kappa, dof, m, scatter = 5.0, 7.0, np.array([1.0, -1.0]), [[2.0, 0.3], [0.3, 1.0]]
    for k in range(K):
        mean = resp[:, k] @ x / counts[k]
        within = (resp[:, k, None] * (x - mean)).T @ (x - mean)
        between = kappa * counts[k] / (kappa + counts[k]) * np.outer(mean - m, mean - m)
        np.testing.assert_allclose(
            found.means[k], (counts[k] * mean + kappa * m) / (counts[k] + kappa), **tolerance
        )
        np.testing.assert_allclose(
            found.covariances[k],
            (within + between + scatter) / (counts[k] + dof + D + 2),
            **tolerance,
        )


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float64") for name in ("full", "tied", "diag", "spherical", "VEE")),
        ("EVE", "float32"),
    ],
)
def test_em_climbs_log_likelihood_and_log_prior(name, dtype):
    dtype = np.dtype(dtype)
    x, result = fitted(name, dtype)
    history = np.asarray(result.history)[: int(result.n_steps) + 1]
    # Rounding of a sum of N terms of order one; iterated M-steps stop a rounding short.
    slack = 50 * N * np.finfo(dtype).eps
    assert (np.diff(history) >= -slack).all()
    assert history[-1] > history[0]
    ell = np.asarray(jgmm.log_prob(result.mixture, x), np.float64).sum()
    belief = prior.log_density(prior.conjugate(x, K), result.mixture)
    rtol = 1e3 * np.finfo(dtype).eps
    np.testing.assert_allclose(result.log_likelihood, ell, rtol=rtol)
    np.testing.assert_allclose(result.log_prior, belief, rtol=rtol)
    np.testing.assert_allclose(result.objective, history[-1], rtol=rtol)


@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical"])
def test_ends_where_the_gradient_of_both_is_zero(name):
    x, result = fitted(name, np.dtype("float64"))
    assert Status(int(result.status)) is Status.CONVERGED
    belief = prior.conjugate(x, K)

    def both(free):
        mixture = from_free(free, name)
        return jgmm.log_prob(mixture, x).sum() + prior.log_density(belief, mixture)

    gradient = jax.jit(jax.grad(both))(to_free(result.mixture))
    # EM stops 1e-12 nats a sample from where it leads; the gradient is of the order of the root.
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-3


@in_double
def test_conjugate_says_the_same_in_other_units(x, tolerance):
    factor = np.asarray([1e3, 1e-2], x.dtype)
    here, there = prior.conjugate(x, K), prior.conjugate(x * factor + 7, K)
    np.testing.assert_allclose(there.mean, here.mean * factor + 7, **tolerance)
    covariance = np.cov(x.T, bias=True) / K
    for found, units in ((here, np.ones(2)), (there, factor.astype(float))):
        shape = np.asarray(found.root @ found.root.T) / np.outer(units, units)
        np.testing.assert_allclose(shape, covariance, **tolerance)


def test_fit_is_the_same_in_other_units():
    x, _ = fitted("full", np.dtype("float64"))
    factor = np.array([1e3, 1e-2])
    kept = {"init": "points", "n_restarts": 1, "prior": "conjugate"}
    fit = functools.partial(jgmm.fit, KEY, n_components=2, **kept)
    here, there = fit(x), fit(x * factor + 7.0)
    means = np.asarray(here.mixture.means) * factor + 7.0
    np.testing.assert_allclose(there.mixture.means, means, rtol=1e-6)
    np.testing.assert_allclose(
        there.log_likelihood, here.log_likelihood - N * np.log(factor).sum(), rtol=1e-9
    )
    # Of K covariances each with ν + D + 2 = 8 pseudo-samples.
    np.testing.assert_allclose(
        there.log_prior, here.log_prior - 2 * 8 * np.log(factor).sum(), rtol=1e-9
    )


@pytest.mark.parametrize("accelerate", [None, "anderson"])
def test_nothing_collapses(accelerate):
    heap = np.concatenate([np.zeros((6, 2)), np.random.default_rng(0).normal(3, 1, (30, 2))])
    fit = functools.partial(jgmm.fit, KEY, heap, 3, n_restarts=8, accelerate=accelerate)
    result = fit(prior="conjugate")
    assert (np.asarray(result.restarts.status) == Status.CONVERGED).all()
    assert np.isfinite(float(result.log_likelihood))
    assert int(result.restarts.best) == int(np.argmax(result.restarts.log_likelihood))
    with pytest.raises(jgmm.FitError, match="collapsed"):
        fit(init="kmeans")  # whose clusters are the heap, and parts of the rest


def test_simpler_models_are_special_cases_under_the_prior_too():
    x, result = fitted("tied", np.dtype("float64"))
    belief = prior.conjugate(x, K)
    freer = jax.device_put(nested_starts.as_model(result.mixture, model("full")))
    here, there = (prior.log_density(belief, m) for m in (result.mixture, freer))
    np.testing.assert_allclose(here, there, rtol=1e-12)


def test_select_leaves_no_hole_and_no_model_below_its_special_cases():
    x = np.random.default_rng(0).normal(size=(12, 2))
    found = jgmm.select(
        KEY, x, [1, 4], ["EEE", "VVV"], n_restarts=4, init="points", prior="conjugate"
    )
    assert all(row.status == "CONVERGED" for row in found.table)
    for k in (1, 4):
        tied, full = (float(found.results[k, name].objective) for name in ("tied", "full"))
        assert full >= tied - 1e-9 * abs(tied)


@in_double
def test_components_switched_off_do_not_count(belief, x):
    mixture = jgmm.make_mixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [1.0, 2.0], "spherical")
    mixture = jax.tree.map(lambda leaf: leaf.astype(x.dtype), mixture)
    wider = jax.device_put(nested_starts.pad_components(mixture, 4))
    here, there = prior.log_density(belief, mixture), prior.log_density(belief, wider)
    np.testing.assert_allclose(here, there, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"strength": -1.0}, "strength must be finite and at least zero"),
        ({"dof": np.nan}, "dof must be finite"),
        ({"mean": [0.0]}, r"mean must have shape \(2,\)"),
        ({"mean": [0.0, np.nan]}, "NaN"),
        ({"scatter": -np.eye(2)}, "positive definite"),
    ],
)
def test_numbers_out_of_range_are_refused(given, match):
    with pytest.raises(DataError, match=match):
        prior.conjugate([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]], 2, **given)


def test_what_is_no_prior_is_refused(belief, x):
    with pytest.raises(DataError, match="prior must be None"):
        jgmm.fit(jax.random.key(0), x, 2, prior="flat")
    with pytest.raises(DataError, match="for 2 columns; x has 1"):
        jgmm.fit(jax.random.key(0), x[:, :1], 2, prior=belief)


@pytest.mark.parametrize("singular", ["fewer rows than columns", "a column twice", "a sum"])
def test_the_scatter_of_singular_data_is_diagonal(singular, dtype):
    """Its covariance is singular but for rounding errors, which would make the prior."""
    z = np.random.default_rng(1).normal(size=(40, 6)) * [1, 2, 3, 1, 1, 1e-3]
    z = {
        "fewer rows than columns": z[:6],
        "a column twice": np.column_stack([z[:, :5], 4 * z[:, 0]]),
        "a sum": np.column_stack([z[:, :5], z[:, :5].sum(axis=1)]),
    }[singular].astype(dtype)
    found = prior.conjugate(z, K)
    expected = np.diag(z.astype(float).var(axis=0)) * K ** (-2 / 6)
    scatter = np.asarray(found.root @ found.root.T, float)
    np.testing.assert_allclose(scatter, expected, rtol=1e-4)


def test_the_scatter_of_regular_data_is_their_covariance(dtype):
    """Also for one row more than columns, and for correlations of 0.9999."""
    rng = np.random.default_rng(1)
    few, line = rng.normal(size=(7, 6)), rng.normal(size=(50, 1))
    near = np.column_stack([line, line + 0.014 * rng.normal(size=(50, 1))])
    for z in (few.astype(dtype), near.astype(dtype)):
        found = prior.conjugate(z, K)
        expected = np.cov(z.astype(float).T, bias=True) * K ** (-2 / z.shape[1])
        np.testing.assert_allclose(found.root @ found.root.T, expected, rtol=1e-3, atol=1e-3)


def test_a_fit_to_fewer_rows_than_columns_is_the_same_in_both_precisions():
    z = np.random.default_rng(0).normal(size=(12, 20))
    z[:6] += 5
    found = [
        float(jgmm.fit(jax.random.key(3), z.astype(kind), 2, prior="conjugate").log_likelihood)
        for kind in (np.float32, np.float64)
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
