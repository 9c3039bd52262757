"""The table of covariance models: names, parameter counts, storage, estimates."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from marks import in_double

import jgmm
from jgmm._core.errors import DataError
from jgmm.covariance.models import _BY_NAME, MODELS, model, register
from jgmm.covariance.storage import Full

K, D = 3, 4


@pytest.fixture(scope="module")
def limit(dtype):
    """Of errors relative to the deviations of the columns, by the name of the model.

    Rounding for closed forms; the root of it where iterations stop once there is no more than a
    rounding of the log-likelihood to gain.
    """
    eps = float(np.finfo(dtype).eps)
    iterated = {4: 1e-2, 8: 1e-5}[dtype.itemsize]
    return {name: iterated if name in oracle.ITERATED else 500 * eps for name in oracle.NAMES}


@functools.cache
def estimator(name):
    """The estimate of counts, scatter matrices and scale before, as covariance matrices."""
    entry = model(name)

    @jax.jit
    def estimate(counts, scatter, before):
        stored = entry.pool(entry.storage.from_dense(scatter))
        scale = entry.estimate(counts, stored, before)
        dense = entry.storage.to_dense(scale, scatter.shape[-1])
        sigma = dense @ dense.mT
        return jnp.broadcast_to(sigma, scatter.shape), scale

    return estimate


def estimate(name, counts, scatter, before=None):
    return np.asarray(estimator(name)(counts, scatter, before)[0], np.float64)


def close(found, expected, limit):
    """Covariances are the same but for so much of the deviations of their columns."""
    found, expected = (np.asarray(a, np.float64) for a in (found, expected))
    deviation = np.sqrt(np.diagonal(expected, axis1=-2, axis2=-1))
    unit = deviation[..., :, None] * deviation[..., None, :]
    np.testing.assert_allclose(found / unit, expected / unit, rtol=0, atol=limit)


def has_form(covariances, name):
    """Whether covariances are their own restriction to the model."""
    return np.allclose(oracle.restrict(covariances, name), covariances, rtol=1e-6, atol=1e-6)


def score(counts, scatter, covariances):
    """Expected complete-data log-likelihood of covariances, but for a constant."""
    return -0.5 * sum(
        n * np.linalg.slogdet(sigma)[1] + np.trace(np.linalg.solve(sigma, s))
        for n, s, sigma in zip(
            *(np.asarray(a, np.float64) for a in (counts, scatter, covariances)), strict=True
        )
    )


def random_scatter(seed, dtype=np.float64):
    """Counts (K,) and scatter matrices (K, D, D)."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(K, D, 10))
    counts = rng.uniform(3, 20, size=K)
    return jnp.asarray(counts, dtype), jnp.asarray(root @ root.transpose(0, 2, 1), dtype)


def random_scale(name, seed, dtype=np.float64):
    """The scale of random covariances of the model."""
    truth = oracle.parameters(seed, k=K, d=D, model=name)
    return jgmm.make_mixture(*(a.astype(dtype) for a in truth), name).scale


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("full", "general", "VVV"), "VVV"),
        (("tied", "EEE"), "EEE"),
        (("diag", "aligned", "VVI"), "VVI"),
        (("spherical", "VII"), "VII"),
        (("EEI",), "EEI"),
        (("EII", "E"), "EII"),
        (("spherical", "V"), "VII"),
        (("VEV",), "VEV"),
    ],
)
def test_names(names, code):
    assert {model(name) for name in names} == {MODELS[code]}
    assert model(code).code == code


def test_the_name_of_every_model_finds_it():
    assert [model(entry.name) for entry in MODELS.values()] == list(MODELS.values())


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("ful", "full"), ("sferical", "spherical"), ("VVVV", "VVV")]
)
def test_an_unknown_name_is_refused_with_the_nearest(wrong, nearest):
    with pytest.raises(ValueError, match=f"{wrong!r}.*Did you mean {nearest!r}.*Known: .*diag"):
        model(wrong)


def test_an_unknown_name_like_no_other_lists_them_all():
    with pytest.raises(ValueError, match=r"Known: .*full") as raised:
        model("qqqq")
    assert "Did you mean" not in str(raised.value)


# What the letters say.


def test_there_are_fourteen():
    assert set(MODELS) == set(oracle.MODELS)
    assert {code: entry.name for code, entry in MODELS.items()} == oracle.MODELS


