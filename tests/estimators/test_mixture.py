"""The estimators are scikit-learn's in habit, and in numbers where both start from one place."""

import os
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pandas
import polars
import pyarrow
import pytest
from marks import in_double

import jgmm
from jgmm._core.errors import DataError, FitError
from jgmm.estimators.base import EstimatorError
from jgmm.estimators.classifier import GaussianBayesClassifier
from jgmm.estimators.kmeans import KMeans
from jgmm.estimators.mixture import GaussianMixture, MixtureSelector

pytest.importorskip("sklearn", reason='needs pip install "jgmm[sklearn]"')
from sklearn.base import clone
from sklearn.cluster import KMeans as TheirKMeans
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture as Theirs
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

N, K, D, STEPS = 60, 3, 2, 8
UNITS = np.asarray([100.0, 0.1])

# scikit-learn's own checks. They fit dozens of shapes, and each is compiled anew.

EVERY_CHECK = bool(os.environ.get("JGMM_EVERY_CHECK"))
CHECKED = [
    GaussianMixture(covariance_type="spherical", init_params="random_from_data"),
    GaussianBayesClassifier(),
]
SLOW = [
    GaussianMixture(),
    # With more clusters than two the best restart of a weighted fit and that of a fit to repeated
    # rows need not be the same optimum: seeds are drawn by row.
    KMeans(2),
    MixtureSelector(1, covariance_type=("EII", "EEI"), init_params="random_from_data"),
]


@parametrize_with_checks(CHECKED)
def test_checks(estimator, check):
    check(estimator)


@pytest.mark.skipif(
    not EVERY_CHECK,
    reason="as the checks above, which share their code, and two minutes of compilation: "
    "set JGMM_EVERY_CHECK=1",
)
@parametrize_with_checks(SLOW)
def test_slow_checks(estimator, check):
    check(estimator)


# Beside theirs.


def data(dtype, shift=0.0):
    x = oracle.draw(1, N, *oracle.parameters(5, k=K, d=D))
    return ((x + shift) * UNITS).astype(dtype)


@pytest.fixture(scope="module")
def x(dtype):
    return data(dtype)


def start(x, name):
    """Weights, means and precisions in the form of the model, from thirds of the first column."""
    labels = np.digitize(x[:, 0], np.quantile(x[:, 0], [1 / 3, 2 / 3]))
    found = jgmm.mixture.to_attributes(jgmm.m_step(x, np.eye(K)[labels], name, ridge=0.1))
    return {f"{part}_init": found[part] for part in ("weights", "means", "precisions")}


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


beside_theirs = pytest.mark.parametrize(
    ("pair", "dtype"),
    [*((name, "float64") for name in ("full", "tied", "diag", "spherical")), ("full", "float32")],
    indirect=True,
)


# Sums of N terms, through matrices with condition numbers up to a thousand, and as many steps.
CLOSE = {
    np.dtype(np.float32): {"rtol": 2e-3, "atol": 2e-4},
    np.dtype(np.float64): {"rtol": 1e-8, "atol": 1e-10},
}


@beside_theirs
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


@beside_theirs
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


@beside_theirs
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


# Starts. Those at samples take the least to compile.

AT_SAMPLES = {"init_params": "random_from_data"}
FEW = {"n_init": 3, **AT_SAMPLES}


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


@in_double
def test_seeds(x):
    options = {"covariance_type": "spherical", "max_iter": 0, "init_params": "random_from_data"}

    def means(random_state):
        return GaussianMixture(K, random_state=random_state, **options).fit(x).means_

    np.testing.assert_array_equal(means(0), means(0))
    assert not np.array_equal(means(0), means(1))
    moving = np.random.RandomState(0)
    assert not np.array_equal(means(moving), means(moving))
    assert not np.array_equal(means(None), means(None))


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


# Precision.


