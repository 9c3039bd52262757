"""KMeans against scikit-learn's."""

import numpy as np
import pytest
from estimator_cases import K, data
from marks import in_double

from jgmm.estimators.kmeans import KMeans

pytest.importorskip("sklearn", reason='needs pip install "jgmm[sklearn]"')
from sklearn.cluster import KMeans as TheirKMeans


@pytest.fixture(scope="module")
def x(dtype):
    return data(dtype)


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
