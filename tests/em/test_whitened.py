"""Whitened differences: the statistics of wide samples, against loops and the other forms."""

from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from statistics_cases import close

import jgmm
from jgmm._core import budget
from jgmm._data.samples import make_samples
from jgmm.covariance.models import model
from jgmm.em import e_step, whitened
from jgmm.em.algorithm import EM
from jgmm.em.statistics import Statistics
from jgmm.mixture.noise import NoiseDensity

K, D, N = 4, 11, 90
SMALL = {"MIN_WHITENED_COLUMNS": 5, "WIDE_COLUMNS": 5, "MIN_PANEL_ROWS": 4, "GROUP_ROWS": 10}
WEIGHT = np.resize([1.0, 2.0, 0.0, 0.5], N)
LABELS = np.where(np.arange(N) % 3, -1, np.arange(N) % K)


USUAL = {name: getattr(budget, name) for name in SMALL}


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Few columns in several panels, few samples in several groups."""
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(budget, name, value)
        yield
    jax.clear_caches()


def given(name, dtype, spread):
    """A mixture whose means are apart by so many deviations, and samples of it."""
    weights, means, covariances = oracle.parameters(5, k=K, d=D, model=name)
    means = spread * means
    x = oracle.draw(6, N, weights, means, covariances).astype(dtype)
    mixture = jgmm.make_mixture(*(a.astype(dtype) for a in (weights, means, covariances)), name)
    return mixture, x, (weights, means.astype(dtype).astype(float), covariances)


@pytest.mark.parametrize(("spread", "block_size"), [(0.3, None), (30.0, None), (30.0, 40)])
@pytest.mark.parametrize("name", ["full", "tied"])
def test_statistics_are_the_loops(name, spread, block_size, dtype, tolerance):
    mixture, x, truth = given(name, dtype, spread)
    samples = make_samples(x, WEIGHT.astype(dtype), LABELS)
    found = jgmm.accumulate(mixture, samples, None, block_size, "difference")
    exact = x.astype(float)
    log_prob, resp = oracle.e_step(exact, *truth)
    known = LABELS >= 0  # a known sample counts for its component, with the joint density
    weights, means, covariances = truth
    joint = [
        np.log(weights[k]) + oracle.log_gaussian(row, means[k], covariances[k])
        for row, k in zip(exact, LABELS, strict=True)
    ]
    resp = np.where(known[:, None], np.arange(K) == LABELS[:, None], resp)
    log_prob = np.where(known, joint, log_prob)
    counts, first, second = oracle.statistics(exact, resp, truth[1], WEIGHT)
    if mixture.model.shared:
        second = second.sum(axis=0, keepdims=True)
    expected = Statistics(truth[1], counts, first, second, log_prob @ WEIGHT, WEIGHT**2 @ resp)
    # Squares of thirty deviations stand in a sum of eleven.
    close(found, expected, {key: 30 * value for key, value in tolerance.items()})


def test_zero_responsibilities_are_left_out_and_nothing_else(dtype):
    mixture, x, _ = given("full", dtype, 30.0)
    of = whitened.components(mixture)
    bound = whitened.first_scores(of, jnp.asarray(x))
    groups = whitened.group(jnp.asarray(x), bound, jnp.ones(N, dtype), jnp.arange(N))
    assert groups.x.shape == (9, 10, D)
    found = whitened.scores(of, groups)
    joint = jgmm.e_step(mixture, x)
    expected = jnp.moveaxis((joint.log_resp + joint.log_prob[:, None])[groups.rows], 2, 0)
    left_out = found == -jnp.inf
    assert 0.3 < left_out.mean() < 0.8  # of four components, those of the group are needed
    np.testing.assert_allclose(found[~left_out], expected[~left_out], rtol=1e-4)
    exponentials = jnp.exp(expected - expected.max(axis=0)[None])
    np.testing.assert_array_equal(exponentials[left_out], 0)
    # What is near enough to count is never left out, however its group is chosen.
    near, y, _ = given("full", dtype, 0.3)
    of = whitened.components(near)
    bound = whitened.first_scores(of, jnp.asarray(y))
    groups = whitened.group(jnp.asarray(y), bound, jnp.ones(N, dtype), jnp.arange(N))
    assert np.isfinite(whitened.scores(of, groups)).all()


@pytest.mark.parametrize("n", [1, 19, 20, 90, 91])
def test_every_sample_is_in_one_group(n, dtype):
    x = np.random.default_rng(n).normal(size=(n, D)).astype(dtype)
    weights = np.arange(1, n + 1).astype(dtype)
    bound = jnp.asarray(x[:, :K].T)
    groups = whitened.group(jnp.asarray(x), bound, jnp.asarray(weights), jnp.arange(n))
    np.testing.assert_array_equal(np.sort(groups.weights[groups.weights > 0]), weights)
    np.testing.assert_array_equal(x[groups.rows], groups.x)
    label = np.argmax(np.asarray(groups.bound), axis=0)[np.asarray(groups.weights) > 0]
    assert len(groups.x) == 1 or (np.diff(label) >= 0).all()


@pytest.mark.parametrize("d", [1, 3, 4, 63, 64, 100, 784])
def test_panels_cover_the_lower_triangle(d, monkeypatch):
    monkeypatch.setattr(budget, "MIN_PANEL_ROWS", USUAL["MIN_PANEL_ROWS"])
    rows = whitened.panels(d)
    assert [start for start, _ in rows] + [d] == [0] + [stop for _, stop in rows]
    assert len(rows) == min(max(d // 64, 1), 4)
    full = np.random.default_rng(0).normal(size=(2, d, d))
    full = full + full.transpose(0, 2, 1)
    parts = tuple(jnp.asarray(full[:, start:stop, :stop]) for start, stop in rows)
    np.testing.assert_array_equal(whitened.join_panels(parts), full)


@pytest.mark.parametrize("name", ["full", "tied"])
def test_forms_agree_with_noise_and_under_vmap(name, dtype, tolerance):
    samples = make_samples(given(name, dtype, 1.0)[1], WEIGHT.astype(dtype), LABELS)
    mixtures = [given(name, dtype, spread)[0] for spread in (0.8, 1.0)]
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *mixtures)
    noise = NoiseDensity(jnp.asarray(-30.0, dtype), jnp.asarray(np.log(0.8), dtype))

    def by(form, mixture):
        return e_step.accumulate(mixture, samples, None, None, form, noise)

    wider = {key: 30 * value for key, value in tolerance.items()}
    together = {form: jax.vmap(partial(by, form))(both) for form in ("difference", "product")}
    for run, mixture in enumerate(mixtures):
        a, b = (jax.tree.map(itemgetter(run), together[form]) for form in together)
        close(a, by("difference", mixture), wider)
        # Products are about the origin: compare what the M-step makes of the moments.
        np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=wider["rtol"])
        close(jgmm.em.maximize(a, name), jgmm.em.maximize(b, name), wider)


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_gradients_are_those_of_the_density(spread, dtype, tolerance):
    mixture, x, _ = given("full", dtype, spread)

    def by(function):
        return jax.grad(
            lambda means: function(
                jgmm.Mixture(mixture.log_weights, means, mixture.scale, "full")
            ).sum()
        )(mixture.means)

    found = by(lambda moved: jgmm.accumulate(moved, x, form="difference").log_likelihood)
    expected = by(lambda moved: jgmm.log_prob(moved, x))
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, atol=30 * tolerance["atol"] * scale)
    second = by(lambda moved: jgmm.accumulate(moved, x, form="difference").second)
    again = by(lambda moved: e_step.accumulate(moved, x, None, 7, "difference").second)
    np.testing.assert_allclose(
        second, again, atol=30 * tolerance["atol"] * float(np.abs(again).max())
    )


def test_a_row_that_is_no_number_is_seen(dtype):
    mixture, x, _ = given("full", dtype, 30.0)
    samples = make_samples(x)
    spoiled = type(samples)(samples.x.at[3].set(jnp.nan), None, samples.frame)
    assert np.isnan(e_step.accumulate(mixture, spoiled).log_likelihood)
    switched = jgmm.Mixture(
        mixture.log_weights.at[1].set(-jnp.inf), mixture.means, mixture.scale, "full"
    )
    found = e_step.accumulate(switched, samples)
    for leaf in (found.counts, found.first, found.second):
        np.testing.assert_array_equal(leaf[1], 0)
        assert np.isfinite(leaf).all()


def test_runs_of_em_are_those_of_products(dtype, tolerance):
    starts = [given("full", dtype, spread)[0] for spread in (0.9, 1.0)]
    samples, method = make_samples(given("full", dtype, 1.0)[1]), EM(5)
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(method.init, starts))
    found, precision = jax.jit(lambda states: method.e_step(states, samples))(states)
    assert not (precision.safe | precision.approximate).any()  # as after differences
    for run, start in enumerate(starts):
        one = jgmm.accumulate(start, samples, form="product")
        expected = jgmm.em.maximize(one, "full")
        np.testing.assert_array_equal(found.center[run], start.means)
        updated = jgmm.em.maximize(jax.tree.map(itemgetter(run), found), "full")
        close(updated, expected, {key: 30 * value for key, value in tolerance.items()})


def test_the_cheaper_form_is_chosen(monkeypatch):
    for setting, value in USUAL.items():
        monkeypatch.setattr(budget, setting, value)
    choose = partial(e_step.prefers_differences, model("full"))
    assert [choose(d, 10) for d in (2, 16, 32, 40, 64, 200, 784)] == [False] * 4 + [True] * 3
    assert choose(40, 3)  # few components share the features
    assert not choose(64, 10, 32)  # many runs share them
    assert choose(200, 10, 32)  # and here they do not fit into the cache
    for name in ("tied", "diag", "spherical", "EEI", "EII", "VVI"):
        assert not e_step.prefers_differences(model(name), 784, 10)
    for name in ("VVE", "EVV", "VEV"):
        assert e_step.prefers_differences(model(name), 200, 10)
