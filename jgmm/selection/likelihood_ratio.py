"""The bootstrap likelihood-ratio test of K components against K + 1.

The statistic is LRT = 2 (ℓ_{K+1} - ℓ_K). Under K components its distribution is not chi-squared,
because the mixture of K components is a point at which that of K + 1 is not identified. So the
distribution is simulated (McLachlan 1987): B data sets are drawn from the fit of K components, and
each is fitted with K and with K + 1 components, in the same way as the data.

    p = (1 + #{b : LRT_b ≥ LRT}) / (B + 1)

The fits of all data sets from all starts are one compiled program
(``jgmm.fitting.many_data_sets``). The likelihood has many maxima, and a search may miss the highest
one. But the replicates are searched in the same way as the data, so the test is valid for the
statistic that the search finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jgmm._core import budget
from jgmm._core.arguments import check_level, check_whole, key_first
from jgmm._core.compilation import jit, without_debug_nans
from jgmm._core.errors import DataError, FitError
from jgmm._core.status import RIDGE_ADVICE, Status, describe
from jgmm._data.samples import Samples, make_samples, whole_weights
from jgmm.em.options import AcceptedOptions, Control, OptionKeywords, Options
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.fitting.many_data_sets import Search, append_start, best_log_likelihoods, draw_starts
from jgmm.fitting.results import FitResult, raise_if_failed
from jgmm.fitting.single_run import algorithm_for
from jgmm.initialization.problem import check_problem
from jgmm.mixture.density import sample
from jgmm.mixture.mixture import Mixture
from jgmm.selection import nested_starts

# A statistic below this, in nats, means that the search has missed the fit of K + 1 components: it
# is further below zero than the points at which EM stops can explain.
MISSED_BELOW = -1.0


@dataclass(frozen=True)
class RatioTest:
    """The outcome of a test of K components against K + 1.

    Attributes:
      n_components: K.
      statistic: 2 (ℓ_{K+1} - ℓ_K) of the data, nats.
      p_value: how often data from K components give a statistic at least as large.
      replicates: the statistic of each of the B data sets drawn, (B,); NaN where a fit failed, or
        where the fit of K + 1 components ended below that of K. The p-value is computed from the
        others.
      null, alternative: the fits of K and of K + 1 components to the data.
    """

    n_components: int
    statistic: float
    p_value: float
    replicates: Float[np.ndarray, "B"]
    null: Mixture
    alternative: Mixture

    @property
    def n_failed(self) -> int:
        """Number of replicates that are NaN."""
        return int(np.isnan(self.replicates).sum())

    def __repr__(self) -> str:
        """Show the test in one line."""
        k, failed = self.n_components, f", {self.n_failed} failed" if self.n_failed else ""
        return (
            f"RatioTest({k} against {k + 1} components, statistic={self.statistic:.4g}, "
            f"p_value={self.p_value:.3g}, {len(self.replicates)} replicates{failed})"
        )


@dataclass(frozen=True)
class SequentialTest:
    """The outcome of tests of 1, 2, … components, up to the first that does not reject.

    Attributes:
      tests: one for each number of components, in order.
      level: a p-value up to this level rejects.
    """

    tests: list[RatioTest]
    level: float

    @property
    def n_components(self) -> int | None:
        """The first number of components that was not rejected; None if all were rejected."""
        last = self.tests[-1]
        return last.n_components if last.p_value > self.level else None


ACCEPTED = AcceptedOptions(
    # One method of starts, because all replicates and their starts are one program.
    defaults=Options(n_restarts=8, init="kmeans"),
    refused={
        "prior": "the statistic is a ratio of likelihoods, at their maxima.",
        "race": "data and replicates must be searched alike, every start to its end.",
    },
)


@key_first
@without_debug_nans
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
      n_replicates: B, the number of data sets drawn from the fit of K components. The p-value is at
        least 1 / (B + 1).
      sample_weight: how many times each sample counts, (N,), whole numbers; each data set drawn has
        as many samples as the sum of the weights.
      options, **keywords: see ``jgmm.Options``. ``init`` must be the name of a method that draws
        random starts. A data set drawn has one start in addition to the ``n_restarts`` random ones:
        the mixture that it was drawn from, for K + 1 components with the largest component split in
        two. The data have the same additional start for K + 1 components. With one component too
        many EM is slow: with a larger ``tol`` it stops nats below the maximum.

    Returns:
      A ``RatioTest``. Data sets for which a fit failed, or for which the search missed the fit of
      K + 1 components, are NaN in ``replicates``; ``n_failed`` counts them.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.
      FitError: no start ended valid for the data, or for any of the data sets drawn.

    A start that ends in a spurious (degenerate) optimum, see ``jgmm.em.degeneracy``, does not
    count, however high its likelihood. If no start ends otherwise, give a ridge or choose a simpler
    covariance model.

    Reference: McLachlan (1987); McLachlan & Peel (2000), section 6.5.
    """
    options = ACCEPTED.read(options, keywords)
    study = _check_arguments(key, x, n_components, options, n_replicates, sample_weight)
    return study.test(n_components, study.fit_null(n_components))[0]


