"""Newton-CG: truncated conjugate gradients in a trust region, with Hessian-vector products.

Around the current mixture the objective is modelled by its gradient g and Hessian H in coordinates
ξ in which EM's metric is the unit matrix (``jgmm.gradient.fisher_metric``),

    f(ξ) ≈ f + gᵀξ + 1/2 ξᵀ H ξ,    |ξ| ≤ Δ

Conjugate gradients minimise this model without ever forming H: a product H p is the derivative of
the gradient along p, one pass over the samples. They stop where the residual is small enough for
Newton's method to converge superlinearly, or where they reach the boundary of the region; along a
direction of negative curvature they go to the boundary. A step is accepted if the objective
decreases by a sufficient fraction of the decrease the model predicted, and Δ grows or shrinks with
that fraction.

In these coordinates EM's step is -g, and H is one minus the rate at which EM converges: its
eigenvalues are at most about one, so few products are needed, and Δ means the same for all data.

References: Steihaug (1983), for the truncated iteration; Nocedal & Wright (2006), chapters 4 and 7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jgmm._core import pytree
from jgmm._core.errors import DataError
from jgmm.em.e_step import accumulate
from jgmm.gradient import fisher_metric
from jgmm.gradient.optimizer import Evaluation, Update, value_and_gradient


@dataclass(frozen=True)
class NewtonCG:
    """Newton-CG in a trust region, as an ``Optimizer``. It needs all samples in every step.

    Attributes:
      radius: initial Δ, in EM's metric. A step of length one moves, for example, a component of
        weight one by its standard deviation, or a component of weight 1/100 by ten times that.
      largest: the largest Δ.
      max_products: Hessian-vector products in a step at most.

    >>> import jax, jgmm
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> options = {"covariance": "tied", "init": "points"}
    >>> result = jgmm.gradient.fit(jax.random.key(0), x, 2, optimizer=NewtonCG(), **options)
    >>> jgmm.Status(int(result.status)).name
    'CONVERGED'
    """

    radius: float = 0.5
    largest: float = 4.0
    max_products: int = 30

    def __post_init__(self) -> None:
        """Check that the numbers allow a step.

        Raises:
          DataError: a number out of its range; the text has all three.
        """
        if not (0 < self.radius <= self.largest and self.max_products >= 1):
            raise DataError(
                "0 < radius <= largest and max_products >= 1 must hold; they are "
                f"{self.radius}, {self.largest} and {self.max_products}."
            )

    def init(self, point: Any) -> Array:
        """Return the initial radius Δ, (): the optimiser's state."""
        return jnp.asarray(self.radius, jax.tree.leaves(point)[0].dtype)

    def step(self, state: Array, evaluation: Evaluation) -> Update:
        """Take one step, or keep the point and shrink the radius if the step is rejected."""
        mixture, samples = evaluation.mixture, evaluation.samples
        total = evaluation.samples.total_weight()
        zero, unravel = ravel_pytree(fisher_metric.zero_tangent(mixture))

        def to_mixture(vector: Array) -> Any:
            return fisher_metric.retract(mixture, unravel(vector))

        def gradient_at(vector: Array) -> Array:
            return value_and_gradient(to_mixture, vector, samples)[1]

        def product(direction: Array) -> Array:
            return jax.jvp(gradient_at, (zero,), (direction,))[1]

        ascent = fisher_metric.gradient(mixture, evaluation.statistics, total)
        gradient = -ravel_pytree(ascent)[0]
        found = steihaug(product, gradient, state, self.max_products)
        trial = to_mixture(found.step)
        before = -evaluation.statistics.log_likelihood / total
        after = -accumulate(trial, samples).log_likelihood / total
        ratio = _reduction_ratio(before, after, found.predicted)
        accepted = ratio > 1e-4  # False for NaN
        poor, good = ~(ratio > 0.25), (ratio > 0.75) & found.at_boundary
        smaller = 0.25 * jnp.linalg.norm(found.step)
        radius = jnp.where(poor, smaller, jnp.where(good, 2 * state, state))
        updated = evaluation.to_point(trial)
        point = pytree.where(accepted, updated, evaluation.point)
        return Update(point, jnp.minimum(radius, self.largest), found.n_products + 1)


