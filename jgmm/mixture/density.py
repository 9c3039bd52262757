"""Log density, responsibilities, predictions and random samples of a mixture."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jgmm._core import budget
from jgmm._core.arguments import check_whole, key_first
from jgmm._core.compilation import JitByWork
from jgmm.mixture import gaussian
from jgmm.mixture.mixture import HasMixture, Mixture, _samples_for, as_mixture, check_single


class Expectation(NamedTuple):
    """Result of the E-step: log densities (N,) and log responsibilities (N, K)."""

    log_prob: Array
    log_resp: Array


def log_joint(mixture: Mixture, inverse: Array, difference: Float[Array, "K D"]) -> Array:
    """Log joint density ``log πₖ + log N(x | μₖ, Σₖ)`` of one sample and each component, (K,).

    Args:
      mixture: K components in D dimensions.
      inverse: ``mixture.model.storage.invert(mixture.scale)``, computed once for many samples.
      difference: x - μₖ, (K, D).

    Returns:
      The log densities, in nats.
    """
    storage, d = mixture.model.storage, mixture.n_features
    log_det = storage.half_log_det(mixture.scale, d)
    distance = storage.distance(inverse, difference)
    constant = mixture.log_weights - 0.5 * d * gaussian.LOG_2PI - log_det
    return constant - 0.5 * distance


def _row_by_row(mixture: Mixture, x: Array, function: Callable[[Array], Any]) -> Any:
    """Apply ``function(log joint (K,))`` to every sample, a cache-sized block at a time."""
    inverse = mixture.model.storage.invert(mixture.scale)

    def one(row: Array) -> Any:
        return function(log_joint(mixture, inverse, row[None, :] - mixture.means))

    bytes_a_row = mixture.n_components * mixture.n_features * x.dtype.itemsize
    block = max(1, min(len(x), budget.DIFFERENCE_BLOCK_BYTES // bytes_a_row))
    return jax.vmap(one)(x) if block == len(x) else lax.map(one, x, batch_size=block)


def normalise(log_joint: Float[Array, "K"]) -> tuple[Float[Array, ""], Float[Array, "K"]]:
    """Compute log density and log responsibilities of one sample from its log joint density."""
    # The largest score is subtracted first. For a far sample it is a large negative number, next to
    # which log Σ exp would be rounded away, and the responsibilities would not sum to one.
    largest = lax.stop_gradient(log_joint.max())
    score = log_joint - jnp.where(jnp.isfinite(largest), largest, 0)
    log_sum = jnp.log(jnp.exp(score).sum())
    return largest + log_sum, score - log_sum


def _work(mixture: Mixture, x: Array) -> int:
    """Multiplications, roughly, of the densities of samples under dense covariances."""
    return len(x) * mixture.n_components * mixture.n_features**2


@JitByWork
def _log_prob(mixture: Mixture, x: Array) -> Array:
    return _row_by_row(mixture, x, lambda log_joint: normalise(log_joint)[0])


@JitByWork
def _e_step(mixture: Mixture, x: Array) -> Expectation:
    return expectation(mixture, x)


def expectation(mixture: Mixture, x: Float[Array, "N D"]) -> Expectation:
    """Return what ``e_step`` does for samples that are checked, as a part of a program."""
    return Expectation(*_row_by_row(mixture, x, normalise))


@JitByWork
def _responsibilities(mixture: Mixture, x: Array) -> Array:
    return jnp.exp(expectation(mixture, x).log_resp)


@JitByWork
def _predict(mixture: Mixture, x: Array) -> Array:
    return _row_by_row(mixture, x, jnp.argmax)


def log_prob(mixture: Mixture | HasMixture, x: Any) -> Float[Array, "N"]:
    """Log density of samples under the mixture, in nats.

        log p(x) = logsumexp over k of  log πₖ + log N(x | μₖ, Σₖ)

    Args:
      mixture: K components in D dimensions, or a result that has a mixture.
      x: samples in rows, (N, D).

    Returns:
      One number for each sample. Far from all components it is a large negative number, and -inf
      only when the squared distance overflows. Memory stays bounded for any N.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> jgmm.log_prob(one, [[0.0]]).round(3)
    Array([-0.919], dtype=float32)
    """
    mixture = as_mixture(mixture)
    samples = _samples_for(mixture, x)
    return _log_prob(_work(mixture, samples), mixture, samples)


def e_step(mixture: Mixture | HasMixture, x: Any) -> Expectation:
    """Infer which component produced each sample, holding the parameters fixed.

    With the joint score s[n, k] = log_weights[k] + log N(x[n] | means[k], Σ[k]),

        log_prob[n]    = logsumexp over k of s[n, k]
        log_resp[n, k] = s[n, k] - log_prob[n]

    Args:
      mixture: current parameters, K components in D dimensions.
      x: samples in rows, in the units of the means.

    Returns:
      Log density of each sample, in nats, and log responsibilities, whose rows sum to one after
      exp. The sum of the log densities is the log-likelihood of the parameters passed in, not of
      those after a later M-step.

    A component of weight zero gets responsibility exactly zero.

    Reference: Bishop (2006), section 9.2.

    >>> import jgmm
    >>> two = jgmm.make_mixture([0.5, 0.5], [[-1.0], [1.0]], [1.0, 1.0], "spherical")
    >>> jgmm.e_step(two, [[0.0]]).log_resp.round(3)
    Array([[-0.693, -0.693]], dtype=float32)
    """
    mixture = as_mixture(mixture)
    samples = _samples_for(mixture, x)
    return _e_step(_work(mixture, samples), mixture, samples)


def responsibilities(mixture: Mixture | HasMixture, x: Any) -> Float[Array, "N K"]:
    """Posterior probability of each component for each sample, ``p(z = k | x)``.

    Args:
      mixture: K components in D dimensions, or a result that has a mixture.
      x: samples in rows, (N, D).

    Returns:
      Responsibilities (N, K), whose rows sum to one.

    >>> import jgmm
    >>> two = jgmm.make_mixture([0.5, 0.5], [[-1.0], [1.0]], [1.0, 1.0], "spherical")
    >>> jgmm.responsibilities(two, [[0.0], [9.0]]).round(3).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    mixture = as_mixture(mixture)
    samples = _samples_for(mixture, x)
    return _responsibilities(_work(mixture, samples), mixture, samples)


