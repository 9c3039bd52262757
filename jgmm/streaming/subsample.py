"""Moments and a random subsample (or a coreset) of samples that are read in blocks, in one pass.

Moments of a block are computed about the block's mean, on the device, and combined in double
precision: neither a large offset nor 10¹⁰ rows cost digits. Which rows are drawn depends only on
the key and on the row numbers, not on the blocks or on the number of processes that read them.

References: Chan, Golub & LeVeque (1979) for the moments; Bachem, Lucic & Krause (2018), "Scalable
k-means clustering via lightweight coresets", for the coreset.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt64

from jgmm._core.compilation import jit
from jgmm._data.samples import DataSummary, Standardization
from jgmm._data.standardization import scaling_from_moments, whitening_from_correlation
from jgmm._data.validation import all_usable, check_weights, refuse_values
from jgmm.streaming.moments import Moments, moments_of
from jgmm.streaming.sources import Block


class Subsample(NamedTuple):
    """Some rows of the samples, on the host, in the order of their row numbers.

    Attributes:
      rows: row numbers, (n,).
      hashes: hash of each row number, (n,), uniform over 64 bits. It decides whether the row is
        drawn: those with the smallest hashes are.
      x: samples, (n, D).
      weights: their weights, (n,).
    """

    rows: np.ndarray
    hashes: np.ndarray
    x: np.ndarray
    weights: np.ndarray

    def merge(self, other: Subsample) -> Subsample:
        """Combine two subsamples without common rows, in the order of the row numbers."""
        columns = [np.concatenate(pair) for pair in zip(self, other, strict=True)]
        order = np.argsort(columns[0])
        return Subsample(*(column[order] for column in columns))

    def smallest(self, n_rows: int) -> Subsample:
        """Keep the ``n_rows`` rows with the smallest hashes, or all if there are fewer."""
        if len(self.rows) <= n_rows:
            return self
        kept = self.hashes <= np.partition(self.hashes, n_rows - 1)[n_rows - 1]
        return Subsample(*(column[kept] for column in self))


@dataclass(frozen=True)
class Summary:
    """Number of rows, moments and a subsample of all samples, from one pass.

    Attributes:
      n_rows: number of rows, including those of weight zero.
      moments: total weight, mean and scatter matrix.
      subsample: a uniform random subsample without replacement of the rows of positive weight.
    """

    n_rows: int
    moments: Moments
    subsample: Subsample

    def data_summary(self, per_column: bool, affine: bool, dtype: Any) -> DataSummary:
        """Return the standardization that samples in memory would get, and the total weight.

        Args:
          per_column: scale each column by its own standard deviation, not all by one number.
          affine: whiten: also remove the correlations.
          dtype: precision of the result.
        """
        total, mean, scatter, unit = self.moments
        covariance = scatter / total
        shift, variance, units = (
            jnp.asarray(each, dtype) for each in (mean, np.diagonal(covariance), unit)
        )
        frame = scaling_from_moments(shift, variance, units, per_column)
        if affine:
            relative = unit / np.asarray(frame.scale, float)
            correlation = relative[:, None] * covariance * relative[None, :]
            frame = whitening_from_correlation(frame, jnp.asarray(correlation, dtype))
        return DataSummary(frame, jnp.asarray(total, dtype))

    def whitening(self, dtype: Any) -> Standardization:
        """Return the standardization in which the covariance of all samples is the identity."""
        return self.data_summary(per_column=True, affine=True, dtype=dtype).frame


def empty_summary(n_features: int, dtype: np.dtype) -> Summary:
    """Return the summary of no samples: zero rows, zero moments, an empty subsample."""
    d = n_features
    moments = Moments(np.zeros(()), np.zeros(d), np.zeros((d, d)), np.ones(d))
    rows = np.zeros(0, np.uint64)
    return Summary(0, moments, Subsample(rows, rows, np.zeros((0, d), dtype), np.zeros(0, dtype)))


def summarize(
    key: Array,
    blocks: Iterable[Block],
    first_row: int,
    n_subsample: int,
    n_features: int,
    dtype: np.dtype,
    columns: list[str] | None = None,
) -> Summary:
    """Check all samples, compute their moments and draw a subsample, in one pass.

    Args:
      key: determines which rows are drawn.
      blocks: blocks of one shape.
      first_row: number of the first of their rows among the rows of all processes.
      n_subsample: largest number of rows drawn.
      n_features: D.
      dtype: of the samples.
      columns: their names in error messages.

    Raises:
      DataError: NaN, infinite or overflowing values, or unusable weights; the text names the row.
    """
    summary = empty_summary(n_features, dtype)
    salt, row = salt_of(key), first_row
    for block in blocks:
        _check_block(block, row, columns)
        moments = summary.moments + moments_of(block)
        drawn = _draw(block, row, salt, n_subsample, summary.subsample)
        summary = Summary(summary.n_rows + block.n_rows, moments, drawn)
        row += block.n_rows
    return summary


def _check_block(block: Block, first_row: int, columns: list[str] | None) -> None:
    """Raise a ``DataError`` that names the row of a bad value or weight."""
    check_weights(np.asarray(block.weights), first_row)
    if not bool(all_usable(block.x, block.weights)):
        refuse_values(block.x, block.weights, "x", columns, first_row)


def salt_of(key: Array) -> np.uint64:
    """Return 64 random bits derived from a key, as a host integer."""
    high, low = np.asarray(jax.random.bits(key, (2,), jnp.uint32)).astype(np.uint64)
    return np.uint64(high << np.uint64(32) | low)


def row_hashes(rows: UInt64[np.ndarray, "B"], salt: np.uint64) -> UInt64[np.ndarray, "B"]:
    """Hash row numbers to uniform random numbers of 64 bits, with the SplitMix64 generator.

    Args:
      rows: row numbers, (B,).
      salt: random bits that make the hash depend on a key; see ``salt_of``.

    Reference: Steele, Lea & Flood (2014), "Fast splittable pseudorandom number generators".

    >>> hashes = row_hashes(np.arange(1000, dtype=np.uint64), np.uint64(7))
    >>> bool(abs((hashes / 2.0**64).mean() - 0.5) < 0.05)
    True
    """
    with np.errstate(over="ignore"):
        z = (rows + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + salt
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _row_numbers(block: Block, first_row: int) -> np.ndarray:
    return np.arange(first_row, first_row + block.n_rows, dtype=np.uint64)


def _draw(
    block: Block, first_row: int, salt: np.uint64, n_rows: int, before: Subsample
) -> Subsample:
    """Update a subsample with a block: keep the ``n_rows`` smallest hashes of all rows so far.

    Since hashes are uniform, this is a uniform sample without replacement.
    """
    rows = _row_numbers(block, first_row)
    hashes = row_hashes(rows, salt)
    largest = before.hashes.max() if len(before.rows) == n_rows else None
    candidates = np.asarray(block.weights)[: block.n_rows] > 0
    if largest is not None:
        candidates &= hashes < largest
    drawn = _take_rows(block, rows, hashes, np.flatnonzero(candidates))
    return before.merge(drawn).smallest(n_rows)


def _take_rows(
    block: Block, rows: np.ndarray, hashes: np.ndarray, indices: np.ndarray
) -> Subsample:
    """Return the rows of a block at the given indices as a subsample."""
    x, weights = np.asarray(block.x), np.asarray(block.weights)
    return Subsample(rows[indices], hashes[indices], x[indices], weights[indices])


def draw_coreset(
    key: Array,
    blocks: Iterable[Block],
    first_row: int,
    n_rows: int,
    frame: Standardization,
    total: float,
) -> Subsample:
    """Draw a lightweight coreset: rows far from the mean are more probable and weigh less.

        qₙ = wₙ (1/2 · 1/W + 1/2 · dₙ² / Σ w d²)

    Here dₙ is the distance of row n from the mean. The row is drawn with probability
    p = min(1, m qₙ) and then has the weight wₙ / p. So the expectation of a weighted sum over the
    coreset is the sum over all samples. Distances are those in the standardized coordinates in
    which starts are made, where Σ w d² is W times the number of columns that vary.

    Args:
      key: determines which rows are drawn.
      blocks: blocks of one shape.
      first_row: number of the first of their rows among the rows of all processes.
      n_rows: m, the expected number of rows at most; see ``coreset_capacity``.
      frame: standardization that scales each column.
      total: W, the total weight of all samples.

    Reference: Bachem, Lucic & Krause (2018), "Scalable k-means clustering via lightweight
    coresets".
    """
    salt, row = salt_of(key), first_row
    coreset = empty_summary(len(frame.shift), np.dtype(frame.shift.dtype)).subsample
    for block in blocks:
        rows = _row_numbers(block, row)
        hashes = row_hashes(rows, salt)
        scaled = np.asarray(_scaled_probabilities(*block[:2], frame))
        scaled = scaled[: block.n_rows].astype(float)
        probabilities = np.minimum(1, n_rows * scaled / total)
        indices = np.flatnonzero(hashes < probabilities * 2.0**64)
        part = _take_rows(block, rows, hashes, indices)
        weights = (part.weights / probabilities[indices]).astype(part.weights.dtype)
        coreset = coreset.merge(part._replace(weights=weights))
        row += block.n_rows
    return coreset.smallest(coreset_capacity(n_rows))


@jit
def _scaled_probabilities(x: Array, weights: Array, frame: Standardization) -> Array:
    """Compute W qₙ of each row; see ``draw_coreset``."""
    z = (x - frame.shift[None, :]) * frame.inverse[None, :]
    return weights * (0.5 + 0.5 * (z**2).mean(axis=1))


def coreset_capacity(n_rows: int) -> int:
    """Return the largest number of rows kept in a coreset whose expected number is ``n_rows``.

    It is six standard deviations of that random number more.

    >>> coreset_capacity(10_000)
    10600
    """
    return n_rows + int(6 * n_rows**0.5)


def pad(drawn: Subsample, n_rows: int) -> Subsample:
    """Pad a subsample to ``n_rows`` rows with rows of weight zero.

    Then array shapes do not depend on random numbers, and nothing has to be compiled again.
    """
    more = n_rows - len(drawn.rows)
    return Subsample(*(np.concatenate([c, np.zeros((more, *c.shape[1:]), c.dtype)]) for c in drawn))


def drop_weightless(drawn: Subsample) -> Subsample:
    """Remove the rows of weight zero, such as those added by ``pad``."""
    return Subsample(*(column[drawn.weights > 0] for column in drawn))


def to_arrays(summary: Summary, n_subsample: int) -> tuple[Any, ...]:
    """Convert a summary to arrays whose shapes are the same in all processes; see ``merge``."""
    return np.asarray(summary.n_rows), summary.moments, pad(summary.subsample, n_subsample)


def merge(parts: list[tuple[Any, ...]], n_features: int, dtype: np.dtype) -> Summary:
    """Merge the summaries of all processes, given as ``to_arrays`` returns them."""
    whole = empty_summary(n_features, dtype)
    n_subsample = len(parts[0][2].rows)
    for n_rows, moments, drawn in parts:
        whole = Summary(
            whole.n_rows + int(n_rows),
            whole.moments + moments,
            whole.subsample.merge(drop_weightless(drawn)).smallest(n_subsample),
        )
    return whole


def merge_subsamples(parts: list[Subsample]) -> Subsample:
    """Merge the padded subsamples of all processes."""
    whole = drop_weightless(parts[0])
    for part in parts[1:]:
        whole = whole.merge(drop_weightless(part))
    return whole


def as_matrices(frame: Standardization) -> Standardization:
    """Return the same standardization with S as a matrix, as one that rotates columns has it."""
    return Standardization(frame.shift, jnp.diag(frame.scale), jnp.diag(frame.inverse))