@pytest.mark.parametrize(
    ("code", "published", "expected"),
    [
        ("EII", 9, 1),
        ("VII", 11, 3),
        ("EEI", 10, 4),
        ("VEI", 12, 6),
        ("EVI", 12, 10),
        ("VVI", 14, 12),
        ("EEE", 11, 10),
        ("VEE", 13, 12),
        ("EVE", 13, 16),
        ("VVE", 15, 18),
        ("EEV", 13, 22),
        ("VEV", 15, 24),
        ("EVV", 15, 28),
        ("VVV", 17, 30),
    ],
)
def test_parameter_counts(code, published, expected):
    """All of a mixture for D = 2 and K = 3, as mclust counts; of the covariances for D = 4."""
    assert MODELS[code].n_parameters(3, 2) == published
    assert MODELS[code].n_parameters(3, 2, equal_weights=True) == published - 2
    assert MODELS[code].count(K, D) == expected
    assert MODELS[code].n_parameters(K, D) == expected + 2 + 12


def test_parameter_counts_of_one_component_are_those_of_one_gaussian():
    for code, entry in MODELS.items():
        assert entry.count(1, D) == {"I": 1, "E": 4, "V": 4}[code[1]] + 6 * (code[2] != "I")


@pytest.mark.parametrize("name", oracle.NAMES)
def test_parameter_count_is_the_dimension_of_the_model(name):
    """As many independent directions lead from an estimate to others of the model."""
    rng, h = np.random.default_rng(0), 1e-4
    found = estimate(name, *random_scatter(0))
    directions = []
    for _ in range(60):
        at = oracle.curve(rng, found, name)
        directions.append(((at(h) - at(-h)) / (2 * h)).ravel())
    values = np.linalg.svd(np.array(directions))[1]
    assert (values > 1e-4 * values[0]).sum() == model(name).count(K, D)


@pytest.mark.parametrize("name", oracle.NAMES)
def test_in_one_dimension_there_are_two(name):
    """One variance for all, or one each; what the letters say of shape and axes says nothing."""
    counts, scatter = random_scatter(1)
    scatter = scatter[:, :1, :1]
    found = estimate(name, counts, scatter)[:, 0, 0]
    own, pooled = scatter[:, 0, 0] / counts, scatter.sum() / counts.sum()
    varies = oracle.CODES[name][0] == "V"
    np.testing.assert_allclose(found, own if varies else np.full(K, pooled), rtol=1e-12)
    assert model(name).count(K, 1) == (K if varies else 1)


@pytest.mark.parametrize("name", oracle.NAMES)
def test_which_models_keep_their_form_when_columns_change_their_units(name):
    sigma = oracle.parameters(3, k=K, d=D, model=name)[2]
    assert has_form(sigma, name)
    unit = np.array([2.0, 0.5, 1.0, 10.0])
    assert has_form(unit[:, None] * sigma * unit[None, :], name) == model(name).per_column
    assert has_form(4 * sigma, name)


@pytest.mark.parametrize("name", oracle.NAMES)
def test_which_models_keep_their_form_when_columns_are_left_out(name):
    sigma = oracle.parameters(3, k=K, d=D, model=name)[2]
    left = sigma[:, :3, :3]
    assert has_form(left, name) == model(name).keeps_marginals
    assert has_form(left, model(name).marginal_model.name)
    given = np.linalg.inv(np.linalg.inv(sigma)[:, :3, :3])
    assert has_form(given, model(name).marginal_model.name)
    if not model(name).keeps_marginals:
        assert model(name).marginal_model.storage is model(name).storage


@pytest.mark.parametrize("name", oracle.NAMES)
def test_models_that_fill_their_storage(name):
    assert model(name).fills_storage(K, D) == (name in oracle.FREE)
    if name not in ("EII", "spherical", "EEI"):  # one component is one Gaussian
        assert model(name).fills_storage(1, D)


# Estimates.


@pytest.mark.parametrize("name", oracle.NAMES)
def test_estimate_is_the_textbook(name, dtype, limit):
    counts, scatter = random_scatter(1, dtype)
    found, scale = estimator(name)(counts, scatter, None)
    entry = model(name)
    assert scale.shape[0] == (1 if entry.shared else K)
    assert scale.ndim == entry.storage.ndim
    assert scale.dtype == dtype
    exact = (np.asarray(a, np.float64) for a in (counts, scatter))
    close(found, oracle.fit_covariances(*exact, name), limit[name])


@in_double
@pytest.mark.parametrize("name", oracle.NAMES)
def test_estimate_has_the_form_of_the_model(name, dtype):
    """From a scale before too; and a covariance factor is lower triangular."""
    for seed in range(3):
        counts, scatter = random_scatter(seed, dtype)
        found, scale = estimator(name)(counts, scatter, random_scale(name, seed, dtype))
        found = np.asarray(found, np.float64)
        close(oracle.restrict(found, name), found, 2000 * np.finfo(dtype).eps)
        if model(name).storage is Full:
            np.testing.assert_array_equal(scale, jnp.tril(scale))
            assert (np.diagonal(scale, axis1=1, axis2=2) > 0).all()


