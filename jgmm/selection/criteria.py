"""Information criteria: AIC, AICc, BIC, ICL, and the table of all criteria that ``select`` knows.

The information criteria are on the scale of minus twice the log-likelihood, so the lower the
better. mclust writes BIC and ICL with the opposite sign.

A criterion is one entry of ``CRITERIA``. To add one, write its value as a function of ``Evidence``
and list it there: tables, plots, configs and reports read the list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm._core.compilation import jit
from jgmm._data.samples import Samples, fold, make_samples
from jgmm.em.e_step import block_rows
from jgmm.mixture.density import log_joint, normalise
from jgmm.mixture.mixture import Mixture, check_columns, n_parameters


class Evidence(NamedTuple):
    """What information criteria are computed from, () each.

    Attributes:
      log_likelihood: ℓ, nats.
      entropy: E, of the responsibilities, nats.
      total_weight: N, the effective number of samples.
      n_parameters: p.
    """

    log_likelihood: Array
    entropy: Array
    total_weight: Array
    n_parameters: Array


@dataclass(frozen=True)
class Criterion:
    """One way to compare fits.

    Attributes:
      name: as users give it.
      label: as tables and plots show it.
      value: computed from the ``Evidence`` of a fit; None where the criterion needs more fits, as
        the held-out likelihood does.
      higher_is_better: whether the highest value is chosen, not the lowest.
      decimals: digits after the point in tables.
    """

    name: str
    label: str
    value: Callable[[Evidence], Array] | None
    higher_is_better: bool = False
    decimals: int = 2

    def loss(self, value: float) -> float:
        """The value, or minus the value where higher is better: the lower the better."""
        return -value if self.higher_is_better else value


def _aic(found: Evidence) -> Array:
    return -2 * found.log_likelihood + 2 * found.n_parameters


def _aicc(found: Evidence) -> Array:
    p = found.n_parameters
    spare = found.total_weight - p - 1
    correction = 2 * p * (p + 1) / jnp.where(spare > 0, spare, 1)
    return jnp.where(spare > 0, _aic(found) + correction, jnp.inf)


def _bic(found: Evidence) -> Array:
    return -2 * found.log_likelihood + found.n_parameters * jnp.log(found.total_weight)


def _icl(found: Evidence) -> Array:
    return _bic(found) + 2 * found.entropy


CRITERIA: dict[str, Criterion] = {
    each.name: each
    for each in (
        Criterion("aic", "AIC", _aic),
        Criterion("aicc", "AICc", _aicc),
        Criterion("bic", "BIC", _bic),
        Criterion("icl", "ICL", _icl),
        Criterion("held_out", "held out", None, higher_is_better=True, decimals=4),
    )
}


def criteria(
    log_likelihood: Any, entropy: Any, total_weight: Any, n_parameters: Any
) -> dict[str, Array]:
    """Compute every information criterion from the four numbers they depend on.

        AIC  = -2ℓ + 2p                     Akaike (1974)
        AICc = AIC + 2p (p + 1) / (N - p - 1)   Hurvich & Tsai (1989)
        BIC  = -2ℓ + p log N                Schwarz (1978)
        ICL  = BIC + 2 E                    Biernacki, Celeux & Govaert (2000)

    Args:
      log_likelihood: ℓ, nats.
      entropy: E, of the responsibilities, nats.
      total_weight: N, the effective number of samples.
      n_parameters: p.

    Returns:
      The value of each criterion of ``CRITERIA`` that takes no further fits, by its name. AICc is
      infinite where N ≤ p + 1: there the correction says nothing.
    """
    found = Evidence(jnp.asarray(log_likelihood), entropy, jnp.asarray(total_weight), n_parameters)
    return {name: each.value(found) for name, each in CRITERIA.items() if each.value is not None}


def aic(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """Akaike's information criterion, ``-2ℓ + 2p``, the lower the better.

    Args:
      mixture: fitted parameters.
      x: the samples it was fitted to, (N, D).
      sample_weight: how many times each counts, (N,).

    Raises:
      DataError: bad samples or weights, or columns the mixture was not made for.
    """
    return _criteria_of(mixture, x, sample_weight)["aic"]


def aicc(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """AIC corrected for few samples, ``AIC + 2p(p + 1)/(N - p - 1)``; infinite for N ≤ p + 1.

    Arguments and errors as for ``aic``; N is the total weight.
    """
    return _criteria_of(mixture, x, sample_weight)["aicc"]


def bic(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """Bayesian information criterion, ``-2ℓ + p log N``, the lower the better.

    Arguments and errors as for ``aic``; N is the total weight. mclust writes it with the opposite
    sign.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> round(float(bic(one, [[-1.0], [1.0]])), 3)
    7.062
    """
    return _criteria_of(mixture, x, sample_weight)["bic"]


def icl(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """Integrated completed likelihood, ``BIC + 2E``: BIC that charges for components that overlap.

    E is ``entropy``; without overlap it is zero. This is the default, and what ``jgmm.select`` goes
    by: it changes smoothly with the parameters, and takes a sample that is torn between three
    components for more doubtful than one torn between two. ``icl_map`` is the other form. Arguments
    and errors as for ``aic``. Reference: McLachlan & Peel (2000), section 6.10.3.
    """
    return _criteria_of(mixture, x, sample_weight)["icl"]


def icl_map(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """Integrated completed likelihood with hard labels, ``-2 Σₙ wₙ log p(xₙ, ẑₙ) + p log N``.

    ẑₙ is the most probable component of sample n, so that it is ``BIC - 2 Σₙ wₙ maxₖ log γₙₖ``: the
    form of Biernacki, Celeux & Govaert (2000), and mclust's but for the sign. It lies between
    ``bic`` and ``icl``, because -log maxₖ γₙₖ is never more than the entropy of γₙ. Arguments and
    errors as for ``aic``.

    >>> import jgmm
    >>> even = jgmm.make_mixture([0.5, 0.5], [[0.0], [0.0]], [1.0, 1.0], "spherical")
    >>> round(float(icl_map(even, [[0.0]]) - bic(even, [[0.0]])), 3)  # 2 log 2
    1.386
    """
    samples = _samples_for(mixture, x, sample_weight)
    ell, _ = evidence(mixture, samples)
    found = criteria(
        ell, _surprise(mixture, samples), samples.total_weight(), n_parameters(mixture)
    )
    return found["icl"]


def entropy(mixture: Mixture, x: Any, sample_weight: Any = None) -> Float[Array, ""]:
    """Entropy of the responsibilities, ``E = -Σₙ wₙ Σₖ γₙₖ log γₙₖ``, in nats.

    Zero when every sample belongs to one component, N log K when none can be told. Computed block
    by block: memory does not grow with N. Arguments and errors as for ``aic``.
    """
    return evidence(mixture, _samples_for(mixture, x, sample_weight))[1]


def _criteria_of(mixture: Mixture, x: Any, sample_weight: Any) -> dict[str, Array]:
    samples = _samples_for(mixture, x, sample_weight)
    ell, e = evidence(mixture, samples)
    return criteria(ell, e, samples.total_weight(), n_parameters(mixture))


def _samples_for(mixture: Mixture, x: Any, sample_weight: Any) -> Samples:
    samples = make_samples(x, sample_weight)
    check_columns(mixture, samples.n_features)
    return jax.tree.map(lambda leaf: leaf.astype(mixture.means.dtype), samples)


@jit
def evidence(mixture: Mixture, samples: Samples) -> tuple[Array, Array]:
    """Log-likelihood, and entropy of the responsibilities, () each, in one pass.

    Both count each sample by its weight. ``samples`` are in the units of the mixture.
    """

    def ask(log_prob: Array, log_resp: Array) -> tuple[Array, ...]:
        # γ log γ tends to zero with γ; a component that is switched off has log γ = -inf.
        terms = jnp.where(log_resp > -jnp.inf, jnp.exp(log_resp) * log_resp, 0)
        return log_prob, -terms.sum()

    log_likelihood, entropy = _sum_rows(mixture, samples, ask)
    return log_likelihood, entropy


@jit
def _surprise(mixture: Mixture, samples: Samples) -> Array:
    """-Σₙ wₙ maxₖ log γₙₖ, in nats: what is lost when every sample is given to one component."""
    (surprise,) = _sum_rows(mixture, samples, lambda _, log_resp: (-log_resp.max(),))
    return surprise


def _sum_rows(
    mixture: Mixture, samples: Samples, ask: Callable[[Array, Array], tuple[Array, ...]]
) -> tuple[Array, ...]:
    """Weighted sums over samples of ``ask(log density (), log responsibilities (K,))``."""
    inverse = mixture.model.storage.invert(mixture.scale)

    def one(row: Array) -> tuple[Array, ...]:
        return ask(*normalise(log_joint(mixture, inverse, row[None, :] - mixture.means)))

    def body(x: Array, weights: Array, rows: Array) -> tuple[Array, ...]:
        del rows
        counts = weights > 0  # a row of weight zero is missing, even one of density zero
        return tuple(jnp.where(counts, weights * each, 0).sum() for each in jax.vmap(one)(x))

    row_bytes = mixture.means.size * mixture.means.dtype.itemsize
    return fold(samples, block_rows(samples, row_bytes), body)
