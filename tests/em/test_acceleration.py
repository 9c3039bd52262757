"""Accelerated EM: the optimum of EM in fewer passes, by a log-likelihood that never falls."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from marks import in_double

import jgmm
from jgmm._core import budget
from jgmm._core.status import Status
from jgmm._data.samples import make_samples
from jgmm._data.standardization import center_and_scale
from jgmm.em import acceleration
from jgmm.em.acceleration import AcceleratedEM
from jgmm.em.acceleration_schemes import SCHEMES, Anderson
from jgmm.em.algorithm import EM
from jgmm.em.options import make_control
from jgmm.fitting import restarts
from jgmm.initialization.draw import draw, draw_numbered

N, K, D, R = 150, 3, 2, 5
KEY = jax.random.key(28)  # none of the starts it draws ends in a spike


def overlapping(n=N, k=K, d=D):
    """Samples on which EM takes hundreds of steps."""
    rng = np.random.default_rng(3)
    means = 1.2 * rng.normal(size=(k, d))
    return means[rng.integers(k, size=n)] + rng.normal(size=(n, d))


def starts(x, n_restarts=R, covariance="full", init="kmeans++", key=KEY):
    samples = make_samples(x)
    return draw(key, samples, K, covariance=covariance, n_restarts=n_restarts, init=init)


@pytest.fixture(scope="module")
def x(dtype):
    return overlapping().astype(dtype)


@pytest.fixture(scope="module")
def runs(x):
    """From every start: EM and each scheme, with a history each."""

    def run(start, name):
        return jgmm.fitting.run_em(start, x, max_steps=3000, accelerate=name)

    begun = starts(x)
    return {
        name: jax.jit(jax.vmap(lambda one, name=name: run(one, name)))(begun)
        for name in (None, *SCHEMES)
    }


def test_reaches_what_em_reaches_in_fewer_passes(runs, dtype):
    em = runs[None]
    assert (em.status == Status.CONVERGED).all()
    for name in SCHEMES:
        found = runs[name]
        assert (found.status == Status.CONVERGED).all()
        # Where EM's steps gain less than the tolerance it is a hundred times that from the end.
        slack = 100 * N * (1e-8 if dtype == np.float64 else 1e-6)
        if dtype == np.float64:
            assert (found.log_likelihood >= em.log_likelihood - slack).all()
        # In float32 rounding may send a start that leaves a plateau to another optimum.
        assert found.log_likelihood.max() >= em.log_likelihood.max() - slack
        assert found.n_steps.sum() < em.n_steps.sum()
    if dtype == np.float64:
        assert 2 * runs["anderson"].n_steps.sum() < em.n_steps.sum()


@pytest.mark.parametrize("name", SCHEMES)
def test_log_likelihood_never_falls(runs, name, dtype):
    history = np.asarray(runs[name].history, np.float64)
    # EM's own steps move by rounding at the end. In float32 products keep 3e-5 of a nat a sample
    # (jgmm.natural), and in float64 the sum has N terms of a few nats.
    rounding = N * (8 * float(np.finfo(dtype).eps) if dtype == np.float64 else 3e-5)
    assert np.nanmin(np.diff(history, axis=1)) >= -rounding
    # One entry for every pass, and nothing beyond.
    filled = np.isfinite(history).sum(axis=1)
    np.testing.assert_array_equal(filled, np.asarray(runs[name].n_steps) + 1)


@pytest.mark.parametrize("name", SCHEMES)
def test_log_likelihood_is_of_the_parameters_returned(runs, name, x, dtype):
    for r in range(R):
        mixture = jax.tree.map(lambda leaf, r=r: leaf[r], runs[name].mixture)
        found = float(jgmm.log_prob(mixture, x).astype(np.float64).sum())
        np.testing.assert_allclose(
            runs[name].log_likelihood[r], found, rtol=100 * float(np.finfo(dtype).eps)
        )


def test_converged_means_what_it_means_for_em(runs, x, dtype):
    """One more step of EM gains no more than the tolerance."""
    tol = 1e-8 if dtype == np.float64 else 1e-6
    for name in SCHEMES:
        again = jax.vmap(lambda mixture: jgmm.fitting.run_em(mixture, x, max_steps=1, tol=0.0))(
            runs[name].mixture
        )
        gain = (again.history[:, 1] - again.history[:, 0]) / N
        rtol = 4 * float(np.finfo(dtype).eps) * np.abs(again.log_likelihood) / N
        # Twice: the last gain was that of the step before this one. And rounding comes on top:
        # these log-likelihoods are other programs', each off by several roundings of the sum.
        assert (np.nan_to_num(gain) <= 2 * tol + 8 * rtol).all()


def problem(covariance, dtype=np.float64):
    samples = center_and_scale(make_samples(overlapping().astype(dtype)), True)
    begun = draw_numbered(KEY, jnp.arange(R), samples, np.ones(K, bool), covariance, "kmeans++")
    return samples, begun, make_control(dtype, None, None, 0.0)


class Wild(Anderson):
    """A scheme that proposes points far away and nowhere near an optimum, every time."""

    def propose(self, memory):
        plan = super().propose(memory)
        far = memory.last.point + 50 * jnp.sin(1 + jnp.arange(memory.last.point.size))
        return plan._replace(point=far, is_sensible=memory.n_points > 0)


def test_a_bad_scheme_costs_passes_and_nothing_else():
    """Every proposal is refused, and the steps between are EM's, to the last bit."""
    samples, begun, control = problem("full")
    plain = jax.jit(lambda: restarts.run_restarts(EM(400), begun, samples, control, 1))()
    wild = jax.jit(
        lambda: restarts.run_restarts(AcceleratedEM(EM(800), Wild()), begun, samples, control, 1)
    )()
    np.testing.assert_array_equal(wild.outcomes.status, plain.outcomes.status)
    steps = np.asarray(plain.outcomes.n_steps)
    # A pass is lost after each of EM's points but the last.
    np.testing.assert_array_equal(wild.outcomes.n_steps, 2 * steps)
    np.testing.assert_array_equal(
        wild.history[0, : 2 * steps[0] + 1 : 2], plain.history[0, : steps[0] + 1]
    )
    np.testing.assert_array_equal(wild.best.mixture.means, plain.best.mixture.means)


