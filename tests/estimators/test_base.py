"""What all estimators share: scikit-learn's own checks, precision, pickles, clones, data frames."""

import os
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pandas
import polars
import pyarrow
import pytest
from estimator_cases import AT_SAMPLES, FEW, D, K, N, data, start
from marks import in_double

from jgmm._core.errors import DataError, FitError
from jgmm.estimators.base import EstimatorError
from jgmm.estimators.classifier import GaussianBayesClassifier
from jgmm.estimators.kmeans import KMeans
from jgmm.estimators.mixture import GaussianMixture, MixtureSelector

pytest.importorskip("sklearn", reason='needs pip install "jgmm[sklearn]"')
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks


@pytest.fixture(scope="module")
def x(dtype):
    return data(dtype)


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
        lambda x: polars.LazyFrame(x, schema=["length", "width"]),
        lambda x: pyarrow.table({"length": x[:, 0], "width": x[:, 1]}),
        lambda x: pyarrow.RecordBatch.from_pydict({"length": x[:, 0], "width": x[:, 1]}),
    ],
    ids=["pandas", "polars", "lazy", "arrow", "batch"],
)
def test_data_frames_keep_their_names(estimators, frame):
    x, y = data(np.float64), np.resize(["a", "b"], N)
    for estimator in estimators:
        fitted = clone(estimator).fit(frame(x), y)
        assert fitted.feature_names_in_.tolist() == ["length", "width"]
        np.testing.assert_array_equal(fitted.predict(frame(x)), estimator.predict(x))
        with pytest.raises(ValueError, match="feature names"):
            fitted.predict(pandas.DataFrame(x, columns=["width", "length"]))


HELD = np.where(np.arange(N) == 4, 0.0, 1.0)
HOLES = np.where((np.arange(N) == 4)[:, None], np.nan, data(np.float64))
MISSING = {
    "mask": np.ma.masked_invalid(HOLES),
    "arrow": pandas.DataFrame(HOLES, columns=["a", "b"]).convert_dtypes(dtype_backend="pyarrow"),
    "nullable": pandas.DataFrame(HOLES, columns=["a", "b"]).astype("Float64"),
    "lazy": polars.LazyFrame(HOLES, schema=["a", "b"]),
}


@pytest.mark.parametrize("kind", MISSING)
def test_rows_of_weight_zero_may_be_missing(estimators, kind):
    x, y = MISSING[kind], np.resize(["a", "b"], N)
    masked = np.ma.masked_array(y, mask=HELD == 0)
    for estimator in estimators:
        if isinstance(estimator, MixtureSelector):
            continue  # its fits are those of the first
        found = clone(estimator).fit(x, masked, sample_weight=HELD)
        expected = clone(estimator).fit(data(np.float64), y, sample_weight=HELD)
        centers = "cluster_centers_" if isinstance(estimator, KMeans) else "means_"
        np.testing.assert_array_equal(getattr(found, centers), getattr(expected, centers))
        with pytest.raises(ValueError, match="NaN"):
            clone(estimator).fit(x, y)


def test_a_missing_label_is_named():
    y = pandas.Series([0, 1, 0, 1, None, *[0] * (N - 5)], dtype="Int64")
    with pytest.raises(DataError, match="the label in row 4 is missing"):
        GaussianBayesClassifier("diag").fit(data(np.float64), y)


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
