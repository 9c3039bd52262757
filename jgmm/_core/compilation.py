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
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import jax
from jax.extend.core import get_opaque_trace_state

from jgmm._core import budget

Function = TypeVar("Function", bound=Callable[..., Any])


def full_precision() -> AbstractContextManager[Any]:
    """Return a context with full-precision matrix products, unless the user has set a precision."""
    if jax.config.jax_default_matmul_precision is not None:  # type: ignore[attr-defined]
        return nullcontext()
    return jax.default_matmul_precision("highest")


def without_debug_nans(function: Function) -> Function:
    """Run a function with JAX's setting ``jax_debug_nans`` off, because its result may hold NaN.

    The setting looks for mistakes in the caller's code. NaN in the result of a fit is none: the
    history is NaN after the last step, and a start that failed has NaN parameters and a status.
    """

    @functools.wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        with jax.debug_nans(False):
            return function(*args, **keywords)

    return call  # type: ignore[return-value]


def jit(
    function: Callable[..., Any], *, static_argnums: int | tuple[int, ...] = (), quick: bool = False
) -> Callable[..., Any]:
    """Compile a function with ``jax.jit``, traced in ``full_precision``.

    The compiled programs of all functions together are bounded (``budget.MAX_PROGRAMS``): the one
    used longest ago is dropped, and compiled again when it is needed again.

    Args:
      function: a pure function of pytrees of arrays, which are passed by position.
      static_argnums: positions of arguments that are no arrays, but choose the program.
      quick: compile with fewer optimizations, for programs that run only briefly.

    Returns:
      The compiled function. Inside a transformation it is a part of a larger program, whose
      compiler options count.
    """
    static = (static_argnums,) if isinstance(static_argnums, int) else static_argnums

    def compiled(**options: Any) -> Callable[..., Any]:
        return jax.jit(_in_full_precision(function), static_argnums=static, **options)

    part = compiled()

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if not at_top_level():
            return part(*args)
        arrays = [each for i, each in enumerate(args) if i not in static]
        shapes = [getattr(leaf, "shape", None) for leaf in jax.tree.leaves(arrays)]
        key = (call, *[args[i] for i in static], *shapes)
        return _programs.find(key, lambda: compiled(compiler_options=_options(quick)))(*args)

    return call


class JitByWork:
    """``jit`` with fewer compiler optimizations for programs that run only briefly.

    Without those optimizations a program compiles in half the time and runs a tenth longer. The
    number of multiplications, roughly, is passed before the function's own arguments; it decides
    which of the two versions is compiled.
    """

    def __init__(self, function: Callable[..., Any], **options: Any) -> None:
        """Take the arguments of ``jit``."""
        self.usual = jit(function, **options)
        self.quick = jit(function, quick=True, **options)

    def __call__(self, work: int, *args: Any) -> Any:
        """Call the function with ``args``, in the version for that much ``work``."""
        return (self.usual if work > budget.QUICK_WORK else self.quick)(*args)


class Programs:
    """Compiled programs by function, static arguments and shapes, the one used last at the end.

    Each is an object of ``jax.jit`` with a function of its own. All that JAX keeps of a program, it
    keeps as long as that function lives; so a program that is dropped is gone, once the calls that
    are still running have returned, and no other program is touched. Arguments of other types and
    the same shapes share an object.
    """

    def __init__(self) -> None:
        """Begin without any programs."""
        self._found: OrderedDict[Any, Callable[..., Any]] = OrderedDict()
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Return how many programs are kept."""
        return len(self._found)

    @property
    def keys(self) -> list[Any]:
        """Return the keys, that of the program used longest ago first."""
        with self._lock:
            return list(self._found)

    def find(self, key: Any, compiled: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
        """Return the program with that key, or make it, and drop the one used longest ago."""
        dropped = []  # freed after the lock
        with self._lock:
            program = self._found.get(key)
            if program is None:
                program = self._found[key] = compiled()
                while len(self._found) > budget.MAX_PROGRAMS:
                    dropped.append(self._found.popitem(last=False))
            else:
                self._found.move_to_end(key)
        return program


_programs = Programs()


def programs_of(function: Callable[..., Any]) -> int:
    """Return how many programs of a function that ``jit`` returned are kept."""
    return sum(key[0] is function for key in _programs.keys)


def at_top_level() -> bool:
    """Return whether no transformation of JAX is being traced in this thread.

    Only then may a function read values, or compile programs of its own.

    >>> at_top_level(), jax.jit(at_top_level)().item()
    (True, False)
    """
    return bool(get_opaque_trace_state() == _top_level())


@functools.cache
def _top_level() -> Any:
    with jax.core.eval_context():
        return get_opaque_trace_state()


def _in_full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with full_precision():
            return function(*args, **kwargs)

    return traced


@functools.cache
def _options(quick: bool) -> dict[str, Any] | None:
    """XLA options that shorten compilation on a CPU, less those the user set in ``XLA_FLAGS``."""
    if not quick or jax.default_backend() != "cpu":
        return None
    # XLA cuts a program into up to 32 libraries, to compile them side by side. One library takes
    # two thirds of the memory maps.
    wanted: dict[str, Any] = {
        "xla_backend_optimization_level": 1,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
        # XLA has two ways to make loops of fused operations; the older one compiles faster. Later
        # versions have one way only.
        wanted["xla_cpu_use_fusion_emitters"] = False
    set_by_user = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in wanted.items() if name not in set_by_user} or None
