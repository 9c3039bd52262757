"""Information criteria: how well a mixture fits its samples, charged for its parameters.

All are on the scale of minus twice the log-likelihood, so the lower the better. mclust writes BIC
and ICL with the opposite sign.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm.mixture import Mixture, log_joint, n_parameters, normalise
from jgmm.precision import jit
from jgmm.samples import Samples, fold, make_samples
from jgmm.statistics import block_rows
from jgmm.status import DataError


class Criteria(NamedTuple):
    """Criteria of one fit, () each, the lower the better."""

    aic: Array
    aicc: Array
    bic: Array
    icl: Array


def criteria(log_likelihood: Any, entropy: Any, total_weight: Any, n_parameters: Any) -> Criteria:
    """All criteria from the four numbers they depend on.

        AIC  = -2ℓ + 2p                     Akaike (1974)
        AICc = AIC + 2p (p + 1) / (N - p - 1)   Hurvich & Tsai (1989)
        BIC  = -2ℓ + p log N                Schwarz (1978)
        ICL  = BIC + 2 E                    Biernacki, Celeux & Govaert (2000)

    Args:
      log_likelihood: ℓ, nats.
      entropy: E, of the responsibilities, nats.
      total_weight: N, the samples there are in effect.
      n_parameters: p.

    AICc is infinite where N ≤ p + 1: there the correction says nothing.
    """
    ell, n = jnp.asarray(log_likelihood), jnp.asarray(total_weight)
    aic = -2 * ell + 2 * n_parameters
    bic = -2 * ell + n_parameters * jnp.log(n)
    spare = n - n_parameters - 1
    correction = 2 * n_parameters * (n_parameters + 1) / jnp.where(spare > 0, spare, 1)
    aicc = jnp.where(spare > 0, aic + correction, jnp.inf)
    return Criteria(aic, aicc, bic, bic + 2 * entropy)


def aic(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """Akaike's information criterion, ``-2ℓ + 2p``, the lower the better.

    Args:
      mixture: fitted parameters.
      x: the samples it was fitted to, (N, D).
      sample_weight: how many times each counts, (N,).

    Raises:
      DataError: bad samples or weights, or columns the mixture was not made for.
    """
    return _criteria_of(mixture, x, sample_weight).aic


def aicc(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """AIC corrected for few samples, ``AIC + 2p(p + 1)/(N - p - 1)``; infinite for N ≤ p + 1.

    Arguments and errors as for ``aic``; N is the total weight.
    """
    return _criteria_of(mixture, x, sample_weight).aicc


def bic(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """Bayesian information criterion, ``-2ℓ + p log N``, the lower the better.

    Arguments and errors as for ``aic``; N is the total weight. mclust writes it with the opposite
    sign.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> round(float(bic(one, [[-1.0], [1.0]])), 3)
    7.062
    """
    return _criteria_of(mixture, x, sample_weight).bic


def icl(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """Integrated completed likelihood, ``BIC + 2E``: BIC that charges for components that overlap.

    E is ``entropy``; without overlap it is zero. mclust counts each sample's most probable
    component only, and writes the opposite sign. Arguments and errors as for ``aic``.
    """
    return _criteria_of(mixture, x, sample_weight).icl


def entropy(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """Entropy of the responsibilities, ``E = -Σₙ wₙ Σₖ γₙₖ log γₙₖ``, in nats.

    Zero when every sample belongs to one component, N log K when none can be told. Computed block
    by block: memory does not grow with N. Arguments and errors as for ``aic``.
    """
    return evidence(mixture, _samples_for(mixture, x, sample_weight))[1]


def _criteria_of(mixture: Mixture, x: Any, sample_weight: Any) -> Criteria:
    samples = _samples_for(mixture, x, sample_weight)
    ell, e = evidence(mixture, samples)
    return criteria(ell, e, samples.total_weight(), n_parameters(mixture))


def _samples_for(mixture: Mixture, x: Any, sample_weight: Any) -> Samples:
    samples = make_samples(x, sample_weight)
    if samples.n_features != mixture.n_features:
        raise DataError(
            f"x has {samples.n_features} columns; the mixture was made for {mixture.n_features}."
        )
    return jax.tree.map(lambda leaf: leaf.astype(mixture.means.dtype), samples)


@jit
def evidence(mixture: Mixture, samples: Samples) -> tuple[Array, Array]:
    """Log-likelihood, and entropy of the responsibilities, () each, in one pass.

    Both count each sample by its weight. ``samples`` are in the units of the mixture.
    """
    inverse = mixture.model.storage.invert(mixture.scale)

    def one(row: Array) -> tuple[Array, Array]:
        log_prob, log_resp = normalise(log_joint(mixture, inverse, row[None, :] - mixture.means))
        # γ log γ tends to zero with γ; a component that is switched off has log γ = -inf.
        terms = jnp.where(log_resp > -jnp.inf, jnp.exp(log_resp) * log_resp, 0)
        return log_prob, -terms.sum()

    def body(x: Array, weights: Array, rows: Array) -> tuple[Array, Array]:
        del rows
        counts = weights > 0  # a row of weight zero is missing, even one of density zero
        log_prob, row_entropy = jax.vmap(one)(x)
        return (
            jnp.where(counts, weights * log_prob, 0).sum(),
            jnp.where(counts, weights * row_entropy, 0).sum(),
        )

    row_bytes = mixture.means.size * mixture.means.dtype.itemsize
    return fold(samples, block_rows(samples, row_bytes), body)