def test_running_out_on_a_proposal_ends_at_the_last_point_that_counted():
    samples, begun, control = problem("full")
    most = 7  # an odd step of the wild scheme is a proposal
    ended = jax.jit(
        lambda: restarts.run_restarts(AcceleratedEM(EM(most), Wild()), begun, samples, control, 1)
    )()
    assert (ended.outcomes.status == Status.STEPS_RAN_OUT).all()
    assert (ended.outcomes.n_steps == most).all()
    assert bool(ended.best.proposed)
    found = jgmm.accumulate(ended.best.mixture, samples).log_likelihood
    np.testing.assert_allclose(ended.best.log_likelihood, found, rtol=1e-13)


@pytest.mark.parametrize("name", ["EVI"])
def test_models_without_free_coordinates_keep_their_form(name):
    """Storage is filled by more than the model holds: proposals are brought back to it."""
    x = overlapping()
    fits = {
        scheme: jgmm.fit(
            KEY, x, K, covariance=name, n_restarts=2, init="kmeans++", max_steps=400,
            tol=1e-10, accelerate=scheme,
        )
        for scheme in (None, "anderson")
    }  # fmt: skip
    em, found = fits[None], fits["anderson"]
    assert found.log_likelihood >= em.log_likelihood - 1e-3
    assert found.restarts.n_steps.sum() <= em.restarts.n_steps.sum()
    mixture = found.mixture
    jgmm.make_mixture(mixture.weights, mixture.means, mixture.covariances, name)  # or it raises


