"""Pytrees: a choice between two, and values that are traced."""

import jax
import jax.numpy as jnp
import numpy as np

from jgmm._core import pytree
from jgmm._core.pytree import is_traced


def test_where_chooses_along_the_leading_axes():
    one = {"a": jnp.ones((2, 3)), "b": jnp.ones(2)}
    other = {"a": jnp.zeros((2, 3)), "b": jnp.zeros(2)}
    found = pytree.where(jnp.array([True, False]), one, other)
    np.testing.assert_array_equal(found["a"], [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(found["b"], [1, 0])


def test_where_without_axes_chooses_between_the_whole():
    one, other = {"a": jnp.ones((2, 3)), "b": jnp.asarray(1.0)}, {"a": jnp.zeros((2, 3)), "b": 0.0}
    found = pytree.where(jnp.asarray(False), one, other)
    assert not found["a"].any()
    assert not found["b"]


def test_is_traced():
    seen = []
    jax.jit(lambda x: seen.append(is_traced({"a": x})))(1.0)
    assert seen == [True]
    assert not is_traced(jnp.ones(2), None, 3.0)
