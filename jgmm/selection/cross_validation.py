"""Cross-validation: assign samples to folds, and compute the held-out log-likelihood."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jgmm._core.arguments import check_key, key_first
from jgmm._core.compilation import without_debug_nans
from jgmm._core.errors import DataError, FitError, shown
from jgmm._core.pytree import is_traced
from jgmm._core.status import USABLE, among, describe
from jgmm._data.samples import Samples, make_samples
from jgmm.em.options import AcceptedOptions, Options, OtherKeywords
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.selection.criteria import evidence


def assign_folds(
    key: Key[Array, ""],
    n_samples: int,
    n_folds: int,
    *,
    sample_weight: Array | None = None,
    labels: Array | None = None,
) -> Int[Array, "N"]:
    """Assign samples to folds at random, as evenly as their number allows.

    Args:
      key: typed key.
      n_samples: N.
      n_folds: F.
      sample_weight: weights, (N,); samples of weight zero are missing, and are assigned last, so
        that the others are spread evenly.
      labels: classes, (N,), which are spread evenly, too: the folds are then stratified.

    Returns:
      The fold of each sample, (N,). The sizes of folds differ by at most one, as do the numbers of
      samples of one class in them. A sample stays in one fold, however much it weighs.

    >>> import jax
    >>> sorted(assign_folds(jax.random.key(0), n_samples=5, n_folds=2).tolist())
    [0, 0, 0, 1, 1]
    """
    draws = jax.random.uniform(check_key(key), (n_samples,))
    missing = jnp.zeros(n_samples, bool) if sample_weight is None else sample_weight == 0
    group = jnp.zeros(n_samples, int) if labels is None else labels
    order = jnp.lexsort((draws, group, missing))  # the last is the primary key
    rank = jnp.zeros(n_samples, int).at[order].set(jnp.arange(n_samples))
    return rank % n_folds


def check_folds(samples: Samples, n_folds: int) -> int:
    """Return the number of samples that count, after checking the number of folds against it.

    It is N where the weights are traced.

    Raises:
      DataError: fewer than two folds, or fewer samples than folds.
    """
    weights = samples.weights
    n_used = samples.n_samples
    if weights is not None and not is_traced(weights):
        n_used = int((weights > 0).sum())
    if isinstance(n_folds, bool) or not isinstance(n_folds, int) or not 2 <= n_folds <= n_used:
        raise DataError(
            f"n_folds must be a whole number from 2 to {n_used}, the number of samples; it is "
            f"{shown(n_folds)}."
        )
    return n_used


class HeldOut(NamedTuple):
    """Held-out log-likelihood of F folds.

    Attributes:
      log_likelihood: mean per sample over all folds, (), in nats; NaN when a fold's fit failed.
      per_fold: mean per sample in each fold, (F,), in nats.
      status: code of the ``Status`` of each fold's fit, (F,).
    """

    log_likelihood: Array
    per_fold: Array
    status: Array


ACCEPTED = AcceptedOptions(
    decided={"covariance": "the covariance model is an argument of its own."},
)


@key_first
@without_debug_nans
@ACCEPTED.signature
def held_out(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    covariance: str | None = None,
    *,
    n_folds: int = 5,
    sample_weight: Any = None,
    options: Options | None = None,
    **keywords: Unpack[OtherKeywords],
) -> HeldOut:
    """Compute the held-out log-likelihood by cross-validation.

    Each fold in turn gets weight zero in a fit, as if its rows were missing; then its density is
    evaluated under the mixture fitted to the others. All folds and restarts run side by side in one
    program.

    Args:
      key: typed key; for the same key all models and numbers of components see the same folds.
      x: samples in rows, (N, D).
      n_components: K.
      covariance: name of the covariance model; by default that of ``options``.
      n_folds: F.
      sample_weight: how many times each sample counts, in fitting and in evaluation, (N,).
      options, **keywords: see ``jgmm.Options``.

    Returns:
      A ``HeldOut``: the mean log-likelihood per sample in nats, the higher the better, over all
      folds and in each.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.
      FitError: a fold without which no restart ended in usable parameters. Inside ``jit`` or
        ``vmap`` nothing is raised: read ``status``.

    Reference: Smyth (2000).

    >>> import jax, jgmm
    >>> two = jgmm.make_mixture([0.5, 0.5], [[-3.0], [3.0]], [1.0, 1.0], "spherical")
    >>> x, _ = jgmm.sample(jax.random.key(0), two, 100)
    >>> found = held_out(jax.random.key(1), x, 2, "spherical", init="points", n_restarts=1)
    >>> found.per_fold.shape
    (5,)
    """
    model = covariance or (options or ACCEPTED.defaults).covariance
    complete = replace(ACCEPTED.read(options, keywords), covariance=model)
    samples = make_samples(x, sample_weight)
    check_training(samples, n_components, n_folds)
    result = held_out_unchecked(key, samples, n_components, n_folds, complete)
    if not is_traced(result):
        for i, code in enumerate(result.status.tolist()):
            if code not in USABLE:
                raise FitError(f"Without fold {i} of {n_folds} the fit failed. {describe(code)}")
    return result


def check_training(samples: Samples, n_components: int, n_folds: int) -> None:
    """Refuse folds that leave too few samples for a fit when one of them is held out.

    Raises:
      DataError: see ``check_folds``; or fewer samples are left than components.
    """
    n_used = check_folds(samples, n_folds)
    left = n_used - -(-n_used // n_folds)
    if isinstance(n_components, int) and left < n_components:
        raise DataError(
            f"{n_components} components need at least as many samples; without one of {n_folds} "
            f"folds {left} are left. Use fewer components."
        )


def held_out_unchecked(
    key: Array,
    samples: Samples,
    n_components: int,
    n_folds: int,
    options: Options,
    padded_size: int | None = None,
) -> HeldOut:
    """Compute what ``held_out`` does for checked samples, and leave failures in the status.

    Args:
      key, n_components, n_folds: as for ``held_out``.
      samples: N samples in the identity frame.
      options, padded_size: as for ``fit_unchecked``.
    """
    fold_key, fit_key = jax.random.split(check_key(key))
    folds = assign_folds(fold_key, samples.n_samples, n_folds, sample_weight=samples.weights)
    weights = samples.weights
    if weights is None:
        weights = jnp.ones(samples.n_samples, samples.x.dtype)

    def one(f: Array) -> tuple[Array, Array, Array]:
        train, test = jnp.where(folds == f, 0, weights), jnp.where(folds == f, weights, 0)
        result = fit_unchecked(
            jax.random.fold_in(fit_key, f),
            replace(samples, weights=train),
            n_components,
            options,
            padded_size=padded_size,
        )
        valid = among(result.status, USABLE)
        ell, _ = evidence(result.mixture, replace(samples, weights=test))
        return jnp.where(valid, ell, jnp.nan), test.sum(), result.status

    ell, total, status = jax.vmap(one)(jnp.arange(n_folds))
    return HeldOut(ell.sum() / total.sum(), ell / total, status)
