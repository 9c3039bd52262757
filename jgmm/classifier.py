"""The Gaussian Bayes classifier: labels are known, and each class has a Gaussian or a mixture.

``P(y = c | x) = P(y = c) p(x | y = c) / Σ_c' P(y = c') p(x | y = c')``. With one Gaussian a class
the fit is the M-step of EM with labels for responsibilities, so every covariance model serves:
``full`` is quadratic and ``tied`` linear discriminant analysis, ``diag`` is naive Bayes.
References: Bishop (2006), section 4.2; for mixtures Hastie & Tibshirani (1996).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jgmm.classes import (
    Name,
    Problem,
    check_sizes,
    check_status,
    class_indices,
    confusion_matrix,
    pose,
    weights_of,
)
from jgmm.control import Options
from jgmm.covariance import model
from jgmm.crossvalidation import assign_folds, check_folds
from jgmm.degeneracy import collapsed_components
from jgmm.framing import seen, to_user
from jgmm.inputs import as_samples, check_key
from jgmm.maximization import from_responsibilities, maximize, ridge_in
from jgmm.mixture import Mixture, normalise
from jgmm.mixture import log_prob as mixture_log_prob
from jgmm.precision import jit
from jgmm.pytree import Leaf
from jgmm.restarts import fit_unchecked
from jgmm.samples import Samples
from jgmm.status import USABLE, DataError, Status, among

__all__ = [
    "Classifier",
    "CrossValidation",
    "class_indices",
    "class_mixture",
    "confusion_matrix",
    "cross_validate",
    "fit",
    "log_joint",
    "log_prob",
    "n_parameters",
    "posterior",
    "predict",
    "predict_names",
]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Classifier:
    """Prior and density of each of C classes.

    Attributes:
      log_priors: log P(y = c), (C,).
      mixtures: p(x | y = c), with a leading axis of classes on every leaf; classes with fewer
        components than others are padded with components of weight zero.
      class_names: what the classes are called, in increasing order (static).
      n_components: of each class, padding left out (static).
    """

    log_priors: Leaf
    mixtures: Mixture
    class_names: tuple[Name, ...] = field(metadata={"static": True})
    n_components: tuple[int, ...] = field(metadata={"static": True})

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.class_names)

    @property
    def priors(self) -> Array:
        """P(y = c), (C,)."""
        return jnp.exp(self.log_priors)


def fit(
    x: Any,
    labels: Any,
    *,
    covariance: str = "general",
    n_components: int | Sequence[Any] = 1,
    shared: bool = False,
    priors: Any = None,
    sample_weight: Any = None,
    ridge: float = 0.0,
    key: Key[Array, ""] | None = None,
    n_restarts: int = 16,
    tol: float | None = None,
    max_steps: int = 1000,
) -> Classifier:
    """Learn the prior and the density of each class from labelled samples.

    Args:
      x: samples in rows, (N, D).
      labels: class of each sample, (N,): whole numbers, text or truth values.
      covariance: name of the covariance model. With one Gaussian a class it says what classes
        share, so "tied" has one covariance for all; with more, what a class's components share.
      n_components: Gaussians a class, one number for all or one for each in the order of
        ``class_names``. More than one needs a ``key``.
      shared: one covariance of the given form, pooled over classes; for one Gaussian a class.
      priors: P(y = c), (C,), in the order of ``class_names``; by default the classes' shares of
        the total weight.
      sample_weight: how many times each sample counts, (N,); zero equals a missing row.
      ridge: added to every variance, as a fraction of the data's.
      key: typed key, for mixtures; class c uses ``fold_in(key, c)``.
      n_restarts, tol, max_steps: as for ``jgmm.fit``, for mixtures.

    Returns:
      A ``Classifier``, the maximum-likelihood fit; for mixtures the best of the restarts.
      Covariances are divided by the number of samples, not by that number less one.

    Raises:
      DataError: bad samples, labels, weights or arguments; fewer than two classes; a class with
        too few samples.
      FitError: the covariance of a class is singular, or no restart of its mixture ended valid.

    ``x`` and ``sample_weight`` may be traced; then nothing is raised, and what failed is NaN.

    >>> import jgmm
    >>> x, y = [[0.0], [1.0], [9.0], [10.0]], ["small", "small", "big", "big"]
    >>> trained = jgmm.classifier.fit(x, y, shared=True)
    >>> jgmm.classifier.predict_names(trained, [[2.0], [8.0]]).tolist()
    ['small', 'big']
    """
    options = Options(covariance, n_restarts, tol=tol, max_steps=max_steps, ridge=ridge)
    problem = pose(x, labels, covariance, n_components, shared, priors, sample_weight, key, options)
    check_sizes(problem)
    trained, status = _train(problem, key, weights_of(problem.samples))
    check_status(problem, status)
    return trained


def _train(problem: Problem, key: Array | None, weights: Array) -> tuple[Classifier, Array]:
    """Fit all classes to samples weighted anew; status (C,). Works under ``vmap``."""
    names, counts = problem.class_names, problem.n_components
    samples = replace(problem.samples, weights=weights)
    shares = jnp.zeros(len(names), weights.dtype).at[problem.labels].add(weights)
    priors = shares / shares.sum() if problem.priors is None else problem.priors
    if problem.single:
        mixtures, status = _gaussians(
            samples, problem.labels, problem.control.ridge, len(names), problem.covariance
        )
    else:
        mixtures, status = _mixtures(problem, check_key(key), weights)
    valid = among(status, USABLE)
    # Nearly singular is no better than singular: where nothing can be raised, say it by NaN.
    spoil = jax.vmap(lambda ok, scale: jnp.where(ok, scale, jnp.nan))
    mixtures = replace(mixtures, scale=spoil(valid, mixtures.scale))
    return Classifier(jnp.log(priors), mixtures, names, counts), status


@partial(jit, static_argnums=(3, 4))
def _gaussians(
    samples: Samples, labels: Array, ridge: Array, n_classes: int, covariance: str
) -> tuple[Mixture, Array]:
    """The M-step with labels for responsibilities, its components taken apart as classes."""

    def resp(rows: Array) -> Array:
        return jax.nn.one_hot(labels[rows], n_classes, dtype=samples.x.dtype)

    inside = seen(samples, model(covariance))
    statistics = from_responsibilities(inside, resp, n_classes, covariance)
    fitted = maximize(statistics, covariance, ridge_in(inside.frame, ridge))
    broken = collapsed_components(fitted, fitted, inside.frame)
    fitted = to_user(fitted, inside.frame)
    scale = jnp.broadcast_to(fitted.scale, (n_classes, *fitted.scale.shape[1:]))
    one_each = Mixture(
        jnp.zeros((n_classes, 1), scale.dtype), fitted.means[:, None], scale[:, None], covariance
    )
    return one_each, jnp.where(broken, int(Status.COLLAPSED), int(Status.CONVERGED))


def _mixtures(problem: Problem, key: Array, weights: Array) -> tuple[Mixture, Array]:
    """A mixture for each class, fitted with the samples of all others missing."""
    samples, fits, widest = problem.samples, [], max(problem.n_components)
    for c, k in enumerate(problem.n_components):
        own = jnp.where(problem.labels == c, weights, 0)
        try:
            fits.append(
                fit_unchecked(
                    jax.random.fold_in(key, c),
                    replace(samples, weights=own),
                    k,
                    problem.options,
                    slots=widest,
                )
            )
        except DataError as error:
            raise DataError(f"class {problem.class_names[c]!r}: {error}") from error
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[fit.mixture for fit in fits])
    return stacked, jnp.stack([fit.status for fit in fits])


def _samples_for(classifier: Classifier, x: Any) -> Array:
    samples = as_samples(x)
    d = classifier.mixtures.n_features
    if samples.shape[1] != d:
        raise DataError(f"x has {samples.shape[1]} columns; the classifier was made for {d}.")
    return samples.astype(classifier.log_priors.dtype)


@jit
def _log_joint(classifier: Classifier, x: Array) -> Array:
    log_probs = jax.vmap(mixture_log_prob, in_axes=(0, None))(classifier.mixtures, x)
    return (classifier.log_priors[:, None] + log_probs).T


@jit
def _normalise(joint: Array) -> tuple[Array, Array]:
    return jax.vmap(normalise)(joint)


def log_joint(classifier: Classifier, x: Any) -> Float[Array, "N C"]:
    """``log P(y = c) + log p(x | y = c)``, in nats: all that a decision depends on.

    Raises:
      DataError: bad samples, or another number of columns than the classifier was made for.
    """
    return _log_joint(classifier, _samples_for(classifier, x))


def log_prob(classifier: Classifier, x: Any) -> Float[Array, "N"]:
    """Log density of samples whatever their class, ``log Σ_c P(y = c) p(x | y = c)``, in nats."""
    return _normalise(log_joint(classifier, x))[0]


def posterior(classifier: Classifier, x: Any) -> Float[Array, "N C"]:
    """Probability of each class given the sample, ``P(y = c | x)``, by Bayes' rule; rows sum to 1.

    Columns are in the order of ``class_names``. A class of prior zero gets exactly zero.

    >>> import jgmm
    >>> trained = jgmm.classifier.fit([[0.0], [1.0], [3.0], [4.0]], [False, False, True, True])
    >>> posterior(trained, [[2.0]]).tolist()
    [[0.5, 0.5]]
    """
    return jnp.exp(_normalise(log_joint(classifier, x))[1])


def predict(classifier: Classifier, x: Any) -> Int[Array, "N"]:
    """The most probable class of each sample, (N,), as an index into ``class_names``."""
    return jnp.argmax(log_joint(classifier, x), axis=1)


def predict_names(classifier: Classifier, x: Any) -> np.ndarray:
    """The name of the most probable class of each sample, (N,), a NumPy array."""
    return np.asarray(classifier.class_names)[np.asarray(predict(classifier, x))]


def class_mixture(classifier: Classifier, c: int) -> Mixture:
    """The density of one class, ``p(x | y = c)``, without padding."""
    k = classifier.n_components[c]
    own = jax.tree.map(lambda leaf: leaf[c], classifier.mixtures)
    scale = own.scale if own.model.shared else own.scale[:k]
    return Mixture(own.log_weights[:k], own.means[:k], scale, own.covariance)


def n_parameters(classifier: Classifier) -> int:
    """Number of free parameters: C - 1 priors, given or not, and those of the densities.

    >>> import jgmm
    >>> x, y = [[0.0], [1.0], [3.0], [5.0]], [0, 0, 1, 1]
    >>> [n_parameters(jgmm.classifier.fit(x, y, shared=shared)) for shared in (False, True)]
    [5, 4]
    """
    entry, d = classifier.mixtures.model, classifier.mixtures.n_features
    if max(classifier.n_components) == 1:
        return entry.n_parameters(classifier.n_classes, d)
    return classifier.n_classes - 1 + sum(entry.n_parameters(k, d) for k in classifier.n_components)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CrossValidation:
    """How well a classifier predicts samples it has not seen.

    Attributes:
      accuracy: mean over folds of the share of their samples predicted right, ().
      standard_error: of that mean, from the spread of the folds, ().
      per_fold: share predicted right in each fold, (F,).
      predicted: for each sample the class predicted without its fold, (N,); -1 where missing.
      folds: the fold of each sample, (N,).
      class_names: what the classes are called (static).
    """

    accuracy: Leaf
    standard_error: Leaf
    per_fold: Leaf
    predicted: Leaf
    folds: Leaf
    class_names: tuple[Name, ...] = field(metadata={"static": True})


def cross_validate(
    key: Key[Array, ""],
    x: Any,
    labels: Any,
    n_folds: int = 10,
    *,
    covariance: str = "general",
    n_components: int | Sequence[Any] = 1,
    shared: bool = False,
    priors: Any = None,
    sample_weight: Any = None,
    ridge: float = 0.0,
    n_restarts: int = 16,
    tol: float | None = None,
    max_steps: int = 1000,
) -> CrossValidation:
    """Predict every sample by a classifier that was fitted without the sample's fold.

    The folds are stratified: each has its share of every class. All are fitted side by side in one
    program, each with the samples of one fold missing.

    Args:
      key: typed key; the same key deals the same folds whatever the model.
      x: samples in rows, (N, D).
      labels: class of each sample, (N,).
      n_folds: F.
      covariance, n_components, shared, priors, ridge, n_restarts, tol, max_steps: as for ``fit``.
      sample_weight: how many times each sample counts, in fitting and in judging, (N,).

    Returns:
      A ``CrossValidation``.

    Raises:
      DataError: as for ``fit``; or a class that has too few samples without a fold.
      FitError: as for ``fit``, naming the fold.

    Reference: Kohavi (1995).
    """
    deal, fit_key = jax.random.split(check_key(key))
    options = Options(covariance, n_restarts, tol=tol, max_steps=max_steps, ridge=ridge)
    problem = pose(
        x, labels, covariance, n_components, shared, priors, sample_weight, fit_key, options
    )
    samples, truth = problem.samples, jnp.asarray(problem.labels)
    weights = weights_of(samples)
    check_folds(samples, n_folds)
    check_sizes(problem, n_folds)
    folds = assign_folds(deal, samples.n_samples, n_folds, sample_weight=weights, labels=truth)

    def one(f: Array) -> tuple[Array, Array]:
        train = jnp.where(folds == f, 0, weights)
        trained, status = _train(problem, jax.random.fold_in(fit_key, f), train)
        return jnp.argmax(_log_joint(trained, samples.x), axis=1), status

    guesses, status = jax.vmap(one)(jnp.arange(n_folds))
    for f in range(n_folds):
        check_status(problem, status[f], f", without fold {f} of {n_folds}")
    predicted = guesses[folds, jnp.arange(samples.n_samples)]
    zeros = jnp.zeros(n_folds, weights.dtype)
    right = zeros.at[folds].add(jnp.where(predicted == truth, weights, 0))
    per_fold = right / zeros.at[folds].add(weights)
    return CrossValidation(
        per_fold.mean(),
        per_fold.std(ddof=1) / jnp.sqrt(jnp.asarray(n_folds, per_fold.dtype)),
        per_fold,
        jnp.where(weights > 0, predicted, -1),
        folds,
        problem.class_names,
    )
