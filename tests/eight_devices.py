"""Fits on eight simulated devices, for distributed/test_fit.py: parameters as JSON."""

import json

import jax
import numpy as np

import jgmm
from jgmm.distributed.mesh import make_mesh

N, MESH = 9, (4, 2)  # shards of three rows, and one of none; three restarts for two groups
OPTIONS = {"covariance": "diag", "n_restarts": 3, "max_steps": 6, "ridge": 0.1}


def data(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples of two clusters, and weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)) + 2.5 * rng.integers(0, 2, (n, 1))
    return x.astype(np.float32), rng.integers(1, 3, n).astype(np.float32)


def outcome(mesh: object = None) -> list[list[float]]:
    """What became of every restart, and the parameters of the best."""
    x, weights = data(N)
    options = {**OPTIONS, "tol": 0.0, "rtol": 0.0, "sample_weight": weights, "mesh": mesh}
    found = jgmm.fit(jax.random.key(0), x, 2, **options)
    leaves = (found.restarts.log_likelihood, found.log_likelihood, *jax.tree.leaves(found.mixture))
    return [np.asarray(leaf, float).ravel().tolist() for leaf in leaves]


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    print(json.dumps(outcome(make_mesh(*MESH))), flush=True)
