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

from jgmm.blocks import Block
from jgmm.frame import Census, Frame, scaling_frame, standard_frame, whitening_frame
from jgmm.inputs import all_usable, refuse_values
from jgmm.precision import jit
from jgmm.samples import Samples, fold
from jgmm.status import DataError


class Moments(NamedTuple):
    """Total weight, mean (D,), and scatter about it, (D, D); double precision, on the host."""

    total: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        """Moments of both sets of samples.

        δ = m₂ − m₁,   m = m₁ + δ n₂/n,   M = M₁ + M₂ + δ δᵀ n₁ n₂/n
        """
        if not (self.total and other.total):
            return self if self.total else other
        total = self.total + other.total
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.total / total)
        between = np.outer(apart, apart) * (self.total * other.total / total)
        return Moments(total, mean, self.scatter + other.scatter + between)


class Drawn(NamedTuple):
    """Some rows: their number, the chance that decided, their values and weights."""

    row: np.ndarray
    chance: np.ndarray
    x: np.ndarray
    weights: np.ndarray

    def joined(self, other: Drawn) -> Drawn:
        """Both, in the order of their rows."""
        whole = [np.concatenate(pair) for pair in zip(self, other, strict=True)]
        order = np.argsort(whole[0])
        return Drawn(*(column[order] for column in whole))

    def lowest(self, most: int) -> Drawn:
        """At most so many of them, those of the lowest chance."""
        if len(self.row) <= most:
            return self
        kept = self.chance <= np.partition(self.chance, most - 1)[most - 1]
        return Drawn(*(column[kept] for column in self))


@dataclass(frozen=True)
class Survey:
    """What is known of all samples after one pass.

    Attributes:
      n_rows: rows, those of weight zero too.
      moments: of the samples.
      drawn: a random subsample without replacement.
    """

    n_rows: int
    moments: Moments
    drawn: Drawn

    def census(self, per_column: bool, affine: bool, dtype: Any) -> Census:
        """The frame ``em.seen`` gives samples held in memory, and their total weight."""
        total, mean, scatter = self.moments
        covariance = scatter / total
        frame = standard_frame(
            jnp.asarray(mean, dtype), jnp.asarray(np.diagonal(covariance), dtype), per_column
        )
        if affine:
            scale = np.asarray(frame.scale, float)
            correlation = covariance / np.outer(scale, scale)
            frame = whitening_frame(frame, jnp.asarray(correlation, dtype))
        return Census(frame, jnp.asarray(total, dtype))

    def whitening(self, dtype: Any) -> Frame:
        """The frame in which all samples together have the unit covariance."""
        return self.census(per_column=True, affine=True, dtype=dtype).frame


def nothing(n_features: int, dtype: np.dtype) -> Survey:
    """The survey of no samples."""
    d = n_features
    moments = Moments(np.zeros(()), np.zeros(d), np.zeros((d, d)))
    rows = np.zeros(0, np.uint64)
    return Survey(0, moments, Drawn(rows, rows, np.zeros((0, d), dtype), np.zeros(0, dtype)))


