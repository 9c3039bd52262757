"""Augmented parametrization of Hosseini & Sra: one positive definite matrix for each Gaussian.

Samples get a last coordinate that is always one, y = (x, 1). A component has, instead of a mean and
a covariance, one symmetric positive definite matrix with one more row and column,

    S = | Σ + s μ μᵀ   s μ |
        |   s μᵀ        s  |

    √2π exp(1/2) N(y | 0, S) = N(x | μ, Σ) ψ(s),    ψ(s) = s^(-1/2) exp(1/2 − 1/(2 s)) ≤ 1

The last number s of S is free, and the factor ψ makes it one at every optimum. Because there is no
mean, the log-density of one component is geodesically concave in S. Here the parameters are the
Cholesky factor of S and logits for the weights. The authors' own methods are Riemannian: they move
on the manifold of positive definite matrices.

Reference: Hosseini & Sra (2015), "Matrix manifold optimization for Gaussian mixtures"; (2020), "An
alternative to EM for Gaussian mixture models: batch and stochastic Riemannian optimization".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf
from jgmm.covariance.models import CovarianceModel
from jgmm.covariance.storage import Full
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.unconstrained import LOG, Free


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Augmented:
    """Logits (K,), and the Cholesky factors of S with a log diagonal, (K, D + 1, D + 1)."""

    logits: Leaf
    factor: Leaf


@dataclass(frozen=True)
class AugmentedSpd:
    """The augmented matrices as a ``Parametrization``; for the covariance model ``full`` only."""

    def check(self, entry: CovarianceModel, n_components: int, n_features: int) -> None:
        """Check that each component has a full covariance of its own.

        Raises:
          DataError: another covariance model; the text names it.
        """
        if entry.shared or not (
            entry.storage is Full and entry.fills_storage(n_components, n_features)
        ):
            raise DataError(
                "the augmented parametrization is one matrix a component, for the covariance model "
                f"'full'; it cannot hold {entry.name!r}. Use parametrization='log'."
            )

    def point(self, mixture: Mixture) -> Augmented:
        """Return the point that stands for a mixture, with s = 1 in every component."""
        means, one = mixture.means, jnp.ones_like(mixture.means[:, :1])
        augmented_means = jnp.concatenate([means, one], axis=1)
        covariances = Full.covariance(mixture.scale)
        s = Full.outer(augmented_means).at[:, :-1, :-1].add(covariances)
        augmented = replace(mixture, means=augmented_means, scale=Full.root(s))
        return Augmented(mixture.log_weights, LOG.point(augmented).scale)

    def mixture(self, point: Augmented, covariance: str) -> Mixture:
        """Return the mixture with weights πₖ ψ(sₖ), which sum to one at an optimum only."""
        # S = C Cᵀ with C = [[A, 0], [bᵀ, c]], so s = bᵀb + c², s μ = A b, Σ = A (1 − b bᵀ/s) Aᵀ.
        k, d = len(point.logits), point.factor.shape[-1] - 1
        means = jnp.zeros((k, d + 1), point.factor.dtype)
        factor = LOG.mixture(Free(point.logits, means, point.factor), covariance).scale
        a, b, c = factor[:, :-1, :-1], factor[:, -1, :-1], factor[:, -1, -1]
        s = (b**2).sum(axis=1) + c**2
        inner = jnp.eye(d, dtype=b.dtype)[None] - Full.outer(b) / s[:, None, None]
        log_weights = jax.nn.log_softmax(point.logits) + _log_psi(s)
        means = jnp.einsum("kde,ke->kd", a, b) / s[:, None]
        return Mixture(log_weights, means, a @ Full.root(inner), covariance)


def _log_psi(s: Array) -> Array:
    return 0.5 * (1 - jnp.log(s) - 1 / s)
