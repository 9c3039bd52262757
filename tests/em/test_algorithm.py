"""Expectation–maximisation: the M-step, one EM step, and how the loop ends."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from marks import in_double

import jgmm
from jgmm._core.status import Status
from jgmm._data import standardization
from jgmm._data.samples import identity, make_samples, scaling
from jgmm.em import m_step
from jgmm.em.degeneracy import collapsed_components
from jgmm.em.statistics import expected_log_likelihood
from jgmm.fitting import single_run
from jgmm.mixture.mixture import Mixture, to_original, to_standard

# Shrinking would take minutes, and seeds have no simplest form.
few = settings(max_examples=10, phases=[Phase.explicit, Phase.generate])

N, K, D = 150, 3, 3
STEPS, LONG = 60, 1000  # two only, because the length of the history makes the program
SEED = 8  # components that overlap, and from which no model collapses

# An iteration within the M-step stops when it has no more than a rounding of the log-likelihood to
# gain. That leaves covariances uncertain by the root of it over the curvature; axes in common, in a
# plane where components are round, by the more.
COMMON_AXES = ("EVE", "VVE")
ITERATED = {
    np.dtype(t): {"rtol": limit, "atol": limit}
    for t, limit in (("float32", 3e-2), ("float64", 1e-4))
}


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, N, *oracle.parameters(SEED, k=K, d=D)).astype(dtype)


@pytest.fixture(scope="module")
def weight(dtype):
    return np.resize([1.0, 2.0, 0.0, 0.5, 3.0, 1.0, 0.0], N).astype(dtype)


@pytest.fixture(scope="module")
def ones(dtype):
    """What keeps the program the same as with weights."""
    return np.ones(N, dtype)


# In double precision every model, in single one of each way to estimate: in closed form, with the
# inner iterations over shapes, and along axes; between them are all three ways of storage.
CASES = [(name, "float64") for name in oracle.NAMES]
CASES += [(name, "float32") for name in ("full", "tied", "spherical", "VEI", "EVE", "VVE")]
of_every_model = pytest.mark.parametrize(("name", "dtype"), CASES, indirect=True)


@pytest.fixture(scope="module")
def name(request):
    return request.param


def beginning(name="full"):
    """Weights, means and covariances near the truth, and too wide."""
    weights, means, covariances = oracle.parameters(SEED, k=K, d=D, model=name)
    return weights, 0.7 * means + 0.3, 1.5 * covariances


@pytest.fixture(scope="module")
def start(name, dtype):
    return jgmm.make_mixture(*(a.astype(dtype) for a in beginning(name)), name)


@pytest.fixture(scope="module")
def full(dtype):
    return jgmm.make_mixture(*(a.astype(dtype) for a in beginning()))


def run_all(start, x, weight):
    """Sixty steps, or until nothing changes at all."""
    return single_run.run_em(start, x, weight, tol=0.0, rtol=0.0, max_steps=STEPS)


@pytest.fixture(scope="module")
def result(start, x, ones):
    return run_all(start, x, ones)


@pytest.fixture(scope="module")
def converged(full, x):
    result = single_run.run_em(full, x, max_steps=LONG)
    assert Status(int(result.status)) is Status.CONVERGED
    return result


def same(found, expected, tolerance):
    """A mixture against weights, means and covariances as matrices."""
    np.testing.assert_allclose(found.weights, expected[0], **tolerance)
    np.testing.assert_allclose(found.means, expected[1], **tolerance)
    if found.covariance in oracle.ITERATED:
        tolerance = ITERATED[found.means.dtype]
    np.testing.assert_allclose(found.covariances, expected[2], **tolerance)


# The M-step and one EM step.


@of_every_model
def test_m_step_is_the_textbook(name, x, weight, dtype, tolerance):
    resp = np.random.default_rng(1).dirichlet(np.ones(K), size=N)
    found = jgmm.m_step(x, resp.astype(dtype), name, weight)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {dtype}
    same(found, oracle.m_step(x.astype(np.float64), resp, name, weight), tolerance)


def test_em_step_is_the_textbook(full, x, weight, tolerance):
    found, log_likelihood = jgmm.em_step(full, x, weight)
    expected = oracle.em_step(x.astype(np.float64), *beginning(), "full", weight)
    same(found, expected[:3], tolerance)
    np.testing.assert_allclose(log_likelihood, expected[3], **tolerance)


@in_double
def test_no_weights_are_weights_of_one(full, x, ones, tolerance):
    resp = jgmm.responsibilities(full, x)
    for ask in (
        lambda w: jgmm.m_step(x, resp, "full", w),
        lambda w: jgmm.em_step(full, x, w),
    ):
        chex.assert_trees_all_close(ask(None), ask(ones), **tolerance)


@in_double
def test_em_step_is_e_step_then_m_step(full, x, weight, tolerance):
    by_hand = jgmm.m_step(x, jgmm.responsibilities(full, x), "full", weight)
    stepped, _ = jgmm.em_step(full, x, weight)
    chex.assert_trees_all_close(stepped, by_hand, **tolerance)


@in_double
def test_ridge_is_a_fraction_of_the_variance_of_the_data(x, dtype, tolerance):
    resp = np.ones((N, 1), dtype)
    plain = jgmm.m_step(x, resp, "diag").variances
    ridged = jgmm.m_step(x, resp, "diag", ridge=0.25).variances
    np.testing.assert_allclose(ridged, 1.25 * plain, **tolerance)


@in_double
@pytest.mark.parametrize("name", ["full", "tied", "diag", "EEI"])
def test_a_ridge_may_be_given_column_by_column(name, x, dtype, tolerance):
    """In every frame a fraction of the data's own variance in the column."""
    ridge = np.linspace(0.5, 1.5, D).astype(dtype)

    @jax.jit
    def covariance(ridge):
        inside = standardization.standardize(make_samples(x), jgmm.covariance.model(name))
        found = m_step.from_responsibilities(
            inside, lambda rows: jnp.ones((len(rows), 1), dtype), 1, name
        )
        fitted = m_step.maximize(found, name, m_step.ridge_in(inside.frame, ridge))
        return to_original(fitted, inside.frame).covariances[0]

    plain = covariance(0 * ridge)
    expected = plain + np.diag(ridge * np.diagonal(plain))
    np.testing.assert_allclose(covariance(ridge), expected, **tolerance)


