"""Expectation–maximisation: the closed-form M-step, one EM step, and the loop.

Each step takes parameters to parameters whose log-likelihood is no lower (Dempster, Laird & Rubin
1977), provided the ridge is zero. The log-likelihood reported always belongs to the parameters
reported with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jgmm import natural
from jgmm.acceleration import accelerated
from jgmm.covariance import MODELS, CovarianceModel, model
from jgmm.decomposition import trailing
from jgmm.degeneracy import collapsed_components, end_in_spike
from jgmm.lanes import Method, Restarts, clean_history
from jgmm.mixture import Mixture, reframe
from jgmm.natural import Digits
from jgmm.noise import Noise
from jgmm.precision import jit
from jgmm.prior import Prior, as_prior, log_density
from jgmm.samples import (
    Frame,
    Leaf,
    Population,
    Samples,
    as_samples,
    framed,
    make_samples,
    whitened,
)
from jgmm.statistics import (
    Form,
    Statistics,
    accumulate,
    accumulate_with,
    exact_where_needed,
    fitting,
    product_rows,
)
from jgmm.status import VALID, DataError, Status, among, is_traced


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Control:
    """When to stop, and how much to regularise; leaves, so that changing them compiles nothing.

    A fit has converged when the mean log-likelihood per sample changes by at most
    ``tol + rtol * |mean log-likelihood|`` in a step. ``ridge`` is added to every variance, as a
    fraction of the data's: one number, or one a column, (D,), where the frame scales by column.
    No variance in any direction is below ``floor``, as a fraction of the data's, or None.
    ``prior`` is that of the components, in the units of the data, or None.
    """

    tol: Leaf
    rtol: Leaf
    ridge: Leaf
    prior: Prior | None = None
    floor: Leaf | None = None


def make_control(
    dtype: Any,
    tol: Any,
    rtol: Any,
    ridge: Any,
    prior: Prior | None = None,
    floor: Any = None,
) -> Control:
    """Fill in defaults by dtype: tol 1e-8 in float64 and 1e-6 in float32, rtol 4 roundings.

    Raises:
      DataError: a tolerance or a ridge below zero, or a floor that is not above.
    """
    eps = float(jnp.finfo(dtype).eps)
    default = 1e-8 if eps < 1e-10 else 1e-6
    values = {
        "tol": default if tol is None else tol,
        "rtol": 4 * eps if rtol is None else rtol,
        "ridge": ridge,
    }
    for name, value in values.items():
        if not is_traced(value) and not np.all(np.asarray(value) >= 0):
            raise DataError(f"{name} must be at least zero; it is {value}.")
    if floor is not None and not is_traced(floor) and not 0 < floor < 1:
        raise DataError(f"floor must be a fraction of the data's variance, not {floor!r}.")
    leaves = {name: jnp.asarray(value, dtype) for name, value in values.items()}
    least = None if floor is None else jnp.asarray(floor, dtype)
    return Control(**leaves, prior=prior, floor=least)


def check_floor(floor: Any, entry: CovarianceModel) -> None:
    """Refuse a floor where covariances above it are not those the model estimates.

    Raises:
      DataError: with the models that bear one.
    """
    if floor is not None and not entry.bears_floor:
        known = ", ".join(each.name for each in MODELS.values() if each.bears_floor)
        raise DataError(
            f"{entry.name} takes no floor: raised one by one, its covariances would lose what they "
            f"share. These take one: {known}. Or give a ridge or a prior."
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FitResult:
    """A fitted mixture and how the fit ended.

    Attributes:
      mixture: the parameters.
      log_likelihood: Σₙ wₙ log p(xₙ) of exactly these parameters, in nats.
      log_prior: their log density under the prior, up to a constant; zero without one.
      status: code of a ``Status``, computed from what happened.
      n_steps: parameter updates made.
      history: log-likelihood and log prior together before each step, (max_steps + 1,), NaN beyond
        the last.
      collapsed: the component that collapsed, or ended as a spike, or -1.
      noise: the uniform component beside the mixture, or None.
      restarts: the outcome of every restart, or None where there was one start only. Its
        ``log_likelihood`` has the log prior in it, too: it is what restarts are compared by.
    """

    mixture: Mixture
    log_likelihood: Leaf
    log_prior: Leaf
    status: Leaf
    n_steps: Leaf
    history: Leaf
    collapsed: Leaf
    restarts: Restarts | None = None
    noise: Noise | None = None

    @property
    def objective(self) -> Array:
        """What was maximised: log-likelihood and log prior together."""
        return self.log_likelihood + self.log_prior

    def __repr__(self) -> str:
        """One line with what matters, or the shapes inside a transformation."""
        name = f"K={self.mixture.n_components}, covariance={self.mixture.covariance!r}"
        if is_traced(self) or jnp.ndim(self.status):
            return f"FitResult({name}, shape={jnp.shape(self.status)})"
        return (
            f"FitResult({name}, log_likelihood={float(self.log_likelihood):.6g}, "
            f"status={Status(int(self.status)).name}, n_steps={int(self.n_steps)})"
        )


def maximize(
    statistics: Statistics,
    covariance: str,
    ridge: Any = 0.0,
    scale: Array | None = None,
    equal_weights: bool = False,
    prior: Prior | None = None,
    least: Array | None = None,
) -> Mixture:
    """The M-step: the parameters that maximise the expected complete-data log-likelihood.

        πₖ = Nₖ / N,   μₖ = Σₙ γₙₖ xₙ / Nₖ,   Σₖ by the covariance model from
        Sₖ = Σₙ γₙₖ (xₙ − μₖ)(xₙ − μₖ)ᵀ

    Args:
      statistics: from any number of samples.
      covariance: name of the covariance model.
      ridge: added to every variance, in the units of the statistics, one number or one a column; or
        a matrix that is added to every covariance, (1, D, D), see ``ridge_in``.
      scale: that of the mixture before. Models whose covariances have no closed form start from it,
        and do not end lower; without it they find a start.
      equal_weights: πₖ = 1/K instead, for the components that have samples.
      prior: of the components, in the units of the statistics. Its log density is maximised along
        with the expected log-likelihood: with x̄ₖ the mean above,

            μₖ = (Nₖ x̄ₖ + κ m) / (Nₖ + κ),   Σₖ from Nₖ + ν + D + 2 samples with the scatter
            Sₖ + Λ + κ Nₖ / (κ + Nₖ) (x̄ₖ − m)(x̄ₖ − m)ᵀ
      least: a covariance (D, D) that all are to exceed in every direction.

    A component without samples keeps its center and gets weight zero and the unit covariance.
    Reference: Bishop (2006), equations 9.24 to 9.26; Celeux & Govaert (1995); Fraley & Raftery
    (2007).
    """
    entry = model(covariance)
    counts = statistics.counts
    shift = statistics.first / jnp.where(counts > 0, counts, 1)[:, None]
    weighted = jnp.sqrt(counts)[:, None] * shift
    unit = entry.storage.identity(shift.shape[1], shift.dtype)
    # A ridge on the scatter: added to the covariances it would not leave every model its form.
    if jnp.ndim(ridge) < 3:
        each = jnp.broadcast_to(jnp.asarray(ridge, unit.dtype), shift.shape[1:])
        ridge = entry.storage.stretch(unit, each)
    cross = entry.storage.outer(weighted) - trailing(counts, unit) * ridge
    scatter, n_scattered = statistics.second - entry.pool(cross), counts
    if prior is not None:
        seen_before = _seen_before(prior, counts, statistics.center + shift, entry)
        shift = shift + seen_before.moves
        scatter = scatter + entry.pool(seen_before.scatter)
        n_scattered = counts + seen_before.counts
    if least is None:
        scale = entry.estimate(n_scattered, scatter, scale)
    else:
        scale = entry.estimate_above(n_scattered, scatter, entry.storage.compress(least[None]))
    log_weights = jnp.log(counts / counts.sum())
    return Mixture(
        _even(log_weights) if equal_weights else log_weights,
        statistics.center + shift,
        scale,
        entry.name,
    )


class _SeenBefore(NamedTuple):
    """What a prior adds to each component: counts (K,), scatter, and where its mean moves to."""

    counts: Array
    scatter: Array
    moves: Array


def _seen_before(
    prior: Prior, counts: Float[Array, "K"], means: Float[Array, "K D"], entry: CovarianceModel
) -> _SeenBefore:
    """The prior as samples that components with some of their own have seen before."""
    used = counts > 0
    toward = prior.mean[None, :] - means
    share = jnp.where(used, prior.strength / jnp.where(used, counts + prior.strength, 1), 0)
    between = entry.storage.outer(jnp.sqrt(share * counts)[:, None] * toward)
    scatter = prior.scatter(entry) + between
    return _SeenBefore(
        jnp.where(used, prior.pseudo_samples(), 0),
        jnp.where(trailing(counts, scatter) > 0, scatter, 0),
        share[:, None] * toward,
    )


def _even(log_weights: Float[Array, "K"]) -> Float[Array, "K"]:
    """The same weight for all components that are not switched off."""
    used = log_weights != -jnp.inf
    return jnp.where(used, -jnp.log(used.sum().astype(log_weights.dtype)), -jnp.inf)


def ridge_in(frame: Frame, ridge: Any) -> Array:
    """What to add in a frame, for ``ridge`` times the data's variance to be added in every column.

    Args:
      frame: of the samples.
      ridge: fraction of the data's variance, one number or one a column, (D,).

    Returns:
      The same where the frame scales columns, and a matrix (1, D, D) where it turns them.
    """
    return frame.unit_variances(ridge)[None] if frame.turns else jnp.asarray(ridge)


def m_step(
    x: Any,
    responsibilities: Any,
    covariance: str = "full",
    sample_weight: Any = None,
    ridge: float = 0.0,
    prior: Any = None,
) -> Mixture:
    """Parameters from responsibilities: the closed-form M-step.

    Args:
      x: samples in rows, (N, D).
      responsibilities: γₙₖ ≥ 0, (N, K); rows sum to one.
      covariance: name of the covariance model.
      sample_weight: how many times each sample counts, (N,).
      ridge: added to every variance, as a fraction of the data's; zero is allowed.
      prior: of the components, see ``jgmm.fit``.

    Returns:
      The mixture. A component whose covariance is singular has NaN in its scale.

    Raises:
      DataError: see ``as_samples``; or responsibilities of another shape, or below zero.

    >>> import jgmm
    >>> jgmm.m_step([[0.0], [2.0], [9.0]], [[1, 0], [1, 0], [0, 1]], "tied").means
    Array([[1.],
           [9.]], dtype=float32)
    """
    samples = make_samples(x, sample_weight)
    resp = as_samples(responsibilities, "responsibilities", samples.weights)
    resp = resp.astype(samples.x.dtype)
    if len(resp) != samples.n_samples:
        raise DataError(f"responsibilities have {len(resp)} rows; x has {samples.n_samples}.")
    if samples.weights is not None:  # a missing row may hold anything
        resp = jnp.where(samples.weights[:, None] > 0, resp, 0)
    if not is_traced(resp) and bool((resp < 0).any()):
        row = int(jnp.argmax((resp < 0).any(axis=1)))
        raise DataError(f"responsibilities must be at least zero; row {row} holds {resp[row]}.")
    believed = as_prior(prior, samples, resp.shape[1])
    added = jnp.asarray(ridge, resp.dtype)
    return _m_step(samples, resp, model(covariance).name, added, believed)


@partial(jit, static_argnums=2)
def _m_step(
    samples: Samples, resp: Array, covariance: str, ridge: Array, prior: Prior | None
) -> Mixture:
    inside = seen(samples, model(covariance))
    frame = inside.frame
    statistics = from_responsibilities(inside, lambda rows: resp[rows], resp.shape[1], covariance)
    added, believed = ridge_in(frame, ridge), prior and prior.seen(frame)
    return to_user(maximize(statistics, covariance, added, prior=believed), frame)


def from_responsibilities(
    samples: Samples, resp: Any, n_components: int, covariance: str
) -> Statistics:
    """Statistics of given responsibilities, about their own means.

    Args:
      samples: N samples in their frame.
      resp: ``rows (B,) -> responsibilities (B, K)``; called block by block, twice.
      n_components: K.
      covariance: name of the covariance model.

    The first pass finds the means, the second takes moments about them.
    """
    entry = model(covariance)

    def infer(difference: Array, rows: Array) -> tuple[Array, Array]:
        return jnp.zeros(difference.shape[2], difference.dtype), resp(rows).T

    origin = jnp.zeros((n_components, samples.n_features), samples.x.dtype)
    rough = accumulate_with(infer, samples, origin, entry)
    center = rough.first / jnp.where(rough.counts > 0, rough.counts, 1)[:, None]
    return accumulate_with(infer, samples, center, entry)


def em_step(
    mixture: Mixture, x: Any, sample_weight: Any = None, ridge: float = 0.0, prior: Any = None
) -> tuple[Mixture, Float[Array, ""]]:
    """One E-step and one M-step.

    Args:
      mixture: current parameters, in the units of x.
      x, sample_weight, ridge, prior: as for ``jgmm.fit``.

    Returns:
      The updated mixture, and the log-likelihood of the mixture passed in, in nats.

    Raises:
      DataError: see ``as_samples``; or another number of columns than the mixture's.
    """
    mixture, samples = fitting(mixture, x, sample_weight)
    believed = as_prior(prior, samples, mixture.n_components)
    return _em_step(mixture, samples, jnp.asarray(ridge, samples.x.dtype), believed)


@jit
def _em_step(
    mixture: Mixture, samples: Samples, ridge: Array, prior: Prior | None
) -> tuple[Mixture, Array]:
    inside = seen(samples, mixture.model)
    before = to_frame(mixture, inside.frame)
    statistics = accumulate(before, inside)
    added, believed = ridge_in(inside.frame, ridge), prior and prior.seen(inside.frame)
    updated = maximize(statistics, mixture.covariance, added, before.scale, prior=believed)
    shift = samples.total_weight() * inside.frame.log_volume()
    return to_user(updated, inside.frame), statistics.log_likelihood - shift


def to_frame(mixture: Mixture, frame: Frame) -> Mixture:
    """The mixture as seen in the frame."""
    # Subtract before dividing: the difference of two large numbers is exact, their quotients not.
    centred = replace(mixture, means=mixture.means - frame.shift[None, :])
    return reframe(centred, jnp.zeros_like(frame.shift), frame.inverse)


def seen(samples: Samples, entry: CovarianceModel) -> Samples:
    """Samples in the frame that suits a covariance model: whitened where it keeps its form."""
    inside = framed(samples, entry.per_column)
    return whitened(inside) if entry.affine else inside


def to_user(mixture: Mixture, frame: Frame) -> Mixture:
    """The mixture in the user's units."""
    return reframe(mixture, frame.shift, frame.scale)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lane:
    """One run of EM: what the next step needs, and how things stand.

    ``exact`` says that products will not do any more: the end is near and they are rough, or a
    component has vanished in them. ``noise`` is that beside the mixture, in the frame, or None.
    """

    mixture: Mixture
    log_likelihood: Leaf
    n_steps: Leaf
    status: Leaf
    collapsed: Leaf
    exact: Leaf
    noise: Noise | None = None


