"""Spurious components, whatever the units; and components that have collapsed."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from marks import in_double

import jgmm
from jgmm._core.status import Status
from jgmm._data.samples import identity
from jgmm.covariance.models import model
from jgmm.em.degeneracy import (
    collapsed_components,
    log_expected,
    mark_degenerate,
    spurious_components,
)
from jgmm.mixture.mixture import Mixture

K, D, N = 3, 2, 300
KEY = jax.random.key(0)
# The fewest samples that make a covariance regular in two columns, from what the letters mean.
LEAST = {
    **dict.fromkeys(("EII", "EEI", "EEE", "EEV"), 0),
    **dict.fromkeys(("VII", "VEI", "EVI", "VVI", "VEE", "EVE", "VVE", "VEV"), 2),
    **dict.fromkeys(("EVV", "VVV"), 3),
}


def with_count(name, count, dtype, thinner=1.0, units=(1.0, 1.0)):
    """A mixture whose first component has so many of N samples, and so much less variance."""
    _, means, covariances = oracle.parameters(2, k=K, d=D, model=name)
    covariances[0] /= thinner
    weights = np.array([count, (N - count) / 2, (N - count) / 2]) / N
    units = np.asarray(units)
    scaled = covariances * units[:, None] * units[None, :]
    entry = model(name)
    scale = np.linalg.cholesky(scaled[:1] if entry.shared else scaled)
    if entry.storage.ndim < 3:
        scale = np.diagonal(scale, axis1=1, axis2=2)
    if entry.storage.ndim < 2:
        scale = scale[:, 0]
    log_weights = jnp.log(jnp.asarray(weights, dtype))
    means, scale = (jnp.asarray(each, dtype) for each in (means * units, scale))
    return jgmm.Mixture(log_weights, means, scale, name)


LABELS = np.repeat([0, 1, 2], 30)


def clusters(seed):
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(size=(30, 2)) + center for center in (-8, 0, 8)])


def counts_of(mixture):
    return N * mixture.weights


@pytest.mark.parametrize("code", LEAST)
def test_a_component_on_fewer_rows_than_its_covariance_takes(code, dtype):
    name, least = oracle.MODELS[code], LEAST[code]
    assert model(name).min_samples(D) == least
    few = with_count(name, max(least - 0.5, 0.5), dtype)
    enough = with_count(name, least + 0.5, dtype)
    assert spurious_components(few, counts_of(few)).tolist() == [least > 0, False, False]
    assert not spurious_components(few, counts_of(few), may_be_few=True).any()
    assert not spurious_components(enough, counts_of(enough)).any()


def test_in_one_column_only_volumes_differ():
    least = {code: model(name).min_samples(1) for code, name in oracle.MODELS.items()}
    assert least == {code: 2 if code[0] == "V" else 0 for code in least}


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_the_number_of_sets_by_chance_is_the_formula(name, dtype):
    mixture = with_count(name, 8.0, dtype, 1e4)
    found = np.asarray(log_expected(mixture, counts_of(mixture)))
    counts = np.asarray(counts_of(mixture), np.float64)
    means, covariances = (
        np.asarray(each, np.float64) for each in (mixture.means, mixture.covariances)
    )
    least = model(name).min_samples(D)

    def log_sets(k, n, mean, covariance):
        own, distance = counts[k], means[k] - mean
        precision = np.linalg.inv(covariance)
        log_ratio = 0.5 * (np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(covariances[k])[1])
        spread = np.trace(precision @ covariances[k]) + distance @ precision @ distance
        share = own / n
        log_number = -n * (share * np.log(share) + (1 - share) * np.log(1 - share))
        return log_number - (own - least + 1) * log_ratio - 0.5 * own * (spread - D)

    weights = counts / N
    center = weights @ means
    spread = np.einsum("k,kd,ke->de", weights, means - center, means - center)
    whole = np.einsum("k,kde->de", weights, covariances) + spread
    entry = model(name)
    dense = entry.storage.from_dense(jnp.asarray(whole[None]))
    whole = np.asarray(entry.storage.to_dense(entry.storage.root(dense), D), np.float64)[0]
    candidates = [log_sets(0, N, center, whole @ whole.T)]
    for j in (1, 2):
        n, between = counts[0] + counts[j], np.outer(*[means[0] - means[j]] * 2)
        b = counts[0] / n
        merged = (1 - b) * (covariances[j] + b * between)
        candidates.append(log_sets(0, n, (1 - b) * means[j] + b * means[0], merged))
    np.testing.assert_allclose(found[0], max(candidates), rtol=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_neither_the_scale_of_weights_nor_repeated_rows_matter(scale, dtype):
    """A fit whose weights sum to less than one was degenerate, whatever the data."""
    x = clusters(0).astype(dtype)
    weights = np.full(len(x), scale, dtype)
    plain = jgmm.fit(KEY, x, 3, init=LABELS)
    for again in (
        jgmm.fit(KEY, x, 3, init=LABELS, sample_weight=weights),
        jgmm.fit(KEY, np.repeat(x, 3, axis=0), 3, init=np.repeat(LABELS, 3)),
    ):
        assert int(again.status) == int(plain.status) == Status.CONVERGED
    apart = np.concatenate([x[:60], x[:3] * 1e-4 + x[4]]).astype(dtype)
    few = np.repeat([0, 1], [60, 3])
    for given in (
        jgmm.fit(KEY, apart, 2, init=few),
        jgmm.fit(KEY, apart, 2, init=few, sample_weight=np.full(63, scale, dtype)),
        jgmm.fit(KEY, np.repeat(apart, 50, axis=0), 2, init=np.repeat(few, 50)),
    ):
        assert int(given.status) == Status.DEGENERATE


@pytest.mark.parametrize("ratio", [10, 1000])
@pytest.mark.parametrize("d", [1, 4])
def test_a_true_tight_cluster_is_no_spike(d, ratio, dtype):
    rng = np.random.default_rng(0)
    n = 3 * (d + 1)
    tight = 6 / np.sqrt(d) + rng.normal(size=(n, d)) / ratio
    x = np.concatenate([rng.normal(size=(200, d)), tight]).astype(dtype)
    found = jgmm.fit(KEY, x, 2, init=np.repeat([0, 1], [200, n]))
    assert Status(int(found.status)) is Status.CONVERGED


@pytest.mark.parametrize("ridge", [1e-6, 1e-3])
@pytest.mark.parametrize("name", ["full", "diag"])
def test_a_component_that_rests_on_its_ridge_is_a_spike(name, ridge, dtype):
    """Twenty rows with one value in a column: without the ridge the component would collapse."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 2)), rng.normal(size=(20, 2)) + 3]).astype(dtype)
    x[60:, 0] = 3
    labels = np.repeat([0, 1], [60, 20])
    found = jgmm.fit(KEY, x, 2, covariance=name, init=labels, ridge=ridge)
    assert (Status(int(found.status)), int(found.collapsed)) == (Status.DEGENERATE, 1)


