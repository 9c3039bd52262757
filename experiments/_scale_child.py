"""Measurements of experiments/scale.py that run in separate processes: memory, processes, devices.

    python -m experiments._scale_child ROLE ARGUMENTS...

The last line of its output is JSON.
"""

import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jgmm
from jgmm._data import standardization
from jgmm._data.samples import make_samples
from jgmm._saving.save import read_mixture
from jgmm.distributed import processes
from jgmm.distributed.fit import fit as fit_on_mesh
from jgmm.distributed.mesh import make_mesh
from jgmm.mixture.mixture import to_standard
from jgmm.streaming import reader
from jgmm.workbench.readers.streams import FileSource
from jgmm.workbench.studies.stream import Clock

EXACT: dict[str, Any] = {"tol": 0.0, "rtol": 0.0}  # no run converges before its steps run out


def peak() -> float:
    """Return the peak memory of this process so far, in 10⁹ bytes."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss begins at the size of the parent process
        (held,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
        return int(held) * 1024 / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes, on a Mac


def steps(
    source: FileSource, mixture: jgmm.Mixture, n_steps: int, clock: Clock, **more: Any
) -> jgmm.FitResult:
    """Take ``n_steps`` steps of EM from a mixture, over a file."""
    return jgmm.streaming.fit(
        jax.random.key(0),
        source,
        mixture.n_components,
        covariance=mixture.covariance,
        init=mixture,
        max_steps=n_steps,
        progress=clock,
        **EXACT,
        **more,
    )


def stream(data: str, start: str, n_steps: str, memory_rows: str) -> dict[str, Any]:
    """Stream a file, and time E-steps of rows in memory before and after it."""
    (mixture, _), source, clock = read_mixture(start), FileSource(data), Clock()
    before = in_memory(mixture, source, int(memory_rows))
    memory_before = peak()
    result = steps(source, mixture, int(n_steps), clock)
    most = peak()
    after = in_memory(mixture, source, int(memory_rows))
    return {
        "rows": source.n_rows,
        "peak_gb": most,
        "peak_before_gb": memory_before,
        "log_likelihood": float(result.log_likelihood),
        "in_memory": [*before, *after],
        "passes": clock.table(),
    }


def in_memory(mixture: jgmm.Mixture, source: FileSource, n_rows: int) -> list[float]:
    """Rows per second of the E-step of the first rows, held in memory; measured three times."""
    blocks, n = [], 0
    for x, _ in source:
        blocks.append(x.copy())
        n += len(x)
        if n >= n_rows:
            break
    samples = make_samples(np.concatenate(blocks)[:n_rows])
    inside = standardization.standardize(samples, mixture.model)
    there = to_standard(mixture, inside.frame)

    def rows_per_second() -> float:
        begun = time.perf_counter()
        # In the product form, as all steps of EM here but the last.
        jax.block_until_ready(jgmm.accumulate(there, inside, form="product"))
        return samples.n_samples / (time.perf_counter() - begun)

    rows_per_second()  # compiles
    return [rows_per_second() for _ in "abc"]


def per_step(fit: Callable[[int], jgmm.FitResult], few: int = 2, many: int = 9) -> float:
    """Seconds per step, from the difference between two fits with few and with many steps."""

    def timed(n_steps: int) -> tuple[float, int]:
        begun = time.perf_counter()
        result = jax.block_until_ready(fit(n_steps))
        return time.perf_counter() - begun, int(result.n_steps)

    timed(few), timed(many)  # compile
    (short, n_short), (long, n_long) = timed(few), timed(many)
    return (long - short) / (n_long - n_short)


def member(data: str, start: str, n_steps: str, place: str, size: str, rank: str) -> dict[str, Any]:
    """Run one process of several that share a file."""
    group = processes.join(place, int(size), int(rank)) if int(size) > 1 else reader.SingleProcess()
    (mixture, _), clock = read_mixture(start), Clock()
    source = FileSource(data, rank_and_size=group.rank_and_size)
    result = steps(source, mixture, int(n_steps), clock, group=group)
    group.all_gather(np.asarray(0))
    return {
        "rows": source.n_rows,
        "log_likelihood": float(result.log_likelihood),
        "means": np.asarray(result.mixture.means, float).tolist(),
        "passes": clock.table(),
    }


def devices(data: str, start: str, n_rows: str, n_devices: str) -> dict[str, Any]:
    """Time EM on simulated devices of this machine."""
    jax.config.update("jax_num_cpu_devices", int(n_devices))
    mixture, _ = read_mixture(start)
    x = np.concatenate([x.copy() for x, _ in FileSource(data)])[: int(n_rows)]
    mesh = make_mesh(int(n_devices))

    def fit(n_steps: int) -> jgmm.FitResult:
        return fit_on_mesh(
            jax.random.key(0),
            x,
            mixture.n_components,
            mesh=mesh,
            covariance=mixture.covariance,
            init=mixture,
            max_steps=n_steps,
            **EXACT,
        )

    seconds = per_step(fit)
    return {"seconds": seconds, "log_likelihood": float(fit(4).log_likelihood)}


ROLES: dict[str, Callable[..., dict[str, Any]]] = {
    "stream": stream,
    "member": member,
    "devices": devices,
}

if __name__ == "__main__":
    print(json.dumps(ROLES[sys.argv[1]](*sys.argv[2:])), flush=True)
    os._exit(0)  # without waiting for the other processes and without freeing memory
