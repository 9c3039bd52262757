"""Clocks: contestants timed in turns, the machine's own limits, memory of a process of its own."""

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
    """How long one call takes, its result waited for."""
    begun = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - begun


def in_turns(contestants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The median time of each, in seconds; all take a turn, then all the next.

    A machine that slows down for a while so slows all of them. The first turn, in which programs
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
    """A large square matrix product, 2 SQUARE³ operations."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(SQUARE, SQUARE)), dtype)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    return lambda: product(a)


def streaming(n_bytes: int) -> Callable[[], object]:
    """Reading so many bytes once and doing next to nothing with them."""
    a = jnp.ones(n_bytes // 4, jnp.float32)
    total = jax.jit(jnp.sum)
    return lambda: total(a)


def peak_memory(code: str) -> dict[str, float]:
    """Run code in a process of its own that prints numbers as ``name value``; what it printed.

    The code may call ``peak()``, the most memory the process has held so far, in MB, and
    ``forget_peak()``, from which on it counts anew.
    """
    # Not getrusage: its maximum starts at what the parent held.
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
