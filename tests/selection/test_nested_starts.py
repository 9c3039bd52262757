"""Starts from nested mixtures: written as the richer model, densities stay what they were."""

import itertools

import numpy as np
import oracle
import pytest

import jgmm
from jgmm.covariance import nesting
from jgmm.covariance.models import MODELS, model
from jgmm.selection import nested_starts

K, D = 3, 2
PAIRS = [
    (outer, inner)
    for outer, inner in itertools.permutations(MODELS, 2)
    if nesting.contains(MODELS[outer], MODELS[inner])
]
X = np.random.default_rng(0).normal(size=(20, D)) * 3


def make(name, seed=1):
    return jgmm.make_mixture(*oracle.parameters(seed, k=K, d=D, model=name), name)


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_a_special_case_has_the_form_of_the_model(outer, inner):
    mixture, entry = make(oracle.MODELS[inner]), model(outer)
    found = nested_starts.as_model(mixture, entry)
    assert found.covariance == entry.name
    assert found.scale.shape == make(entry.name).scale.shape
    # ``make_mixture`` refuses covariances that do not have the form of the model.
    covariances = np.asarray(jgmm.Mixture(*leaves(found), found.covariance).covariances)
    again = jgmm.make_mixture(found.weights, found.means, covariances, entry.name)
    np.testing.assert_allclose(jgmm.log_prob(again, X), jgmm.log_prob(mixture, X), rtol=1e-6)


def leaves(mixture):
    return mixture.log_weights, mixture.means, mixture.scale


@pytest.mark.parametrize("name", ["full", "tied", "diag", "EII"])
def test_a_repeated_component_changes_no_density(name, dtype, tolerance):
    mixture = jgmm.make_mixture(
        *(a.astype(dtype) for a in oracle.parameters(1, k=K, d=D, model=name)), name
    )
    wide = nested_starts.pad_components(mixture, 5)
    found = nested_starts.duplicate_heaviest(wide, 3)
    assert (np.isfinite(found.log_weights)).sum() == 4
    x = X.astype(dtype)
    for each in (wide, found):
        assert each.means.dtype == dtype
        np.testing.assert_allclose(jgmm.log_prob(each, x), jgmm.log_prob(mixture, x), **tolerance)


@pytest.mark.parametrize("name", oracle.NAMES)
def test_splits_are_halves_a_deviation_apart(name):
    mixture = make(name)
    found = nested_starts.splits(nested_starts.pad_components(mixture, 4), 3)
    assert len(found) == K
    heaviest_first = np.argsort(-np.asarray(mixture.weights))
    for k, each in zip(heaviest_first, found, strict=True):
        weights = np.exp(each.log_weights)
        np.testing.assert_allclose(weights[[k, 3]], float(mixture.weights[k]) / 2)
        apart = each.means[k] - each.means[3]
        np.testing.assert_allclose(
            (each.means[k] + each.means[3]) / 2, mixture.means[k], atol=1e-12
        )
        own = np.asarray(mixture.covariances[k])
        # As long as the standard deviation along it, which is the largest.
        np.testing.assert_allclose(apart @ np.linalg.solve(own, apart), 1, rtol=1e-4)
        np.testing.assert_allclose(apart @ apart, np.linalg.eigvalsh(own)[-1], rtol=1e-4)
        others = [i for i in range(K) if i != k]
        np.testing.assert_array_equal(each.means[others], mixture.means[np.asarray(others)])


def test_a_round_component_is_split_along_the_data():
    mixture = jgmm.make_mixture([0.5, 0.5], [[0.0, -9.0], [0.0, 9.0]], [1.0, 1.0], "spherical")
    for each in nested_starts.splits(nested_starts.pad_components(mixture, 3), 2):
        apart = np.abs(each.means[:2] - mixture.means).max(axis=0)
        assert apart[0] == 0
        assert apart[1] > 0.4


def test_the_heaviest_are_split_when_there_are_many():
    k = nested_starts.MAX_SPLITS + 3
    weights = np.arange(1, k + 1) / (k * (k + 1) / 2)
    mixture = jgmm.make_mixture(weights, np.arange(k)[:, None], np.ones((1, 1, 1)), "tied")
    found = nested_starts.splits(nested_starts.pad_components(mixture, k + 1), k)
    split = [int(np.flatnonzero(each.means[:k, 0] != np.arange(k))[0]) for each in found]
    assert split == list(range(k - 1, k - 1 - nested_starts.MAX_SPLITS, -1))


def test_placeholders_have_the_shapes_of_every_model(dtype):
    for entry in MODELS.values():
        unit, real = nested_starts.placeholder(entry, K, D, dtype), make(entry.name)
        assert [leaf.shape for leaf in leaves(unit)] == [leaf.shape for leaf in leaves(real)]
        assert {leaf.dtype for leaf in leaves(unit)} == {dtype}
    stacked = nested_starts.stack([unit, unit])
    assert stacked.means.shape == (2, K, D)
