"""The parameters of a Gaussian mixture, their validation and changes of coordinates.

``p(x) = Σₖ πₖ N(x | μₖ, Σₖ)``. A ``Mixture`` is a frozen pytree: ``jit``, ``vmap``, ``grad`` and a
leading axis of restarts work on it. ``make_mixture`` validates; the constructor does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError, shown
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.samples import Standardization
from jgmm._data.validation import as_numbers, as_samples, as_table, check_values
from jgmm.covariance.models import CovarianceModel, model
from jgmm.covariance.storage import Full


def to_standard(mixture: Mixture, frame: Standardization) -> Mixture:
    """Express a mixture, given in the user's units, in standardized ones."""
    # Subtract before dividing: the difference of two large numbers is exact, their quotients not.
    centred = replace(mixture, means=mixture.means - frame.shift[None, :])
    return change_coordinates(centred, jnp.zeros_like(frame.shift), frame.inverse)


def to_original(mixture: Mixture, frame: Standardization) -> Mixture:
    """Express a mixture, given in standardized units, in the user's."""
    return change_coordinates(mixture, frame.shift, frame.scale)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixture:
    """Parameters of a mixture of K Gaussians in D dimensions.

    With leading axes on every leaf it is a batch of mixtures, as ``vmap`` returns it. The
    properties keep those axes; a function that also takes samples, a key or coordinates takes one
    mixture, and is mapped over a batch by ``vmap``.

    Attributes:
      log_weights: log πₖ, (K,); -inf for a component that is switched off.
      means: μₖ, (K, D).
      scale: a square root of each covariance in its model's storage: lower Cholesky factors
        (K, D, D), standard deviations (K, D) or (K,); the first axis is 1 where all components
        share one covariance.
      covariance: name of the covariance model (static). A code or a synonym becomes the name that
        the package writes, so that equal models have equal pytrees.
    """

    log_weights: Leaf
    means: Leaf
    scale: Leaf
    covariance: str = field(metadata={"static": True})

    def __post_init__(self) -> None:
        """Write the covariance model by its name."""
        object.__setattr__(self, "covariance", model(self.covariance).name)

    @property
    def model(self) -> CovarianceModel:
        """The covariance model, an entry of the table."""
        return model(self.covariance)

    @property
    def n_components(self) -> int:
        """Number of components, K."""
        return int(self.means.shape[-2])

    @property
    def n_features(self) -> int:
        """Number of features, D."""
        return int(self.means.shape[-1])

    @property
    def weights(self) -> Array:
        """Mixing weights πₖ, (K,)."""
        return jnp.exp(self.log_weights)

    @property
    @jit
    def cholesky(self) -> Array:
        """Lower Cholesky factors as matrices, (K, D, D), whatever the storage."""
        return for_each(_cholesky, self)

    @property
    @jit
    def covariances(self) -> Array:
        """Covariances Σₖ as matrices, (K, D, D), whatever the storage."""
        return self.cholesky @ self.cholesky.mT

    @property
    @jit
    def variances(self) -> Array:
        """Diagonals of the covariances, (K, D), without making matrices."""
        return for_each(_variances, self)


def _cholesky(mixture: Mixture) -> Array:
    dense = mixture.model.storage.to_dense(mixture.scale, mixture.n_features)
    return jnp.broadcast_to(dense, (mixture.n_components, *dense.shape[1:]))


def _variances(mixture: Mixture) -> Array:
    variances = mixture.model.storage.variances(mixture.scale, mixture.n_features)
    return jnp.broadcast_to(variances, mixture.means.shape)


def for_each(function: Callable[[Mixture], Array], mixture: Mixture) -> Array:
    """Apply a function of one mixture to each of a batch; its leading axes stay.

    >>> one = make_mixture([1.0], [[2.0]], [1.0], "spherical")
    >>> batch = jax.tree.map(lambda leaf: leaf[None], one)
    >>> for_each(lambda mixture: mixture.means.sum(), batch).tolist()
    [2.0]
    """
    for _ in range(jnp.ndim(mixture.means) - 2):
        function = jax.vmap(function)
    return function(mixture)


@runtime_checkable
class HasMixture(Protocol):
    """A result that holds a mixture, such as a ``FitResult``; it is taken where a mixture is."""

    @property
    def mixture(self) -> Mixture:
        """The mixture."""


def as_mixture(given: Mixture | HasMixture) -> Mixture:
    """Return a mixture, or that of a result.

    Args:
      given: a ``Mixture``, a ``FitResult``, or any other result with a mixture.

    Raises:
      DataError: it is something else, for example the samples; or the result of a fit with noise,
        whose density is not that of its mixture alone.

    >>> one = make_mixture([1.0], [[2.0]], [1.0], "spherical")
    >>> as_mixture(one) is one
    True
    """
    if isinstance(given, Mixture):
        return given
    mixture = getattr(given, "mixture", None)
    if not isinstance(mixture, Mixture):
        raise DataError(
            f"the mixture is needed here, and it comes before the samples, as in log_prob(mixture, "
            f"x); in its place is {shown(given)}."
        )
    if getattr(given, "noise", None) is not None:
        raise DataError(
            "this fit has a noise component, which is no part of its mixture. With the noise: "
            "jgmm.mixture.noise.log_prob(result.mixture, result.noise, x), or predict or "
            "probability in that module. Without the noise: give result.mixture."
        )
    return mixture


