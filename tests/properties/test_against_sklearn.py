"""The same start and the same number of steps as scikit-learn: the same parameters."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm import kmeans
from jgmm._data.samples import make_samples
from jgmm.fitting import single_run
from jgmm.kmeans import lloyd

pytest.importorskip("sklearn", reason='needs pip install "jgmm[sklearn]"')
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

STEPS = 25
# Both sum in float64, scikit-learn partly as E[x²] - mean²; 25 steps amplify their rounding.
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


def iris():
    return load_iris().data


def overlapping():
    return oracle.draw(0, 200, *oracle.parameters(8, k=3, d=3))


@pytest.fixture(scope="module", params=[iris, overlapping], ids=lambda data: data.__name__)
def x(request):
    return request.param()


@pytest.fixture(scope="module", params=["full", "tied", "diag", "spherical"])
def pair(request, x):
    """Our fit and theirs from one start."""
    name, k = request.param, 3
    labels = np.digitize(x[:, 0], np.quantile(x[:, 0], [1 / 3, 2 / 3]))
    start = jgmm.m_step(x, np.eye(k)[labels], name)
    precisions = np.linalg.inv(start.covariances)
    own = {
        "full": precisions,
        "tied": precisions[0],
        "diag": np.diagonal(precisions, axis1=1, axis2=2),
        "spherical": precisions[:, 0, 0],
    }[name]
    theirs = GaussianMixture(
        k,
        covariance_type=name,
        tol=0,
        reg_covar=0,
        max_iter=STEPS,
        weights_init=np.asarray(start.weights),
        means_init=np.asarray(start.means),
        precisions_init=own,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it is told not to converge
        theirs.fit(x)
    return single_run.run_em(start, x, tol=0.0, rtol=0.0, max_steps=STEPS), theirs


def test_parameters_agree(pair):
    ours, theirs = pair
    assert int(ours.n_steps) == theirs.n_iter_ == STEPS
    np.testing.assert_allclose(ours.mixture.weights, theirs.weights_, **CLOSE)
    np.testing.assert_allclose(ours.mixture.means, theirs.means_, **CLOSE)
    sigma = theirs.covariances_
    if theirs.covariance_type == "diag":
        sigma = sigma[:, :, None] * np.eye(sigma.shape[1])
    if theirs.covariance_type == "spherical":
        sigma = sigma[:, None, None] * np.eye(theirs.means_.shape[1])
    expected = np.broadcast_to(sigma, ours.mixture.covariances.shape)
    np.testing.assert_allclose(ours.mixture.covariances, expected, **CLOSE)


def test_questions_have_the_same_answers(pair, x):
    ours, theirs = pair
    np.testing.assert_allclose(jgmm.log_prob(ours.mixture, x), theirs.score_samples(x), **CLOSE)
    np.testing.assert_allclose(
        jgmm.responsibilities(ours.mixture, x), theirs.predict_proba(x), **CLOSE
    )
    np.testing.assert_array_equal(jgmm.predict(ours.mixture, x), theirs.predict(x))
    np.testing.assert_allclose(ours.log_likelihood, theirs.score(x) * len(x), **CLOSE)


def test_their_lower_bound_is_one_step_behind(pair, x):
    """Ours belongs to the parameters returned; theirs to those before the last M-step."""
    ours, theirs = pair
    np.testing.assert_allclose(ours.history[STEPS - 1] / len(x), theirs.lower_bound_, **CLOSE)


def test_parameter_counts_agree(pair):
    ours, theirs = pair
    assert jgmm.mixture.n_parameters(ours.mixture) == theirs._n_parameters()


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_kmeans_agrees(x, weighted):
    """k-means is where scikit-learn has weights; its mixtures have none."""
    weight = np.resize([1.0, 2.5, 0.5], len(x)) if weighted else None
    theirs = KMeans(4, init=x[:4], n_init=1, tol=0, algorithm="lloyd", max_iter=300)
    theirs.fit(x, sample_weight=weight)
    every, most = jnp.ones(4, bool), jnp.asarray(300)
    ours = jax.jit(lambda x: lloyd(x[None, :4], make_samples(x, weight), every, most))(x)
    ours = jax.tree.map(lambda leaf: leaf[0], ours)
    np.testing.assert_allclose(ours.centers, theirs.cluster_centers_, **CLOSE)
    np.testing.assert_allclose(ours.inertia, theirs.inertia_, **CLOSE)
    np.testing.assert_array_equal(kmeans.predict(ours.centers, x), theirs.labels_)