@key_first
@without_debug_nans
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
    """Choose the number of components by likelihood-ratio tests of 1, 2, … against one more.

    Args:
      level: a p-value up to this level rejects.
      max_components: the largest K that is tested.

    The other arguments and errors are those of ``bootstrap_test``.

    Raises:
      DataError: also where ``n_replicates`` is too small for the level: the least p-value is
        1 / (B + 1).
      FitError: also where it has become too small, because replicates were lost: the statistic is
        above all that are left, and the test still cannot reject.

    Returns:
      The tests, up to the first that does not reject. Their ``n_components`` is the number of
      components found. The level is that of each test, not of all together.
    """
    check_level(level)
    check_whole("n_replicates", n_replicates, 1)
    if 1 / (n_replicates + 1) > level:
        raise DataError(
            f"n_replicates={n_replicates} cannot reach the level {level:g}: the least p-value is "
            f"1 / {n_replicates + 1}. Take at least {_least_replicates(level)}."
        )
    options = ACCEPTED.read(options, keywords)
    study = _check_arguments(key, x, max_components, options, n_replicates, sample_weight)
    tests, small = [], study.fit_null(1)
    for k in range(1, max_components + 1):
        test, large = study.test(k, small)
        tests.append(test)
        _check_reach(test, level)
        if test.p_value > level:
            break
        small = large
    return SequentialTest(tests, level)


def _least_replicates(level: float) -> int:
    """Return the fewest replicates with which a p-value can be as small as the level."""
    return math.ceil(1 / level - 1e-9) - 1


def _check_reach(test: RatioTest, level: float) -> None:
    """Check that a test that does not reject could have done so, had no replicate been lost.

    Raises:
      FitError: the statistic is above those of all replicates that could be fitted, but these are
        too few for the level.
    """
    usable = len(test.replicates) - test.n_failed
    if test.n_failed and level < test.p_value <= 1 / (usable + 1):
        raise FitError(
            f"{test.n_failed} of {len(test.replicates)} replicates were lost, and the {usable} "
            f"left cannot reach the level {level:g}: the statistic of {test.n_components} against "
            f"{test.n_components + 1} components is above all of them, and p is "
            f"{test.p_value:.3g}. Take more replicates than the {_least_replicates(level)} that "
            "are the fewest, such as n_replicates=99."
        )


@dataclass(frozen=True)
class _Study:
    """The checked arguments of one or more tests.

    Attributes:
      key: typed key.
      samples: N samples, each counted once.
      options: of the fits to the data.
      search: of the fits to the data sets drawn.
      control: when a fit to a data set drawn stops.
      n_replicates: B.
      batch_size: number of data sets that are drawn and fitted together.
    """

    key: Array
    samples: Samples
    options: Options
    search: Search
    control: Control
    n_replicates: int
    batch_size: int

    def fit_null(self, n_components: int) -> FitResult:
        """Return the best fit of K components to the data from random starts."""
        key = jax.random.fold_in(self.key, n_components)
        return self._fit(key, n_components, self.search.init, self.search.n_restarts)

    def test(self, n_components: int, small: FitResult) -> tuple[RatioTest, FitResult]:
        """Test K components against K + 1.

        Args:
          n_components: K.
          small: the fit of K components to the data.

        Returns:
          The test, and the fit of K + 1 components to the data.
        """
        key, null = jax.random.fold_in(self.key, n_components), small.mixture
        split = _split_largest(null)
        given = append_start(draw_starts(key, self.samples.x, n_components + 1, self.search), split)
        large = self._fit(key, n_components + 1, given, self.search.n_restarts + 1)
        statistic = 2 * (float(large.log_likelihood) - float(small.log_likelihood))
        batches = []
        for first in range(0, self.n_replicates, self.batch_size):
            numbers = first + jnp.arange(self.batch_size)
            sets, small_keys, large_keys = _draw(key, numbers, null, self.samples.n_samples)
            lower, upper = (
                best_log_likelihoods(keys, sets, start, self.search, self.control)
                for keys, start in ((small_keys, null), (large_keys, split))
            )
            batches.append(2 * (upper - lower))
        # The last batch may hold more data sets than are needed.
        replicates = without_missed(np.concatenate(batches)[: self.n_replicates])
        p = p_value(statistic, replicates)
        return RatioTest(n_components, statistic, p, replicates, null, large.mixture), large

    def _fit(self, key: Array, n_components: int, init: Any, n_restarts: int) -> FitResult:
        """Fit the data.

        Raises:
          FitError: no start ended valid; a spurious optimum is not valid.
        """
        options = replace(self.options, n_restarts=n_restarts, init=init)
        result = fit_unchecked(key, self.samples, n_components, options)
        status = Status(int(raise_if_failed(result).status))
        if not status.is_valid:
            raise FitError(f"{n_components} component(s): {describe(status)}")
        return result