class Judgement(NamedTuple):
    """What an E-step says of a lane.

    Attributes:
      updated: where the M-step leads.
      status: code of a ``Status``.
      broken: components that the M-step has broken, (K,).
      spent: the steps have run out.
      again: the step failed by products, and is to be taken again by differences.
      insist: from here on differences only.
    """

    updated: Mixture
    status: Array
    broken: Array
    spent: Array
    again: Array
    insist: Array


# Where a run begins: a mixture in the frame, or one with noise beside it.
Start = Mixture | tuple[Mixture, Noise]


@dataclass(frozen=True)
class EM:
    """Expectation–maximisation as a ``lanes.Method``; a start is a mixture in the frame.

    ``scouting`` goes by rough products to the end, and leaves it to others to confirm that.
    """

    max_steps: int
    equal_weights: bool = False
    scouting: bool = False

    def scout(self) -> EM:
        """EM that takes no differences where rough products find the way."""
        return replace(self, scouting=True)

    def begin(self, start: Start) -> Lane:
        """The lane before its first step; a start may have noise with it."""
        start, noise = (start, None) if isinstance(start, Mixture) else start
        if self.equal_weights:
            start = replace(start, log_weights=_even(start.log_weights))
        dtype = start.means.dtype
        return Lane(
            start,
            jnp.asarray(-jnp.inf, dtype),
            jnp.asarray(0),
            jnp.asarray(int(Status.RUNNING)),
            jnp.asarray(-1),
            jnp.asarray(False),
            noise,
        )

    def step(self, lanes: Lane, samples: Samples, control: Control) -> Lane:
        """One step of every lane: E-step of the current parameters; then stop there, or M-step."""
        return self.advance(lanes, *self.expect(lanes, samples), samples, control)

    def advance(
        self,
        lanes: Lane,
        statistics: Statistics,
        digits: Digits,
        population: Population,
        control: Control,
    ) -> Lane:
        """What of a step follows its E-step, given what ``expect`` returns for all samples."""
        statistics = self.believing(lanes, statistics, population, control)

        def one(lane: Lane, sums: Statistics, digits: Digits) -> Lane:
            return self._step(lane, sums, digits, population, control)

        return jax.vmap(one)(lanes, statistics, digits)

    def expect(self, lanes: Any, samples: Samples) -> tuple[Statistics, Digits]:
        """Statistics of every lane, by products where they may be used.

        Args:
          lanes: with a leading axis; of them ``mixture``, ``noise``, ``status`` and ``exact`` are
            read.
          samples: in the frame.

        Returns:
          The statistics, and whether they are safe or rough products, or neither, (W,).
        """
        digits = jax.vmap(natural.digits)(lanes.mixture)
        digits = Digits(digits.is_safe & ~lanes.exact, digits.is_rough & ~lanes.exact)
        entry, (n_lanes, n_components) = lanes.mixture.model, lanes.mixture.log_weights.shape
        rows = product_rows(entry, samples, n_components, n_lanes)

        def pass_over(lane: tuple[Mixture, Noise | None], form: Form) -> Statistics:
            mixture, noise = lane
            size = rows if form == "product" else None
            background = None if noise is None else noise.background()
            return accumulate(mixture, samples, None, size, form, background)

        seen = lanes.mixture, lanes.noise
        products = jax.vmap(partial(pass_over, form="product"))(seen)
        fine = digits.is_safe | digits.is_rough | (lanes.status != Status.RUNNING)
        exact = partial(pass_over, form="difference")
        return exact_where_needed(fine, products, exact, seen), digits

    def believing(
        self, lanes: Any, statistics: Statistics, population: Population, control: Control
    ) -> Statistics:
        """The same statistics with the log prior in their log-likelihood.

        It is both together that EM increases, and that all that comes after compares.
        """
        log_prior = jax.vmap(partial(_log_prior, control.prior, population.frame))(lanes.mixture)
        return replace(statistics, log_likelihood=statistics.log_likelihood + log_prior)

    def judge(
        self,
        lane: Any,
        statistics: Statistics,
        digits: Digits,
        samples: Population,
        control: Control,
    ) -> Judgement:
        """The M-step from where a lane is, and how things stand before it."""
        log_likelihood = statistics.log_likelihood
        before = lane.mixture
        added = ridge_in(samples.frame, control.ridge)
        prior = control.prior and control.prior.seen(samples.frame)
        least = self.least(control, samples)
        updated = maximize(
            statistics, before.covariance, added, before.scale, self.equal_weights, prior, least
        )
        broken = collapsed_components(updated, before, samples.frame)
        # Only a start can be singular before the step: from then on a collapse has ended the fit.
        singular = collapsed_components(before, before, samples.frame)
        broken = jnp.where(jnp.isfinite(log_likelihood), broken, singular)
        spent = lane.n_steps >= self.max_steps
        total = samples.total_weight()
        status = _judge(lane, log_likelihood, broken, updated, total, spent, control)
        # What rough products call the end, differences have yet to confirm. Nor may the
        # log-likelihood fall: where it does, rounding is larger than the steps.
        fell = log_likelihood < lane.log_likelihood
        confirm = digits.is_rough & (fell | among(status, VALID))
        # A component that a step makes much narrower may vanish in the products before it; such a
        # step is taken again, by differences.
        failed = (Status.COLLAPSED, Status.NON_FINITE_PARAMETERS)
        again = (digits.is_safe | digits.is_rough) & among(status, failed)
        status = jnp.where(confirm | again, int(Status.RUNNING), status)
        insist = again | (confirm & (not self.scouting))
        return Judgement(updated, status, broken, spent, again, insist)

    def least(self, control: Control, population: Population) -> Array | None:
        """The covariance, seen in the frame, that a floor keeps all others above, or None."""
        if control.floor is None:
            return None
        return population.frame.unit_variances(control.floor)

    def judge_end(
        self,
        status: Array,
        broken: Array,
        mixture: Mixture,
        total: Array,
        population: Population,
        control: Control,
    ) -> tuple[Array, Array]:
        """``end_in_spike`` under the prior and the floor there are."""
        bounded, least = control.prior is not None, self.least(control, population)
        return end_in_spike(status, broken, mixture, total, bounded, least)

    def _step(
        self,
        lane: Lane,
        statistics: Statistics,
        digits: Digits,
        samples: Population,
        control: Control,
    ) -> Lane:
        found = self.judge(lane, statistics, digits, samples, control)
        total = samples.total_weight()
        noise = lane.noise and lane.noise.left_by(statistics.counts, total)
        if lane.noise is not None:
            total = total * (1 - lane.noise.weight)
        status, which = self.judge_end(
            found.status, found.broken, lane.mixture, total, samples, control
        )
        going_on = (status == Status.RUNNING) & ~found.spent & ~found.again
        mixture, noise = jax.tree.map(
            lambda new, old: jnp.where(going_on, new, old),
            (found.updated, noise),
            (lane.mixture, lane.noise),
        )
        stepped = Lane(
            mixture=mixture,
            log_likelihood=jnp.where(found.again, lane.log_likelihood, statistics.log_likelihood),
            n_steps=jnp.where(going_on, lane.n_steps + 1, lane.n_steps),
            status=status,
            collapsed=which,
            exact=lane.exact | found.insist,
            noise=noise,
        )
        ended = lane.status != Status.RUNNING
        return jax.tree.map(lambda old, new: jnp.where(ended, old, new), lane, stepped)


