"""GaussianMixture and MixtureSelector: scikit-learn's numbers where both start from one place."""

import warnings

import jax
import numpy as np
import pandas
import pytest
from estimator_cases import AT_SAMPLES, CLOSE, FEW, STEPS, UNITS, D, K, N, data, start
from marks import in_double

import jgmm
from jgmm._core.errors import DataError
from jgmm.estimators.base import warn_unless_converged
from jgmm.estimators.mixture import GaussianMixture, MixtureSelector

pytest.importorskip("sklearn", reason='needs pip install "jgmm[sklearn]"')
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Theirs


@pytest.fixture(scope="module")
def x(dtype):
    return data(dtype)


@pytest.fixture(scope="module")
def pair(request, x):
    """Ours and theirs after as many steps from one start, with a ridge that matters."""
    options = {
        "covariance_type": request.param,
        "tol": 0,
        "reg_covar": 0.002,  # a fifth of the variance of one column, and nothing to the other
        "max_iter": STEPS,
        **start(x, request.param),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # they are told not to converge
        return GaussianMixture(K, **options).fit(x), Theirs(K, **options).fit(x)


next_to_theirs = pytest.mark.parametrize(
    ("pair", "dtype"),
    [*((name, "float64") for name in ("full", "tied", "diag", "spherical")), ("full", "float32")],
    indirect=True,
)


@next_to_theirs
def test_parameters_are_theirs(pair, dtype):
    ours, theirs = pair
    assert ours.n_iter_ == theirs.n_iter_ == STEPS
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        found, expected = getattr(ours, name), getattr(theirs, name)
        assert type(found) is np.ndarray
        assert found.dtype == expected.dtype == dtype
        assert found.flags.writeable
        size = np.abs(expected).max()
        np.testing.assert_allclose(found / size, expected / size, **CLOSE[dtype])


@next_to_theirs
def test_answers_are_theirs(pair, x, dtype):
    ours, theirs = pair
    for ask in ("score_samples", "predict_proba", "score", "aic", "bic"):
        found, expected = getattr(ours, ask)(x), getattr(theirs, ask)(x)
        np.testing.assert_allclose(found, expected, **CLOSE[dtype])
        assert np.asarray(found).dtype == (dtype if np.ndim(found) else np.float64)
    labels = ours.predict(x)
    np.testing.assert_array_equal(labels, theirs.predict(x))
    assert labels.dtype == theirs.predict(x).dtype
    assert ours._n_parameters() == theirs._n_parameters()


@next_to_theirs
def test_lower_bounds_are_theirs_one_step_later(pair, x, dtype):
    ours, theirs = pair
    np.testing.assert_allclose(ours.lower_bounds_[:-1], theirs.lower_bounds_[1:], **CLOSE[dtype])
    assert ours.lower_bound_ == ours.lower_bounds_[-1]
    np.testing.assert_allclose(ours.lower_bound_, ours.score(x), **CLOSE[dtype])


@in_double
def test_ridges_in_both_units_are_added(dtype):
    """To one component: Σ = (1 + ridge) variances of the data + reg_covar, and covariances."""
    x = data(dtype, shift=10)
    fitted = GaussianMixture(reg_covar=0.25, ridge=0.5, init_params="random_from_data").fit(x)
    sigma = np.cov(x.T, bias=True, dtype=np.float64)
    expected = sigma + np.diag(0.5 * np.diag(sigma) + 0.25)
    size = np.sqrt(np.outer(np.diag(sigma), np.diag(sigma)))
    np.testing.assert_allclose(fitted.covariances_[0] / size, expected / size, **CLOSE[dtype])


@pytest.mark.parametrize(("name", "shape"), [("EII", ()), ("EEV", (K, D, D))])
def test_all_models_by_name_and_code(name, shape):
    x = data(np.float32)
    fitted = GaussianMixture(K, covariance_type=name, max_iter=50, tol=0.1, **start(x, name)).fit(x)
    assert fitted.covariances_.shape == fitted.precisions_cholesky_.shape == shape
    assert np.isfinite(fitted.score(x))
    assert fitted.mixture_.covariance == jgmm.covariance.model(name).name


def test_an_unknown_model():
    with pytest.raises(ValueError, match=r"unknown covariance model 'ful'.*Did you mean 'full'"):
        GaussianMixture(K, covariance_type="ful").fit(data(np.float64))


@in_double
def test_parts_of_the_start_may_be_given(x):
    given = start(x, "diag")
    options = {"covariance_type": "diag", "max_iter": 0, "random_state": 0, "n_init": 3}
    free = GaussianMixture(K, **options).fit(x)
    for part in ("weights", "means", "precisions"):
        fitted = GaussianMixture(K, **{f"{part}_init": given[f"{part}_init"]}, **options).fit(x)
        assert len(fitted.restarts_["status"]) == 3
        np.testing.assert_allclose(getattr(fitted, f"{part}_"), given[f"{part}_init"], rtol=1e-4)
        for other in {"weights", "means", "precisions"} - {part}:
            assert not np.allclose(getattr(fitted, f"{other}_"), given[f"{other}_init"], rtol=1e-2)
    assert free.n_iter_ == 0
    assert free.lower_bounds_ == []
    np.testing.assert_allclose(free.lower_bound_, free.score(x), rtol=1e-4)


@pytest.mark.parametrize("init", ["kmeans", "k-means++", "random", "random_from_data", "short_em"])
def test_every_start_has_a_name(init):
    x = data(np.float32)
    options = {"covariance_type": "spherical", "init_params": init, "n_init": 4, "random_state": 0}
    fitted = GaussianMixture(K, max_iter=0, **options).fit(x)
    assert np.isfinite(fitted.means_).all()
    assert len(set(fitted.restarts_["log_likelihood"].tolist())) > 1


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("STEPS_RAN_OUT", r"did not converge with max_iter=100\. .* Raise max_iter or tol"),
        ("DEGENERATE", r"did not converge\. Ended in a spike.* Try more restarts \(n_init\)"),
        ("INHERITED", r"did not converge\. Every start"),
    ],
)
def test_the_limit_of_steps_is_the_reason_only_where_it_is(status, said):
    with pytest.warns(ConvergenceWarning, match=f"GaussianMixture {said}") as told:
        warn_unless_converged(GaussianMixture(), jgmm.Status[status])
    assert len(told) == 1


