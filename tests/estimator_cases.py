"""Samples, starts and tolerances for the tests of the estimators."""

import numpy as np
import oracle

import jgmm
from jgmm.mixture import conversion

N, K, D, STEPS = 60, 3, 2, 8
UNITS = np.asarray([100.0, 0.1])


def data(dtype, shift=0.0):
    x = oracle.draw(1, N, *oracle.parameters(5, k=K, d=D))
    return ((x + shift) * UNITS).astype(dtype)


def start(x, name):
    """Weights, means and precisions in the form of the model, from thirds of the first column."""
    labels = np.digitize(x[:, 0], np.quantile(x[:, 0], [1 / 3, 2 / 3]))
    found = conversion.to_attributes(jgmm.m_step(x, np.eye(K)[labels], name, ridge=0.1))
    return {f"{part}_init": found[part] for part in ("weights", "means", "precisions")}


# Sums of N terms, through matrices with condition numbers up to a thousand, and as many steps.
CLOSE = {
    np.dtype(np.float32): {"rtol": 2e-3, "atol": 2e-4},
    np.dtype(np.float64): {"rtol": 1e-8, "atol": 1e-10},
}

# Starts at samples take the least to compile.
AT_SAMPLES = {"init_params": "random_from_data"}
FEW = {"n_init": 3, **AT_SAMPLES}
