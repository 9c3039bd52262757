"""The best optimum: how often each kind of start finds it, against the seconds that it takes.

    ./dev python -m experiments.trust.best_optimum

For each problem, data with a covariance model and K, 320 starts of every kind run to their ends.
The best known optimum is the highest log-likelihood of a valid one among all of them. A seed is a
group of R starts that no other seed has; it finds the best if one of its starts comes within 1e-4
nats a sample. A portfolio takes its R starts from several kinds in turn, as
``init="portfolio"`` does. Scikit-learn runs with starts of its own, for the models that it has;
what it calls converged counts, spikes included.

The program prints a row for each problem and one for each contestant, writes both to
`runs/trust/best_optimum.json`, and draws shares against seconds. ``--only iris`` takes the problems
whose name begins so.
"""

from __future__ import annotations

import argparse
import pathlib
import time
import warnings
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

import jgmm
from experiments.benchmark.chart import show
from jgmm import plot
from jgmm._core.status import VALID, among
from jgmm.initialization.methods import PORTFOLIO, STARTS
from jgmm.plot.style import component_style
from jgmm.workbench.readers.datasets import load

OUTPUT = pathlib.Path("runs/trust/best_optimum.json")
SEEDS, SIZES, NEAR = 20, (1, 2, 4, 8, 16, 32, 64), 1e-4
COMMON = ("full", "tied", "diag", "spherical")
OTHERS = ("EEI", "VEI", "VEE", "EEV", "VEV", "EVI")
SCIKIT_STARTS, SCIKIT_SECONDS = 100, 15.0


class Problem(NamedTuple):
    """Data, a covariance model, and K."""

    data: str
    covariance: str
    n_components: int

    def __str__(self) -> str:
        """Return its name, as it is printed."""
        return f"{self.data} {self.covariance} {self.n_components}"


PROBLEMS = [
    *(Problem("iris", name, k) for name in COMMON for k in (2, 3, 4, 6, 9)),
    *(Problem("iris", name, 3) for name in OTHERS),
    *(Problem("faithful", name, k) for name in COMMON for k in (2, 3, 5, 7)),
    *(Problem("wine", name, k) for name in ("tied", "diag", "spherical") for k in (3, 5)),
    Problem("wine", "full", 2),
    *(Problem("cancer", name, k) for name in ("full", "tied", "diag") for k in (2, 4)),
    *(Problem("digits", name, k) for name, k in (("spherical", 9), ("tied", 6), ("diag", 8))),
    *(Problem("clusters", name, 8) for name in COMMON),
    *(Problem("overlapping", name, 5) for name in COMMON),
]


@cache
def samples_of(name: str) -> np.ndarray:
    """Return the samples of a data set, (N, D) in float32."""
    rng = np.random.default_rng(0)
    if name == "cancer":
        x = load_breast_cancer().data[:, :10]
    elif name == "digits":
        x = PCA(10, random_state=0).fit_transform(load_digits().data)
    elif name == "clusters":  # eight clusters of unequal sizes in three columns
        means, sizes = 6 * rng.normal(size=(8, 3)), rng.integers(20, 150, size=8)
        x = np.concatenate([m + rng.normal(size=(n, 3)) for m, n in zip(means, sizes, strict=True)])
    elif name == "overlapping":  # five that overlap, in two columns
        means = 2 * rng.normal(size=(5, 2))
        x = means[rng.integers(5, size=600)] + rng.normal(size=(600, 2))
    else:
        x = load(name).x
    return np.asarray(x, np.float32)


class Pool(NamedTuple):
    """What many starts of one kind came to.

    Attributes:
      found: the log-likelihood that each ends with, −inf where its end is not valid.
      seconds: per start, in a second run.
    """

    found: np.ndarray
    seconds: float


