"""What a pass over samples has read: a count, a total weight and a checksum, to compare passes.

Every pass of a fit must read the same rows, and a fit that is resumed must read the rows it was
begun with. The checksum is a sum over the rows, so that the rows may come in any order, in blocks
of any size, and in any number of processes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from jgmm._core.compilation import jit
from jgmm.streaming.sources import Block
from jgmm.streaming.subsample import row_hashes

N_WORDS = 6  # of 32 bits, see ``Content.to_words``
_TYPES = (np.int64, np.float64, np.int64)


class Content(NamedTuple):
    """Number of rows read, their total weight, and their checksum.

    Attributes:
      n_rows: rows of any weight.
      weight: the sum of their weights.
      checksum: the sum, modulo 2³², of a hash of the values and the weight of each row that counts.
    """

    n_rows: int = 0
    weight: float = 0.0
    checksum: int = 0

    def __add__(self, other: Content) -> Content:  # type: ignore[override]
        """Return the content of the rows of both.

        >>> Content(2, 2.0, 2**32 - 1) + Content(1, 0.5, 3)
        Content(n_rows=3, weight=2.5, checksum=2)
        """
        n_rows, weight, checksum = (a + b for a, b in zip(self, other, strict=True))
        return Content(int(n_rows), weight, int(checksum) % 2**32)

    def same_rows(self, other: Content) -> bool:
        """Return whether both have read the same rows, but for a chance of 2⁻³².

        Weights are part of the checksum; their sum depends on the order by its rounding.
        """
        return (self.n_rows, self.checksum) == (other.n_rows, other.checksum)

    def to_words(self) -> UInt32[np.ndarray, "6"]:
        """Return the three numbers as words of 32 bits, which JAX keeps in any precision."""
        numbers = (np.asarray([v], t) for v, t in zip(self, _TYPES, strict=True))
        return np.concatenate([number.view(np.uint32) for number in numbers])

    @staticmethod
    def from_words(words: object) -> Content:
        """Return the content that ``to_words`` has written.

        >>> Content.from_words(Content(3, 0.5, 7).to_words())
        Content(n_rows=3, weight=0.5, checksum=7)
        """
        pairs = np.asarray(words).reshape(3, 2)
        rows, weight, checksum = (
            pair.view(t).item() for pair, t in zip(pairs, _TYPES, strict=True)
        )
        return Content(int(rows), weight, int(checksum))


def content_of(block: Block) -> Content:
    """Return the content of one block, computed on its device."""
    weight, checksum = _weight_and_checksum(block.x, block.weights)
    return Content(block.n_rows, float(weight), int(checksum))


def difference(first: Content, later: Content) -> str:
    """Say in what two contents differ that should be the same.

    >>> difference(Content(3, 3.0, 1), Content(2, 2.0, 1))
    '3 rows at first and 2 later'
    """
    if first.n_rows != later.n_rows:
        return f"{first.n_rows} rows at first and {later.n_rows} later"
    if not np.isclose(first.weight, later.weight, rtol=1e-6, atol=0):
        return f"a total weight of {first.weight:.9g} at first and {later.weight:.9g} later"
    return f"{first.n_rows} rows each time, but with other values or weights"


@jit
def _weight_and_checksum(x: Array, weights: Array) -> tuple[Array, Array]:
    """Compute the total weight and the checksum of a block.

    A row's words b are mixed and added with odd random factors, h = Σⱼ (bⱼ ⊕ bⱼ/2¹⁶) mⱼ, and h is
    mixed again before it is added to those of other rows: so it matters which values share a row.
    Mixing brings the sign bit down; two of them alone would cancel each other. Rows of weight zero
    may hold anything and do not count.
    """
    rows = _row_sums(x, salt=0) + _row_sums(weights[:, None], salt=1)
    rows = _mixed(_mixed(rows, 15) * jnp.uint32(0x846CA68B), 16)
    return _total(weights), _total(jnp.where(weights > 0, rows, jnp.uint32(0)))


def _row_sums(x: Array, salt: int) -> Array:
    """Add the mixed bits of each row of numbers (B, D), times random factors; return (B,)."""
    words = lax.bitcast_convert_type(x, jnp.uint32).reshape(len(x), -1)  # two for a float64
    hashes = row_hashes(np.arange(words.shape[1], dtype=np.uint64), np.uint64(salt))
    factors = jnp.asarray((hashes >> np.uint64(32)).astype(np.uint32) | np.uint32(1))
    return (_mixed(words, 16) * factors[None, :]).sum(axis=1, dtype=jnp.uint32)


def _total(x: Array) -> Array:
    """Add up numbers (B,), in 128 sums side by side: a CPU would add a single one step by step."""
    n = len(x) // 128 * 128
    sums = x[:n].reshape(-1, 128).sum(axis=0, dtype=x.dtype)
    return sums.sum(dtype=x.dtype) + x[n:].sum(dtype=x.dtype)


def _mixed(words: Array, shift: int) -> Array:
    return words ^ (words >> jnp.uint32(shift))
