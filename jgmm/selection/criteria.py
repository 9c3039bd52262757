"""Information criteria: AIC, AICc, BIC, ICL, and the table of all criteria that ``select`` knows.

The information criteria are on the scale of minus twice the log-likelihood, so the lower the
better. mclust writes BIC and ICL with the opposite sign.

A criterion is one entry of ``CRITERIA``. To add one, write its value as a function of ``Evidence``
and list it there: ``select``, plots, configs and the command line read the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm._core.compilation import jit
from jgmm._core.status import RIDGE_ADVICE
from jgmm._data.samples import Samples, fold, make_samples
from jgmm.em.e_step import block_rows, mask_known
from jgmm.initialization.problem import check_labels
from jgmm.mixture.density import log_joint, normalise
from jgmm.mixture.mixture import HasMixture, Mixture, as_mixture, check_columns, n_parameters


class Evidence(NamedTuple):
    """The numbers that information criteria are computed from, () each.

    Attributes:
      log_likelihood: ℓ, nats.
      entropy: E, of the responsibilities of samples whose component is not known, nats.
      total_weight: N, the effective number of samples.
      n_parameters: p, the number of free parameters.
    """

    log_likelihood: Array
    entropy: Array
    total_weight: Array
    n_parameters: Array


@dataclass(frozen=True)
class Criterion:
    """A criterion of model selection: an entry of ``CRITERIA``.

    Attributes:
      name: the name that users give.
      label: the name that tables and plots show.
      value: computes the criterion from the ``Evidence`` of a fit; None for the held-out
        log-likelihood, which takes further fits.
      higher_is_better: whether the highest value is chosen, not the lowest.
      decimals: digits after the point in tables.
      not_finite: why a valid fit may have no finite value, and what to try.
    """

    name: str
    label: str
    value: Callable[[Evidence], Array] | None
    higher_is_better: bool = False
    decimals: int = 2
    not_finite: str = "Choose by another criterion."

    def loss(self, value: float) -> float:
        """Return the value with the sign that makes lower better."""
        return -value if self.higher_is_better else value


def _aic(fit: Evidence) -> Array:
    return -2 * fit.log_likelihood + 2 * fit.n_parameters


def _aicc(fit: Evidence) -> Array:
    p = fit.n_parameters
    spare = fit.total_weight - p - 1
    correction = 2 * p * (p + 1) / jnp.where(spare > 0, spare, 1)
    return jnp.where(spare > 0, _aic(fit) + correction, jnp.inf)


def _bic(fit: Evidence) -> Array:
    return -2 * fit.log_likelihood + fit.n_parameters * jnp.log(fit.total_weight)


def _icl(fit: Evidence) -> Array:
    return _bic(fit) + 2 * fit.entropy


_TOO_FEW_SAMPLES = (
    "AICc is infinite unless there are at least two samples more than parameters, N > p + 1. Try "
    "fewer components, a simpler covariance model, more samples, or another criterion."
)
_FOLDS_FAILED = (
    "In each, a fit without one of the folds failed. Try fewer components, a simpler covariance "
    f"model, or {RIDGE_ADVICE}."
)

CRITERIA: dict[str, Criterion] = {
    each.name: each
    for each in (
        Criterion("aic", "AIC", _aic),
        Criterion("aicc", "AICc", _aicc, not_finite=_TOO_FEW_SAMPLES),
        Criterion("bic", "BIC", _bic),
        Criterion("icl", "ICL", _icl),
        Criterion("held_out", "held out", None, True, 4, _FOLDS_FAILED),
    )
}


def criteria(
    log_likelihood: Any,
    entropy: Any,
    total_weight: Any,
    n_parameters: Any,
    table: Iterable[Criterion] | None = None,
) -> dict[str, Array]:
    """Compute every information criterion from the four numbers they depend on.

        AIC  = -2ℓ + 2p                     Akaike (1974)
        AICc = AIC + 2p (p + 1) / (N - p - 1)   Hurvich & Tsai (1989)
        BIC  = -2ℓ + p log N                Schwarz (1978)
        ICL  = BIC + 2 E                    Biernacki, Celeux & Govaert (2000)

    Args:
      log_likelihood: ℓ, nats.
      entropy: E, of the responsibilities of samples whose component is not known, nats.
      total_weight: N, the effective number of samples.
      n_parameters: p.
      table: the criteria to compute; all of ``CRITERIA`` by default.

    Returns:
      The value of each criterion by its name, without those that take further fits. AICc is
      infinite where N ≤ p + 1, because its correction is not defined there.

    >>> found = criteria(log_likelihood=-10.0, entropy=0.5, total_weight=100.0, n_parameters=2)
    >>> {name: round(float(value), 2) for name, value in found.items()}
    {'aic': 24.0, 'aicc': 24.12, 'bic': 29.21, 'icl': 30.21}
    """
    fit = Evidence(jnp.asarray(log_likelihood), entropy, jnp.asarray(total_weight), n_parameters)
    entries = CRITERIA.values() if table is None else table
    return {each.name: each.value(fit) for each in entries if each.value is not None}


def aic(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any = None, labels: Any = None
) -> Float[Array, ""]:
    """Compute Akaike's information criterion, ``-2ℓ + 2p``, the lower the better.

    Args:
      mixture: fitted parameters, or a result that has them.
      x: the samples that it was fitted to, (N, D).
      sample_weight: how many times each sample counts, (N,).
      labels: known component of each sample, (N,), -1 where it is not known; those of the fit. A
        labelled sample counts ``log p(x, z)`` in ℓ, as in the fit.

    Raises:
      DataError: bad samples, weights or labels, or columns the mixture was not made for.
    """
    return _criteria_of(mixture, x, sample_weight, labels)["aic"]


def aicc(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any = None, labels: Any = None
) -> Float[Array, ""]:
    """Compute AICc, corrected for few samples: ``AIC + 2p(p + 1)/(N - p - 1)``.

    It is infinite for N ≤ p + 1.

    Arguments and errors as for ``aic``; N is the total weight.
    """
    return _criteria_of(mixture, x, sample_weight, labels)["aicc"]


def bic(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any = None, labels: Any = None
) -> Float[Array, ""]:
    """Compute the Bayesian information criterion, ``-2ℓ + p log N``, the lower the better.

    Arguments and errors as for ``aic``; N is the total weight. mclust writes it with the opposite
    sign.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> round(float(bic(one, [[-1.0], [1.0]])), 3)
    7.062
    """
    return _criteria_of(mixture, x, sample_weight, labels)["bic"]


def icl(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any = None, labels: Any = None
) -> Float[Array, ""]:
    """Compute the integrated completed likelihood, ``BIC + 2E``: BIC plus a penalty for overlap.

    E is ``entropy``, which is zero where components do not overlap, and for samples whose component
    is known. This is the form that
    ``jgmm.select`` uses: it changes smoothly with the parameters, and a sample that may belong to
    three components counts as more doubtful than one that may belong to two. ``icl_map`` is the
    other form. Arguments and errors as for ``aic``.

    Reference: McLachlan & Peel (2000), section 6.10.3.
    """
    return _criteria_of(mixture, x, sample_weight, labels)["icl"]


def icl_map(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any = None, labels: Any = None
) -> Float[Array, ""]:
    """Compute the integrated completed likelihood with hard labels.

        -2 Σₙ wₙ log p(xₙ, ẑₙ) + p log N  =  BIC - 2 Σₙ wₙ maxₖ log γₙₖ

    where ẑₙ is the label of sample n, or its most probable component where it has none. This is the
    form of Biernacki, Celeux & Govaert (2000), and that of mclust but for the sign. It lies between
    ``bic`` and ``icl``, because -log maxₖ γₙₖ is never more than the entropy of γₙ. Arguments and
    errors as for ``aic``.

    >>> import jgmm
    >>> even = jgmm.make_mixture([0.5, 0.5], [[0.0], [0.0]], [1.0, 1.0], "spherical")
    >>> round(float(icl_map(even, [[0.0]]) - bic(even, [[0.0]])), 3)  # 2 log 2
    1.386
    """
    mixture, samples = _inputs(mixture, x, sample_weight, labels)
    ell, _ = evidence(mixture, samples)
    # ICL, with the entropy replaced by the loss of assigning each sample to one component.
    loss = _assignment_loss(mixture, samples)
    return criteria(ell, loss, samples.total_weight(), n_parameters(mixture))["icl"]


def entropy(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any = None, labels: Any = None
) -> Float[Array, ""]:
    """Compute the entropy of the responsibilities, ``E = -Σₙ wₙ Σₖ γₙₖ log γₙₖ``, in nats.

    It is zero when every sample belongs to one component with certainty, and N log K when all
    components are equally probable for all samples. A sample with a label has none: its
    responsibilities are one for its component and zero for the others. The entropy is computed
    block by block: memory does not grow with N. Arguments and errors as for ``aic``.

    >>> import jgmm
    >>> even = jgmm.make_mixture([0.5, 0.5], [[0.0], [0.0]], [1.0, 1.0], "spherical")
    >>> round(float(entropy(even, [[0.0], [1.0]])), 3)  # 2 log 2
    1.386
    """
    return evidence(*_inputs(mixture, x, sample_weight, labels))[1]


def _criteria_of(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any, labels: Any
) -> dict[str, Array]:
    mixture, samples = _inputs(mixture, x, sample_weight, labels)
    ell, e = evidence(mixture, samples)
    return criteria(ell, e, samples.total_weight(), n_parameters(mixture))


def _inputs(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any, labels: Any
) -> tuple[Mixture, Samples]:
    mixture = as_mixture(mixture)
    samples = make_samples(x, sample_weight, labels)
    check_columns(mixture, samples.n_features)
    check_labels(samples, mixture.n_components)
    unlabelled = replace(samples, labels=None)
    cast = jax.tree.map(lambda leaf: leaf.astype(mixture.means.dtype), unlabelled)
    return mixture, replace(cast, labels=samples.labels)


@jit
def evidence(mixture: Mixture, samples: Samples) -> tuple[Array, Array]:
    """Compute the log-likelihood and the entropy of the responsibilities, () each, in one pass.

    Both count each sample by its weight, and are in nats. ``samples`` are in the units of the
    mixture; a labelled one adds ``log p(x, z)`` to the log-likelihood and nothing to the entropy.
    """

    def terms_of(log_prob: Array, log_resp: Array) -> tuple[Array, ...]:
        # γ log γ tends to zero with γ; a component of weight zero has log γ = -inf. That value is
        # replaced before the product, too, so that the derivative of the product is not NaN.
        used = log_resp > -jnp.inf
        finite = jnp.where(used, log_resp, 0)
        terms = jnp.where(used, jnp.exp(finite) * finite, 0)
        return log_prob, -terms.sum()

    log_likelihood, entropy = _sum_rows(mixture, samples, terms_of)
    return log_likelihood, entropy


@jit
def _assignment_loss(mixture: Mixture, samples: Samples) -> Array:
    """Return -Σₙ wₙ maxₖ log γₙₖ, the loss of assigning each sample to one component, in nats."""
    (loss,) = _sum_rows(mixture, samples, lambda _, log_resp: (-log_resp.max(),))
    return loss


def _sum_rows(
    mixture: Mixture, samples: Samples, terms_of: Callable[[Array, Array], tuple[Array, ...]]
) -> tuple[Array, ...]:
    """Return weighted sums over samples, () each.

    Args:
      mixture: parameters in the units of the samples.
      samples: N samples; labelled ones have their known component only.
      terms_of: takes the log density () and the log responsibilities (K,) of one sample, and
        returns the terms to be summed, () each.
    """
    inverse = mixture.model.storage.invert(mixture.scale)

    def joint(row: Array) -> Array:
        return log_joint(mixture, inverse, row[None, :] - mixture.means)

    def body(x: Array, weights: Array, rows: Array) -> tuple[Array, ...]:
        counts = weights > 0  # a row of weight zero is missing, even if its density is zero
        scores = mask_known(jax.vmap(joint, out_axes=1)(x), samples, rows)
        terms = jax.vmap(lambda one: terms_of(*normalise(one)), in_axes=1)(scores)
        return tuple(jnp.where(counts, weights * each, 0).sum() for each in terms)

    row_bytes = mixture.means.size * mixture.means.dtype.itemsize
    return fold(samples, block_rows(samples, row_bytes), body)