@pytest.mark.parametrize("name", oracle.NAMES)
def test_estimate_is_stationary_within_the_model(name):
    """The score falls along every curve of the model that leaves it, and begins level."""
    rng, h = np.random.default_rng(2), 1e-3
    for seed in range(3):
        counts, scatter = random_scatter(seed)
        found = estimate(name, counts, scatter)
        for _ in range(10):
            at = oracle.curve(rng, found, name)
            ahead, here, behind = (score(counts, scatter, at(t)) for t in (h, 0, -h))
            slope = (ahead - behind) / (2 * h)
            # A step h away the curve has fallen by about h² N; the slope is off by as little as
            # the axes are, a millionth.
            assert here > max(ahead, behind)
            assert abs(slope) < 1e-4 * float(counts.sum())


@pytest.mark.parametrize("name", oracle.NAMES)
def test_estimate_is_no_lower_than_the_scale_before(name, dtype):
    for seed in range(10):
        counts, scatter = random_scatter(seed, dtype)
        before = random_scale(name, 100 + seed, dtype)
        dense = np.asarray(model(name).storage.to_dense(before, D), np.float64)
        sigma = np.broadcast_to(dense @ dense.transpose(0, 2, 1), scatter.shape)
        was = score(counts, scatter, sigma)
        found = estimate(name, counts, scatter, before)
        now = score(counts, scatter, found)
        slack = 50 * np.finfo(dtype).eps * abs(was)
        assert now > was - slack
        # Again from there: an estimate is all but its own estimate.
        after = estimator(name)(counts, scatter, before)[1]
        again = score(counts, scatter, estimate(name, counts, scatter, after))
        assert again > now - slack


@pytest.mark.parametrize("name", oracle.ITERATED)
def test_from_the_scale_before_it_ends_where_it_would_without(name):
    """Step by step, on scatter near a covariance of the model, where there is one optimum."""
    truth = oracle.parameters(5, k=K, d=D, model=name)[2]
    rng, counts = np.random.default_rng(0), np.array([30.0, 50.0, 20.0])
    x = rng.normal(size=(K, 200, D)) @ np.linalg.cholesky(truth).transpose(0, 2, 1)
    scatter = counts[:, None, None] / 200 * (x.transpose(0, 2, 1) @ x)
    scale = random_scale(name, 5)
    for _ in range(20):
        found, scale = estimator(name)(counts, scatter, scale)
    close(np.asarray(found), estimate(name, counts, scatter), 1e-5)


@in_double
@pytest.mark.parametrize("name", oracle.NAMES)
def test_a_component_without_samples_gets_the_unit_covariance(name, dtype, limit):
    """And the others what they would get without it."""
    counts, scatter = random_scatter(3, dtype)
    off = jnp.asarray([True, False, False])
    counts = jnp.where(off, 0, counts)
    scatter = jnp.where(off[:, None, None], 0, scatter)
    for before in (None, random_scale(name, 3, dtype)):
        found = estimate(name, counts, scatter, before)
        assert np.isfinite(found).all()
        if not model(name).shared:
            np.testing.assert_array_equal(found[0], np.eye(D))
        if before is None:
            exact = [np.asarray(a, np.float64)[1:] for a in (counts, scatter)]
            close(found[1:], oracle.fit_covariances(*exact, name), limit[name])


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("name", oracle.NAMES)
def test_a_singular_scatter_ends_and_spoils_no_regular_component(name, rank, dtype):
    """A small one: with more than its share of the dimensions it would drag the others along."""
    counts, scatter = random_scatter(4, dtype)
    counts = counts.at[0].set(1)
    thin = np.zeros((D, rank)) + np.random.default_rng(0).normal(size=(D, rank))
    scatter = scatter.at[0].set(jnp.asarray(thin @ thin.T, dtype))
    found = estimate(name, counts, scatter, random_scale(name, 4, dtype))
    assert np.isfinite(found[1:]).all()
    assert (np.linalg.eigvalsh(found[1:]) > 0).all()


@pytest.mark.parametrize("name", oracle.ITERATED)
def test_a_scatter_that_is_nothing_but_singular_or_nan_ends(name, dtype):
    """With whatever: here it is only asked to come back."""
    counts, scatter = random_scatter(4, dtype)
    flat = scatter.at[:, 0].set(0).at[:, :, 0].set(0)
    before = random_scale(name, 4, dtype)
    for broken in (flat, 0 * scatter, jnp.nan * scatter):
        for scale in (None, before, jnp.nan * before, 0 * before):
            assert estimate(name, counts, broken, scale).shape == (K, D, D)


