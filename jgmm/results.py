"""What a fit returns, and how it gets from the frame to the user's units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgmm.frame import Population
from jgmm.framing import to_user
from jgmm.lanes import Restarts, clean_history
from jgmm.mixture import Mixture
from jgmm.noise import Noise
from jgmm.prior import Prior, log_density, log_density_in
from jgmm.pytree import Leaf
from jgmm.status import Status, is_traced


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
    believed = log_density_in(prior, frame, mixture)
    returned = to_user(mixture, frame)
    user_prior = believed if prior is None else log_density(prior, returned)
    log_likelihood = log_likelihood - believed - shift
    shift = shift + believed - user_prior
    return FitResult(
        mixture=returned,
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
