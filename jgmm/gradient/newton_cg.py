"""Newton's method with Hessian-vector products: truncated conjugate gradients in a trust region.

Around the mixture where it stands the objective is modelled by its gradient g and Hessian H in
coordinates ξ in which EM's metric is the unit matrix (``jgmm.gradient.fisher_metric``),

    f(ξ) ≈ f + gᵀξ + 1/2 ξᵀ H ξ,    |ξ| ≤ Δ

Conjugate gradients make that small without ever forming H: a product H p is the derivative of the
gradient along p, one pass over the samples. They stop where the rest is small enough for Newton's
method to converge superlinearly, at the edge of the region, or go to the edge along a direction in
which the objective curves down. A step counts if the objective falls by a fair part of what the
model promised; the region grows and shrinks by how well it did.

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
      radius: Δ at first, in EM's metric. In a step of one, say, a component of all samples moves by
        its standard deviation, or one of a hundredth of them by ten times that.
      largest: Δ at most.
      max_products: Hessian-vector products in a step at most.
    """

    radius: float = 0.5
    largest: float = 4.0
    max_products: int = 30

    def __post_init__(self) -> None:
        """Refuse numbers that allow no step.

        Raises:
          DataError: which they are.
        """
        if not (0 < self.radius <= self.largest and self.max_products >= 1):
            raise DataError(
                "0 < radius <= largest and max_products >= 1 must hold; they are "
                f"{self.radius}, {self.largest} and {self.max_products}."
            )

    def init(self, point: Any) -> Array:
        """The radius."""
        return jnp.asarray(self.radius, jax.tree.leaves(point)[0].dtype)

    def step(self, memory: Array, here: Evaluation) -> Update:
        """One step, or the same point and a smaller radius where it would not have paid."""
        mixture, samples, total = here.mixture, here.samples, here.samples.total_weight()
        zero, unravel = ravel_pytree(fisher_metric.zero_tangent(mixture))

        def chart(vector: Array) -> Any:
            return fisher_metric.retract(mixture, unravel(vector))

        def gradient(vector: Array) -> Array:
            return value_and_gradient(chart, vector, samples)[1]

        def product(direction: Array) -> Array:
            return jax.jvp(gradient, (zero,), (direction,))[1]

        slope = -ravel_pytree(fisher_metric.gradient(mixture, here.statistics, total))[0]
        found = steihaug(product, slope, memory, self.max_products)
        trial = chart(found.step)
        before = -here.statistics.log_likelihood / total
        after = -accumulate(trial, samples).log_likelihood / total
        ratio = _fulfilled(before, after, found.promised)
        counts = ratio > 1e-4  # False for NaN
        poor, good = ~(ratio > 0.25), (ratio > 0.75) & found.at_edge
        shrunk = 0.25 * jnp.linalg.norm(found.step)
        radius = jnp.where(poor, shrunk, jnp.where(good, 2 * memory, memory))
        moved = here.point_of(trial)
        point = pytree.where(counts, moved, here.point)
        return Update(point, jnp.minimum(radius, self.largest), found.n_products + 1)


def _fulfilled(before: Array, after: Array, promised: Array) -> Array:
    """The share of a promised decrease that came true; all of it where rounding hides both."""
    noise = 16 * jnp.finfo(before.dtype).eps * jnp.abs(before)
    lost_in_noise = (promised <= noise) & (jnp.abs(before - after) <= 4 * noise)
    return jnp.where(lost_in_noise, 1, (before - after) / promised)


class Truncated(NamedTuple):
    """What conjugate gradients in a trust region come to.

    Attributes:
      step: (P,).
      promised: by how much the model falls, ().
      at_edge: whether the step ends at the edge of the region, ().
      n_products: made, ().
    """

    step: Array
    promised: Array
    at_edge: Array
    n_products: Array


class _Iterate(NamedTuple):
    step: Array
    residual: Array
    direction: Array
    bent: Array  # H times the step
    n_products: Array
    at_edge: Array
    done: Array


def steihaug(
    product: Callable[[Array], Array],
    slope: Float[Array, "P"],
    radius: Float[Array, ""],
    max_products: int,
) -> Truncated:
    """Make gᵀξ + 1/2 ξᵀHξ small within |ξ| ≤ Δ by conjugate gradients.

    Args:
      product: ``p (P,) -> H p``, H symmetric, not necessarily positive.
      slope: g.
      radius: Δ.
      max_products: at most.

    It ends where |g + Hξ| ≤ min(1/2, √|g|) |g|, where a step would leave the region, and where a
    direction does not curve up; in the last two cases, at the edge along that direction.
    """
    size = jnp.linalg.norm(slope)
    enough = jnp.minimum(0.5, jnp.sqrt(size)) * size

    def going_on(state: _Iterate) -> Array:
        return ~state.done & (state.n_products < max_products)

    def turn(state: _Iterate) -> _Iterate:
        p, r = state.direction, state.residual
        bent = product(p)
        curvature, left = p @ bent, r @ r
        length = left / curvature
        inside = jnp.linalg.norm(state.step + length * p) < radius
        regular = (curvature > 0) & inside  # False for NaN
        length = jnp.where(regular, length, _to_edge(state.step, p, radius))
        residual = r + length * bent
        direction = -residual + (residual @ residual) / left * p
        return _Iterate(
            state.step + length * p,
            residual,
            direction,
            state.bent + length * bent,
            state.n_products + 1,
            ~regular,
            ~regular | (jnp.linalg.norm(residual) <= enough),
        )

    zero = jnp.zeros_like(slope)
    start = _Iterate(zero, slope, -slope, zero, jnp.asarray(0), jnp.asarray(False), size <= 0)
    end = lax.while_loop(going_on, turn, start)
    promised = -(slope @ end.step + 0.5 * end.step @ end.bent)
    return Truncated(end.step, promised, end.at_edge, end.n_products)


def _to_edge(step: Array, direction: Array, radius: Array) -> Array:
    """τ ≥ 0 with |step + τ direction| = Δ."""
    a, b, c = direction @ direction, step @ direction, step @ step - radius**2
    root = jnp.sqrt(jnp.maximum(b**2 - a * c, 0))
    return -c / (b + root)  # the positive root, without cancellation: c ≤ 0 and b ≥ 0
