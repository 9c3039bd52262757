"""Class labels: number the classes that occur, look up known classes, check class priors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgmm._core.errors import DataError, shown
from jgmm._core.pytree import is_traced
from jgmm._data.arrays import split_missing
from jgmm._data.validation import as_numbers

Name = str | int | bool
# Labels must all be of one of these kinds.
_KINDS: tuple[tuple[type, ...], ...] = ((str,), (bool, np.bool_), (int, np.integer))


def read_labels(
    labels: Any, n_samples: int, used: np.ndarray
) -> tuple[np.ndarray, tuple[Name, ...]]:
    """Find the classes that occur in the labels, and number them.

    Args:
      labels: class of each sample, (N,): whole numbers, text or truth values.
      n_samples: N.
      used: mask of the samples that are not missing, (N,), at least one of them; the labels of
        missing samples are not read.

    Returns:
      For each sample an index into the names, 0 where it is missing; and the names that occur, in
      increasing order. The indices are a NumPy array, because the number of classes must be known
      on the host.

    Raises:
      DataError: not exactly one label per sample, a missing label, fractions, or labels of
        different kinds.

    >>> read_labels(["b", "a", "b"], 3, np.ones(3, bool))
    (array([1, 0, 1]), ('a', 'b'))
    """
    values = _plain(labels, n_samples, used)
    names = np.unique(values)
    indices = np.zeros(n_samples, int)
    indices[used] = np.searchsorted(names, values)
    return indices, tuple(names.tolist())


def class_indices(labels: Any, class_names: Sequence[Name]) -> Int[Array, "N"]:
    """Return labels as indices into the names of known classes.

    Args:
      labels: class of each sample, (N,).
      class_names: such as ``Classifier.class_names``.

    Returns:
      Indices from 0 to C - 1, (N,).

    Raises:
      DataError: a label that is none of the names; the text names its row.

    >>> class_indices(["b", "a"], ("a", "b")).tolist()
    [1, 0]
    """
    n_samples = len(labels)
    values = _plain(labels, n_samples, np.ones(n_samples, bool)).tolist()
    index = {name: i for i, name in enumerate(class_names)}
    for row, value in enumerate(values):
        if value not in index:
            raise DataError(f"label {value!r} in row {row} is none of {list(class_names)}.")
    return jnp.asarray([index[value] for value in values], int)


def _plain(labels: Any, n_samples: int, used: np.ndarray) -> np.ndarray:
    """Return the labels of the used samples as an array of whole numbers, text or truth values."""
    host, missing = split_missing(labels)
    if is_traced(host):
        raise DataError(
            "labels are traced: which classes there are must be known outside jit and vmap. Take "
            "the labels from outside the transformation."
        )
    if host.shape != (n_samples,):
        raise DataError(
            f"labels must be one a sample, shape ({n_samples},); they have shape {host.shape}."
        )
    lost = np.flatnonzero(missing & used)
    if lost.size:
        raise DataError(
            f"the label in row {lost[0]} is missing. Give one, or drop the row (a sample weight of "
            "zero drops a row)."
        )
    values = np.asarray(host)[used]
    if values.dtype.kind in "iubU":
        return values
    listed = values.tolist()
    for kind in _KINDS:
        if all(isinstance(value, kind) for value in listed):
            return np.asarray(listed)
    known = tuple(each for kind in _KINDS for each in kind)
    for row, value in zip(np.flatnonzero(used), listed, strict=True):
        if not isinstance(value, known):
            raise DataError(
                f"the label in row {row} is {value!r}; labels must be whole numbers, text or truth "
                "values. Convert them, or drop the row (a sample weight of zero drops a row)."
            )
    raise DataError("labels mix numbers, text and truth values; they must be of one kind.")


def read_priors(priors: Any, class_names: Sequence[Name], dtype: Any) -> Float[Array, "C"]:
    """Check class priors, and normalise them.

    Args:
      priors: probability of each class, (C,).
      class_names: names of the C classes.
      dtype: of the result.

    Raises:
      DataError: not exactly one number per class, a negative number, or a sum that differs from one
        by 1e-4 or more.

    >>> read_priors([0.25, 0.75], ("a", "b"), float).tolist()
    [0.25, 0.75]
    """
    given = jnp.asarray(as_numbers(priors, "priors"), dtype)
    if given.shape != (len(class_names),):
        raise DataError(
            f"priors must have shape ({len(class_names)},), one for each of the classes "
            f"{list(class_names)}; they have {given.shape}."
        )
    if not is_traced(given) and not bool((given >= 0).all() & (jnp.abs(given.sum() - 1) < 1e-4)):
        raise DataError(
            f"priors must be nonnegative and sum to one; they are {shown(given.tolist())}."
        )
    return given / given.sum()
