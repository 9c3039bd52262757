"""Samples, their weights, and the frame a fit sees them in.

Public functions take lists, NumPy arrays, data frames or JAX arrays; ``as_samples`` and
``as_weights`` turn them into checked JAX arrays, once. ``Samples`` hands them to the engine block
by block, shifted and scaled into a ``Frame`` in which the numbers are of order one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jgmm.dataframes import as_array, names_of
from jgmm.forms import Full
from jgmm.precision import jit
from jgmm.status import DataError, is_traced

# Fields of pytrees. To a type checker they are arrays; at run time they may be anything, because
# transformations rebuild a pytree with placeholders and with leading batch axes.
if TYPE_CHECKING:
    Leaf = Array
else:
    Leaf = Any

Sums = TypeVar("Sums")
Rows = TypeVar("Rows")


def column_names(x: Any) -> list[str]:
    """Names of the columns of a data frame, or ``x0``, ``x1``, … for an array.

    >>> column_names([[1.0, 2.0]])
    ['x0', 'x1']
    """
    named = names_of(x)
    if named is not None:
        return named
    shape = np.shape(x)
    return [f"x{i}" for i in range(shape[1] if len(shape) > 1 else 1)]


def as_samples(x: Any, name: str = "x", weights: Array | None = None) -> Float[Array, "N D"]:
    """Turn samples into a checked two-dimensional floating-point array.

    Args:
      x: samples in rows: a list, NumPy or JAX array, or a data frame of numbers, of pandas, polars,
        Arrow or anything else narwhals reads (``jgmm.dataframes``). float32 and float64 are kept
        where JAX allows; integers and booleans become JAX's default float.
      name: what error messages call it.
      weights: rows of weight zero count as missing and may hold anything.

    Returns:
      The samples, (N, D). Inside a transformation values are not inspected.

    Raises:
      DataError: wrong rank, no rows or columns, text, NaN or missing, infinite values, or values
        so large that their squares overflow; the text names row and column.
    """
    array = _as_table(x, name)
    _check_values(array, x, name, weights)
    return array


def _as_table(x: Any, name: str) -> Float[Array, "N D"]:
    """The samples as an array of two dimensions, whatever its values."""
    host = _numbers(x, name)
    _check_shape(host.shape, name)
    return jnp.asarray(host, dtype=float_dtype(host.dtype))


def _check_values(array: Array, x: Any, name: str, weights: Array | None) -> None:
    """Refuse values that sums of squares cannot bear; ``x`` is where column names come from."""
    if is_traced(array):
        return
    weights = None if is_traced(weights) else weights
    sound = all_usable(array, weights)
    if is_traced(sound):  # known data inside somebody's jit: its values are not to be had there
        return
    if not bool(sound):
        refuse_values(array, weights, name, column_names(x))


def refuse_values(
    array: Float[Array, "N D"],
    weights: Array | None,
    name: str,
    columns: list[str] | None = None,
    first_row: int = 0,
) -> NoReturn:
    """Name the first value that is not usable; ``first_row`` is the number of row 0."""
    usable = np.asarray(_usable(array, weights))
    row, column = (int(i) for i in np.argwhere(~np.asarray(usable))[0])
    n_bad = int((~usable).any(axis=1).sum())
    called = columns or column_names(array)
    affected = [called[i] for i in np.flatnonzero((~usable).any(axis=0))]
    where = f", in the columns {_listed(affected)}" if len(affected) > 1 else ""
    raise DataError(
        f"{name} holds {array[row, column]} in row {first_row + row}, column {called[column]!r}; "
        f"{n_bad} row(s) have missing (NaN), infinite or overflowing values{where}. Drop those "
        "rows (a sample weight of zero drops a row), repair them, or rescale the column."
    )


def _listed(names: list[str], most: int = 8) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


@jit
def all_usable(x: Float[Array, "N D"], weights: Array | None) -> Array:
    """Whether no value that counts is NaN, infinite, or so large that squares overflow."""
    return _usable(x, weights).all()  # in one pass that writes nothing


@jit
def _usable(x: Float[Array, "N D"], weights: Array | None) -> Array:
    limit = jnp.sqrt(jnp.finfo(x.dtype).max) / x.shape[1]  # the sum of squares must not overflow
    usable = jnp.abs(x) < limit  # false for NaN
    return usable if weights is None else usable | (weights == 0)[:, None]


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if len(shape) != 2:
        raise DataError(
            f"{name} must be two-dimensional, samples in rows; it has shape {shape}. "
            "One feature: x[:, None]; one sample: x[None, :]."
        )
    if 0 in shape:
        raise DataError(f"{name} is empty: its shape is {shape}.")


def _numbers(x: Any, name: str) -> np.ndarray | Array:
    """An array of real numbers, or an error naming the first value that is not one."""
    x = as_array(x, name)
    try:
        array = jnp.asarray(x) if is_traced(x) or isinstance(x, jax.Array) else np.asarray(x)
    except ValueError as error:
        raise DataError(f"{name} is not rectangular: {error}") from error
    if any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        return array
    if array.dtype.kind not in "OUST":
        raise DataError(f"{name} holds {array.dtype} values; they must be real numbers.")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        pass_over = np.ndenumerate(array)
    for index, value in pass_over:
        try:
            float(value)
        except (TypeError, ValueError):
            column = f", column {column_names(x)[index[1]]!r}" if len(index) == 2 else ""
            raise DataError(
                f"{name} holds {str(value)!r} in row {index[0] if index else 0}{column}, which is "
                "not a number. Choose numeric columns, or encode this one."
            ) from None
    raise DataError(f"{name} cannot be read as numbers (dtype {array.dtype}).")


def float_dtype(dtype: Any) -> Any:
    """The type samples of some type are fitted in: float32 and float64 stay where JAX allows."""
    if dtype == np.longdouble:
        return jax.dtypes.canonicalize_dtype(float)
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32:
        return jax.dtypes.canonicalize_dtype(dtype)
    return jnp.float32 if dtype == np.float16 else jax.dtypes.canonicalize_dtype(float)


def as_weights(sample_weight: Any, n_samples: int, dtype: Any) -> Float[Array, "N"] | None:
    """Turn sample weights into a checked array, or leave None.

    Args:
      sample_weight: how many times each sample counts, (N,), nonnegative, not all zero.
      n_samples: N.
      dtype: the samples' dtype.

    Raises:
      DataError: no numbers, wrong length, negative, not finite, or all zero; the text names the
        row.
    """
    if sample_weight is None:
        return None
    weights = jnp.asarray(_numbers(sample_weight, "sample_weight"), dtype)
    if weights.shape != (n_samples,):
        raise DataError(
            f"sample_weight must have one entry a sample, shape ({n_samples},); it has shape "
            f"{weights.shape}."
        )
    if is_traced(weights):
        return weights
    bad = np.flatnonzero(~(np.isfinite(weights) & (np.asarray(weights) >= 0)))
    if bad.size:
        raise DataError(
            f"sample_weight holds {weights[bad[0]]} in row {bad[0]}; weights must be finite and "
            "at least zero."
        )
    if not bool((weights > 0).any()):
        raise DataError("sample_weight is zero for every sample; at least one must count.")
    return weights


def check_key(key: Any) -> Array:
    """Return a typed random key, or say how to make one.

    Raises:
      TypeError: not made by ``jax.random.key``.
    """
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise TypeError(f"key must be a typed key such as jax.random.key(0), not {type(key)}.")
    return key


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frame:
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
    def turns(self) -> bool:
        """Whether a coordinate in the frame depends on more than one column."""
        return bool(jnp.ndim(self.scale) == 2)

    def log_volume(self) -> Array:
        """log |S|: what a log density in the frame exceeds the user's by, in nats."""
        return jnp.log(jnp.diagonal(self.scale) if self.turns else self.scale).sum()

    def unit_variances(self, times: Any = 1.0) -> Float[Array, "D D"]:
        """The covariance, seen in the frame, that has S Sᵀ's variances and no correlations.

        The unit matrix where the frame turns nothing: what a ridge is a multiple of.

        Args:
          times: what it is multiplied by, one number, or one a column, (D,).
        """
        each = jnp.broadcast_to(jnp.asarray(times, self.shift.dtype), self.shift.shape)
        if not self.turns:
            return jnp.diag(each)
        root = self.inverse * jnp.sqrt((self.scale**2).sum(axis=1))[None, :]
        return root @ (each[None, :] * root).T


