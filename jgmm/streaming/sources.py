"""Sources of samples that come block by block, and their conversion to blocks of one shape.

A *source* is any object that yields blocks from the beginning each time it is iterated: arrays or
data frames (B, D), or pairs of such an array and its weights (B,) or None. Blocks may differ in
length. They are cut and joined to blocks of one shape, the last of which is padded with rows of
weight zero, so that one compiled program processes all of them.
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
from jgmm._data.arrays import refuse_sparse
from jgmm._data.dataframes import as_array, is_table, names_of
from jgmm._data.validation import (
    as_numbers,
    check_two_dimensional,
    check_weights_shape,
    float_dtype,
)


class Block(NamedTuple):
    """B samples and their weights; rows after the first ``n_rows`` are padding of weight zero."""

    x: Array
    weights: Array
    n_rows: int


class ArraySource:
    """An array, or a memory map, as a source of blocks.

    >>> [len(x) for x, _ in ArraySource(np.zeros((5, 2)), rows=2)]
    [2, 2, 1]
    """

    def __init__(
        self,
        x: Any,
        sample_weight: Any = None,
        rows: int = 1 << 16,
        columns: list[str] | None = None,
    ) -> None:
        """Keep samples (N, D) and weights (N,), to be yielded ``rows`` at a time.

        The names of the columns, if they have any, are those in error messages.
        """
        self.x, self.weights, self._rows = x, sample_weight, rows
        self.columns = columns
        self.n_rows = len(x)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yield blocks and their weights, from the first row on."""
        for start in range(0, self.n_rows, self._rows):
            part = slice(start, start + self._rows)
            yield self.x[part], None if self.weights is None else self.weights[part]


def as_source(source: Any, sample_weight: Any = None) -> Iterable[Any]:
    """Convert an array, a data frame or a function to an iterable that can be read repeatedly.

    Args:
      source: an array or data frame (N, D), an iterable that starts anew each time it is iterated,
        or a function that returns one.
      sample_weight: weights (N,), if the source is an array.

    Returns:
      An iterable over blocks: arrays (B, D), or pairs of an array and its weights.

    Raises:
      DataError: an iterator, which can be read only once, or an object that cannot be iterated.

    >>> [x.shape for x, weights in as_source(np.zeros((3, 2)))]
    [(3, 2)]
    """
    refuse_sparse(source, "x")
    columns = None
    if is_table(source):
        columns, source = names_of(source), as_array(source)
    if hasattr(source, "ndim"):
        return array_source(source, sample_weight, columns)
    if sample_weight is not None:
        raise DataError("sample_weight goes with an array; a source yields pairs (x, weights).")
    if isinstance(source, Iterator):
        raise DataError(
            f"the source is {type(source).__name__}, which can be read only once, and a fit takes "
            "many passes. Give the function that makes it, or an object whose __iter__ does."
        )
    if callable(source) and not isinstance(source, Iterable):
        return _FromFunction(source)
    if not isinstance(source, Iterable):
        raise DataError(f"the source is {type(source).__name__}, which yields no blocks.")
    return source


def array_source(x: Any, sample_weight: Any = None, columns: list[str] | None = None) -> Any:
    """Return an array and its weights as a source, after a check of their shapes.

    Args:
      x: samples (N, D), which are read and checked block by block.
      sample_weight: weights (N,), or None.
      columns: names of the columns, for error messages.

    Raises:
      DataError: x is not two-dimensional, or the weights are not one number a row.
    """
    check_two_dimensional(x.shape, "x")
    if sample_weight is not None:
        sample_weight = np.asarray(as_numbers(sample_weight, "sample_weight"))
        check_weights_shape(sample_weight.shape, len(x))
    return ArraySource(x, sample_weight, columns=columns)