@of_every_model
def test_a_component_without_samples_has_weight_zero_and_no_nan(name, x, ones, dtype):
    resp = np.zeros((N, K), dtype)
    resp[:, 0] = 1
    found = jgmm.m_step(x, resp, name, ones)
    np.testing.assert_array_equal(found.weights, [1, 0, 0])
    chex.assert_tree_all_finite((found.means, found.scale))
    np.testing.assert_array_equal(jgmm.responsibilities(found, x)[:, 1:], 0)


def test_a_missing_row_may_hold_anything(full, x, dtype):
    weight = np.ones(N, dtype)
    weight[4] = 0
    spoiled = x.copy()
    spoiled[4] = np.nan
    resp = np.array(jgmm.responsibilities(full, x))
    known = jgmm.m_step(x, resp, "full", weight)
    resp[4] = np.nan
    chex.assert_trees_all_equal(jgmm.m_step(spoiled, resp, "full", weight), known)
    chex.assert_trees_all_equal(run_all(full, spoiled, weight), run_all(full, x, weight))


@pytest.mark.parametrize(
    ("resp", "message"),
    [
        (np.ones((N - 1, 2)), "149 rows; x has 150"),
        (np.ones(N), "responsibilities must be two-dimensional"),
        (np.full((N, 2), np.nan), "responsibilities holds nan in row 0"),
        (np.tile([1.5, -0.5], (N, 1)), "at least zero; row 0"),
    ],
)
def test_responsibilities_must_make_sense(resp, message, x):
    with pytest.raises(jgmm.DataError, match=message):
        jgmm.m_step(x, resp)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_columns_must_match(columns, full):
    for ask in (jgmm.em_step, single_run.run_em):
        with pytest.raises(jgmm.DataError, match=f"x has {columns} columns.*for 3"):
            ask(full, np.zeros((5, columns)))


@functools.cache
def step_and_score(name):
    """A step from any statistics and any scale before, and what both score."""

    @jax.jit
    def ask(statistics, before):
        after = m_step.maximize(statistics, name, 0.0, before.scale)
        return jnp.stack([expected_log_likelihood(m, statistics) for m in (before, after)])

    return ask


@functools.cache
def gather(name):
    """Statistics of given responsibilities; compiled once for all draws."""

    @jax.jit
    def ask(samples, resp):
        return m_step.from_responsibilities(samples, lambda rows: resp[rows], K, name)

    return ask


@of_every_model
def test_every_m_step_raises_the_expected_log_likelihood(name, x, weight, dtype):
    """From random parameters of the model, about samples sorted at random or by themselves."""
    rng, samples = np.random.default_rng(0), make_samples(x, weight)
    for seed in range(6):
        truth = oracle.parameters(100 + seed, k=K, d=D, model=name)
        before = jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)
        resp = jnp.asarray(rng.dirichlet(np.full(K, 0.3), size=N), dtype)
        for statistics in (gather(name)(samples, resp), jgmm.accumulate(before, x, weight)):
            was, now = np.asarray(step_and_score(name)(statistics, before), np.float64)
            assert now > was - 50 * np.finfo(dtype).eps * abs(was)
            assert now > was + 1  # they are not near an optimum


