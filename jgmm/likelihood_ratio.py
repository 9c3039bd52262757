"""Are K components enough? The bootstrap likelihood-ratio test of K against K + 1.

The statistic is 2 (ℓ_{K+1} - ℓ_K). Its distribution under K components is no chi-squared one: the
smaller mixture lies where the larger is not identified. So it is had by drawing (McLachlan 1987):
data sets from the fit of K components, each fitted with K and with K + 1 in the way the data were.

    p = (1 + #{b : LRT_b ≥ LRT}) / (B + 1)

The fits of many data sets from many starts are one compiled program. The likelihood has many maxima
and the highest may not be found, but the search is the same for the data as for the replicates: the
test is that of the statistic it finds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jgmm import em
from jgmm.bootstrap import whole_weights
from jgmm.covariance import model
from jgmm.mixture import Mixture, sample
from jgmm.precision import jit
from jgmm.restarts import check_problem, fit_unchecked, starts
from jgmm.samples import Samples, check_key, identity_frame, make_samples
from jgmm.status import VALID, DataError, FitError, describe
from jgmm.uncertainty import check_level

# What the fits that run side by side may hold.
BATCH_BYTES = 1 << 26


@dataclass(frozen=True)
class RatioTest:
    """A test of K components against K + 1.

    Attributes:
      n_components: K.
      statistic: 2 (ℓ_{K+1} - ℓ_K) of the data.
      p_value: how often data from K components give as large a one.
      replicates: the statistic of each of B data sets drawn, (B,), NaN where a fit failed. The
        p-value is of those that did not.
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
        """Data sets to which a fit failed."""
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


@dataclass(frozen=True)
class _Search:
    """How a data set is fitted; what of it changes the program."""

    covariance: str
    init: str
    n_restarts: int
    max_steps: int
    equal_weights: bool


class _Fit(NamedTuple):
    """The outcome of a search: mixture, log-likelihood and status."""

    mixture: Mixture
    log_likelihood: Array
    status: Array


def bootstrap_test(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    covariance: str = "full",
    n_replicates: int = 99,
    n_restarts: int = 8,
    init: str = "kmeans",
    sample_weight: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    ridge: float = 0.0,
    equal_weights: bool = False,
) -> RatioTest:
    """Test whether data come from K components rather than K + 1.

    Args:
      key: typed key; data set b for K components uses ``fold_in(fold_in(key, K), b)``.
      x: samples in rows, (N, D).
      n_components: K.
      covariance: name of the covariance model, of both.
      n_replicates: B, data sets drawn from the fit of K components. The p-value is at least
        1 / (B + 1).
      n_restarts: random starts of each fit. One more is given: what the data were drawn from for K
        components, and for K + 1 the fit of K with its largest component cut in two.
      init: a name in ``jgmm.initialize.STARTS``, how random starts are made.
      sample_weight: how many times each sample counts, (N,), whole numbers: a data set drawn is of
        as many samples as they add up to.
      tol, max_steps, ridge, equal_weights: as for ``jgmm.fit``. One component too many makes EM
        slow: with a larger tol it stops nats below the maximum.

    Returns:
      A ``RatioTest``. Data sets to which a fit failed are NaN in ``replicates``, and counted.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.
      FitError: no start ended valid for the data, or for any of the data sets drawn.

    A spike on a few samples is no component, but has a high likelihood; where a free model finds
    spikes in the data and in the replicates, give a ridge or a simpler model.

    Reference: McLachlan (1987); McLachlan & Peel (2000), section 6.5.

    >>> import jax, jgmm
    >>> x = jax.random.normal(jax.random.key(0), (60, 1))
    >>> found = bootstrap_test(
    ...     jax.random.key(1), x, 1, covariance="tied", n_replicates=19, n_restarts=2
    ... )
    >>> found.p_value > 0.05, found.n_failed
    (True, 0)
    """
    search = _Search(model(covariance).name, init, n_restarts, max_steps, equal_weights)
    study = _pose(key, x, n_components, search, n_replicates, sample_weight, tol, ridge)
    return study.test(n_components, study.first(n_components))