def test_every_model_is_seen_and_brought_back():
    for name in ("full", "spherical", "EVE"):
        mixture = jgmm.make_mixture(*oracle.parameters(1, k=K, d=D, model=name), name)
        again = acceleration._to_model(
            acceleration._to_mixture(acceleration._to_vector(mixture), mixture), None
        )
        for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(mixture), strict=True):
            # Axes in common are found to the root of a rounding.
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_gradient_by_fishers_identity():
    samples, _, _ = problem("full")
    mixture = jgmm.make_mixture(*oracle.parameters(2, k=K, d=D))
    statistics = jgmm.accumulate(mixture, samples)
    seen = jax.jit(acceleration._iterate)(
        mixture, mixture, statistics, samples.total_weight(), None
    )
    assert (np.asarray(seen.step) == 0).all()

    @jax.jit
    def mean(vector):
        return (
            jgmm.accumulate(acceleration._to_mixture(vector, mixture), samples).log_likelihood / N
        )

    for i in np.flatnonzero(np.asarray(seen.point) != 0):
        ahead, behind = (mean(seen.point.at[i].add(h)) for h in (1e-5, -1e-5))
        np.testing.assert_allclose(seen.gradient[i], (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-9)


def test_components_that_are_switched_off_stay_off():
    x = overlapping()
    mixture = jax.tree.map(lambda leaf: leaf[0], starts(x, 1))
    spare = jgmm.Mixture(
        jnp.append(mixture.log_weights, -jnp.inf),
        jnp.concatenate([mixture.means, mixture.means[:1]]),
        jnp.concatenate([mixture.scale, mixture.scale[:1]]),
        mixture.covariance,
    )
    alone, padded = (
        jgmm.fitting.run_em(one, x, accelerate="anderson", max_steps=60, tol=0.0)
        for one in (mixture, spare)
    )
    assert padded.mixture.log_weights[K] == -jnp.inf
    assert padded.status == alone.status
    # Sums over components are in another order; extrapolation enlarges the rounding.
    np.testing.assert_allclose(padded.log_likelihood, alone.log_likelihood, atol=1e-6)


@in_double
def test_in_small_batches_as_alone(runs, x, monkeypatch):
    monkeypatch.setattr(budget, "MIN_BATCH", 2)
    monkeypatch.setattr(budget, "BATCH_WORK", 1)
    queued = jgmm.fit(
        KEY, x, K, init=starts(x), n_restarts=R, max_steps=3000, accelerate="anderson"
    )
    alone = runs["anderson"]
    np.testing.assert_array_equal(queued.restarts.status, alone.status)
    # Within the tolerance at which both stop, many times over; see above.
    slack = 100 * N * (1e-8 if x.dtype == np.float64 else 1e-6)
    if x.dtype == np.float64:
        np.testing.assert_allclose(queued.restarts.log_likelihood, alone.log_likelihood, atol=slack)
    # In float32 products of another width round otherwise, and a start that leaves a plateau may
    # come down on the other side; the best is found by either.
    np.testing.assert_allclose(queued.log_likelihood, alone.log_likelihood.max(), atol=slack)


@in_double
def test_in_a_race(runs, x):
    raced = jgmm.fit(KEY, x, K, n_restarts=12, init="kmeans++", race=15, accelerate="anderson")
    status = np.asarray(raced.restarts.status)
    assert (status == Status.OUTRUN).any()
    assert (np.asarray(raced.restarts.n_steps)[status == Status.OUTRUN] == 15).all()
    # The first of the starts are those that ran alone.
    best = float(runs["anderson"].log_likelihood.max())
    np.testing.assert_allclose(raced.log_likelihood, best, atol=100 * N * 1e-8)


def test_equal_weights_stay_equal():
    found = jgmm.fit(
        KEY, overlapping(), K, init="points", equal_weights=True, accelerate="anderson", tol=1e-9
    )
    np.testing.assert_allclose(found.mixture.weights, 1 / K, rtol=1e-12)