def _log_prior(prior: Prior | None, frame: Frame, mixture: Mixture) -> Array:
    """Log density under a prior of a mixture seen in a frame, zero without a prior."""
    if prior is None:
        return jnp.zeros((), mixture.means.dtype)
    return log_density(prior.seen(frame), mixture)


def _judge(
    lane: Any,
    log_likelihood: Array,
    broken: Array,
    updated: Mixture,
    total: Array,
    spent: Array,
    control: Control,
) -> Array:
    """The status after an E-step, the first that applies."""
    change = jnp.abs(log_likelihood - lane.log_likelihood) / total
    close = change <= control.tol + control.rtol * jnp.abs(log_likelihood) / total
    finite = jnp.isfinite(updated.means).all()
    rules = (
        (
            ~jnp.isfinite(log_likelihood),
            jnp.where(broken.any(), int(Status.COLLAPSED), int(Status.NON_FINITE_PARAMETERS)),
        ),
        (close, Status.CONVERGED),
        (spent, Status.STEPS_RAN_OUT),
        (broken.any(), Status.COLLAPSED),
        (~finite, Status.NON_FINITE_PARAMETERS),
    )
    return jnp.select(
        [rule for rule, _ in rules], [jnp.asarray(s, int) for _, s in rules], int(Status.RUNNING)
    )


