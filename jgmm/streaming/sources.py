"""Samples that come block by block, read ahead by a thread while the engine computes.

A *source* is any object that yields blocks each time it is iterated: arrays or data frames (B, D),
or pairs of one and weights (B,) or None. Blocks may differ in length; the engine sees them cut and
joined to one shape, the last filled up with rows of weight zero, so that one program serves all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core import budget
from jgmm._core.errors import DataError
from jgmm._data.dataframes import as_array, is_table
from jgmm._data.validation import float_dtype


class Block(NamedTuple):
    """B samples and their weights, of which only the first ``n_rows`` are rows of the source."""

    x: Array
    weights: Array
    n_rows: int


class ArraySource:
    """An array, or a memory map, as a source."""

    def __init__(self, x: Any, sample_weight: Any = None, rows: int = 1 << 16) -> None:
        """Take samples (N, D) and weights (N,), seen ``rows`` at a time."""
        self._x, self._weights, self._rows = x, sample_weight, rows
        self.n_rows = len(x)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Blocks from the first row on."""
        for start in range(0, self.n_rows, self._rows):
            part = slice(start, start + self._rows)
            yield self._x[part], None if self._weights is None else self._weights[part]


def as_source(source: Any, sample_weight: Any = None) -> Iterable[Any]:
    """Something that can be iterated once a pass.

    Args:
      source: an array or data frame (N, D), an iterable that starts anew each time, or a function
        that returns one.
      sample_weight: of an array, (N,).

    Raises:
      DataError: an iterator, which is spent after one pass, or nothing that can be iterated.

    >>> [x.shape for x, weights in as_source(np.zeros((3, 2)))]
    [(3, 2)]
    """
    if is_table(source):
        source, sample_weight = as_array(source), as_array(sample_weight, "sample_weight")
    if hasattr(source, "ndim"):
        if source.ndim != 2:
            raise DataError(f"x must be two-dimensional; it has shape {source.shape}.")
        return ArraySource(source, sample_weight)
    if sample_weight is not None:
        raise DataError("sample_weight goes with an array; a source yields pairs (x, weights).")
    if isinstance(source, Iterator):
        raise DataError(
            f"the source is {type(source).__name__}, which can be read only once, and a fit takes "
            "many passes. Give the function that makes it, or an object whose __iter__ does."
        )
    if callable(source) and not isinstance(source, Iterable):
        return _Made(source)
    if not isinstance(source, Iterable):
        raise DataError(f"the source is {type(source).__name__}, which yields no blocks.")
    return source


class _Made:
    """A function that makes an iterator, as an iterable."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self._make())


def _pair(item: Any, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """A block as the source gave it, as two arrays that fit together."""
    x, weights = item if isinstance(item, tuple) else (item, None)
    x = np.asarray(as_array(x, f"block {number}"))
    if x.ndim != 2 or x.dtype.kind not in "fiub":
        raise DataError(
            f"block {number} is an array of {x.dtype} of shape {x.shape}; samples are rows of "
            "numbers, (B, D)."
        )
    if weights is None:
        return x, None
    weights = np.asarray(as_array(weights, f"the weights of block {number}"))
    if weights.shape != x.shape[:1] or weights.dtype.kind not in "fiub":
        raise DataError(
            f"the weights of block {number} are {weights.dtype} of shape {weights.shape}; they "
            f"must be numbers, one for each of its {len(x)} rows."
        )
    return x, weights


def peek(source: Iterable[Any]) -> tuple[int, np.dtype] | None:
    """D, and the type the samples are fitted in, from the first block; None if there is none."""
    for item in source:
        x, _ = _pair(item, 0)
        return x.shape[1], np.dtype(float_dtype(x.dtype))
    return None


def rows_for(n_features: int, dtype: np.dtype, n_total: int | None = None) -> int:
    """Rows in a block: a power of two.

    Args:
      n_features: D.
      dtype: of the samples.
      n_total: rows in all, if it is known. A block has at most ``BLOCK_BYTES``, and no more than a
        64th of them, so that several processes can share the blocks evenly.
    """
    rows = max(1024, budget.STREAM_BLOCK_BYTES // (n_features * dtype.itemsize))
    if n_total is not None:
        rows = min(rows, max(256, n_total // 64))
    return 1 << (rows.bit_length() - 1)


def rebatch(source: Iterable[Any], rows: int, n_features: int, dtype: np.dtype) -> Iterator[Block]:
    """The samples of a source in blocks of one shape, at least one, on the device.

    Args:
      source: yields arrays (b, D) or pairs.
      rows: B.
      n_features: D.
      dtype: float32 or float64; integers and float16 are converted.

    Raises:
      DataError: a block of another width, or of no numbers.
    """
    full = jnp.ones(rows, dtype)
    x, weights, filled, plain = _room(rows, n_features, dtype), np.ones(rows, dtype), 0, True
    empty = True
    for number, item in enumerate(source):
        part, part_weights = _pair(item, number)
        if part.shape[1] != n_features:
            raise DataError(
                f"block {number} has {part.shape[1]} columns; the first has {n_features}."
            )
        taken = 0
        while taken < len(part):
            n = min(rows - filled, len(part) - taken)
            x[filled : filled + n] = part[taken : taken + n]
            if part_weights is not None:
                weights[filled : filled + n] = part_weights[taken : taken + n]
                plain = False
            filled, taken = filled + n, taken + n
            if filled == rows:
                yield Block(jax.device_put(x), full if plain else jax.device_put(weights), rows)
                empty, filled, plain = False, 0, True
                x, weights = _room(rows, n_features, dtype), np.ones(rows, dtype)
    if filled or empty:
        x[filled:], weights[filled:] = 0, 0
        yield Block(jax.device_put(x), jax.device_put(weights), filled)


def _room(rows: int, n_features: int, dtype: np.dtype) -> np.ndarray:
    """Fresh memory, aligned so that XLA takes it for the device's without a copy."""
    n_bytes = rows * n_features * dtype.itemsize
    raw = np.empty(n_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes].view(dtype).reshape(rows, n_features)
