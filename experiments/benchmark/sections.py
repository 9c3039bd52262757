"""The sections of the benchmark; each returns the rows of one table."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings
from typing import Any

import jax
import numpy as np

import jgmm
from experiments.benchmark import measure
from experiments.benchmark.contestants import (
    CONTESTANTS,
    STEPS,
    AbsentError,
    Case,
    Contestant,
)
from jgmm._data.samples import make_samples
from jgmm.em.options import Options
from jgmm.fitting import in_memory
from jgmm.selection.criteria import evidence

# A case, and its targets: how many times faster than each library jgmm should be, and how many
# times slower than the bare products it may be.
STEP_CASES: list[tuple[Case, dict[str, float]]] = [
    (Case(200_000, 8, 16, "full", "float32"), {"scikit-learn": 25, "gmmx": 12}),
    (Case(500_000, 2, 8, "full", "float32"), {"scikit-learn": 30, "gmmx": 12}),
    (
        Case(200_000, 32, 16, "full", "float32"),
        {"scikit-learn": 8, "gmmx": 8, "Armadillo": 3, "products": 3},
    ),
    (Case(50_000, 64, 32, "full", "float32"), {"products": 2.5}),
    (Case(200_000, 128, 64, "diag", "float32"), {"scikit-learn": 4, "products": 2.5}),
    (Case(200_000, 8, 16, "full", "float64"), {"scikit-learn": 15}),
]


def steps(repeats: int) -> list[dict[str, Any]]:
    """Seconds of one EM step, the machine's limits for it, and the likelihood reached."""
    rows = []
    for case, targets in STEP_CASES:
        with jax.enable_x64(case.dtype == "float64"):
            rows.extend(_case(case, targets, repeats))
    return rows


def _case(case: Case, targets: dict[str, float], repeats: int) -> list[dict[str, Any]]:
    x, start = case.problem()
    running, absent = _entered(case, x, start)
    works = {name: each.advance for name, each in running.items()}
    product = measure.square_product(np.dtype(case.dtype))
    limits = {"square": product, "stream": measure.streaming(x.nbytes)}
    times = measure.in_turns(works | limits, repeats)
    square, stream = times.pop("square"), times.pop("stream")
    own = times["jgmm"] / STEPS
    bare = square * case.operations / (2 * measure.SQUARE**3)
    rows: list[dict[str, Any]] = []
    for name in CONTESTANTS:
        row: dict[str, Any] = {"case": case.name, "library": name}
        if name in absent:
            rows.append(row | {"note": absent[name]})
            continue
        taken = times[name] / STEPS
        row |= {"seconds": taken, "times jgmm": taken / own, "target": targets.get(name)}
        rows.append(row | {"log_likelihood": _log_likelihood(running[name], case, x)})
    for name, limit in (("bare products", bare), ("reading x", stream)):
        row = {"case": case.name, "library": name, "seconds": limit, "times jgmm": limit / own}
        if name == "bare products" and "products" in targets:
            row["target"] = 1 / targets["products"]
        rows.append(row)
    return rows


def _entered(case: Case, x: np.ndarray, start: Any) -> tuple[dict[str, Contestant], dict[str, str]]:
    running, absent = {}, {}
    for name, build in CONTESTANTS.items():
        try:
            running[name] = build(case, x, start)
        except AbsentError as error:
            absent[name] = str(error)
    return running, absent


def _log_likelihood(contestant: Contestant, case: Case, x: np.ndarray) -> float:
    """Log-likelihood of the parameters a contestant ends with, in double precision."""
    reached = contestant.reached()
    with jax.enable_x64(True):
        weights, means, covariances = (np.asarray(leaf, np.float64) for leaf in reached)
        weights = weights / weights.sum()
        mixture = jgmm.make_mixture(weights, means, covariances, case.covariance)
        return float(evidence(mixture, make_samples(x.astype(np.float64)))[0])


