"""What one pass over samples that are elsewhere tells: their moments, and a few of them.

Moments of blocks are taken about the block's mean, on the device, and put together in double
precision: neither an offset nor 10¹⁰ rows cost digits. Which rows are drawn depends on the key and
on their numbers alone, not on blocks or on how many processes read them.

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
from jgmm._core.errors import DataError
from jgmm._data.samples import DataSummary, Standardization
from jgmm._data.standardization import scaling_from_moments, whitening_from_correlation
from jgmm._data.validation import all_usable, refuse_values
from jgmm.streaming.moments import Moments, _moments
from jgmm.streaming.sources import Block


class Subsample(NamedTuple):
    """Some rows: their number, the chance that decided, their values and weights."""

    row: np.ndarray
    chance: np.ndarray
    x: np.ndarray
    weights: np.ndarray

    def joined(self, other: Subsample) -> Subsample:
        """Both, in the order of their rows."""
        whole = [np.concatenate(pair) for pair in zip(self, other, strict=True)]
        order = np.argsort(whole[0])
        return Subsample(*(column[order] for column in whole))

    def lowest(self, most: int) -> Subsample:
        """At most so many of them, those of the lowest chance."""
        if len(self.row) <= most:
            return self
        kept = self.chance <= np.partition(self.chance, most - 1)[most - 1]
        return Subsample(*(column[kept] for column in self))


@dataclass(frozen=True)
class Summary:
    """What is known of all samples after one pass.

    Attributes:
      n_rows: rows, those of weight zero too.
      moments: of the samples.
      drawn: a random subsample without replacement.
    """

    n_rows: int
    moments: Moments
    drawn: Subsample

    def data_summary(self, per_column: bool, affine: bool, dtype: Any) -> DataSummary:
        """The frame ``em.seen`` gives samples held in memory, and their total weight."""
        total, mean, scatter = self.moments
        covariance = scatter / total
        frame = scaling_from_moments(
            jnp.asarray(mean, dtype), jnp.asarray(np.diagonal(covariance), dtype), per_column
        )
        if affine:
            scale = np.asarray(frame.scale, float)
            correlation = covariance / np.outer(scale, scale)
            frame = whitening_from_correlation(frame, jnp.asarray(correlation, dtype))
        return DataSummary(frame, jnp.asarray(total, dtype))

    def whitening(self, dtype: Any) -> Standardization:
        """The frame in which all samples together have the unit covariance."""
        return self.data_summary(per_column=True, affine=True, dtype=dtype).frame


def empty_summary(n_features: int, dtype: np.dtype) -> Summary:
    """The survey of no samples."""
    d = n_features
    moments = Moments(np.zeros(()), np.zeros(d), np.zeros((d, d)))
    rows = np.zeros(0, np.uint64)
    return Summary(0, moments, Subsample(rows, rows, np.zeros((0, d), dtype), np.zeros(0, dtype)))


def summarize(
    key: Array, blocks: Iterable[Block], first_row: int, most: int, n_features: int, dtype: np.dtype
) -> Summary:
    """Look at every sample once.

    Args:
      key: decides which rows are drawn.
      blocks: of one shape.
      first_row: number of the first of their rows among those of all processes.
      most: rows drawn at most.
      n_features: D.
      dtype: of the samples.

    Raises:
      DataError: NaN, infinite or overflowing values, or unusable weights; the text names the row.
    """
    found = empty_summary(n_features, dtype)
    salt, row = salt_of(key), first_row
    for block in blocks:
        _check(block, row)
        part = _moments(block)
        drawn = _draw(block, row, salt, most, found.drawn)
        found = Summary(
            found.n_rows + block.n_rows,
            found.moments + part,
            drawn,
        )
        row += block.n_rows
    return found


def _check(block: Block, first_row: int) -> None:
    weights = np.asarray(block.weights)
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        raise DataError(
            f"the weight of row {first_row + bad[0]} is {weights[bad[0]]}; weights must be finite "
            "and at least zero."
        )
    if not bool(all_usable(block.x, block.weights)):
        refuse_values(block.x, block.weights, "x", first_row=first_row)


def salt_of(key: Array) -> np.uint64:
    """64 random bits that stand for a key on the host."""
    high, low = np.asarray(jax.random.bits(key, (2,), jnp.uint32)).astype(np.uint64)
    return np.uint64(high << np.uint64(32) | low)


def row_hashes(rows: UInt64[np.ndarray, "B"], salt: np.uint64) -> UInt64[np.ndarray, "B"]:
    """A random number of 64 bits for each row number (Steele, Lea & Flood 2014, SplitMix64)."""
    with np.errstate(over="ignore"):
        z = (rows + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + salt
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _rows(block: Block, first_row: int) -> np.ndarray:
    return np.arange(first_row, first_row + block.n_rows, dtype=np.uint64)


def _draw(block: Block, first_row: int, salt: np.uint64, most: int, before: Subsample) -> Subsample:
    """The rows with the lowest chances of all so far: a uniform sample without replacement."""
    rows = _rows(block, first_row)
    chance = row_hashes(rows, salt)
    highest = before.chance.max() if len(before.row) == most else None
    promising = np.asarray(block.weights)[: block.n_rows] > 0
    if highest is not None:
        promising &= chance < highest
    return before.joined(_taken(block, rows, chance, np.flatnonzero(promising))).lowest(most)


def _taken(block: Block, rows: np.ndarray, chance: np.ndarray, which: np.ndarray) -> Subsample:
    # Only those rows leave the device; elsewhere than on a CPU a block would take its time.
    x, weights = np.asarray(block.x), np.asarray(block.weights)
    return Subsample(rows[which], chance[which], x[which], weights[which])


def coreset(
    key: Array,
    blocks: Iterable[Block],
    first_row: int,
    most: int,
    frame: Standardization,
    total: float,
) -> Subsample:
    """Rows drawn with chances that rise with their distance from the mean, and weights for it.

        qₙ = wₙ (1/2 · 1/W + 1/2 · dₙ² / Σ w d²)

    A row is taken with chance p = min(1, m qₙ) and then weighs wₙ / p, so that weighted sums over
    the coreset are those over all samples in the mean. Distances are those of the frame in which
    starts are made, where Σ w d² is W times the number of columns that vary.

    Args:
      most: m, rows taken, but for chance; see ``coreset_room``.
      frame: column by column.
      total: W.
    """
    salt, row = salt_of(key), first_row
    found = empty_summary(len(frame.shift), np.dtype(frame.shift.dtype)).drawn
    for block in blocks:
        rows = _rows(block, row)
        chance = row_hashes(rows, salt)
        share = np.asarray(_coreset_share(*block[:2], frame))[: block.n_rows].astype(float)
        taken = np.minimum(1, most * share / total)
        which = np.flatnonzero(chance < taken * 2.0**64)
        part = _taken(block, rows, chance, which)
        weights = (part.weights / taken[which]).astype(part.weights.dtype)
        found = found.joined(part._replace(weights=weights))
        row += block.n_rows
    return found.lowest(coreset_room(most))


@jit
def _coreset_share(x: Array, weights: Array, frame: Standardization) -> Array:
    """W qₙ."""
    z = (x - frame.shift[None, :]) * frame.inverse[None, :]
    return weights * (0.5 + 0.5 * (z**2).mean(axis=1))


def coreset_room(most: int) -> int:
    """Rows a coreset of about ``most`` has at most: six standard deviations more."""
    return most + int(6 * most**0.5)


def pad(drawn: Subsample, room: int) -> Subsample:
    """Filled up to so many rows with some of weight zero: chance decides about no shape."""
    more = room - len(drawn.row)
    return Subsample(*(np.concatenate([c, np.zeros((more, *c.shape[1:]), c.dtype)]) for c in drawn))


def drop_weightless(drawn: Subsample) -> Subsample:
    """Without those of weight zero."""
    return Subsample(*(column[drawn.weights > 0] for column in drawn))


def to_arrays(found: Summary, most: int) -> tuple[Any, ...]:
    """A survey as arrays whose shapes are the same in all processes."""
    return np.asarray(found.n_rows), found.moments, pad(found.drawn, most)


def merge(parts: list[tuple[Any, ...]], n_features: int, dtype: np.dtype) -> Summary:
    """The survey of all samples, from the packed ones of all processes."""
    whole = empty_summary(n_features, dtype)
    most = len(parts[0][2].row)
    for n_rows, moments, drawn in parts:
        whole = Summary(
            whole.n_rows + int(n_rows),
            whole.moments + moments,
            whole.drawn.joined(drop_weightless(drawn)).lowest(most),
        )
    return whole


def merge_subsamples(parts: list[Subsample]) -> Subsample:
    """The rows drawn by all processes."""
    whole = drop_weightless(parts[0])
    for part in parts[1:]:
        whole = whole.joined(drop_weightless(part))
    return whole


def as_matrices(frame: Standardization) -> Standardization:
    """The same frame with matrices, as one that turns columns has."""
    return Standardization(frame.shift, jnp.diag(frame.scale), jnp.diag(frame.inverse))
