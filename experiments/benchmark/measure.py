"""Time contestants in turns, and measure the machine's limits and the memory of a process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

SQUARE = 2048  # the product whose rate is the limit; large enough to reach the machine's best


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds one call takes until its result is ready."""
    begun = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - begun


def in_turns(contestants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median time of each contestant, in seconds; all take one turn after another.

    If the machine slows down for a while, that slows all of them. The first turn, in which programs
    are compiled and caches filled, does not count.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, work in contestants.items():
            taken = seconds(work)
            if turn:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def square_product(dtype: np.dtype) -> Callable[[], object]:
    """Return a large square matrix product, of 2 SQUARE³ operations."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(SQUARE, SQUARE)), dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    return lambda: product(a)


def streaming(n_bytes: int) -> Callable[[], object]:
    """Return a function that reads ``n_bytes`` once and adds them up."""
    a = jnp.ones(n_bytes // 4, jnp.float32)
    total = jax.jit(jnp.sum)
    return lambda: total(a)


def peak_memory(code: str) -> dict[str, float]:
    """Run code in a separate process; return the numbers it prints as ``name value``.

    The code may call ``peak()``, which returns the peak memory of the process so far, in MB, and
    ``forget_peak()``, which resets that peak.
    """
    # Not getrusage: its maximum starts at the memory of the parent process.
    before = (
        "import pathlib\n"
        "def peak():\n"
        "    lines = pathlib.Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(line.split()[1]) / 1024 for line in lines if 'VmHWM' in line)\n"
        "def forget_peak():\n"
        "    pathlib.Path('/proc/self/clear_refs').write_text('5')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", before + code], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in done.stdout.splitlines())
    return {name: float(value) for name, value in rows}