def survey(
    key: Array, blocks: Iterable[Block], first_row: int, most: int, n_features: int, dtype: np.dtype
) -> Survey:
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
    found = nothing(n_features, dtype)
    salt, row = salt_of(key), first_row
    for block in blocks:
        _check(block, row)
        part = _moments(block)
        drawn = _draw(block, row, salt, most, found.drawn)
        found = Survey(
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


def _moments(block: Block) -> Moments:
    found = (np.asarray(v, np.float64) for v in _about_center(block.x, block.weights))
    total, center, first, second = found
    apart = first / np.where(total > 0, total, 1)  # the center is the mean but for rounding
    return Moments(total, center + apart, second - total * np.outer(apart, apart))


@jit
def _about_center(x: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Total weight, a point near the mean, and first and second moments about it."""
    rows = min(len(x), 8192)
    some = x[jnp.argmax(weights > 0)]

    def about(point: Array) -> Samples:
        return Samples(x, weights, scaling_frame(point, jnp.ones_like(point)))

    total = weights.sum()
    center = some + fold(about(some), rows, lambda x, w, _: w @ x) / jnp.where(total > 0, total, 1)
    first, second = fold(about(center), rows, lambda x, w, _: (w @ x, (w[:, None] * x).T @ x))
    return total, center, first, second


def salt_of(key: Array) -> np.uint64:
    """64 random bits that stand for a key on the host."""
    high, low = np.asarray(jax.random.bits(key, (2,), jnp.uint32)).astype(np.uint64)
    return np.uint64(high << np.uint64(32) | low)


def chances(rows: UInt64[np.ndarray, "B"], salt: np.uint64) -> UInt64[np.ndarray, "B"]:
    """A random number of 64 bits for each row number (Steele, Lea & Flood 2014, SplitMix64)."""
    with np.errstate(over="ignore"):
        z = (rows + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + salt
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def _rows(block: Block, first_row: int) -> np.ndarray:
    return np.arange(first_row, first_row + block.n_rows, dtype=np.uint64)


def _draw(block: Block, first_row: int, salt: np.uint64, most: int, before: Drawn) -> Drawn:
    """The rows with the lowest chances of all so far: a uniform sample without replacement."""
    rows = _rows(block, first_row)
    chance = chances(rows, salt)
    highest = before.chance.max() if len(before.row) == most else None
    promising = np.asarray(block.weights)[: block.n_rows] > 0
    if highest is not None:
        promising &= chance < highest
    return before.joined(_taken(block, rows, chance, np.flatnonzero(promising))).lowest(most)


def _taken(block: Block, rows: np.ndarray, chance: np.ndarray, which: np.ndarray) -> Drawn:
    # Only those rows leave the device; elsewhere than on a CPU a block would take its time.
    x, weights = np.asarray(block.x), np.asarray(block.weights)
    return Drawn(rows[which], chance[which], x[which], weights[which])


def coreset(
    key: Array,
    blocks: Iterable[Block],
    first_row: int,
    most: int,
    frame: Frame,
    total: float,
) -> Drawn:
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
    found = nothing(len(frame.shift), np.dtype(frame.shift.dtype)).drawn
    for block in blocks:
        rows = _rows(block, row)
        chance = chances(rows, salt)
        share = np.asarray(_coreset_share(*block[:2], frame))[: block.n_rows].astype(float)
        taken = np.minimum(1, most * share / total)
        which = np.flatnonzero(chance < taken * 2.0**64)
        part = _taken(block, rows, chance, which)
        weights = (part.weights / taken[which]).astype(part.weights.dtype)
        found = found.joined(part._replace(weights=weights))
        row += block.n_rows
    return found.lowest(coreset_room(most))


@jit
def _coreset_share(x: Array, weights: Array, frame: Frame) -> Array:
    """W qₙ."""
    z = (x - frame.shift[None, :]) * frame.inverse[None, :]
    return weights * (0.5 + 0.5 * (z**2).mean(axis=1))


def coreset_room(most: int) -> int:
    """Rows a coreset of about ``most`` has at most: six standard deviations more."""
    return most + int(6 * most**0.5)


def filled(drawn: Drawn, room: int) -> Drawn:
    """Filled up to so many rows with some of weight zero: chance decides about no shape."""
    more = room - len(drawn.row)
    return Drawn(*(np.concatenate([c, np.zeros((more, *c.shape[1:]), c.dtype)]) for c in drawn))


def counted(drawn: Drawn) -> Drawn:
    """Without those of weight zero."""
    return Drawn(*(column[drawn.weights > 0] for column in drawn))


def packed(found: Survey, most: int) -> tuple[Any, ...]:
    """A survey as arrays whose shapes are the same in all processes."""
    return np.asarray(found.n_rows), found.moments, filled(found.drawn, most)


def together(parts: list[tuple[Any, ...]], n_features: int, dtype: np.dtype) -> Survey:
    """The survey of all samples, from the packed ones of all processes."""
    whole = nothing(n_features, dtype)
    most = len(parts[0][2].row)
    for n_rows, moments, drawn in parts:
        whole = Survey(
            whole.n_rows + int(n_rows),
            whole.moments + moments,
            whole.drawn.joined(counted(drawn)).lowest(most),
        )
    return whole


def drawn_together(parts: list[Drawn]) -> Drawn:
    """The rows drawn by all processes."""
    whole = counted(parts[0])
    for part in parts[1:]:
        whole = whole.joined(counted(part))
    return whole


def square(frame: Frame) -> Frame:
    """The same frame with matrices, as one that turns columns has."""
    return Frame(frame.shift, jnp.diag(frame.scale), jnp.diag(frame.inverse))
