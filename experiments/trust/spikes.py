"""Spurious components: how often a true tight cluster is called a spike, and a spike a component.

    ./dev python -m experiments.trust.spikes

*Tight clusters*: a cluster of 100 to 400 rows with deviations of one, and a second one that is 10
to 1,000 times as tight, has D + 2 to 200 rows, and lies six deviations away; D from 1 to 20.
Wanted: at most 1 % of the fits are DEGENERATE where the tight cluster has 3 (D + 1) rows or more.

*Chance*: 50 to 500 rows of one to three clusters, fitted with one to four components too many. A
component 20 times as thin as the mean over components is a spike. Wanted: 95 % of the spikes whose
fit loses more than 0.05 nats a sample on new samples are DEGENERATE.

The program prints both shares and the values of ``log_expected`` of ``jgmm.em.degeneracy`` on both
sides of its threshold, and writes them to `runs/trust/spikes.json`. ``--cases 100`` takes about
fifteen minutes on one core.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jgmm
from experiments.benchmark.chart import show
from jgmm._core.status import Status
from jgmm.em.degeneracy import log_expected, thinness

OUTPUT = pathlib.Path("runs/trust/spikes.json")
COLUMNS, RATIOS, MOST_ROWS, DISTANCE = (1, 2, 3, 5, 10, 20), (10, 1000), 200, 6
LOSS, SPIKE = 0.05, 20


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def expected_of(result: jgmm.FitResult, n_samples: int) -> np.ndarray:
    """Return ``log_expected`` of every component of a fit."""
    counts = n_samples * result.mixture.weights
    return np.asarray(log_expected(result.mixture, counts))


def tight_cluster(rng: np.random.Generator) -> dict[str, Any]:
    """Fit a cluster and a tight one from the true labels, and tell how it ended."""
    d = int(rng.choice(COLUMNS))
    n, ratio = int(log_uniform(rng, d + 2, MOST_ROWS)), log_uniform(rng, *RATIOS)
    n_wide = int(rng.integers(max(100, 3 * (d + 1)), 400))
    direction = rng.normal(size=d)
    center = DISTANCE * direction / np.linalg.norm(direction)
    tight = center + rng.normal(size=(n, d)) / ratio
    x = np.concatenate([rng.normal(size=(n_wide, d)), tight]).astype(np.float32)
    result = jgmm.fit(jax.random.key(0), x, 2, init=np.repeat([0, 1], [n_wide, n]))
    return {
        "enough rows": n >= 3 * (d + 1),
        "flagged": int(result.status) == Status.DEGENERATE,
        "log expected": float(expected_of(result, len(x))[1]),
    }


def too_many_components(rng: np.random.Generator, key: int) -> dict[str, Any] | None:
    """Fit too many components from one start; tell what its thinnest component costs, if thin."""
    d, n_true = int(rng.choice((1, 2, 5))), int(rng.integers(1, 4))
    n, k = int(log_uniform(rng, 50, 500)), n_true + int(rng.integers(1, 5))
    covariance = str(rng.choice(("full", "diag", "spherical")))
    means = 4 * rng.normal(size=(n_true, d))

    def draw(size: int) -> np.ndarray:
        x = means[rng.integers(n_true, size=size)] + rng.normal(size=(size, d))
        return np.asarray(x, np.float32)

    x, new = draw(n), draw(5000)
    truth = jgmm.make_mixture(np.full(n_true, 1 / n_true), means, [np.eye(d)] * n_true)
    try:
        result = jgmm.fit(jax.random.key(key), x, k, covariance=covariance, init="points")
    except jgmm.FitError:  # collapsed, which is no fit at all
        return None
    thin = np.asarray(thinness(result.mixture))
    if thin.max() < SPIKE:
        return None
    gained = [float(jnp.mean(jgmm.log_prob(each, new))) for each in (truth, result.mixture)]
    return {
        "costs": gained[0] - gained[1] > LOSS,
        "flagged": int(result.status) == Status.DEGENERATE,
        "log expected": float(expected_of(result, n)[thin.argmax()]),
    }


def summary(rows: list[dict[str, Any]], name: str, wanted: str) -> dict[str, Any]:
    """Return the share that is flagged and the range of ``log_expected``, as a row."""
    values = [row["log expected"] for row in rows]
    return {
        "cases": name,
        "number": len(rows),
        "flagged": sum(row["flagged"] for row in rows),
        "wanted": wanted,
        "log expected, lowest": min(values, default=np.nan),
        "highest": max(values, default=np.nan),
    }


def main() -> None:
    """Print the table of both kinds."""
    parser = argparse.ArgumentParser(prog="python -m experiments.trust.spikes")
    parser.add_argument("--cases", type=int, default=500, help="of each kind")
    n_cases = parser.parse_args().cases
    rng = np.random.default_rng(0)
    tight = [tight_cluster(rng) for _ in range(n_cases)]
    spikes: list[dict[str, Any]] = []
    key = 0
    while len(spikes) < n_cases:
        key += 1
        found = too_many_components(rng, key)
        spikes += [found] if found else []
    rows = [
        summary([row for row in tight if row["enough rows"]], "tight, 3 (D + 1) rows", "1 %"),
        summary([row for row in tight if not row["enough rows"]], "tight, fewer rows", "-"),
        summary([row for row in spikes if row["costs"]], "by chance, costs 0.05 nats", "95 %"),
        summary([row for row in spikes if not row["costs"]], "by chance, costs less", "-"),
    ]
    show(rows, OUTPUT)


if __name__ == "__main__":
    main()
