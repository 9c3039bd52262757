"""One multivariate Gaussian: density, samples, marginal, conditional, divergence and ellipse.

``log N(x | μ, Σ) = -D/2 log 2π - 1/2 log|Σ| - 1/2 (x-μ)ᵀ Σ⁻¹ (x-μ)``, always through the lower
Cholesky factor L of Σ = L Lᵀ. Reference: Bishop (2006), section 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int, Key

from jgmm._core.compilation import jit
from jgmm.covariance.storage import Full

LOG_2PI = math.log(2 * math.pi)


def log_prob(
    x: Float[Array, "N D"], mean: Float[Array, "D"], cholesky: Float[Array, "D D"]
) -> Float[Array, "N"]:
    """Log density of samples under one Gaussian, in nats.

        log p(x) = -D/2 log 2π - Σ_d log L_dd - 1/2 |L⁻¹ (x - μ)|²

    Args:
      x: samples in rows.
      mean: μ.
      cholesky: L, lower triangular with positive diagonal.

    Returns:
      One number for each sample, finite until the squared distance overflows.

    >>> log_prob(jnp.zeros((1, 2)), jnp.zeros(2), jnp.eye(2)).round(3)
    Array([-1.838], dtype=float32)
    """
    z = whiten(x, mean, cholesky)
    return -0.5 * (x.shape[1] * LOG_2PI + (z**2).sum(axis=1)) - half_log_det(cholesky)


def whiten(
    x: Float[Array, "N D"], mean: Float[Array, "D"], cholesky: Float[Array, "D D"]
) -> Float[Array, "N D"]:
    """Whiten samples: ``z = L⁻¹ (x - μ)``, which has mean zero and the identity as covariance.

    Args:
      x: samples in rows.
      mean: μ.
      cholesky: L, lower triangular with positive diagonal.

    >>> whiten(jnp.asarray([[3.0, 1.0]]), jnp.ones(2), 2 * jnp.eye(2)).tolist()
    [[1.0, 0.0]]
    """
    inverse = solve_triangular(cholesky, jnp.eye(len(mean), dtype=cholesky.dtype), lower=True)
    return (x - mean[None, :]) @ inverse.T


def half_log_det(cholesky: Float[Array, "D D"]) -> Float[Array, ""]:
    """Half the log determinant, ``1/2 log|Σ|``: the sum of the logs of the factor's diagonal.

    >>> half_log_det(jnp.eye(3)).item()
    0.0
    """
    return jnp.log(jnp.diagonal(cholesky)).sum()


def sample(
    key: Key[Array, ""], mean: Float[Array, "D"], cholesky: Float[Array, "D D"], n_samples: int
) -> Float[Array, "N D"]:
    """Draw samples ``μ + L ε`` with ε standard normal, (n_samples, D).

    Args:
      key: a typed key, such as ``jax.random.key(0)``.
      mean: μ.
      cholesky: L, lower triangular with positive diagonal.
      n_samples: how many samples to draw.

    >>> sample(jax.random.key(0), jnp.zeros(2), jnp.eye(2), n_samples=5).shape
    (5, 2)
    """
    draws = jax.random.normal(key, (n_samples, len(mean)), mean.dtype)
    return mean[None, :] + draws @ cholesky.T


def marginal(
    mean: Float[Array, "D"], cholesky: Float[Array, "D D"], dims: Sequence[int]
) -> tuple[Float[Array, "M"], Float[Array, "M M"]]:
    """Marginal distribution: mean and factor of the chosen coordinates, in the order given.

    Args:
      mean: μ.
      cholesky: L, lower triangular with positive diagonal.
      dims: the M chosen coordinates.

    Returns:
      The mean, and the Cholesky factor of the covariance.

    >>> marginal(jnp.arange(3.0), jnp.eye(3), [2, 0])[0]
    Array([2., 0.], dtype=float32)
    """
    index = jnp.asarray(dims)
    return mean[index], Full.root_of_rows(cholesky[index][None])[0]


def condition(
    mean: Float[Array, "D"],
    cholesky: Float[Array, "D D"],
    dims: Sequence[int],
    values: Float[Array, "M"],
) -> tuple[Float[Array, "F"], Float[Array, "F F"]]:
    """Conditional distribution: mean and factor of the other coordinates, given some values.

        μ_a|b = μ_a + Σ_ab Σ_bb⁻¹ (x_b - μ_b) = μ_a + T_ab T_bb⁻¹ (x_b - μ_b)
        Σ_a|b = Σ_aa - Σ_ab Σ_bb⁻¹ Σ_ba       = T_aa T_aaᵀ

    with T the Cholesky factor of the covariance whose first coordinates are b. T comes from the
    rows of L, so that no digits are lost where the coordinates nearly determine each other.

    Args:
      mean: μ.
      cholesky: L, lower triangular with positive diagonal.
      dims: the M coordinates whose values are known (b).
      values: their values x_b.

    Returns:
      Mean, and Cholesky factor of the covariance, of the F = D - M other coordinates (a), in
      increasing order. The covariance does not depend on the values.

    Reference: Bishop (2006), equations 2.81 and 2.82.

    >>> root = jnp.linalg.cholesky(jnp.asarray([[1.0, 0.5], [0.5, 1.0]]))
    >>> mu, rest = condition(jnp.zeros(2), root, [0], jnp.asarray([1.0]))
    >>> round(mu.item(), 3), round((rest @ rest.T).item(), 3)
    (0.5, 0.75)
    """
    known = [int(d) for d in dims]
    others = [d for d in range(len(mean)) if d not in known]
    return condition_on(mean, cholesky, jnp.asarray(known), jnp.asarray(others, dtype=int), values)


def condition_on(
    mean: Float[Array, "D"],
    cholesky: Float[Array, "D D"],
    known: Int[Array, "M"],
    others: Int[Array, "F"],
    values: Float[Array, "M"],
) -> tuple[Float[Array, "F"], Float[Array, "F F"]]:
    """``condition`` with the coordinates as arrays: one program serves all that are M of D.

    >>> first, second = jnp.asarray([0]), jnp.asarray([1])
    >>> condition_on(jnp.zeros(2), jnp.eye(2), second, first, jnp.ones(1))[0].tolist()
    [0.0]
    """
    m = len(known)
    t = Full.root_of_rows(cholesky[jnp.concatenate([known, others])][None])[0]
    z = solve_triangular(t[:m, :m], values - mean[known], lower=True)
    return mean[others] + t[m:, :m] @ z, t[m:, m:]


def entropy(cholesky: Float[Array, "D D"]) -> Float[Array, ""]:
    """Differential entropy, ``D/2 (1 + log 2π) + 1/2 log|Σ|``, in nats.

    Args:
      cholesky: L, lower triangular with positive diagonal.

    >>> entropy(jnp.eye(1)).round(3)
    Array(1.419, dtype=float32)
    """
    return 0.5 * len(cholesky) * (1 + LOG_2PI) + half_log_det(cholesky)


def kl_divergence(
    mean_p: Float[Array, "D"],
    cholesky_p: Float[Array, "D D"],
    mean_q: Float[Array, "D"],
    cholesky_q: Float[Array, "D D"],
) -> Float[Array, ""]:
    """Kullback–Leibler divergence KL(p‖q) of Gaussian p from Gaussian q, in nats.

        KL(p‖q) = 1/2 ( tr(Σ_q⁻¹ Σ_p) + |L_q⁻¹ (μ_p - μ_q)|² - D ) + log|L_q| - log|L_p|

    Args:
      mean_p, cholesky_p: mean and Cholesky factor of p.
      mean_q, cholesky_q: mean and Cholesky factor of q.

    The divergence is nonnegative, and zero exactly when the two distributions are the same.

    >>> kl_divergence(jnp.ones(1), jnp.eye(1), jnp.zeros(1), jnp.eye(1)).item()
    0.5
    """
    ratio = solve_triangular(cholesky_q, cholesky_p, lower=True)
    shift = whiten(mean_p[None, :], mean_q, cholesky_q)
    squares = (ratio**2).sum() + (shift**2).sum() - len(mean_p)
    return 0.5 * squares + half_log_det(cholesky_q) - half_log_det(cholesky_p)


def ellipse(
    mean: Float[Array, "2"] | Float[np.ndarray, "2"],
    covariance: Float[Array, "2 2"] | Float[np.ndarray, "2 2"],
    mass: Any = 0.95,
    n_points: int = 100,
) -> Float[Array, "n_points 2"]:
    """Confidence ellipse: the curve of equal density that encloses a given probability.

        x(t) = μ + r L (cos t, sin t),   r² = -2 log(1 - mass)

    r² is the quantile of the chi-squared distribution with two degrees of freedom.

    Args:
      mean: μ, two coordinates.
      covariance: Σ; it may be singular, and the curve is then flat.
      mass: the enclosed probability, in (0, 1).
      n_points: number of points on the curve; the first equals the last.

    >>> ellipse(jnp.zeros(2), jnp.eye(2), mass=0.95).max().round(2)
    Array(2.45, dtype=float32)
    """
    return _ellipse(mean, covariance, mass, n_points)


@partial(jit, static_argnums=3, quick=True)
def _ellipse(mean: Array, covariance: Array, mass: Any, n_points: int) -> Array:
    # Unlike a Cholesky factor, an eigendecomposition also exists for singular covariances.
    values, vectors = jnp.linalg.eigh(covariance)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))[None, :]
    t = jnp.linspace(0, 2 * jnp.pi, n_points, dtype=mean.dtype)
    circle = jnp.stack([jnp.cos(t), jnp.sin(t)])
    radius = jnp.sqrt(-2 * jnp.log1p(-mass)).astype(mean.dtype)
    return mean[None, :] + radius * (root @ circle).T