# N, D, K, and from how many seeds a race is compared with running every start to its end.
RESTART_CASES = [(10_000, 8, 5, 100), (50_000, 16, 10, 5)]
N_RESTARTS = 256
# The starts are those of scikit-learn's default, so that both have the same work.
RESTARTS: dict[str, Any] = {"n_restarts": N_RESTARTS, "init": "kmeans", "tol": 1e-5}


def overlapping(n: int, d: int, k: int, seed: int = 0) -> np.ndarray:
    """Draw from components about two deviations apart, with correlations: many local optima."""
    rng = np.random.default_rng(seed)
    means = 2 * rng.normal(size=(k, d))
    roots = np.eye(d) + 0.4 * rng.normal(size=(k, d, d))
    z = rng.integers(k, size=n)
    x = means[z] + np.einsum("nde,ne->nd", roots[z], rng.normal(size=(n, d)))
    return x.astype(np.float32)


def restarts(repeats: int) -> list[dict[str, Any]]:
    """Seconds of 256 restarts to convergence; scikit-learn timed on fewer and scaled."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    rows = []
    timed = 4  # scikit-learn: its restarts run one after another, so its time is scaled
    for n, d, k, _ in RESTART_CASES:
        x = overlapping(n, d, k)
        best: dict[str, float] = {}

        def own(x: np.ndarray = x, k: int = k, best: dict[str, float] = best) -> Any:
            found = jgmm.fit(jax.random.key(0), x, k, **RESTARTS)
            best["jgmm"] = float(found.log_likelihood)
            return found.log_likelihood

        def theirs(x: np.ndarray = x, k: int = k, best: dict[str, float] = best) -> Any:
            gm = GaussianMixture(k, n_init=timed, tol=1e-5, max_iter=1000, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                best["scikit-learn"] = float(gm.fit(x).score(x)) * len(x)
            return gm.means_

        times = measure.in_turns({"jgmm": own, "scikit-learn": theirs}, max(1, repeats // 2))
        times["scikit-learn"] *= N_RESTARTS / timed
        for name, taken in times.items():
            row: dict[str, Any] = {"case": f"{N_RESTARTS} restarts, {n}, {d}, {k}", "library": name}
            row |= {"seconds": taken, "times jgmm": taken / times["jgmm"]}
            row |= {"target": 60 if name == "scikit-learn" else None, "best": best[name]}
            rows.append(row)
    return rows


RACE_STEPS = 3


def racing(repeats: int) -> list[dict[str, Any]]:
    """How many times faster a race is, and from how many seeds it finds the same best."""
    del repeats  # the seeds are the repeats
    rows = []
    for n, d, k, seeds in RESTART_CASES:
        x = make_samples(overlapping(n, d, k)).x
        same, times = 0, {0: 0.0, RACE_STEPS: 0.0}
        for seed in range(seeds + 1):
            best = {}
            for race in times:
                begun = time.perf_counter()
                found = jgmm.fit(jax.random.key(seed), x, k, race=race, **RESTARTS)
                best[race] = float(found.log_likelihood)
                times[race] += time.perf_counter() - begun
            same += best[RACE_STEPS] >= best[0] - 1e-4 * n
            if seed == 0:  # in which programs were compiled
                same, times = 0, dict.fromkeys(times, 0.0)
        rows.append(
            {
                "case": f"{N_RESTARTS} restarts, {n}, {d}, {k}, race={RACE_STEPS}",
                "seconds": times[RACE_STEPS] / seeds,
                "without": times[0] / seeds,
                "times faster": times[0] / times[RACE_STEPS],
                "target": 3.0,
                "same best": f"{same} of {seeds}",
            }
        )
    return rows


_MEMORY = """
import numpy as np, jax, jax.numpy as jnp, jgmm
n, d, k = {n}, {d}, {k}
rng = np.random.default_rng(0)
x = np.empty((n, d), np.float32)
for first in range(0, n, 10_000):
    x[first : first + 10_000] = rng.normal(size=(10_000, d))
