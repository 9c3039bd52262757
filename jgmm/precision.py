"""Matrix products in the precision of their operands, on every device.

GPUs and TPUs round the factors of a float32 product to ten or even seven bits unless they are told
not to. A mixture does not bear that: its scores are differences of larger numbers. Everything jgmm
compiles therefore asks for full precision, unless the user has asked for less, with
``jax.default_matmul_precision("tensorfloat32")`` or the setting of that name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax


def full_precision() -> AbstractContextManager[Any]:
    """A context in which products keep the digits of their operands, if the user says nothing."""
    if jax.config.jax_default_matmul_precision is not None:  # type: ignore[attr-defined]
        return nullcontext()
    return jax.default_matmul_precision("highest")


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """``jax.jit`` of a function traced in ``full_precision``; takes the same options."""

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with full_precision():
            return function(*args, **kwargs)

    return jax.jit(traced, **options)
