"""The reformulation of Hosseini & Sra: a Gaussian as one positive definite matrix, without a mean.

Samples get a last coordinate that is always one, y = (x, 1), and a component one symmetric positive
definite matrix of one row and column more instead of a mean and a covariance,

    S = | Σ + s μ μᵀ   s μ |
        |   s μᵀ        s  |

    √2π exp(1/2) N(y | 0, S) = N(x | μ, Σ) ψ(s),    ψ(s) = s^(-1/2) exp(1/2 − 1/(2 s)) ≤ 1

The last number of S is free, and ψ sees to it that it is one at every optimum. Without a mean of
its own, the log-density of one component is geodesically concave in S. Here S is climbed through
its Cholesky factor, beside logits for the weights; the authors' own methods walk on the manifold.

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
    """The reformulation as a ``Parametrisation``; for the model ``full`` only."""

    def check(self, entry: CovarianceModel, n_components: int, n_features: int) -> None:
        """Refuse a model whose components do not have a full covariance each.

        Raises:
          DataError: naming the one that does.
        """
        if entry.shared or not (
            entry.storage is Full and entry.fills_storage(n_components, n_features)
        ):
            raise DataError(
                "the augmented parametrisation is one matrix a component, for the covariance model "
                f"'full'; it cannot hold {entry.name!r}. Use parametrisation='log'."
            )

    def point(self, mixture: Mixture) -> Augmented:
        """The point of s = 1 that stands for a mixture."""
        means, one = mixture.means, jnp.ones_like(mixture.means[:, :1])
        last = jnp.concatenate([means, one], axis=1)
        square = Full.covariance(mixture.scale)
        s = Full.outer(last).at[:, :-1, :-1].add(square)
        whole = replace(mixture, means=last, scale=Full.root(s))
        return Augmented(mixture.log_weights, LOG.point(whole).scale)

    def mixture(self, point: Augmented, covariance: str) -> Mixture:
        """The mixture whose weights are πₖ ψ(sₖ), so that they sum to one at an optimum only."""
        # S = C Cᵀ with C = [[A, 0], [bᵀ, c]], so s = bᵀb + c², s μ = A b, Σ = A (1 − b bᵀ/s) Aᵀ.
        k, d = len(point.logits), point.factor.shape[-1] - 1
        means = jnp.zeros((k, d + 1), point.factor.dtype)
        factor = LOG.mixture(Free(point.logits, means, point.factor), covariance).scale
        a, b, c = factor[:, :-1, :-1], factor[:, -1, :-1], factor[:, -1, -1]
        s = (b**2).sum(axis=1) + c**2
        rest = jnp.eye(d, dtype=b.dtype)[None] - Full.outer(b) / s[:, None, None]
        log_weights = jax.nn.log_softmax(point.logits) + _log_psi(s)
        means = jnp.einsum("kde,ke->kd", a, b) / s[:, None]
        return Mixture(log_weights, means, a @ Full.root(rest), covariance)


def _log_psi(s: Array) -> Array:
    return 0.5 * (1 - jnp.log(s) - 1 / s)