def sequential_test(
    key: Key[Array, ""],
    x: Any,
    *,
    level: float = 0.05,
    max_components: int = 9,
    covariance: str = "full",
    n_replicates: int = 99,
    n_restarts: int = 8,
    init: str = "kmeans",
    sample_weight: Any = None,
    tol: float | None = None,
    max_steps: int = 1000,
    ridge: float = 0.0,
    equal_weights: bool = False,
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
    search = _Search(model(covariance).name, init, n_restarts, max_steps, equal_weights)
    study = _pose(key, x, max_components, search, n_replicates, sample_weight, tol, ridge)
    tests, null = [], study.first(1)
    for k in range(1, max_components + 1):
        tests.append(study.test(k, null))
        if tests[-1].p_value > level:
            break
        null = tests[-1].alternative
    return SequentialTest(tests, level)


@dataclass(frozen=True)
class _Study:
    """The checked arguments of one or more tests."""

    key: Array
    samples: Samples
    search: _Search
    control: em.Control
    n_replicates: int
    batch_size: int

    def first(self, n_components: int) -> Mixture:
        """The best fit of K components to the data, from all the starts that a batch has room for.

        Raises:
          FitError: none ended valid.
        """
        size = self.batch_size
        keys = jax.random.split(jax.random.fold_in(self.key, n_components), size)
        copies = jnp.broadcast_to(self.samples.x[None], (size, *self.samples.x.shape))
        nothing = self._nothing(n_components)
        found = _fit_all(keys, copies, nothing, False, self.control, n_components, self.search)
        best = int(np.argmax(np.nan_to_num(_value(found), nan=-np.inf)))
        _check(found, best, n_components)
        return _at(found.mixture, best)

    def _nothing(self, n_components: int) -> Mixture:
        """Zeros in the place of mixtures, so that the program is the one for mixtures."""
        entry, d, dtype = (
            model(self.search.covariance),
            self.samples.n_features,
            self.control.tol.dtype,
        )
        unit = entry.storage.identity(d, dtype)[0]

        def zeros(*shape: int) -> Array:
            return jnp.zeros((self.batch_size, *shape), dtype)

        scale = zeros(1 if entry.shared else n_components, *unit.shape)
        return Mixture(zeros(n_components), zeros(n_components, d), scale, entry.name)

    def test(self, n_components: int, null: Mixture) -> RatioTest:
        """The test of K components against K + 1, from a fit of K components to the data."""
        found: list[np.ndarray] = []
        for first in range(0, self.n_replicates + 1, self.batch_size):
            small, large = self._both(first + jnp.arange(self.batch_size), n_components, null)
            if not found:  # data set 0 is the data
                _check(small, 0, n_components)
                _check(large, 0, n_components + 1)
                ends = _at(small.mixture, 0), _at(large.mixture, 0)
            found.append(2 * (_value(large) - _value(small)))
        # The last batch may have run on beyond B.
        statistic, *replicates = np.concatenate(found)[: self.n_replicates + 1].tolist()
        p = p_value(statistic, replicates)
        return RatioTest(n_components, statistic, p, np.asarray(replicates), *ends)

    def _both(self, numbers: Array, n_components: int, null: Mixture) -> tuple[_Fit, _Fit]:
        """Fits of K and of K + 1 components to the data sets of the given numbers."""
        key, size = jax.random.fold_in(self.key, n_components), len(numbers)
        sets, one, another = _draw(key, numbers, self.samples.x, null)
        given = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (size, *leaf.shape)), null)
        options = (True, self.control, n_components, self.search)
        small = _fit_all(one, sets, given, *options)
        options = (True, self.control, n_components + 1, self.search)
        return small, _fit_all(another, sets, _cut(small.mixture), *options)


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


