"""Bootstrap standard errors and intervals: refit a mixture to resampled data many times.

A replicate is the same samples with other weights, so that no sample is copied, and many replicates
are one compiled program:

    weighted       wₙ* ∝ Gamma(wₙ), which is N times a Dirichlet draw (Rubin 1981; Newton & Raftery
                   1994, the weighted-likelihood bootstrap; O'Hagan, Murphy, Scrucca & Gormley 2019
                   for mixtures). No sample is ever left out, so a small component does not vanish.
    nonparametric  wₙ* ~ multinomial: how often sample n is drawn in N draws with replacement (Efron
                   1979)

Each replicate is fitted by EM that starts from the mixture itself, so that all are refits of the
same optimum. Then their components are put into the order of the mixture's
(``jgmm.uncertainty.label_switching``): of all orders the one in which, as far as possible, the same
samples belong to components of the same number.

The first step of EM goes from the mixture θ̂ to θ₁, and all its steps to the refit θ*. Near an
optimum, with J and M as in ``jgmm.uncertainty.information``, θ₁ - θ̂ = (J + M)⁻¹ J (θ* - θ̂)
(Dempster, Laird & Rubin 1977). If the model is right, θ* has the covariance J⁻¹, and so the slope
of the regression of θ₁ on θ* over the replicates,

    Cov(θ₁, θ*) / Var(θ*)  =  diag (J + M)⁻¹ / diag J⁻¹

is the observed fraction of information of each parameter, for every covariance model.
"""

from __future__ import annotations

from collections.abc import Callable
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
from jgmm._core.errors import DataError, FitError, shown
from jgmm._core.pytree import Leaf, to_host
from jgmm._core.status import RIDGE_ADVICE, VALID, tally
from jgmm._data.samples import Samples, whole_weights
from jgmm.em.algorithm import one_step
from jgmm.em.e_step import check_inputs
from jgmm.em.options import Control, OptionKeywords, Options
from jgmm.fitting.algorithm import Algorithm
from jgmm.fitting.single_run import ACCEPTED, algorithm_for, run_em_unchecked
from jgmm.mixture.mixture import HasMixture, Mixture
from jgmm.uncertainty.intervals import Parameters, Uncertainty, parameters_of
from jgmm.uncertainty.label_switching import overlaps, relabel


def weighted(key: Array, samples: Samples, n_draws: int) -> Float[Array, "N"]:
    """Draw weights wₙ* = N gₙ / Σ g with gₙ ~ Gamma(wₙ), a sum of wₙ exponential variables."""
    del n_draws
    if samples.weights is None:
        drawn = jax.random.exponential(key, (samples.n_samples,), samples.x.dtype)
    else:
        counts = samples.weights > 0
        shape = jnp.where(counts, samples.weights, 1)
        drawn = jnp.where(counts, jax.random.gamma(key, shape, dtype=samples.x.dtype), 0)
    return drawn * (samples.total_weight() / drawn.sum())


def nonparametric(key: Array, samples: Samples, n_draws: int) -> Float[Array, "N"]:
    """Draw N samples with replacement, each with probability wₙ / N, and count how often."""
    rows = jax.random.randint(key, (n_draws,), 0, n_draws)
    if samples.weights is not None:
        ends = jnp.cumsum(samples.weights.astype(int))
        rows = jnp.searchsorted(ends, rows, side="right")
    return jnp.zeros(samples.n_samples, samples.x.dtype).at[rows].add(1)


METHODS: dict[str, Callable[[Array, Samples, int], Array]] = {
    "weighted": weighted,
    "nonparametric": nonparametric,
}


@dataclass(frozen=True)
class Bootstrap:
    """Bootstrap replicates: B refits of one mixture to resampled data.

    Attributes:
      mixture: the fit, from which every refit started.
      replicates: the refits, with leading axis B; their components are in the order of the
        mixture's.
      status: code of the ``Status`` of each refit, (B,).
      method: name of the resampling method.
      first_steps: the parameters after the first EM step of each refit, with leading axis B.
    """

    mixture: Mixture
    replicates: Mixture
    status: Leaf
    method: str
    first_steps: Parameters

    @property
    def valid(self) -> np.ndarray:
        """Mask of the refits whose parameters are valid, (B,)."""
        return np.isin(np.asarray(self.status), VALID)

    @property
    def n_failed(self) -> int:
        """Number of refits that failed; standard errors and intervals leave them out."""
        return int((~self.valid).sum())

    def __repr__(self) -> str:
        """Return one line with the number of refits of each status."""
        return f"Bootstrap(method={self.method!r}, {tally(np.asarray(self.status))})"

    def uncertainty(self, level: float = 0.95) -> Uncertainty:
        """Compute standard errors and percentile intervals from the valid refits.

        Args:
          level: fraction of the replicates within an interval.

        Returns:
          An ``Uncertainty``. Standard errors divide by the number of valid refits less one. The
          observed fractions of information are estimates from the valid refits, too.

        Raises:
          FitError: fewer than two refits ended valid.
          DataError: a level that is not strictly between 0 and 1.
        """
        check_level(level)
        if self.valid.sum() < 2:
            raise FitError(
                f"Standard errors take at least two refits that ended valid: {self!r}. Try the "
                f"weighted bootstrap, fewer components, or {RIDGE_ADVICE}."
            )
        replicates = to_host(jax.vmap(parameters_of)(self.replicates), np.float64)
        used, first = (
            [each[self.valid] for each in parts]
            for parts in (replicates, to_host(self.first_steps, np.float64))
        )
        tail = (1 - level) / 2
        return Uncertainty(
            to_host(parameters_of(self.mixture), np.float64),
            Parameters(*(each.std(axis=0, ddof=1) for each in used)),
            Parameters(*(np.quantile(each, tail, axis=0) for each in used)),
            Parameters(*(np.quantile(each, 1 - tail, axis=0) for each in used)),
            level,
            f"{self.method} bootstrap, {len(used[0])} replicates",
            Parameters(*map(_slope, first, used)),
        )


