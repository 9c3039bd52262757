"""Maximum likelihood by gradient methods, with any optimiser, for comparison with EM.

The objective is minus the mean log-likelihood per sample, in the data's frame, over numbers without
constraints: logits, means and Cholesky factors (``jgmm.mixture.unconstrained``), or the augmented
matrices of Hosseini & Sra (``jgmm.gradient.augmented``). The optimiser is a transformation of
optax, the natural gradient, Newton-CG, or one of your own (``jgmm.gradient.optimizer``). All stop
by the same rules.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm._core.arguments import check_whole, key_first
from jgmm._core.compilation import jit, without_debug_nans
from jgmm._core.errors import DataError
from jgmm._data.distinct_rows import with_distinct_rows
from jgmm._data.samples import Samples, make_samples
from jgmm.em import exponential_family
from jgmm.em.e_step import accumulate
from jgmm.em.options import AcceptedOptions, OptionKeywords, Options
from jgmm.fitting import restarts
from jgmm.fitting.restarts import Batch, ProgressCallback
from jgmm.fitting.results import (
    FitResult,
    best_of,
    evaluate_returned,
    raise_if_failed,
    to_result,
)
from jgmm.gradient.algorithm import GradientAlgorithm, GradientControl
from jgmm.gradient.augmented import AugmentedSpd
from jgmm.gradient.optimizer import as_optimizer
from jgmm.initialization.draw import batches_of_starts
from jgmm.initialization.problem import check_problem
from jgmm.mixture.unconstrained import LOG, SOFTPLUS, Parametrization

PARAMETRIZATIONS: dict[str, Parametrization] = {
    "log": LOG,
    "softplus": SOFTPLUS,
    "augmented": AugmentedSpd(),
}


BY_EM = "a gradient method climbs the plain likelihood over free parameters."
ACCEPTED = AcceptedOptions(
    defaults=Options(rtol=0.0),
    refused={
        "race": "gradient fits all run to their ends.",
        "ridge": BY_EM,
        "equal_weights": BY_EM,
        "prior": BY_EM,
        "floor": BY_EM,
        "accelerate": "it extrapolates steps of EM.",
    },
)


@key_first
@without_debug_nans
@ACCEPTED.signature
def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    optimizer: Any,
    parametrization: str = "log",
    batch_size: int | None = None,
    sample_weight: Any = None,
    max_passes: float | int | None = None,
    gradient_tol: float | None = None,
    progress: ProgressCallback | None = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> FitResult:
    """Fit a mixture of Gaussians by gradient steps, from the same starts as ``jgmm.fit``.

    Args:
      key: typed key; restart r uses ``fold_in(key, r)``, and starts where EM's restart r does.
      x: samples in rows, (N, D).
      n_components: K.
      optimizer: a transformation of optax, such as ``optax.adam(1e-2)`` or ``optax.lbfgs()``, whose
        line search is given the objective; ``NaturalGradient``; ``NewtonCG``; ``WarmStart``; or any
        object that has the methods ``init`` and ``step`` of ``jgmm.gradient.Optimizer``.
      parametrization: "log" or "softplus", the positive function on the diagonals of the Cholesky
        factors, or "augmented".
      batch_size: samples in a mini-batch, drawn with replacement for each step; by default every
        step uses all samples.
      sample_weight: how many times each sample counts, (N,).
      max_passes: passes over the samples at most, in each restart, including those of line searches
        and of Hessian-vector products; a mini-batch is a fraction of a pass.
      gradient_tol: converged when the gradient of the mean log-likelihood is shorter than this in
        the metric of EM (``jgmm.gradient.fisher_metric``); by default 1e-6 in float64 and 1e-4 in
        float32. It means the same for all optimisers, parametrizations and data: a step of EM would
        gain half its square in nats per sample, and EM itself is ``NaturalGradient()``.
      progress: as for ``jgmm.fit``.
      options, **keywords: see ``jgmm.Options``. The covariance model must have free coordinates
        (``jgmm.mixture.unconstrained``). ``max_steps`` bounds the parameter updates of a restart.
        ``tol`` and ``rtol`` as for EM, for a step that moves the point; by default this rule is
        off, because a gradient method may take small steps far from an optimum.

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
    options = ACCEPTED.read(options, keywords)
    samples = with_distinct_rows(make_samples(x, sample_weight))
    check_problem(samples, n_components, options)
    entry, by = options.entry, _find_parametrization(parametrization)
    by.check(entry, n_components, samples.n_features)
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    control = make_gradient_control(
        key, samples.x.dtype, gradient_tol, options.tol, options.rtol or 0.0, max_passes
    )
    optimizer, max_steps = as_optimizer(optimizer), options.max_steps
    algorithm = GradientAlgorithm(optimizer, by, entry.name, batch_size, max_steps)
    active, results = np.ones(n_components, bool), []
    for mixtures, inside, numbers, _ in batches_of_starts(key, samples, active, options):
        starts = (mixtures, numbers)
        n_rows, d = inside.n_samples, samples.n_features
        work = exponential_family.cost_per_step(entry, d, n_components, n_rows)
        batch = restarts.run_restarts(algorithm, starts, inside, control, work, progress)
        results.append(_finish(batch, inside, algorithm))
    return raise_if_failed(evaluate_returned(best_of(results), samples))


def _find_parametrization(name: str) -> Parametrization:
    """Return the parametrization of a name.

    Raises:
      DataError: an unknown name; the text lists the known ones.
    """
    if name not in PARAMETRIZATIONS:
        known = ", ".join(PARAMETRIZATIONS)
        raise DataError(f"unknown parametrization {name!r}. Known: {known}.")
    return PARAMETRIZATIONS[name]


@partial(jit, static_argnums=2)
def _finish(batch: Batch, samples: Samples, algorithm: GradientAlgorithm) -> FitResult:
    """Turn a finished batch of restarts into a result."""
    mixture = algorithm.mixture(batch.best)
    log_likelihood = batch.best.log_likelihood
    if algorithm.batch_size is not None:  # so far only estimated from a mini-batch
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