def test_a_ridge_for_a_constant_column_makes_no_spike(dtype):
    x = np.concatenate([clusters(1), np.ones((90, 1))], axis=1).astype(dtype)
    found = jgmm.fit(KEY, x, 3, init=LABELS, ridge=1e-6)
    assert Status(int(found.status)) is Status.CONVERGED


def test_a_ridge_for_columns_that_determine_each_other_makes_no_spike(dtype):
    x = clusters(1)
    x = np.concatenate([x, x.sum(axis=1, keepdims=True)], axis=1).astype(dtype)
    found = jgmm.fit(KEY, x, 3, init=LABELS, ridge=1e-4)
    assert Status(int(found.status)) is Status.CONVERGED


def test_units_do_not_matter(dtype):
    for thinner in (30.0, 3000.0):
        plain = with_count("full", 4.0, dtype, thinner)
        moved = with_count("full", 4.0, dtype, thinner, units=(1024.0, 1 / 64))
        one, other = (log_expected(each, counts_of(each)) for each in (plain, moved))
        np.testing.assert_allclose(one, other, rtol=1e-3)


def test_an_unused_component_is_no_spike(dtype):
    mixture = with_count("full", 0.0, dtype)
    assert mixture.log_weights[0] == -np.inf
    assert not np.asarray(spurious_components(mixture, counts_of(mixture))).any()


@pytest.mark.parametrize(
    ("before", "after", "count", "expected", "blamed"),
    [
        (Status.RUNNING, Status.CONVERGED, 1.0, Status.DEGENERATE, 0),
        (Status.RUNNING, Status.STEPS_RAN_OUT, 1.0, Status.DEGENERATE, 0),
        (Status.RUNNING, Status.CONVERGED, 50.0, Status.CONVERGED, -1),
        (Status.RUNNING, Status.RUNNING, 1.0, Status.RUNNING, -1),
        (Status.RUNNING, Status.COLLAPSED, 1.0, Status.COLLAPSED, 2),
        (Status.CONVERGED, Status.CONVERGED, 1.0, Status.CONVERGED, -1),
    ],
)
def test_only_what_has_just_ended_valid_becomes_degenerate(
    before, after, count, expected, blamed, dtype
):
    mixture = jax.tree.map(lambda leaf: leaf[None], with_count("full", count, dtype))
    collapsed = jnp.asarray([2 if after is Status.COLLAPSED else -1])
    codes = (jnp.asarray([int(code)]) for code in (before, after))
    found, which = mark_degenerate(
        *codes, collapsed, mixture, N * mixture.weights, bounded=False, ridge=None, floor=None
    )
    assert (Status(int(found[0])), int(which[0])) == (expected, blamed)


@in_double
def test_a_fit_prefers_what_is_no_spike(dtype):
    """One cluster, four components: some starts end in a spike, at a higher likelihood."""
    x = np.random.default_rng(1).normal(size=(65, 2)).astype(dtype)
    found = jgmm.fit(KEY, x, 4, init="points", n_restarts=64)
    outcomes, values = (
        np.asarray(each) for each in (found.restarts.status, found.restarts.log_likelihood)
    )
    assert Status(int(found.status)) is Status.CONVERGED
    assert values[outcomes == Status.DEGENERATE].max() > float(found.log_likelihood)


def test_two_rows_beside_a_third_are_a_spike(dtype):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 2))
    x = np.concatenate([x, x[:1] + 1e-3 * rng.normal(size=(2, 2))]).astype(dtype)
    labels = np.repeat([0, 1], [60, 2])
    labels[0] = 1
    spike = jgmm.fit(KEY, x, 2, init=labels)
    assert (Status(int(spike.status)), int(spike.collapsed)) == (Status.DEGENERATE, 1)


def test_collapse_is_found_in_each_component_by_itself(dtype):
    eps = np.finfo(dtype).eps
    fine, spike = np.eye(2), eps * np.eye(2)
    flat = np.array([[1.0, 0.0], [1.0, eps]])
    scale = jnp.asarray(np.stack([fine, spike, flat, fine, fine * np.nan]), dtype)
    log_weights = jnp.log(jnp.asarray([0.5, 0.2, 0.2, eps / 10, 0.1], dtype))
    given = Mixture(log_weights, jnp.zeros((5, 2), dtype), scale, "full")
    found = collapsed_components(given, given, identity(2, dtype))
    np.testing.assert_array_equal(found, [False, True, True, True, True])
