"""Small programs side by side: on a CPU XLA runs each on one core, and leaves the others idle.

Programs that are large enough fill the machine by themselves and gain nothing here. Compilation
gains too: XLA compiles in the thread that asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

import jax

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# JAX's settings may be changed for one thread only, by these.
SETTINGS: dict[str, Callable[[Any], Any]] = {
    "jax_enable_x64": jax.enable_x64,
    "jax_default_device": jax.default_device,
    "jax_default_matmul_precision": jax.default_matmul_precision,
    "jax_numpy_dtype_promotion": jax.numpy_dtype_promotion,
    "jax_numpy_rank_promotion": jax.numpy_rank_promotion,
    "jax_debug_nans": jax.debug_nans,
    "jax_debug_infs": jax.debug_infs,
}


def n_cores() -> int:
    """Cores this process may use; one where the default device is none of them."""
    if jax.default_backend() != "cpu" or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return 1
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def run_all(
    function: Callable[[K, dict[K, V]], V], needs: Mapping[K, list[K]], n_threads: int
) -> dict[K, V]:
    """Call a function once for each key, as soon as what it needs is there.

    Args:
      function: ``(key, values of the keys it needs) -> value``; called in threads that see JAX's
        settings as the caller does.
      needs: for each key those whose values it needs, which come before it.
      n_threads: calls at a time.

    Returns:
      Values by key, in the order of ``needs``.

    The first exception ends it, once the calls that run have ended; those that wait are dropped.
    """
    if n_threads <= 1:
        done: dict[K, V] = {}
        for key, needed in needs.items():
            done[key] = function(key, {each: done[each] for each in needed})
        return done
    settings = _settings()
    futures: dict[K, Future[V]] = {}

    def call(key: K) -> V:
        # They were submitted before this one, so they run or have ended: nothing waits for itself.
        values = {each: futures[each].result() for each in needs[key]}
        with _as_in(settings):
            return function(key, values)

    with ThreadPoolExecutor(n_threads, thread_name_prefix="jgmm") as pool:
        try:
            for key in needs:
                futures[key] = pool.submit(call, key)
            return {key: future.result() for key, future in futures.items()}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _settings() -> dict[str, Any]:
    return {name: getattr(jax.config, name) for name in SETTINGS}


def _as_in(settings: dict[str, Any]) -> ExitStack:
    """A context in which JAX is set so; nothing is touched that is already."""
    stack = ExitStack()
    for name, value in settings.items():
        if getattr(jax.config, name) != value:
            stack.enter_context(SETTINGS[name](value))
    return stack