# Equal weights.


@in_double
@pytest.mark.parametrize("name", ["full", "EVE"])
def test_equal_weights_stay_equal_and_climb(name, x, weight, dtype):
    start = jgmm.make_mixture(*(a.astype(dtype) for a in beginning(name)), name)
    ended = single_run.run_em(
        start, x, weight, tol=0.0, rtol=0.0, max_steps=STEPS, equal_weights=True
    )
    np.testing.assert_allclose(ended.mixture.weights, 1 / K, rtol=1e-6)
    never_falls(ended, dtype)
    free = run_all(ended.mixture, x, weight)  # which may only rise from there
    assert float(free.log_likelihood) > float(ended.log_likelihood) + 0.1


@in_double
def test_equal_weights_are_shared_by_components_that_are_on(full, x, dtype, tolerance):
    off = Mixture(jnp.log(jnp.asarray([0.9, 0, 0.1], dtype)), full.means, full.scale, "full")
    ended = single_run.run_em(off, x, max_steps=STEPS, tol=0.0, rtol=0.0, equal_weights=True)
    np.testing.assert_allclose(ended.mixture.weights, [0.5, 0, 0.5], **tolerance)
    pair = Mixture(
        jnp.log(jnp.asarray([0.5, 0.5], dtype)), full.means[::2], full.scale[::2], "full"
    )
    np.testing.assert_allclose(ended.history[0], jgmm.log_prob(pair, x).sum(), **tolerance)


# The loop.


def never_falls(result, dtype):
    """By no more than the rounding of a sum of N terms."""
    history = np.asarray(result.history, np.float64)[: int(result.n_steps) + 1]
    assert np.isfinite(history).all()
    slack = N * np.finfo(dtype).eps * np.abs(history).max()
    assert (np.diff(history) > -slack).all()
    assert history[-1] > history[0] + 1  # it did go somewhere


@of_every_model
def test_the_log_likelihood_never_falls(result, dtype):
    never_falls(result, dtype)


@of_every_model
@few
@given(seed=st.integers(0, 2**20))
def test_the_log_likelihood_never_falls_whatever_the_data(seed, start, dtype):
    rng = np.random.default_rng(seed)
    x = oracle.draw(seed, N, *oracle.parameters(seed, k=K, d=D)).astype(dtype)
    w = rng.choice([0.0, 0.3, 1.0, 5.0], size=N).astype(dtype)
    never_falls(run_all(start, x, w), dtype)


@of_every_model
def test_the_log_likelihood_reported_belongs_to_the_parameters(result, x, tolerance):
    again = np.asarray(jgmm.log_prob(result.mixture, x), np.float64).sum()
    np.testing.assert_allclose(result.log_likelihood, again, **tolerance)
    np.testing.assert_allclose(
        result.history[int(result.n_steps)], result.log_likelihood, rtol=4 * np.finfo(x.dtype).eps
    )


def test_history_starts_at_the_start_and_ends_in_nan(full, converged, x, tolerance):
    steps = int(converged.n_steps)
    np.testing.assert_allclose(converged.history[0], jgmm.log_prob(full, x).sum(), **tolerance)
    assert np.isfinite(converged.history[: steps + 1]).all()
    assert np.isnan(converged.history[steps + 1 :]).all()
    assert converged.history.shape == (LONG + 1,)


@of_every_model
def test_a_run_is_as_many_textbook_steps(result, name, x, dtype):
    """The log-likelihood on the way, for every model; rounding grows a little with each step.

    Axes in common are turned a little with every step, in the textbook until they rest.
    """
    parameters, exact = beginning(name), x.astype(np.float64)
    for i in range(1 if name in COMMON_AXES else 4):
        *parameters, log_likelihood = oracle.em_step(exact, *parameters, name)
        rtol = 500 * np.finfo(dtype).eps
        if name in oracle.ITERATED:
            rtol = {4: 1e-4, 8: 1e-9}[dtype.itemsize]
        np.testing.assert_allclose(result.history[i], log_likelihood, rtol=rtol)


