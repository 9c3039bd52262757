"""The table over numbers of components and covariance models, and what is chosen from it."""

import dataclasses
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from marks import in_double

import jgmm
from jgmm.selection import cross_validation, selection
from jgmm.selection.criteria import CRITERIA, Criterion

KEY = jax.random.key(0)
RNG = np.random.default_rng(7)
# Two round clusters, eight standard deviations apart.
X = np.concatenate([RNG.normal(size=(20, 2)), 8 + RNG.normal(size=(20, 2))])
WEIGHTS = np.array([1.0, 2.0, 0.0, 1.0] * 10)
# The same for all, so that what is compiled for one test serves the others.
OPTIONS = {"n_restarts": 8, "init": "points", "sample_weight": WEIGHTS}


@pytest.fixture(scope="module")
def found(dtype):
    """One table that most tests look at; what is named twice is one grid point."""
    counts, models = np.array([1, 2, 1]), ["VII", "EII", "spherical"]
    return selection.select(KEY, X.astype(dtype), counts, models, **OPTIONS)


@in_double
def test_every_grid_point_is_there_in_order(found):
    points = [(row.n_components, row.covariance) for row in found.table]
    assert points == [(1, "spherical"), (2, "spherical"), (1, "EII"), (2, "EII")]
    assert list(found.results) == points
    assert [row.n_parameters for row in found.table] == [3, 7, 3, 6]
    assert all(list(row.criteria) == ["aic", "aicc", "bic", "icl"] for row in found.table)
    with pytest.raises(AttributeError, match="no 'held_out'; its criteria: aic, aicc, bic, icl"):
        found.best.held_out  # noqa: B018


@in_double
def test_the_first_grid_point_is_what_fit_returns(found, dtype, tolerance):
    """It has no special cases in the table; its program is made for the largest grid point."""
    alone = jgmm.fit(KEY, X.astype(dtype), 1, covariance="EII", **OPTIONS)
    fitted = found.results[1, "EII"]
    chex.assert_trees_all_close(alone.mixture, fitted.mixture, **tolerance)
    np.testing.assert_allclose(alone.log_likelihood, fitted.log_likelihood, **tolerance)


@in_double
def test_the_starts_drawn_are_those_of_fit(found, dtype, tolerance):
    alone = jgmm.fit(KEY, X.astype(dtype), 2, covariance="spherical", **OPTIONS)
    fitted, row = found.results[2, "spherical"], found.table[1]
    reached = fitted.restarts.log_likelihood[:8]
    np.testing.assert_allclose(alone.restarts.log_likelihood, reached, **tolerance)
    # Two clusters this far apart leave no other optimum.
    assert (row.status, row.n_valid, row.n_agree) == ("CONVERGED", 8, 8)
    np.testing.assert_allclose(row.log_likelihood, alone.log_likelihood, **tolerance)


def test_equal_weights_save_parameters():
    equal = selection.select(KEY, X, [1, 2], "EII", equal_weights=True, **OPTIONS)
    assert [row.n_parameters for row in equal.table] == [3, 5]
    np.testing.assert_allclose(equal.results[2, "EII"].mixture.weights, 0.5)
    two = equal.table[1]
    np.testing.assert_allclose(two.bic, -2 * two.log_likelihood + 5 * np.log(WEIGHTS.sum()))
    alone = jgmm.fit(KEY, X, 2, covariance="EII", equal_weights=True, **OPTIONS)
    np.testing.assert_allclose(alone.log_likelihood, two.log_likelihood)


@in_double
@pytest.mark.parametrize("name", ["aic", "aicc", "bic", "icl"])
def test_the_numbers_are_the_criteria(found, name, dtype, tolerance):
    measure = getattr(jgmm.selection, name)
    expected = [measure(r.mixture, X.astype(dtype), WEIGHTS) for r in found.results.values()]
    np.testing.assert_allclose([getattr(row, name) for row in found.table], expected, **tolerance)