def _slope(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the slope of the regression of first steps on refits, (B, …) each, within [0, 1].

    It is one where refits do not differ.
    """
    first, last = first - first.mean(axis=0), last - last.mean(axis=0)
    variance = (last**2).sum(axis=0)
    slope = (first * last).sum(axis=0) / np.where(variance > 0, variance, 1)
    return np.clip(np.where(variance > 0, slope, 1), 0, 1)


@key_first
@without_debug_nans
@ACCEPTED.signature
def bootstrap(
    key: Key[Array, ""],
    mixture: Mixture | HasMixture,
    x: Any,
    sample_weight: Any = None,
    *,
    method: str = "weighted",
    n_replicates: int = 1000,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> Bootstrap:
    """Bootstrap a fitted mixture: refit it to resampled data many times.

    Args:
      key: typed key; replicate b uses ``fold_in(key, b)``, whatever the number of replicates.
      mixture: a fit to these samples, of any covariance model; every refit starts from it.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,). The number of samples is then Σ wₙ,
        and samples of weight zero are missing. The nonparametric bootstrap draws whole samples, so
        it needs weights that are whole numbers.
      method: "weighted", Gamma weights, no sample is ever left out; or "nonparametric", samples are
        drawn with replacement. The module's docstring has formulas and references.
      n_replicates: B. A standard error has a relative error of about 1/√(2B).
      options, **keywords: see ``jgmm.Options``; use those of the fit.

    Returns:
      A ``Bootstrap``; its ``uncertainty()`` has standard errors and intervals. A refit that failed
      is counted in ``n_failed``.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.

    A refit fails if a component has less total weight than the number of samples its covariance
    needs. Where components overlap so much that samples change between them from refit to refit,
    the numbers describe the uncertainty of one optimum of the likelihood; they do not say which of
    several optima is right.

    >>> import jax, jgmm
    >>> two = jgmm.make_mixture([0.5, 0.5], [[-3.0], [3.0]], [1.0, 1.0], "spherical")
    >>> x, _ = jgmm.sample(jax.random.key(0), two, 100)
    >>> replicates = bootstrap(jax.random.key(1), two, x, n_replicates=50)
    >>> replicates
    Bootstrap(method='weighted', 50 converged)
    >>> replicates.uncertainty().standard_error.means.shape
    (2, 1)
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    if method not in METHODS:
        raise DataError(f"unknown method {shown(method)}. Known: {', '.join(METHODS)}.")
    check_whole("n_replicates", n_replicates, 2)
    n_draws = int(whole_weights(samples).sum()) if method == "nonparametric" else 0
    options = replace(ACCEPTED.read(options, keywords), covariance=mixture.covariance)
    control, algorithm = options.control(samples, mixture.n_components), algorithm_for(options)
    static = algorithm, options.equal_weights, method, n_draws
    size = _batch_size(mixture, samples, options.max_steps, n_replicates)
    batches = []
    for first in range(0, n_replicates, size):
        numbers = first + jnp.arange(size)
        refits = _refit(key, numbers, mixture, samples, control, *static)
        batches.append(jax.device_get(refits))
    # All batches have the same size, so the last may have computed more replicates than asked for.
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n_replicates], *batches)
    refitted, status, overlap, first = joined
    return Bootstrap(mixture, relabel(refitted, overlap), jnp.asarray(status), method, first)


def _batch_size(mixture: Mixture, samples: Samples, max_steps: int, n_replicates: int) -> int:
    """Return how many replicates run at once: they fit in memory, and all batches are equal."""
    k, d = mixture.n_components, mixture.n_features
    numbers_each = samples.n_samples * (k * (d + 2) + 2) + max_steps
    largest = max(1, budget.REFIT_BATCH_BYTES // (numbers_each * samples.x.dtype.itemsize))
    n_batches = -(-n_replicates // largest)
    return -(-n_replicates // n_batches)


@partial(jit, static_argnums=(5, 6, 7, 8))
def _refit(
    key: Array,
    numbers: Array,
    mixture: Mixture,
    samples: Samples,
    control: Control,
    algorithm: Algorithm,
    equal_weights: bool,
    method: str,
    n_draws: int,
) -> tuple[Mixture, Array, Array, Parameters]:
    """Refit the mixture to the replicates of the given numbers.

    Returns:
      Refitted mixtures, codes of their ``Status``, their overlaps with the mixture, (K, K), and the
      parameters after their first step, each with a leading axis of replicates.
    """

    def refit_one(number: Array) -> tuple[Mixture, Array, Array, Parameters]:
        weights = METHODS[method](jax.random.fold_in(key, number), samples, n_draws)
        resampled = replace(samples, weights=weights)
        result = run_em_unchecked(mixture, resampled, control, algorithm)
        overlap = overlaps(mixture, result.mixture, samples)
        first, _ = one_step(mixture, resampled, control, equal_weights, form="difference")
        return result.mixture, result.status, overlap, parameters_of(first)

    return jax.vmap(refit_one)(numbers)