def predict(mixture: Mixture | HasMixture, x: Any) -> Int[Array, "N"]:
    """Predict the most probable component of each sample; of equally probable ones the first.

    Args:
      mixture: K components in D dimensions, or a result that has a mixture.
      x: samples in rows, (N, D).

    Returns:
      Labels from 0 to K - 1, (N,).

    >>> import jgmm
    >>> two = jgmm.make_mixture([0.5, 0.5], [[-1.0], [1.0]], [1.0, 1.0], "spherical")
    >>> jgmm.predict(two, [[-3.0], [3.0]]).tolist()
    [0, 1]
    """
    mixture = as_mixture(mixture)
    samples = _samples_for(mixture, x)
    return _predict(_work(mixture, samples), mixture, samples)


@key_first
def sample(
    key: Key[Array, ""], mixture: Mixture | HasMixture, n_samples: int
) -> tuple[Float[Array, "N D"], Int[Array, "N"]]:
    """Draw samples: pick component k with probability πₖ, then draw x ~ N(μₖ, Σₖ).

    Args:
      key: a typed key, such as ``jax.random.key(0)``.
      mixture: K components in D dimensions, or a result that has a mixture.
      n_samples: how many samples to draw, at least one.

    Returns:
      Samples (n_samples, D), and the component that produced each, (n_samples,).

    Raises:
      DataError: ``n_samples`` is no such number, or a batch of mixtures.

    >>> import jax, jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> jgmm.sample(jax.random.key(0), one, 5)[0].shape
    (5, 1)
    """
    mixture = as_mixture(mixture)
    check_single(mixture)
    check_whole("n_samples", n_samples, 1)
    n, work = int(n_samples), int(n_samples) * mixture.n_features**2
    return _sample(work, key, mixture, n)


@partial(JitByWork, static_argnums=2)
def _sample(key: Array, mixture: Mixture, n_samples: int) -> tuple[Array, Array]:
    pick, draw = jax.random.split(key)
    labels = jax.random.categorical(pick, mixture.log_weights, shape=(n_samples,))
    draws = jax.random.normal(draw, (n_samples, mixture.n_features), mixture.means.dtype)
    copies = jnp.zeros_like(labels) if mixture.model.shared else labels

    def place(one: tuple[Array, Array, Array]) -> Array:
        label, copy, eps = one
        return mixture.means[label] + mixture.model.storage.apply(
            mixture.scale[copy][None], eps[None]
        ).reshape(-1)

    # In blocks, so that the factors are never copied for all samples at once.
    block = budget.SAMPLE_BLOCK_ROWS
    return lax.map(place, (labels, copies, draws), batch_size=block), labels
