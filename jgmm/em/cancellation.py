"""How many digits the matrix-product form of the E-step loses, and what is recomputed exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jgmm.em.exponential_family import _inverse
from jgmm.em.statistics import Statistics
from jgmm.mixture.mixture import Mixture


def recompute_unsafe(
    safe: Bool[Array, "W"],
    products: Statistics,
    exact: Callable[[Any], Statistics],
    states: Any,
) -> Statistics:
    """Statistics of W lanes by products, but for those that are not safe by differences.

    Products are shared by all lanes; differences are nobody's but the lane's own, and one after
    another they take less than half the time of all at once.

    Args:
      safe: whether the product form keeps enough digits, a lane.
      products: what it gave, leading axis W.
      exact: ``lane -> Statistics`` by differences.
      lanes: what ``exact`` is called with, leading axis W.
    """

    def again(one: tuple[Array, Statistics, Any]) -> Statistics:
        safe, found, state = one
        return lax.cond(safe, lambda: found, lambda: exact(state))

    return lax.cond(safe.all(), lambda: products, lambda: lax.map(again, (safe, products, states)))


# The product form is used while no used component loses more roundings than this, and so many more
# for each column: taken by differences, a log density is off by about one for each column anyway.
# In float32 that makes about 3e-5 of a nat and of a variance for few columns and 2e-3 for a
# thousand, in float64 about 1e-11.
SAFE_LOSS = {"float32": 400.0, "float64": 1e5}
SAFE_LOSS_PER_COLUMN = 32
# Up to so many times that many EM goes by products until their rounding shows, and only the
# last steps go by differences.
APPROXIMATE_FACTOR = 50


class Precision(NamedTuple):
    """What the product form keeps: digits enough, or digits enough to find the way, or neither."""

    safe: Bool[Array, ""]
    approximate: Bool[Array, ""]


def assess(mixture: Mixture) -> Precision:
    """Whether the product form keeps enough digits for this mixture, in the samples' frame.

    It goes by the component that loses most. With a NaN, or a covariance that has all but
    collapsed, the form is neither safe nor rough.
    """
    d, dtype = mixture.n_features, str(mixture.means.dtype)
    lost = jnp.where(
        mixture.log_weights != -jnp.inf, lost_digits(mixture), 0
    )  # a NaN counts as used
    limit = SAFE_LOSS[dtype] + SAFE_LOSS_PER_COLUMN * d
    safe = lost.max() <= limit
    return Precision(safe, ~safe & (lost.max() <= APPROXIMATE_FACTOR * limit))


def lost_digits(mixture: Mixture) -> Float[Array, "K"]:
    """Σ_d P_dd (Σ_dd + μ_d²), how many roundings the product form loses, for each component."""
    storage, d = mixture.model.storage, mixture.n_features
    precisions = storage.precisions(_inverse(mixture), d)
    return (precisions * (storage.variances(mixture.scale, d) + mixture.means**2)).sum(axis=1)


def is_safe(mixture: Mixture) -> Bool[Array, ""]:
    """Whether the product form keeps enough digits for this mixture; see ``digits``."""
    return assess(mixture).safe
