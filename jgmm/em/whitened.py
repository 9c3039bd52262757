"""Whitened differences: the E-step of full covariances, one component after another.

With the inverse Cholesky factor Wₖ = Lₖ⁻¹, the squared distance of a sample from component k is
|Wₖ (x - μₖ)|², and the scatter of the component is Σ γ (x - μₖ)(x - μₖ)ᵀ. For a block of samples
each of them is one matrix product of D²/2 multiplications a sample, because Wₖ is lower triangular
and the scatter is symmetric: both are computed in panels of rows, and a panel takes the columns up
to its last row only.

The difference x - μₖ is computed first, so nothing cancels. It costs D subtractions a sample,
little next to the product where there are many columns.

In many dimensions most responsibilities are exactly zero: exp of a difference of scores underflows.
The work for them is saved. The first panel alone bounds a score from above, because the squares of
further panels only lower it. Samples are grouped by their highest bound, and a group takes a
component only if the bound of one of its samples comes near the highest score of that sample. The
result is the same number for number, since what is left out is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jgmm._core import budget
from jgmm.mixture.gaussian import LOG_2PI
from jgmm.mixture.mixture import Mixture

# exp of less than this is zero, subnormal numbers included.
UNDERFLOW = {"float32": -104.0, "float64": -746.0}


class Components(NamedTuple):
    """Components as the loops over them read them.

    Attributes:
      constant: log πₖ - D/2 log 2π - 1/2 log|Σₖ|, (K,).
      mean: μₖ, (K, D).
      whitening: Wₖ, (K, D, D), lower triangular.
    """

    constant: Array
    mean: Array
    whitening: Array


def components(mixture: Mixture) -> Components:
    """Return the components of a mixture with full covariances; a shared one is repeated."""
    storage, d = mixture.model.storage, mixture.n_features
    inverse = storage.invert(mixture.scale)
    constant = mixture.log_weights - 0.5 * d * LOG_2PI - storage.half_log_det(mixture.scale, d)
    copies = jnp.broadcast_to(inverse, (mixture.n_components, *inverse.shape[1:]))
    return Components(constant, mixture.means, copies)


def first_scores(of: Components, x: Float[Array, "B D"]) -> Float[Array, "K B"]:
    """Compute the scores (log joint densities) as far as the first panel of Wₖ determines them.

    They are upper bounds of the scores, and the scores themselves if there is one panel.
    """
    first = panels(x.shape[1])[:1]

    def one(component: Components) -> Array:
        return component.constant - 0.5 * _distance(component, x, first)

    return _each_component(one, of)


class Groups(NamedTuple):
    """A block of samples in G groups of C. Samples of weight zero fill the last group.

    Attributes:
      x: samples, (G, C, D).
      bound: upper bounds of their scores, (K, G, C).
      weights: their weights, (G, C).
      rows: their indices, (G, C).
    """

    x: Array
    bound: Array
    weights: Array
    rows: Array


def group(x: Array, bound: Float[Array, "K B"], weights: Array, rows: Array) -> Groups:
    """Group the samples of a block by the component with their highest bound."""
    k, n = bound.shape
    n_groups = n // budget.GROUP_ROWS
    if n_groups < 2 or k == 1 or len(panels(x.shape[1])) == 1 or jax.default_backend() != "cpu":
        return Groups(x[None], bound[:, None], weights[None], rows[None])
    size = -(-n // n_groups)
    order = jnp.pad(jnp.argsort(bound.argmax(axis=0)), (0, n_groups * size - n))
    order = order.reshape(n_groups, size)
    present = (jnp.arange(order.size) < n).reshape(n_groups, size)
    return Groups(x[order], bound[:, order], jnp.where(present, weights[order], 0), rows[order])


def scores(of: Components, groups: Groups) -> Float[Array, "K G C"]:
    """Complete the scores of all samples and components whose responsibility may not be zero.

    Returns:
      The scores; those left out are so low that exp of their distance from the highest is zero.
    """
    bound = groups.bound
    rest = panels(groups.x.shape[2])[1:]
    if not rest:
        return bound
    if len(groups.x) == 1:
        every = jnp.ones(bound.shape[:2], bool)
        return _complete(of, groups, rest, every)
    # The components with the highest bounds come first: their scores tell which others matter.
    likely = (bound == bound.max(axis=0)[None]).any(axis=2)
    found = _complete(of, groups, rest, likely)
    highest = found.max(axis=0)
    margin = UNDERFLOW[str(bound.dtype)] * 1.1 - 64 * jnp.finfo(bound.dtype).eps * abs(highest)
    left = ~likely & ~(bound < (highest + margin)[None]).all(axis=2)
    return jnp.where(left[:, :, None], _complete(of, groups, rest, left), found)


def _complete(
    of: Components, groups: Groups, rest: list[tuple[int, int]], needed: Bool[Array, "K G"]
) -> Float[Array, "K G C"]:
    """Subtract what the panels ``rest`` add to the distances where needed; -inf elsewhere."""

    def one(component: tuple[Components, Array, Array]) -> Array:
        this, bound, needed = component

        def finish(group: tuple[Array, Array, Array]) -> Array:
            x, bound, needed = group
            return lax.cond(
                needed,
                lambda: bound - 0.5 * _distance(this, x, rest),
                lambda: jnp.full_like(bound, -jnp.inf),
            )

        if len(groups.x) == 1:
            return (bound[0] - 0.5 * _distance(this, groups.x[0], rest))[None]
        return lax.map(finish, (groups.x, bound, needed))

    return _each_component(one, (of, groups.bound, needed))


def _distance(
    component: Components, x: Float[Array, "C D"], rows: list[tuple[int, int]]
) -> Float[Array, "C"]:
    """Compute the squared lengths of some panels of W (x - μ), for one component."""
    end = rows[-1][1]
    difference = x[:, :end] - component.mean[None, :end]
    total = jnp.zeros(len(x), x.dtype)
    for start, stop in rows:
        panel = component.whitening[start:stop, :stop]
        total = total + ((difference[:, :stop] @ panel.T) ** 2).sum(axis=1)
    return total


def moments(
    means: Float[Array, "K D"], counted: Float[Array, "K G C"], x: Float[Array, "G C D"]
) -> tuple[Float[Array, "K D"], tuple[Array, ...]]:
    """Compute Σ γ (x - μₖ) and Σ γ (x - μₖ)(x - μₖ)ᵀ over a block of samples in groups.

    Args:
      means: μₖ.
      counted: γ, the responsibilities times the weights of the samples.
      x: the samples.

    Returns:
      The first moments, and the second ones in panels of rows, see ``join_panels``.
    """
    rows = panels(x.shape[2])

    def of_group(mean: Array, x: Array, counted: Array) -> tuple[Array, tuple[Array, ...]]:
        difference = x - mean[None, :]
        weighted = counted[:, None] * difference
        scatter = tuple(weighted[:, a:b].T @ difference[:, :b] for a, b in rows)
        return weighted.sum(axis=0), scatter

    def one(component: tuple[Array, Array]) -> tuple[Array, tuple[Array, ...]]:
        mean, counted = component
        if len(x) == 1:
            return of_group(mean, x[0], counted[0])
        nothing = jnp.zeros_like(mean), tuple(jnp.zeros((b - a, b), mean.dtype) for a, b in rows)

        def add(sums: Any, group: tuple[Array, Array]) -> tuple[Any, None]:
            added = lax.cond(
                (group[1] != 0).any(),
                lambda: jax.tree.map(jnp.add, sums, of_group(mean, *group)),
                lambda: sums,
            )
            return added, None

        return lax.scan(add, nothing, (x, counted))[0]

    return _each_component(one, (means, counted))


def panels(n_columns: int) -> list[tuple[int, int]]:
    """Return the first and the last row (exclusive) of every panel of a D×D matrix.

    More panels save more of the upper triangle; narrow ones make slow products.
    """
    n_panels = min(max(n_columns // budget.MIN_PANEL_ROWS, 1), budget.MAX_PANELS)
    size = -(-n_columns // n_panels)
    return [(start, min(start + size, n_columns)) for start in range(0, n_columns, size)]


def join_panels(scatter: tuple[Array, ...]) -> Float[Array, "K D D"]:
    """Return symmetric matrices from the panels of rows of their lower triangles.

    Args:
      scatter: rows ``start … stop`` of each matrix up to column ``stop``, for all ``panels``.
    """
    d = scatter[-1].shape[-1]
    rows = [jnp.pad(panel, ((0, 0), (0, 0), (0, d - panel.shape[-1]))) for panel in scatter]
    lower = jnp.concatenate(rows, axis=1)
    return jnp.tril(lower) + jnp.tril(lower, -1).mT


def _each_component(function: Callable[[Any], Any], each: Any) -> Any:
    """Apply a function to every component: on a CPU one after another, elsewhere to all at once.

    A product of one component keeps all cores of a CPU busy, and its operands stay in the cache.
    """
    return lax.map(function, each) if jax.default_backend() == "cpu" else jax.vmap(function)(each)
