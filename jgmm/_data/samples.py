"""Checked samples with weights, read in blocks and standardized as they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jgmm._core import budget
from jgmm._core.arguments import check_whole
from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.validation import as_labels, as_table, as_weights, check_values

Sums = TypeVar("Sums")
Rows = TypeVar("Rows")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Samples:
    """Checked samples, their weights, labels and standardization.

    The standardized samples are never stored: each block is shifted and scaled as it is read. All
    attributes are leaves.

    Attributes:
      x: samples in the user's units, (N, D).
      weights: how many times each sample counts, (N,), or None if all count once.
      frame: the ``Standardization`` under which the samples are read.
      labels: the known component of each sample, -1 where it is unknown, (N,), or None.
      n_used: number of the leading rows that may count, (), or None if all may. The rows after
        them fill the arrays up to a size that several data sets share (``padded_rows``), and are
        never read.
      weight_of_equals: the total weight Wₙ of all rows that equal row n, (N,), where rows have been
        compared (``distinct_rows``), or None, where each row counts for itself.
    """

    x: Leaf
    weights: Leaf | None
    frame: Standardization
    labels: Leaf | None = None
    n_used: Leaf | None = None
    weight_of_equals: Leaf | None = None

    @property
    def n_samples(self) -> int:
        """N, the number of rows, whatever their weights."""
        return int(self.x.shape[0])

    @property
    def n_features(self) -> int:
        """D, the number of columns."""
        return int(self.x.shape[1])

    def total_weight(self) -> Array:
        """Return the sum of the weights, Σ_n w_n: the effective number of samples."""
        if self.weights is None:
            return jnp.asarray(self.n_samples, self.x.dtype)
        return self.weights.sum()

    def squared_weights(self, weights: Float[Array, "B"], rows: Array) -> Float[Array, "B"]:
        """Return wₙ Wₙ, which counts distinct rows, for the rows of a block.

        Args:
          weights: wₙ of the block, zero for rows that do not count in it.
          rows: their numbers n, (B,).
        """
        if self.weight_of_equals is not None:
            return weights * self.weight_of_equals[rows]
        return weights if self.weights is None else weights**2

    def rows(self, start: Any, size: int) -> tuple[Array, Array]:
        """Return standardized samples ``start … start + size``, (size, D), and weights, (size,).

        A row of weight zero is missing and is returned as zeros, whatever it holds.
        """
        x, weights = self._centered(start, size)
        return self._scaled(x), weights

    def columns(self, start: Any, size: int) -> tuple[Array, Array]:
        """Return the samples of ``rows`` in columns, (D, size), and weights, (size,).

        The array is written to memory in that order by a product with S⁻¹, which is exact where S
        is diagonal. XLA would fuse a plain transpose into every operation that reads it, and each
        of the D²/2 products of columns would step through memory by D.
        """
        x, weights = self._centered(start, size)
        matrix = self.frame.inverse if self.frame.rotates else jnp.diag(self.frame.inverse)
        return lax.dot_general(matrix, x, (((1,), (1,)), ((), ())), precision="highest"), weights

    def take(self, index: Array) -> Array:
        """Return the standardized samples at the given rows, (len(index), D)."""
        return self._scaled(self.x[index] - self.frame.shift[None, :])

    def _centered(self, start: Any, size: int) -> tuple[Array, Array]:
        x = lax.dynamic_slice_in_dim(self.x, start, size) - self.frame.shift[None, :]
        if self.weights is None:
            return x, jnp.ones(size, x.dtype)
        weights = lax.dynamic_slice_in_dim(self.weights, start, size)
        return jnp.where((weights > 0)[:, None], x, jnp.zeros_like(x)), weights

    def _scaled(self, x: Float[Array, "B D"]) -> Float[Array, "B D"]:
        inverse = self.frame.inverse
        return x @ inverse.T if self.frame.rotates else x * inverse[None, :]


def make_samples(
    x: Any, sample_weight: Any = None, labels: Any = None, may_weigh_nothing: bool = False
) -> Samples:
    """Check samples, weights and labels; they are not standardized yet.

    Args:
      x: samples in rows, (N, D): a list, an array or a data frame.
      sample_weight: how many times each sample counts, (N,), or None.
      labels: the known component of each sample, (N,), -1 where it is unknown, or None.
      may_weigh_nothing: whether all weights may be zero.

    Raises:
      DataError: see ``as_samples``, ``as_weights`` and ``as_labels``.

    >>> make_samples([[1.0, 2.0], [3.0, 4.0]], sample_weight=[1, 2]).total_weight().item()
    3.0
    """
    array = as_table(x, "x")
    weights = as_weights(sample_weight, len(array), array.dtype, may_weigh_nothing)
    check_values(array, x, "x", weights)
    frame = identity(array.shape[1], array.dtype)
    return Samples(array, weights, frame, as_labels(labels, len(array), weights))


def padded_rows(samples: Samples) -> Samples:
    """Fill samples up to a number of rows that many data sets share, with rows of weight zero.

    One compiled program then serves every number of samples up to that one. The rows that are
    added are never read where samples are read in several blocks.

    Args:
      samples: concrete samples in the identity frame.

    Returns:
      The samples with weights, and with ``n_used``; or as they are where they are filled up
      already, are spread over several devices, or are so many that a copy of them would cost more
      than a compilation saves.

    >>> padded = padded_rows(make_samples([[1.0], [2.0], [3.0]]))
    >>> padded.n_samples, padded.total_weight().item()
    (128, 3.0)
    """
    n, size = samples.n_samples, padded_length(samples.n_samples)
    large = samples.x.nbytes > budget.MAX_PADDED_BYTES
    if samples.n_used is not None or large or len(samples.x.devices()) > 1:
        return samples
    dtype = samples.x.dtype
    weights = np.ones(n, dtype) if samples.weights is None else samples.weights
    labels, equals = samples.labels, samples.weight_of_equals
    return replace(
        samples,
        x=fill_up(samples.x, size, 0),
        weights=fill_up(weights, size, 0),
        labels=None if labels is None else fill_up(labels, size, -1),
        weight_of_equals=None if equals is None else fill_up(equals, size, 0),
        n_used=jax.device_put(np.asarray(n, jax.dtypes.canonicalize_dtype(int))),
    )


def padded_length(n_samples: int) -> int:
    """Return the number of rows that ``padded_rows`` fills samples up to.

    >>> padded_length(100), padded_length(129)
    (128, 512)
    """
    size = budget.MIN_PADDED_ROWS
    while size < n_samples:
        size *= budget.PADDED_ROWS_FACTOR
    return size


def fill_up(values: Any, size: int, fill: int) -> Array:
    """Append ``fill`` to an array until it has ``size`` rows; on the host: nothing is compiled."""
    host = np.asarray(values)
    whole = np.full((size, *host.shape[1:]), fill, host.dtype)
    whole[: len(host)] = host
    placed = isinstance(values, jax.Array) and values.committed  # the user has chosen its device
    return jax.device_put(whole, values.sharding if placed else None)


def fold(
    samples: Samples,
    block_size: int,
    body: Callable[[Array, Array, Array], Sums],
    read: Callable[[Samples, Any, int], tuple[Array, Array]] = Samples.rows,
) -> Sums:
    """Sum a function over blocks of samples, in one pass that holds one block at a time.

    Args:
      samples: N samples; each row counts with its weight in exactly one block.
      block_size: B ≤ N, rows in a block. When B does not divide N, the last block starts early, and
        the rows that it shares with the block before have weight zero in it.
      body: ``(x, weights (B,), rows (B,)) -> sums``, any pytree of arrays.
      read: ``Samples.rows``, whose x is (B, D), or ``Samples.columns``, whose x is (D, B).

    Returns:
      The sum over blocks, compensated (Kahan 1965): its rounding error does not grow with the
      number of blocks.

    >>> samples = make_samples([[1.0], [2.0], [3.0]])
    >>> fold(samples, 2, lambda x, weights, rows: weights @ x).tolist()
    [6.0]
    """
    n_samples = samples.n_samples

    def block(i: Any) -> Sums:
        start = jnp.minimum(i * block_size, n_samples - block_size)
        rows = start + jnp.arange(block_size)
        x, weights = read(samples, start, block_size)
        return body(x, jnp.where(rows >= i * block_size, weights, 0), rows)

    if n_samples == block_size:
        return block(0)

    def add(i: Array, carry: tuple[Sums, Sums]) -> tuple[Sums, Sums]:
        total, lost = carry
        term = jax.tree.map(jnp.subtract, block(i), lost)
        new = jax.tree.map(jnp.add, total, term)
        lost = jax.tree.map(lambda n, t, a: (n - t) - a, new, total, term)
        return new, lost

    zeros = _zeros_like(jax.eval_shape(block, 0))
    return lax.fori_loop(0, _n_blocks(samples, block_size), add, (zeros, zeros))[0]


def _n_blocks(samples: Samples, block_size: int) -> Any:
    """Return the number of blocks that hold rows in use; it is traced if ``n_used`` is."""
    if samples.n_used is None:
        return -(-samples.n_samples // block_size)
    return (samples.n_used + block_size - 1) // block_size


def _zeros_like(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def map_columns(samples: Samples, block_size: int, body: Callable[[Array], Rows]) -> Rows:
    """Apply a function to blocks of samples and concatenate its results, one for each sample.

    Args:
      samples: N samples.
      block_size: B, rows in a block; at most N is used.
      body: ``x (D, B) -> `` any pytree of arrays with first axis B.

    Returns:
      The pytree with first axis N; zero in blocks without rows in use.
    """
    n_samples, size = samples.n_samples, min(block_size, samples.n_samples)

    def block(start: Any) -> Rows:
        return body(samples.columns(start, size)[0])

    if n_samples == size:
        return block(0)

    def write(i: Array, whole: Rows) -> Rows:
        # The last block starts early: the rows it shares with the block before are written twice.
        start = jnp.minimum(i * size, n_samples - size)
        return jax.tree.map(
            lambda leaf, part: lax.dynamic_update_slice_in_dim(leaf, part, start, 0),
            whole,
            block(start),
        )

    shapes = jax.eval_shape(lambda start: block(start), 0)
    whole = jax.tree.map(lambda leaf: jnp.zeros((n_samples, *leaf.shape[1:]), leaf.dtype), shapes)
    return lax.fori_loop(0, _n_blocks(samples, size), write, whole)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Standardization:
    """Standardization of data by an affine map, ``z = S⁻¹ (x - shift)``.

    Fits run on standardized data: so rounding in float32 does not depend on the user's units or
    offset, and tolerances mean the same for all data. S scales each column separately, or also
    mixes columns (whitening); in that case it is lower triangular.

    Attributes:
      shift: (D,).
      scale: S, (D, D), or its diagonal, (D,), where S is a diagonal matrix.
      inverse: S⁻¹ in the same form as ``scale``.
    """

    shift: Leaf
    scale: Leaf
    inverse: Leaf

    @property
    def rotates(self) -> bool:
        """Whether S mixes columns, so that a standardized one depends on several of the data's."""
        return bool(jnp.ndim(self.scale) == 2)

    def log_volume(self) -> Array:
        """Return log |S|, in nats: log density of standardized data minus that of the original."""
        return jnp.log(jnp.diagonal(self.scale) if self.rotates else self.scale).sum()

    def deviations(self) -> Float[Array, "D"]:
        """Return the lengths of the rows of S: the standard deviations of the data, by column."""
        if not self.rotates:
            return self.scale
        # Squares of lengths in the user's units might vanish or overflow.
        largest = lax.stop_gradient(jnp.abs(self.scale).max(axis=1))
        return largest * jnp.sqrt(((self.scale / largest[:, None]) ** 2).sum(axis=1))

    def unit_variances(self, factor: Any = 1.0) -> Float[Array, "D D"]:
        """Return, in standardized units, the diagonal covariance with the variances of S Sᵀ.

        It is the unit matrix if S is diagonal. A ridge is a multiple of this covariance.

        Args:
          factor: one number, or one for each column, (D,), by which its variances are multiplied.
        """
        each = jnp.broadcast_to(jnp.asarray(factor, self.shift.dtype), self.shift.shape)
        if not self.rotates:
            return jnp.diag(each)
        root = self.inverse * self.deviations()[None, :]
        return root @ (each[None, :] * root).T


