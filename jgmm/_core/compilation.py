"""Compilation with ``jax.jit``: matrix products in full precision on every device.

By default GPUs and TPUs round the factors of a float32 product to ten or even seven bits. A mixture
cannot afford that: its scores are differences of larger numbers. All programs of jgmm therefore ask
for full precision, unless the user has asked for less, with
``jax.default_matmul_precision("tensorfloat32")`` or the setting of that name.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax

from jgmm._core import budget
from jgmm._core.pytree import is_traced


def full_precision() -> AbstractContextManager[Any]:
    """Return a context with full-precision matrix products, unless the user has set a precision."""
    if jax.config.jax_default_matmul_precision is not None:  # type: ignore[attr-defined]
        return nullcontext()
    return jax.default_matmul_precision("highest")


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function with ``jax.jit``, traced in ``full_precision``; takes the same options."""

    return jax.jit(_in_full_precision(function), **options)


class JitByWork:
    """``jit`` with fewer compiler optimizations for programs that run only briefly.

    Without those optimizations a program compiles in half the time and runs a tenth longer. The
    number of multiplications, roughly, is passed before the function's own arguments; it decides
    which of the two versions is compiled. Inside a transformation JAX accepts no compiler options,
    and the usual version is taken.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        """Take the arguments of ``jax.jit``."""
        self.usual = jit(function, **options)
        self._quick = functools.partial(jax.jit, _in_full_precision(function), **options)

    @functools.cached_property
    def quick(self) -> Any:
        """The function compiled in less time, with fewer optimizations."""
        return self._quick(compiler_options=_quick_options() or None)

    def __call__(self, work: int, *args: Any) -> Any:
        """Call the function with ``args``, in the version for that much ``work``."""
        return (self.usual if work > budget.QUICK_WORK or is_traced(args) else self.quick)(*args)


def quick_jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a function that never runs long, with fewer optimizations, as ``JitByWork`` does."""
    return functools.partial(JitByWork(function, **options), 0)


def _in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with full_precision():
            return function(*args, **kwargs)

    return traced


def _quick_options() -> dict[str, Any]:
    """XLA options that shorten compilation on a CPU, less those the user set in ``XLA_FLAGS``."""
    wanted: dict[str, Any] = {"xla_backend_optimization_level": 1}
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
        # XLA has two ways to make loops of fused operations; the older one compiles faster. Later
        # versions have one way only.
        wanted["xla_cpu_use_fusion_emitters"] = False
    if jax.default_backend() != "cpu":
        return {}
    set_by_user = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in wanted.items() if name not in set_by_user}