def _pose(
    key: Array,
    x: Any,
    most_components: int,
    search: _Search,
    n_replicates: int,
    sample_weight: Any,
    tol: float | None,
    ridge: float,
) -> _Study:
    """Check the arguments, and say how many data sets are fitted side by side."""
    samples = _counted(make_samples(x, sample_weight))
    check_problem(samples, most_components + 1, search.n_restarts, search.max_steps)
    if n_replicates < 1:
        raise DataError(f"n_replicates must be at least 1; it is {n_replicates}.")
    control = em.make_control(samples.x.dtype, tol, None, ridge)
    lanes = (search.n_restarts + 1) * (most_components + 1)
    each = samples.n_samples * (samples.n_features + 2) * (lanes + 1) + search.max_steps
    most = max(1, BATCH_BYTES // (each * samples.x.dtype.itemsize))
    n_batches = -(-(n_replicates + 1) // most)
    size = -(-(n_replicates + 1) // n_batches)
    return _Study(check_key(key), samples, search, control, n_replicates, size)


def _counted(samples: Samples) -> Samples:
    """Every sample as often as its weight says.

    Raises:
      DataError: weights that are not whole.
    """
    if samples.weights is None:
        return samples
    x = np.repeat(np.asarray(samples.x), whole_weights(samples), axis=0)
    return Samples(jnp.asarray(x), None, samples.frame)


@jit
def _draw(
    key: Array, numbers: Array, x: Float[Array, "N D"], null: Mixture
) -> tuple[Array, Array, Array]:
    """Data sets of the given numbers, of which 0 is the data, and keys to fit each with twice."""

    def one(number: Array) -> tuple[Array, Array, Array]:
        draw, small, large = jax.random.split(jax.random.fold_in(key, number), 3)
        drawn, _ = sample(draw, null, len(x))
        return jnp.where(number == 0, x, drawn), small, large

    return jax.vmap(one)(numbers)


@partial(jit, static_argnums=(5, 6))
def _fit_all(
    keys: Array,
    sets: Float[Array, "B N D"],
    given: Mixture,
    is_given: Array,
    control: em.Control,
    n_components: int,
    search: _Search,
) -> _Fit:
    """Fit every data set from random starts and the one given, of which there may be none."""

    def one(key: Array, x: Array, given: Mixture) -> _Fit:
        samples = Samples(x, None, identity_frame(x.shape[1], x.dtype))
        begun = starts(
            key,
            samples,
            n_components,
            covariance=search.covariance,
            init=search.init,
            n_restarts=search.n_restarts + 1,
        )
        begun = jax.tree.map(
            lambda many, one: many.at[-1].set(jnp.where(is_given, one, many[-1])), begun, given
        )
        result = fit_unchecked(
            key,
            samples,
            n_components,
            covariance=search.covariance,
            init=begun,
            n_restarts=search.n_restarts + 1,
            max_steps=search.max_steps,
            tol=control.tol,
            rtol=control.rtol,
            ridge=control.ridge,
            equal_weights=search.equal_weights,
        )
        return _Fit(result.mixture, result.log_likelihood, result.status)

    return jax.vmap(one)(keys, sets, given)


def _value(found: _Fit) -> np.ndarray:
    """Log-likelihoods, NaN of fits that failed."""
    usable = np.isin(np.asarray(found.status), VALID)
    return np.where(usable, np.asarray(found.log_likelihood, np.float64), np.nan)


def _check(found: _Fit, place: int, n_components: int) -> None:
    """Raise for a fit to the data that failed."""
    if int(found.status[place]) not in VALID:
        said = describe(found.status[place])
        raise FitError(f"{n_components} component(s) could not be fitted to the data. {said}")


def _at(mixtures: Mixture, place: int) -> Mixture:
    return jax.tree.map(lambda leaf: leaf[place], mixtures)


@jit
@jax.vmap
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
