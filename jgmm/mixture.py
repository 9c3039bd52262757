"""A mixture of Gaussians as data, and the questions one asks of it.

``p(x) = Σₖ πₖ N(x | μₖ, Σₖ)``. A ``Mixture`` is a frozen pytree: ``jit``, ``vmap``, ``grad`` and a
leading axis of restarts just work on it. ``make_mixture`` validates; the constructor does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jgmm import gaussian
from jgmm.covariance import CovarianceModel, model
from jgmm.forms import Full
from jgmm.inputs import as_samples, check_key
from jgmm.precision import jit
from jgmm.pytree import Leaf
from jgmm.status import DataError, is_traced

BLOCK_BYTES = 1 << 21  # one block's K×D differences stay in cache


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixture:
    """Parameters of a mixture of K Gaussians in D dimensions.

    Attributes:
      log_weights: log πₖ, (K,); -inf for a component that is switched off.
      means: μₖ, (K, D).
      scale: a square root of each covariance in its model's storage: lower Cholesky factors
        (K, D, D), standard deviations (K, D) or (K,); the first axis is 1 where all components
        share one covariance.
      covariance: name of the covariance model (static).
    """

    log_weights: Leaf
    means: Leaf
    scale: Leaf
    covariance: str = field(metadata={"static": True})

    @property
    def model(self) -> CovarianceModel:
        """The entry of the covariance table."""
        return model(self.covariance)

    @property
    def n_components(self) -> int:
        """K."""
        return int(self.means.shape[-2])

    @property
    def n_features(self) -> int:
        """D."""
        return int(self.means.shape[-1])

    @property
    def weights(self) -> Array:
        """πₖ, (K,)."""
        return jnp.exp(self.log_weights)

    @property
    @jit
    def cholesky(self) -> Array:
        """Lower Cholesky factors as matrices, (K, D, D), whatever the storage."""
        dense = self.model.storage.dense(self.scale, self.n_features)
        return jnp.broadcast_to(dense, (self.n_components, *dense.shape[1:]))

    @property
    @jit
    def covariances(self) -> Array:
        """Σₖ as matrices, (K, D, D), whatever the storage."""
        return self.cholesky @ self.cholesky.mT

    @property
    @jit
    def variances(self) -> Array:
        """The diagonals of the covariances, (K, D), without making matrices."""
        variances = self.model.storage.variances(self.scale, self.n_features)
        return jnp.broadcast_to(variances, (self.n_components, self.n_features))


class Expectation(NamedTuple):
    """What the E-step infers: log density (N,) and log responsibilities (N, K)."""

    log_prob: Array
    log_resp: Array


def make_mixture(weights: Any, means: Any, covariances: Any, covariance: str = "full") -> Mixture:
    """Build a mixture from plain numbers and check them.

    Args:
      weights: πₖ, (K,), nonnegative, summing to one to within 1e-4 (they are then normalised).
      means: μₖ, (K, D).
      covariances: in the model's own form (full (K, D, D), tied (D, D), diag (K, D),
        spherical (K,)), or as matrices (K, D, D) that have that form.
      covariance: name of the covariance model.

    Raises:
      DataError: a shape that does not fit, weights that are no distribution, numbers that are not
        finite, or a covariance that is not symmetric and positive definite; the text says which.
      ValueError: unknown covariance model.

    >>> make_mixture([0.5, 0.5], [[0.0], [4.0]], [1.0, 1.0], "spherical").n_components
    2
    """
    entry = model(covariance)
    mu = as_samples(means, "means")
    k, d = mu.shape
    pi = jnp.asarray(weights, mu.dtype)
    if pi.shape != (k,):
        raise DataError(f"weights must have shape ({k},), one a component; they have {pi.shape}.")
    if not bool(jnp.isfinite(pi).all() & (pi >= 0).all() & (jnp.abs(pi.sum() - 1) < 1e-4)):
        raise DataError(f"weights must be nonnegative and sum to one; they are {pi.tolist()}.")
    sigma = _stored(jnp.asarray(covariances, mu.dtype), entry, k, d)
    scale = entry.storage.factor(sigma)
    bad = ~jnp.isfinite(scale).reshape(len(scale), -1).all(axis=1)
    bad |= (entry.storage.conditional_variances(scale) <= 0).any(axis=1)
    if bool(bad.any()):
        which = "the shared covariance" if entry.shared else f"covariance {int(jnp.argmax(bad))}"
        raise DataError(f"{which} is not positive definite.")
    if not entry.fills_storage(k, d):
        _check_form(scale, sigma, entry, d)
    return Mixture(jnp.log(pi / pi.sum()), mu, scale, entry.name)


def _check_form(scale: Array, sigma: Array, entry: CovarianceModel, d: int) -> None:
    """Refuse covariances that the storage can hold and the model cannot.

    Of scatter Sₖ = Σₖ from one sample each, the best of all covariances are Σₖ themselves; so the
    model gives them back if they are its own.
    """
    storage = entry.storage
    best, given = (storage.dense(each, d) for each in (_own(entry.name, sigma, scale), scale))
    # Axes in common are found to the root of a rounding.
    rtol = max(1e-5, 4 * float(jnp.finfo(sigma.dtype).eps) ** 0.5)
    if not _equal(best @ best.mT, given @ given.mT, rtol):
        raise DataError(f"the covariances given do not have the form of {entry.name!r}.")


@partial(jit, static_argnums=0)  # an estimate that iterates would compile its loop at every call
def _own(covariance: str, sigma: Array, scale: Array) -> Array:
    return model(covariance).estimate(jnp.ones(len(sigma), sigma.dtype), sigma, scale)


def _stored(sigma: Array, entry: CovarianceModel, k: int, d: int) -> Array:
    """Covariances in the model's storage, from that form or from matrices."""
    if not bool(jnp.isfinite(sigma).all()):
        raise DataError("covariances hold NaN or infinite values.")
    storage, copies = entry.storage, 1 if entry.shared else k
    own = storage.identity(d, sigma.dtype).shape[1:]
    if sigma.shape in {(copies, *own), own if entry.shared else (copies, *own)}:
        stored = sigma.reshape(copies, *own)
    elif sigma.shape == (k, d, d):
        stored = storage.compress(sigma[:copies])
        rebuilt = storage.dense(jnp.sqrt(stored), d) ** 2 if storage is not Full else stored
        if not _equal(rebuilt, sigma):
            raise DataError(f"the covariances given do not have the form of {entry.name!r}.")
    else:
        raise DataError(
            f"covariances for {entry.name!r} must have shape {(copies, *own)} or {(k, d, d)}; "
            f"they have {sigma.shape}."
        )
    if storage is Full and not _equal(stored, stored.mT):
        raise DataError("a covariance is not symmetric.")
    return stored


