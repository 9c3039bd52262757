"""Checks of a classifier's arguments (samples, labels, class sizes, options) and of its status."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core.arguments import check_key
from jgmm._core.errors import DataError, FitError, shown
from jgmm._core.pytree import is_traced
from jgmm._core.status import RIDGE_ADVICE, USABLE, describe
from jgmm._data.samples import Samples, make_samples
from jgmm._data.validation import counted_rows
from jgmm.classifier.labels import Name, read_labels, read_priors
from jgmm.covariance.models import MODELS, model
from jgmm.covariance.storage import Full
from jgmm.em.options import AcceptedOptions, Control, Options

ACCEPTED = AcceptedOptions(defaults=Options(covariance="general"))
SINGULAR = (
    "Its covariance is singular. Likely causes, in order: columns that are constant within the "
    "class, columns that determine each other, repeated rows. Drop such columns, or use "
    f"covariance='aligned', shared=True or {RIDGE_ADVICE}."
)


@dataclass(frozen=True)
class ClassificationProblem:
    """The checked arguments of a classifier's fit.

    Attributes:
      samples: N samples in D dimensions.
      labels: index of the class of each sample, (N,), 0 where the sample is missing.
      class_names: names of the C classes.
      n_components: number of Gaussians in each class.
      covariance: name of the covariance model.
      priors: P(y = c), (C,), or None to estimate them.
      control: tolerances and ridge.
      options: options of the fits of mixtures.
    """

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


def check_arguments(
    x: Any,
    labels: Any,
    n_components: Any,
    shared: bool,
    priors: Any,
    sample_weight: Any,
    key: Any,
    options: Options,
) -> ClassificationProblem:
    """Check and complete the arguments of a fit.

    Args:
      x, labels, n_components, shared, priors, sample_weight, key: as for ``fit``.
      options: the options of the fit.

    Raises:
      DataError: an argument that ``fit`` does not accept.
    """
    samples = make_samples(x, sample_weight)
    used = counted_rows(samples.weights, samples.n_samples)
    indices, names = read_labels(labels, samples.n_samples, used)
    if len(names) < 2:
        raise DataError(f"labels hold one class only, {names[0]!r}; a classifier needs two.")
    given = [n_components] * len(names) if np.ndim(n_components) == 0 else list(n_components)
    counts = tuple(int(k) if isinstance(k, np.integer) else k for k in given)
    if len(counts) != len(names) or not all(isinstance(k, int) and k >= 1 for k in counts):
        raise DataError(
            f"n_components must be a whole number of at least 1, or {len(names)} of them, one a "
            f"class; it is {shown(n_components)}."
        )
    entry = options.entry
    if not isinstance(options.init, str):
        raise DataError("init must be a name here: every class has starts of its own.")
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
    return ClassificationProblem(
        samples,
        indices,
        names,
        counts,
        entry.name,
        None if priors is None else read_priors(priors, names, dtype),
        options.control(samples, len(names)),
        replace(options, covariance=entry.name),
    )


def weights_of(samples: Samples) -> Array:
    """Return the weights of the samples, or ones if none were given."""
    if samples.weights is None:
        return jnp.ones(samples.n_samples, samples.x.dtype)
    return samples.weights


def check_sizes(problem: ClassificationProblem, n_folds: int | None = None) -> None:
    """Check that classes have enough samples for their covariances to be regular.

    Args:
      problem: the checked arguments.
      n_folds: if given, each class is counted without the largest of its folds.

    Raises:
      DataError: too few samples; the text names the class, or has the total where classes share one
        covariance.
    """
    used = problem.labels[counted_rows(problem.samples.weights, problem.samples.n_samples)]
    sizes, where = np.bincount(used, minlength=len(problem.class_names)), ""
    if n_folds is not None:
        sizes, where = sizes - -(-sizes // n_folds), f" without one of {n_folds} folds"
    entry, d = model(problem.covariance), problem.samples.n_features
    ridge = problem.control.ridge
    regular = is_traced(ridge) or float(ridge) > 0
    rank = d if entry.storage is Full else 1
    # Classes share no parameter if two of them have twice as many as one.
    separate = entry.count(2, d) == 2 * entry.count(1, d)
    ridge_too = "" if regular else "a ridge such as ridge=1e-6, "
    advice = f"Use a simpler covariance model, shared=True, {ridge_too}or more data"
    for name, size, k in zip(
        problem.class_names, sizes.tolist(), problem.n_components, strict=True
    ):
        smallest = max(k, rank + 1 if separate and not regular else 1)
        if size < smallest:
            raise DataError(
                f"class {name!r} has {size} sample(s){where}; {k} {entry.name!r} Gaussian(s) in "
                f"{d} column(s) need at least {smallest}. {advice}, or drop the class."
            )
    total, smallest = int(sizes.sum()), rank + len(sizes)
    if entry.shared and problem.single and not regular and total < smallest:
        raise DataError(
            f"there are {total} samples{where}; one covariance shared by {len(sizes)} classes in "
            f"{d} column(s) needs at least {smallest}. {advice}."
        )


def check_status(problem: ClassificationProblem, status: Array, where: str = "") -> None:
    """Raise a FitError for the first class that failed; inside a transformation do nothing.

    Args:
      problem: the checked arguments.
      status: code of the ``Status`` of each class, (C,).
      where: added after the name of the class, such as the fold.
    """
    if is_traced(status):
        return
    for name, code in zip(problem.class_names, status.tolist(), strict=True):
        if code not in USABLE:
            reason = SINGULAR if problem.single else describe(code)
            raise FitError(f"Class {name!r}{where}: {reason}")