def finish(
    mixture: Mixture,
    log_likelihood: Array,
    lane: Any,
    history: Array,
    table: Restarts | None,
    samples: Population,
    prior: Prior | None = None,
    noise: Noise | None = None,
) -> FitResult:
    """The outcome of a lane, and of all restarts, carried from the frame to the user's units.

    Args:
      mixture: in the frame.
      log_likelihood: with the log prior in it, as in ``history`` and ``table``.
      lane: of it ``status``, ``n_steps`` and ``collapsed`` are read.
      history, table: of the lane, and of all.
      samples: in the frame.
      prior: of the components, in the user's units.
      noise: beside the mixture, in the frame.
    """
    # Inside a transformation data are not inspected; one bad value spoils the frame.
    frame = samples.frame
    usable = jnp.isfinite(frame.shift).all() & jnp.isfinite(frame.scale).all()

    def status(codes: Array) -> Array:
        return jnp.where(usable, codes, int(Status.NON_FINITE_DATA))

    shift = samples.total_weight() * frame.log_volume()
    believed = _log_prior(prior, frame, mixture)
    user_prior = believed
    if prior is not None:
        n_used = (mixture.log_weights > -jnp.inf).sum().astype(believed.dtype)
        user_prior = believed - n_used * prior.pseudo_samples() * frame.log_volume()
    log_likelihood = log_likelihood - believed - shift
    shift = shift + believed - user_prior
    return FitResult(
        mixture=to_user(mixture, frame),
        log_likelihood=log_likelihood,
        log_prior=user_prior,
        status=status(lane.status),
        n_steps=lane.n_steps,
        history=clean_history(history, lane.n_steps) - shift,
        collapsed=jnp.where(usable, lane.collapsed, -1),
        noise=noise and noise.rescaled(frame.log_volume()),
        restarts=table
        and Restarts(
            table.log_likelihood - shift,
            status(table.status),
            table.n_steps,
            jnp.where(usable, table.collapsed, -1),
            table.best,
        ),
    )


