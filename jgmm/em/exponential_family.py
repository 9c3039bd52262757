"""Exponential-family form of a Gaussian: log joint density as features times natural parameters.

    log πₖ + log N(x | μₖ, Σₖ) = cₖ + φ(x) · ηₖ,    φ(x) = [x, products x_d x_e]

Only those products x_d x_e are features that the storage of the covariance model has a coefficient
for. For a block of samples the scores (log joint densities) of all components are one matrix
product ``η Φ``, and the moments of all components another, ``γ Φᵀ``. Restarts share the features Φ;
with more of them both products become wider. Where all components share one covariance, the
quadratic part of the score is the same for all and is computed outside the product.

The linear features x and the quadratic ones are two matrices, and so are their parameters: in one
matrix they would cost a copy of the larger one, which takes a fifth of the time of the whole pass.

The disadvantage of this form is cancellation: large terms of φ·η have a sum of order one. For
samples of component k, the term of the product of column d with itself has the mean
P_dd (Σ_dd + μ_d²), with P = Σₖ⁻¹, and no other term is larger. So the sum of these over d says how
many times larger than their result the terms are, and by how much rounding errors are amplified.
P_dd Σ_dd is the variance inflation factor of column d, 1 / (1 - R²), which is large where columns
nearly determine each other; P_dd μ_d² is large for a component that is narrow and far from the
origin. ``cancellation.lost_digits`` computes the sum; where it is large, the E-step uses
differences x - μₖ instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgmm._data.samples import Samples
from jgmm.covariance.models import CovarianceModel
from jgmm.covariance.storage import Diagonal, Full
from jgmm.mixture.gaussian import LOG_2PI
from jgmm.mixture.mixture import Mixture


class NaturalParameters(NamedTuple):
    """Natural parameters ηₖ of all components, and the constants cₖ.

    Attributes:
      constant: cₖ, (K,).
      linear: Σₖ⁻¹ μₖ, (K, D).
      quadratic: coefficients of the quadratic features, from -Σₖ⁻¹/2, (K, Q); None if all
        components share one covariance.
    """

    constant: Array
    linear: Array
    quadratic: Array | None


def natural_parameters(mixture: Mixture) -> NaturalParameters:
    """Compute the natural parameters of a mixture, in the coordinates of the samples."""
    entry, d = mixture.model, mixture.n_features
    storage = entry.storage
    inverse = storage.invert(mixture.scale)
    distance = storage.distance(inverse, mixture.means)
    log_det = storage.half_log_det(mixture.scale, d)
    constant = mixture.log_weights - 0.5 * d * LOG_2PI - log_det - 0.5 * distance
    if storage is Full:
        precision = inverse.mT @ inverse
        per_component = jnp.broadcast_to(precision, (mixture.n_components, d, d))
        linear = jnp.einsum("kde,ke->kd", per_component, mixture.means)
        first, second = _pairs(d)
        upper = _at(precision.reshape(len(precision), d * d), first * d + second)
        quadratic = -0.5 * upper * _multiplicity(d, precision.dtype)[None, :]
    elif storage is Diagonal:
        linear = inverse**2 * mixture.means
        quadratic = -0.5 * inverse**2
    else:
        linear = inverse[:, None] ** 2 * mixture.means
        quadratic = -0.5 * d * inverse[:, None] ** 2
    return NaturalParameters(constant, linear, None if entry.shared else quadratic)


def _pairs(n_columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns d and e of all products x_d x_e, d ≤ e, as unsigned numbers, (Q,) each.

    Of a signed index JAX asks whether it is negative. XLA would answer that for the whole table
    while it compiles, element by element, which takes seconds for many columns.
    """
    first, second = np.triu_indices(n_columns)
    return first.astype(np.uint32), second.astype(np.uint32)


def _at(x: Array, index: np.ndarray) -> Array:
    """Return ``x[:, index]`` for an unsigned index that is in bounds."""
    return x.at[:, index].get(mode="promise_in_bounds")


