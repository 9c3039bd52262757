"""The bootstrap of a fitted mixture: refit it to resampled data, and see how far it moves.

A replicate is the same samples with other weights, so that nothing is copied, and many replicates
are one compiled program:

    weighted       wₙ* ∝ Gamma(wₙ), which is N times a Dirichlet draw (Rubin 1981; Newton & Raftery
                   1994, the weighted-likelihood bootstrap; O'Hagan, Murphy, Scrucca & Gormley 2019
                   for mixtures). No sample is ever left out, so a small component survives.
    nonparametric  wₙ* ~ multinomial, how often n is drawn among N with replacement (Efron 1979)

Each is fitted by EM from the mixture itself, so that all replicates are of the same optimum. Their
components are then put into the order of the mixture's: of all orders the one in which the same
samples belong to components of the same number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jgmm._core import budget
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError, FitError
from jgmm._core.pytree import Leaf
from jgmm._core.status import VALID, tally
from jgmm._data.samples import Samples, whole_weights
from jgmm._data.validation import check_key, check_level
from jgmm.em.e_step import check_inputs
from jgmm.em.options import Control, make_control
from jgmm.fitting import single_run
from jgmm.mixture.mixture import Mixture
from jgmm.uncertainty.intervals import Parameters, Uncertainty, parameters_of, to_host
from jgmm.uncertainty.label_switching import overlaps, relabel


def weighted(key: Array, samples: Samples, n_draws: int) -> Float[Array, "N"]:
    """Weights wₙ* = N gₙ / Σ g, with gₙ ~ Gamma(wₙ): the sum of wₙ exponential variables."""
    del n_draws
    if samples.weights is None:
        drawn = jax.random.exponential(key, (samples.n_samples,), samples.x.dtype)
    else:
        counts = samples.weights > 0
        shape = jnp.where(counts, samples.weights, 1)
        drawn = jnp.where(counts, jax.random.gamma(key, shape, dtype=samples.x.dtype), 0)
    return drawn * (samples.total_weight() / drawn.sum())


def nonparametric(key: Array, samples: Samples, n_draws: int) -> Float[Array, "N"]:
    """How often each sample comes up in N draws with replacement, wₙ / N being its chance."""
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
    """What became of B refits of one mixture.

    Attributes:
      mixture: that was refitted.
      replicates: the refits, leading axis B, their components in the order of the mixture's.
      status: code of the ``Status`` of each, (B,).
      method: how the data were resampled.
    """

    mixture: Mixture
    replicates: Mixture
    status: Leaf
    method: str

    @property
    def valid(self) -> np.ndarray:
        """Which refits ended in parameters that can be used, (B,)."""
        return np.isin(np.asarray(self.status), VALID)

    @property
    def n_failed(self) -> int:
        """How many did not; they take no part in standard errors and intervals."""
        return int((~self.valid).sum())

    def __repr__(self) -> str:
        """One line that counts the outcomes."""
        return f"Bootstrap(method={self.method!r}, {tally(np.asarray(self.status))})"

    def uncertainty(self, level: float = 0.95) -> Uncertainty:
        """Standard errors and percentile intervals from the refits that ended valid.

        Args:
          level: share of the replicates that lies within an interval.

        Raises:
          FitError: fewer than two refits ended valid.
          DataError: a level that is no probability.
        """
        check_level(level)
        if self.valid.sum() < 2:
            raise FitError(
                f"Standard errors take at least two refits that ended valid: {self!r}. Try the "
                "weighted bootstrap, fewer components, or a ridge such as ridge=1e-6."
            )
        drawn = to_host(jax.vmap(parameters_of)(self.replicates))
        used = [each[self.valid] for each in drawn]
        tail = (1 - level) / 2
        return Uncertainty(
            to_host(parameters_of(self.mixture)),
            Parameters(*(each.std(axis=0, ddof=1) for each in used)),
            Parameters(*(np.quantile(each, tail, axis=0) for each in used)),
            Parameters(*(np.quantile(each, 1 - tail, axis=0) for each in used)),
            level,
            f"{self.method} bootstrap, {len(used[0])} replicates",
        )


def bootstrap(
    key: Key[Array, ""],
    mixture: Mixture,
    x: Any,
    sample_weight: Any = None,
    *,
    method: str = "weighted",
    n_replicates: int = 1000,
    tol: float | None = None,
    rtol: float | None = None,
    max_steps: int = 1000,
    ridge: float = 0.0,
    equal_weights: bool = False,
) -> Bootstrap:
    """Refit a mixture to resampled data, many times.

    Args:
      key: typed key; replicate b uses ``fold_in(key, b)``, whatever the number of replicates.
      mixture: a fit to these samples, where every refit starts; of any covariance model.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,): N samples are then Σ wₙ, and those of
        weight zero are missing. The nonparametric bootstrap draws whole samples, so it wants whole
        numbers.
      method: "weighted" or "nonparametric", see ``jgmm.uncertainty.bootstrap``.
      n_replicates: B. A standard error has a relative error of about 1/√(2B).
      tol, rtol, max_steps, ridge, equal_weights: as for ``jgmm.fit``; give those of the fit.

    Returns:
      A ``Bootstrap``; its ``uncertainty()`` has standard errors and intervals. A refit that failed
      is counted in ``n_failed``.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.

    A refit that leaves a component fewer samples than its covariance takes, counted by their
    weights, has failed. Where components overlap so much that a refit exchanges some of what
    belongs to them, the numbers say how sure one optimum of the likelihood is, not which of several
    is right.

    >>> import jax, jgmm
    >>> two = jgmm.make_mixture([0.5, 0.5], [[-3.0], [3.0]], [1.0, 1.0], "spherical")
    >>> x, _ = jgmm.sample(jax.random.key(0), two, 100)
    >>> found = run(jax.random.key(1), two, x, n_replicates=50)
    >>> found
    Bootstrap(method='weighted', 50 converged)
    >>> found.uncertainty().standard_error.means.shape
    (2, 1)
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    check_key(key)
    if method not in METHODS:
        raise DataError(f"unknown method {method!r}. Known: {', '.join(METHODS)}.")
    if n_replicates < 2:
        raise DataError(f"n_replicates must be at least 2; it is {n_replicates}.")
    n_draws = int(whole_weights(samples).sum()) if method == "nonparametric" else 0
    control = make_control(samples.x.dtype, tol, rtol, ridge)
    size = _batch_size(mixture, samples, max_steps, n_replicates)
    found = []
    for first in range(0, n_replicates, size):
        numbers = first + jnp.arange(size)
        refits = _refit(
            key, numbers, mixture, samples, control, max_steps, equal_weights, method, n_draws
        )
        found.append(jax.device_get(refits))
    # The last batch may have run on beyond B.
    parts = jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n_replicates], *found)
    refitted, status, overlap = parts
    return Bootstrap(mixture, relabel(refitted, overlap), jnp.asarray(status), method)


