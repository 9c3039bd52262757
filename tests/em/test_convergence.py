"""How a run of EM ends: convergence, steps that ran out, collapse, numbers that are not finite."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from em_cases import LONG, STEPS, N, run_all
from marks import in_double

import jgmm
from jgmm._core.status import Status
from jgmm.em import convergence
from jgmm.fitting import single_run
from jgmm.mixture.mixture import Mixture


def test_the_gradient_vanishes_where_it_converges(full, x, dtype):
    """First-order optimality, in free coordinates.

    A step that gains little has a gradient of the order of the root of the gain.
    """
    tol = {4: 1e-6, 8: 1e-15}[dtype.itemsize]
    result = single_run.run_em(full, x, tol=tol, rtol=0.0, max_steps=LONG)
    free = jgmm.mixture.unconstrained.to_free(result.mixture)

    @jax.jit
    def steepest(free):
        def mean_log_likelihood(free):
            return jgmm.log_prob(jgmm.mixture.unconstrained.from_free(free, "full"), x).mean()

        gradient = jax.grad(mean_log_likelihood)(free)
        return jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient)]).max()

    assert float(steepest(free)) < 10 * np.sqrt(tol)
    assert float(steepest(jgmm.mixture.unconstrained.to_free(full))) > 0.1


def test_a_fixed_point_stays(converged, x, dtype):
    again = single_run.run_em(converged.mixture, x, max_steps=LONG)
    assert int(again.n_steps) <= 1
    assert Status(int(again.status)) is Status.CONVERGED
    slack = 50 * np.finfo(dtype).eps * abs(float(converged.log_likelihood))
    assert float(again.log_likelihood) >= float(converged.log_likelihood) - slack


# How it ends.


def test_steps_ran_out(full, x, ones, dtype):
    ended = run_all(full, x, ones)
    if dtype == np.float64:  # in float32 the likelihood stops changing before
        assert Status(int(ended.status)) is Status.STEPS_RAN_OUT
        assert int(ended.n_steps) == STEPS
    assert ended.history.shape == (STEPS + 1,)
    assert np.isfinite(ended.history[: int(ended.n_steps) + 1]).all()


@in_double
def test_no_steps_evaluate_the_mixture(full, x, tolerance):
    ended = single_run.run_em(full, x, max_steps=0)
    assert Status(int(ended.status)) is Status.STEPS_RAN_OUT
    assert int(ended.n_steps) == 0
    chex.assert_trees_all_close(ended.mixture, full, **tolerance)
    np.testing.assert_allclose(ended.log_likelihood, jgmm.log_prob(full, x).sum(), **tolerance)


def test_a_larger_tolerance_stops_sooner(full, x):
    steps = [
        int(single_run.run_em(full, x, tol=tol, max_steps=LONG).n_steps)
        for tol in (1e-1, 1e-3, 1e-5)
    ]
    assert steps == sorted(steps)
    assert steps[0] < steps[-1]


def test_converged_means_the_last_step_gained_less_than_the_tolerance(full, x):
    tol = 1e-3
    ended = single_run.run_em(full, x, tol=tol, rtol=0.0, max_steps=LONG)
    gains = np.diff(np.asarray(ended.history)[: int(ended.n_steps) + 1]) / N
    assert gains[-1] <= tol
    assert (gains[:-1] > tol).all()


def near_one_sample(start, x):
    """The first component on one sample, nearly as narrow as that allows."""
    means = start.means.at[0].set(x[0])
    return Mixture(start.log_weights, means, start.scale.at[0].multiply(1e-3), start.covariance)


@pytest.mark.parametrize("name", ["full", "diag", "spherical"], scope="module", indirect=True)
def test_a_component_on_one_sample_collapses(start, x, ones):
    """Its likelihood has no bound; the fit says which component, and keeps finite numbers."""
    ended = run_all(near_one_sample(start, x), x, ones)
    assert Status(int(ended.status)) is Status.COLLAPSED
    assert int(ended.collapsed) == 0
    chex.assert_tree_all_finite((ended.mixture, ended.log_likelihood))


def test_a_ridge_stops_the_collapse_at_a_spike(full, x):
    given, ridge = near_one_sample(full, x), 1e-3
    assert Status(int(single_run.run_em(given, x, max_steps=LONG).status)) is Status.COLLAPSED
    ended = single_run.run_em(given, x, ridge=ridge, max_steps=LONG)
    assert Status(int(ended.status)) is Status.DEGENERATE
    assert (np.asarray(ended.mixture.variances) > 0.99 * ridge * x.var(axis=0)).all()


def test_a_component_that_loses_its_samples_collapses(full, x):
    """So far away that no sample is its own."""
    given = Mixture(full.log_weights, full.means.at[1].add(1e3), full.scale, "full")
    ended = single_run.run_em(given, x, max_steps=LONG)
    assert Status(int(ended.status)) is Status.COLLAPSED
    assert int(ended.collapsed) == 1


def test_a_component_switched_off_stays_off(full, x):
    off = Mixture(
        jax.nn.log_softmax(jnp.asarray([0, -np.inf, 0], x.dtype)), full.means, full.scale, "full"
    )
    ended = single_run.run_em(off, x, max_steps=LONG)
    assert Status(int(ended.status)) is Status.CONVERGED
    assert float(ended.mixture.weights[1]) == 0


@pytest.mark.parametrize("slope", [1.0, -3.0, 0.1, 1e3])
def test_columns_that_determine_each_other_collapse(slope, full, x, dtype):
    """Even where rounding leaves a covariance that can be factorised."""
    line = x.copy()
    line[:, 2] = np.asarray(slope, dtype) * x[:, 0] + 1
    ended = single_run.run_em(full, line, max_steps=LONG)
    assert Status(int(ended.status)) is Status.COLLAPSED


@pytest.mark.parametrize("name", ["full", "tied"])
def test_columns_that_nearly_determine_each_other_are_no_trouble_in_float32(name):
    """Correlations of 0.9999995, which used to be called a collapse."""
    rng = np.random.default_rng(0)
    line = rng.normal(size=(400, 2)) + np.where(rng.random((400, 1)) < 0.5, 4.0, 0.0)
    line = np.column_stack([line, line[:, 0] + 1e-3 * rng.normal(size=400)]).astype(np.float32)
    start = np.repeat([0, 1], 200)[np.argsort(np.argsort(line[:, 1]))]
    fits = [
        jgmm.fit(jax.random.key(0), line.astype(dtype), 2, covariance=name, init=start)
        for dtype in (np.float32, np.float64)
    ]
    assert Status(int(fits[0].status)) is Status.CONVERGED
    # By their factors: a covariance in float32 does not hold its narrowest direction.
    single, double = (np.asarray(each.mixture.cholesky, np.float64) for each in fits)
    for found, expected in zip(single, double, strict=True):
        inner = np.linalg.svd(np.linalg.solve(expected, found))[1]
        np.testing.assert_allclose(inner, 1, atol=1e-2)
    np.testing.assert_allclose(fits[0].log_likelihood, fits[1].log_likelihood, rtol=1e-4)


def test_a_start_that_is_singular_is_a_collapse(full, x):
    broken = Mixture(full.log_weights, full.means, full.scale.at[2, 1, 1].set(jnp.nan), "full")
    ended = single_run.run_em(broken, x, max_steps=LONG)
    assert Status(int(ended.status)) is Status.COLLAPSED
    assert int(ended.collapsed) == 2
    assert int(ended.n_steps) == 0


def test_a_start_that_is_not_finite_says_so(full, x):
    """Also where no steps are left, which by itself is a good end."""
    broken = Mixture(full.log_weights, full.means.at[0, 0].set(jnp.nan), full.scale, "full")
    for max_steps in (LONG, 0):
        ended = single_run.run_em(broken, x, max_steps=max_steps)
        assert Status(int(ended.status)) is Status.NON_FINITE_PARAMETERS


@in_double
def test_inside_jit_bad_data_are_a_status(full, x):
    fit = jax.jit(lambda x: single_run.run_em(full, x, max_steps=LONG).status)
    assert Status(int(fit(x))) is Status.CONVERGED
    for bad in (np.nan, np.inf, -np.inf):
        spoiled = x.copy()
        spoiled[7, 1] = bad
        assert Status(int(fit(spoiled))) is Status.NON_FINITE_DATA


# The rules, in order.

EM = {"small_gain": False, "broken": [False, False], "finite": True, "out_of_steps": False}
BROKEN = {"broken": [False, True]}


@pytest.mark.parametrize(
    ("log_likelihood", "change", "expected"),
    [
        (-1.0, {}, Status.RUNNING),
        (-1.0, {"small_gain": True, "out_of_steps": True, **BROKEN}, Status.CONVERGED),
        (-1.0, {"out_of_steps": True, **BROKEN}, Status.STEPS_RAN_OUT),
        (-1.0, {"finite": False, **BROKEN}, Status.COLLAPSED),
        (-1.0, {"finite": False}, Status.NON_FINITE_PARAMETERS),
        (np.nan, {"small_gain": True}, Status.NON_FINITE_PARAMETERS),
        (-np.inf, {"small_gain": True, **BROKEN}, Status.COLLAPSED),
    ],
)
def test_the_first_rule_of_em_that_holds_decides(log_likelihood, change, expected):
    arguments = {key: jnp.asarray(value) for key, value in (EM | change).items()}
    found = convergence.em_status(jnp.asarray(log_likelihood), **arguments)
    assert Status(int(found)) is expected


@pytest.mark.parametrize(
    ("rule", "conditions", "expected"),
    [
        (convergence.gradient_status, (False, [True], True, True), Status.NON_FINITE_PARAMETERS),
        (convergence.gradient_status, (True, [True], True, True), Status.COLLAPSED),
        (convergence.gradient_status, (True, [False], True, True), Status.CONVERGED),
        (convergence.gradient_status, (True, [False], False, True), Status.STEPS_RAN_OUT),
        (convergence.kmeans_status, ([True], [False], [True]), Status.CONVERGED),
        (convergence.kmeans_status, ([True], [True], [True]), Status.STEPS_RAN_OUT),
        (convergence.kmeans_status, ([True], [True], [False]), Status.RUNNING),
        (convergence.online_status, (True, False), Status.COLLAPSED),
        (convergence.online_status, (False, False), Status.NON_FINITE_PARAMETERS),
        (convergence.online_status, (False, True), Status.RUNNING),
    ],
)
def test_the_first_rule_of_other_algorithms_that_holds_decides(rule, conditions, expected):
    (found,) = np.ravel(rule(*map(jnp.asarray, conditions)))
    assert Status(int(found)) is expected


def test_accelerated_em_does_not_end_at_a_proposal():
    for status in (Status.CONVERGED, Status.COLLAPSED, Status.NON_FINITE_PARAMETERS):
        for proposed, out_of_steps, expected in (
            (False, True, status),
            (True, False, Status.RUNNING),
            (True, True, Status.STEPS_RAN_OUT),
        ):
            found, fell_short = convergence.accelerated_status(
                jnp.asarray(int(status)), jnp.asarray(proposed), jnp.asarray(out_of_steps)
            )
            assert Status(int(found)) is expected
            assert bool(fell_short) == proposed
