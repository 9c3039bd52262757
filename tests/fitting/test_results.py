"""Results of a fit: the choice among restarts, and the error raised where all have failed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from marks import in_double

import jgmm
from jgmm._core.errors import FitError
from jgmm._core.status import USABLE, Status, describe
from jgmm.fitting import results
from jgmm.fitting.results import Restarts, choose, raise_if_failed


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, 80, *oracle.parameters(0, k=2, d=2)).astype(dtype)


@pytest.fixture(scope="module")
def result(x):
    start = jgmm.make_mixture([0.5, 0.5], x[:2], np.eye(2, dtype=x.dtype), "tied")
    return jgmm.fitting.run_em(start, x, max_steps=200)


def with_status(result, status, collapsed=-1):
    codes = {"status": jnp.asarray(int(status)), "collapsed": jnp.asarray(collapsed)}
    return dataclasses.replace(result, restarts=None, **codes)


@pytest.mark.parametrize("status", USABLE)
def test_check_passes_usable_results_on(result, status):
    valid = with_status(result, status)
    assert raise_if_failed(valid) is valid


@pytest.mark.parametrize("status", [s for s in Status if not s.is_usable])
def test_check_raises_for_the_rest(result, status):
    with pytest.raises(FitError) as raised:
        raise_if_failed(with_status(result, status))
    assert describe(status) in str(raised.value)


def test_a_collapse_names_the_component(result):
    with pytest.raises(FitError, match="Component 1 collapsed"):
        raise_if_failed(with_status(result, Status.COLLAPSED, collapsed=1))


def test_check_raises_nothing_in_a_batch_or_inside_jit(result):
    bad = with_status(result, Status.COLLAPSED)
    batch = jax.tree.map(lambda leaf: leaf[None], bad)
    assert raise_if_failed(batch) is batch
    assert int(jax.jit(lambda r: raise_if_failed(r).status)(bad)) == Status.COLLAPSED


@in_double
def test_the_message_counts_the_outcomes(dtype):
    """Three distinct samples, twice each: of three full components all collapse onto one."""
    x = np.repeat(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], dtype), 2, axis=0)
    with pytest.raises(FitError, match="Outcomes of the restarts: 3 collapsed"):
        jgmm.fit(jax.random.key(0), x, 3, n_restarts=3, init="points")


def test_best_is_the_first_of_the_highest_among_the_valid():
    converged, collapsed = int(Status.CONVERGED), int(Status.COLLAPSED)
    outcomes = results.Restarts(
        jnp.asarray([5.0, 3.0, 3.0, jnp.nan]),
        jnp.asarray([collapsed, converged, converged, converged]),
        jnp.zeros(4, int),
        jnp.zeros(4, int),
        jnp.asarray(0),
    )
    assert results.choose(outcomes) == 1
    none = results.Restarts(
        outcomes.log_likelihood, jnp.full(4, collapsed), *[jnp.zeros(4, int)] * 3
    )
    assert results.choose(none) == 0


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([(1.0, Status.CONVERGED), (3.0, Status.CONVERGED), (2.0, Status.CONVERGED)], 1),
        ([(1.0, Status.CONVERGED), (9.0, Status.COLLAPSED), (0.0, Status.CONVERGED)], 0),
        ([(-5.0, Status.STEPS_RAN_OUT), (np.inf, Status.COLLAPSED)], 0),
        ([(np.nan, Status.NON_FINITE_PARAMETERS), (-7.0, Status.CONVERGED)], 1),
        ([(np.nan, Status.CONVERGED), (-7.0, Status.STEPS_RAN_OUT)], 1),
        ([(np.inf, Status.CONVERGED), (-7.0, Status.STEPS_RAN_OUT)], 1),
        ([(2.0, Status.CONVERGED), (2.0, Status.CONVERGED)], 0),
        ([(1.0, Status.COLLAPSED), (2.0, Status.NON_FINITE_PARAMETERS)], 0),
    ],
)
def test_choose(states, expected):
    likelihoods, statuses = zip(*states, strict=True)
    blank = jnp.zeros(len(states), int)
    status = jnp.asarray([int(status) for status in statuses])
    table = Restarts(jnp.asarray(likelihoods), status, blank, blank, jnp.asarray(0))
    assert int(choose(table)) == expected


def far_away():
    """Two clusters at 3e6, where float32 has a step of a quarter."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (60, 1)), rng.normal(4, 1, (60, 1))])
    return (rng.permutation(x) + 3e6).astype(np.float32)


def own_value(result, x):
    """Σ log p(x) of the parameters returned, in float64; with the noise, if there is any."""
    mixture = result.mixture
    weights, means, variances = (
        np.asarray(a, float).ravel() for a in (mixture.weights, mixture.means, mixture.variances)
    )
    away = x.astype(float) - means
    density = (weights / np.sqrt(2 * np.pi * variances) * np.exp(-0.5 * away**2 / variances)).sum(1)
    if result.noise is not None:
        noise = float(result.noise.weight)
        density = noise / np.exp(float(result.noise.log_volume)) + (1 - noise) * density
    return np.log(density).sum()


FAR = {
    "fit": lambda x, **options: jgmm.fit(KEY, x, 2, **options),
    "noise": lambda x: jgmm.fit(KEY, x, 2, noise="box"),
    "run_em": lambda x: jgmm.fitting.run_em(
        jgmm.make_mixture([0.5, 0.5], [[3e6], [3e6 + 4]], [[[1.0]], [[1.0]]]), x
    ),
    "stream": lambda x: jgmm.streaming.fit(KEY, x, 2, n_restarts=2, block_rows=50),
    "mesh": lambda x: jgmm.distributed.fit(KEY, x, 2, mesh=jgmm.distributed.make_mesh(1)),
    "gradient": lambda x: jgmm.gradient.fit(KEY, x, 2, optimizer=jgmm.gradient.NaturalGradient()),
}
KEY = jax.random.key(0)


@pytest.mark.parametrize("way", list(FAR))
def test_the_log_likelihood_is_that_of_the_rounded_parameters(way):
    x = far_away()
    found = FAR[way](x)
    np.testing.assert_allclose(found.log_likelihood, own_value(found, x), rtol=1e-5)


def test_rounding_that_does_not_matter_costs_nothing(monkeypatch, x):
    def never(*_):
        raise AssertionError("evaluated again")

    monkeypatch.setattr(results, "log_likelihood", never)
    for offset in (0, 1000):
        jgmm.fit(KEY, x + x.dtype.type(offset), 2, covariance="tied", max_steps=3)
    with pytest.raises(AssertionError, match="again"):
        jgmm.fit(KEY, far_away(), 2, max_steps=3)