def _batch_size(mixture: Mixture, samples: Samples, max_steps: int, n_replicates: int) -> int:
    """How many replicates run side by side: few enough for memory, and all batches alike."""
    k, d = mixture.n_components, mixture.n_features
    each = samples.n_samples * (k * (d + 2) + 2) + max_steps
    most = max(1, budget.REFIT_BATCH_BYTES // (each * samples.x.dtype.itemsize))
    n_batches = -(-n_replicates // most)
    return -(-n_replicates // n_batches)


@partial(jit, static_argnums=(5, 6, 7, 8))
def _refit(
    key: Array,
    numbers: Array,
    mixture: Mixture,
    samples: Samples,
    control: Control,
    max_steps: int,
    equal_weights: bool,
    method: str,
    n_draws: int,
) -> tuple[Mixture, Array, Array]:
    """Mixtures refitted to replicates of the given numbers, their status, and overlap (K, K)."""

    def one(number: Array) -> tuple[Mixture, Array, Array]:
        weights = METHODS[method](jax.random.fold_in(key, number), samples, n_draws)
        result = single_run.run_em(
            mixture,
            samples.x,
            weights,
            tol=control.tol,
            rtol=control.rtol,
            ridge=control.ridge,
            max_steps=max_steps,
            equal_weights=equal_weights,
        )
        return result.mixture, result.status, overlaps(mixture, result.mixture, samples)

    return jax.vmap(one)(numbers)