x = jnp.asarray(x).block_until_ready()
start = jgmm.make_mixture(np.full(k, 1 / k), rng.normal(size=(k, d)), np.ones(k), "spherical")
scale = jnp.broadcast_to(jnp.eye(d), (k, d, d))
start = jgmm.Mixture(start.log_weights, start.means, scale, "full")
forget_peak()  # that of copying the data to JAX
jgmm.fitting.run_em(start, x, max_steps=2, tol=0.0, rtol=0.0).log_likelihood.block_until_ready()
print("fitted", peak())
"""


def memory(repeats: int) -> list[dict[str, Any]]:
    """Peak memory of a process that fits a large array, and of one that fits a small one, in MB."""
    del repeats  # memory does not vary between runs
    n, few, d, k = 10_000_000, 20_000, 8, 64
    held, base = (
        measure.peak_memory(_MEMORY.format(n=size, d=d, k=k))["fitted"] for size in (n, few)
    )
    size = n * d * 4 / 2**20
    return [
        {
            "case": f"2 steps of {n}, {d}, {k}",
            "data_mb": size,
            "process_mb": held,
            "without_data_mb": held - size,
            f"process_of_{few}_rows_mb": base,
            "without_data_and_that_mb": held - size - base,
            "target": 300,
        }
    ]


def growth(repeats: int) -> list[dict[str, Any]]:
    """Seconds as N, K and R each grow over three decades; slopes in log-log, at most 1.05."""
    # (N, K, R); the named one grows over three decades.
    ranges = {
        "N": [(10**e, 4, 1) for e in (4, 5, 6, 7)],
        "K": [(20_000, k, 1) for k in (4, 40, 400, 4000)],
        "R": [(2_000, 4, r) for r in (4, 40, 400, 4000)],
    }
    rows: list[dict[str, Any]] = []
    for place, (axis, points) in enumerate(ranges.items()):
        times = []
        for n, k, r in points:
            x = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
            samples = make_samples(x)

            def work(samples: Any = samples, k: int = k, r: int = r) -> Any:
                return in_memory.fit_unchecked(
                    jax.random.key(0),
                    samples,
                    k,
                    Options("diag", r, "points", tol=0.0, rtol=0.0, max_steps=5),
                ).log_likelihood

            taken = measure.in_turns({"jgmm": work}, max(1, repeats // 2))["jgmm"]
            times.append(taken)
        sizes = [point[place] for point in points]
        slope = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
        rows.extend(
            {"axis": axis, "size": size, "seconds": taken, "exponent": slope, "target": 1.05}
            for size, taken in zip(sizes, times, strict=True)
        )
    return rows


_COMMAND = "from jgmm.workbench.cli.main import main; main()"


def first_result(repeats: int) -> list[dict[str, Any]]:
    """Seconds of whole processes: imports, and `jgmm run` on Old Faithful, cold and warm."""
    rows = []
    root = pathlib.Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "XDG_CACHE_HOME": f"{place}/cache"}
        config = str(root / "configs" / "faithful.toml")
        run = [sys.executable, "-c", _COMMAND, "run", config, "--set", f"output={place}"]
        for name, target in (("cold", 10.0), ("warm", 5.0)):
            rows.append(_process(f"jgmm run, {name} cache", run, environment, target))
        warm = [_process("jgmm run, warm cache", run, environment, 5.0) for _ in range(repeats)]
        rows[1] = sorted([*warm, rows[1]], key=lambda row: row["seconds"])[len(warm) // 2]
    for code in ("import jax", "import jax, jgmm; jgmm.fit"):
        python = [sys.executable, "-c", code]
        times = [_process(code, python, dict(os.environ), None) for _ in range(repeats)]
        rows.append(sorted(times, key=lambda row: row["seconds"])[len(times) // 2])
    return rows


def _process(
    name: str, command: list[str], environment: dict[str, str], target: float | None
) -> dict[str, Any]:
    begun = time.perf_counter()
    subprocess.run(command, env=environment, capture_output=True, check=True)
    return {"case": name, "seconds": time.perf_counter() - begun, "target": target}