def _reduction_ratio(before: Array, after: Array, predicted: Array) -> Array:
    """Compute the actual reduction over the predicted one; one where rounding hides both."""
    rounding = 16 * jnp.finfo(before.dtype).eps * jnp.abs(before)
    hidden = (predicted <= rounding) & (jnp.abs(before - after) <= 4 * rounding)
    return jnp.where(hidden, 1, (before - after) / predicted)


class TrustRegionStep(NamedTuple):
    """Result of truncated conjugate gradients in a trust region.

    Attributes:
      step: ξ, (P,).
      predicted: decrease of the quadratic model, ().
      at_boundary: whether the step ends at the boundary of the region, ().
      n_products: Hessian-vector products computed, ().
    """

    step: Array
    predicted: Array
    at_boundary: Array
    n_products: Array


class _Iterate(NamedTuple):
    step: Array
    residual: Array
    direction: Array
    hessian_step: Array  # H times the step
    n_products: Array
    at_boundary: Array
    done: Array


def steihaug(
    product: Callable[[Array], Array],
    gradient: Float[Array, "P"],
    radius: Float[Array, ""],
    max_products: int,
) -> TrustRegionStep:
    """Minimise gᵀξ + 1/2 ξᵀHξ within |ξ| ≤ Δ by Steihaug's truncated conjugate gradients.

    Args:
      product: ``p (P,) -> H p``, H symmetric, not necessarily positive.
      gradient: g.
      radius: Δ.
      max_products: Hessian-vector products at most.

    The iteration ends where |g + Hξ| ≤ min(1/2, √|g|) |g|, where a step would leave the region, and
    at a direction of non-positive curvature; in the last two cases the result is at the boundary,
    along that direction.

    >>> import jax.numpy as jnp
    >>> hessian, gradient = jnp.diag(jnp.asarray([1.0, 2.0])), jnp.asarray([1.0, 0.0])
    >>> steihaug(lambda p: hessian @ p, gradient, jnp.asarray(0.5), 10).step.tolist()
    [-0.5, 0.0]
    """
    size = jnp.linalg.norm(gradient)
    tolerance = jnp.minimum(0.5, jnp.sqrt(size)) * size

    def unfinished(state: _Iterate) -> Array:
        return ~state.done & (state.n_products < max_products)

    def iterate(state: _Iterate) -> _Iterate:
        p, r = state.direction, state.residual
        hessian_p = product(p)
        curvature, squared_residual = p @ hessian_p, r @ r
        length = squared_residual / curvature
        within = jnp.linalg.norm(state.step + length * p) < radius
        regular = (curvature > 0) & within  # False for NaN
        length = jnp.where(regular, length, _to_boundary(state.step, p, radius))
        residual = r + length * hessian_p
        direction = -residual + (residual @ residual) / squared_residual * p
        return _Iterate(
            state.step + length * p,
            residual,
            direction,
            state.hessian_step + length * hessian_p,
            state.n_products + 1,
            ~regular,
            ~regular | (jnp.linalg.norm(residual) <= tolerance),
        )

    zero = jnp.zeros_like(gradient)
    start = _Iterate(zero, gradient, -gradient, zero, jnp.asarray(0), jnp.asarray(False), size <= 0)
    end = lax.while_loop(unfinished, iterate, start)
    predicted = -(gradient @ end.step + 0.5 * end.step @ end.hessian_step)
    return TrustRegionStep(end.step, predicted, end.at_boundary, end.n_products)


def _to_boundary(step: Array, direction: Array, radius: Array) -> Array:
    """Return τ ≥ 0 with |step + τ direction| = Δ."""
    a, b, c = direction @ direction, step @ direction, step @ step - radius**2
    root = jnp.sqrt(jnp.maximum(b**2 - a * c, 0))
    return -c / (b + root)  # the positive root, without cancellation: c ≤ 0 and b ≥ 0
