"""The fit of the study "mixture" with a uniform noise component, as a selection of one mixture.

A selection over several mixtures compares each with its special cases, which noise does not allow
(``jgmm.selection.grid``). So the config names one number of components and one covariance model.
"""

from typing import TYPE_CHECKING

import numpy as np

from jgmm._core.errors import UserError
from jgmm.workbench.config.models import Fit

if TYPE_CHECKING:
    from jgmm.fitting.restarts import ProgressCallback
    from jgmm.fitting.results import FitResult
    from jgmm.selection.selection import Selection
    from jgmm.workbench.readers.datasets import Dataset
    from jgmm.workbench.studies.context import StudyContext


def check_noise(fit: Fit, models: list[str]) -> None:
    """Refuse a table `[fit]` whose other keys do not go with `fit.noise`.

    Args:
      fit: the table.
      models: its covariance models, with "all" written out.

    Raises:
      UserError: it asks for several fits, for acceleration or for a cross-validation.
    """
    if len(fit.n_components) > 1 or len(models) > 1:
        raise UserError(
            '"fit.noise" takes one number of components and one covariance model; [sweep] runs it '
            "for several"
        )
    if fit.accelerate != "none":
        raise UserError('"fit.noise" is fitted by plain EM: write accelerate = "none" in [fit]')
    if fit.criterion == "held_out":
        raise UserError('"fit.noise" has no held-out log-likelihood: choose another criterion')


def fit_with_noise(
    study: "StudyContext", data: "Dataset", models: list[str], progress: "ProgressCallback"
) -> "Selection":
    """Fit the one mixture of `[fit]` with noise, and return it as a selection of one.

    Args:
      study: the settings and the key.
      data: the samples.
      models: the one covariance model.
      progress: as for ``jgmm.fit``.

    Raises:
      UserError: see ``check_noise``.
      DataError, FitError: see ``jgmm.fit``.
    """
    import jgmm
    from jgmm.em.options import make_control
    from jgmm.selection.criteria import criteria
    from jgmm.selection.selection import Row, Selection, agreeing

    fit = study.config.fit
    check_noise(fit, models)
    n_components, covariance = fit.n_components[0], models[0]
    result = jgmm.fit(
        study.key,
        data.x,
        n_components,
        covariance=covariance,
        sample_weight=data.weights,
        labels=data.known,
        noise=fit.noise,
        progress=progress,
        **fit.options(),
    )
    d = data.x.shape[1]
    n_parameters = result.mixture.model.n_parameters(n_components, d, fit.equal_weights) + 1
    total = float(len(data.x) if data.weights is None else data.weights.sum())
    values = criteria(result.log_likelihood, _entropy(result, data), total, n_parameters)
    control = make_control(result.mixture.means.dtype, fit.tol, fit.rtol, fit.ridge)
    n_valid, n_agree = agreeing(result, fit.n_restarts, total, control).sum(axis=1)
    row = Row(
        n_components,
        covariance,
        n_parameters,
        float(result.log_likelihood),
        {name: float(value) for name, value in values.items()},
        jgmm.Status(int(result.status)).name,
        int(n_valid),
        int(n_agree),
    )
    results = {(n_components, covariance): result}
    return Selection([row], fit.criterion, row, result, results, agreement=0.0)


def probabilities(result: "FitResult", x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the probability of each component for each sample, and that of the noise.

    Args:
      result: the fit, with or without noise.
      x: the samples, (N, D).

    Returns:
      (N, K), and (N,) or None without noise. Together they sum to one.
    """
    import jgmm

    found = np.asarray(jgmm.responsibilities(result.mixture, x))
    if result.noise is None:
        return found, None
    noise = np.asarray(jgmm.mixture.noise.probability(result.mixture, result.noise, x))
    return found * (1 - noise)[:, None], noise


def _entropy(result: "FitResult", data: "Dataset") -> float:
    """Return the entropy of the memberships of samples whose component is not known, in nats."""
    from jax.scipy.special import entr

    found, noise = probabilities(result, data.x)
    assert noise is not None  # the caller has fitted it
    terms = np.asarray(entr(np.column_stack([found, noise]))).sum(axis=1)
    weights = np.ones(len(terms)) if data.weights is None else data.weights
    return float((terms * weights * (1 if data.known is None else data.known < 0)).sum())
