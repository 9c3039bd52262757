"""The units of the data do not show: squares in them may vanish or overflow.

Units are powers of two, in which the same numbers come out of a program, bit by bit where nothing
but a logarithm depends on the unit. In float32 the small unit is 2⁻⁹⁰ = 8e-28: masses of atoms in
kilograms are such numbers, and their squares are zero.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import in_single

import jgmm
from jgmm import distributed, gradient, kmeans, uncertainty
from jgmm._core.errors import DataError
from jgmm.mixture.mixture import change_coordinates
from jgmm.streaming import online

N, K, D = 60, 2, 2
KEY = jax.random.key(0)
EXPONENTS = {"float32": (-90, 100), "float64": (-600, 800)}
LABELS = np.arange(N) % K


@pytest.fixture(scope="module", params=["small", "large"])
def unit(request, dtype):
    small, large = EXPONENTS[str(dtype)]
    return 2.0 ** (small if request.param == "small" else large)


@pytest.fixture(scope="module")
def x(dtype):
    rng = np.random.default_rng(3)
    return np.concatenate([rng.normal(0, 1, (30, D)), rng.normal(6, 2, (30, D))]).astype(dtype)


def start(x, u):
    one = jgmm.make_mixture([0.5, 0.5], [[0.0, 0.0], [6.0, 6.0]], np.stack([np.eye(D)] * K))
    one = jax.tree.map(lambda leaf: leaf.astype(x.dtype), one)
    return change_coordinates(one, jnp.zeros(D, x.dtype), jnp.full(D, u, x.dtype))


def resp(x):
    return np.eye(K, dtype=x.dtype)[LABELS] * 0.8 + np.asarray(0.1, x.dtype)


def fit(x, covariance="full", **options):
    return jgmm.fit(KEY, x, K, covariance=covariance, n_restarts=2, **options)


def selected(x, u):
    return jgmm.select(KEY, x, [1, 2], ["full", "diag"], n_restarts=2).result


def by_batches(x, u):
    return online.partial_fit(online.start(start(x, u), x[::2]), x[1::2])


# Every way to a mixture; what is returned is a mixture, or has one.
# They take the samples and their unit.
WAYS = {
    "full": lambda x, u: fit(x),
    "diag": lambda x, u: fit(x, "diag"),
    "spherical": lambda x, u: fit(x, "spherical"),
    "VEE": lambda x, u: fit(x, "VEE"),
    "ridge and prior": lambda x, u: fit(x, prior="conjugate", ridge=1e-3),
    "floor": lambda x, u: fit(x, floor=0.05),
    "noise": lambda x, u: fit(x, noise="box"),
    "labels": lambda x, u: jgmm.fit(KEY, x, K, init=LABELS),
    "select": selected,
    "m_step": lambda x, u: jgmm.m_step(x, resp(x)),
    "em_step": lambda x, u: jgmm.em_step(start(x, u), x)[0],
    "run_em": lambda x, u: jgmm.fitting.run_em(start(x, u), x),
    "stream": lambda x, u: jgmm.streaming.fit(KEY, x, K, n_restarts=2, block_rows=16),
    "online": by_batches,
    "mesh": lambda x, u: distributed.fit(KEY, x, K, n_restarts=2, mesh=distributed.make_mesh(1)),
    "gradient": lambda x, u: gradient.fit(KEY, x, K, optimizer=gradient.NaturalGradient()),
    "classifier": lambda x, u: jgmm.classifier.fit(x, LABELS).mixtures,
}


def numbers(found, unit=1.0):
    """Weights, means and scale of what a way returns, in units of one."""
    mixture = getattr(found, "mixture", found)
    leaves = (np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(mixture))
    log_weights, means, scale = leaves
    # Of two restarts that end at one optimum, a rounding decides which is the better.
    order = np.argsort(means[:, 0])
    scale = scale[order] if len(scale) == len(order) else scale
    return np.exp(log_weights)[order], means[order] / unit, scale / unit


_ASKED = {}


def asked(way, x):
    """What a way gives in the units of one; computed once."""
    key = way, str(x.dtype)
    if key not in _ASKED:
        _ASKED[key] = WAYS[way](x, 1)
    return _ASKED[key]


@pytest.mark.parametrize(
    ("dtype", "way"),
    [*(("float32", way) for way in WAYS), ("float64", "full"), ("float64", "stream")],
    indirect=["dtype"],
)
def test_every_way_to_a_mixture(way, x, unit, tolerance):
    expected, found = asked(way, x), WAYS[way](x * x.dtype.type(unit), unit)
    if way == "noise":  # log volume is rounded in another place, and EM stops a step apart
        tolerance = {"rtol": 1e-3, "atol": 1e-3}
    for a, b in zip(numbers(found, unit), numbers(expected), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)
    if hasattr(found, "log_likelihood"):
        volume = N * D * np.log(unit)
        a, b = float(found.log_likelihood) + volume, float(expected.log_likelihood)
        # The logarithm of the volume is the larger number.
        np.testing.assert_allclose(a, b, atol=10 * abs(volume) * np.finfo(x.dtype).eps)
        assert int(found.status) == int(expected.status)
        if way != "noise":
            assert int(found.n_steps) == int(expected.n_steps)


@in_single
@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_one_column_in_small_units(covariance, x, dtype, tolerance):
    unit = 2.0 ** np.array([0, EXPONENTS[str(dtype)][0]])
    found = fit(x * unit.astype(dtype), covariance)
    expected = asked(covariance, x)
    np.testing.assert_allclose(
        np.asarray(found.mixture.means, float) / unit, expected.mixture.means, **tolerance
    )
    np.testing.assert_array_equal(found.status, expected.status)


def test_the_density_of_what_was_fitted(x, unit):
    scaled = x * x.dtype.type(unit)
    found = fit(scaled)
    eps = np.finfo(x.dtype).eps
    size = N * D * abs(np.log(unit))
    total = np.asarray(jgmm.log_prob(found.mixture, scaled), float).sum()
    np.testing.assert_allclose(total, found.log_likelihood, atol=10 * size * eps)
    whole = jgmm.accumulate(found.mixture, scaled)
    np.testing.assert_allclose(whole.log_likelihood, found.log_likelihood, atol=10 * size * eps)
    np.testing.assert_allclose(whole.counts, N * found.mixture.weights, rtol=1e-3)


@in_single
def test_the_log_prior_of_what_was_fitted(x, unit):
    """Λ and all Σₖ in units of u: the density of Σₖ⁻¹ changes by the volume alone."""
    expected = asked("ridge and prior", x)
    found = WAYS["ridge and prior"](x * x.dtype.type(unit), unit)
    volume = K * (2 * D + 4) * D * np.log(unit)
    np.testing.assert_allclose(
        float(found.log_prior) + volume,
        float(expected.log_prior),
        atol=10 * abs(volume) * np.finfo(x.dtype).eps,
    )


def test_kmeans(x, unit, tolerance):
    expected, found = (
        kmeans.fit(KEY, each, K, n_restarts=4) for each in (x, x * x.dtype.type(unit))
    )
    np.testing.assert_array_equal(np.asarray(found.centers) / x.dtype.type(unit), expected.centers)
    for name in ("labels", "status", "n_steps"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.inertia, 0.0 if unit < 1 else np.inf)  # no such number
    labels = kmeans.predict(found.centers, x * x.dtype.type(unit))
    np.testing.assert_array_equal(labels, expected.labels)


def test_the_inertia_is_a_number_where_its_dtype_has_one(x, dtype):
    """The square of the scale alone would not be one."""
    unit = dtype.type(2.0 ** {"float32": -66, "float64": -516}[str(dtype)])
    rows = np.repeat(x, 200, axis=0)
    expected, found = (kmeans.fit(KEY, each, K).inertia for each in (rows, rows * unit))
    assert float(unit) ** 2 < np.finfo(dtype).tiny
    np.testing.assert_allclose(
        np.asarray(found, np.longdouble) / np.longdouble(unit) ** 2, expected, rtol=1e-4
    )


@in_single
def test_standard_errors(x, unit, tolerance):
    errors = []
    for one in (1.0, unit):
        scaled = x * x.dtype.type(one)
        mixture = jgmm.fit(KEY, scaled, 1, tol=0.0).mixture
        exact = uncertainty.standard_errors(mixture, scaled).standard_error
        errors.append((exact.means / one, exact.variances / one / one))
    for a, b in zip(*errors, strict=True):
        np.testing.assert_allclose(b, a, **tolerance)


@in_single
def test_jackknife_of_means(x, tolerance):
    """In small units; derivatives of a fit in units near the largest numbers are not finite."""
    errors = []
    for one in (1.0, 2.0**-90):
        scaled = x * x.dtype.type(one)
        mixture = jgmm.fit(KEY, scaled, 1, tol=0.0).mixture
        found = jgmm.differentiation.jackknife_standard_errors(
            mixture, scaled, of=lambda mixture: mixture.means
        )
        errors.append(np.asarray(found, float) / one)
    np.testing.assert_allclose(errors[1], errors[0], **tolerance)


def test_the_largest_values_are_usable(x, dtype, tolerance):
    largest = np.abs(x).max()
    unit = dtype.type(np.finfo(dtype).max / 17 / largest)
    found = fit(x * unit)
    means = numbers(found, float(unit))[1], numbers(asked("full", x))[1]
    np.testing.assert_allclose(*means, rtol=100 * tolerance["rtol"])
    with pytest.raises(DataError, match="overflowing"):
        fit(x * unit * 2)


@in_single
def test_estimators(x, unit, tolerance):
    from jgmm.estimators import GaussianMixture, KMeans

    scaled, inner = x * x.dtype.type(unit), {"rtol": tolerance["rtol"]}
    both = [KMeans(K, n_init=4, random_state=0).fit(each) for each in (x, scaled)]
    np.testing.assert_allclose(both[1].transform(scaled) / unit, both[0].transform(x), **inner)
    np.testing.assert_allclose(both[1].score(scaled) / unit**2, both[0].score(x), **inner)
    np.testing.assert_array_equal(both[1].predict(scaled), both[0].predict(x))
    means, labels = [], []
    for each in (x, scaled):
        fitted = GaussianMixture(K, reg_covar=0, random_state=0).fit(each)
        means.append(fitted.means_)
        labels.append(fitted.predict(each))
    np.testing.assert_allclose(means[1] / unit, means[0], **tolerance)
    np.testing.assert_array_equal(*labels)
    if unit < 1:
        with pytest.raises(DataError, match="reg_covar=0 and a ridge"):
            GaussianMixture(K, random_state=0).fit(scaled)


@in_single
def test_samples_too_far_from_a_mixture_are_refused_in_its_units(x, dtype):
    for unit in (dtype.type(1), dtype.type(2.0**40)):
        mixture = fit(x * unit).mixture
        reach = unit * np.sqrt(np.finfo(dtype).max)
        assert np.isfinite(jgmm.responsibilities(mixture, np.full((1, D), 0.01 * reach))).all()
        with pytest.raises(DataError, match="overflowing values"):
            jgmm.responsibilities(mixture, np.full((1, D), 100 * reach))