def _multiplicity(n_features: int, dtype: object) -> np.ndarray:
    """Count how often each product x_d x_e, d ≤ e, occurs in xᵀ Σ⁻¹ x: twice if d < e."""
    rows, columns = _pairs(n_features)
    return np.where(rows == columns, 1.0, 2.0).astype(str(dtype))


def n_features(entry: CovarianceModel, n_columns: int) -> int:
    """Count the features of a sample with D columns, and the constant as one more.

    It is also the number of multiplications that the score of one component takes.
    """
    per_storage = {Full: n_columns * (n_columns + 1) // 2, Diagonal: n_columns}
    return 1 + n_columns + per_storage.get(entry.storage, 1)


def cost_per_step(entry: CovarianceModel, n_columns: int, n_components: int, n_samples: int) -> int:
    """Estimate the multiplications of one EM step with the matrix-product form."""
    return 2 * n_samples * n_components * n_features(entry, n_columns)


class Features(NamedTuple):
    """Features φ of a block of B samples.

    Attributes:
      x: the linear features, (D, B).
      quadratic: the products of columns that the storage keeps, (Q, B).
    """

    x: Float[Array, "D B"]
    quadratic: Float[Array, "Q B"]


def read_for(entry: CovarianceModel) -> Callable[[Samples, Any, int], tuple[Array, Array]]:
    """Return the method that reads a block of samples, for ``fold`` and ``features``.

    For the D²/2 products of a full covariance, samples are read in columns. For the few products of
    the other storages they are read in rows: XLA merges the transposition with the matrix product
    that follows.
    """
    return Samples.columns if entry.storage is Full else Samples.rows


def features(entry: CovarianceModel, x: Array) -> Features:
    """Compute the features of a block of samples.

    The quadratic ones are, by the storage of the model, x_d x_e for d ≤ e (``Full``), x_d²
    (``Diagonal``), or |x|²/D (``Spherical``).

    Args:
      entry: covariance model.
      x: samples as ``read_for(entry)`` reads them.
    """
    if entry.storage is Full:
        first, second = (x.at[rows].get(mode="promise_in_bounds") for rows in _pairs(len(x)))
        return Features(x, first * second)
    squares = x**2 if entry.storage is Diagonal else (x**2).mean(axis=1, keepdims=True)
    return Features(x.T, squares.T)


def scores(eta: NaturalParameters, block: Features) -> Float[Array, "K B"]:
    """Compute the scores cₖ + φ · ηₖ, without the quadratic part if ``eta`` has none."""
    linear = eta.linear @ block.x
    if eta.quadratic is not None:
        linear = linear + eta.quadratic @ block.quadratic
    return linear + eta.constant[:, None]


def shared_score(mixture: Mixture, x: Float[Array, "D B"]) -> Float[Array, "B"]:
    """Compute -|L⁻¹ x|²/2, the quadratic part of the score under a covariance that is shared."""
    inverse = mixture.model.storage.invert(mixture.scale)[0]
    z = inverse @ x if mixture.model.storage is Full else jnp.atleast_1d(inverse)[:, None] * x
    return -0.5 * (z**2).sum(axis=0)


def unpack(entry: CovarianceModel, moments: Float[Array, "J Q"], d: int) -> Array:
    """Convert sums of quadratic features to second moments in the form of the storage.

    Args:
      entry: covariance model.
      moments: weighted sums of the quadratic features, for J components, or J = 1 for all together.
      d: the number of columns D.

    Returns:
      Second moments about the origin: (J, D, D), (J, D) or (J,).
    """
    storage = entry.storage
    if storage is Full:
        first, second = _pairs(d)
        index = np.zeros((d, d), np.uint32)
        index[first, second] = index[second, first] = np.arange(len(first))
        return _at(moments, index)
    return moments if storage is Diagonal else moments[:, 0]
