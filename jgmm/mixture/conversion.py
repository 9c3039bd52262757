"""Conversion between a ``Mixture`` and a fitted scikit-learn ``GaussianMixture``, both ways.

scikit-learn holds the parameters of a fitted mixture in five arrays. With Σₖ = Lₖ Lₖᵀ in jgmm they
are, in addition to weights and means,

    covariances = Σₖ,   precisions_cholesky = Pₖ = Lₖ⁻ᵀ,   precisions = Σₖ⁻¹ = Pₖ Pₖᵀ

each in the form of the covariance model, without the first axis where all components share one
covariance. scikit-learn computes densities from P, and jgmm from L⁻¹ = Pᵀ, so a mixture is read
from P: L = P⁻ᵀ loses half as many digits as the factor of Σ = L Lᵀ would.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._data.validation import as_numbers
from jgmm.covariance.models import model
from jgmm.covariance.storage import Full, Storage
from jgmm.mixture.mixture import HasMixture, Mixture, as_mixture, check_single

ATTRIBUTES = ("weights", "means", "covariances", "precisions", "precisions_cholesky")


def from_sklearn(fitted: Any, dtype: Any = None) -> Mixture:
    """Convert a fitted scikit-learn ``GaussianMixture`` to a ``Mixture``.

    Args:
      fitted: a scikit-learn mixture, an estimator of ``jgmm.estimators``, or any object with the
        attributes ``covariance_type``, ``weights_``, ``means_`` and ``precisions_cholesky_``.
      dtype: the type of the result; by default that of the means, where JAX allows it.

    Raises:
      DataError: the object is not fitted, or its arrays do not fit its covariance type.

    >>> from types import SimpleNamespace
    >>> theirs = SimpleNamespace(
    ...     covariance_type="diag",
    ...     weights_=np.ones(1),
    ...     means_=np.zeros((1, 2)),
    ...     precisions_cholesky_=np.asarray([[0.5, 2.0]]),
    ... )
    >>> from_sklearn(theirs).variances.tolist()
    [[4.0, 0.25]]
    """
    needed = ("weights_", "means_", "precisions_cholesky_")
    missing = [name for name in needed if not hasattr(fitted, name)]
    if missing:
        raise DataError(f"{type(fitted).__name__} has no {missing[0]}: fit it first.")
    entry = model(getattr(fitted, "covariance_type_", None) or fitted.covariance_type)
    arrays = [np.asarray(as_numbers(getattr(fitted, name), name)) for name in needed]
    dtype = jax.dtypes.canonicalize_dtype(dtype or arrays[1].dtype)
    weights, means, root = (jnp.asarray(array, dtype) for array in arrays)
    if entry.shared:
        root = root[None]
    k, d = means.shape if means.ndim == 2 else (0, 0)
    own = entry.storage.identity(d, dtype).shape[1:]
    if (weights.shape, root.shape) != ((k,), (1 if entry.shared else k, *own)):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise DataError(
            f"{', '.join(needed)} do not fit {entry.name!r}: their shapes are {shapes}."
        )
    inverse = root.mT if entry.storage is Full else root
    return Mixture(jnp.log(weights), means, _invert(entry.storage, inverse), entry.name)


def to_attributes(mixture: Mixture) -> dict[str, np.ndarray]:
    """Return the parameters as scikit-learn's five arrays, by name without the last underscore.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [4.0], "spherical")
    >>> to_attributes(one)["precisions"].tolist()
    [0.25]
    """
    check_single(mixture)
    entry = mixture.model
    scale, inverse = np.array(mixture.scale), np.array(_invert(entry.storage, mixture.scale))
    root = inverse.swapaxes(1, 2).copy() if entry.storage is Full else inverse
    with np.errstate(over="ignore"):  # in tiny units a precision may be infinite
        matrices = (_covariance(scale), _covariance(root), root)
    own = [np.asarray(each[0]) if entry.shared else each for each in matrices]
    arrays = (np.array(mixture.weights), np.array(mixture.means), *own)
    return dict(zip(ATTRIBUTES, arrays, strict=True))


@partial(jit, static_argnums=0)
def _invert(storage: Storage, scale: Array) -> Array:
    return storage.invert(scale)


def _covariance(root: np.ndarray) -> np.ndarray:
    """Return R Rᵀ of each square root R, in the same storage."""
    return root @ root.swapaxes(1, 2) if root.ndim == 3 else root**2


def to_sklearn(mixture: Mixture | HasMixture) -> Any:
    """Convert a mixture to a fitted scikit-learn ``GaussianMixture``.

    scikit-learn has four covariance models. Any other model becomes the one that contains it:
    shared matrices become "tied", other matrices "full", diagonals "diag", and multiples of the
    identity "spherical". The densities are the same. The number of parameters that scikit-learn
    counts, and with it AIC and BIC, is that of its own model.

    Args:
      mixture: K components in D dimensions.

    Returns:
      The estimator, as after a fit with ``max_iter=0``: all its methods work, it has not converged,
      and after ``set_params(warm_start=True)`` a fit continues from these parameters. Its
      ``lower_bound_`` is -inf, since a mixture holds no data.

    Raises:
      ImportError: scikit-learn is not installed.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0, 1.0]], [2.0], "spherical")
    >>> to_sklearn(one).predict([[0.0, 0.0]]).tolist()
    [0]
    """
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError as error:
        raise ImportError('this needs scikit-learn: pip install "jgmm[sklearn]"') from error
    mixture = as_mixture(mixture)
    entry, k = mixture.model, mixture.n_components
    theirs = "tied" if entry.shared and entry.storage is Full else entry.storage.name
    fitted: Any = GaussianMixture(k, covariance_type=theirs, warm_start=False)
    for name, array in to_attributes(mixture).items():
        copied = entry.shared and theirs != "tied" and name not in ("weights", "means")
        setattr(fitted, f"{name}_", np.repeat(array[None], k, axis=0) if copied else array)
    fitted.n_features_in_ = mixture.n_features
    fitted.converged_, fitted.n_iter_ = False, 0
    fitted.lower_bound_, fitted.lower_bounds_ = -np.inf, []
    return fitted