@in_double
def test_a_warm_start_goes_on(x, dtype):
    once = GaussianMixture(
        K, covariance_type="diag", max_iter=4, tol=0, random_state=0, **AT_SAMPLES
    )
    twice = GaussianMixture(
        K, covariance_type="diag", max_iter=2, tol=0, random_state=0, warm_start=True, **AT_SAMPLES
    )
    with pytest.warns(ConvergenceWarning, match="GaussianMixture did not converge with max_iter=2"):
        first = twice.fit(x).lower_bound_
    with pytest.warns(ConvergenceWarning):
        twice.fit(x)
    with pytest.warns(ConvergenceWarning):
        once.fit(x)
    assert twice.lower_bound_ > first
    np.testing.assert_allclose(twice.means_ / UNITS, once.means_ / UNITS, **CLOSE[dtype])
    np.testing.assert_allclose(twice.lower_bound_, once.lower_bound_, **CLOSE[dtype])


@in_double
def test_the_best_of_the_starts_is_kept(x):
    options = {"covariance_type": "diag", "n_init": 8, "random_state": 1, "tol": 1e-4}
    fitted = GaussianMixture(K, **options, **AT_SAMPLES).fit(x)
    table = pandas.DataFrame(fitted.restarts_)
    assert len(table) == 8
    assert fitted.status_ == "CONVERGED"
    assert fitted.converged_
    best = table.loc[table.status == "CONVERGED", "log_likelihood"].max()
    np.testing.assert_allclose(best / N, fitted.lower_bound_, rtol=1e-6)


def test_accelerated_fits_take_fewer_steps():
    rng = np.random.default_rng(3)
    x = 1.2 * rng.normal(size=(3, 2))[rng.integers(3, size=150)] + rng.normal(size=(150, 2))
    kept = {"covariance_type": "spherical", "tol": 1e-9, "max_iter": 2000, **AT_SAMPLES}
    plain, fast = (
        GaussianMixture(3, accelerate=name, random_state=0, **kept).fit(x)
        for name in (None, "anderson")
    )
    assert fast.converged_
    assert 2 * fast.n_iter_ < plain.n_iter_
    np.testing.assert_allclose(fast.lower_bound_, plain.lower_bound_, atol=1e-6)
    for made in (GaussianMixture(2), MixtureSelector(2)):
        with pytest.raises(DataError, match="unknown acceleration 'fast'"):
            made.set_params(accelerate="fast").fit(x)


