"""Pytrees: what their fields are to a type checker, and a choice between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool


def is_traced(*values: Any) -> bool:
    """Whether any leaf is an abstract value inside ``jit``, ``vmap`` or ``grad``."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


# Fields of pytrees. To a type checker they are arrays; at run time they may be anything, because
# transformations rebuild a pytree with placeholders and with leading batch axes.
if TYPE_CHECKING:
    Leaf = Array
else:
    Leaf = Any

Tree = TypeVar("Tree")


def where(which: Bool[Array, "..."], one: Tree, other: Tree) -> Tree:
    """Leaf by leaf ``one`` where ``which`` is true, ``other`` elsewhere.

    Args:
      which: as many leading axes of every leaf as it has; none chooses between the whole trees.
      one, other: pytrees of the same structure and shapes.
    """

    def choose(a: Any, b: Any) -> Array:
        return jnp.where(which.reshape(which.shape + (1,) * (jnp.ndim(a) - which.ndim)), a, b)

    return jax.tree.map(choose, one, other)
