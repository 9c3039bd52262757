"""Fits on eight simulated devices, for test_sharding.py: parameters as JSON, one line a case."""

import json

import jax
import numpy as np

import jgmm
from jgmm import sharding

CASES = {
    "uneven": ({"n_restarts": 3}, 1003, (4, 2)),
    "empty shards and a race": ({"n_restarts": 9, "race": 3, "ridge": 1e-1}, 9, (8, 1)),
}
OPTIONS = {"covariance": "diag", "max_steps": 6, "tol": 0.0, "rtol": 0.0}


def data(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples of two clusters, and weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)) + 2.5 * rng.integers(0, 2, (n, 1))
    return x.astype(np.float32), rng.integers(1, 3, n).astype(np.float32)


def outcome(name: str, mesh: object = None) -> list[list[float]]:
    """What became of every restart, and the parameters of the best."""
    options, n, _ = CASES[name]
    x, weights = data(n)
    options = {**OPTIONS, **options, "sample_weight": weights, "mesh": mesh}
    found = jgmm.fit(jax.random.key(0), x, 2, **options)
    leaves = (found.restarts.log_likelihood, found.log_likelihood, *jax.tree.leaves(found.mixture))
    return [np.asarray(leaf, float).ravel().tolist() for leaf in leaves]


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    for case, (_, _, shape) in CASES.items():
        print(json.dumps(outcome(case, sharding.make_mesh(*shape))), flush=True)