@pytest.mark.parametrize("set_to", [False, True], ids=["x32", "x64"])
def test_data_are_computed_in_their_own_precision(x, dtype, set_to):
    with jax.enable_x64(set_to):
        fitted = GaussianMixture(K, covariance_type="diag", tol=1e-3, **start_of(dtype)).fit(x)
        drawn, _ = fitted.sample(3)
        assert jax.config.jax_enable_x64 == set_to
        assert jnp.zeros(1).dtype == (np.float64 if set_to else np.float32)
        answers = (fitted.score_samples(x), fitted.predict_proba(x), drawn, fitted.weights_)
        assert {answer.dtype for answer in answers} == {dtype}
        assert fitted.score_samples(x.astype(np.float64)).dtype == np.float64
        mixture = fitted.mixture_
        assert mixture.means.dtype == (dtype if set_to else np.float32)
    sums = oracle.log_likelihood(
        x.astype(float),
        fitted.weights_.astype(float),
        fitted.means_.astype(float),
        [np.diag(each) for each in fitted.covariances_.astype(float)],
    )
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(fitted.lower_bound_ * N, sums, rtol=500 * eps)


def start_of(dtype):
    return start(data(dtype), "diag")


# Habits of all.


def fitted_estimators():
    x, y = data(np.float64), np.resize(["a", "b"], N)
    return [
        GaussianMixture(K, covariance_type="spherical", random_state=0, **AT_SAMPLES).fit(x),
        MixtureSelector((1, 2), covariance_type="EII", random_state=0, **FEW).fit(x),
        GaussianBayesClassifier("diag").fit(x, y),
        KMeans(K, n_init=2, random_state=0).fit(x),
    ]


@pytest.fixture(scope="module")
def estimators():
    return fitted_estimators()


def test_pickles_hold_no_state_of_jax(estimators):
    x = data(np.float64)
    for estimator in estimators:
        stored = pickle.dumps(estimator)
        assert b"jaxlib" not in stored
        assert b"ArrayImpl" not in stored
        with jax.enable_x64(False):
            again = pickle.loads(stored)
            np.testing.assert_array_equal(again.predict(x), estimator.predict(x))


def test_clones_are_not_fitted(estimators):
    for estimator in estimators:
        copy = clone(estimator)
        assert copy.get_params() == estimator.get_params()
        with pytest.raises(NotFittedError):
            copy.predict(data(np.float64))
        assert not hasattr(copy, "mixture_")


def test_html_shows_the_parameters(estimators):
    for estimator in estimators:
        html = estimator._repr_html_()
        assert type(estimator).__name__ in html
        for name in estimator.get_params():
            assert name in html


@pytest.mark.parametrize(
    "frame",
    [
        lambda x: pandas.DataFrame(x, columns=["length", "width"]),
        lambda x: polars.DataFrame(x, schema=["length", "width"]),
        lambda x: pyarrow.table({"length": x[:, 0], "width": x[:, 1]}),
    ],
    ids=["pandas", "polars", "arrow"],
)
def test_data_frames_keep_their_names(estimators, frame):
    x, y = data(np.float64), np.resize(["a", "b"], N)
    for estimator in estimators:
        fitted = clone(estimator).fit(frame(x), y)
        assert fitted.feature_names_in_.tolist() == ["length", "width"]
        np.testing.assert_array_equal(fitted.predict(frame(x)), estimator.predict(x))
        with pytest.raises(ValueError, match="feature names"):
            fitted.predict(pandas.DataFrame(x, columns=["width", "length"]))


def test_pipeline_and_grid_search():
    x = data(np.float64)
    pipe = make_pipeline(
        StandardScaler(), GaussianMixture(covariance_type="spherical", tol=0.1, **AT_SAMPLES)
    )
    grid = {"gaussianmixture__n_components": [1, 2]}
    found = GridSearchCV(pipe, grid, cv=2).fit(x)
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()
    best = found.best_estimator_
    np.testing.assert_allclose(best.score(x), best.score_samples(x).mean())
    assert best.fit_predict(x).shape == (N,)


# Drawing.


def test_samples_have_the_moments_of_the_mixture(estimators):
    mixture = estimators[0]
    drawn, labels = mixture.sample(4000)
    assert drawn.shape == (4000, D)
    again, _ = mixture.sample(4000)
    np.testing.assert_array_equal(drawn, again)  # its seed is a number
    counts = np.bincount(labels, minlength=K)
    error = np.sqrt(4000 * mixture.weights_ * (1 - mixture.weights_))
    np.testing.assert_array_less(np.abs(counts - 4000 * mixture.weights_), 4 * error)
    for k in range(K):
        away = drawn[labels == k].mean(axis=0) - mixture.means_[k]
        error = np.sqrt(mixture.covariances_[k] / counts[k])
        assert (np.abs(away) < 4 * error).all()
    with pytest.raises(DataError, match="n_samples must be a whole number of at least 1"):
        mixture.sample(0)


