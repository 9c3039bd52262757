"""Functions that several studies share: checks of a config, intervals, order of components."""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy import stats  # type: ignore[import-untyped]

from jgmm._core.errors import UserError
from jgmm.mixture import gaussian
from jgmm.mixture.mixture import Mixture
from jgmm.workbench.config.models import Fit
from jgmm.workbench.readers.datasets import Dataset
from jgmm.workbench.studies.context import StudyContext


def one_problem(study: StudyContext) -> tuple[Dataset, int, str]:
    """Samples, number of components and covariance model of a study that takes one of each.

    Raises:
      UserError: no samples, or several numbers of components or models.
    """
    fit = study.config.fit
    if study.data is None:
        raise UserError('this study fits data: add a table [data] with source = "faithful"')
    if len(fit.n_components) != 1 or len(fit.covariance) != 1 or fit.covariance == ["all"]:
        raise UserError("[fit] must name one n_components and one covariance for this study")
    return study.data, fit.n_components[0], fit.covariance[0]


def check_own_data(study: StudyContext) -> None:
    """Check that a study which draws its own samples is not given data or a fit.

    Raises:
      UserError: the config has a table [data] or [fit].
    """
    if study.data is not None or study.config.fit != Fit():
        raise UserError(
            "this study draws its own samples and is set up in [settings]; leave out [data] and "
            "[fit]"
        )


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def mean_interval(values: Any) -> Interval:
    """Mean of independent values and its 95 % interval by Student's t.

    >>> mean_interval([1.0, 2.0, 3.0]).mean
    2.0
    """
    values = np.asarray(values, np.float64)
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def slope_interval(x: Any, y: Any) -> Interval:
    """Slope of the least-squares line through points and its 95 % interval by Student's t."""
    line = stats.linregress(np.asarray(x, np.float64), np.asarray(y, np.float64))
    half = float(stats.t.ppf(0.975, len(x) - 2)) * float(line.stderr)
    slope = float(line.slope)
    return Interval(slope, slope - half, slope + half)


def aligned(mixture: Mixture, reference: Mixture) -> Mixture:
    """Return the mixture with its components in the order that fits the reference best.

    The order of components is arbitrary. Of all K! orders, the result has the one with the smallest
    sum of Kullback–Leibler divergences from the reference's components to the mixture's.
    """

    def to_each(mean: Array, cholesky: Array) -> Array:
        return jax.vmap(partial(gaussian.kl_divergence, mean, cholesky))(
            mixture.means, mixture.cholesky
        )

    divergence = jax.vmap(to_each)(reference.means, reference.cholesky)
    orders = jnp.asarray(list(itertools.permutations(range(mixture.n_components))))
    places = jnp.arange(mixture.n_components)
    best = orders[divergence[places[None, :], orders].sum(axis=1).argmin()]
    return dataclasses.replace(
        mixture,
        log_weights=mixture.log_weights[best],
        means=mixture.means[best],
        scale=mixture.scale if mixture.model.shared else mixture.scale[best],
    )
