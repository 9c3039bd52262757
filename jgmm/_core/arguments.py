"""Checks of arguments that are no data: random keys, counts and levels."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core.compilation import Function
from jgmm._core.errors import DataError, shown


def check_key(key: Any, call: str = "") -> Array:
    """Return a random key after a check that it is a typed one.

    Args:
      key: what is in the place of the key.
      call: how the function is called, for the error message.

    Raises:
      TypeError: it was not made by ``jax.random.key``; the text says how to make one.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if getattr(key, "dtype", None) == np.uint32 and np.shape(key) in ((2,), (4,)):
        raise TypeError(
            "key is an untyped one, as jax.random.PRNGKey makes them; it must be a typed key such "
            "as jax.random.key(0). The one you have becomes one by jax.random.wrap_key_data(key)."
        )
    first = f" The key comes first: {call}." if call else ""
    raise TypeError(f"key must be a typed key such as jax.random.key(0), not {shown(key)}.{first}")


def key_first(function: Function) -> Function:
    """Check the key of a function that takes it first, and say so where something else is first.

    Python itself would say that an argument is missing, and not which: ``fit(x, 3)`` lacks the key.
    """
    own = inspect.signature(function).parameters.values()
    needed = [each.name for each in own if each.default is each.empty and each.kind < 2]
    call = f"{function.__name__}({', '.join(['jax.random.key(0)', *needed[1:]])})"

    @functools.wraps(function)
    def checked(*args: Any, **keywords: Any) -> Any:
        if args or needed[0] in keywords:
            check_key(args[0] if args else keywords[needed[0]], call)
        return function(*args, **keywords)

    return checked  # type: ignore[return-value]


def check_whole(name: str, value: Any, least: int) -> None:
    """Check that a count, such as the number of steps, is a whole number and not too small.

    Raises:
      DataError: with the name and the value.

    >>> check_whole("max_steps", 10, 0)
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise DataError(f"{name} must be a whole number of at least {least}; it is {shown(value)}.")


def check_level(level: float) -> None:
    """Check that the level of an interval or a region is a probability.

    Raises:
      DataError: it does not lie strictly between 0 and 1.
    """
    if not 0 < level < 1:
        raise DataError(
            f"level must lie strictly between 0 and 1, such as 0.95; it is {shown(level)}."
        )
