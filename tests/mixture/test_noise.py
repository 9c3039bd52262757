"""A uniform noise component next to the Gaussians."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm._data.samples import make_samples
from jgmm.em.e_step import accumulate
from jgmm.em.m_step import maximize
from jgmm.mixture import noise

K, D = 2, 2
CENTERS = np.array([[-3.0, 0.0], [3.0, 1.0]])


@functools.cache
def draw(n=300, share=0.2):
    """Two unit clouds, and a fifth of the samples anywhere in a square of side 20."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, size=n, p=[share, (1 - share) / 2, (1 - share) / 2])
    cloud = CENTERS[truth - 1] + rng.normal(size=(n, D))
    return np.where((truth == 0)[:, None], rng.uniform(-10, 10, (n, D)), cloud), truth


# At samples, which takes the least to compile.
STARTS = {"n_restarts": 8, "init": "points"}


def fit(x, volume="box", **options):
    return jgmm.fit(jax.random.key(0), x, K, noise=volume, **(STARTS | options))


@pytest.mark.parametrize("form", ["product", "difference"])
def test_e_step_is_the_textbook(form, dtype, tolerance):
    x = draw()[0].astype(dtype)
    parameters = oracle.parameters(4, k=K, d=D)
    mixture = jgmm.make_mixture(*(a.astype(dtype) for a in parameters))
    uniform = noise.Noise(*jnp.log(jnp.asarray([0.3, 400.0], dtype)))
    samples = make_samples(x)
    found = accumulate(mixture, samples, form=form, noise_density=uniform.density())
    log_prob, own = oracle.e_step(x.astype(float), *parameters)
    whole = 0.3 / 400 + 0.7 * np.exp(log_prob)
    resp = own * (0.7 * np.exp(log_prob) / whole)[:, None]
    np.testing.assert_allclose(found.log_likelihood, np.log(whole).sum(), **tolerance)
    np.testing.assert_allclose(found.counts, resp.sum(axis=0), **tolerance)
    np.testing.assert_allclose(
        np.asarray(found.first) + np.asarray(found.counts)[:, None] * np.asarray(found.center),
        resp.T @ x,
        rtol=tolerance["rtol"],
        atol=1e3 * tolerance["atol"],  # of sums whose terms are up to a thousand times larger
    )
    np.testing.assert_allclose(noise.log_prob(mixture, uniform, x), np.log(whole), **tolerance)
    np.testing.assert_allclose(
        noise.probability(mixture, uniform, x), 0.3 / 400 / whole, **tolerance
    )


@pytest.mark.parametrize("covariance", jgmm.covariance.MODELS)
def test_products_are_differences_with_noise_in_every_model(covariance, tolerance, dtype):
    # A shared covariance once pooled all weights, those of the noise among them.
    x, labels = draw(100)
    resp = np.eye(K, dtype=dtype)[np.maximum(labels - 1, 0) % K] * 0.9 + 0.1 / K
    mixture = jgmm.m_step(x.astype(dtype), resp.astype(dtype), covariance, ridge=0.1)
    uniform = noise.Noise(*jnp.log(jnp.asarray([0.3, 400.0], dtype))).density()
    samples = make_samples(x.astype(dtype))
    product, difference = (
        maximize(accumulate(mixture, samples, form=form, noise_density=uniform), covariance)
        for form in ("product", "difference")
    )
    for found, expected in zip(jax.tree.leaves(product), jax.tree.leaves(difference), strict=True):
        # Products lose the digits of the squared distance from the origin, about a hundred here.
        np.testing.assert_allclose(
            found, expected, rtol=100 * tolerance["rtol"], atol=100 * tolerance["atol"]
        )


@pytest.mark.parametrize("covariance", ["full", "tied", "EII", "EEI"])
def test_one_component_with_noise_is_the_same_shared_or_not(covariance):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(180, D)), rng.uniform(-20, 20, size=(20, D))])
    result = jgmm.fit(jax.random.key(0), x, 1, covariance=covariance, noise="box")
    assert Status(int(result.status)) is Status.CONVERGED
    variances = np.asarray(result.mixture.covariances)[0].diagonal()
    # The standard error of a variance of one from 180 samples is 0.11.
    np.testing.assert_allclose(variances, 1.0, atol=0.4)
    fall = np.diff(np.asarray(result.history))
    assert np.nanmin(fall) > -1e-9 * abs(float(result.log_likelihood))


