"""Are K components enough? The bootstrap likelihood-ratio test of K against K + 1.

The statistic is 2 (ℓ_{K+1} - ℓ_K). Its distribution under K components is no chi-squared one: the
smaller mixture lies where the larger is not identified. So it is had by drawing (McLachlan 1987):
data sets from the fit of K components, each fitted with K and with K + 1 in the way the data were.

    p = (1 + #{b : LRT_b ≥ LRT}) / (B + 1)

The fits of all data sets from all starts are one compiled program
(``jgmm.fitting.many_data_sets``). The likelihood has many maxima, and the highest may not be found;
but replicates are searched as the data are, so that the test is that of the statistic the search
finds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError, FitError
from jgmm._core.status import Status, describe
from jgmm._data.samples import Samples, make_samples, whole_weights
from jgmm._data.validation import check_key, check_level
from jgmm.em.options import AcceptedOptions, Control, OptionKeywords, Options
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.fitting.many_data_sets import Search, append_start, best_log_likelihoods, draw_starts
from jgmm.fitting.results import FitResult, raise_if_failed
from jgmm.fitting.single_run import algorithm_for
from jgmm.initialization.problem import check_problem
from jgmm.mixture.density import sample
from jgmm.mixture.mixture import Mixture

# What data sets that are fitted together may hold, with their starts.
BATCH_BYTES = 1 << 26
MISSED = -1.0  # nats


@dataclass(frozen=True)
class RatioTest:
    """A test of K components against K + 1.

    Attributes:
      n_components: K.
      statistic: 2 (ℓ_{K+1} - ℓ_K) of the data.
      p_value: how often data from K components give as large a one.
      replicates: the statistic of each of B data sets drawn, (B,), NaN where a fit failed or ended
        below that of fewer components. The p-value is of the others.
      null, alternative: the two fits to the data.
    """

    n_components: int
    statistic: float
    p_value: float
    replicates: Float[np.ndarray, "B"]
    null: Mixture
    alternative: Mixture

    @property
    def n_failed(self) -> int:
        """Data sets that are NaN."""
        return int(np.isnan(self.replicates).sum())

    def __repr__(self) -> str:
        """One line."""
        k, failed = self.n_components, f", {self.n_failed} failed" if self.n_failed else ""
        return (
            f"RatioTest({k} against {k + 1} components, statistic={self.statistic:.4g}, "
            f"p_value={self.p_value:.3g}, {len(self.replicates)} replicates{failed})"
        )


@dataclass(frozen=True)
class SequentialTest:
    """Tests of 1, 2, … components, until the first that is not rejected.

    Attributes:
      tests: one for each number of components, in order.
      level: p-values up to it reject.
    """

    tests: list[RatioTest]
    level: float

    @property
    def n_components(self) -> int | None:
        """The first number of components that was not rejected; None if all were."""
        last = self.tests[-1]
        return last.n_components if last.p_value > self.level else None


ACCEPTED = AcceptedOptions(
    defaults=Options(n_restarts=8),
    refused={
        "prior": "the statistic is a ratio of likelihoods, at their maxima.",
        "race": "data and replicates must be searched alike, every start to its end.",
    },
)


@ACCEPTED.signature
def bootstrap_test(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    n_replicates: int = 99,
    sample_weight: Any = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> RatioTest:
    """Test whether data come from K components rather than K + 1.

    Args:
      key: typed key; data set b for K components uses ``fold_in(fold_in(key, K), b)``.
      x: samples in rows, (N, D).
      n_components: K.
      n_replicates: B, data sets drawn from the fit of K components. The p-value is at least
        1 / (B + 1).
      sample_weight: how many times each sample counts, (N,), whole numbers: a data set drawn is of
        as many samples as they add up to.
      options, **keywords: see ``jgmm.Options``. ``init`` is a name, and says how random starts are
        made. A data set drawn has one start more than ``n_restarts``: what it was drawn from, for
        K + 1 components with the largest cut in two; so have the data for K + 1. One component too
        many makes EM slow: with a larger ``tol`` it stops nats below the maximum.

    Returns:
      A ``RatioTest``. Data sets to which a fit failed, or for which the search missed the larger
      one, are NaN in ``replicates``, and counted.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.
      FitError: no start ended valid for the data, or for any of the data sets drawn.

    A start that ends in a spike (``jgmm.em.degeneracy``) does not count, however high its
    likelihood. Where a free model finds nothing else, give a ridge or a simpler model.

    Reference: McLachlan (1987); McLachlan & Peel (2000), section 6.5.
    """
    options = ACCEPTED.read(options, keywords)
    study = _check_arguments(key, x, n_components, options, n_replicates, sample_weight)
    return study.test(n_components, study.first(n_components))[0]


@ACCEPTED.signature
def sequential_test(
    key: Key[Array, ""],
    x: Any,
    *,
    level: float = 0.05,
    max_components: int = 9,
    n_replicates: int = 99,
    sample_weight: Any = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> SequentialTest:
    """Test 1, 2, … components, each against one more, until a test does not reject.

    Args:
      level: p-values up to it reject.
      max_components: the last K that is tested.

    The other arguments and errors are those of ``bootstrap_test``.

    Returns:
      The tests; ``n_components`` of it is the number of components found. The level is that of each
      test, not of all together.
    """
    check_level(level)
    options = ACCEPTED.read(options, keywords)
    study = _check_arguments(key, x, max_components, options, n_replicates, sample_weight)
    tests, small = [], study.first(1)
    for k in range(1, max_components + 1):
        test, large = study.test(k, small)
        tests.append(test)
        if test.p_value > level:
            break
        small = large
    return SequentialTest(tests, level)


@dataclass(frozen=True)
class _Study:
    """The checked arguments of one or more tests."""

    key: Array
    samples: Samples
    options: Options
    search: Search
    control: Control
    n_replicates: int
    batch_size: int

    def first(self, n_components: int) -> FitResult:
        """The best fit of K components to the data from random starts."""
        key = jax.random.fold_in(self.key, n_components)
        return self._fit(key, n_components, self.search.init, self.search.n_restarts)

    def test(self, n_components: int, small: FitResult) -> tuple[RatioTest, FitResult]:
        """The test of K components against K + 1, from the fit of K, and the fit of K + 1."""
        key, null = jax.random.fold_in(self.key, n_components), small.mixture
        cut = _cut(null)
        given = append_start(draw_starts(key, self.samples.x, n_components + 1, self.search), cut)
        large = self._fit(key, n_components + 1, given, self.search.n_restarts + 1)
        statistic = 2 * (float(large.log_likelihood) - float(small.log_likelihood))
        found = []
        for first in range(0, self.n_replicates, self.batch_size):
            numbers = first + jnp.arange(self.batch_size)
            sets, one, another = _draw(key, numbers, null, self.samples.n_samples)
            lower, upper = (
                best_log_likelihoods(keys, sets, start, self.search, self.control)
                for keys, start in ((one, null), (another, cut))
            )
            found.append(2 * (upper - lower))
        # The last batch may have run on beyond B.
        replicates = without_missed(np.concatenate(found)[: self.n_replicates])
        p = p_value(statistic, replicates)
        return RatioTest(n_components, statistic, p, replicates, null, large.mixture), large

    def _fit(self, key: Array, n_components: int, init: Any, n_restarts: int) -> FitResult:
        """Fit the data.

        Raises:
          FitError: no start ended valid; a spike is not.
        """
        options = replace(self.options, n_restarts=n_restarts, init=init)
        result = fit_unchecked(key, self.samples, n_components, options)
        status = Status(int(raise_if_failed(result).status))
        if not status.is_valid:
            raise FitError(f"{n_components} component(s): {describe(status)}")
        return result


def without_missed(replicates: Float[np.ndarray, "B"]) -> Float[np.ndarray, "B"]:
    """Statistics with NaN where they are below zero by more than where EM stops can explain.

    K components are a special case of K + 1: there the search has missed the larger fit.
    """
    return np.where(replicates < MISSED, np.nan, replicates)


def p_value(statistic: float, replicates: Any) -> float:
    """``(1 + #{b : LRT_b ≥ LRT}) / (B + 1)``, over the replicates that are not NaN.

    Raises:
      FitError: all are.

    >>> p_value(3.0, [1.0, 2.0, 3.0, float("nan")])
    0.5
    """
    usable = np.asarray(replicates)[~np.isnan(replicates)]
    if not usable.size:
        raise FitError(
            "None of the data sets drawn could be fitted with both numbers of components. Try a "
            "simpler covariance model, or a ridge such as ridge=1e-6."
        )
    return (1 + int((usable >= statistic).sum())) / (1 + len(usable))


def _check_arguments(
    key: Array,
    x: Any,
    most_components: int,
    options: Options,
    n_replicates: int,
    sample_weight: Any,
) -> _Study:
    """Check the arguments, and say how many data sets are fitted side by side."""
    samples = _counted(make_samples(x, sample_weight))
    check_problem(samples, most_components + 1, options)
    if not isinstance(options.init, str):
        raise DataError("init must be a name here: every data set drawn has starts of its own.")
    if n_replicates < 1:
        raise DataError(f"n_replicates must be at least 1; it is {n_replicates}.")
    control = options.control(samples, most_components)
    search = Search(options.entry.name, options.init, options.n_restarts, algorithm_for(options))
    # k-means holds the distances of all samples to all centers of all starts.
    centers = (search.n_restarts + 1) * (most_components + 1)
    each = samples.n_samples * (samples.n_features + centers) * samples.x.dtype.itemsize
    n_batches = -(-n_replicates // max(1, BATCH_BYTES // each))
    size = -(-n_replicates // n_batches)
    return _Study(check_key(key), samples, options, search, control, n_replicates, size)


def _counted(samples: Samples) -> Samples:
    """Every sample as often as its weight says.

    Raises:
      DataError: weights that are not whole.
    """
    if samples.weights is None:
        return samples
    x = np.repeat(np.asarray(samples.x), whole_weights(samples), axis=0)
    return Samples(jnp.asarray(x), None, samples.frame)


@partial(jit, static_argnums=3)
def _draw(
    key: Array, numbers: Array, null: Mixture, n_samples: int
) -> tuple[Float[Array, "B N D"], Array, Array]:
    """Data sets of the given numbers, and keys to fit each with twice."""

    def one(number: Array) -> tuple[Array, Array, Array]:
        draw, small, large = jax.random.split(jax.random.fold_in(key, number), 3)
        return sample(draw, null, n_samples)[0], small, large

    return jax.vmap(one)(numbers)


@jit
def _cut(mixture: Mixture) -> Mixture:
    """The mixture with its largest component in two halves, one standard deviation apart."""
    largest = mixture.log_weights.argmax()
    root = mixture.cholesky[largest]
    half = 0.5 * root[:, (root**2).sum(axis=0).argmax()]
    log_weights = mixture.log_weights.at[largest].add(-jnp.log(2.0).astype(half.dtype))
    means = mixture.means.at[largest].add(half)

    def another(leaf: Array, new: Array) -> Array:
        return jnp.concatenate([leaf, new[None]])

    scale = mixture.scale
    return replace(
        mixture,
        log_weights=another(log_weights, log_weights[largest]),
        means=another(means, means[largest] - 2 * half),
        scale=scale if mixture.model.shared else another(scale, scale[largest]),
    )