@pytest.mark.parametrize("name", oracle.NAMES)
def test_estimates_are_batched(name):
    """Under vmap all fits iterate until the slowest ends, and each ends where it would alone."""
    states = [(*random_scatter(seed), random_scale(name, 3 + seed)) for seed in range(3)]
    found = jax.vmap(estimator(name))(*map(jnp.stack, zip(*states, strict=True)))[0]
    for state, alone in enumerate(states):
        close(np.asarray(found[state]), estimate(name, *alone), 1e-12)


@pytest.mark.parametrize("name", oracle.NAMES)
def test_components_have_no_order_and_samples_no_unit(name, dtype, limit):
    counts, scatter = random_scatter(6, dtype)
    order = np.array([2, 0, 1])
    found = estimate(name, counts, scatter)
    close(estimate(name, counts[order], scatter[order]), found[order], limit[name])
    close(estimate(name, counts, 4 * scatter), 4 * found, limit[name])
    close(estimate(name, 2 * counts, 2 * scatter), found, limit[name])


@pytest.mark.parametrize("name", oracle.NAMES)
def test_columns_have_no_order(name, dtype, limit):
    counts, scatter = random_scatter(7, dtype)
    order = np.array([3, 0, 2, 1])
    found = estimate(name, counts, scatter)
    turned = estimate(name, counts, scatter[:, order][:, :, order])
    close(turned, found[:, order][:, :, order], limit[name])


@pytest.mark.parametrize("name", oracle.NAMES)
def test_where_all_are_alike_all_models_are_one(name, dtype, limit):
    """Scatter of one form for all components: tied is full, and whatever is freer is no freer."""
    counts, scatter = random_scatter(8, dtype)
    alike = scatter[0] / counts[0]
    expected = np.asarray(alike, np.float64)
    code = model(name).code
    if code[2] == "I":
        expected = np.diag(np.diagonal(expected))
    if code[1] == "I":
        expected = np.trace(expected) / D * np.eye(D)
    found = estimate(name, counts, counts[:, None, None] * alike[None])
    close(found, np.broadcast_to(expected, found.shape), limit[name])
    # One component that has all the samples has their moments.
    alone = jnp.asarray([1, 0, 0], dtype)
    found = estimate(name, alone * counts, (alone * counts)[:, None, None] * alike[None])
    close(found[0], expected, limit[name])


FREEDOM = "IEV"
NESTED = [
    (small, large)
    for small in MODELS
    for large in MODELS
    if small != large
    and all(FREEDOM.index(a) <= FREEDOM.index(b) for a, b in zip(small, large, strict=True))
]


def test_a_model_within_another_fits_no_better(dtype):
    """So AIC and BIC of the larger are never worse by more than what its parameters cost.

    Of axes in common there may be several optima: those start from the smaller model's, which the
    larger may keep.
    """
    assert ("EII", "VVV") in NESTED
    assert ("EEE", "VVI") not in NESTED
    for seed in range(3):
        counts, scatter = random_scatter(20 + seed, dtype)
        found = {code: estimate(model(code).name, counts, scatter) for code in MODELS}
        for small, large in NESTED:
            sigma = found[large]
            if large in ("EVE", "VVE"):
                before = jnp.asarray(np.linalg.cholesky(found[small]), dtype)
                sigma = estimate(model(large).name, counts, scatter, before)
            lower, upper = (score(counts, scatter, each) for each in (found[small], sigma))
            assert upper > lower - 50 * np.finfo(dtype).eps * abs(lower)


@pytest.mark.parametrize("code", ["VEVE", "VV", "IV", ""])
def test_a_code_of_the_familys_letters_alone_is_refused(code):
    """It would count as volume, shape and orientation, and be a special case of what it is not."""
    with pytest.raises(DataError, match=f"letters E, V and I alone.*{code!r} does"):
        register(dataclasses.replace(model("full"), code=code, names=("mine",)))
    assert "mine" not in _BY_NAME
    assert code not in MODELS


@pytest.mark.parametrize("code", ["VAR", "X", "diag+V", "mine"])
def test_letters_of_another_code_say_nothing(code):
    entry = dataclasses.replace(model("full"), code=code, names=("mine",))
    assert not entry.in_family
    assert not entry.supports_floor  # raised one by one, its covariances might lose their form
    assert entry.min_samples(4) == 0
