"""Samples with their weights, as the engine reads them: block by block, seen in a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.validation import as_labels, as_table, as_weights, check_values

Sums = TypeVar("Sums")
Rows = TypeVar("Rows")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Samples:
    """Checked samples, their weights, and the frame the engine sees them in.

    Leaves: ``x`` (N, D) in the user's units, ``weights`` (N,) or None (all one), ``frame``, and
    ``labels`` (N,), the component a sample is known to be of, -1 where it is not, or None.
    The framed samples are never stored: each block is shifted and scaled as it is read.
    """

    x: Leaf
    weights: Leaf | None
    frame: Standardization
    labels: Leaf | None = None

    @property
    def n_samples(self) -> int:
        """N, the number of rows, whatever their weights."""
        return int(self.x.shape[0])

    @property
    def n_features(self) -> int:
        """D, the number of columns."""
        return int(self.x.shape[1])

    def total_weight(self) -> Array:
        """Σ_n w_n, the number of samples there are in effect."""
        if self.weights is None:
            return jnp.asarray(self.n_samples, self.x.dtype)
        return self.weights.sum()

    def rows(self, start: Any, size: int) -> tuple[Array, Array]:
        """Samples ``start … start + size`` in the frame, and their weights, (size, D), (size,).

        A row of weight zero comes back as zeros, whatever it held: it is missing.
        """
        x, weights = self._shifted(start, size)
        return self._scaled(x), weights

    def columns(self, start: Any, size: int) -> tuple[Array, Array]:
        """``rows`` with the samples in columns, written to memory that way, (D, size), (size,).

        As a product with S⁻¹, which is exact where that is diagonal: a plain transpose XLA would
        fuse into all that read it, and each of D²/2 products of columns would step through memory
        by D.
        """
        x, weights = self._shifted(start, size)
        matrix = self.frame.inverse if self.frame.rotates else jnp.diag(self.frame.inverse)
        return lax.dot_general(matrix, x, (((1,), (1,)), ((), ())), precision="highest"), weights

    def take(self, index: Array) -> Array:
        """The samples at the given rows, in the frame, (len(index), D)."""
        return self._scaled(self.x[index] - self.frame.shift[None, :])

    def _shifted(self, start: Any, size: int) -> tuple[Array, Array]:
        x = lax.dynamic_slice_in_dim(self.x, start, size) - self.frame.shift[None, :]
        if self.weights is None:
            return x, jnp.ones(size, x.dtype)
        weights = lax.dynamic_slice_in_dim(self.weights, start, size)
        return jnp.where((weights > 0)[:, None], x, jnp.zeros_like(x)), weights

    def _scaled(self, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        inverse = self.frame.inverse
        return x @ inverse.T if self.frame.rotates else x * inverse[None, :]


def make_samples(x: Any, sample_weight: Any = None, labels: Any = None) -> Samples:
    """Check samples, weights and labels and see them as they are, in the identity frame.

    Raises:
      DataError: see ``as_samples``, ``as_weights`` and ``as_labels``.
    """
    array = as_table(x, "x")
    weights = as_weights(sample_weight, len(array), array.dtype)
    check_values(array, x, "x", weights)
    frame = identity(array.shape[1], array.dtype)
    return Samples(array, weights, frame, as_labels(labels, len(array)))


def fold(
    samples: Samples,
    block_size: int,
    body: Callable[[Array, Array, Array], Sums],
    read: Callable[[Samples, Any, int], tuple[Array, Array]] = Samples.rows,
) -> Sums:
    """Add up a function over blocks of samples, in one pass, holding one block at a time.

    Args:
      samples: N samples; each row enters exactly one block with its weight.
      block_size: B ≤ N, rows a block. When B does not divide N the last block starts early and
        the rows seen before enter it with weight zero.
      body: ``(x, weights (B,), rows (B,)) -> sums``, any pytree of arrays.
      read: ``Samples.rows``, whose x is (B, D), or ``Samples.columns``, whose x is (D, B).

    Returns:
      The sum over blocks, compensated (Kahan 1965): with B rows a block its rounding error does
      not grow with the number of blocks.
    """
    n_samples = samples.n_samples
    n_blocks = -(-n_samples // block_size)

    def block(i: Any) -> Sums:
        start = jnp.minimum(i * block_size, n_samples - block_size)
        rows = start + jnp.arange(block_size)
        x, weights = read(samples, start, block_size)
        return body(x, jnp.where(rows >= i * block_size, weights, 0), rows)

    if n_blocks == 1:
        return block(0)

    def add(carry: tuple[Sums, Sums], i: Array) -> tuple[tuple[Sums, Sums], None]:
        total, lost = carry
        term = jax.tree.map(jnp.subtract, block(i), lost)
        new = jax.tree.map(jnp.add, total, term)
        lost = jax.tree.map(lambda n, t, a: (n - t) - a, new, total, term)
        return (new, lost), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(block, 0))
    (total, _), _ = lax.scan(add, (zeros, zeros), jnp.arange(n_blocks))
    return total


def map_columns(samples: Samples, block_size: int, body: Callable[[Array], Rows]) -> Rows:
    """Apply a function to blocks of samples, and put what it finds for each sample together.

    Args:
      samples: N samples.
      block_size: B, rows a block; at most N is used.
      body: ``x (D, B) -> `` any pytree of arrays with first axis B.

    Returns:
      The pytree with first axis N.
    """
    n_samples, size = samples.n_samples, min(block_size, samples.n_samples)
    n_blocks = -(-n_samples // size)

    def block(i: Any) -> Rows:
        return body(samples.columns(jnp.minimum(i * size, n_samples - size), size)[0])

    if n_blocks == 1:
        return block(0)
    # The last block starts early: what it shares with the one before is left out.
    seen = n_blocks * size - n_samples

    def join(leaf: Array) -> Array:
        return jnp.concatenate([leaf[:-1].reshape(-1, *leaf.shape[2:]), leaf[-1, seen:]])

    return jax.tree.map(join, lax.map(block, jnp.arange(n_blocks)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Standardization:
    """The affine view a fit has of its data: ``z = S⁻¹ (x - shift)``.

    With it float32 does not notice the user's units or offset, and tolerances mean the same for
    all data. S scales every column, or also turns them into one another: then it is lower
    triangular.

    Attributes:
      shift: (D,).
      scale: S, (D, D), or its diagonal, (D,), where it is a diagonal matrix.
      inverse: S⁻¹ in the same form.
    """

    shift: Leaf
    scale: Leaf
    inverse: Leaf

    @property
    def rotates(self) -> bool:
        """Whether a coordinate in the frame depends on more than one column."""
        return bool(jnp.ndim(self.scale) == 2)

    def log_volume(self) -> Array:
        """log |S|: what a log density in the frame exceeds the user's by, in nats."""
        return jnp.log(jnp.diagonal(self.scale) if self.rotates else self.scale).sum()

    def unit_variances(self, times: Any = 1.0) -> Float[Array, "D D"]:
        """The covariance, seen in the frame, that has S Sᵀ's variances and no correlations.

        The unit matrix where the frame turns nothing: what a ridge is a multiple of.

        Args:
          times: what it is multiplied by, one number, or one a column, (D,).
        """
        each = jnp.broadcast_to(jnp.asarray(times, self.shift.dtype), self.shift.shape)
        if not self.rotates:
            return jnp.diag(each)
        root = self.inverse * jnp.sqrt((self.scale**2).sum(axis=1))[None, :]
        return root @ (each[None, :] * root).T


