"""The exponential-family form: a component's log joint density as a product.

    log πₖ + log N(x | μₖ, Σₖ) = cₖ + φ(x) · ηₖ,    φ(x) = [x, the products x_d x_e that Σₖ can see]

For a block of samples all scores are a matrix product ``η Φ``, and the moments of all components
one back, ``γ Φᵀ``; restarts share the features Φ and widen both products. Where all components
share one covariance the quadratic part is the same for all and leaves the product.

The linear features x and the quadratic ones are kept apart, as are the parameters that go with
them: to put them into one matrix would cost a copy of the larger, a fifth of the whole pass.

The price is cancellation. Of the products in φ·η those of column d with itself are, for samples of
component k, P_dd (Σ_dd + μ_d²) in the mean, P = Σₖ⁻¹, and no other is larger; their sum over d is
how many times larger than their result, of order one, the terms are, and so how many roundings are
lost. P_dd Σ_dd is column d's variance inflation factor, 1 / (1 - R²), large where columns nearly
determine each other; P_dd μ_d² is large for a component that is narrow and far from the origin.
``digits`` measures it; the engine falls back on differences where it is large.
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


def _inverse(mixture: Mixture) -> Array:
    return mixture.model.storage.invert(mixture.scale)


class NaturalParameters(NamedTuple):
    """cₖ, (K,); Σₖ⁻¹ μₖ, (K, D); and -Σₖ⁻¹/2, (K, Q), or None where it is shared."""

    constant: Array
    linear: Array
    quadratic: Array | None


def natural_parameters(mixture: Mixture) -> NaturalParameters:
    """The constants, and the coefficients of the linear and of the quadratic features."""
    entry, d = mixture.model, mixture.n_features
    inverse = _inverse(mixture)
    storage = entry.storage
    distance = storage.distance(inverse, mixture.means)
    log_det = storage.half_log_det(mixture.scale, d)
    constant = mixture.log_weights - 0.5 * d * LOG_2PI - log_det - 0.5 * distance
    if storage is Full:
        precision = inverse.mT @ inverse
        every = jnp.broadcast_to(precision, (mixture.n_components, d, d))
        linear = jnp.einsum("kde,ke->kd", every, mixture.means)
        rows, columns = np.triu_indices(d)
        # Off the diagonal a product stands once in φ and twice in xᵀ Σ⁻¹ x.
        quadratic = -0.5 * precision[:, rows, columns] * _once_or_twice(d, precision.dtype)[None, :]
    elif storage is Diagonal:
        linear = inverse**2 * mixture.means
        quadratic = -0.5 * inverse**2
    else:
        linear = inverse[:, None] ** 2 * mixture.means
        quadratic = -0.5 * d * inverse[:, None] ** 2
    return NaturalParameters(constant, linear, None if entry.shared else quadratic)


def _once_or_twice(n_features: int, dtype: object) -> np.ndarray:
    rows, columns = np.triu_indices(n_features)
    return np.where(rows == columns, 1.0, 2.0).astype(str(dtype))


def n_features(entry: CovarianceModel, n_columns: int) -> int:
    """What a sample costs in products, for D columns: one for each feature and for the constant."""
    per_storage = {Full: n_columns * (n_columns + 1) // 2, Diagonal: n_columns}
    return 1 + n_columns + per_storage.get(entry.storage, 1)


def cost_per_step(entry: CovarianceModel, n_columns: int, n_components: int, n_samples: int) -> int:
    """Multiplications that a step takes by products, roughly."""
    return 2 * n_samples * n_components * n_features(entry, n_columns)


class Features(NamedTuple):
    """φ of a block of samples: x, (D, B), and the products of columns the storage keeps, (Q, B)."""

    x: Float[Array, "D B"]
    quadratic: Float[Array, "Q B"]


def read_for(entry: CovarianceModel) -> Callable[[Samples, Any, int], tuple[Array, Array]]:
    """How a block of samples is read: in columns for the D²/2 products of a full covariance.

    Where products are few, samples stay in rows: XLA folds the transposes into the matrix products
    that read them.
    """
    return Samples.columns if entry.storage is Full else Samples.rows


def features(entry: CovarianceModel, x: Array) -> Features:
    """The features of a block: with the products x_d x_e for d ≤ e, for d = e, or |x|²/D.

    Args:
      entry: covariance model.
      x: samples as ``read_for(entry)`` reads them.
    """
    if entry.storage is Full:
        first, second = np.triu_indices(len(x))
        return Features(x, x[first] * x[second])
    squares = x**2 if entry.storage is Diagonal else (x**2).mean(axis=1, keepdims=True)
    return Features(x.T, squares.T)


def scores(eta: NaturalParameters, block: Features) -> Float[Array, "K B"]:
    """cₖ + φ · ηₖ, without the quadratic part where it is shared."""
    linear = eta.linear @ block.x
    if eta.quadratic is not None:
        linear = linear + eta.quadratic @ block.quadratic
    return linear + eta.constant[:, None]


def shared_score(mixture: Mixture, x: Float[Array, "D B"]) -> Float[Array, "B"]:
    """-|L⁻¹ x|²/2, the quadratic part of the score where all components share one covariance."""
    inverse = _inverse(mixture)[0]
    z = inverse @ x if mixture.model.storage is Full else jnp.atleast_1d(inverse)[:, None] * x
    return -0.5 * (z**2).sum(axis=0)


def unpack(entry: CovarianceModel, moments: Float[Array, "J Q"], d: int) -> Array:
    """Second moments about the origin in the storage's form, from sums of quadratic features."""
    storage = entry.storage
    if storage is Full:
        rows, columns = np.triu_indices(d)
        where = np.zeros((d, d), int)
        where[rows, columns] = where[columns, rows] = np.arange(len(rows))
        return moments[:, where]
    return moments if storage is Diagonal else moments[:, 0]
