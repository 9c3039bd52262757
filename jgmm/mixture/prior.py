"""A conjugate prior of the components, with which EM finds the most probable parameters.

    Σₖ ~ IW(ν, Λ),    μₖ | Σₖ ~ N(m, Σₖ / κ),    each component alike

It acts as samples that every component has seen before: κ of them at m, and ν + D + 2 whose scatter
is Λ. So the M-step of every covariance model takes it in as counts and scatter, and what EM then
increases is the log-likelihood plus ``log_density``. No component can shrink to nothing any more.

A covariance that components share counts once for each of them. So a simpler model is a special
case of a freer one under the prior, too, which it is not where the prior of a shared covariance
counts once.

Reference: Fraley & Raftery (2007), "Bayesian regularization for normal mixture estimation and
model-based clustering", whose values the defaults are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.samples import Samples, Standardization, make_samples
from jgmm._data.standardization import center_and_scale, whiten
from jgmm.covariance.models import CovarianceModel
from jgmm.mixture.mixture import Mixture

# How many samples at m the prior of a mean is worth.
STRENGTH = 0.01


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Prior:
    """A normal–inverse-Wishart prior, in the units of the samples. All are leaves.

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
        """The same prior of components seen in a frame."""
        away = self.mean - frame.shift
        if frame.rotates:
            return Prior(frame.inverse @ away, self.strength, self.dof, frame.inverse @ self.root)
        root = frame.inverse[:, None] * self.root
        return Prior(frame.inverse * away, self.strength, self.dof, root)

    def pseudo_samples(self) -> Array:
        """ν + D + 2: how often −½ log|Σₖ| stands in the log density."""
        return self.dof + (self.root.shape[0] + 2)

    def scatter(self, entry: CovarianceModel) -> Array:
        """Λ in the storage of a covariance model, leading axis 1."""
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
    """The prior of K components that says little, and says it in the units of the samples.

    Args:
      x: samples in rows, (N, D).
      n_components: K.
      sample_weight: how many times each sample counts, (N,).
      mean: m, (D,); the samples' mean by default.
      strength: κ ≥ 0, 0.01 by default: the fewer, the less means are drawn to m.
      dof: ν ≥ 0, D + 2 by default, with which Λ / (D + 2) is the mean inverse precision.
      scatter: Λ, (D, D), positive definite; the samples' covariance / K^(2/D) by default: as though
        K components shared the volume.

    Raises:
      DataError: see ``as_samples``; or numbers that are out of range or do not fit.

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
        mean=frame.shift if mean is None else _shaped(mean, "mean", (d,), dtype),
        root=root if scatter is None else _factor(scatter, d, dtype),
        **{name: jnp.asarray(value, dtype) for name, value in given.items()},
    )


def default_dof(n_features: int) -> int:
    """ν = D + 2, the least whole number at which Σₖ has a mean."""
    return n_features + 2


@jit
def _whitening(samples: Samples) -> Standardization:
    """The frame of the samples' mean and covariance: so they are found without losing digits."""
    return whiten(center_and_scale(samples, per_column=True)).frame


@jit
def _shared_volume(frame: Standardization, n_components: Array) -> Float[Array, "D D"]:
    """A root of the samples' covariance / K^(2/D)."""
    return frame.scale * n_components ** (-1 / len(frame.shift))


def _shaped(value: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    array = jnp.asarray(value, dtype)
    if array.shape != shape:
        raise DataError(f"the prior's {name} must have shape {shape}; it has {array.shape}.")
    if not is_traced(array) and not bool(jnp.isfinite(array).all()):
        raise DataError(f"the prior's {name} holds NaN or infinite values.")
    return array


def _factor(scatter: Any, d: int, dtype: Any) -> Float[Array, "D D"]:
    matrix = _shaped(scatter, "scatter", (d, d), dtype)
    root = jnp.linalg.cholesky(matrix)
    if not is_traced(root) and not bool(jnp.isfinite(root).all()):
        raise DataError("the prior's scatter is not positive definite.")
    return root


def as_prior(prior: Any, whole: Samples | Standardization, n_components: int) -> Prior | None:
    """What the argument ``prior`` of a fit stands for.

    Args:
      prior: None, "conjugate" for the default of these samples, or a ``Prior``.
      whole: the samples, or the frame in which all of them have the unit covariance.
      n_components: K.

    Raises:
      DataError: something else, or a prior for another number of columns.
    """
    if prior is None:
        return None
    if isinstance(prior, str) and prior == "conjugate":
        frame = whole if isinstance(whole, Standardization) else _whitening(whole)
        dtype, d = frame.shift.dtype, len(frame.shift)
        numbers = (STRENGTH, default_dof(d), n_components)
        strength, dof, k = (jnp.asarray(value, dtype) for value in numbers)
        return Prior(frame.shift, strength, dof, _shared_volume(frame, k))
    if not isinstance(prior, Prior):
        raise DataError(f'prior must be None, "conjugate" or a jgmm.prior.Prior, not {prior!r}.')
    like = whole.shift if isinstance(whole, Standardization) else whole.x
    if prior.mean.shape != like.shape[-1:]:
        raise DataError(f"the prior is for {prior.mean.shape[0]} columns; x has {like.shape[-1]}.")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, like.dtype), prior)


def log_density(prior: Prior, mixture: Mixture) -> Float[Array, ""]:
    """Log density of a mixture's components under the prior, up to a constant, in nats.

        Σₖ −(ν + D + 2)/2 log|Σₖ| − 1/2 tr(Λ Σₖ⁻¹) − κ/2 (μₖ − m)ᵀ Σₖ⁻¹ (μₖ − m)

    Args:
      prior: in the units of the mixture.
      mixture: K components; those of weight zero do not count.

    The constant, which depends on the prior alone, is left out: it is that of the inverse-Wishart
    distribution of a full covariance, and another for every other model.
    """
    entry, d = mixture.model, mixture.n_features
    storage, used = entry.storage, mixture.log_weights > -jnp.inf
    away = storage.outer(mixture.means - prior.mean[None, :])
    squares = storage.trace_ratio(mixture.scale, prior.scatter(entry) + prior.strength * away, d)
    log_det = storage.half_log_det(mixture.scale, d)
    return -jnp.where(used, prior.pseudo_samples() * log_det + 0.5 * squares, 0).sum()


def log_density_in(prior: Prior | None, frame: Standardization, mixture: Mixture) -> Array:
    """Log density under a prior of a mixture seen in a frame, zero without a prior."""
    if prior is None:
        return jnp.zeros((), mixture.means.dtype)
    return log_density(prior.standardize(frame), mixture)
