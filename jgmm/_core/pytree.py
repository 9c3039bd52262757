"""Pytree helpers: detect traced values, name the type of a leaf, choose between two trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool


def is_traced(*values: Any) -> bool:
    """Return whether any leaf is a tracer: an abstract value inside ``jit``, ``vmap`` or ``grad``.

    >>> is_traced({"x": 1.0})
    False
    """
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


# The type of a pytree's fields. To a type checker they are arrays; at run time they may be
# anything, because transformations rebuild a pytree with placeholders and with leading batch axes.
if TYPE_CHECKING:
    Leaf = Array
else:
    Leaf = Any

Tree = TypeVar("Tree")


def where(condition: Bool[Array, "..."], tree: Tree, other: Tree) -> Tree:
    """Choose between two pytrees leaf by leaf, as ``jnp.where`` chooses between arrays.

    Args:
      condition: true where the leaves of ``tree`` are taken, false where those of ``other`` are.
        Its axes are the leading axes of every leaf; a scalar chooses between the whole trees.
      tree, other: pytrees of the same structure and shapes.

    >>> where(jnp.asarray([True, False]), {"a": jnp.zeros(2)}, {"a": jnp.ones(2)})["a"].tolist()
    [0.0, 1.0]
    """

    def choose(a: Any, b: Any) -> Array:
        axes = (1,) * (jnp.ndim(a) - condition.ndim)
        return jnp.where(condition.reshape(condition.shape + axes), a, b)

    return jax.tree.map(choose, tree, other)


def to_host(tree: Any, dtype: Any = None) -> Any:
    """Copy every leaf of a pytree to a NumPy array on the host.

    Args:
      tree: a pytree of arrays and numbers.
      dtype: of all copies; by default each leaf keeps its own.

    >>> to_host({"x": jnp.asarray([1.0, 2.0])}, np.float64)
    {'x': array([1., 2.])}
    """
    return jax.tree.map(lambda leaf: np.array(leaf, dtype), tree)
