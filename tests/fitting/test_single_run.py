"""``run_em``: EM from one given start, against as many steps of the textbook."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from em_cases import CASES, COMMON_AXES, LONG, SEED, STEPS, D, K, N, beginning, never_falls, run_all
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from marks import in_double

import jgmm
from jgmm._core.status import Status
from jgmm._data.samples import scaling
from jgmm.fitting import single_run
from jgmm.mixture.mixture import Mixture, to_original, to_standard

# Shrinking would take minutes, and seeds have no simplest form.
few = settings(max_examples=10, phases=[Phase.explicit, Phase.generate])


of_every_model = pytest.mark.parametrize(("name", "dtype"), CASES, indirect=True)


@pytest.fixture(scope="module")
def result(start, x, ones):
    return run_all(start, x, ones)


def test_a_mixture_may_name_its_model_by_code(full, x):
    """The M-step writes the name, and a loop needs what comes out of it to be like what went in."""
    coded = Mixture(full.log_weights, full.means, full.scale, "VVV")
    kept = {"max_steps": 3}
    chex.assert_trees_all_equal(
        single_run.run_em(coded, x, **kept), single_run.run_em(full, x, **kept)
    )


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


@in_double
def test_one_run_of_a_batch_fails_alone(full, x):
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
def test_a_fit_does_not_depend_on_units_or_order(
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
def test_a_fit_does_not_depend_on_the_order_of_columns(start, x, weight, name, dtype):
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


def test_a_result_shows_what_matters(converged):
    text = repr(converged)
    assert "K=3" in text
    assert "CONVERGED" in text
    assert f"n_steps={int(converged.n_steps)}" in text
    batch = jax.tree.map(lambda leaf: leaf[None], converged)
    assert "shape=(1,)" in repr(batch)