@pytest.mark.parametrize("name", COMMON_AXES)
def test_axes_in_common_come_to_rest_where_the_textbook_has_them(name, x, ones, dtype):
    """A step of the textbook gains little more than the last step did."""
    ended = run_all(jgmm.make_mixture(*(a.astype(dtype) for a in beginning(name)), name), x, ones)
    history = np.asarray(ended.history, np.float64)[: int(ended.n_steps) + 1]
    mixture, exact = ended.mixture, x.astype(np.float64)
    parameters = (np.asarray(a, np.float64) for a in (mixture.means, mixture.covariances))
    weights = np.asarray(mixture.weights, np.float64)
    *textbook, before = oracle.em_step(exact, weights / weights.sum(), *parameters, name)
    gained = oracle.log_likelihood(exact, *textbook) - before
    assert gained < 3 * (history[-1] - history[-2]) + 1e4 * np.finfo(dtype).eps


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


@in_double
@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical"])
def test_a_ridge_is_a_share_of_the_variance_of_each_column(name, dtype):
    """Whatever the frame: the M-step with a ridge is the one without, and a diagonal matrix."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(80, 2)) @ [[1.0, 0.9], [0.0, 0.5]] * [10.0, 0.1]).astype(dtype)
    resp = rng.dirichlet(np.ones(2), size=80).astype(dtype)
    plain, ridged = (
        np.asarray(jgmm.m_step(x, resp, name, ridge=ridge).covariances, np.float64)
        for ridge in (0.0, 0.25)
    )
    variances = x.astype(np.float64).var(axis=0)
    if name == "spherical":  # whose frame has one scale for all columns
        variances = np.full(2, variances.mean())
    unit = np.sqrt(np.outer(variances, variances))
    expected = np.broadcast_to(0.25 * np.eye(2), (2, 2, 2))
    np.testing.assert_allclose((ridged - plain) / unit, expected, atol=1e3 * np.finfo(dtype).eps)


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


@in_double
def test_one_lane_of_a_batch_fails_alone(full, x):
    """Bit for bit: the others end as they would without it."""
    broken = Mixture(full.log_weights, full.means * jnp.nan, full.scale, "full")
    moved = Mixture(full.log_weights, full.means + 0.1, full.scale, "full")
    pack = lambda *states: jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)  # noqa: E731
    fit = jax.vmap(lambda m: single_run.run_em(m, x, max_steps=LONG))
    with_bad = fit(pack(full, broken, moved))
    without = fit(pack(full, full, moved))
    assert int(with_bad.status[1]) == Status.NON_FINITE_PARAMETERS
    for state in (0, 2):
        chex.assert_trees_all_equal(
            jax.tree.map(lambda leaf: leaf[state], with_bad),  # noqa: B023
            jax.tree.map(lambda leaf: leaf[state], without),  # noqa: B023
        )


# Equivariance and precision.


@of_every_model
@few
@given(
    shift=st.floats(-100, 100),
    log_scale=st.floats(-1, 3),
    seed=st.integers(0, 99),
)
def test_a_fit_does_not_notice_units_or_order(
    shift, log_scale, seed, start, x, weight, name, dtype
):
    plain, scale = run_all(start, x, weight), np.asarray(10**log_scale, dtype)
    rng = np.random.default_rng(seed)
    index, rows = jnp.asarray(rng.permutation(K)), rng.permutation(N)
    arranged = Mixture(
        start.log_weights[index],
        start.means[index],
        start.scale if start.model.shared else start.scale[index],
        name,
    )
    frame = scaling(jnp.full(D, shift, dtype), jnp.full(D, scale))
    moved = run_all(
        to_original(arranged, frame), (np.asarray(shift, dtype) + scale * x)[rows], weight[rows]
    )
    back = to_standard(moved.mixture, frame)
    # Both end where the log-likelihood no longer changes in its last digit; that fixes parameters
    # to the root of a rounding error over the curvature, which is down to about 1/1000 a sample
    # here. An offset costs the digits by which it exceeds the spread.
    eps, far = np.finfo(dtype).eps, max(1, abs(shift) / float(scale))
    for found, expected in (
        (back.weights, plain.mixture.weights),
        (back.means, plain.mixture.means),
        (back.covariances, plain.mixture.covariances),
    ):
        np.testing.assert_allclose(found, expected[index], atol=60 * np.sqrt(eps * far))
    np.testing.assert_allclose(
        float(moved.log_likelihood) / weight.sum() + D * np.log(scale),
        float(plain.log_likelihood) / weight.sum(),
        atol=100 * eps * far,
    )


@of_every_model
def test_a_fit_does_not_notice_the_order_of_columns(start, x, weight, name, dtype):
    """Parameters to the root of a rounding, as above."""
    order, storage = np.array([2, 0, 1]), start.model.storage
    turned = storage.from_dense(start.covariances[:, order][:, :, order])[: len(start.scale)]
    arranged = Mixture(start.log_weights, start.means[:, order], storage.root(turned), name)
    plain, moved = run_all(start, x, weight), run_all(arranged, x[:, order], weight)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(moved.log_likelihood, plain.log_likelihood, rtol=100 * eps)
    expected = plain.mixture.covariances[:, order][:, :, order]
    np.testing.assert_allclose(moved.mixture.covariances, expected, atol=60 * np.sqrt(eps))
    np.testing.assert_allclose(
        moved.mixture.means, plain.mixture.means[:, order], atol=60 * np.sqrt(eps)
    )


@of_every_model
def test_a_weight_of_two_is_a_doubled_row(start, x, dtype):
    """And a weight of zero a missing one: rows written twice, or counted twice and not at all."""
    half = N // 2
    twice = np.concatenate([x[:half], x[:half]])
    doubled = np.concatenate([np.full(half, 2, dtype), np.zeros(half, dtype)])
    once = run_all(start, twice, np.ones(N, dtype))
    counted = run_all(start, twice, doubled)
    eps = np.finfo(dtype).eps  # see above for the root
    chex.assert_trees_all_close(counted.mixture, once.mixture, atol=30 * np.sqrt(eps))
    np.testing.assert_allclose(counted.log_likelihood, once.log_likelihood, rtol=100 * eps)


@of_every_model
def test_an_offset_does_not_show_in_the_covariances(name, ones, dtype):
    """1e6 standard deviations in float32, 1e8 in float64, against an oracle that subtracts it."""
    offset = {4: 1e6, 8: 1e8}[dtype.itemsize]
    x = oracle.draw(0, N, *oracle.parameters(SEED, k=K, d=D))
    x = (10 * x + offset).astype(dtype)  # what rounding to the grid at the offset leaves
    exact = x.astype(np.float64) - offset
    resp = np.random.default_rng(1).dirichlet(np.ones(K), size=N)
    found = jgmm.m_step(x, resp.astype(dtype), name, ones)
    expected = oracle.m_step(exact, resp, name)
    rtol = ITERATED[dtype]["rtol"] if name in oracle.ITERATED else 500 * np.finfo(dtype).eps
    np.testing.assert_allclose(found.covariances, expected[2], rtol=rtol, atol=rtol * 100)
    grid = offset * np.finfo(dtype).eps
    np.testing.assert_allclose(found.means - np.asarray(offset, dtype), expected[1], atol=2 * grid)


def test_a_fit_far_from_the_origin_is_the_fit_near_it(dtype):
    offset = {4: 1e6, 8: 1e8}[dtype.itemsize]
    x = np.round(16 * oracle.draw(0, N, *oracle.parameters(SEED, k=K, d=D)))  # exact at any offset
    truth = oracle.parameters(SEED, k=K, d=D)
    ends = []
    for shift in (0.0, offset):
        start = jgmm.make_mixture(
            truth[0].astype(dtype),
            (np.round(16 * truth[1]) + shift).astype(dtype),
            (256 * truth[2]).astype(dtype),
        )
        ends.append(run_all(start, (x + shift).astype(dtype), np.ones(N, dtype)))
    near, far = ends
    eps, scale = np.finfo(dtype).eps, float(np.abs(near.mixture.covariances).max())
    np.testing.assert_allclose(
        far.mixture.covariances, near.mixture.covariances, atol=10 * np.sqrt(eps) * scale
    )
    np.testing.assert_allclose(far.log_likelihood, near.log_likelihood, rtol=100 * eps)


def test_collapsed_components_judges_each_by_itself(dtype):
    eps = np.finfo(dtype).eps
    fine, spike = np.eye(2), eps * np.eye(2)
    flat = np.array([[1.0, 0.0], [1.0, eps]])
    scale = jnp.asarray(np.stack([fine, spike, flat, fine, fine * np.nan]), dtype)
    log_weights = jnp.log(jnp.asarray([0.5, 0.2, 0.2, eps / 10, 0.1], dtype))
    given = Mixture(log_weights, jnp.zeros((5, 2), dtype), scale, "full")
    found = collapsed_components(given, given, identity(2, dtype))
    np.testing.assert_array_equal(found, [False, True, True, True, True])


def test_a_result_shows_what_matters(converged):
    text = repr(converged)
    assert "K=3" in text
    assert "CONVERGED" in text
    assert f"n_steps={int(converged.n_steps)}" in text
    batch = jax.tree.map(lambda leaf: leaf[None], converged)
    assert "shape=(1,)" in repr(batch)
