"""Cancellation in the matrix-product form of the E-step, and the fall-back on the exact form.

The product form is fast, and loses digits for components that are narrow and far from the origin
(``jgmm.em.exponential_family`` says why). ``assess`` estimates the loss before a step, and
``recompute_unsafe`` computes the statistics again, from differences, where it is too large.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jgmm.em.statistics import Statistics
from jgmm.mixture.mixture import Mixture


def recompute_unsafe(
    safe: Bool[Array, "W"],
    products: Statistics,
    exact: Callable[[Any], Statistics],
    runs: Any,
) -> Statistics:
    """Replace the statistics of the runs whose product form is not accurate enough.

    The matrix products of all runs are computed together, since they share the features of the
    samples. Differences are each run's own: computed for one run after the other, and only where
    they are needed, they take less than half the time that they take for all runs at once.

    Args:
      safe: for each of W runs, whether its statistics in ``products`` are accurate enough.
      products: statistics by matrix products, leading axis W.
      exact: function of one run that returns its statistics by differences.
      runs: a pytree with leading axis W; ``exact`` is called with the entry of one run.

    Returns:
      Statistics with leading axis W: those of ``products`` where ``safe``, of ``exact`` elsewhere.
    """

    def replace_if_unsafe(one: tuple[Array, Statistics, Any]) -> Statistics:
        is_safe, product, run = one
        return lax.cond(is_safe, lambda: product, lambda: exact(run))

    return lax.cond(
        safe.all(), lambda: products, lambda: lax.map(replace_if_unsafe, (safe, products, runs))
    )


# The product form is safe if it amplifies rounding errors by no more than SAFE_LOSS +
# SAFE_LOSS_PER_COLUMN · D, for every component that is not switched off. The limit grows with the
# number of columns D because the difference form, too, has an error of about one rounding for each
# column. In float32 the limit allows an error of about 3e-5 nats in a log density and 3e-5 of a
# variance for few columns, and 2e-3 for a thousand; in float64 of about 1e-11.
SAFE_LOSS = {"float32": 400.0, "float64": 1e5}
SAFE_LOSS_PER_COLUMN = 32
# Up to this many times the limit, many steps of EM use the product form, until its rounding errors
# become visible in the log-likelihood; only the last steps use the exact form.
APPROXIMATE_FACTOR = 50


class Precision(NamedTuple):
    """Precision of the product form: at most one of both is true.

    Attributes:
      safe: it is as accurate as needed.
      approximate: it is accurate enough for the steps of EM before the last ones.
    """

    safe: Bool[Array, ""]
    approximate: Bool[Array, ""]


def assess(mixture: Mixture) -> Precision:
    """Assess the precision of the product form for a mixture, in the coordinates of the samples.

    The component that loses most digits decides. If a parameter is NaN, or a covariance is nearly
    singular, the form is neither safe nor approximate.
    """
    d, dtype = mixture.n_features, str(mixture.means.dtype)
    # A weight of NaN is not -inf: such a component counts.
    lost = jnp.where(mixture.log_weights != -jnp.inf, lost_digits(mixture), 0)
    limit = SAFE_LOSS[dtype] + SAFE_LOSS_PER_COLUMN * d
    safe = lost.max() <= limit
    return Precision(safe, ~safe & (lost.max() <= APPROXIMATE_FACTOR * limit))


def lost_digits(mixture: Mixture) -> Float[Array, "K"]:
    """Estimate by which factor the product form amplifies rounding errors: the digits it loses.

        Σ_d P_dd (Σ_dd + μ_d²),   P = Σₖ⁻¹

    Returns:
      The factor for each component, (K,): with a factor of 10^m the form loses m decimal digits.
    """
    storage, d = mixture.model.storage, mixture.n_features
    precisions = storage.precisions(storage.invert(mixture.scale), d)
    return (precisions * (storage.variances(mixture.scale, d) + mixture.means**2)).sum(axis=1)


def is_safe(mixture: Mixture) -> Bool[Array, ""]:
    """Return whether the product form is accurate enough for a mixture; see ``lost_digits``."""
    return assess(mixture).safe