def test_noise_and_clouds_are_told_apart():
    x, truth = draw()
    result = fit(x)
    assert Status(int(result.status)) is Status.CONVERGED
    # Binomial and normal standard errors of 300 samples are 0.023 and 0.1.
    np.testing.assert_allclose(result.noise.weight, 0.2, atol=0.07)
    order = np.argsort(result.mixture.means[:, 0])
    np.testing.assert_allclose(np.asarray(result.mixture.means)[order], CENTERS, atol=0.4)
    np.testing.assert_allclose(result.mixture.weights.sum(), 1.0, rtol=1e-12)
    labels = np.asarray(noise.predict(result.mixture, result.noise, x))
    assert ((labels == -1) == (truth == 0)).mean() > 0.9
    without = jgmm.fit(jax.random.key(0), x, K, **STARTS)
    assert float(result.log_likelihood) > float(without.log_likelihood) + 10


def test_log_likelihood_is_of_what_is_returned_and_never_falls():
    x, _ = draw()
    result = fit(x)
    ell = float(noise.log_prob(result.mixture, result.noise, x).sum())
    np.testing.assert_allclose(result.log_likelihood, ell, rtol=1e-10)
    np.testing.assert_allclose(result.noise.log_volume, np.log(np.ptp(x, axis=0)).sum(), rtol=1e-12)
    history = np.asarray(result.history)[: int(result.n_steps) + 1]
    assert (np.diff(history) >= -1e-9).all()


def test_fit_is_the_same_in_other_units():
    x, _ = draw()
    factor = np.array([1e3, 1e-2])
    here, there = fit(x), fit(x * factor - 5.0)
    np.testing.assert_allclose(there.noise.weight, here.noise.weight, rtol=1e-5)
    np.testing.assert_allclose(
        there.log_likelihood, here.log_likelihood - len(x) * np.log(factor).sum(), rtol=1e-9
    )
    given = fit(x, volume=float(np.prod(np.ptp(x, axis=0))))
    np.testing.assert_allclose(given.log_likelihood, here.log_likelihood, rtol=1e-9)


def test_known_samples_are_no_noise():
    x, truth = draw()
    far = np.concatenate([x, [[9.0, 9.0]]])
    labels = np.full(len(far), -1)
    labels[-1] = 0
    labels[:20] = np.where(truth[:20] > 0, truth[:20] - 1, -1)
    result = fit(far, labels=labels)
    log_prob = np.asarray(noise.log_prob(result.mixture, result.noise, far))
    # log(1 − π₀) + log p(x, z) of the known, which no noise makes larger.
    resp = np.asarray(jgmm.responsibilities(result.mixture, far))
    joint = np.log1p(-float(result.noise.weight)) + np.asarray(jgmm.log_prob(result.mixture, far))
    known = labels >= 0
    joint = joint[known] + np.log(resp[known, labels[known]])
    expected = joint.sum() + log_prob[~known].sum()
    np.testing.assert_allclose(result.log_likelihood, expected, rtol=1e-9)


def test_in_a_race_and_under_vmap():
    x, _ = draw()
    raced = fit(x, n_restarts=16, race=10)
    np.testing.assert_allclose(raced.log_likelihood, fit(x).log_likelihood, rtol=1e-6)
    weight = jnp.ones((2, len(x))).at[1, ::3].set(0.0)
    several = jax.vmap(lambda w: fit(x, sample_weight=w))(weight)
    np.testing.assert_allclose(several.log_likelihood[0], fit(x).log_likelihood, rtol=1e-6)
    kept = np.asarray(weight[1]) > 0
    log_box = np.log(np.ptp(x[kept], axis=0)).sum()
    np.testing.assert_allclose(several.noise.log_volume[1], log_box, rtol=1e-12)


@pytest.mark.parametrize(
    ("volume", "match"),
    [("hull", "not 'hull'"), (0.0, "positive"), (np.inf, "positive"), ([1.0], "positive")],
)
def test_what_is_no_volume_is_refused(volume, match):
    with pytest.raises(DataError, match=match):
        fit(draw()[0], volume)


def test_what_cannot_be_had_with_noise_is_refused():
    x, _ = draw()
    with pytest.raises(DataError, match="leave accelerate out"):
        fit(x, accelerate="anderson")
    flat = x.copy()
    flat[:, 1] = 2.0
    with pytest.raises(DataError, match="no volume"):
        fit(flat, ridge=1e-3)