def run_kind(problem: Problem, kind: str) -> Pool:
    """Run enough starts of a kind for all seeds, and time some of them again."""
    x, number = samples_of(problem.data), 5 * max(SIZES)

    def fit(n_restarts: int) -> jgmm.FitResult:
        return jgmm.fit(
            jax.random.key(1), x, problem.n_components, covariance=problem.covariance, init=kind,
            n_restarts=n_restarts, accelerate="anderson",
        )  # fmt: skip

    try:
        restarts = fit(number).restarts
        assert restarts is not None
    except jgmm.FitError:
        return Pool(np.full(number, -np.inf), np.nan)
    began = time.perf_counter()
    jax.block_until_ready(fit(number // 4))
    seconds = (time.perf_counter() - began) / (number // 4)
    valid = np.asarray(among(restarts.status, VALID))
    return Pool(np.where(valid, np.asarray(restarts.log_likelihood, float), -np.inf), seconds)


def run_scikit_learn(problem: Problem) -> Pool | None:
    """Run starts of scikit-learn, one by one, or return None for a model that it has not."""
    if problem.covariance not in COMMON:
        return None
    x = samples_of(problem.data).astype(float)
    found, began = [], time.perf_counter()
    for seed in range(SCIKIT_STARTS):
        model = GaussianMixture(
            problem.n_components, covariance_type=problem.covariance, tol=1e-8, max_iter=5000,
            random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.append(model.fit(x).score(x) * len(x))
        if time.perf_counter() - began > SCIKIT_SECONDS and len(found) >= SEEDS:
            break
    return Pool(np.array(found), (time.perf_counter() - began) / len(found))


def share(pools: list[Pool], n_starts: int, wanted: float) -> tuple[float, float] | None:
    """Return the share of seeds that find what is wanted with R starts in turn, and their seconds.

    None where the starts do not suffice for five seeds.
    """
    own = [len(range(i, n_starts, len(pools))) for i in range(len(pools))]
    used = [(pool, n) for pool, n in zip(pools, own, strict=True) if n]
    seeds = min(SEEDS, *(len(pool.found) // n for pool, n in used))
    if seeds < 5:
        return None
    hits = [
        max(pool.found[seed * n : (seed + 1) * n].max() for pool, n in used) >= wanted
        for seed in range(seeds)
    ]
    return float(np.mean(hits)), sum(n * pool.seconds for pool, n in used)


def solve(problem: Problem) -> list[dict[str, Any]]:
    """Return a row for each contestant and number of starts."""
    pools = {kind: run_kind(problem, kind) for kind in STARTS}
    other = run_scikit_learn(problem)
    best = max(pool.found.max() for pool in pools.values())
    wanted = best - NEAR * len(samples_of(problem.data))
    contestants = {
        **{kind: [pool] for kind, pool in pools.items()},
        "portfolio": [pools[kind] for kind in PORTFOLIO],
        **({} if other is None else {"scikit-learn": [other]}),
    }
    rows = []
    for name, used in contestants.items():
        for size in SIZES:
            found = share(used, size, wanted)
            if found is not None:
                head = {"problem": str(problem), "best": best, "starts": name, "R": size}
                rows.append({**head, "share": found[0], "seconds": found[1]})
    return rows


def totals(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average shares and seconds over the problems, for each contestant and number of starts."""
    result = []
    for name in dict.fromkeys(row["starts"] for row in rows):
        for size in SIZES:
            own = [row for row in rows if (row["starts"], row["R"]) == (name, size)]
            if own:
                result.append(
                    {
                        "starts": name,
                        "R": size,
                        "problems": len(own),
                        "share": float(np.mean([row["share"] for row in own])),
                        "all seeds": sum(row["share"] == 1 for row in own),
                        "median seconds": float(np.nanmedian([row["seconds"] for row in own])),
                    }
                )
    return result


def draw(rows: list[dict[str, Any]], output: pathlib.Path) -> None:
    """Draw the share of (problem, seed) pairs against the median seconds."""
    figure, (ax,) = plot.new_figure(size=(7, 4.5))
    for index, name in enumerate(dict.fromkeys(row["starts"] for row in rows)):
        own = [row for row in rows if row["starts"] == name]
        color, marker, line = component_style(index)
        style = {"color": color, "marker": marker, "linestyle": line}
        ax.plot([r["median seconds"] for r in own], [r["share"] for r in own], label=name, **style)
    ax.set_xscale("log")
    ax.set_xlabel("seconds of a seed, median over problems")
    ax.set_ylabel("share of (problem, seed) pairs at the best optimum")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    output.write_bytes(plot.png(figure))


def main() -> None:
    """Print both tables, and draw the shares."""
    parser = argparse.ArgumentParser(prog="python -m experiments.trust.best_optimum")
    parser.add_argument("--only", default="", help="beginning of the names of problems")
    only = parser.parse_args().only
    rows: list[dict[str, Any]] = []
    for problem in PROBLEMS:
        if str(problem).startswith(only):
            rows += solve(problem)
            own = {row["starts"]: row["share"] for row in rows[-50:]
                   if row["problem"] == str(problem) and row["R"] == 16}  # fmt: skip
            print(problem, round(rows[-1]["best"], 3), own, flush=True)
    show(rows, OUTPUT.with_name("best_optimum_problems.json"))
    show(totals(rows), OUTPUT)
    draw(totals(rows), OUTPUT.with_suffix(".png"))


if __name__ == "__main__":
    main()
