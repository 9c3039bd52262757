"""Maximum likelihood by gradient methods, with any optimiser, for comparison with EM.

The objective is minus the mean log-likelihood per sample, in the data's frame, over numbers without
constraints: logits, means and Cholesky factors (``jgmm.mixture.unconstrained``), or the augmented
matrices of Hosseini & Sra (``jgmm.gradient.augmented``). The optimiser is a transformation of
optax, the natural gradient, Newton-CG, or one of your own (``jgmm.gradient.optimizer``). All stop
by the same rules.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._data.samples import Samples, make_samples
from jgmm._data.validation import check_key
from jgmm.covariance.models import model
from jgmm.em import exponential_family
from jgmm.em.e_step import accumulate
from jgmm.em.options import Options
from jgmm.fitting import restarts
from jgmm.fitting.in_memory import in_waves
from jgmm.fitting.restarts import Batch, ProgressCallback
from jgmm.fitting.results import FitResult, raise_if_failed, to_result
from jgmm.gradient.algorithm import GradientAlgorithm, GradientControl
from jgmm.gradient.augmented import AugmentedSpd
from jgmm.gradient.optimizer import as_optimizer
from jgmm.initialization.problem import check_problem
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.unconstrained import LOG, SOFTPLUS, Parametrization

PARAMETRIZATIONS: dict[str, Parametrization] = {
    "log": LOG,
    "softplus": SOFTPLUS,
    "augmented": AugmentedSpd(),
}


def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    optimizer: Any,
    covariance: str = "full",
    n_restarts: int = 1,
    init: Any = "kmeans",
    parametrization: str = "log",
    batch_size: int | None = None,
    sample_weight: Any = None,
    max_steps: int = 1000,
    max_passes: float | int | None = None,
    gradient_tol: float | None = None,
    tol: float | None = None,
    rtol: float = 0.0,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit a mixture of Gaussians by gradient steps, from the same starts as ``jgmm.fit``.

    Args:
      key: typed key; restart r uses ``fold_in(key, r)``, and starts where EM's restart r does.
      x: samples in rows, (N, D).
      n_components: K.
      optimizer: a transformation of optax, such as ``optax.adam(1e-2)`` or ``optax.lbfgs()``, whose
        line search is given the objective; ``NaturalGradient``; ``NewtonCG``; ``WarmStart``; or any
        object that has the methods ``init`` and ``step`` of ``jgmm.gradient.Optimizer``.
      covariance: name of the covariance model, one of those that have free coordinates.
      n_restarts: R, vmapped.
      init: as for ``jgmm.fit``.
      parametrization: "log" or "softplus", the positive function on the diagonals of the Cholesky
        factors, or "augmented".
      batch_size: samples in a mini-batch, drawn with replacement for each step; by default every
        step uses all samples.
      sample_weight: how many times each sample counts, (N,).
      max_steps: parameter updates at most, in each restart.
      max_passes: passes over the samples at most, in each restart, including those of line searches
        and of Hessian-vector products; a mini-batch is a fraction of a pass.
      gradient_tol: converged when the gradient of the mean log-likelihood is shorter than this in
        the metric of EM (``jgmm.gradient.fisher_metric``); by default 1e-6 in float64 and 1e-4 in
        float32. It means the same for all optimisers, parametrizations and data: a step of EM would
        gain half its square in nats per sample, and EM itself is ``NaturalGradient()``.
      tol, rtol: converged when a step that moves the point changes the mean log-likelihood per
        sample by at most tol + rtol * its size, as for EM. By default this rule is off, because a
        gradient method may take small steps far from an optimum.
      progress: as for ``jgmm.fit``.

    Returns:
      A ``FitResult``, as from EM. The log-likelihood is that of all samples under the parameters
      returned. With mini-batches the history holds each batch's estimate of it, and only the limits
      on steps and passes end a fit.

    Raises:
      DataError: bad samples, weights or arguments, or an object that is no optimiser, before any
        work starts.
      FitError: no restart ended valid.

    >>> import jax, jgmm, optax
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> result = jgmm.gradient.fit(
    ...     jax.random.key(0), x, 2, optimizer=optax.adam(0.05), covariance="tied", init="points"
    ... )
    >>> jgmm.Status(int(result.status)).name
    'CONVERGED'
    """
    samples = make_samples(x, sample_weight)
    options = Options(covariance, n_restarts, init, max_steps=max_steps)
    check_problem(samples, n_components, options)
    entry, by = model(covariance), _find_parametrization(parametrization)
    by.check(entry, n_components, samples.n_features)
    if batch_size is not None and batch_size < 1:
        raise DataError(f"batch_size must be at least 1; it is {batch_size}.")
    control = make_gradient_control(key, samples.x.dtype, gradient_tol, tol, rtol, max_passes)
    method = GradientAlgorithm(as_optimizer(optimizer), by, entry.name, batch_size, max_steps)
    every = np.ones(n_components, bool)

    def wave(mixtures: Mixture, inside: Samples) -> FitResult:
        starts = (mixtures, jnp.arange(len(mixtures.means)))
        d, n_rows = mixtures.n_features, inside.n_samples
        work = exponential_family.cost_per_step(mixtures.model, d, n_components, n_rows)
        batch = restarts.run_restarts(method, starts, inside, control, work, progress)
        return _finish(batch, inside, method)

    return raise_if_failed(in_waves(wave, check_key(key), samples, every, options))


def _find_parametrization(name: str) -> Parametrization:
    if name not in PARAMETRIZATIONS:
        known = ", ".join(PARAMETRIZATIONS)
        raise DataError(f"unknown parametrization {name!r}. Known: {known}.")
    return PARAMETRIZATIONS[name]


@partial(jit, static_argnums=2)
def _finish(batch: Batch, samples: Samples, method: GradientAlgorithm) -> FitResult:
    mixture = method.mixture(batch.best)
    log_likelihood = batch.best.log_likelihood
    if method.batch_size is not None:  # so far only estimated from a mini-batch
        log_likelihood = accumulate(mixture, samples).log_likelihood
    history, table = batch.best_history, batch.outcomes
    return to_result(mixture, log_likelihood, batch.best, history, table, samples)


def make_gradient_control(
    key: Key[Array, ""],
    dtype: Any,
    gradient_tol: float | None = None,
    tol: float | None = None,
    rtol: float = 0.0,
    max_passes: float | int | None = None,
) -> GradientControl:
    """Fill in the defaults of the stopping rules, which depend on the dtype.

    Without ``tol`` and ``rtol`` the rule on the change of the log-likelihood is off; without
    ``max_passes`` the number of passes is unlimited.

    Raises:
      DataError: a number below zero.
    """
    default = 1e-6 if float(jnp.finfo(dtype).eps) < 1e-10 else 1e-4
    given = {
        "gradient_tol": default if gradient_tol is None else gradient_tol,
        "tol": 0.0 if tol is None else tol,
        "rtol": rtol,
        "max_passes": jnp.inf if max_passes is None else max_passes,
    }
    for name, value in given.items():
        if not value >= 0:
            raise DataError(f"{name} must be at least zero; it is {value}.")
    if tol is None and not rtol:
        given["tol"] = -jnp.inf
    return GradientControl(
        **{name: jnp.asarray(value, dtype) for name, value in given.items()}, key=key
    )
