"""Classes: reading their labels, refusing those that cannot be learned, counting confusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgmm._core.errors import DataError
from jgmm._core.pytree import is_traced

Name = str | int | bool


_KINDS: tuple[tuple[type, ...], ...] = ((str,), (bool, np.bool_), (int, np.integer))


def read_labels(
    labels: Any, n_samples: int, used: np.ndarray
) -> tuple[np.ndarray, tuple[Name, ...]]:
    """Find the classes that occur, and number them.

    Args:
      labels: class of each sample, (N,): whole numbers, text or truth values.
      n_samples: N.
      used: which samples are not missing, (N,), at least one; the labels of others are not read.

    Returns:
      For each sample an index into the names, 0 where it is missing, on the host, where the number
      of classes can be seen; and the names that occur, in increasing order.

    Raises:
      DataError: not one label a sample, one that is missing, fractions, or kinds mixed.

    >>> read_labels(["b", "a", "b"], 3, np.ones(3, bool))
    (array([1, 0, 1]), ('a', 'b'))
    """
    values = _plain(labels, n_samples, used)
    names = np.unique(values)
    indices = np.zeros(n_samples, int)
    indices[used] = np.searchsorted(names, values)
    return indices, tuple(names.tolist())


def class_indices(labels: Any, class_names: Sequence[Name]) -> Int[Array, "N"]:
    """Labels as indices into the names of classes that are known.

    Args:
      labels: class of each sample, (N,).
      class_names: such as ``Classifier.class_names``.

    Raises:
      DataError: a label that is none of the names; the text says in which row.

    >>> class_indices(["b", "a"], ("a", "b")).tolist()
    [1, 0]
    """
    n_samples = len(labels)
    values = _plain(labels, n_samples, np.ones(n_samples, bool)).tolist()
    place = {name: i for i, name in enumerate(class_names)}
    for row, value in enumerate(values):
        if value not in place:
            raise DataError(f"label {value!r} in row {row} is none of {list(class_names)}.")
    return jnp.asarray([place[value] for value in values], int)


def _plain(labels: Any, n_samples: int, used: np.ndarray) -> np.ndarray:
    """The labels of the samples used, as a NumPy array of whole numbers, text or truth values."""
    host = np.asarray(labels)
    if host.shape != (n_samples,):
        raise DataError(
            f"labels must be one a sample, shape ({n_samples},); they have shape {host.shape}."
        )
    values = host[used]
    if values.dtype.kind in "iubU":
        return values
    listed = values.tolist()
    for kind in _KINDS:
        if all(isinstance(value, kind) for value in listed):
            return np.asarray(listed)
    known = tuple(one for kind in _KINDS for one in kind)
    for row, value in zip(np.flatnonzero(used), listed, strict=True):
        if not isinstance(value, known):
            raise DataError(
                f"the label in row {row} is {value!r}; labels must be whole numbers, text or truth "
                "values. Convert them, or drop the row (a sample weight of zero drops a row)."
            )
    raise DataError("labels mix numbers, text and truth values; they must be of one kind.")


def read_priors(priors: Any, class_names: Sequence[Name], dtype: Any) -> Float[Array, "C"]:
    """Given probabilities of classes, checked and normalised.

    Raises:
      DataError: not one a class, negative, or a sum that is not one to within 1e-4.
    """
    given = jnp.asarray(priors, dtype)
    if given.shape != (len(class_names),):
        raise DataError(
            f"priors must have shape ({len(class_names)},), one for each of the classes "
            f"{list(class_names)}; they have {given.shape}."
        )
    if not is_traced(given) and not bool((given >= 0).all() & (jnp.abs(given.sum() - 1) < 1e-4)):
        raise DataError(f"priors must be nonnegative and sum to one; they are {given.tolist()}.")
    return given / given.sum()