def check_single(mixture: Mixture) -> None:
    """Check that a mixture is one, and not a batch of them.

    Raises:
      DataError: it has leading axes; the text says how to map over them.
    """
    leading = jnp.shape(mixture.means)[:-2]
    if leading:
        raise DataError(
            f"this is a batch of mixtures, with leading axes {leading}, and one is needed here. "
            "Map over the batch, jax.vmap(lambda mixture: ...)(mixtures), or take one of it, "
            "jax.tree.map(lambda leaf: leaf[0], mixtures)."
        )


def make_mixture(weights: Any, means: Any, covariances: Any, covariance: str = "full") -> Mixture:
    """Build a mixture from plain numbers and check them.

    Args:
      weights: πₖ, (K,), nonnegative, summing to one to within 1e-4 (they are then normalised).
      means: μₖ, (K, D).
      covariances: in the model's own form (full (K, D, D), tied (D, D), diag (K, D),
        spherical (K,)), or as matrices (K, D, D) that have that form.
      covariance: name of the covariance model.

    Raises:
      DataError: a shape does not fit, the weights are no distribution, a number is not finite, or
        a covariance is not symmetric and positive definite; the text says which.
      ValueError: the covariance model is unknown.

    >>> make_mixture([0.5, 0.5], [[0.0], [4.0]], [1.0, 1.0], "spherical").n_components
    2
    """
    entry = model(covariance)
    mu = as_samples(means, "means")
    k, d = mu.shape
    pi = np.asarray(as_numbers(weights, "weights"), mu.dtype)
    if pi.shape != (k,):
        raise DataError(f"weights must have shape ({k},), one a component; they have {pi.shape}.")
    if not (np.isfinite(pi).all() and (pi >= 0).all() and abs(pi.sum() - 1) < 1e-4):
        raise DataError(
            f"weights must be nonnegative and sum to one; they are {shown(pi.tolist())}."
        )
    sigma = _stored(np.asarray(as_numbers(covariances, "covariances"), mu.dtype), entry, k, d)
    log_weights, scale, bad = _roots(entry.name, pi, sigma)
    bad = np.asarray(bad)
    if bad.any():
        which = "the shared covariance" if entry.shared else f"covariance {int(np.argmax(bad))}"
        raise DataError(f"{which} is not positive definite.")
    if not entry.fills_storage(k, d):
        _check_form(scale, sigma, entry)
    return Mixture(log_weights, mu, scale, entry.name)


# What needs JAX here is compiled as one program each: eagerly, every operation would be compiled on
# its own, for every number of components and of features.
@partial(jit, static_argnums=0, quick=True)
def _roots(covariance: str, weights: Array, sigma: Array) -> tuple[Array, Array, Array]:
    """Return log weights, the square roots of covariances, and which are not positive definite."""
    storage = model(covariance).storage
    scale = storage.root(sigma)
    bad = ~jnp.isfinite(scale).reshape(len(scale), -1).all(axis=1)
    bad |= (storage.conditional_variances(scale) <= 0).any(axis=1)
    return jnp.log(weights / weights.sum()), scale, bad


def _check_form(scale: Any, sigma: Any, entry: CovarianceModel) -> None:
    """Check that covariances have the form of the model, which may be narrower than its storage.

    For scatter Sₖ = Σₖ and one sample in each component the likelihood is highest at the Σₖ. So the
    model's estimator returns the Σₖ if they have the form of the model.
    """
    # Common axes are found only up to the square root of a rounding error.
    rtol = max(1e-5, 4 * float(jnp.finfo(sigma.dtype).eps) ** 0.5)
    best, given = _estimated(entry.name, sigma, scale)
    if not _close(best, given, rtol):
        raise DataError(f"the covariances given do not have the form of {entry.name!r}.")


@partial(jit, static_argnums=0)
def _estimated(covariance: str, sigma: Array, scale: Array) -> tuple[Array, Array]:
    """Return the model's estimate of covariances, and the covariances given, as matrices."""
    entry, d = model(covariance), sigma.shape[-1]
    best = entry.estimate(jnp.ones(len(sigma), sigma.dtype), sigma, scale)
    dense = (entry.storage.to_dense(each, d) for each in (best, scale))
    first, second = (root @ root.mT for root in dense)
    return first, second


