"""Classes: reading their labels, refusing those that cannot be learned, counting confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgmm.control import Control, Options, make_control
from jgmm.covariance import MODELS, model
from jgmm.forms import Full
from jgmm.inputs import check_key
from jgmm.samples import Samples, make_samples
from jgmm.status import USABLE, DataError, FitError, describe, is_traced

Name = str | int | bool

SINGULAR = (
    "Its covariance is singular. Likely causes, in order: columns that are constant within the "
    "class, columns that determine each other, repeated rows. Drop such columns, or use "
    "covariance='aligned', shared=True or a ridge such as ridge=1e-6."
)

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


@dataclass(frozen=True)
class Problem:
    """What is to be learned, about which classes, and how: the checked arguments of a fit."""

    samples: Samples
    labels: np.ndarray
    class_names: tuple[Name, ...]
    n_components: tuple[int, ...]
    covariance: str
    priors: Array | None
    control: Control
    options: Options

    @property
    def single(self) -> bool:
        """Whether every class has one Gaussian."""
        return max(self.n_components) == 1


def pose(
    x: Any,
    labels: Any,
    covariance: str,
    n_components: Any,
    shared: bool,
    priors: Any,
    sample_weight: Any,
    key: Any,
    options: Options,
) -> Problem:
    """Check and complete the arguments of a fit."""
    samples = make_samples(x, sample_weight)
    indices, names = read_labels(labels, samples.n_samples, _used(samples))
    if len(names) < 2:
        raise DataError(f"labels hold one class only, {names[0]!r}; a classifier needs two.")
    several = [n_components] * len(names) if np.ndim(n_components) == 0 else list(n_components)
    counts = tuple(int(k) if isinstance(k, np.integer) else k for k in several)
    if len(counts) != len(names) or not all(isinstance(k, int) and k >= 1 for k in counts):
        raise DataError(
            f"n_components must be a whole number of at least 1, or {len(names)} of them, one a "
            f"class; it is {n_components!r}."
        )
    entry = model(covariance)
    if max(counts) > 1:
        check_key(key)
        if shared:
            raise DataError(
                "shared=True is for one Gaussian a class. Components share a covariance within "
                "their class with covariance='tied'."
            )
    if shared:
        entry = next(e for e in MODELS.values() if e.shared and e.storage is entry.storage)
    dtype = samples.x.dtype
    return Problem(
        samples,
        indices,
        names,
        counts,
        entry.name,
        None if priors is None else read_priors(priors, names, dtype),
        make_control(dtype, options.tol, None, options.ridge),
        replace(options, covariance=entry.name),
    )


def _used(samples: Samples) -> np.ndarray:
    """Which rows are not missing; all of them where weights are traced."""
    if samples.weights is None or is_traced(samples.weights):
        return np.ones(samples.n_samples, bool)
    return np.asarray(samples.weights) > 0


def weights_of(samples: Samples) -> Array:
    """The weights of the samples, ones where none were given."""
    if samples.weights is None:
        return jnp.ones(samples.n_samples, samples.x.dtype)
    return samples.weights


def check_sizes(problem: Problem, n_folds: int | None = None) -> None:
    """Refuse classes that have too few samples for their covariances to be regular.

    Args:
      problem: what is to be learned.
      n_folds: when given, from what is left of each class without the largest of its folds.

    Raises:
      DataError: naming the class, or the sum of classes where they share one covariance.
    """
    used = problem.labels[_used(problem.samples)]
    sizes, where = np.bincount(used, minlength=len(problem.class_names)), ""
    if n_folds is not None:
        sizes, where = sizes - -(-sizes // n_folds), f" without one of {n_folds} folds"
    entry, d = model(problem.covariance), problem.samples.n_features
    ridge = problem.control.ridge
    regular = is_traced(ridge) or float(ridge) > 0
    rank = d if entry.storage is Full else 1
    # Classes share nothing where two have twice as many parameters as one.
    alone = entry.count(2, d) == 2 * entry.count(1, d)
    advice = "Use a simpler covariance model, shared=True, a ridge such as ridge=1e-6, or more data"
    for name, size, k in zip(
        problem.class_names, sizes.tolist(), problem.n_components, strict=True
    ):
        least = max(k, rank + 1 if alone and not regular else 1)
        if size < least:
            raise DataError(
                f"class {name!r} has {size} sample(s){where}; {k} {entry.name!r} Gaussian(s) in "
                f"{d} column(s) need at least {least}. {advice}, or drop the class."
            )
    total, least = int(sizes.sum()), rank + len(sizes)
    if entry.shared and problem.single and not regular and total < least:
        raise DataError(
            f"there are {total} samples{where}; one covariance shared by {len(sizes)} classes in "
            f"{d} column(s) needs at least {least}. {advice}."
        )


def check_status(problem: Problem, status: Array, where: str = "") -> None:
    """Raise a FitError for the first class that failed; inside a transformation do nothing."""
    if is_traced(status):
        return
    for name, code in zip(problem.class_names, status.tolist(), strict=True):
        if code not in USABLE:
            said = SINGULAR if problem.single else describe(code)
            raise FitError(f"Class {name!r}{where}: {said}")


def confusion_matrix(
    labels: Any, predicted: Any, n_classes: int, sample_weight: Any = None
) -> Array:
    """How often each class was taken for each.

    Args:
      labels: true classes, (N,), whole numbers from 0 to C - 1, as ``class_indices`` gives.
      predicted: predicted classes, (N,), the same.
      n_classes: C.
      sample_weight: how many times each sample counts, (N,); of weight zero, not at all.

    Returns:
      Counts, (C, C): true classes in rows, predicted ones in columns; the trace is what is right.

    Raises:
      DataError: not one label a sample in both, or one out of range.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    truth, guess = np.asarray(labels), np.asarray(predicted)
    weights = np.ones(truth.shape, int) if sample_weight is None else np.asarray(sample_weight)
    if truth.ndim != 1 or not truth.shape == guess.shape == weights.shape:
        raise DataError(
            "labels, predictions and weights must have one entry a sample; their shapes are "
            f"{truth.shape}, {guess.shape} and {weights.shape}."
        )
    counted = weights != 0
    for name, values in (("labels", truth[counted]), ("predictions", guess[counted])):
        if values.dtype.kind not in "iub" or not ((values >= 0) & (values < n_classes)).all():
            raise DataError(f"{name} must be whole numbers from 0 to {n_classes - 1}.")
    matrix = np.zeros((n_classes, n_classes), weights.dtype)
    index = (truth[counted].astype(int), guess[counted].astype(int))
    np.add.at(matrix, index, weights[counted])
    return jnp.asarray(matrix)
