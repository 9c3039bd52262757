"""Between a ``Mixture`` and the attributes scikit-learn keeps one in, both ways.

scikit-learn writes the parameters of a fitted mixture as five arrays. Σₖ = Lₖ Lₖᵀ here, and there

    covariances = Σₖ,   precisions_cholesky = Pₖ = Lₖ⁻ᵀ,   precisions = Σₖ⁻¹ = Pₖ Pₖᵀ

each in the form of the covariance model, without a first axis where all components share one.
Densities go through P on both sides, so P is what a mixture is read back from: L = P⁻ᵀ loses the
root of the digits that Σ = L Lᵀ would.
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
from jgmm.covariance.models import model
from jgmm.covariance.storage import Full, Storage
from jgmm.mixture.mixture import Mixture

ATTRIBUTES = ("weights", "means", "covariances", "precisions", "precisions_cholesky")


def from_sklearn(fitted: Any, dtype: Any = None) -> Mixture:
    """The mixture a fitted scikit-learn ``GaussianMixture`` holds.

    Args:
      fitted: theirs, an estimator of ``jgmm.estimators``, or anything that has the attributes
        ``covariance_type``, ``weights_``, ``means_`` and ``precisions_cholesky_``.
      dtype: of the mixture; by default that of the means, where JAX allows it.

    Raises:
      DataError: it is not fitted, or its arrays do not fit its covariance type.

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
    arrays = [np.asarray(getattr(fitted, name)) for name in needed]
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
    """The parameters as scikit-learn's five arrays, by name without the last underscore."""
    entry = mixture.model
    scale, inverse = np.array(mixture.scale), np.array(_invert(entry.storage, mixture.scale))
    root = inverse.swapaxes(1, 2).copy() if entry.storage is Full else inverse
    matrices = (_square(scale), _square(root), root)
    own = [np.asarray(each[0]) if entry.shared else each for each in matrices]
    arrays = (np.array(mixture.weights), np.array(mixture.means), *own)
    return dict(zip(ATTRIBUTES, arrays, strict=True))


@partial(jit, static_argnums=0)
def _invert(storage: Storage, scale: Array) -> Array:
    return storage.invert(scale)


def _square(root: np.ndarray) -> np.ndarray:
    """R Rᵀ, or its form where R is diagonal."""
    return root @ root.swapaxes(1, 2) if root.ndim == 3 else root**2


def to_sklearn(mixture: Mixture) -> Any:
    """A fitted scikit-learn ``GaussianMixture`` that holds the mixture.

    Theirs knows four models. Any other becomes the one of theirs that holds it: shared matrices
    "tied", other matrices "full", diagonals "diag", multiples of the identity "spherical". The
    densities are the same; their count of parameters, and with it AIC and BIC, is their model's.

    Returns:
      As theirs is with ``max_iter=0``: it answers every question, has not converged, and with
      ``warm_start=True`` goes on from here. Its ``lower_bound_`` is -inf: a mixture knows no data.

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