def without_missed(replicates: Float[np.ndarray, "B"]) -> Float[np.ndarray, "B"]:
    """Replace statistics that are far below zero by NaN.

    K components are a special case of K + 1, so the maximum of the likelihood cannot be lower with
    K + 1: the search has missed it. Slightly negative statistics remain, because EM stops before
    the maximum.
    """
    return np.where(replicates < MISSED_BELOW, np.nan, replicates)


def p_value(statistic: float, replicates: Any) -> float:
    """Compute the bootstrap p-value, ``(1 + #{b : LRT_b ≥ LRT}) / (B + 1)``.

    Args:
      statistic: LRT of the data.
      replicates: LRT_b of the data sets drawn; those that are NaN do not count.

    Raises:
      FitError: all replicates are NaN.

    >>> p_value(3.0, [1.0, 2.0, 3.0, float("nan")])
    0.5
    """
    usable = np.asarray(replicates)[~np.isnan(replicates)]
    if not usable.size:
        raise FitError(
            "None of the data sets drawn could be fitted with both numbers of components. Try a "
            f"simpler covariance model, or {RIDGE_ADVICE}."
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
    """Check the arguments, and compute how many data sets are fitted together."""
    samples = _repeated(make_samples(x, sample_weight))
    check_problem(samples, most_components + 1, options)
    if not isinstance(options.init, str):
        raise DataError("init must be a name here: every data set drawn has starts of its own.")
    check_whole("n_replicates", n_replicates, 1)
    control = options.control(samples, most_components)
    search = Search(options.entry.name, options.init, options.n_starts, algorithm_for(options))
    # k-means holds the distances of all samples to all centers of all starts in memory.
    centers = (search.n_restarts + 1) * (most_components + 1)
    each = samples.n_samples * (samples.n_features + centers) * samples.x.dtype.itemsize
    n_batches = -(-n_replicates // max(1, budget.RATIO_TEST_BYTES // each))
    size = -(-n_replicates // n_batches)
    return _Study(key, samples, options, search, control, n_replicates, size)


def _repeated(samples: Samples) -> Samples:
    """Return samples without weights, each repeated as many times as its weight says.

    Raises:
      DataError: weights that are not whole numbers.
    """
    if samples.weights is None:
        return samples
    x = np.repeat(np.asarray(samples.x), whole_weights(samples), axis=0)
    return Samples(jnp.asarray(x), None, samples.frame)


@partial(jit, static_argnums=3)
def _draw(
    key: Array, numbers: Array, null: Mixture, n_samples: int
) -> tuple[Float[Array, "B N D"], Array, Array]:
    """Draw the data sets of the given numbers.

    Returns:
      The data sets, and for each a key for its fit of K and one for its fit of K + 1 components.
    """

    def one(number: Array) -> tuple[Array, Array, Array]:
        draw, small, large = jax.random.split(jax.random.fold_in(key, number), 3)
        return sample(draw, null, n_samples)[0], small, large

    return jax.vmap(one)(numbers)


def _split_largest(mixture: Mixture) -> Mixture:
    """Return the mixture with its largest component split in two halves, the second one last.

    The halves are one standard deviation apart, along the longest column of the Cholesky factor of
    the component's covariance, and keep this covariance.
    """
    largest, half = jax.device_get(_half_column(mixture))
    k = int(largest)
    padded = nested_starts.pad_components(mixture, mixture.n_components + 1)
    log_weight = padded.log_weights[k] - half.dtype.type(np.log(2))
    first = padded.means[k] + half
    halves = first, first - 2 * half
    split = nested_starts.split_component(padded, k, mixture.n_components, log_weight, halves)
    return jax.device_put(split)


@jit
def _half_column(mixture: Mixture) -> tuple[Array, Array]:
    """Return the largest component, and half the longest column of its Cholesky factor, (D,)."""
    largest = mixture.log_weights.argmax()
    root = mixture.cholesky[largest]
    relative = root / jnp.abs(root).max()  # squares in tiny units would vanish
    return largest, 0.5 * root[:, (relative**2).sum(axis=0).argmax()]