def run(
    mixture: Mixture,
    x: Any,
    sample_weight: Any = None,
    *,
    tol: Any = None,
    rtol: Any = None,
    max_steps: int = 1000,
    ridge: Any = 0.0,
    equal_weights: bool = False,
    prior: Any = None,
    floor: Any = None,
    accelerate: str | None = None,
) -> FitResult:
    """Run EM from a given mixture until it converges.

    Args:
      mixture: where to start, in the units of x; its covariance model is kept.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,).
      tol: stop when the mean log-likelihood per sample changes by less, in nats.
      rtol: the same relative to the mean log-likelihood; see ``Control``.
      max_steps: M-steps at most; zero evaluates the mixture.
      ridge: added to every variance, as a fraction of the data's.
      equal_weights: give all components the same weight, from the start on.
      prior, floor: of the components, see ``jgmm.fit``.
      accelerate: a name in ``jgmm.extrapolation.SCHEMES``; None for EM as it is.

    Returns:
      A ``FitResult``; read its status. Works inside ``jit`` and under ``vmap``.

    Raises:
      DataError: see ``as_samples``; or another number of columns than the mixture's, or an unknown
        acceleration.
    """
    mixture, samples = fitting(mixture, x, sample_weight)
    believed = as_prior(prior, samples, mixture.n_components)
    check_floor(floor, mixture.model)
    control = make_control(samples.x.dtype, tol, rtol, ridge, believed, floor)
    method = accelerated(EM(max_steps, equal_weights), accelerate)
    return _run(mixture, samples, control, method)


@partial(jit, static_argnums=3)
def _run(mixture: Mixture, samples: Samples, control: Control, method: Method) -> FitResult:
    inside = seen(samples, mixture.model)
    start = method.begin(to_frame(mixture, inside.frame))
    history = jnp.full(method.max_steps + 1, jnp.nan, inside.x.dtype)

    def turn(carry: tuple[Any, Array]) -> tuple[Any, Array]:
        lanes, history = carry
        stepped = method.step(lanes, inside, control)
        return stepped, history.at[lanes.n_steps[0]].set(stepped.log_likelihood[0])

    ended, history = lax.while_loop(
        lambda carry: carry[0].status[0] == Status.RUNNING,
        turn,
        (jax.tree.map(lambda leaf: leaf[None], start), history),
    )
    lane = jax.tree.map(lambda leaf: leaf[0], ended)
    ended_at = lane.log_likelihood
    return finish(lane.mixture, ended_at, lane, history, None, inside, control.prior)
