"""Coverage of 95 % intervals where components overlap, and the observed fraction of information.

    ./dev python -m experiments.trust.coverage

draws 300 data sets of two components in one column, of weights 0.4 and 0.6 and deviations of one,
fits each from the truth, and counts how often the intervals of ``jgmm.uncertainty.standard_errors``
hold the true weight, means and deviations. It prints a table and writes it to
`runs/trust/coverage.json`. Expected time: a minute. Expected numbers:
coverage between 0.72 and 0.80 at a distance of two deviations and 200 samples, where the observed
fraction is 0.05 to 0.16, and between 0.93 and 0.97 at five. A coverage is known to 0.013.
"""

from __future__ import annotations

import pathlib
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

import jgmm
from experiments.benchmark.chart import show
from jgmm._core.compilation import jit
from jgmm.mixture.mixture import Mixture
from jgmm.uncertainty import Parameters, parameters_of, standard_errors
from jgmm.uncertainty.intervals import Uncertainty

DISTANCES, SIZES, N_REPLICATES = (2.0, 3.0, 5.0), (200, 1000), 300
OUTPUT = pathlib.Path("runs/trust/coverage.json")


@partial(jit, static_argnums=(2, 3))
def replicates(key: Array, truth: Mixture, n_samples: int, n_replicates: int) -> Any:
    """Draw data sets and fit them from the truth; return samples, mixtures and statuses."""

    def one(key: Array) -> tuple[Array, Mixture, Array]:
        x, _ = jgmm.sample(key, truth, n_samples)
        result = jgmm.fitting.run_em(truth, x, tol=1e-12, max_steps=5000, accelerate="anderson")
        return x, result.mixture, result.status

    return jax.vmap(one)(jax.random.split(key, n_replicates))


def measure(distance: float, n_samples: int, n_replicates: int = N_REPLICATES) -> dict[str, Any]:
    """Coverage and median observed fraction of weights, means and deviations, as a row."""
    with jax.enable_x64(True):
        truth = jgmm.make_mixture([0.4, 0.6], [[0.0], [distance]], [1.0, 1.0], "spherical")
        batch = jax.device_get(replicates(jax.random.key(0), truth, n_samples, n_replicates))
        found = [
            interval
            for each in range(n_replicates)
            if (interval := _intervals(*jax.tree.map(lambda leaf, i=each: leaf[i], batch)))
        ]
        right = jax.device_get(parameters_of(truth))
    holds = [_holds(each, right) for each in found]
    row: dict[str, Any] = {"distance": distance, "N": n_samples}
    for i, name in enumerate(("weights", "means", "deviations")):
        row[f"observed, {name}"] = float(np.median([each.observed_fraction[i] for each in found]))
    for i, name in enumerate(("weights", "means", "deviations")):
        row[f"coverage, {name}"] = float(np.mean([each[i] for each in holds]))
    return row | {"no interval": n_replicates - len(found)}


def _intervals(x: Array, mixture: Mixture, status: Array) -> Uncertainty | None:
    """Intervals of 95 %, or None where the fit is a spike or the likelihood has no maximum."""
    if status != jgmm.Status.CONVERGED:
        return None
    try:
        return standard_errors(mixture, x)
    except jgmm.FitError:
        return None


def _holds(found: Uncertainty, right: Parameters) -> list[np.ndarray]:
    """Whether each interval holds the true value; a deviation's, as its variance's does."""
    parts = zip(found.low, right, found.high, strict=True)
    return [(low <= value) & (value <= high) for low, value, high in parts]


def main() -> None:
    """Print the table of all distances and sizes."""
    rows = [measure(distance, n) for distance in DISTANCES for n in SIZES]
    show(rows, OUTPUT)


if __name__ == "__main__":
    main()
