"""What a fit returns, and how it gets from the frame to the user's units."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgmm._core.errors import FitError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._core.status import SENTENCES, USABLE, VALID, Status, score, tally
from jgmm._data.samples import HasTotals
from jgmm.mixture.mixture import Mixture, to_original
from jgmm.mixture.noise import Noise
from jgmm.mixture.prior import Prior, log_density, log_density_in


def raise_if_failed(result: FitResult) -> FitResult:
    """Return a result whose status is usable, and raise for any other.

    Inside a transformation nothing is raised: the caller reads ``result.status``.

    Args:
      result: what a fit returned, for one data set.

    Raises:
      FitError: no restart ended in usable parameters. The text counts the outcomes and names the
        component.
    """
    if is_traced(result) or result.status.ndim:
        return result
    status = Status(int(result.status))
    if status.is_usable:
        return result
    parts = [SENTENCES[status]]
    if status is Status.COLLAPSED:
        parts.insert(
            0, f"Component {int(result.collapsed)} collapsed after {int(result.n_steps)} steps."
        )
    if result.restarts is not None:
        parts.append(f"Outcomes of the restarts: {tally(result.restarts.status)}.")
    raise FitError(" ".join(parts))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Restarts:
    """What became of each of R restarts; leaves (R,), and the index of the one chosen."""

    log_likelihood: Leaf
    status: Leaf
    n_steps: Leaf
    collapsed: Leaf
    best: Leaf


def choose(table: Restarts) -> Array:
    """Index of the best outcome in a table, the first of equals; 0 when there is none.

    It is the best of the valid; where none is, the best of the usable.
    """
    valid, usable = (score(table.log_likelihood, table.status, codes) for codes in (VALID, USABLE))
    return jnp.argmax(jnp.where(jnp.isfinite(valid).any(), valid, usable))


def best_of(results: list[FitResult]) -> FitResult:
    """Return the best of several results of one problem, with the outcomes of all their restarts.

    Args:
      results: of batches of restarts, in order; every one has its ``restarts``.
    """
    if len(results) == 1:
        return results[0]
    tables = [result.restarts for result in results]
    whole = jax.tree.map(lambda *leaves: jnp.concatenate(jnp.atleast_1d(*leaves)), *tables)
    best = choose(whole)
    ends = [0]
    for table in tables:
        assert table is not None  # a batch of restarts always reports them
        ends.append(ends[-1] + len(table.status))
    batch = max(i for i, end in enumerate(ends[:-1]) if end <= int(best))
    return replace(results[batch], restarts=replace(whole, best=best))


def clean_history(history: Array, n_steps: Array) -> Array:
    """A lane's history with NaN beyond its last step: what a run before it left there."""
    return jnp.where(jnp.arange(history.shape[0]) <= n_steps, history, jnp.nan)


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


def to_result(
    mixture: Mixture,
    log_likelihood: Array,
    state: Any,
    history: Array,
    table: Restarts | None,
    samples: HasTotals,
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
    believed = log_density_in(prior, frame, mixture)
    returned = to_original(mixture, frame)
    user_prior = believed if prior is None else log_density(prior, returned)
    log_likelihood = log_likelihood - believed - shift
    shift = shift + believed - user_prior
    return FitResult(
        mixture=returned,
        log_likelihood=log_likelihood,
        log_prior=user_prior,
        status=status(state.status),
        n_steps=state.n_steps,
        history=clean_history(history, state.n_steps) - shift,
        collapsed=jnp.where(usable, state.collapsed, -1),
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
