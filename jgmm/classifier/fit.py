"""Fit a Gaussian Bayes classifier: a Gaussian, or a mixture of Gaussians, for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jgmm._core.arguments import check_key
from jgmm._core.compilation import jit, without_debug_nans
from jgmm._core.errors import DataError
from jgmm._core.status import USABLE, Status, among
from jgmm._data.samples import Samples
from jgmm._data.standardization import standardize
from jgmm.classifier.model import Classifier
from jgmm.classifier.problem import (
    ACCEPTED,
    ClassificationProblem,
    check_arguments,
    check_sizes,
    check_status,
    weights_of,
)
from jgmm.covariance.models import model
from jgmm.em.degeneracy import collapsed_components
from jgmm.em.m_step import from_responsibilities, maximize, ridge_in
from jgmm.em.options import Control, OptionKeywords, Options
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.mixture.mixture import Mixture, to_original


@without_debug_nans
@ACCEPTED.signature
def fit(
    x: Any,
    labels: Any,
    *,
    n_components: int | Sequence[Any] = 1,
    shared: bool = False,
    priors: Any = None,
    sample_weight: Any = None,
    key: Key[Array, ""] | None = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Classifier:
    """Fit a Gaussian Bayes classifier to labelled samples: prior and density of each class.

    Args:
      x: samples in rows, (N, D).
      labels: class of each sample, (N,): whole numbers, text or truth values.
      n_components: number of Gaussians in each class: one number for all classes, or one for each
        in the order of ``class_names``. More than one needs a ``key``.
      shared: whether one covariance of the given form is pooled over all classes; only with one
        Gaussian per class.
      priors: P(y = c), (C,), in the order of ``class_names``; by default each class's fraction of
        the total weight.
      sample_weight: how many times each sample counts, (N,); a row of weight zero is missing.
      key: typed key, for mixtures; class c uses ``fold_in(key, c)``.
      options, **keywords: see ``jgmm.Options``. With one Gaussian a class, ``covariance`` says what
        the classes share, so "tied" has one covariance for all; with more, it says what the
        components of a class share. ``init`` is a name.

    Returns:
      A ``Classifier``, the maximum-likelihood fit; for mixtures the best of the restarts.
      Covariances are divided by the number of samples, not by that number less one.

    Raises:
      DataError: bad samples, labels, weights or arguments; fewer than two classes; a class with
        too few samples.
      FitError: the covariance of a class is singular, or no restart of its mixture ended valid.

    ``x`` and ``sample_weight`` may be traced. Then no ``FitError`` is raised, and the
    covariances of a class that failed are NaN.

    >>> import jgmm
    >>> x, y = [[0.0], [1.0], [9.0], [10.0]], ["small", "small", "big", "big"]
    >>> trained = jgmm.classifier.fit(x, y, shared=True)
    >>> jgmm.classifier.predict_names(trained, [[2.0], [8.0]]).tolist()
    ['small', 'big']
    """
    options = ACCEPTED.read(options, keywords)
    problem = check_arguments(x, labels, n_components, shared, priors, sample_weight, key, options)
    check_sizes(problem)
    trained, status = _train(problem, key, weights_of(problem.samples))
    check_status(problem, status)
    return trained


def _train(
    problem: ClassificationProblem, key: Array | None, weights: Array
) -> tuple[Classifier, Array]:
    """Fit all classes to the problem's samples with other weights; works under ``vmap``.

    Returns:
      The classifier, and the code of the ``Status`` of each class, (C,).
    """
    names, counts = problem.class_names, problem.n_components
    samples = replace(problem.samples, weights=weights)
    totals = jnp.zeros(len(names), weights.dtype).at[problem.labels].add(weights)
    priors = totals / totals.sum() if problem.priors is None else problem.priors
    if problem.single:
        mixtures, status = _gaussians(
            samples, problem.labels, problem.control, len(names), problem.covariance
        )
    else:
        mixtures, status = _mixtures(problem, check_key(key), weights)
    valid = among(status, USABLE)
    # Inside a transformation nothing can be raised, and a nearly singular covariance would give
    # results that look valid: mark it by NaN.
    mark = jax.vmap(lambda ok, scale: jnp.where(ok, scale, jnp.nan))
    mixtures = replace(mixtures, scale=mark(valid, mixtures.scale))
    return Classifier(jnp.log(priors), mixtures, names, counts), status


@partial(jit, static_argnums=(3, 4))
def _gaussians(
    samples: Samples, labels: Array, control: Control, n_classes: int, covariance: str
) -> tuple[Mixture, Array]:
    """Fit one Gaussian per class: an M-step with the labels as responsibilities.

    Returns:
      Mixtures of one component, with a leading axis of classes, and the code of the ``Status`` of
      each class, (C,).
    """

    def resp(rows: Array) -> Array:
        return jax.nn.one_hot(labels[rows], n_classes, dtype=samples.x.dtype)

    inside = standardize(samples, model(covariance))
    statistics = from_responsibilities(inside, resp, n_classes, covariance)
    fitted = maximize(
        statistics,
        covariance,
        ridge_in(inside.frame, control.ridge),
        prior=control.prior_in(inside.frame),
        floor=control.floor_in(inside.frame),
    )
    broken = collapsed_components(fitted, fitted, inside.frame)
    fitted = to_original(fitted, inside.frame)
    scale = jnp.broadcast_to(fitted.scale, (n_classes, *fitted.scale.shape[1:]))
    mixtures = Mixture(
        jnp.zeros((n_classes, 1), scale.dtype), fitted.means[:, None], scale[:, None], covariance
    )
    return mixtures, jnp.where(broken, int(Status.COLLAPSED), int(Status.CONVERGED))


def _mixtures(problem: ClassificationProblem, key: Array, weights: Array) -> tuple[Mixture, Array]:
    """Fit a mixture to each class; the samples of all other classes have weight zero.

    Returns:
      Mixtures with a leading axis of classes, padded to the largest number of components, and the
      code of the ``Status`` of each class, (C,).
    """
    samples, fits, largest = problem.samples, [], max(problem.n_components)
    for c, k in enumerate(problem.n_components):
        own = jnp.where(problem.labels == c, weights, 0)
        try:
            fits.append(
                fit_unchecked(
                    jax.random.fold_in(key, c),
                    replace(samples, weights=own),
                    k,
                    problem.options,
                    padded_size=largest,
                )
            )
        except DataError as error:
            raise DataError(f"class {problem.class_names[c]!r}: {error}") from error
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[fit.mixture for fit in fits])
    return stacked, jnp.stack([fit.status for fit in fits])
