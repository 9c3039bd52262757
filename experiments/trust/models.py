"""Error of every covariance model against fifty digits, on ordinary data, in roundings.

    ./dev python -m experiments.trust.models

prints a table and writes it to `runs/trust/models.json`. Expected time: one minute on two cores.
Expected numbers: in both precisions log densities, responsibilities, statistics and criteria have
errors below 20 roundings, M-steps in closed form below 10, and those that iterate lose less than
1e-5 nats a sample in float32 and 1e-11 in float64.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import jgmm
from experiments.benchmark.chart import show
from experiments.trust import exact
from jgmm._core.compilation import jit
from jgmm._data.samples import make_samples
from jgmm.covariance.models import MODELS
from jgmm.mixture.mixture import Mixture
from jgmm.selection.criteria import criteria, evidence

N, K, D = 40, 3, 3
OUTPUT = pathlib.Path("runs/trust/models.json")


@partial(jit, static_argnums=3)
def everything(mixture: Mixture, x: Array, given: tuple[Array, Array], name: str) -> dict[str, Any]:
    """Compute everything that is measured of one model, as one program."""
    resp, sample_weight = given
    samples = make_samples(x, sample_weight)
    ell, entropy = evidence(mixture, samples)
    p = jgmm.mixture.n_parameters(mixture)
    return {
        "expectation": jgmm.e_step(mixture, x),
        "difference": jgmm.accumulate(mixture, samples, form="difference"),
        "product": jgmm.accumulate(mixture, samples, form="product"),
        "criteria": criteria(ell, entropy, samples.total_weight(), p),
        "m_step": jgmm.m_step(x, resp, name, sample_weight),
    }


def errors(code: str, dtype: Any, seed: int = 0) -> dict[str, float]:
    """Largest errors of a model, in roundings of the largest entry; the last in nats a sample."""
    with jax.enable_x64(True):
        return _errors(code, np.dtype(dtype), seed)


def _errors(code: str, dtype: np.dtype[Any], seed: int) -> dict[str, float]:
    rng, name = np.random.default_rng(seed), MODELS[code].name
    mixture = random_mixture(rng, code, dtype)
    x = (3 * rng.normal(size=(N, D)) + rng.normal(size=D)).astype(dtype)
    resp = rng.dirichlet(np.ones(K), size=N).astype(dtype)
    sample_weight = np.resize([1.0, 2.0, 0.5, 3.0, 0.0], N).astype(dtype)
    found = jax.device_get(everything(mixture, x, (resp, sample_weight), name))

    parameters = exact_parameters(mixture)
    rows, counts = exact.exact(x), exact.exact(sample_weight)
    log_prob, posterior = exact.e_step(rows, *parameters)
    counted = counts[:, None] * posterior
    worst = {
        "log density": roundings(found["expectation"].log_prob, log_prob),
        "responsibility": roundings(np.exp(found["expectation"].log_resp), posterior),
        "statistics": 0.0,
        "criteria": 0.0,
    }
    for form in ("difference", "product"):
        sums = found[form]
        moments = exact.statistics(rows, counted, exact.exact(sums.center))
        expected = (*moments, counts @ log_prob)
        for got, want in zip(
            (sums.counts, sums.first, sums.second, sums.log_likelihood), expected, strict=True
        ):
            stored = _stored(code, np.asarray(want)) if got is sums.second else np.asarray(want)
            worst["statistics"] = max(worst["statistics"], roundings(got, stored))
    p = MODELS[code].n_parameters(K, D)
    for criterion, want in exact.criteria(log_prob, posterior, counts, p).items():
        error = roundings(found["criteria"][criterion], np.asarray(want))
        worst["criteria"] = max(worst["criteria"], error)
    return worst | _m_step_errors(code, found["m_step"], rows, counts, exact.exact(resp))


def _m_step_errors(
    code: str, fitted: Mixture, rows: np.ndarray, counts: np.ndarray, resp: np.ndarray
) -> dict[str, float]:
    weights, means, covariances = exact_parameters(fitted)
    counted = counts[:, None] * resp
    best = exact.m_step(rows, counted, code, covariances)
    _, _, scatter = exact.statistics(rows, counted, best[1])
    n = counted.sum(axis=0)
    dtype = fitted.means.dtype
    return {
        "weights": roundings(weights, best[0], dtype),
        "means": roundings(means, best[1], dtype),
        "covariances": roundings(covariances, best[2], dtype),
        "nats lost": float(score(n, scatter, best[2]) - score(n, scatter, covariances)),
    }


def random_mixture(rng: np.random.Generator, code: str, dtype: Any) -> Mixture:
    """Draw a mixture whose components overlap, with covariances of the model's form."""
    roots = np.eye(D) + 0.4 * rng.normal(size=(K, D, D))
    scatter = exact.exact(roots @ roots.transpose(0, 2, 1) + 0.2 * np.eye(D))
    sigma = exact.covariances_of(exact.exact(np.ones(K)), scatter, code).astype(np.float64)
    weights, means = 0.1 + 0.7 * rng.dirichlet(np.ones(K)), 2 * rng.normal(size=(K, D))
    # In float64 until it is checked: rounding to float32 destroys the form of a covariance.
    made = jgmm.make_mixture(weights, means, (sigma + sigma.mT) / 2, MODELS[code].name)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), made)


def exact_parameters(
    mixture: Mixture, number: Callable[[Any], np.ndarray] = exact.exact
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact weights (K,), means (K, D) and covariances (K, D, D) of a mixture."""
    factors = number(mixture.cholesky)
    covariances = np.array([factor @ factor.T for factor in factors])
    return exact.exp(number(mixture.log_weights)), number(mixture.means), covariances


def score(counts: np.ndarray, scatter: np.ndarray, covariances: np.ndarray) -> Any:
    """Objective of the M-step per sample, by covariances: -Σₖ (Nₖ log|Σₖ| + tr Σₖ⁻¹ Sₖ) / 2N."""
    total = 0
    for n, s, c in zip(counts, scatter, covariances, strict=True):
        pivots, _ = exact.eliminate(c, c[:, :0])
        total += n * exact.log(pivots).sum() + (exact.inverse_of(c) * s).sum()
    return -total / (2 * counts.sum())


def roundings(found: Any, expected: np.ndarray, dtype: Any = None) -> float:
    """Largest error, over the largest entry, in units of the precision's rounding."""
    found, expected = np.atleast_1d(found), np.atleast_1d(expected)
    eps = float(np.finfo(found.dtype if dtype is None else dtype).eps)
    values = found if found.dtype == object else exact.exact(found)
    error = abs(values - expected).max()
    return float(error / max(abs(expected).max(), exact.FIFTY.mpf("1e-30")) / eps)


def _stored(code: str, second: np.ndarray) -> np.ndarray:
    """Second moments (K, D, D) in the storage form of the model."""
    entry = MODELS[code]
    pooled = second.sum(axis=0, keepdims=True) if entry.shared else second
    variances = np.diagonal(pooled, axis1=1, axis2=2)
    return {1: variances.sum(axis=1) / D, 2: variances, 3: pooled}[entry.storage.ndim]


def main() -> None:
    """Measure all models in both precisions."""
    rows = [
        {"model": code, "precision": dtype, **errors(code, dtype)}
        for dtype in ("float32", "float64")
        for code in MODELS
    ]
    show(rows, OUTPUT)


if __name__ == "__main__":
    main()
