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
from jgmm.em.degeneracy import collapsed_components, mark_degenerate, spurious_components
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


@pytest.mark.parametrize("code", LEAST)
def test_a_component_on_fewer_samples_than_its_covariance_takes(code, dtype):
    name, least = oracle.MODELS[code], LEAST[code]
    assert model(name).min_samples(D) == least
    few = np.asarray(
        spurious_components(with_count(name, max(least - 0.5, 0.5), dtype), jnp.asarray(N, dtype))
    )
    enough = spurious_components(with_count(name, least + 0.5, dtype), jnp.asarray(N, dtype))
    assert few.tolist() == [least > 0, False, False]
    assert not np.asarray(enough).any()


def test_in_one_column_only_volumes_differ():
    least = {code: model(name).min_samples(1) for code, name in oracle.MODELS.items()}
    assert least == {code: 2 if code[0] == "V" else 0 for code in least}


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
@pytest.mark.parametrize(
    ("count", "thinner", "expected"),
    [(8.0, 1e5, True), (8.0, 10.0, False), (100.0, 1e5, False)],
    ids=["few and thin", "few", "thin"],
)
def test_thin_components_of_few_samples(name, count, thinner, expected, dtype):
    found = spurious_components(with_count(name, count, dtype, thinner), jnp.asarray(N, dtype))
    assert np.asarray(found).tolist() == [expected, False, False]


@pytest.mark.parametrize("thinner", [300.0, 3000.0])
def test_units_do_not_matter(thinner, dtype):
    total = jnp.asarray(N, dtype)
    plain = spurious_components(with_count("full", 8.0, dtype, thinner), total)
    moved = spurious_components(
        with_count("full", 8.0, dtype, thinner, units=(1024.0, 1 / 64)), total
    )
    np.testing.assert_array_equal(plain, moved)


def test_an_unused_component_is_no_spike(dtype):
    mixture = with_count("full", 0.0, dtype)
    assert mixture.log_weights[0] == -np.inf
    assert not np.asarray(spurious_components(mixture, jnp.asarray(N, dtype))).any()


@pytest.mark.parametrize(
    ("status", "count", "expected", "blamed"),
    [
        (Status.CONVERGED, 1.0, Status.DEGENERATE, 0),
        (Status.STEPS_RAN_OUT, 1.0, Status.DEGENERATE, 0),
        (Status.CONVERGED, 50.0, Status.CONVERGED, -1),
        (Status.RUNNING, 1.0, Status.RUNNING, -1),
        (Status.COLLAPSED, 1.0, Status.COLLAPSED, 2),
        (Status.NON_FINITE_PARAMETERS, 1.0, Status.NON_FINITE_PARAMETERS, -1),
    ],
)
def test_only_what_would_be_valid_becomes_degenerate(status, count, expected, blamed, dtype):
    broken = jnp.asarray([False, False, status is Status.COLLAPSED])
    mixture, total = with_count("full", count, dtype), jnp.asarray(N, dtype)
    found, which = mark_degenerate(jnp.asarray(int(status)), broken, mixture, total)
    assert (Status(int(found)), int(which)) == (expected, blamed)


@in_double
def test_a_fit_prefers_what_is_no_spike(dtype):
    """One cluster, two components: three samples close together draw one of them at any time."""
    rng = np.random.default_rng(5)
    x = np.concatenate([rng.normal(size=(60, 2)), [3, 3] + 1e-3 * rng.normal(size=(4, 2))])
    x = x.astype(dtype)
    labels = np.repeat([0, 1], [60, 4])
    spike = jgmm.fit(KEY, x, 2, init=labels)
    assert Status(int(spike.status)) is Status.DEGENERATE
    assert int(spike.collapsed) == 1
    found = jgmm.fit(KEY, x, 2, init="points", n_restarts=32)
    outcomes = np.asarray(found.restarts.status)
    assert Status(int(found.status)) is Status.CONVERGED
    # It was seen, had the higher likelihood, and was not taken.
    highest = np.asarray(found.restarts.log_likelihood)[outcomes == Status.DEGENERATE].max()
    assert highest > float(found.log_likelihood)
    np.testing.assert_allclose(highest, spike.log_likelihood, rtol=1e-4)


def test_collapse_is_found_in_each_component_by_itself(dtype):
    eps = np.finfo(dtype).eps
    fine, spike = np.eye(2), eps * np.eye(2)
    flat = np.array([[1.0, 0.0], [1.0, eps]])
    scale = jnp.asarray(np.stack([fine, spike, flat, fine, fine * np.nan]), dtype)
    log_weights = jnp.log(jnp.asarray([0.5, 0.2, 0.2, eps / 10, 0.1], dtype))
    given = Mixture(log_weights, jnp.zeros((5, 2), dtype), scale, "full")
    found = collapsed_components(given, given, identity(2, dtype))
    np.testing.assert_array_equal(found, [False, True, True, True, True])