def scaling_frame(shift: Float[Array, "D"], scale: Float[Array, "D"]) -> Frame:
    """The frame that scales every column."""
    return Frame(shift, scale, 1 / scale)


def identity_frame(n_features: int, dtype: Any) -> Frame:
    """The frame in which samples are seen as they are."""
    return scaling_frame(jnp.zeros(n_features, dtype), jnp.ones(n_features, dtype))


@runtime_checkable
class Population(Protocol):
    """What a step must know of all samples once it has their statistics."""

    @property
    def frame(self) -> Frame:
        """The frame the statistics are taken in."""

    def total_weight(self) -> Array:
        """Σ_n w_n, the number of samples there are in effect."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Census:
    """The ``Population`` of samples that are elsewhere: in a file, or on other devices."""

    frame: Frame
    total: Leaf

    def total_weight(self) -> Array:
        """Σ_n w_n."""
        return self.total


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


def as_labels(labels: Any, n_samples: int) -> Int[Array, "N"] | None:
    """Turn known labels into a checked array, or leave None.

    Args:
      labels: the component each sample is known to be of, (N,), whole numbers; -1 where unknown.
      n_samples: N.

    Raises:
      DataError: no whole numbers, wrong length, or below -1; the text names the row.
    """
    return None if labels is None else jnp.asarray(checked_labels(labels, n_samples))


def checked_labels(labels: Any, n_samples: int) -> Any:
    """``as_labels`` of labels that stay where they are: on the host, also inside a transformation.

    Raises:
      DataError: see ``as_labels``.
    """
    host = labels if is_traced(labels) else np.asarray(labels)
    if host.shape != (n_samples,) or host.dtype.kind not in "iu":
        raise DataError(
            f"labels must be {n_samples} whole numbers, one a sample; they have shape "
            f"{host.shape} and dtype {host.dtype}."
        )
    if not is_traced(host) and (host < -1).any():
        row = int(np.argmax(host < -1))
        raise DataError(f"labels holds {host[row]} in row {row}; an unknown one is -1.")
    return host


def make_samples(x: Any, sample_weight: Any = None, labels: Any = None) -> Samples:
    """Check samples, weights and labels and see them as they are, in the identity frame.

    Raises:
      DataError: see ``as_samples``, ``as_weights`` and ``as_labels``.
    """
    array = _as_table(x, "x")
    weights = as_weights(sample_weight, len(array), array.dtype)
    _check_values(array, x, "x", weights)
    frame = identity_frame(array.shape[1], array.dtype)
    return Samples(array, weights, frame, as_labels(labels, len(array)))


def framed(samples: Samples, per_column: bool) -> Samples:
    """See samples in their own frame: mean zero and variance one.

    Args:
      samples: in the identity frame.
      per_column: scale each column by its own standard deviation, which suits covariance models
        that keep their form when columns change their units; otherwise all columns by one number,
        the root mean square of those deviations.

    A column of zero variance is scaled by one.
    """
    x, weights = samples.x, samples.weights
    # Sums are taken relative to one sample that counts, so that an offset costs no digits.
    first = x[0] if weights is None else x[jnp.argmax(weights > 0)]
    total = samples.total_weight()
    block = min(samples.n_samples, 8192)

    def centred(shift: Array) -> Samples:
        return replace(samples, frame=scaling_frame(shift, jnp.ones_like(shift)))

    mean = first + fold(centred(first), block, lambda x, w, _: w @ x) / total
    variance = fold(centred(mean), block, lambda x, w, _: w @ x**2) / total
    return replace(samples, frame=standard_frame(mean, variance, per_column))


def standard_frame(mean: Float[Array, "D"], variance: Float[Array, "D"], per_column: bool) -> Frame:
    """The frame of ``framed`` for data of known mean and variances."""
    if not per_column:
        variance = jnp.full_like(variance, variance.mean())
    return scaling_frame(mean, jnp.where(variance > 0, jnp.sqrt(variance), 1))


def whitened(samples: Samples) -> Samples:
    """See samples where their covariance is the unit matrix: C + δ = L Lᵀ, z = L⁻¹ x.

    Columns that nearly determine each other then cost no digits, and what is a small variance is
    small next to the data's own in that direction. It suits models that keep their form under
    every linear map.

    Args:
      samples: N samples, framed column by column, so that C are their correlations.

    A direction in which the data have no extent, but for rounding, keeps none: δ, a few roundings,
    is what makes C invertible.
    """
    block = min(samples.n_samples, 8192)
    second = fold(samples, block, lambda x, w, _: (w[:, None] * x).T @ x)
    frame = whitening_frame(samples.frame, second / samples.total_weight())
    return replace(samples, frame=frame)


def whitening_frame(frame: Frame, correlation: Float[Array, "D D"]) -> Frame:
    """The frame of ``whitened``, from the one column by column and the correlations seen in it."""
    d, dtype = len(correlation), correlation.dtype
    constant = jnp.diagonal(correlation) == 0
    tiny = 8 * d * jnp.finfo(dtype).eps
    root = jnp.linalg.cholesky(correlation + jnp.diag(jnp.where(constant, 1, tiny).astype(dtype)))
    inverse = Full.invert(root[None])[0]
    return Frame(frame.shift, frame.scale[:, None] * root, inverse * frame.inverse[None, :])


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
