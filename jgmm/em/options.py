"""How EM is run: when it stops, and what it knows beside the samples.

``Options`` are what every way to fit takes alike, as people give them; ``Control`` is what of them
a compiled program reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.samples import Samples, Standardization
from jgmm.covariance.models import MODELS, CovarianceModel, model
from jgmm.mixture.prior import Prior, as_prior


@dataclass(frozen=True)
class Options:
    """What ``fit``, ``select``, streams and meshes take alike; see ``jgmm.fit`` for each."""

    covariance: str = "full"
    n_restarts: int = 1
    init: Any = "kmeans"
    race: int = 0
    tol: Any = None
    rtol: Any = None
    max_steps: int = 1000
    ridge: Any = 0.0
    equal_weights: bool = False
    prior: Any = None
    floor: Any = None
    accelerate: str | None = None

    @property
    def entry(self) -> CovarianceModel:
        """The covariance model.

        Raises:
          DataError: there is none of that name.
        """
        return model(self.covariance)

    def control(self, whole: Samples | Standardization, n_components: int) -> Control:
        """What a program reads of them.

        Args:
          whole: the samples, or the frame in which all of them have the unit covariance.
          n_components: K.

        Raises:
          DataError: a number out of range, or a prior or a floor that does not fit.
        """
        check_floor(self.floor, self.entry)
        dtype = whole.shift.dtype if isinstance(whole, Standardization) else whole.x.dtype
        believed = as_prior(self.prior, whole, n_components)
        return make_control(dtype, self.tol, self.rtol, self.ridge, believed, self.floor)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Control:
    """When to stop, and how much to regularise; leaves, so that changing them compiles nothing.

    A fit has converged when the mean log-likelihood per sample changes by at most
    ``tol + rtol * |mean log-likelihood|`` in a step. ``ridge`` is added to every variance, as a
    fraction of the data's: one number, or one a column, (D,), where the frame scales by column.
    No variance in any direction is below ``floor``, as a fraction of the data's, or None.
    ``prior`` is that of the components, in the units of the data, or None.
    """

    tol: Leaf
    rtol: Leaf
    ridge: Leaf
    prior: Prior | None = None
    floor: Leaf | None = None


def make_control(
    dtype: Any,
    tol: Any,
    rtol: Any,
    ridge: Any,
    prior: Prior | None = None,
    floor: Any = None,
) -> Control:
    """Fill in defaults by dtype: tol 1e-8 in float64 and 1e-6 in float32, rtol 4 roundings.

    Raises:
      DataError: a tolerance or a ridge below zero, or a floor that is not above.
    """
    eps = float(jnp.finfo(dtype).eps)
    default = 1e-8 if eps < 1e-10 else 1e-6
    values = {
        "tol": default if tol is None else tol,
        "rtol": 4 * eps if rtol is None else rtol,
        "ridge": ridge,
    }
    for name, value in values.items():
        if not is_traced(value) and not np.all(np.asarray(value) >= 0):
            raise DataError(f"{name} must be at least zero; it is {value}.")
    if floor is not None and not is_traced(floor) and not 0 < floor < 1:
        raise DataError(f"floor must be a fraction of the data's variance, not {floor!r}.")
    leaves = {name: jnp.asarray(value, dtype) for name, value in values.items()}
    least = None if floor is None else jnp.asarray(floor, dtype)
    return Control(**leaves, prior=prior, floor=least)


def check_floor(floor: Any, entry: CovarianceModel) -> None:
    """Refuse a floor where covariances above it are not those the model estimates.

    Raises:
      DataError: with the models that bear one.
    """
    if floor is not None and not entry.supports_floor:
        known = ", ".join(each.name for each in MODELS.values() if each.supports_floor)
        raise DataError(
            f"{entry.name} takes no floor: raised one by one, its covariances would lose what they "
            f"share. These take one: {known}. Or give a ridge or a prior."
        )
