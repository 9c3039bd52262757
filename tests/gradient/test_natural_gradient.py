"""The natural gradient: EM's step where it is whole, and a part of it where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm._data.samples import make_samples
from jgmm.gradient.fit import fit
from jgmm.gradient.natural_gradient import NaturalGradient, decaying
from jgmm.gradient.optimizer import Evaluation

N, K, D = 90, 2, 2
KEY = jax.random.key(0)


def samples():
    return oracle.draw(0, N, *oracle.parameters(4, k=K, d=D))


def start(name):
    return jgmm.make_mixture(*oracle.parameters(5, k=K, d=D, model=name), name)


def test_of_size_one_from_all_samples_it_is_em():
    """Step by step, in the frame of the fit, with the same statuses and the same history."""
    x, weight = samples(), np.random.default_rng(0).uniform(0.5, 2, N)
    kept = {"sample_weight": weight, "max_steps": 7}
    em = jgmm.fitting.run_em(start("tied"), x, tol=0.0, rtol=0.0, **kept)
    found = fit(
        KEY, x, K, optimizer=NaturalGradient(), init=start("tied"), covariance="tied", **kept
    )
    assert found.status == em.status == Status.STEPS_RAN_OUT
    np.testing.assert_allclose(found.history, em.history, rtol=1e-13)
    for one, other in zip(jax.tree.leaves(found.mixture), jax.tree.leaves(em.mixture), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_half_a_step_goes_half_way_in_moments(name):
    """Of πₖ, πₖ μₖ and πₖ (Σₖ + μₖ μₖᵀ), in the form of the model."""
    x, here = samples(), start(name)

    def same(mixture):
        return mixture

    @jax.jit
    def step(here):
        data = make_samples(x)
        found = jgmm.accumulate(here, data)
        told = Evaluation(here, found.log_likelihood, None, here, found, data, same, same)
        return NaturalGradient(0.5).step(jnp.asarray(0), told).point

    def moments(mixture):
        pi, mu, sigma = (np.asarray(a) for a in (mixture.weights, mixture.means, mixture.variances))
        second = sigma + mu**2
        if name == "spherical":  # which sees the mean over columns only
            second = second.mean(axis=1)
        return pi, pi[:, None] * mu, (pi * second.T).T

    whole, _ = jgmm.em_step(here, x)
    for half, before, after in zip(moments(step(here)), moments(here), moments(whole), strict=True):
        np.testing.assert_allclose(half, (before + after) / 2, rtol=1e-10, atol=1e-12)


def test_mini_batches_settle_near_the_optimum():
    x, begun = samples(), start("full")
    by = NaturalGradient(decaying())
    found = fit(KEY, x, K, optimizer=by, batch_size=30, max_steps=300, init=begun)
    em = jgmm.fitting.run_em(begun, x, tol=1e-13, rtol=0.0, max_steps=500)
    assert found.status == Status.STEPS_RAN_OUT
    whole = jgmm.log_prob(found.mixture, x).sum()
    np.testing.assert_allclose(found.log_likelihood, whole, rtol=1e-12)
    # Noise moves parameters by √ρ times their standard errors of a batch: less than two nats.
    assert em.log_likelihood - 2 < found.log_likelihood < em.log_likelihood


@pytest.mark.parametrize("rate", [0.0, -1.0, 1.5, np.nan])
def test_rates_that_leave_the_mixtures_are_refused(rate):
    with pytest.raises(DataError, match="above 0 and at most 1"):
        NaturalGradient(rate)


@pytest.mark.parametrize(
    ("first", "power", "delay"), [(2.0, 0.6, 1.0), (1.0, 0.5, 1.0), (1.0, 0.6, 0.0)]
)
def test_decays_that_do_not_settle_are_refused(first, power, delay):
    with pytest.raises(DataError, match=r"power in \(0.5, 1\]"):
        decaying(first, power, delay)
