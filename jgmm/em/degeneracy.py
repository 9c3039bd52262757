"""Degenerate components: collapsed ones, and spurious ones ("spikes") that are about to collapse.

The likelihood of a mixture is unbounded: it grows without limit when the covariance of a component
shrinks around samples that fill no volume. EM that shrinks a component in this way ends as
``COLLAPSED``. Around a few more samples the component stops shrinking, at a likelihood that is as
high and says as little about the data. Such a fit ends as ``DEGENERATE``, and is chosen only if no
other fit is valid. There are three kinds of such components:

- The component has fewer rows than its covariance needs to be nonsingular.
- It is much thinner than the others, and so few rows are so close to each other by chance: among
  the samples of another component there are such rows, too.
- It is as thin as the ridge or the floor allows. Without them it would shrink further.

Rows are counted so that the scale of the weights and repeated rows do not matter
(``Statistics.effective_counts``). ``experiments/trust/spikes.py`` measures the error rates.

Reference: McLachlan & Peel (2000), section 3.10, on spurious local maximisers; Sanov (1957) on the
probability that samples of one distribution look like those of another.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import entr
from jaxtyping import Array, Bool, Float, Int

from jgmm._core.status import VALID, Status, among
from jgmm._data.samples import Standardization
from jgmm.mixture.mixture import Mixture

# A component is thin if its variances are THIN times smaller than the mean over components, in the
# harmonic mean over directions. Only thin components are spurious by chance: others cost little.
THIN = 20
# A thin component is spurious if the logarithm of the number of sets of rows that look like it by
# chance is above this one. EM searches for the most extreme sets, so that the number may be small:
# spikes had -8 to 0, true clusters outside of the others -5000 to -37.
LOG_EXPECTED = -15.0
# A component rests on the floor if a variance is below the floor times one plus this number, which
# is much larger than rounding errors.
FLOOR_TOLERANCE = 1e-3
# A component rests on the ridge if a variance without the ridge is smaller than the ridge. Where
# the data's own variance is below so many ridges, the ridge is there to make up for it.
OWN_VARIANCE = 8


def spurious_components(
    mixture: Mixture, counts: Float[Array, "K"], may_be_few: bool = False
) -> Bool[Array, "K"]:
    """Find spurious components, independently of the units of the data.

    With n the smallest number of rows for which a covariance of the model is nonsingular,
    component k is spurious if

        Nₖ < n,  or  its thinness is above 20 and log E > -15

    where log E is what ``log_expected`` returns.

    Args:
      mixture: at the end of a fit.
      counts: the effective number of distinct rows of each component, Nₖ.
      may_be_few: whether fewer than n rows do not matter, because a prior makes the covariance
        nonsingular.

    Returns:
      True for spurious components, (K,). All are False where the components share what could
      shrink (``min_samples`` of the model is zero).
    """
    entry, d = mixture.model, mixture.n_features
    min_samples, used = entry.min_samples(d), mixture.log_weights > -jnp.inf
    if not min_samples:
        return jnp.zeros_like(used)
    thin = thinness(mixture) > THIN
    by_chance = log_expected(mixture, counts) > LOG_EXPECTED
    few = (counts < min_samples) & (not may_be_few)
    return used & (few | (thin & by_chance))


def thinness(mixture: Mixture) -> Float[Array, "K"]:
    """How many times smaller the variances of each component are than the mean over components.

    tr(Σₖ⁻¹ W) / D with W = Σₖ πₖ Σₖ, the harmonic mean over directions; (K,).
    """
    storage, d = mixture.model.storage, mixture.n_features
    within = _weighted_sum(mixture, storage.covariance(mixture.scale))
    return storage.trace_ratio(mixture.scale, within, d) / d


def log_expected(mixture: Mixture, counts: Float[Array, "K"]) -> Float[Array, "K"]:
    """Log of how many sets of rows look like each component by chance.

    The rows of component k may be a set of rows of another component: of the one into which both
    would merge, with n rows, mean μ and covariance Σ. There are C(n, Nₖ) sets of Nₖ rows, and Nₖ
    draws have the moments of component k with a probability that falls like exp(−Nₖ KL):

        log E = log C(n, Nₖ) − Nₖ KL(N(μₖ, Σₖ) ‖ N(μ, Σ))

    A few draws have a small determinant more often than that: with M the fewest rows of a
    nonsingular covariance, its logarithm is counted Nₖ − M + 1 times instead of Nₖ times, as
    follows from the density of Wishart matrices.

    Args:
      mixture: with a covariance of its own for every component.
      counts: Nₖ, the effective number of distinct rows of each component.

    Returns:
      The largest of these, over the other components and over all of them together, (K,).
    """
    used = mixture.log_weights > -jnp.inf
    counts = jnp.where(used, counts, 0)
    pairs = _by_merging(mixture, counts)
    may_explain = used[None, :] & ~jnp.eye(mixture.n_components, dtype=bool)
    pairs = jnp.where(may_explain, pairs, -jnp.inf)
    return jnp.maximum(pairs.max(axis=1), _among_all(mixture, counts))


def _by_merging(mixture: Mixture, counts: Float[Array, "K"]) -> Float[Array, "K K"]:
    """``log_expected`` for component k, merged with component j, in this order.

    Where component k is thin, both merge into Σ = a (Σⱼ + b δ δᵀ) with the shares a and b of j and
    k, δ = μₖ − μⱼ, and the rule for determinants and inverses of such sums applies.
    """
    entry, d = mixture.model, mixture.n_features
    storage, means = entry.storage, mixture.means
    inverse = storage.invert(mixture.scale)
    traces = storage.traces(inverse, storage.covariance(mixture.scale), d).T
    distances = jax.vmap(lambda mean: storage.distance(inverse, mean[None, :] - means))(means)
    total = counts[:, None] + counts[None, :]
    b = counts[:, None] / total
    a = 1 - b
    stretch = 1 + b * distances
    log_root = storage.half_log_det(mixture.scale, d)
    log_ratio = log_root[None, :] + 0.5 * (d * jnp.log(a) + jnp.log(stretch)) - log_root[:, None]
    return _log_sets(
        mixture, counts[:, None], total, log_ratio, traces / a + a * distances / stretch
    )


def _among_all(mixture: Mixture, counts: Float[Array, "K"]) -> Float[Array, "K"]:
    """``log_expected`` of each component among all rows, whose moments are those of the mixture."""
    entry, d = mixture.model, mixture.n_features
    storage = entry.storage
    mean, whole = _moments(mixture)
    root = storage.root(whole)
    inverse = storage.invert(root)
    traces = storage.traces(inverse, storage.covariance(mixture.scale), d)[0]
    distances = storage.distance(inverse, mixture.means - mean[None, :])
    log_ratio = storage.half_log_det(root, d) - storage.half_log_det(mixture.scale, d)
    return _log_sets(mixture, counts, counts.sum(), log_ratio, traces + distances)


def _log_sets(mixture: Mixture, own: Array, total: Array, log_ratio: Array, spread: Array) -> Array:
    """Log of the expected number of sets of rows by chance.

    Args:
      mixture: its number of columns and its model are read.
      own: Nₖ, rows in a set.
      total: n, rows that there are.
      log_ratio: half the log of the ratio of both determinants, 1/2 log(|Σ| / |Σₖ|).
      spread: tr(Σ⁻¹ Σₖ) + |Σ^(-1/2) (μₖ − μ)|².
    """
    d = mixture.n_features
    log_number = total * (entr(own / total) + entr(1 - own / total))
    spare = jnp.maximum(own - (mixture.model.min_samples(d) - 1), 0)
    return log_number - spare * log_ratio - 0.5 * own * (spread - d)


def _moments(mixture: Mixture) -> tuple[Array, Array]:
    """Return the mean of a mixture, (D,), and its covariance as it is stored, leading axis 1."""
    storage, used = mixture.model.storage, mixture.log_weights > -jnp.inf
    mean = jnp.where(used, mixture.weights, 0) @ mixture.means
    covariances = storage.covariance(mixture.scale) + storage.outer(mixture.means - mean[None, :])
    return mean, _weighted_sum(mixture, covariances)[:1]


def resting_components(
    mixture: Mixture, ridge: Float[Array, "D D"], floor: Float[Array, "D D"] | None
) -> Bool[Array, "K"]:
    """Find the components that are as thin as the ridge or the floor allows, in some direction.

    Such a component has hardly any variance of its own there: its samples have equal values. It
    does not count where the data as a whole have no more variance than some ridges.

    Args:
      mixture: at the end of a fit.
      ridge: the covariance that is added to each, in the units of the mixture.
      floor: the covariance that bounds all others from below, or None.
    """
    storage, used = mixture.model.storage, mixture.log_weights > -jnp.inf
    covariances = storage.covariance(mixture.scale)
    _, whole = _moments(mixture)
    added = storage.from_dense(ridge[None])
    # In each direction the smaller one of both, roughly.
    lowest = 2 * storage.parallel_sum(added, whole / OWN_VARIANCE)
    given = jnp.trace(ridge) > 0
    rests = given & ~storage.exceeds(covariances, jnp.where(given, lowest, 0))
    if floor is not None:
        bound = (1 + FLOOR_TOLERANCE) * storage.from_dense(floor[None])
        rests = rests | ~storage.exceeds(covariances, bound)
    return used & rests


def _weighted_sum(mixture: Mixture, covariances: Array) -> Array:
    """Return Σₖ πₖ Cₖ, as many times as there are covariances."""
    used = mixture.log_weights > -jnp.inf
    weights = jnp.where(used, mixture.weights, 0)
    covariances = jnp.broadcast_to(covariances, (len(weights), *covariances.shape[1:]))
    summed = jnp.tensordot(weights, covariances, axes=1)
    return jnp.broadcast_to(summed[None], covariances.shape)


def mark_degenerate(
    before: Int[Array, "W"],
    after: Int[Array, "W"],
    collapsed: Int[Array, "W"],
    mixtures: Mixture,
    counts: Float[Array, "W K"],
    bounded: bool,
    ridge: Float[Array, "D D"] | None,
    floor: Float[Array, "D D"] | None,
) -> tuple[Int[Array, "W"], Int[Array, "W"]]:
    """Change the status of runs that have just ended with a spurious component to ``DEGENERATE``.

    Nothing is computed in steps in which no run has ended.

    Args:
      before, after: codes of the ``Status`` of W runs before and after a step.
      collapsed: the component of each that collapsed, or -1.
      mixtures: the parameters, leading axis W.
      counts: the effective number of distinct rows of each component.
      bounded: whether the objective includes a prior, which makes all covariances nonsingular.
      ridge, floor: see ``resting_components``; without a ridge only the floor matters.

    Returns:
      The codes, and the first component that has collapsed or is spurious, or -1.
    """
    ended = (before == Status.RUNNING) & among(after, VALID)

    def find(mixture: Mixture, counts: Array) -> Array:
        found = spurious_components(mixture, counts, may_be_few=bounded)
        return found if ridge is None else found | resting_components(mixture, ridge, floor)

    def mark() -> tuple[Array, Array]:
        found = jax.vmap(find)(mixtures, counts) & ended[:, None]
        spurious = found.any(axis=1)
        status = jnp.where(spurious, int(Status.DEGENERATE), after)
        return status, jnp.where(spurious, jnp.argmax(found, axis=1), collapsed)

    return lax.cond(ended.any(), mark, lambda: (after, collapsed))


def collapsed_components(updated: Mixture, before: Mixture, frame: Standardization) -> Array:
    """Find the components that have collapsed in an M-step, (K,).

    A component has collapsed when it has lost its samples, or when one of its variances, or the
    variance of a column given the others, is within the rounding error of the data. Where the
    standardization mixes columns (whitening), the rounding error is larger in directions in which
    the data vary little.

    Args:
      updated: parameters after the M-step, in standardized units: the data's variance is one.
      before: parameters before it. A component that was switched off there does not count.
      frame: the standardization.
    """
    entry = updated.model
    eps = jnp.finfo(updated.means.dtype).eps
    variances = entry.storage.variances(updated.scale, updated.n_features)
    conditional = entry.storage.conditional_variances(updated.scale)
    rounding = jnp.diagonal(frame.unit_variances()) if frame.rotates else 1.0
    # Negated, so that NaN counts as collapsed.
    tiny = ~(conditional > (8 * eps) ** 2 * jnp.atleast_1d(rounding)[None, :]).all(axis=1)
    flat = ~(conditional > 8 * eps * variances).all(axis=1) if entry.storage.ndim == 3 else tiny
    lost = updated.log_weights < jnp.log(eps) - jnp.log(updated.n_components)
    was_used = before.log_weights > -jnp.inf
    return (jnp.broadcast_to(tiny | flat, lost.shape) | lost) & was_used
