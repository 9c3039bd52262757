"""GaussianBayesClassifier against scikit-learn's discriminant analysis."""

import numpy as np
import pytest
from estimator_cases import CLOSE, N, data
from marks import in_double

import jgmm
from jgmm._core.errors import DataError
from jgmm.estimators.classifier import GaussianBayesClassifier

pytest.importorskip("sklearn", reason='needs pip install "jgmm[sklearn]"')
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis


@pytest.fixture(scope="module")
def x(dtype):
    return data(dtype)


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