# What is refused.


def test_failed_fits_are_value_errors():
    x = np.repeat(data(np.float64)[:4], 6, axis=0)
    with pytest.raises(EstimatorError, match=r"collapsed.*n_restarts is called n_init") as raised:
        GaussianMixture(6, covariance_type="spherical", reg_covar=0, **AT_SAMPLES).fit(x)
    assert isinstance(raised.value, FitError)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": 0}, "n_components must be a whole number of at least 1"),
        ({"n_components": N + 1}, "61 components need at least as many samples"),
        ({"n_init": 0}, "n_restarts must be a whole number"),
        ({"max_iter": -1}, "max_steps must be at least zero"),
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


@pytest.mark.parametrize("kind", [str, int, float, bool, object])
def test_the_classifier_agrees_with_theirs(x, dtype, kind):
    y = (x[:, 0] + 100 * x[:, 1] > np.median(x[:, 0] + 100 * x[:, 1])).astype(int)
    y = np.asarray(["no", "yes"], object)[y] if kind in (str, object) else y.astype(kind)
    y = y.astype(str) if kind is str else y
    ours = GaussianBayesClassifier(ridge=0).fit(x, y)
    np.testing.assert_array_equal(ours.classes_, np.unique(y))
    np.testing.assert_allclose(ours.priors_, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(
        ours.means_, [x[y == c].mean(axis=0) for c in ours.classes_], **CLOSE[dtype]
    )
    assert {ours.predict_proba(x).dtype, ours.means_.dtype, ours.priors_.dtype} == {dtype}
    np.testing.assert_allclose(ours.predict_proba(x).sum(axis=1), 1, rtol=1e-5)
    trained = ours.classifier_
    for c, name in enumerate(ours.classes_):
        found = jgmm.classifier.class_mixture(trained, c).covariances[0]
        expected = np.cov(x[y == name].T, bias=True, dtype=np.float64)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Theirs may divide by the number of samples less one.
    theirs = QuadraticDiscriminantAnalysis().fit(x.astype(float), y)
    assert (ours.predict(x) == theirs.predict(x)).mean() > 0.95


def test_a_class_of_no_weight_is_no_class():
    x, y = data(np.float64), np.resize([1.0, 2.0, 3.0], N)
    fitted = GaussianBayesClassifier("diag").fit(x, y, sample_weight=(y != 2).astype(float))
    assert fitted.classes_.tolist() == [1.0, 3.0]
    assert set(fitted.predict(x)) <= {1.0, 3.0}
    with pytest.raises(DataError, match="one class only"):
        GaussianBayesClassifier().fit(x, np.zeros(N))


@in_double
def test_a_class_may_be_a_mixture(dtype):
    x, y = data(dtype), np.resize(["a", "b"], N)
    fitted = GaussianBayesClassifier("spherical", n_components=(1, 2), random_state=0).fit(x, y)
    np.testing.assert_allclose(
        fitted.means_, [x[y == c].mean(axis=0) for c in ("a", "b")], rtol=1e-3
    )


@in_double
def test_kmeans_agrees_with_theirs(x, dtype):
    ours = KMeans(K, n_init=10, random_state=0).fit(x)
    theirs = TheirKMeans(K, n_init=10, random_state=0, tol=0).fit(x)
    np.testing.assert_allclose(ours.inertia_, theirs.inertia_, rtol=1e-5)
    order, their_order = (np.argsort(each.cluster_centers_[:, 0]) for each in (ours, theirs))
    np.testing.assert_allclose(
        ours.cluster_centers_[order], theirs.cluster_centers_[their_order], rtol=1e-4
    )
    np.testing.assert_allclose(
        ours.transform(x)[:, order], theirs.transform(x)[:, their_order], rtol=1e-3, atol=1e-3
    )
    np.testing.assert_array_equal(ours.predict(x), ours.labels_)
    np.testing.assert_allclose(ours.score(x), -ours.inertia_, rtol=1e-5)
    assert {ours.transform(x).dtype, ours.cluster_centers_.dtype} == {dtype}
    named = ours.set_output(transform="pandas").transform(x)
    assert named.columns.tolist() == ["kmeans0", "kmeans1", "kmeans2"]
