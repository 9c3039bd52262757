"""Conversion of mixtures to those of scikit-learn, and back."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import oracle
import pytest

import jgmm
from jgmm.covariance.storage import Full
from jgmm.mixture.conversion import from_sklearn, to_attributes, to_sklearn

pytest.importorskip("sklearn", reason='needs pip install "jgmm[sklearn]"')
from sklearn.mixture import GaussianMixture

N, K, D = 60, 3, 2
THEIRS = ("full", "tied", "diag", "spherical")
MODELS = [entry.name for entry in jgmm.covariance.MODELS.values()]


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(1, N, *oracle.parameters(5, k=K, d=D)).astype(dtype)


def mixture(x, name):
    labels = np.digitize(x[:, 0], np.quantile(x[:, 0], [1 / 3, 2 / 3]))
    return jgmm.m_step(x, np.eye(K)[labels], name)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((name, "float64") for name in oracle.FREE), ("EVV", "float64"), ("full", "float32")],
    indirect=["dtype"],
)
def test_theirs_has_the_same_densities_and_leads_back(name, x, dtype, tolerance):
    ours = mixture(x, name)
    theirs = to_sklearn(ours)
    assert theirs.covariance_type in THEIRS
    np.testing.assert_allclose(theirs.score_samples(x), jgmm.log_prob(ours, x), **tolerance)
    np.testing.assert_array_equal(theirs.predict(x), jgmm.predict(ours, x))
    back = from_sklearn(theirs)
    assert back.means.dtype == dtype
    np.testing.assert_allclose(back.covariances, ours.covariances, **tolerance)
    np.testing.assert_allclose(back.weights, ours.weights, **tolerance)


@pytest.mark.parametrize("name", THEIRS)
def test_their_own_names_stay(name, x):
    assert to_sklearn(mixture(x, name)).covariance_type == name


@pytest.mark.parametrize("name", THEIRS)
def test_a_fit_of_theirs_becomes_a_mixture(name, x, tolerance):
    theirs = GaussianMixture(K, covariance_type=name, random_state=0).fit(x)
    ours = from_sklearn(theirs)
    assert ours.covariance == name
    np.testing.assert_allclose(jgmm.log_prob(ours, x), theirs.score_samples(x), **tolerance)
    again = to_sklearn(ours)
    for attribute in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        found, expected = getattr(again, attribute), getattr(theirs, attribute)
        assert found.dtype == expected.dtype
        # Their precisions are inverses of matrices with condition numbers up to a hundred.
        rtol = 100 * tolerance["rtol"]
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * abs(expected).max())


def test_theirs_goes_on_from_here(x):
    theirs = to_sklearn(mixture(x, "full")).set_params(warm_start=True, max_iter=200)
    before = theirs.score(x)
    assert theirs.fit(x).converged_
    assert theirs.score(x) > before


def test_attributes_agree_with_each_other(x, tolerance):
    """Σ P Pᵀ is the unit matrix, for every model in its own form."""
    for name in MODELS:
        ours = mixture(x, name)
        found = to_attributes(ours)
        sigma, precision = found["covariances"], found["precisions"]
        root = found["precisions_cholesky"]
        assert sigma.shape == precision.shape == root.shape
        if ours.model.storage is Full:
            unit = np.broadcast_to(np.eye(D), sigma.shape)
            np.testing.assert_allclose(sigma @ precision, unit, **tolerance)
            np.testing.assert_allclose(root @ root.swapaxes(-1, -2), precision, **tolerance)
        else:
            np.testing.assert_allclose(sigma * precision, 1, **tolerance)
            np.testing.assert_allclose(root**2, precision, **tolerance)


def test_small_variances_survive_the_way_back(dtype):
    """L = P⁻ᵀ loses the root of the digits that Σ = L Lᵀ would: here there would be none left."""
    narrow = float(np.sqrt(np.finfo(dtype).eps))
    scale = np.asarray([[[1, 0], [1, narrow]]], dtype)
    ours = jgmm.Mixture(
        *(jax.numpy.asarray(each, dtype) for each in ([0.0], [[0, 0]], scale)), "full"
    )
    back = from_sklearn(SimpleNamespace(covariance_type="full", **attributes_of(ours)))
    np.testing.assert_allclose(back.scale, scale, rtol=1e-2)


def attributes_of(mixture):
    return {f"{name}_": array for name, array in to_attributes(mixture).items()}


def test_what_is_not_fitted_is_refused():
    with pytest.raises(jgmm.DataError, match="GaussianMixture has no weights_: fit it first"):
        from_sklearn(GaussianMixture())


def test_arrays_that_do_not_fit_are_refused(x):
    theirs = to_sklearn(mixture(x, "diag")).set_params(covariance_type="tied")
    with pytest.raises(jgmm.DataError, match=r"do not fit 'tied'.*\(3,\), \(3, 2\), \(3, 2\)"):
        from_sklearn(theirs)


def test_what_to_install_is_said():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import jgmm\n"
        "from jgmm import *\n"
        "one = jgmm.make_mixture([1.0], [[0.0]], [1.0], 'spherical')\n"
        "for ask in (lambda: jgmm.mixture.conversion.to_sklearn(one), lambda: jgmm.estimators):\n"
        "    try: ask()\n"
        "    except ImportError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.count('pip install "jgmm[sklearn]"') == 2


def test_importing_jgmm_imports_no_scikit_learn():
    code = "import sys, jgmm; jgmm.fit; jgmm.mixture.conversion; print('sklearn' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"
