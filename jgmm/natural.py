"""The exponential-family form: a component's log joint density as a product.

    log πₖ + log N(x | μₖ, Σₖ) = φ(x) · ηₖ,    φ(x) = [1, x, the products x_d x_e that Σₖ can see]

For a block of samples all scores are a matrix product ``η Φ``, and the moments of all components
one back, ``γ Φᵀ``; restarts share the features Φ and widen both products. Where all components
share one covariance the quadratic part is the same for all and leaves the product.

The linear features [1, x] and the quadratic ones are kept apart, as are the parameters that go with
them: to put them into one matrix would cost a copy of the larger, a fifth of the whole pass.

The price is cancellation: the terms of φ·η are of the size of |Lₖ⁻¹ μₖ|², the squared distance of
a component from the origin in its own standard deviations, and so many roundings are lost.
``is_safe`` measures it; the engine falls back on differences where it is large.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jgmm.covariance import CovarianceModel
from jgmm.forms import Diagonal, Full
from jgmm.gaussian import LOG_2PI
from jgmm.mixture import Mixture

# The product form is used while no used component is farther from the origin, in squared standard
# deviations of its own, than this, and so much more for each column. A squared distance is also
# how many roundings a log density may be off, and a variance in the worst direction; taken by
# differences, a log density is off by about one for each column anyway. In float32 that makes
# about 3e-5 of a variance for few columns and 2e-3 for a thousand, in float64 about 1e-11.
SAFE_DISTANCE = {"float32": 400.0, "float64": 1e5}
SAFE_DISTANCE_PER_COLUMN = 32
# Up to so many times that distance EM goes by products until their rounding shows, and only the
# last steps go by differences. In float64 the distance alone is far beyond what data ask for.
ROUGH_TIMES = {"float32": 50, "float64": 1}


class Digits(NamedTuple):
    """What the product form keeps: digits enough, or digits enough to find the way, or neither."""

    is_safe: Bool[Array, ""]
    is_rough: Bool[Array, ""]


def digits(mixture: Mixture) -> Digits:
    """Whether the product form keeps enough digits for this mixture, in the samples' frame.

    It goes by the farthest component. With a NaN, or a covariance that has all but collapsed, the
    form is neither safe nor rough.
    """
    distance = mixture.model.storage.distance(_inverse(mixture), mixture.means)
    used = mixture.log_weights != -jnp.inf  # a NaN counts as used
    squared = jnp.where(used, distance, 0).max()
    more = SAFE_DISTANCE_PER_COLUMN * mixture.n_features
    dtype = str(mixture.means.dtype)
    limit = SAFE_DISTANCE[dtype] + more
    safe = squared <= limit
    return Digits(safe, ~safe & (squared <= ROUGH_TIMES[dtype] * limit))


def is_safe(mixture: Mixture) -> Bool[Array, ""]:
    """Whether the product form keeps enough digits for this mixture; see ``digits``."""
    return digits(mixture).is_safe


def _inverse(mixture: Mixture) -> Array:
    return mixture.model.storage.invert(mixture.scale)


class Natural(NamedTuple):
    """ηₖ: constant and Σₖ⁻¹ μₖ, (K, 1 + D); and -Σₖ⁻¹/2, (K, Q), or None where it is shared."""

    linear: Array
    quadratic: Array | None


def natural_parameters(mixture: Mixture) -> Natural:
    """The coefficients of the linear and of the quadratic features."""
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
    first = jnp.concatenate([constant[:, None], linear], axis=1)
    return Natural(first, None if entry.shared else quadratic)


def _once_or_twice(n_features: int, dtype: object) -> np.ndarray:
    rows, columns = np.triu_indices(n_features)
    return np.where(rows == columns, 1.0, 2.0).astype(str(dtype))


def n_features(entry: CovarianceModel, n_columns: int) -> int:
    """P, the length of φ with its quadratic part, for D columns."""
    per_storage = {Full: n_columns * (n_columns + 1) // 2, Diagonal: n_columns}
    return 1 + n_columns + per_storage.get(entry.storage, 1)


def in_columns(x: Float[Array, "B D"]) -> Float[Array, "D B"]:
    """The samples in columns, written to memory that way.

    As a product with the identity, which is exact: a plain transpose XLA would fuse into all that
    read it, and each of the D²/2 products of columns would step through memory by D.
    """
    identity = jnp.eye(x.shape[1], dtype=x.dtype)
    return lax.dot_general(identity, x, (((1,), (1,)), ((), ())), precision="highest")


def linear_features(x: Float[Array, "D B"]) -> Float[Array, "_ B"]:
    """[1, x], samples in columns."""
    return jnp.concatenate([jnp.ones((1, x.shape[1]), x.dtype), x])


def quadratic_features(entry: CovarianceModel, x: Float[Array, "D B"]) -> Float[Array, "Q B"]:
    """The products x_d x_e that the storage keeps, samples in columns: d ≤ e, d = e, or |x|²/D."""
    storage = entry.storage
    if storage is Full:
        rows, columns = np.triu_indices(x.shape[0])
        return x[rows] * x[columns]
    return x**2 if storage is Diagonal else (x**2).mean(axis=0, keepdims=True)


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
