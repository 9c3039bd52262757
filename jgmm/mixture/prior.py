"""Conjugate normal–inverse-Wishart prior of the components, for maximum a posteriori (MAP) EM.

    Σₖ ~ IW(ν, Λ),    μₖ | Σₖ ~ N(m, Σₖ / κ),    the same for each component

The prior acts like pseudo-samples that are added to every component: κ of them at m, and ν + D + 2
whose scatter is Λ. So the M-step of every covariance model adds it to the counts and the scatter,
and EM then increases the log-likelihood plus ``log_density``. The variances of a component can no
longer shrink to zero.

The prior of a covariance that all components share counts once for each component. So a simpler
model remains a special case of a more general one under the prior; it would not if the prior of a
shared covariance counted once.

Reference: Fraley & Raftery (2007), "Bayesian regularization for normal mixture estimation and
model-based clustering"; the default values are theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError, shown
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.samples import Samples, Standardization, make_samples, scaling
from jgmm._data.standardization import (
    center_and_scale,
    power_of_two,
    rounding_of_correlation,
    whiten,
)
from jgmm._data.validation import as_numbers
from jgmm.covariance.models import CovarianceModel
from jgmm.mixture.mixture import Mixture, to_standard

# Default κ: the prior of a mean has the weight of this many samples at m.
STRENGTH = 0.01


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prior:
    """Normal–inverse-Wishart prior, in the units of the samples. All attributes are leaves.

    Attributes:
      mean: m, (D,).
      strength: κ, ().
      dof: ν, ().
      root: (D, D), with Λ = root rootᵀ.
    """

    mean: Leaf
    strength: Leaf
    dof: Leaf
    root: Leaf

    def standardize(self, frame: Standardization) -> Prior:
        """Return the same prior for components in standardized units."""
        centred = self.mean - frame.shift
        if frame.rotates:
            return Prior(
                frame.inverse @ centred, self.strength, self.dof, frame.inverse @ self.root
            )
        root = frame.inverse[:, None] * self.root
        return Prior(frame.inverse * centred, self.strength, self.dof, root)

    def pseudo_samples(self) -> Array:
        """Return ν + D + 2, the factor of −½ log|Σₖ| in the log density of the prior."""
        return self.dof + (self.root.shape[0] + 2)

    def scatter(self, entry: CovarianceModel) -> Array:
        """Return Λ in the storage of a covariance model, leading axis 1."""
        return entry.storage.from_dense((self.root @ self.root.T)[None])


def conjugate(
    x: Any,
    n_components: Any,
    *,
    sample_weight: Any = None,
    mean: Any = None,
    strength: Any = STRENGTH,
    dof: Any = None,
    scatter: Any = None,
) -> Prior:
    """Make a weakly informative conjugate prior for K components, in the units of the samples.

    Args:
      x: samples in rows, (N, D).
      n_components: K.
      sample_weight: how many times each sample counts, (N,).
      mean: m, (D,); the samples' mean by default.
      strength: κ ≥ 0, 0.01 by default; the smaller it is, the less the means are drawn to m.
      dof: ν ≥ 0, D + 2 by default, for which Λ / (D + 2) is the mean inverse precision.
      scatter: Λ, (D, D), positive definite; by default the samples' covariance / K^(2/D), as if K
        components of equal size filled the volume of the data. A covariance that is singular up to
        rounding, as always for N ≤ D, has no volume, and in some directions it would hold nothing
        but rounding errors. Λ is then diag(variances) / K^(2/D).

    Raises:
      DataError: see ``as_samples``; or a number is out of range, or has a shape that does not fit.

    >>> import jgmm
    >>> jgmm.mixture.conjugate([[0.0], [2.0]], n_components=2).root.round(3)
    Array([[0.5]], dtype=float32)
    """
    samples = make_samples(x, sample_weight)
    d, dtype = samples.n_features, samples.x.dtype
    given = {"strength": strength, "dof": default_dof(d) if dof is None else dof}
    for name, value in given.items():
        if not is_traced(value) and not (np.isfinite(value) and value >= 0):
            raise DataError(f"the prior's {name} must be finite and at least zero; it is {value}.")
    frame = _whitening(samples)
    root = _shared_volume(frame, jnp.asarray(n_components, dtype))
    return Prior(
        mean=frame.shift if mean is None else _checked(mean, "mean", (d,), dtype),
        root=root if scatter is None else _factor(scatter, d, dtype),
        **{name: jnp.asarray(value, dtype) for name, value in given.items()},
    )


def default_dof(n_features: int) -> int:
    """Default ν = D + 2, the smallest whole number for which Σₖ has a mean."""
    return n_features + 2


@jit
def _whitening(samples: Samples) -> Standardization:
    """Whitening of the samples, which holds their mean and a root of their covariance.

    Computed in this way both lose no digits to an offset or to correlations.
    """
    return whiten(center_and_scale(samples, per_column=True)).frame


@jit
def _shared_volume(frame: Standardization, n_components: Array) -> Float[Array, "D D"]:
    """Return a square root of the samples' covariance divided by K^(2/D).

    Where that covariance is singular up to rounding, its inverse would hold only rounding errors,
    and the fit would depend on the precision. The diagonal matrix of the variances takes its place.

    Args:
      frame: the whitening of the samples.
      n_components: K.
    """
    d, dtype = len(frame.shift), frame.shift.dtype
    deviations = frame.deviations()
    root = frame.scale / deviations[:, None]
    # Whitening has added the rounding error to all eigenvalues of the correlation matrix.
    smallest = jnp.linalg.eigvalsh(lax.stop_gradient(root @ root.T))[0]
    regular = smallest > 2 * rounding_of_correlation(d, dtype)
    chosen = jnp.where(regular, frame.scale, jnp.diag(deviations))
    return chosen * n_components ** (-1 / d)


def _checked(value: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    array = jnp.asarray(as_numbers(value, f"the prior's {name}"), dtype)
    if array.shape != shape:
        raise DataError(f"the prior's {name} must have shape {shape}; it has {array.shape}.")
    if not is_traced(array) and not bool(jnp.isfinite(array).all()):
        raise DataError(f"the prior's {name} holds NaN or infinite values.")
    return array


def _factor(scatter: Any, d: int, dtype: Any) -> Float[Array, "D D"]:
    matrix = _checked(scatter, "scatter", (d, d), dtype)
    root = jnp.linalg.cholesky(matrix)
    if not is_traced(root) and not bool(jnp.isfinite(root).all()):
        raise DataError("the prior's scatter is not positive definite.")
    return root


def as_prior(prior: Any, data: Samples | Standardization, n_components: int) -> Prior | None:
    """Convert the argument ``prior`` of a fit to a ``Prior``; None stays None.

    Args:
      prior: None, "conjugate" for the default prior of these samples, or a ``Prior``.
      data: the samples, or the whitening of all of them.
      n_components: K.

    Raises:
      DataError: the argument is something else, or a prior for another number of columns.
    """
    if prior is None:
        return None
    if isinstance(prior, str) and prior == "conjugate":
        frame = data if isinstance(data, Standardization) else _whitening(data)
        dtype, d = frame.shift.dtype, len(frame.shift)
        numbers = (STRENGTH, default_dof(d), n_components)
        strength, dof, k = (jnp.asarray(value, dtype) for value in numbers)
        return Prior(frame.shift, strength, dof, _shared_volume(frame, k))
    if not isinstance(prior, Prior):
        raise DataError(
            f'prior must be None, "conjugate" or a jgmm.mixture.Prior, not {shown(prior)}.'
        )
    like = data.shift if isinstance(data, Standardization) else data.x
    if prior.mean.shape != like.shape[-1:]:
        raise DataError(f"the prior is for {prior.mean.shape[0]} columns; x has {like.shape[-1]}.")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, like.dtype), prior)


def log_density(prior: Prior, mixture: Mixture) -> Float[Array, ""]:
    """Log density of a mixture's components under the prior, up to a constant, in nats.

        Σₖ −(ν + D + 2)/2 log|Σₖ| − 1/2 tr(Λ Σₖ⁻¹) − κ/2 (μₖ − m)ᵀ Σₖ⁻¹ (μₖ − m)

    Args:
      prior: the prior, in the units of the mixture.
      mixture: K components; those of weight zero do not count.

    The constant depends on the prior alone and is left out. For full covariances it is that of the
    inverse-Wishart distribution; every other covariance model has another constant.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[1.0]], [1.0], "spherical")
    >>> log_density(conjugate([[0.0], [2.0]], n_components=1), one).round(3)
    Array(-0.5, dtype=float32)
    """
    entry, d = mixture.model, mixture.n_features
    storage, used = entry.storage, mixture.log_weights > -jnp.inf
    # In units near those of the prior, squares neither vanish nor overflow.
    unit = power_of_two(jnp.abs(prior.root).max(axis=1))
    unit = unit if entry.per_column else jnp.full_like(unit, unit.max())
    units = scaling(jnp.zeros_like(unit), unit)
    prior, mixture = prior.standardize(units), to_standard(mixture, units)
    offsets = storage.outer(mixture.means - prior.mean[None, :])
    squares = storage.trace_ratio(mixture.scale, prior.scatter(entry) + prior.strength * offsets, d)
    log_det = storage.half_log_det(mixture.scale, d) + units.log_volume()
    return -jnp.where(used, prior.pseudo_samples() * log_det + 0.5 * squares, 0).sum()


def log_density_in(prior: Prior | None, frame: Standardization, mixture: Mixture) -> Array:
    """Log density under a prior of a mixture in standardized units; zero without a prior.

    Args:
      prior: in the user's units, or None.
      frame: the standardization.
      mixture: in standardized units.
    """
    if prior is None:
        return jnp.zeros((), mixture.means.dtype)
    return log_density(prior.standardize(frame), mixture)
