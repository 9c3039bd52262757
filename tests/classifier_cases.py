"""Data sets with labels, for the tests of the classifier."""

import jax
import numpy as np
import oracle

KEY = jax.random.key(0)
N, NAMES = 45, ("ant", "bee", "cat")
LABELS = np.arange(N) % 3
X = oracle.parameters(seed=2)[1][LABELS] + np.random.default_rng(8).normal(size=(N, 3))
TEXT = np.array(NAMES)[LABELS]
WEIGHTS = np.array([1.0, 2.0, 0.0, 1.0, 0.5] * (N // 5))

# Four clusters ten standard deviations apart: class "a" has the first and the last.
PLACES = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]], 10, axis=0)
CHECKER = PLACES + np.random.default_rng(3).normal(size=(40, 2))
CORNERS = np.repeat(["a", "b", "b", "a"], 10)
FITTING = {"covariance": "spherical", "n_restarts": 4, "tol": 1e-12}
FLAT = X.copy()
FLAT[LABELS == 1, 2] = 0.25
