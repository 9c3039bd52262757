"""A floor of the variances: the best covariances above it; a fit that ends on it is degenerate."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from scipy import optimize

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm.covariance.models import MODELS, model
from jgmm.fitting import single_run

N, K, D = 80, 3, 2
KEY = jax.random.key(0)
BEARING = [entry.name for entry in MODELS.values() if entry.supports_floor]


def test_these_models_bear_one():
    assert sorted(model(name).code for name in BEARING) == [
        "EEE",
        "EEI",
        "EII",
        "VII",
        "VVI",
        "VVV",
    ]


@pytest.mark.parametrize("name", BEARING)
def test_estimate_is_the_best_above_the_floor(name):
    """Against a general optimiser, for scatter that is in part below and in part above."""
    rng = np.random.default_rng(1)
    entry, storage = model(name), model(name).storage
    counts = jnp.asarray([20.0, 30.0])
    draws = rng.normal(size=(2, 5, D)) * np.array([[[0.05, 3.0]], [[2.0, 0.3]]])
    dense = jnp.asarray(np.einsum("knd,kne->kde", draws, draws)) * 5
    least = jnp.asarray([[0.8, 0.3], [0.3, 0.6]])
    if storage.ndim < 3:
        least = jnp.eye(D) * 0.7
    scatter, bound = entry.pool(storage.from_dense(dense)), storage.from_dense(least[None])
    found = entry.estimate_above(counts, scatter, bound)
    assert bool(storage.exceeds(storage.covariance(found), (1 - 1e-9) * bound).all())

    def value(scale):
        log_det = 2 * storage.half_log_det(scale, D)
        spread = storage.trace_ratio(scale, storage.from_dense(dense), D)
        return (counts * log_det).sum() + spread.sum()

    def lifted(free):
        """Any covariance above the floor: the floor and a square."""
        parts = jnp.asarray(free).reshape(found.shape)
        extra = storage.covariance(jnp.tril(parts) if storage.ndim == 3 else parts)
        return storage.root(bound + extra)

    both = jax.jit(jax.value_and_grad(lambda free: value(lifted(free))))
    best = optimize.minimize(both, np.ones(found.size), jac=True, method="BFGS", tol=1e-10)
    np.testing.assert_allclose(value(found), best.fun, rtol=1e-7)


def heap():
    """Ten copies of one sample, and a cloud."""
    cloud = oracle.draw(0, N, *oracle.parameters(3, k=2, d=D))
    return np.concatenate([np.full((10, D), 9.0), cloud])


@pytest.mark.parametrize(
    ("name", "accelerate"), [("full", None), ("diag", "anderson"), ("spherical", None)]
)
def test_what_would_collapse_rests_on_the_floor_and_says_so(name, accelerate):
    x, floor = heap(), 1e-3
    result = jgmm.fit(
        jax.random.key(0),
        x,
        K,
        covariance=name,
        n_restarts=8,
        init="points",
        floor=floor,
        accelerate=accelerate,
    )
    best = int(result.restarts.best)
    statuses = np.asarray(result.restarts.status)
    assert (statuses == Status.DEGENERATE).any()
    assert set(statuses.tolist()) <= {Status.DEGENERATE, Status.CONVERGED}
    # What rests on the floor wins only where nothing else ended.
    assert (statuses[best] == Status.CONVERGED) == (statuses == Status.CONVERGED).any()
    unit = np.var(x, axis=0) if name != "spherical" else np.var(x, axis=0).mean()
    smallest = (np.asarray(result.mixture.variances) / unit).min()
    assert smallest > floor * (1 - 1e-6)


def test_log_likelihood_never_falls():
    x = heap()
    start = jgmm.fit(KEY, x, K, ridge=1e-2, n_restarts=2, init="points").mixture
    result = single_run.run_em(start, x, floor=1e-2)
    history = np.asarray(result.history)[: int(result.n_steps) + 1]
    # The start has a ridge, and need not be as good as what obeys the floor; from then on.
    assert (np.diff(history[1:]) >= -1e-8).all()
    assert Status(int(result.status)) is Status.DEGENERATE
    assert "floor" in jgmm.fitting.describe(result.status)


def test_a_floor_far_below_changes_nothing():
    x = oracle.draw(0, N, *oracle.parameters(3, k=2, d=D))
    with_, without = (
        jgmm.fit(KEY, x, 2, n_restarts=2, init="points", floor=floor) for floor in (1e-9, None)
    )
    np.testing.assert_allclose(with_.mixture.scale, without.mixture.scale, rtol=1e-9, atol=1e-9)
    assert Status(int(with_.status)) is Status.CONVERGED


def test_models_that_share_in_part_take_none():
    with pytest.raises(DataError, match="VEI takes no floor"):
        jgmm.fit(KEY, heap(), 2, covariance="VEI", floor=1e-3)


@pytest.mark.parametrize("floor", [0.0, -1.0, 2.0])
def test_what_is_no_fraction_is_refused(floor):
    with pytest.raises(DataError, match="fraction of the data's variance"):
        jgmm.fit(KEY, heap(), 2, floor=floor)
