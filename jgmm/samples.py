"""Samples with their weights, as the engine reads them: block by block, seen in a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jgmm.frame import Frame, identity_frame
from jgmm.inputs import as_labels, as_table, as_weights, check_values
from jgmm.pytree import Leaf

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
    frame: Frame
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
        matrix = self.frame.inverse if self.frame.turns else jnp.diag(self.frame.inverse)
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
        return x @ inverse.T if self.frame.turns else x * inverse[None, :]


def make_samples(x: Any, sample_weight: Any = None, labels: Any = None) -> Samples:
    """Check samples, weights and labels and see them as they are, in the identity frame.

    Raises:
      DataError: see ``as_samples``, ``as_weights`` and ``as_labels``.
    """
    array = as_table(x, "x")
    weights = as_weights(sample_weight, len(array), array.dtype)
    check_values(array, x, "x", weights)
    frame = identity_frame(array.shape[1], array.dtype)
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
