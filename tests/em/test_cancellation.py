"""Cancellation in matrix products: it is foreseen, and differences are taken instead."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._data.samples import make_samples
from jgmm.em import cancellation
from jgmm.em.algorithm import EM
from jgmm.em.options import make_control

K, D, N = 3, 4, 200


def given(name, dtype, seed=3):
    truth = oracle.parameters(seed, k=K, d=D, model=name)
    return jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)


def narrow_and_far(dtype, distance):
    """Two components of unit width, so many standard deviations from the origin, and samples."""
    rng = np.random.default_rng(1)
    means = np.array([[distance, 0.0], [-distance, 1.0]])
    x = np.concatenate([mean + rng.normal(size=(N, 2)) for mean in means])
    x = np.asarray(x, dtype).astype(np.float64)  # what the dtype can hold is the truth
    parameters = (np.array([0.5, 0.5]), means, np.stack([np.eye(2), np.eye(2)]))
    return x, parameters


@pytest.mark.parametrize("name", ["full", "diag", "spherical", "tied"])
def test_narrow_components_far_out_keep_their_digits(name, dtype):
    """Made to break the product form: the pass must notice and take differences."""
    x, parameters = narrow_and_far(dtype, 1e3 if dtype == np.float32 else 1e6)
    mixture = jgmm.make_mixture(
        *(np.asarray(a, dtype) for a in parameters[:2]),
        np.ones(2, dtype) if name == "spherical" else np.asarray(parameters[2], dtype),
        name,
    )
    assert not cancellation.is_safe(mixture)
    _, resp = oracle.e_step(x, *parameters)
    _, _, expected = oracle.m_step(x, resp, name)

    def error(form):
        sums = jgmm.accumulate(mixture, x.astype(dtype), form=form)
        found = jgmm.em.maximize(sums, name).covariances
        return float(np.abs(np.asarray(found, np.float64) - expected).max())

    assert error("auto") == error("difference") < 1e-3 * expected.max()
    assert not error("product") < 30 * error("difference")  # else the guard guards nothing


def nearly_collinear(dtype, correlation):
    """One component at the origin whose columns nearly determine each other, and samples."""
    rng, d = np.random.default_rng(2), 3
    covariance = np.full((d, d), correlation) + (1 - correlation) * np.eye(d)
    x = rng.multivariate_normal(np.zeros(d), covariance, size=N).astype(dtype)
    return x.astype(np.float64), (np.ones(1), np.zeros((1, d)), covariance[None])


@pytest.mark.parametrize("name", ["full", "tied"])
def test_columns_that_nearly_determine_each_other_keep_their_digits(name, dtype):
    """Nothing is far from the origin, and yet the products of columns cancel."""
    x, parameters = nearly_collinear(dtype, 1 - (1e-6 if dtype == np.float32 else 1e-12))
    weights, means, covariances = (np.asarray(a, dtype) for a in parameters)
    mixture = jgmm.make_mixture(weights, means, covariances, name)
    digits = cancellation.assess(mixture)
    assert not digits.safe
    # The factor as the dtype holds it is the truth; NumPy's inverse in float64 would not do.
    factor, z = np.asarray(mixture.cholesky[0], np.longdouble), x.astype(np.longdouble)
    for row in range(3):  # forward substitution: z = L⁻¹ x
        z[:, row] = (x[:, row] - z[:, :row] @ factor[row, :row]) / factor[row, row]
    log_det = np.log(np.diagonal(factor)).sum()
    expected = -0.5 * (z**2).sum() - N * (log_det + 1.5 * np.log(2 * np.longdouble(np.pi)))

    def error(form):
        found = jgmm.accumulate(mixture, x.astype(dtype), form=form).log_likelihood
        return abs(float(found) - expected)

    # Whitening loses the square root of what products lose: one factor of the covariance, not two.
    lost = float(cancellation.lost_digits(mixture)[0])
    limit = N * float(np.finfo(dtype).eps) * np.sqrt(lost)
    assert error("auto") == error("difference") < limit
    if name == "full":  # a shared quadratic part is taken from whitened samples, and is exact
        assert error("product") > 10 * limit  # else the guard guards nothing


def test_roundings_are_variance_inflation_and_squared_distance(dtype):
    covariance = np.array([[4.0, 2.4], [2.4, 4.0]])  # correlation 0.6: both factors 1 / 0.64
    mixture = jgmm.make_mixture(
        np.ones(1, dtype), np.array([[3.0, 0.0]], dtype), covariance[None].astype(dtype)
    )
    expected = 2 / 0.64 + 9 / (4 * 0.64)
    np.testing.assert_allclose(cancellation.lost_digits(mixture), [expected], rtol=1e-5)


def test_safety_depends_on_the_coordinates_of_the_mixture(dtype):
    mixture = given("full", dtype)
    assert cancellation.is_safe(mixture)
    assert not cancellation.is_safe(
        jgmm.mixture.change_coordinates(mixture, jnp.full(D, 1e5, dtype), jnp.ones(D, dtype))
    )
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, mixture)
    assert not cancellation.is_safe(broken)
    # A component that is switched off does not matter.
    off = jgmm.Mixture(
        mixture.log_weights.at[0].set(-jnp.inf), mixture.means.at[0].set(1e6), mixture.scale, "full"
    )
    assert cancellation.is_safe(off)


@pytest.mark.parametrize("name", oracle.FREE)
def test_at_the_limit_of_safety_products_agree_with_differences(name, dtype):
    x, parameters = narrow_and_far(dtype, 19.0)  # 19² is inside float32's limit of 400 and more
    covariances = np.ones(2) if name == "spherical" else parameters[2]
    if name == "EII":
        covariances = np.ones(1)
    if name == "EEI":
        covariances = np.ones((1, 2))
    mixture = jgmm.make_mixture(
        *(np.asarray(a, dtype) for a in parameters[:2]), np.asarray(covariances, dtype), name
    )
    assert cancellation.is_safe(mixture)
    samples = make_samples(x.astype(dtype))
    by = {form: jgmm.accumulate(mixture, samples, form=form) for form in ("product", "difference")}
    a, b = (jgmm.em.maximize(by[form], name).covariances for form in by)
    # Squares of 19 lose a factor of 400 over the roundings of a sum.
    limit = 1e-3 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(a, b, atol=limit)
    np.testing.assert_allclose(
        by["product"].log_likelihood, by["difference"].log_likelihood, rtol=limit / 10
    )


def test_only_the_run_that_needs_differences_takes_them(dtype):
    """In a batch of a mixture of narrow components far out and one that products are safe for."""
    x, (weights, means, covariances) = narrow_and_far(dtype, 1e3 if dtype == np.float32 else 1e6)
    far = jgmm.make_mixture(*(np.asarray(a, dtype) for a in (weights, means, covariances)))
    wide = np.broadcast_to(np.cov(x.T), (2, 2, 2))
    near = jgmm.make_mixture(*(np.asarray(a, dtype) for a in (weights, means / 2, wide)))
    assert cancellation.is_safe(near)
    assert not cancellation.is_safe(far)
    samples, method = make_samples(x.astype(dtype)), EM(5)
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), method.init(near), method.init(far))
    found, digits = jax.jit(lambda states: method.e_step(states, samples))(states)
    np.testing.assert_array_equal(digits.safe, [True, False])
    for state, (mixture, form) in enumerate([(near, "product"), (far, "difference")]):
        expected = jgmm.accumulate(mixture, samples, form=form)
        np.testing.assert_array_equal(found.center[state], expected.center)
        np.testing.assert_allclose(found.second[state], expected.second, rtol=1e-4)
        np.testing.assert_allclose(found.log_likelihood[state], expected.log_likelihood, rtol=1e-5)


def test_products_are_used_on_the_way_and_differences_at_the_end():
    """Sixty deviations out, products lose the last digits that float32 has; the result does not."""
    x, (weights, means, covariances) = narrow_and_far(np.float32, 60.0)
    start = jgmm.make_mixture(
        *(
            np.asarray(a, np.float32)
            for a in (weights, means + np.array([2.0, 3.0]), 9 * covariances)
        )
    )
    samples, method = make_samples(x.astype(np.float32)), EM(100)
    control = make_control(np.float32, None, None, 0.0)
    step = jax.jit(lambda states: method.step(states, samples, control))
    states, forms = jax.tree.map(lambda leaf: leaf[None], method.init(start)), []
    while int(states.status[0]) == jgmm.Status.RUNNING:
        digits = cancellation.assess(jax.tree.map(lambda leaf: leaf[0], states.mixture))
        forms.append((bool(digits.safe), bool(digits.approximate and not states.use_exact[0])))
        states = step(states)
    assert int(states.status[0]) == jgmm.Status.CONVERGED
    # Wide components are safe; then narrow ones are rough, and at last neither will do.
    assert forms == sorted(forms, reverse=True)
    assert set(forms) == {(True, False), (False, True), (False, False)}
    mixture = jax.tree.map(lambda leaf: leaf[0], states.mixture)
    by = {form: jgmm.accumulate(mixture, samples, form=form) for form in ("product", "difference")}
    assert states.log_likelihood[0] == by["difference"].log_likelihood
    assert states.log_likelihood[0] != by["product"].log_likelihood
    _, resp = oracle.e_step(x, weights, means, covariances)
    expected = oracle.m_step(x, resp, "full")
    np.testing.assert_allclose(mixture.means, expected[1], rtol=1e-6)
    np.testing.assert_allclose(mixture.covariances, expected[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["full", "spherical"])
def test_a_step_to_far_narrower_components_is_no_collapse(name, dtype):
    """Products are safe for the wide start of k-means, but blur the narrow clusters it leads to."""
    distance = 1e4 if dtype == np.float32 else 1e8
    x, parameters = narrow_and_far(dtype, distance / 2)
    result = jgmm.fit(jax.random.key(0), x.astype(dtype), 2, covariance=name)
    assert int(result.status) == jgmm.Status.CONVERGED
    assert not cancellation.is_safe(result.mixture)
    expected = oracle.m_step(x, oracle.e_step(x, *parameters)[1], name)
    order = np.argsort(-np.asarray(result.mixture.means)[:, 0])
    # Seen in one frame, samples keep what their distance leaves of the digits.
    left = distance * np.finfo(dtype).eps
    np.testing.assert_allclose(result.mixture.covariances[order], expected[2], atol=left)
    np.testing.assert_allclose(result.mixture.means[order], expected[1], atol=2 * left)


@pytest.mark.parametrize("d", [2, 50])
def test_the_limit_of_safety_grows_with_the_columns(d, dtype):
    limit = cancellation.SAFE_LOSS[str(dtype)] + 32 * d
    for factor, expected in ((0.99, True), (1.01, False)):
        # A unit variance costs each column one rounding, the mean its square.
        mean = np.full((1, d), np.sqrt(factor * limit / d - 1), dtype)
        one = jgmm.make_mixture(np.ones(1, dtype), mean, np.ones(1, dtype), "spherical")
        assert bool(cancellation.is_safe(one)) is expected