def _stored(sigma: np.ndarray, entry: CovarianceModel, k: int, d: int) -> Any:
    """Convert covariances, in the model's form or as matrices, to the model's storage."""
    if not np.isfinite(sigma).all():
        raise DataError("covariances hold NaN or infinite values.")
    storage, copies = entry.storage, 1 if entry.shared else k
    own = (d,) * (storage.ndim - 1)
    if sigma.shape in {(copies, *own), own if entry.shared else (copies, *own)}:
        stored = sigma.reshape(copies, *own)
    elif sigma.shape == (k, d, d):
        stored, rebuilt = _from_dense(entry.name, sigma)
        if not _close(rebuilt, sigma):
            raise DataError(f"the covariances given do not have the form of {entry.name!r}.")
    else:
        raise DataError(
            f"covariances for {entry.name!r} must have shape {(copies, *own)} or {(k, d, d)}; "
            f"they have {sigma.shape}."
        )
    if storage is Full and not _close(stored, stored.swapaxes(1, 2)):
        raise DataError("a covariance is not symmetric.")
    return stored


@partial(jit, static_argnums=0, quick=True)
def _from_dense(covariance: str, sigma: Array) -> tuple[Array, Array]:
    """Return covariance matrices in the model's storage, and as matrices again."""
    entry, d = model(covariance), sigma.shape[-1]
    stored = entry.storage.from_dense(sigma[:1] if entry.shared else sigma)
    full = entry.storage is Full
    return stored, stored if full else entry.storage.to_dense(jnp.sqrt(stored), d) ** 2


def _close(first: Any, second: Any, rtol: float = 1e-5) -> bool:
    """Return whether covariances (…, D, D) are equal up to rounding, relative to the deviations."""
    first, second = np.asarray(first), np.asarray(second)
    deviation = np.sqrt(np.abs(np.diagonal(second, axis1=-2, axis2=-1)))
    unit = deviation[..., :, None] * deviation[..., None, :]
    return bool((np.abs(first - second) <= rtol * unit).all())


def _samples_for(mixture: Mixture, x: Any) -> Array:
    """Check samples for a mixture and convert them to its precision."""
    samples = as_table(x, "x")
    fits = samples.shape[1] == mixture.n_features and not is_traced(mixture)
    check_values(samples, x, "x", None, farthest(mixture) if fits else None)
    check_columns(mixture, samples.shape[1])
    return samples.astype(mixture.means.dtype)


def farthest(mixture: Mixture) -> Float[np.ndarray, "D"]:
    """Return values so large, in each column, that squared distances to all components overflow.

    Where they do, nothing says which component is nearest. Values whose own squares do not overflow
    are not that large. Infinite if a parameter is not finite.

    Args:
      mixture: one mixture, or several with a leading axis.
    """
    means, scale = (np.abs(np.asarray(leaf, float)) for leaf in (mixture.means, mixture.scale))
    d, dtype, ndim = mixture.n_features, mixture.means.dtype, mixture.model.storage.ndim
    widths = scale.max(axis=-1) if ndim == 3 else scale if ndim == 2 else scale[..., None]
    with np.errstate(over="ignore", invalid="ignore"):
        # Nothing is refused whose own square does not overflow: its density under a mixture of
        # narrow components is zero.
        widest = np.maximum(widths.reshape(-1, widths.shape[-1]).max(axis=0), 1)
        reach = widest * np.sqrt(jnp.finfo(dtype).max) / d
        limit = (means.reshape(-1, d).max(axis=0) + reach).astype(dtype)
    return np.where(np.isfinite(limit), limit, np.inf).astype(dtype)


def check_columns(mixture: Mixture, n_columns: int) -> None:
    """Check that a mixture is one, and that samples have as many columns as it has features.

    Raises:
      DataError: they do not, the text says both numbers; or a batch of mixtures.
    """
    check_single(mixture)
    if n_columns != mixture.n_features:
        raise DataError(
            f"x has {n_columns} columns; the mixture was made for {mixture.n_features}."
        )


def n_parameters(mixture: Mixture | HasMixture) -> int:
    """Count the free parameters of a mixture: weights, means and covariances.

    >>> mixture = make_mixture([0.5, 0.5], [[0.0, 0.0], [4.0, 0.0]], [1.0, 1.0], "spherical")
    >>> n_parameters(mixture)
    7
    """
    mixture = as_mixture(mixture)
    return mixture.model.n_parameters(mixture.n_components, mixture.n_features)


def change_coordinates(mixture: Mixture, shift: Float[Array, "D"], factor: Array) -> Mixture:
    """Return the distribution of ``shift + factor x`` where x is distributed as the mixture.

    Args:
      mixture: K components in D dimensions.
      shift: added to every sample, (D,).
      factor: one number for each column, (D,), all equal unless the covariance model keeps its form
        when columns are scaled separately; or a lower triangular matrix, (D, D), if the model keeps
        its form under every linear map.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[2.0]], [1.0], "spherical")
    >>> moved = change_coordinates(one, jnp.asarray([1.0]), jnp.asarray([3.0]))
    >>> moved.means.item(), moved.variances.item()
    (7.0, 9.0)
    """
    moved = mixture.means @ factor.T if factor.ndim == 2 else mixture.means * factor[None, :]
    return Mixture(
        mixture.log_weights,
        shift[None, :] + moved,
        mixture.model.storage.rescale(mixture.scale, factor),
        mixture.covariance,
    )