@in_double
def test_the_lowest_is_chosen(found):
    assert found.criterion == "bic"
    assert found.best.bic == min(row.bic for row in found.table)
    assert found.best is found.table[3]  # two clusters of one size, made so
    assert found.result is found.results[2, "EII"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.best.bic = 0.0


@in_double
def test_it_prints(found):
    head, *lines = str(found).splitlines()
    for word in (
        "K",
        "covariance",
        "p",
        "log-lik.",
        "AIC",
        "AICc",
        "BIC",
        "ICL",
        "agree",
        "status",
    ):
        assert word in head.split()
    assert [line.startswith("*") for line in lines] == [False, False, False, True]
    assert lines[3].split()[1:4] == ["2", "EII", "6"]
    assert f"{found.best.bic:.2f}" in lines[3]
    assert lines[3].endswith("converged")
    assert len({len(line) for line in lines}) == 1
    assert repr(found) == str(found)


@in_double
@pytest.mark.parametrize("known", [0.0, 0.5, 1.0])
def test_known_samples_have_no_entropy(known, dtype, tolerance):
    """Two clusters that overlap: a share of the samples says where it belongs."""
    labels = np.repeat([0, 1], 20)
    x = (np.random.default_rng(3).normal(size=(40, 2)) + 1.5 * labels[:, None]).astype(dtype)
    given = np.where(np.arange(40) % 10 < 10 * known, labels, -1)
    told = selection.select(KEY, x, 2, "EII", labels=given, **OPTIONS)
    mixture = told.result.mixture
    resp = np.asarray(jgmm.responsibilities(mixture, x))
    entropy = -(WEIGHTS * (given < 0)) @ (resp * np.log(resp)).sum(axis=1)
    np.testing.assert_allclose((told.best.icl - told.best.bic) / 2, entropy, **tolerance)
    for name in ("aic", "bic", "icl"):
        expected = getattr(jgmm.selection, name)(mixture, x, WEIGHTS, given)
        np.testing.assert_allclose(told.best.criteria[name], expected, **tolerance)


def test_held_out_samples_keep_their_labels():
    """All are known, so a fit is one M-step, and what is held out is log p(x, z)."""
    labels = np.repeat([0, 1], 20)
    x = np.random.default_rng(3).normal(size=(40, 2)) + 1.5 * labels[:, None]
    told = selection.select(KEY, x, 2, "EII", "held_out", labels=labels, n_folds=4, **OPTIONS)
    deal, _ = jax.random.split(KEY)
    folds = cross_validation.assign_folds(deal, 40, 4, sample_weight=jnp.asarray(WEIGHTS))
    folds = np.asarray(folds)
    total = 0.0
    for f in range(4):
        fitted = jgmm.m_step(x, np.eye(2)[labels], "EII", WEIGHTS * (folds != f))
        log_prob, log_resp = jgmm.e_step(fitted, x)
        total += (WEIGHTS * (folds == f)) @ (log_prob + log_resp[np.arange(40), labels])
    np.testing.assert_allclose(told.best.held_out, total / WEIGHTS.sum(), rtol=1e-9)


def row(k, covariance, **values):
    ell = values.pop("log_likelihood", -100.0)
    return selection.Row(k, covariance, 3, ell, values, "CONVERGED", 1, 1)


@pytest.mark.parametrize(
    ("rows", "n_features", "chosen"),
    [
        # One column: V, VEI, VVI, VEE and VVV are one model, EII to EVV the other.
        ([row(2, "spherical", bic=1 + 1e-9), row(2, "VEI", bic=1.0)], 1, 0),
        ([row(2, "full", bic=1 + 1e-9), row(2, "spherical", bic=1.0)], 1, 0),
        ([row(2, "EVV", bic=1 + 1e-9), row(2, "EII", bic=1.0)], 1, 0),
        ([row(2, "EII", bic=1 + 1e-9), row(2, "spherical", bic=1.0)], 1, 1),
        ([row(2, "spherical", bic=1 + 1e-9), row(2, "VEI", bic=1.0)], 2, 1),
        ([row(3, "spherical", bic=1 + 1e-9), row(2, "VEI", bic=1.0)], 1, 1),
        # One component: nothing varies.
        ([row(1, "VVV", bic=1 + 1e-9), row(1, "EEE", bic=1.0)], 3, 0),
        ([row(1, "VVI", bic=1 + 1e-9), row(1, "EEE", bic=1.0)], 3, 1),
        # A higher value is better; a failed fit is none; another optimum is another fit.
        ([row(2, "full", held_out=1 - 1e-9), row(2, "VII", held_out=1.0)], 1, 0),
        ([row(2, "full", bic=math.nan), row(2, "VII", bic=1.0)], 1, 1),
        ([row(2, "full", bic=3.0, log_likelihood=-101.0), row(2, "VII", bic=1.0)], 1, 1),
    ],
)
def test_of_fits_of_one_model_the_first_is_chosen(rows, n_features, chosen):
    (criterion,) = rows[0].criteria
    assert selection._best(rows, criterion, n_features, 1e-6) is rows[chosen]


@in_double
def test_in_one_column_the_first_name_is_chosen(dtype):
    for names in (["spherical", "VEI"], ["VEI", "spherical"]):
        told = selection.select(KEY, X[:, :1].astype(dtype), [1, 2], names, **OPTIONS)
        assert told.best is told.table[1]
        assert told.best_of(row for row in told.table if row.n_components == 1) is told.table[0]


def test_agreement_is_counted():
    """Four clusters and three components: which two are taken for one depends on the start."""
    rng = np.random.default_rng(1)
    corners = np.repeat([[0.0, 0.0], [0.0, 5.0], [6.0, 0.0], [7.0, 6.0]], 10, axis=0)
    key, x = jax.random.key(1), corners + rng.normal(size=(40, 2))
    told = selection.select(key, x, 3, "EII", **OPTIONS)
    restarts = told.result.restarts
    ends = np.asarray(restarts.log_likelihood)[:8] / 40
    valid = np.isin(restarts.status[:8], [1, 2])
    gap = ends[valid].max() - ends[valid]
    near = (gap < 1e-6).sum()
    assert not ((gap > 1e-7) & (gap < 1e-2)).any()  # the optima are told apart with ease
    assert told.best.n_valid == valid.sum()
    assert told.best.n_agree == near
    assert 1 < near < valid.sum()


# Three distinct places: three components collapse onto them, each started at another.
PLACES = np.array([[0.0, 0.0], [1.0, 5.0], [7.0, 0.0], [7.0, 0.0]] * 10)
APART = {**OPTIONS, "init": "kmeans"}


def test_a_grid_point_that_failed_stays_and_is_not_chosen():
    """With equal weights one component is no special case of three."""
    told = selection.select(KEY, PLACES, (3, 1), "EII", equal_weights=True, **APART)
    failed, good = told.table
    assert failed.status == "COLLAPSED"
    assert (failed.n_valid, failed.n_agree) == (0, 0)
    for name in ("log_likelihood", "aic", "aicc", "bic", "icl"):
        assert math.isnan(getattr(failed, name))
    assert told.best is good
    assert told.result is told.results[1, "EII"]
    assert "nan" in str(told).splitlines()[1]
    assert "collapsed" in str(told).splitlines()[1]


def test_when_all_fail_it_is_said():
    said = r"No entry of the table ended valid. The first, 3 component\(s\) under 'EII': .*collapse"
    with pytest.raises(jgmm.FitError, match=said):
        selection.select(KEY, PLACES, 3, "EII", **APART)


@in_double
def test_a_criterion_added_to_the_table_is_computed_shown_and_chosen_by(
    found, dtype, tolerance, monkeypatch
):
    """One entry is enough, even where the same program has been compiled without it."""
    mine = Criterion("mine", "Mine", lambda fit: fit.log_likelihood - fit.n_parameters, True, 1)
    monkeypatch.setitem(CRITERIA, "mine", mine)
    again = selection.select(KEY, X.astype(dtype), [1, 2], ["VII", "EII"], "mine", **OPTIONS)
    values = [row.log_likelihood - row.n_parameters for row in again.table]
    np.testing.assert_allclose([row.mine for row in again.table], values, **tolerance)
    assert again.criterion == "mine"
    assert again.best is again.table[int(np.argmax(values))]
    head, *lines = str(again).splitlines()
    assert "Mine" in head.split()
    assert lines[3].split()[9] == f"{again.table[3].mine:.1f}"
    for row, before in zip(again.table, found.table, strict=True):
        others = [row.criteria[name] for name in before.criteria]
        np.testing.assert_allclose(others, list(before.criteria.values()), **tolerance)


def test_by_held_out_likelihood_the_highest_is_chosen():
    told = selection.select(KEY, X, np.array([2, 1]), "EII", "held_out", n_folds=4, **OPTIONS)
    two, one = told.table
    alone = cross_validation.held_out(KEY, X, 2, "EII", n_folds=4, **OPTIONS)
    assert two.held_out == float(alone.log_likelihood)
    assert two.held_out > one.held_out
    assert told.best is two
    assert f"{two.held_out:.4f}" in str(told)


def test_a_grid_point_whose_folds_failed_is_not_chosen():
    """All rows have a variance; without the last they have none."""
    spike = np.zeros((40, 2))
    spike[-1] = 1
    said = r"has a finite held_out\. In each, a fit without one of the folds failed"
    with pytest.raises(jgmm.FitError, match=said):
        selection.select(KEY, spike, 1, "EII", "held_out", n_folds=4, **OPTIONS)


def test_too_few_samples_for_aicc_are_said():
    said = r"has a finite aicc. AICc is infinite unless .* N > p \+ 1"
    with pytest.raises(jgmm.FitError, match=said) as told:
        selection.select(KEY, X[:4], 1, "EII", "aicc", n_restarts=8, init="points")
    assert "folds" not in str(told.value)


def test_progress_counts_through_the_table():
    told = []
    selection.select(KEY, X, [1, 2], "EII", max_steps=60, progress=told.append, **OPTIONS)
    steps = [one.step for one in told]
    assert {one.max_steps for one in told} == {120}
    assert 60 in steps
    assert steps[-1] == 120
    assert all(a <= b for a, b in itertools.pairwise(steps))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"criterion": "bik"}, "unknown criterion 'bik'. Known: aic, aicc, bic, icl, held_out"),
        ({"n_components": []}, "must each name at least one"),
        ({"covariance": []}, "must each name at least one"),
        ({"n_components": [1, 0]}, "n_components must be a whole number of at least 1"),
        ({"n_components": [2, 41]}, "41 components need at least as many samples; there are 40"),
        ({"n_components": [36], "criterion": "held_out"}, "without one of 5 folds 32 are left"),
        ({"covariance": ["full", "fulll"]}, "unknown covariance model 'fulll'"),
        ({"n_restarts": 0}, "n_restarts must be a whole number of at least 1"),
        ({"tol": -1.0}, "tol must be at least zero"),
    ],
)
def test_refuses_before_it_works(arguments, said):
    told = []
    with pytest.raises(ValueError, match=said):
        selection.select(KEY, X, progress=told.append, **arguments)
    assert not told


def test_all_are_all_models(monkeypatch):
    asked = []

    def fit_grid(key, samples, counts, models, *rest):
        asked.extend(models)
        raise StopIteration

    monkeypatch.setattr(selection, "fit_grid", fit_grid)
    with pytest.raises(StopIteration):
        jgmm.select(jax.random.key(0), [[0.0, 1.0], [1.0, 3.0]], 1, "all")
    assert asked == [entry.name for entry in jgmm.covariance.MODELS.values()]