def scaling(shift: Float[Array, "D"], scale: Float[Array, "D"]) -> Standardization:
    """Return the standardization that shifts and scales each column separately."""
    return Standardization(shift, scale, 1 / scale)


def identity(n_features: int, dtype: Any) -> Standardization:
    """Return the standardization that leaves samples unchanged."""
    return scaling(jnp.zeros(n_features, dtype), jnp.ones(n_features, dtype))


@runtime_checkable
class HasTotals(Protocol):
    """Totals over all samples that a step of a fit needs in addition to their statistics."""

    @property
    def frame(self) -> Standardization:
        """The standardization of the samples from which the statistics were computed."""

    def total_weight(self) -> Array:
        """Return the sum of the weights, Σ_n w_n: the effective number of samples."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DataSummary:
    """Totals (``HasTotals``) of samples that are not in memory: in a file, or on other devices.

    Attributes:
      frame: their standardization.
      total: the sum of their weights, ().
    """

    frame: Standardization
    total: Leaf

    def total_weight(self) -> Array:
        """Return the sum of the weights, Σ_n w_n."""
        return self.total


def check_counts(samples: Samples, n_components: int, n_restarts: int) -> None:
    """Check the numbers of components and restarts.

    Raises:
      DataError: one is no whole number or less than one, or there are fewer samples (of positive
        weight) than components.
    """
    for name, value in (("n_components", n_components), ("n_restarts", n_restarts)):
        check_whole(name, value, 1)
    n_samples = samples.n_samples
    if samples.weights is not None and not is_traced(samples.weights):
        n_samples = int((samples.weights > 0).sum())
    if n_samples < n_components:
        raise DataError(
            f"{n_components} components need at least as many samples; there are {n_samples} "
            "(of positive weight). Use fewer components."
        )


def whole_weights(samples: Samples) -> np.ndarray:
    """Return the weights as integers, (N,): how often each sample occurs when samples are drawn.

    Raises:
      DataError: a weight is no whole number.
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