class _FromFunction:
    """An iterable that calls a function for a new iterator each time it is iterated."""

    def __init__(self, make: Callable[[], Iterable[Any]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return iter(self._make())


def _to_arrays(item: Any, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Convert a block of a source to samples (B, D) and weights (B,) or None, and check them."""
    x, weights = item if isinstance(item, tuple) else (item, None)
    x = np.asarray(as_numbers(x, f"block {number}"))
    if x.ndim != 2:
        raise DataError(
            f"block {number} is an array of {x.dtype} of shape {x.shape}; samples are rows of "
            "numbers, (B, D)."
        )
    if weights is None:
        return x, None
    weights = np.asarray(as_numbers(weights, f"the weights of block {number}"))
    if weights.shape != x.shape[:1]:
        raise DataError(
            f"the weights of block {number} are {weights.dtype} of shape {weights.shape}; they "
            f"must be numbers, one for each of its {len(x)} rows."
        )
    return x, weights


def peek(source: Iterable[Any]) -> tuple[int, np.dtype] | None:
    """Return D and the dtype of the fit, from the first block of a source; None if it is empty.

    >>> peek([np.ones((2, 3), np.float32)])
    (3, dtype('float32'))
    """
    for item in source:
        x, _ = _to_arrays(item, 0)
        return x.shape[1], np.dtype(float_dtype(x.dtype))
    return None


def default_block_rows(n_features: int, dtype: np.dtype, n_total: int | None = None) -> int:
    """Return the default number of rows of a block, a power of two.

    A block takes at most ``budget.STREAM_BLOCK_BYTES``, unless that is fewer than 1024 rows.

    Args:
      n_features: D.
      dtype: of the samples.
      n_total: number of all rows, if it is known. A block then holds at most a 64th of them, but
        256 at least, so that several processes can divide the blocks evenly.

    >>> default_block_rows(8, np.dtype(np.float32))
    1048576
    >>> default_block_rows(8, np.dtype(np.float32), n_total=100_000)
    1024
    """
    rows = max(1024, budget.STREAM_BLOCK_BYTES // (n_features * dtype.itemsize))
    if n_total is not None:
        rows = min(rows, max(256, n_total // 64))
    return 1 << (rows.bit_length() - 1)


def rebatch(source: Iterable[Any], rows: int, n_features: int, dtype: np.dtype) -> Iterator[Block]:
    """Cut and join the blocks of a source to blocks of one shape, on the device.

    Args:
      source: yields arrays (b, D), or pairs of an array and its weights (b,), of any length b.
      rows: B, the number of rows of each block returned.
      n_features: D.
      dtype: float32 or float64; integers and float16 are converted.

    Returns:
      An iterator over blocks of B rows, at least one; the last is padded with rows of weight zero.

    Raises:
      DataError: a block with another number of columns, or one that does not hold numbers.

    >>> blocks = rebatch([np.zeros((3, 1)), np.zeros((2, 1))], 4, 1, np.dtype(np.float32))
    >>> [(block.x.shape, block.n_rows) for block in blocks]
    [((4, 1), 4), ((4, 1), 1)]
    """
    ones = jnp.ones(rows, dtype)
    x, weights = _aligned_array(rows, n_features, dtype), np.ones(rows, dtype)
    filled, unweighted, empty = 0, True, True
    for number, item in enumerate(source):
        part, part_weights = _to_arrays(item, number)
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
                unweighted = False
            filled, taken = filled + n, taken + n
            if filled == rows:
                on_device = ones if unweighted else jax.device_put(weights)
                yield Block(jax.device_put(x), on_device, rows)
                filled, unweighted, empty = 0, True, False
                x, weights = _aligned_array(rows, n_features, dtype), np.ones(rows, dtype)
    if filled or empty:
        x[filled:], weights[filled:] = 0, 0
        yield Block(jax.device_put(x), jax.device_put(weights), filled)


def _aligned_array(rows: int, n_features: int, dtype: np.dtype) -> np.ndarray:
    """Allocate an array aligned to 64 bytes: XLA on a CPU then uses its memory without a copy."""
    n_bytes = rows * n_features * dtype.itemsize
    raw = np.empty(n_bytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n_bytes].view(dtype).reshape(rows, n_features)