def scaling(shift: Float[Array, "D"], scale: Float[Array, "D"]) -> Standardization:
    """The frame that scales every column."""
    return Standardization(shift, scale, 1 / scale)


def identity(n_features: int, dtype: Any) -> Standardization:
    """The frame in which samples are seen as they are."""
    return scaling(jnp.zeros(n_features, dtype), jnp.ones(n_features, dtype))


@runtime_checkable
class HasTotals(Protocol):
    """What a step must know of all samples once it has their statistics."""

    @property
    def frame(self) -> Standardization:
        """The frame the statistics are taken in."""

    def total_weight(self) -> Array:
        """Σ_n w_n, the number of samples there are in effect."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DataSummary:
    """The ``Population`` of samples that are elsewhere: in a file, or on other devices."""

    frame: Standardization
    total: Leaf

    def total_weight(self) -> Array:
        """Σ_n w_n."""
        return self.total


def check_counts(samples: Samples, n_components: int, n_restarts: int) -> None:
    """Refuse counts that cannot work.

    Raises:
      DataError: fewer than one component or restart, or fewer samples than components.
    """
    for name, value in (("n_components", n_components), ("n_restarts", n_restarts)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < 1:
            raise DataError(f"{name} must be a whole number of at least 1; it is {value!r}.")
    n_samples = samples.n_samples
    if samples.weights is not None and not is_traced(samples.weights):
        n_samples = int((samples.weights > 0).sum())
    if n_samples < n_components:
        raise DataError(
            f"{n_components} components need at least as many samples; there are {n_samples} "
            "(of positive weight). Use fewer components."
        )


def whole_weights(samples: Samples) -> np.ndarray:
    """How often each sample occurs, (N,), where samples are to be drawn and not weighed.

    Raises:
      DataError: weights that are not whole.
    """
    if samples.weights is None:
        return np.ones(samples.n_samples, int)
    weights = np.asarray(samples.weights)
    uneven = np.flatnonzero(weights != np.round(weights))
    if uneven.size:
        raise DataError(
            "where samples are drawn, sample_weight must say how often each occurs, in whole "
            f"numbers; row {uneven[0]} holds {weights[uneven[0]]}. The weighted bootstrap takes "
            "any weights."
        )
    return weights.astype(int)
