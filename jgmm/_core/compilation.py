"""How programs are compiled: with products in the precision of their operands, on every device.

GPUs and TPUs round the factors of a float32 product to ten or even seven bits unless they are told
not to. A mixture does not bear that: its scores are differences of larger numbers. Everything jgmm
compiles therefore asks for full precision, unless the user has asked for less, with
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
    """A context in which products keep the digits of their operands, if the user says nothing."""
    if jax.config.jax_default_matmul_precision is not None:  # type: ignore[attr-defined]
        return nullcontext()
    return jax.default_matmul_precision("highest")


def jit(function: Callable[..., Any], **options: Any) -> Any:
    """``jax.jit`` of a function traced in ``full_precision``; takes the same options."""

    return jax.jit(_in_full_precision(function), **options)


class JitByWork:
    """``jit`` that compiles in half the time what does not run for long, and runs a tenth longer.

    It is called with the number of multiplications, roughly, before the arguments. Inside a
    transformation, where JAX takes no such options, it is ``jit``.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        """Take what ``jax.jit`` takes."""
        self.usual = jit(function, **options)
        self._quick = functools.partial(jax.jit, _in_full_precision(function), **options)

    @functools.cached_property
    def quick(self) -> Any:
        """The function compiled in little time."""
        return self._quick(compiler_options=_quick_options() or None)

    def __call__(self, work: int, *args: Any) -> Any:
        """Run it."""
        return (self.usual if work > budget.QUICK_WORK or is_traced(args) else self.quick)(*args)


def _in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with full_precision():
            return function(*args, **kwargs)

    return traced


def _quick_options() -> dict[str, Any]:
    """What XLA is to leave out on a CPU; what the user has set in ``XLA_FLAGS`` stays."""
    wanted: dict[str, Any] = {"xla_backend_optimization_level": 1}
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
        # Of two ways to make loops of fused operations the older; later versions have one only.
        wanted["xla_cpu_use_fusion_emitters"] = False
    if jax.default_backend() != "cpu":
        return {}
    set_by_user = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in wanted.items() if name not in set_by_user}