# Weights, which theirs do not take.


@in_double
def test_weights_count_rows(x, dtype):
    weight = np.resize([2, 0, 1], N)
    options = {"covariance_type": "diag", "tol": 1e-3, **start(x, "diag")}
    missing = x.copy()
    missing[weight == 0] = np.nan
    weighted = GaussianMixture(K, **options).fit(missing, sample_weight=weight)
    repeated = GaussianMixture(K, **options).fit(np.repeat(x, weight, axis=0))
    np.testing.assert_allclose(weighted.means_ / UNITS, repeated.means_ / UNITS, **CLOSE[dtype])
    for ask in ("score", "aic", "bic", "icl"):
        found = getattr(weighted, ask)(missing, sample_weight=weight)
        expected = getattr(repeated, ask)(np.repeat(x, weight, axis=0))
        np.testing.assert_allclose(found, expected, **CLOSE[dtype])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components must be a whole number of at least 1"),
        ({"n_components": N + 1}, "61 components need at least as many samples"),
        ({"n_init": 0}, "n_restarts must be a whole number"),
        ({"max_iter": -1}, "max_steps must be a whole number of at least 0"),
        ({"tol": -1.0}, "tol must be at least zero"),
        ({"reg_covar": -1.0}, "reg_covar must be at least zero; it is -1.0"),
        ({"ridge": -1.0}, "ridge must be at least zero; it is -1.0"),
        ({"init_params": "kmean"}, "unknown init 'kmean'"),
        ({"weights_init": [1.0]}, r"weights_init must have shape \(2,\); it has \(1,\)"),
        ({"weights_init": [0.9, 0.9]}, "no mixture: weights must be nonnegative and sum to one"),
        ({"means_init": np.zeros((3, 2))}, r"means_init must have shape \(2, 2\); it has \(3, 2\)"),
        ({"precisions_init": np.ones(3)}, r"precisions_init must have shape \(2,\)"),
        ({"precisions_init": [1.0, -1.0]}, "no mixture: covariance 1 is not positive definite"),
    ],
    ids=str,
)
def test_bad_arguments(options, message):
    options = {"n_components": 2, "covariance_type": "spherical", **options}
    with pytest.raises(DataError, match=message):
        GaussianMixture(**options).fit(data(np.float64))


def test_verbose_prints(capsys):
    x = data(np.float32)
    options = {"covariance_type": "spherical", "random_state": 0, **FEW}
    GaussianMixture(K, verbose=2, **options).fit(x)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "0 of 3 starts running" in last
    assert last.endswith(" s")
    GaussianMixture(K, **options).fit(x)
    assert capsys.readouterr().out == ""


# The others.


@in_double
def test_the_selector_chooses_as_select_does(x):
    options = {"n_restarts": 3, "init": "points", "ridge": 1e-6}
    fitted = MixtureSelector(
        (1, 2, 3), covariance_type=("EII", "spherical"), random_state=0, **FEW
    ).fit(x)
    seed = np.random.RandomState(0).randint(np.iinfo(np.int32).max)
    with jax.enable_x64(x.dtype == np.float64):
        found = jgmm.select(jax.random.key(seed), x, (1, 2, 3), ("EII", "spherical"), **options)
    assert str(fitted.selection_) == str(found)
    assert (fitted.n_components_, fitted.covariance_type_) == (
        found.best.n_components,
        found.best.covariance,
    )
    np.testing.assert_allclose(fitted.bic(x), found.best.bic, rtol=1e-4)
    assert fitted.weights_.shape == (fitted.n_components_,)


def test_the_selector_tries_all_models(monkeypatch):
    asked = []

    def select(key, x, n_components, covariance, *rest, **options):
        asked.append(covariance)
        return jgmm.select(key, x, n_components, ["EII"], *rest, **options)

    monkeypatch.setattr(jgmm.estimators.mixture, "select", select)
    MixtureSelector(1, covariance_type="all", **FEW).fit(data(np.float32))
    assert asked == ["all"]