def _equal(first: Array, second: Array, rtol: float = 1e-5) -> bool:
    """Whether covariances (…, D, D) are the same but for rounding, whatever their units."""
    deviation = jnp.sqrt(jnp.abs(jnp.diagonal(second, axis1=-2, axis2=-1)))
    unit = deviation[..., :, None] * deviation[..., None, :]
    return bool((jnp.abs(first - second) <= rtol * unit).all())


def log_joint(mixture: Mixture, inverse: Array, difference: Float[Array, "K D"]) -> Array:
    """``log πₖ + log N(x | μₖ, Σₖ)`` for one sample, (K,).

    Args:
      mixture: parameters.
      inverse: ``storage.invert(mixture.scale)``, computed once for many samples.
      difference: x - μₖ.
    """
    storage, d = mixture.model.storage, mixture.n_features
    log_det = storage.half_log_det(mixture.scale, d)
    distance = storage.distance(inverse, difference)
    constant = mixture.log_weights - 0.5 * d * gaussian.LOG_2PI - log_det
    return constant - 0.5 * distance


def _row_by_row(mixture: Mixture, x: Array, ask: Callable[[Array], Any]) -> Any:
    """Apply ``ask(log joint (K,))`` to every sample, a cache-sized block at a time."""
    inverse = mixture.model.storage.invert(mixture.scale)

    def one(row: Array) -> Any:
        return ask(log_joint(mixture, inverse, row[None, :] - mixture.means))

    bytes_a_row = mixture.n_components * mixture.n_features * x.dtype.itemsize
    block = max(1, min(len(x), BLOCK_BYTES // bytes_a_row))
    return jax.vmap(one)(x) if block == len(x) else lax.map(one, x, batch_size=block)


def _samples_for(mixture: Mixture, x: Any) -> Array:
    samples = as_samples(x)
    check_columns(mixture, samples.shape[1])
    return samples.astype(mixture.means.dtype)


def check_columns(mixture: Mixture, n_columns: int) -> None:
    """Refuse samples of another width than the mixture's.

    Raises:
      DataError: with both numbers.
    """
    if n_columns != mixture.n_features:
        raise DataError(
            f"x has {n_columns} columns; the mixture was made for {mixture.n_features}."
        )


def normalise(log_joint: Float[Array, "K"]) -> tuple[Float[Array, ""], Float[Array, "K"]]:
    """Log density and log responsibilities of one sample from its log joint density."""
    # The largest is subtracted first: next to the score of a far sample log Σ exp rounds away,
    # and the responsibilities would not sum to one.
    largest = lax.stop_gradient(log_joint.max())
    score = log_joint - jnp.where(jnp.isfinite(largest), largest, 0)
    log_sum = jnp.log(jnp.exp(score).sum())
    return largest + log_sum, score - log_sum


@jit
def _log_prob(mixture: Mixture, x: Array) -> Array:
    return _row_by_row(mixture, x, lambda log_joint: normalise(log_joint)[0])


@jit
def _e_step(mixture: Mixture, x: Array) -> Expectation:
    return Expectation(*_row_by_row(mixture, x, normalise))


@jit
def _predict(mixture: Mixture, x: Array) -> Array:
    return _row_by_row(mixture, x, jnp.argmax)


def log_prob(mixture: Mixture, x: Any) -> Float[Array, "N"]:
    """Log density of samples under the mixture, in nats.

        log p(x) = logsumexp over k of  log πₖ + log N(x | μₖ, Σₖ)

    Args:
      mixture: K components in D dimensions.
      x: samples in rows, (N, D).

    Returns:
      One number a sample: a large negative one far away, -inf only once the squared distance
      overflows. Memory stays bounded for any N.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> jgmm.log_prob(one, [[0.0]]).round(3)
    Array([-0.919], dtype=float32)
    """
    return _log_prob(mixture, _samples_for(mixture, x))


def e_step(mixture: Mixture, x: Any) -> Expectation:
    """Infer which component produced each sample, holding the parameters fixed.

    With the joint score s[n, k] = log_weights[k] + log N(x[n] | means[k], Σ[k]),

        log_prob[n]    = logsumexp over k of s[n, k]
        log_resp[n, k] = s[n, k] - log_prob[n]

    Args:
      mixture: current parameters, K components in D dimensions.
      x: samples in rows, in the units of the means.

    Returns:
      Log density of each sample, in nats, and log responsibilities whose rows sum to one after
      exp. The sum of the first over n is the log-likelihood of the parameters passed in, not of a
      later M-step.

    A component of weight zero gets responsibility exactly zero. Reference: Bishop (2006),
    section 9.2.
    """
    return _e_step(mixture, _samples_for(mixture, x))


def responsibilities(mixture: Mixture, x: Any) -> Float[Array, "N K"]:
    """Posterior probability of each component for each sample, ``p(z = k | x)``, rows sum to 1."""
    return jnp.exp(e_step(mixture, x).log_resp)


def predict(mixture: Mixture, x: Any) -> Int[Array, "N"]:
    """The most probable component of each sample, the first of equals."""
    return _predict(mixture, _samples_for(mixture, x))


def sample(
    key: Key[Array, ""], mixture: Mixture, n_samples: int
) -> tuple[Float[Array, "N D"], Int[Array, "N"]]:
    """Draw samples: pick component k with probability πₖ, then draw x ~ N(μₖ, Σₖ).

    Returns:
      Samples (n_samples, D), and the component that produced each, (n_samples,).

    >>> import jax, jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> jgmm.sample(jax.random.key(0), one, 5)[0].shape
    (5, 1)
    """
    return _sample(check_key(key), mixture, n_samples)


@partial(jit, static_argnums=2)
def _sample(key: Array, mixture: Mixture, n_samples: int) -> tuple[Array, Array]:
    pick, draw = jax.random.split(key)
    labels = jax.random.categorical(pick, mixture.log_weights, shape=(n_samples,))
    noise = jax.random.normal(draw, (n_samples, mixture.n_features), mixture.means.dtype)
    copies = jnp.zeros_like(labels) if mixture.model.shared else labels

    def place(drawn: tuple[Array, Array, Array]) -> Array:
        label, copy, eps = drawn
        return mixture.means[label] + mixture.model.storage.apply(
            mixture.scale[copy][None], eps[None]
        ).reshape(-1)

    # In blocks, so that a factor is never copied once for every sample.
    return lax.map(place, (labels, copies, noise), batch_size=4096), labels


def _dims(mixture: Mixture, dims: Sequence[int]) -> list[int]:
    chosen = [int(d) for d in dims]
    d = mixture.n_features
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= i < d for i in chosen):
        raise DataError(f"dims must be distinct coordinates from 0 to {d - 1}; they are {chosen}.")
    return chosen


def marginal(mixture: Mixture, dims: Sequence[int]) -> Mixture:
    """The mixture of the chosen coordinates, in the order given.

    ``p(x_a) = Σₖ πₖ N(x_a | μₖ_a, Σₖ_aa)``. The covariance model stays the same where it can;
    covariances with, say, common axes have none when a column is left out.

    Raises:
      DataError: a coordinate out of range or named twice.
    """
    index = jnp.asarray(_dims(mixture, dims))
    entry = mixture.model
    scale = mixture.scale
    if entry.storage is Full:
        sigma = scale @ scale.mT
        scale = entry.storage.factor(sigma[:, index[:, None], index[None, :]])
    elif scale.ndim == 2:
        scale = scale[:, index]
    name = entry.of_marginals.name
    return Mixture(mixture.log_weights, mixture.means[:, index], scale, name)


def condition(mixture: Mixture, dims: Sequence[int], values: Any) -> Mixture:
    """The mixture of the other coordinates, given the values of some.

    Each component is conditioned as a Gaussian, and reweighted by how well it explains what is
    known: ``πₖ' ∝ πₖ N(x_b | μₖ_b, Σₖ_bb)``.

    Args:
      mixture: K components in D dimensions.
      dims: the M known coordinates, M < D.
      values: what they are, (M,).

    Raises:
      DataError: a coordinate out of range or named twice, none left, or values that do not fit.
    """
    known = _dims(mixture, dims)
    at = jnp.asarray(values, mixture.means.dtype)
    if at.shape != (len(known),):
        raise DataError(f"values must have shape ({len(known)},), one a known coordinate.")
    if not is_traced(at) and not bool(jnp.isfinite(at).all()):
        raise DataError(f"values must be finite; they are {at.tolist()}.")
    if len(known) == mixture.n_features:
        raise DataError("every coordinate is known; none is left to describe.")
    log_weights = _e_step(marginal(mixture, known), at[None, :]).log_resp[0]
    rest = [d for d in range(mixture.n_features) if d not in known]
    entry = mixture.model
    if entry.storage is not Full:  # coordinates are independent within a component
        return Mixture(log_weights, *_of(marginal(mixture, rest)))
    means, sigma = jax.vmap(lambda m, s: gaussian.condition(m, s, known, at))(
        mixture.means, mixture.covariances
    )
    copies = 1 if entry.shared else mixture.n_components
    return Mixture(log_weights, means, Full.factor(sigma[:copies]), entry.of_marginals.name)


def _of(mixture: Mixture) -> tuple[Array, Array, str]:
    return mixture.means, mixture.scale, mixture.covariance


def mean(mixture: Mixture) -> Float[Array, "D"]:
    """Mean of the mixture, ``Σₖ πₖ μₖ``."""
    return mixture.weights @ mixture.means


def cov(mixture: Mixture) -> Float[Array, "D D"]:
    """Covariance of the mixture, ``Σₖ πₖ (Σₖ + (μₖ - μ)(μₖ - μ)ᵀ)``."""
    away = mixture.means - mean(mixture)[None, :]
    within = jnp.einsum("k,kde->de", mixture.weights, mixture.covariances)
    return within + (mixture.weights[:, None] * away).T @ away


def n_parameters(mixture: Mixture) -> int:
    """Number of free parameters: weights, means and covariances."""
    return mixture.model.n_parameters(mixture.n_components, mixture.n_features)


def reframe(mixture: Mixture, shift: Float[Array, "D"], scale: Array) -> Mixture:
    """The mixture of ``shift + scale x`` when x follows the one given.

    Args:
      scale: a factor for each column, (D,), all equal unless the model keeps its form column by
        column; or a lower triangular matrix (D, D), where it keeps its form under every linear map.
    """
    moved = mixture.means @ scale.T if scale.ndim == 2 else mixture.means * scale[None, :]
    return Mixture(
        mixture.log_weights,
        shift[None, :] + moved,
        mixture.model.storage.stretch(mixture.scale, scale),
        mixture.covariance,
    )


def to_host(mixture: Mixture) -> dict[str, np.ndarray]:
    """Weights, means and dense covariances as NumPy arrays, for tables and files."""
    return {
        "weights": np.asarray(mixture.weights),
        "means": np.asarray(mixture.means),
        "covariances": np.asarray(mixture.covariances),
    }
